#!/usr/bin/env bash
# The cases of tests/cases/ alone: what people ran into elsewhere, tried on flows. Further arguments choose among them.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
"$ROOT/scripts/setup.sh"
use_server
cd "$ROOT"
# shellcheck disable=SC2119  # not about this script's own arguments
install_extension
# The test starts a server of its own.
COCO_TEST_PG_BIN="$PG_BIN" cargo test --test cases --no-default-features --features "$PG_FEATURE connectors" -- "$@"
