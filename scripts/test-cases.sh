#!/usr/bin/env bash
# The cases of tests/cases/ alone: what people ran into elsewhere, tried on flows. Arguments choose among them.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -gt 0 ] || set -- ""
"$ROOT/scripts/test.sh" "${@/#/sql::cases::}"
