#!/usr/bin/env bash
# Runs the test on a temporary server, if pgTAP is installed in that server.
# shellcheck source=scripts/example.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/example.sh"
cd "$here"

if [ "$(admin "select count(*) from pg_available_extensions where name = 'pgtap'")" = 0 ]; then
  say "pgTAP is not installed in this server: nothing to run"
  exit 0
fi
admin "create extension pgtap"
found=$("$PG_BIN/psql" -XqAt -f words.sql)
echo "$found"
[ "$(grep -c '^ok ' <<<"$found")" = 5 ] || die "not all of the 5 tests pass"
if grep -q '^not ok' <<<"$found"; then die "a test fails"; fi
say "the example works"
