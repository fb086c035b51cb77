#!/usr/bin/env bash
# Reads a flowchart from standard input with Mermaid's own parser, and prints its nodes and edges as JSON.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/npm.sh
. "$ROOT/scripts/npm.sh"

fetch_packages mermaid Mermaid
# A module is looked for from where the script is. Another process may be reading the script.
cp "$ROOT/scripts/mermaid/read.mjs" "$packages/read.mjs.$$"
mv -f "$packages/read.mjs.$$" "$packages/read.mjs"
exec node "$packages/read.mjs"
