#!/usr/bin/env bash
# Ten live flows of every kind under writers, ALTERs and kills of everything, for COCO_CHAOS_ROUNDS rounds (100). After
# each round every target is compared with its query. A failure names its seed: COCO_TEST_SEED repeats what writers do.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
COCO_CHAOS_ROUNDS=${COCO_CHAOS_ROUNDS:-100} "$ROOT/scripts/test.sh" faults::chaos:: --nocapture
