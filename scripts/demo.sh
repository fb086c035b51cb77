#!/usr/bin/env bash
# Thousands of real documents, chunked by a flow and kept up to date, on a throw-away server.
# DEMO_DOCUMENTS=5000 is how many at most.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/documents.sh
. "$ROOT/scripts/documents.sh"
"$ROOT/scripts/setup.sh"
use_server
limit=${DEMO_DOCUMENTS:-5000}

work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
cleanup() {
  "$ROOT/scripts/cluster.sh" stop "$work/pg" || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"   # the server's user passes through

find_documents "$limit" $((limit < 3000 ? limit : 3000))

say "build"
# Without connectors: the demo has no external target.
install_extension demo ""

url=$("$ROOT/scripts/cluster.sh" start "$work/pg")
psql=("$PG_BIN/psql" --no-psqlrc --set ON_ERROR_STOP=1 --quiet "$url")
load_documents
"${psql[@]}" -f "$ROOT/examples/demo/demo.sql"
