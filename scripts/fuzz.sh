#!/usr/bin/env bash
# Random declarations by an ordinary role, and rows that a superuser forged in coco's own tables, for COCO_FUZZ_SECONDS
# (an hour). A failure names its seed: COCO_TEST_SEED repeats it.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
"$ROOT/scripts/setup.sh"
use_server
cd "$ROOT"
# shellcheck disable=SC2119  # not about this script's own arguments
install_extension
COCO_FUZZ_SECONDS=${COCO_FUZZ_SECONDS:-3600} COCO_TEST_PG_BIN="$PG_BIN" \
  cargo test --test fuzz --no-default-features --features "$PG_FEATURE connectors" -- --ignored --nocapture
