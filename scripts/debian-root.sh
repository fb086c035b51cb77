#!/usr/bin/env bash
# A Debian system in a directory, for builds and tests on another release than this machine's. Needs root.
#   debian-root.sh make SUITE DIR        make it with debootstrap, unless it is there: bookworm (Debian 12), trixie (13)
#   debian-root.sh copy DIR TO           copy it
#   debian-root.sh run DIR COMMAND...    run a command in it, in this checkout and as root. It sees the checkout and Rust
#                                        at the same places as here, with .tools and .pgrx of the root's own. Processes
#                                        and mounts end with the command
#   debian-root.sh remove DIR            remove it
# DEBIAN_MIRROR is where Debian's packages come from (http://deb.debian.org/debian).
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() { sed -n '3,9s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
[ $# -ge 2 ] || usage
is_root || die "only root can make and enter a Debian root: run it as root"
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${DEBIAN_SECURITY_MIRROR:-${mirror%/debian}/debian-security}

# The stamp is written last, so an interrupted debootstrap is done again.
make_root() {
  local suite=$1 dir
  dir=$(realpath -m "$2")
  [ ! -e "$dir/.coco-root" ] || return 0
  have debootstrap || apt_install debootstrap || die "debootstrap is missing, please install it"
  say "making a Debian root ($suite) in $dir"
  mkdir -p "$dir"
  # A release that is newer than the debootstrap of this machine is made as Debian's unstable one.
  local script=/usr/share/debootstrap/scripts/$suite
  [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$dir" "$mirror" "$script" >&2 || die "debootstrap failed"
  {
    echo "deb $mirror $suite main"
    # Debian's testing has neither.
    case $suite in
      forky | sid) ;;
      *)
        echo "deb $mirror $suite-updates main"
        echo "deb $security $suite-security main"
        ;;
    esac
  } >"$dir/etc/apt/sources.list"
  # As this machine reaches its mirror: proxies, and checks that a mirror of an older day cannot pass.
  if have apt-config; then
    apt-config dump | grep -E '^Acquire::(Check-|https?::|Retries)' >"$dir/etc/apt/apt.conf.d/90this-machine" || true
  fi
  # Installing a server neither starts it nor makes a cluster.
  printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d"
  chmod 755 "$dir/usr/sbin/policy-rc.d"
  mkdir -p "$dir/etc/postgresql-common"
  echo 'create_main_cluster = false' >"$dir/etc/postgresql-common/createcluster.conf"
  touch "$dir/.coco-root"
}

copy_root() {
  local dir to
  dir=$(realpath "$1") to=$(realpath -m "$2")
  [ -e "$dir/.coco-root" ] || die "$dir was not made by debian-root.sh"
  [ ! -e "$to" ] || die "$to exists"
  cp -a --reflink=auto "$dir" "$to"
}

remove_root() {
  local dir
  dir=$(realpath -m "$1")
  [ -e "$dir" ] || return 0
  [ -e "$dir/.coco-root" ] || die "$dir was not made by debian-root.sh"
  # Mounts exist only in the namespace of `run`; should one be left, it is not followed.
  rm -rf --one-file-system "$dir"
}

run_in_root() {
  local dir place cargo rustup shared=()
  dir=$(realpath "$1")
  shift
  [ -e "$dir/.coco-root" ] || die "$dir was not made by debian-root.sh"
  cargo=$(realpath -m "${CARGO_HOME:-${HOME:-/root}/.cargo}")
  rustup=$(realpath -m "${RUSTUP_HOME:-${HOME:-/root}/.rustup}")
  for place in "$ROOT" "$cargo" "$rustup"; do
    [ ! -d "$place" ] || shared+=("$place")
  done
  # Packages for this machine's Python do not fit the root's; and .pgrx names servers by their paths.
  mkdir -p "$dir/var/lib/coco/.tools" "$dir/var/lib/coco/.pgrx" "$ROOT/.tools" "$ROOT/.pgrx"
  cat /etc/resolv.conf >"$dir/etc/resolv.conf" 2>/dev/null || true
  cat /etc/hosts >"$dir/etc/hosts" 2>/dev/null || true
  # Certificates that this machine trusts, where a proxy has its own.
  cp -L /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/ca-certificates.crt" 2>/dev/null || true
  unset PG_CONFIG   # the root has servers of its own
  # shellcheck disable=SC2016  # expanded by the shell that is started
  CARGO_HOME=$cargo RUSTUP_HOME=$rustup TMPDIR=/tmp \
    exec unshare --mount --pid --fork --kill-child bash -euc '
      dir=$1 checkout=$2 count=$3
      shift 3
      mount --make-rprivate /
      mount -t proc proc "$dir/proc"
      mount --rbind /dev "$dir/dev"
      mount --rbind /sys "$dir/sys"
      for ((n = 0; n < count; n++)); do
        mkdir -p "$dir$1"
        mount --bind "$1" "$dir$1"
        shift
      done
      for own in .tools .pgrx; do mount --bind "$dir/var/lib/coco/$own" "$dir$checkout/$own"; done
      exec chroot "$dir" /bin/bash -c "cd \"\$0\" && exec \"\$@\"" "$checkout" "$@"
    ' run "$dir" "$ROOT" "${#shared[@]}" "${shared[@]}" "$@"
}

case $1 in
  make) [ $# = 3 ] || usage; make_root "$2" "$3" ;;
  copy) [ $# = 3 ] || usage; copy_root "$2" "$3" ;;
  run) [ $# -ge 3 ] || usage; run_in_root "${@:2}" ;;
  remove) [ $# = 2 ] || usage; remove_root "$2" ;;
  *) usage ;;
esac
