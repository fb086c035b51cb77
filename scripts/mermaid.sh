#!/usr/bin/env bash
# Reads a diagram with Mermaid's own parser.
#   mermaid.sh setup    fetch it into .tools/ (read does too)
#   mermaid.sh read     a flowchart from standard input; prints its nodes and edges as JSON
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
here=$ROOT/scripts/mermaid
packages=$ROOT/.tools/mermaid

usage() { sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }

setup() {
  mkdir -p "$ROOT/.tools"
  # One at a time: several tests may start at once.
  exec 9>"$ROOT/.tools/mermaid.lock"
  flock 9
  cmp -s "$here/package-lock.json" "$packages/.fetched" && return
  if ! have npm; then
    apt_install nodejs npm || die "node and npm are missing, please install them"
  fi
  say "fetching Mermaid into $packages"
  rm -rf "$packages"
  mkdir -p "$packages"
  cp "$here"/package*.json "$packages"
  (cd "$packages" && npm ci --silent --no-audit --no-fund --ignore-scripts >&2) ||
    die "npm could not fetch what scripts/mermaid/package.json lists"
  # Written last, so that an interrupted fetch is done again.
  cp "$here/package-lock.json" "$packages/.fetched"
}

case ${1:-} in
  setup) setup ;;
  read)
    setup
    # A module is looked for from where the script is.
    cp "$here/read.mjs" "$packages/read.mjs"
    exec 9>&-
    exec node "$packages/read.mjs"
    ;;
  *) usage ;;
esac
