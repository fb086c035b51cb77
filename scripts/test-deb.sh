#!/usr/bin/env bash
# Builds the Debian package for the server of Debian 12 (PostgreSQL 15) and that of Debian 13 (17), each in a Debian root
# of its release, and tries it in a clean one: the stock server, the package, a flow, and its removal without a trace.
# Needs root.
#   test-deb.sh                        both
#   CASES="trixie:17" test-deb.sh      those named: a release and a PostgreSQL of its packages
#   COCO_PROFILE=dev test-deb.sh       with builds of the tests' profile, which take less time
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
read -ra cases <<<"${CASES:-bookworm:15 trixie:17}"
roots=${COCO_ROOTS:-$ROOT/.tools/roots}
root=$ROOT/scripts/debian-root.sh
version=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" "$ROOT/coco.control")
clean=
trap '[ -z "$clean" ] || "$root" remove "$clean"' EXIT
trap 'exit 130' INT TERM

# build SUITE VERSION: the package, in a root of its own that keeps the build tools; sets `deb`.
build() {
  local suite=$1 pg=$2 build=$roots/$1-build
  [ -e "$build/.coco-root" ] || "$root" copy "$roots/$suite" "$build"
  say "PostgreSQL $pg and the build tools in $build"
  "$root" run "$build" bash -euc 'apt-get update -q >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
      "postgresql-$1" "postgresql-server-dev-$1" git python3 >&2' install "$pg"
  "$root" run "$build" env "PG_CONFIG=/usr/lib/postgresql/$pg/bin/pg_config" \
    "CARGO_TARGET_DIR=$ROOT/target/deb-$suite" scripts/deb.sh
  deb=$ROOT/dist/postgresql-$pg-coco_$version-1_$(dpkg --print-architecture).deb
}

# try SUITE VERSION DEB: with the extension image from PostgreSQL 18 on, in a clean copy of the release's root.
try() {
  local suite=$1 pg=$2 deb=$3
  say "PostgreSQL $pg in a clean $suite"
  clean=$roots/$suite-clean.$$
  "$root" copy "$roots/$suite" "$clean"
  if [ "$pg" -ge 18 ]; then
    "$ROOT/scripts/extension-image.sh" "$deb"
    "$root" run "$clean" tests/deb/try.sh "$pg" "$deb" "$ROOT/dist/coco-extension-$pg.tar"
  else
    "$root" run "$clean" tests/deb/try.sh "$pg" "$deb"
  fi
  "$root" remove "$clean"
  clean=
  say "$suite, PostgreSQL $pg: passed"
}

for case in "${cases[@]}"; do
  [[ $case =~ ^([a-z]+):([0-9]+)$ ]] || die "\"$case\" is no RELEASE:POSTGRESQL, as in trixie:17"
  mkdir -p "$roots"
  "$root" make "${case%:*}" "$roots/${case%:*}"
  deb=
  build "${case%:*}" "${case#*:}"
  try "${case%:*}" "${case#*:}" "$deb"
done
