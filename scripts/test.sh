#!/usr/bin/env bash
# All tests: those of the crates that need no Postgres, the unit tests of the extension and the connectors, then those of
# the connectors against servers of their kind, and those of tests/ against a server with the extension installed.
#   test.sh                          all of them
#   test.sh FILTER... [--OPTION...]  those of a binary whose names contain the rest of the filter: `sql::capture::`,
#                                    `workers` (all of that binary), `core::decide`, `text::`, `connectors::target_kafka`,
#                                    `lib::query` (unit tests, of all packages). Options go to the binaries: --nocapture,
#                                    --exact, --ignored
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

# The binaries that are wanted, each once, in the order given. None: all.
binaries=() options=()
for argument in "$@"; do
  case $argument in
    --?*) options+=("$argument"); continue ;;
  esac
  binary=${argument%%::*}
  case $binary in
    core | report | text | connectors | lib) ;;
    *)
      [ -e "tests/$binary.rs" ] || [ -e "tests/$binary/main.rs" ] ||
        die "no tests/$binary.rs and no tests/$binary/main.rs: a filter begins with a binary, as in sql::capture::"
      ;;
  esac
  [[ " ${binaries[*]} " == *" $binary "* ]] || binaries+=("$binary")
done

"$ROOT/scripts/setup.sh"
use_server

# in_memory: whether this machine can keep the servers of the tests in memory. The tests create and drop hundreds of
# databases, each of hundreds of files; a file system on a disk takes ten times as long for that.
in_memory() {
  local probe=/dev/shm/coco.$$ works=false
  [ "$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo 2>/dev/null || echo 0)" -ge $((12 << 20)) ] || return 1
  [ "$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')" -ge $((8 << 20)) ] || return 1
  # Some containers allow no programs there, and some tests write one.
  { echo '#!/bin/sh' >$probe && chmod +x $probe && $probe && works=true; } 2>/dev/null
  rm -f $probe
  $works
}
if [ -z "${TMPDIR:-}" ] && in_memory; then export TMPDIR=/dev/shm; fi

work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
beside=
cleanup() {
  local status=$?
  if [ -n "$beside" ]; then
    kill -- "-$beside" 2>/dev/null || true
    wait "$beside" 2>/dev/null || true
    cat "$work/beside.log"
  fi
  if [ $status != 0 ] && [ -s "$work/pg/log" ]; then
    say "the end of the server's log"
    tail -n 60 "$work/pg/log" >&2
  fi
  "$ROOT/scripts/cluster.sh" stop "$work/pg" || true
  "$ROOT/scripts/cluster.sh" stop "$work/pg2" || true
  # Part of it may belong to the server's user.
  rm -rf "$work" 2>/dev/null || as_root rm -rf "$work" || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"   # the server's user passes through

together=("${TOGETHER[@]}" --no-default-features --features)

# As many at a time as there are processors, but each test may have a server of its own.
processors=$(getconf _NPROCESSORS_ONLN)
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((processors < 8 ? processors : 8))}

# units [ARGUMENT...]: the unit tests of all packages. The arguments are the binary's.
units() {
  cargo test --lib "${together[@]}" "$PG_FEATURE connectors documents code" -- "$@"
}

# against_a_server 'BINARY...' [ARGUMENT...]: the tests of these binaries. The arguments are the binaries'.
against_a_server() {
  local chosen=() binary
  for binary in $1; do chosen+=(--test "$binary"); done
  shift
  COCO_TEST_URL="$url" COCO_TEST_PG_BIN="$PG_BIN" \
    cargo test --no-fail-fast "${chosen[@]}" "${together[@]}" "$PG_FEATURE connectors documents code" -- "$@"
}

# Tests that mostly wait: for workers, and for servers of other kinds.
waiting=(workers main hostile_servers)

# all_others OUTPUT: the names of all other binaries, from what cargo says when it has built them.
all_others() {
  local name
  sed -n 's|^ *Executable tests/.* (.*/\(.*\)-[0-9a-f]*)$|\1|p' "$1" | while read -r name; do
    [[ " ${waiting[*]} " == *" $name "* ]] || printf '%s ' "$name"
  done
}

# all_against_servers [ARGUMENT...]: the tests of all binaries. Those that mostly wait run beside the others, against a
# server of their own; their output follows.
all_against_servers() {
  local failed=0 url2
  # First, because the two calls below would wait for each other.
  cargo test --no-run --tests "${together[@]}" "$PG_FEATURE connectors documents code" 2>&1 | tee "$work/built"
  url2=$("$ROOT/scripts/cluster.sh" start "$work/pg2" --fast)
  set -m
  (url=$url2 against_a_server "${waiting[*]}" "$@") >"$work/beside.log" 2>&1 &
  beside=$!
  set +m
  against_a_server "$(all_others "$work/built")" "$@" || failed=1
  wait "$beside" || failed=1
  beside=
  say "tests that mostly wait"
  cat "$work/beside.log"
  return $failed
}

install_and_start() {
  say "tests against a server, on $PG_FEATURE"
  # shellcheck disable=SC2119  # not about this script's own arguments
  install_extension
  url=$("$ROOT/scripts/cluster.sh" start "$work/pg" --fast)
}

if [ ${#binaries[@]} = 0 ]; then
  say "tests that need no Postgres"
  units "${options[@]}"
  install_and_start
  "$ROOT/scripts/pgspot.sh"
  PGHOST=$work/pg PGUSER=postgres "$ROOT/scripts/installcheck.sh"
  all_against_servers "${options[@]}"
  exit
fi

failed=0 url=
for binary in "${binaries[@]}"; do
  filters=()
  for argument in "$@"; do
    # One that is the binary's name alone is the empty filter, which all tests pass.
    case $argument in
      "$binary") filters+=("") ;;
      "$binary"::*) filters+=("${argument#"$binary"::}") ;;
    esac
  done
  case $binary in
    core | report | text) cargo test -p "coco-$binary" -- "${filters[@]}" "${options[@]}" || failed=1 ;;
    lib) units "${filters[@]}" "${options[@]}" || failed=1 ;;
    *)
      [ -n "$url" ] || install_and_start
      # The binary of the connectors' tests is that of crates/coco-connectors/tests/main.rs.
      against_a_server "${binary/#connectors/main}" "${filters[@]}" "${options[@]}" || failed=1
      ;;
  esac
done
exit $failed
