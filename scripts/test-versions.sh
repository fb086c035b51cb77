#!/usr/bin/env bash
# All tests on each PostgreSQL version, one after the other, and a table of the results. Each version has its own target
# directory, target/pgVERSION, and its log in target/versions/.
#   test-versions.sh                       15, 16, 17 and 18
#   VERSIONS="15 17" test-versions.sh      those
#   AGAIN=1 test-versions.sh               also those that have passed with the same sources
# A version that has passed is not tested again until the sources change, so an interrupted run goes on where it was.
# The servers: 15 of Debian 12, 16 of Maven Central and PyPI, 17 of Debian 13, 18 of PyPI. Debian's run in a root that
# debootstrap makes, which needs root, unless this machine is of that release.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
read -ra versions <<<"${VERSIONS:-15 16 17 18}"
results=$ROOT/target/versions
roots=${COCO_ROOTS:-$ROOT/.tools/roots}
mkdir -p "$results"
# As .ci/run: a build that is used once.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=line-tables-only
unset PG_CONFIG
trap 'exit 130' INT TERM

# What is tested: the commit, and the changes that are not committed.
sources() { { git rev-parse HEAD; git diff HEAD; git ls-files --others --exclude-standard -z | xargs -0r cat; } | sha256sum | cut -d ' ' -f 1; }

# debian VERSION SUITE COMMAND...: runs a command where Debian's server of this version is: here, or in a root.
debian() {
  local version=$1 suite=$2 here="" servers
  shift 2
  servers=("postgresql-$version" "postgresql-server-dev-$version" "postgresql-$version-pgvector")
  # shellcheck disable=SC1091  # not of this checkout
  here=$(. /etc/os-release && echo "${VERSION_CODENAME:-}") || true
  if [ "$here" = "$suite" ]; then
    # Not every release has pgvector; its tests then say so.
    apt_install "${servers[@]}" || apt_install "${servers[@]:0:2}" || die "PostgreSQL $version cannot be installed"
    env "PG_CONFIG=/usr/lib/postgresql/$version/bin/pg_config" "$@"
    return
  fi
  "$ROOT/scripts/debian-root.sh" make "$suite" "$roots/$suite"
  [ -e "$roots/$suite-build/.coco-root" ] || "$ROOT/scripts/debian-root.sh" copy "$roots/$suite" "$roots/$suite-build"
  # shellcheck disable=SC2016  # expanded in the root
  "$ROOT/scripts/debian-root.sh" run "$roots/$suite-build" bash -euc '
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends git python3 python3-pip locales-all procps curl "$@"' install "${servers[@]}"
  "$ROOT/scripts/debian-root.sh" run "$roots/$suite-build" env "PG_CONFIG=/usr/lib/postgresql/$version/bin/pg_config" "$@"
}

# run VERSION COMMAND...
run() {
  local version=$1
  shift
  case $version in
    15) debian 15 bookworm "$@" ;;
    16) env "PG_CONFIG=$(scripts/servers/postgres16.sh)" "$@" ;;
    17) debian 17 trixie "$@" ;;
    18) "$@" ;;
    *) die "\"$version\" is no version that is tested: 15, 16, 17 or 18" ;;
  esac
}

# counts LOG: passed, failed and ignored tests, of cargo's last lines of each binary.
counts() {
  sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored.*/\1 \2 \3/p' "$1" |
    awk '{ passed += $1; failed += $2; ignored += $3 } END { print passed + 0, failed + 0, ignored + 0 }'
}

failed=0
for version in "${versions[@]}"; do
  what=$(sources) log=$results/pg$version.log result=$results/pg$version.result
  if [ -z "${AGAIN:-}" ] && grep -qs "^$what passed " "$result"; then
    say "PostgreSQL $version has passed with these sources"
    continue
  fi
  say "PostgreSQL $version; the log is $log"
  rm -f "$result"
  began=$SECONDS outcome=passed
  # The server's own words for its version come first in the log.
  run "$version" env "CARGO_TARGET_DIR=$ROOT/target/pg$version" bash -c '
    scripts/setup.sh && . scripts/common.sh && use_server && "$PG_BIN/postgres" --version && exec scripts/test.sh
  ' </dev/null >"$log" 2>&1 || outcome=failed
  release=$(sed -nE 's/^postgres \(PostgreSQL\) ([0-9.]+).*/\1/p' "$log" | tail -n 1)
  read -r passed wrong ignored < <(counts "$log")
  # A run that failed before its tests has none; one without tests has not passed.
  [ "$passed" -gt 0 ] || outcome=failed
  echo "$what $outcome ${release:-?} $passed $wrong $ignored $(((SECONDS - began + 30) / 60))" >"$result"
  if [ "$outcome" = failed ]; then
    failed=1
    say "PostgreSQL $version failed; the end of its log:"
    tail -n 30 "$log" >&2
    grep -E '^test .* FAILED$' "$log" >&2 || true
  fi
done

echo
echo "| PostgreSQL | result | passed | failed | ignored | minutes |"
echo "|---|---|---|---|---|---|"
for version in "${versions[@]}"; do
  [ -e "$results/pg$version.result" ] || continue
  read -r _ outcome release passed wrong ignored minutes <"$results/pg$version.result"
  echo "| $release | $outcome | $passed | $wrong | $ignored | $minutes |"
done
exit $failed
