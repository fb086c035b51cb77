#!/usr/bin/env bash
# Generates docs/sql-reference.md from the COMMENTs of the extension in this checkout.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
"$ROOT/scripts/setup.sh"
use_server

work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
cleanup() {
  "$ROOT/scripts/cluster.sh" stop "$work/pg" || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"   # the server's user passes through

# shellcheck disable=SC2119  # not about this script's own arguments
install_extension
url=$("$ROOT/scripts/cluster.sh" start "$work/pg" --fast)
psql=("$PG_BIN/psql" --no-psqlrc --quiet --tuples-only --no-align "$url")
"${psql[@]}" -c 'CREATE EXTENSION coco'
# Writes to a temporary file first, so that an error leaves the document as it was.
"${psql[@]}" -f "$ROOT/scripts/reference.sql" >"$work/reference.md"
cp "$work/reference.md" "$ROOT/docs/sql-reference.md"
