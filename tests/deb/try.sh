#!/usr/bin/env bash
# try.sh VERSION DEB [IMAGE]: run by scripts/test-deb.sh in a clean Debian root. Installs the stock server of this version,
# then the package, tries flows, and removes the package, which must leave no file. Then starts the server with the
# files of the extension image, where CloudNativePG would mount them.
set -euo pipefail
version=$1 deb=$2 image=${3:-}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
export DEBIAN_FRONTEND=noninteractive

say() { echo "==> $*"; }
fail() { echo "error: $*" >&2; exit 1; }
quietly() { "$@" >/tmp/quietly.log 2>&1 || { cat /tmp/quietly.log >&2; fail "$* failed"; }; }

# All files but those that apt and the server write as they work, and what is mounted.
files() {
  local skip=(-path /tmp) place
  for place in /run /var/cache /var/lib/apt /var/lib/dpkg /var/log $(awk '$5 != "/" { print $5 }' /proc/self/mountinfo); do
    skip+=(-o -path "$place")
  done
  find / \( "${skip[@]}" \) -prune -o -print | LC_ALL=C sort
}

as_postgres() { (cd / && setpriv --reuid=postgres --regid=postgres --clear-groups env HOME=/tmp "$@"); }
server() { quietly as_postgres "$bin/pg_ctl" "$1" -D /tmp/server/data -l /tmp/server/log -w "${@:2}"; }
psql() { command psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname postgres "$@"; }

say "the stock server"
quietly apt-get update
quietly apt-get install -y --no-install-recommends "postgresql-$version"
files >/tmp/before

say "the package"
began=$SECONDS
quietly apt-get install -y --no-install-recommends "$deb"
bin=/usr/lib/postgresql/$version/bin
install -d -o postgres -g postgres /tmp/server
quietly as_postgres "$bin/initdb" -D /tmp/server/data --auth trust
cat >>/tmp/server/data/postgresql.conf <<'CONF'
listen_addresses = ''
unix_socket_directories = '/tmp/server'
shared_preload_libraries = 'coco'
CONF
server start
export PGHOST=/tmp/server PGUSER=postgres
psql --command 'CREATE EXTENSION coco'
say "from the package to CREATE EXTENSION: $((SECONDS - began)) s"
psql --command '\dx coco'

say "a flow, and a live flow"
"$checkout/scripts/installcheck.sh"
psql --file "$checkout/tests/deb/live.sql"

say "the removal"
server stop -m fast
quietly apt-get purge -y "postgresql-$version-coco"
files >/tmp/after
diff /tmp/before /tmp/after || fail "the removed package has left the files above, or taken them away"
sed -i '/^shared_preload_libraries/d' /tmp/server/data/postgresql.conf
server start
psql --tuples-only --command 'SELECT version()'
server stop -m fast

[ -n "$image" ] || exit 0
say "the extension image"
mkdir -p /tmp/image /tmp/volume
tar -xf "$image" -C /tmp/image
for blob in /tmp/image/blobs/sha256/*; do
  if tar -tzf "$blob" >/dev/null 2>&1; then tar -xzf "$blob" -C /tmp/volume; fi
done
[ -e /tmp/volume/share/extension/coco.control ] || fail "the image has no control file"
cat >>/tmp/server/data/postgresql.conf <<'CONF'
extension_control_path = '$system:/tmp/volume/share'
dynamic_library_path = '$libdir:/tmp/volume/lib'
shared_preload_libraries = 'coco'
CONF
server start
psql --command 'CREATE EXTENSION coco'
psql --file "$checkout/tests/deb/live.sql"
server stop -m fast
