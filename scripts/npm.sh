# Sourced by the checks that use a package of npm's, after common.sh: fetching it.
# shellcheck shell=bash

# fetch_packages NAME WHAT: what scripts/NAME/package-lock.json lists into $packages, .tools/NAME.
fetch_packages() {
  local here=$ROOT/scripts/$1
  packages=$ROOT/.tools/$1
  mkdir -p "$ROOT/.tools"
  # One at a time: several tests may start at once.
  exec 9>"$ROOT/.tools/$1.lock"
  flock 9
  if ! cmp -s "$here/package-lock.json" "$packages/.fetched"; then
    if ! have npm; then
      apt_install nodejs npm || die "node and npm are missing, please install them"
    fi
    say "fetching $2 into $packages"
    rm -rf "$packages"
    mkdir -p "$packages"
    cp "$here"/package*.json "$packages"
    (cd "$packages" && npm ci --silent --no-audit --no-fund --ignore-scripts >&2) ||
      die "npm could not fetch what scripts/$1/package.json lists"
    # Written last, so that an interrupted fetch is done again.
    cp "$here/package-lock.json" "$packages/.fetched"
  fi
  exec 9>&-
}
