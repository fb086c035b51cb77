#!/usr/bin/env bash
# Flows through other clients, each against one temporary server: the drivers come from PyPI, npm and Maven Central,
# PgBouncer from Debian. Their versions are pinned, but for psql's and PgBouncer's.
#   test-clients.sh [NAME...]   all, or those named: psql psycopg sqlalchemy asyncpg node jdbc pgbouncer
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/npm.sh
. "$ROOT/scripts/npm.sh"
"$ROOT/scripts/setup.sh"
use_server
here=$ROOT/tests/clients
tools=$ROOT/.tools/clients
jdbc=org.postgresql:postgresql:42.7.8
[ $# -gt 0 ] || set -- psql psycopg sqlalchemy asyncpg node jdbc pgbouncer
wants() { local name; for name in "${wanted[@]}"; do [ "$name" != "$1" ] || return 0; done; return 1; }
wanted=("$@")
for name in "$@"; do
  case $name in
    psql | psycopg | sqlalchemy | asyncpg | node | jdbc | pgbouncer) ;;
    *) die "\"$name\" is none of: psql psycopg sqlalchemy asyncpg node jdbc pgbouncer" ;;
  esac
done

work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
cleanup() {
  local status=$?
  if [ $status != 0 ] && [ -s "$work/pg/log" ]; then tail -n 40 "$work/pg/log" >&2; fi
  [ ! -e "$work/bouncer/pid" ] || kill "$(cat "$work/bouncer/pid")" 2>/dev/null || true
  "$ROOT/scripts/cluster.sh" stop "$work/pg" || true
  rm -rf "$work" 2>/dev/null || as_root rm -rf "$work" || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"   # the server's user passes through

python_packages() {
  mkdir -p "$ROOT/.tools"
  cmp -s "$here/requirements.txt" "$tools/requirements.txt" && return
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip || die "python3 has no pip, please install it"
  say "fetching the Python drivers into $tools"
  rm -rf "$tools"
  python3 -m pip install --quiet --no-deps --only-binary=:all: --disable-pip-version-check --root-user-action=ignore \
    --target "$tools" --requirement "$here/requirements.txt" >&2 || die "pip could not fetch tests/clients/requirements.txt"
  cp "$here/requirements.txt" "$tools/requirements.txt"
}

jdbc_driver() {
  driver=$ROOT/.tools/jdbc/postgresql-${jdbc##*:}.jar
  [ ! -e "$driver" ] || return 0
  have java || apt_install openjdk-17-jdk-headless || apt_install default-jdk-headless || die "java is missing"
  have mvn || apt_install maven || die "maven is missing, please install it"
  mvn --quiet --batch-mode "-Dmaven.repo.local=$ROOT/.tools/m2" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy "-Dartifact=$jdbc" \
    "-DoutputDirectory=$ROOT/.tools/jdbc" >&2 || die "maven could not fetch $jdbc"
}

# PgBouncer, unpacked: installed, its package would start a service. Its libraries are installed.
pgbouncer_program() {
  pgbouncer=$ROOT/.tools/pgbouncer/usr/sbin/pgbouncer
  [ ! -e "$pgbouncer" ] || return 0
  apt_install libevent-2.1-7 2>/dev/null || apt_install libevent-2.1-7t64 || die "libevent is missing"
  apt_install libc-ares2 2>/dev/null || apt_install libcares2 || die "c-ares is missing"
  mkdir -p "$ROOT/.tools/pgbouncer/deb"
  (cd "$ROOT/.tools/pgbouncer/deb" && apt-get download -q pgbouncer >&2) || die "apt-get could not fetch pgbouncer"
  dpkg-deb -x "$ROOT"/.tools/pgbouncer/deb/*.deb "$ROOT/.tools/pgbouncer"
  rm -rf "$ROOT/.tools/pgbouncer/deb"
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# shellcheck disable=SC2119  # not about this script's own arguments
install_extension
"$ROOT/scripts/cluster.sh" start "$work/pg" --fast >/dev/null
# JDBC needs TCP; coco is preloaded, as on a server in use.
port=$(free_port)
printf '%s\n' "listen_addresses = '127.0.0.1'" "port = $port" "shared_preload_libraries = 'coco'" >>"$work/pg/data/postgresql.conf"
as_server_user "$PG_BIN/pg_ctl" restart -D "$work/pg/data" -l "$work/pg/log" -w -m fast >/dev/null
export PATH="$PG_BIN:$PATH"
export PGHOST=$work/pg PGPORT=$port PGUSER=postgres PGDATABASE=postgres
psql -Xqc 'create database clients' && export PGDATABASE=clients
psql -Xqc 'create extension coco'

python() { python_packages; PYTHONPATH=$tools PYTHONDONTWRITEBYTECODE=1 python3 "$@"; }

if wants psql; then
  say "psql $(psql --version | sed 's/.* //')"
  psql --no-psqlrc --quiet --file "$here/psql.sql" >"$work/psql.out" 2>&1 || { cat "$work/psql.out" >&2; die "psql failed"; }
fi
if wants psycopg; then say "psycopg"; python "$here/use_psycopg.py"; fi
if wants sqlalchemy; then say "SQLAlchemy"; python "$here/use_sqlalchemy.py"; fi
if wants asyncpg; then say "asyncpg"; python "$here/use_asyncpg.py"; fi
if wants node; then
  fetch_packages node-postgres "node-postgres"
  say "node-postgres"
  cp "$here/use_pg.mjs" "$packages/use_pg.mjs"
  node "$packages/use_pg.mjs"
fi
if wants jdbc; then
  jdbc_driver
  say "pgjdbc"
  java -cp "$driver" "$here/UsePgjdbc.java" "jdbc:postgresql://127.0.0.1:$port/clients?user=postgres"
fi
if wants pgbouncer; then
  pgbouncer_program
  say "$("$pgbouncer" --version | head -n 1)"
  mkdir "$work/bouncer"
  bouncer=$(free_port)
  cat >"$work/bouncer/pgbouncer.ini" <<INI
[databases]
clients = host=$PGHOST port=$port user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $bouncer
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
logfile = $work/bouncer/log
pidfile = $work/bouncer/pid
INI
  if is_root; then chown -R postgres "$work/bouncer"; fi
  as_server_user "$pgbouncer" --daemon --quiet "$work/bouncer/pgbouncer.ini"
  PGHOST=127.0.0.1 PGPORT=$bouncer "$here/pgbouncer.sh" || { cat "$work/bouncer/log" >&2; die "PgBouncer failed"; }
fi
say "all clients passed: ${wanted[*]}"
