#!/usr/bin/env bash
# A throw-away PostgreSQL server of PG_CONFIG's, listening on a unix socket in DIR only.
#   cluster.sh start DIR [--fast]   make and start it; --fast: no fsync, for tests. DIR is missing or empty
#   cluster.sh env DIR              print its connection string (start does too)
#   cluster.sh stop DIR             stop it and remove DIR
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() { sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
[ $# -ge 2 ] || usage
command=$1 dir=$(realpath -m "$2") option=${3:-}
# The port only names the socket file: nothing listens on TCP, so it cannot clash.
port=5432

connection() { echo "host=$dir port=$port user=postgres dbname=postgres"; }

start() {
  use_server
  [ ${#dir} -le 80 ] || die "$dir is too long a path for a unix socket: set TMPDIR to a shorter one"
  mkdir -p "$dir"
  [ -z "$(ls -A "$dir")" ] || die "$dir is not empty"
  touch "$dir/.coco-cluster"   # what `stop` insists on before it removes anything
  if is_root; then
    chown -R postgres "$dir"
    as_server_user test -w "$dir" || die "the user postgres cannot get to $dir: set TMPDIR to a place it can"
    as_server_user test -x "$PG_BIN/postgres" || die "the user postgres cannot get to $PG_BIN"
  fi
  # Text sorts and compares the same everywhere. Old systems lack C.UTF-8.
  local locale=C
  if locale -a 2>/dev/null | grep -iE '^C\.utf-?8$' >/dev/null; then locale=C.UTF-8; fi
  as_server_user "$PG_BIN/initdb" -D "$dir/data" -U postgres --auth=trust --encoding=UTF8 \
    --locale="$locale" --no-sync >"$dir/log" 2>&1 || { cat "$dir/log" >&2; die "initdb failed"; }
  {
    echo "listen_addresses = ''"
    echo "unix_socket_directories = '$dir'"
    echo "port = $port"
    # For logical replication, prepared transactions and background workers.
    echo "wal_level = logical"
    echo "max_prepared_transactions = 10"
    echo "max_worker_processes = 32"
    if [ "$option" = --fast ]; then
      echo "fsync = off"
      echo "synchronous_commit = off"
      echo "full_page_writes = off"
    fi
  } >>"$dir/data/postgresql.conf"
  : >"$dir/log"   # from here on, the server's
  if is_root; then chown postgres "$dir/log"; fi
  as_server_user "$PG_BIN/pg_ctl" start -D "$dir/data" -l "$dir/log" -w -t 60 >/dev/null ||
    { cat "$dir/log" >&2; die "the server did not start"; }
  connection
}

stop() {
  [ -e "$dir" ] || return 0
  [ -e "$dir/.coco-cluster" ] || die "$dir was not made by cluster.sh"
  if [ -e "$dir/data/postmaster.pid" ]; then
    use_server
    # immediate: nothing in it is worth a shutdown checkpoint.
    as_server_user "$PG_BIN/pg_ctl" stop -D "$dir/data" -m immediate -w >/dev/null || true
  fi
  rm -rf "$dir"
}

case $command in
  start) start ;;
  env) connection ;;
  stop) stop ;;
  *) usage ;;
esac
