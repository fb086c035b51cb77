#!/usr/bin/env bash
# What takes longer than a test may: readers of a diamond of live flows under eight writers for COCO_SOAK_SECONDS (300),
# and the flows of COCO_TENANTS tenants (200), declared, changed and dropped three times over.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export COCO_SOAK_SECONDS=${COCO_SOAK_SECONDS:-300} COCO_TENANTS=${COCO_TENANTS:-200}
"$ROOT/scripts/test.sh" workers::chains::a_reader_sees sql::as_code::tenants::
