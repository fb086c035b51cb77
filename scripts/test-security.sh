#!/usr/bin/env bash
# The suites about trust alone: attacks by ordinary roles, by servers and by forged rows, rights, types, bound queries;
# and pgspot over the installed SQL.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
"$ROOT/scripts/setup.sh"
use_server
cd "$ROOT"

work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
cleanup() {
  "$ROOT/scripts/cluster.sh" stop "$work/pg" || true
  rm -rf "$work" 2>/dev/null || as_root rm -rf "$work" || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"   # the server's user passes through

# shellcheck disable=SC2119  # not about this script's own arguments
install_extension
"$ROOT/scripts/pgspot.sh"
suites=()
for suite in security rights types bound memo_forged hostile_servers; do
  if [ -e "tests/$suite.rs" ]; then suites+=(--test "$suite"); fi
done
url=$("$ROOT/scripts/cluster.sh" start "$work/pg" --fast)
COCO_TEST_URL="$url" COCO_TEST_PG_BIN="$PG_BIN" \
  cargo test "${suites[@]}" --no-default-features --features "$PG_FEATURE connectors"
