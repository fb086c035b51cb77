#!/usr/bin/env bash
# The examples of tools around coco, each against a temporary server: their packages come from PyPI.
#   test-examples.sh [NAME...]   all of them, or those named: alembic, dbt, django, notebook, pgtap
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
"$ROOT/scripts/setup.sh"
use_server
install_extension
if [ $# = 0 ]; then
  for run in "$ROOT"/examples/*/run.sh; do
    name=${run%/run.sh}
    set -- "$@" "${name##*/}"
  done
fi
for name in "$@"; do
  say "examples/$name"
  "$ROOT/examples/$name/run.sh"
done
