#!/usr/bin/env bash
# Search by meaning: a few hundred real documents in passages, each with its embedding by
# all-MiniLM-L6-v2, which runs here; kept up to date on a throw-away server.
# DEMO_CHARACTERS=550000 is how much text at most: about 1,200 passages.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/documents.sh
. "$ROOT/scripts/documents.sh"
"$ROOT/scripts/setup.sh"
use_server
[ -e "$("$PG_CONFIG" --sharedir)/extension/vector.control" ] || die "$PG_CONFIG has no pgvector, please install it"

work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
cleanup() {
  "$ROOT/scripts/servers/embeddings.sh" stop "$work/model" || true
  "$ROOT/scripts/cluster.sh" stop "$work/pg" || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"   # the server's user passes through

find_documents 3000 1000
say "build"
install_extension demo functions

say "a model that embeds"
model=$("$ROOT/scripts/servers/embeddings.sh" start "$work/model" --while $$)
url=$("$ROOT/scripts/cluster.sh" start "$work/pg")
psql=("$PG_BIN/psql" --no-psqlrc --set ON_ERROR_STOP=1 --quiet "$url")
load_documents
"${psql[@]}" --set model="$model" --set processors="$(nproc)" --set characters="${DEMO_CHARACTERS:-550000}" \
  -f "$ROOT/examples/search/search.sql"
