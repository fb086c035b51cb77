# Sourced by examples/*/run.sh: the Python packages of the example in a virtual environment, and a temporary server with
# coco, on which the role `app` owns the database `shop`.
# shellcheck shell=bash
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
use_server
[ -f "$("$PG_CONFIG" --sharedir)/extension/coco.control" ] || die "coco is not installed in $PG_CONFIG's server: run 'make build'"

here=$(cd "$(dirname "$0")" && pwd -P)
venv=$ROOT/.tools/examples/$(basename "$here")
work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
cleanup() {
  "$ROOT/scripts/cluster.sh" stop "$work/pg" || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"   # the server's user passes through

if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
  say "fetching the packages of $(basename "$here") into $venv"
  rm -rf "$venv"
  # Debian has the module that makes environments in a package of its own.
  python3 -m venv "$venv" || { apt_install python3-venv && python3 -m venv "$venv"; } || die "python3 has no venv: install python3-venv"
  "$venv/bin/pip" install --quiet --only-binary=:all: --disable-pip-version-check --requirement "$here/requirements.txt" >&2
  cp "$here/requirements.txt" "$venv/requirements.txt"
fi
export PATH="$venv/bin:$PATH" PYTHONDONTWRITEBYTECODE=1

"$ROOT/scripts/cluster.sh" start "$work/pg" --fast >/dev/null
export PGHOST="$work/pg" PGPORT=5432 PGUSER=app PGDATABASE=shop

# admin STATEMENT...: as the superuser, in the database of PGDATABASE.
admin() {
  local statement
  for statement in "$@"; do "$PG_BIN/psql" -XqAt -U postgres -v ON_ERROR_STOP=1 -c "$statement"; done
}

# sql STATEMENT: as the role app; prints the values.
sql() { "$PG_BIN/psql" -XqAt -v ON_ERROR_STOP=1 -c "$1"; }

# expect VALUE STATEMENT: the statement returns this value.
expect() {
  local found
  found=$(sql "$2")
  [ "$found" = "$1" ] || die "expected '$1', found '$found': $2"
}

# versions TABLE: changes with each row that anybody writes.
versions() { sql "select md5(string_agg(concat_ws(' ', ctid, xmin), ',' order by ctid)) from $1"; }

# extension DATABASE: what a superuser does once for a database.
extension() {
  PGDATABASE=$1 admin "create extension coco" "grant usage on schema coco to app"
}

PGDATABASE=postgres admin "create role app login createdb" "create database shop owner app template template0"
extension shop
