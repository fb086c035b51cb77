#!/usr/bin/env bash
# Runs the notebook's cells as a script on a temporary server.
# shellcheck source=scripts/example.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/example.sh"
cd "$here"

found=$(python one_item.py)
echo "$found"
expect "0" "select count(*) from chunks"
for line in "public.chunks 1 The moon pulls the sea." "public.chunks 2 The sea follows." "new 1 Stones do not follow."; do
  grep -qxF "$line" <<<"$found" || die "missing: $line"
done
grep -q "Execution Time" <<<"$found" || die "the plan is missing"
say "the example works"
