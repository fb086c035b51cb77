#!/usr/bin/env bash
# Random declarations by an ordinary role, rows that a superuser forged in coco's own tables, and random texts, for
# COCO_FUZZ_SECONDS (an hour). A failure names its seed: COCO_TEST_SEED repeats it.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
COCO_FUZZ_SECONDS=${COCO_FUZZ_SECONDS:-3600} "$ROOT/scripts/test.sh" faults::fuzz:: --ignored --nocapture
