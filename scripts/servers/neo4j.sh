#!/usr/bin/env bash
# A throw-away Neo4j server (Community edition), for tests. It listens on the loopback interface alone.
#   neo4j.sh setup        install Java and fetch the server, where they are missing
#   neo4j.sh start DIR    start it, and print its url, user, password and process id. DIR is missing or
#                         empty, or has been a server's before, whose data and port it then has again.
#                         Where DIR/tls has private.key and public.crt, connections may be encrypted
#   neo4j.sh halt DIR     stop it at once, as a crash would, and keep DIR
#   neo4j.sh stop DIR     stop it and remove DIR
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

usage() { sed -n '3,8s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
[ $# -ge 1 ] || usage
command=$1
[ "$command" = setup ] || [ $# -ge 2 ] || usage
dir=$(realpath -m "${2:-.}")

files="$ROOT/scripts/servers/neo4j"
tools="$ROOT/.tools/neo4j"
user=neo4j password=coco-test-password

# Java's compiler too: it runs Server.java from its source.
has_java() { have java && have javac; }

setup() {
  local missing=()
  has_java || missing+=(openjdk-17-jdk-headless)
  # The stamp is written last, so an interrupted download is done again.
  if ! cmp -s "$files/pom.xml" "$tools/pom.xml"; then
    have mvn || missing+=(maven)
  fi
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt_install "${missing[@]}" ||
      die "missing: ${missing[*]} - no apt-get with root or passwordless sudo here, please install them"
  fi
  # One at a time: several tests may start at once.
  mkdir -p "$ROOT/.tools"
  exec 9>"$ROOT/.tools/neo4j.lock"
  flock 9
  if ! cmp -s "$files/pom.xml" "$tools/pom.xml"; then
    say "fetching Neo4j into $tools"
    rm -rf "$tools"
    mkdir -p "$tools"
    mvn --quiet --batch-mode --file "$files/pom.xml" "-Dmaven.repo.local=$ROOT/.tools/m2" \
      org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
      -DincludeScope=runtime "-DoutputDirectory=$tools/lib" >&2 || die "maven could not fetch Neo4j"
    cp "$files/pom.xml" "$tools/pom.xml"
  fi
  exec 9>&-
}

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))   # below the ports that outgoing connections get
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

configure() {
  mkdir -p "$dir"
  [ -z "$(find "$dir" -mindepth 1 -maxdepth 1 ! -name tls)" ] || die "$dir is not empty"
  {
    echo "server.bolt.enabled=true"
    echo "server.bolt.listen_address=127.0.0.1:$1"
    echo "dbms.security.auth_enabled=true"
    echo "dbms.usage_report.enabled=false"
    echo "server.memory.pagecache.size=16m"
    if [ -e "$dir/tls/private.key" ]; then
      echo "server.bolt.tls_level=OPTIONAL"
      echo "dbms.ssl.policy.bolt.enabled=true"
      echo "dbms.ssl.policy.bolt.base_directory=$dir/tls"
      echo "dbms.ssl.policy.bolt.client_auth=NONE"
    fi
  } >"$dir/neo4j.conf"
  echo "$1" >"$dir/.coco-neo4j"   # what `stop` insists on before it removes anything
}

start() {
  setup
  [ -e "$dir/.coco-neo4j" ] || configure "$(free_port)"
  : >"$dir/out"
  # Small, and quick to start rather than quick in the long run.
  (cd / && exec setsid java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$tools/lib/*" \
    "$files/Server.java" "$dir" "$password" </dev/null >"$dir/out" 2>&1) &
  echo $! >"$dir/pid"
  local waited
  for ((waited = 0; waited < 1200; waited++)); do
    if grep -q '^ready' "$dir/out"; then
      echo "url=bolt://127.0.0.1:$(cat "$dir/.coco-neo4j") user=$user password=$password pid=$(cat "$dir/pid")"
      return
    fi
    kill -0 "$(cat "$dir/pid")" 2>/dev/null || break
    sleep 0.1
  done
  cat "$dir/out" >&2
  die "Neo4j did not start"
}

halt() {
  local pid
  pid=$(cat "$dir/pid" 2>/dev/null) || return 0
  kill -KILL "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
  rm -f "$dir/pid"
}

stop() {
  [ -e "$dir" ] || return 0
  [ -e "$dir/.coco-neo4j" ] || die "$dir was not made by neo4j.sh"
  halt   # nothing in it is worth a checkpoint
  rm -rf "$dir"
}

case $command in
  setup) setup ;;
  start) start ;;
  halt) halt ;;
  stop) stop ;;
  *) usage ;;
esac
