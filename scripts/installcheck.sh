#!/usr/bin/env bash
# A flow on a running server, with the extension as it is installed there: what `make installcheck` of other extensions
# does. libpq's variables (PGHOST, PGPORT, PGUSER, …) say which server; its role must be a superuser. Leaves nothing.
psql=("${PG_CONFIG:+$("$PG_CONFIG" --bindir)/}psql" --no-psqlrc --set ON_ERROR_STOP=1 --quiet --tuples-only --no-align)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)/tests/installcheck
database=coco_installcheck_$$
cleanup() { "${psql[@]}" -d postgres -c "drop database if exists $database with (force)" || true; }
trap cleanup EXIT
trap 'exit 130' INT TERM
"${psql[@]}" -d postgres -c "create database $database template template0"
"${psql[@]}" -d "$database" -f "$here/flow.sql" 2>&1 | diff -u "$here/flow.out" - || {
  echo "installcheck: a flow gives another result than $here/flow.out" >&2
  exit 1
}
echo "installcheck: passed"
