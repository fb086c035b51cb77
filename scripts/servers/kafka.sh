#!/usr/bin/env bash
# A throw-away Apache Kafka: one node, on free ports of 127.0.0.1, all its files in DIR.
#   kafka.sh setup       fetch what it needs (the others do so too)
#   kafka.sh start DIR   start it, on the ports it had if DIR is of one that was stopped; print how to reach it
#   kafka.sh stop DIR    stop it; DIR stays
#   kafka.sh remove DIR  stop it and remove DIR
#   kafka.sh run DIR     start it, and remove it at the end of stdin: so it goes with whom it was started for
# Anyone may do anything through `plaintext`. Through the others `writer` may (password: writer-secret),
# and `reader` (reader-secret) nothing.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

usage() { sed -n '2,9s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
here="$ROOT/scripts/servers/kafka"
tools="$ROOT/.tools/kafka"

setup() {
  local missing=()
  have java || missing+=(default-jre-headless)
  have mvn || missing+=(maven)
  have python3 || missing+=(python3)
  have kcat || missing+=(kcat)   # what the example reads the topic with
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    apt_install "${missing[@]}" ||
      die "missing: ${missing[*]} - no apt-get with root or passwordless sudo here, please install them"
  fi
  # One at a time: several tests may start at once.
  mkdir -p "$ROOT/.tools"
  exec 9>"$ROOT/.tools/kafka.lock"
  flock 9
  # The copy of the description is written last, so that an interrupted download is done again.
  if ! cmp -s "$here/pom.xml" "$tools/pom.xml"; then
    say "fetching Apache Kafka from Maven Central into $tools"
    rm -rf "$tools"
    mkdir -p "$tools"
    mvn --quiet --batch-mode --file "$here/pom.xml" dependency:copy-dependencies \
      "-DoutputDirectory=$tools/lib" >&2 || die "Maven could not fetch Apache Kafka"
    cp "$here/pom.xml" "$tools/pom.xml"
  fi
  exec 9>&-
}

# A small heap, and started quickly rather than made fast.
java=(java -Xms64m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$tools/lib/*")

free_ports() {
  python3 - "$1" <<'PY'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))
PY
}

configure() {
  local plaintext sasl_plaintext sasl_ssl controller
  read -r plaintext sasl_plaintext sasl_ssl controller <<<"$(free_ports 4)"
  keytool -genkeypair -keystore "$dir/keys.p12" -storetype PKCS12 -storepass changeit -alias kafka \
    -keyalg RSA -validity 3650 -dname CN=127.0.0.1 -ext san=ip:127.0.0.1 2>/dev/null
  keytool -exportcert -rfc -keystore "$dir/keys.p12" -storepass changeit -alias kafka \
    >"$dir/certificate.pem" 2>/dev/null
  cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$plaintext,SASL_PLAINTEXT://127.0.0.1:$sasl_plaintext,SASL_SSL://127.0.0.1:$sasl_ssl,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
listener.name.sasl_plaintext.sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_writer="writer-secret" user_reader="reader-secret";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.location=$dir/keys.p12
ssl.keystore.type=PKCS12
ssl.keystore.password=changeit
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:writer
log.dirs=$dir/data
# As a cluster of several nodes does not need it.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
# So that a topic that appears was made on purpose or by a fault that a test finds.
auto.create.topics.enable=true
num.partitions=7
PROPERTIES
  "${java[@]}" kafka.tools.StorageTool format --config "$dir/server.properties" \
    --cluster-id "coco-test-cluster00000" --add-scram 'SCRAM-SHA-256=[name=writer,password=writer-secret]' \
    >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; die "Kafka's storage could not be made"; }
  cat >"$dir/address" <<ADDRESS
plaintext=127.0.0.1:$plaintext
sasl_plaintext=127.0.0.1:$sasl_plaintext
sasl_ssl=127.0.0.1:$sasl_ssl
certificate=$dir/certificate.pem
pid=$dir/pid
ADDRESS
}

running() { [ -e "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; }

start() {
  setup
  if [ ! -e "$dir/.coco-kafka" ]; then
    mkdir -p "$dir"
    [ -z "$(ls -A "$dir")" ] || die "$dir is not empty"
    touch "$dir/.coco-kafka"   # what `remove` insists on before it removes anything
    configure
  fi
  running && die "the Kafka of $dir runs already"
  : >"$dir/log"
  # Of a session of its own: what ends the terminal's programs is not for it.
  setsid "${java[@]}" kafka.Kafka "$dir/server.properties" </dev/null >"$dir/log" 2>&1 &
  echo $! >"$dir/pid"
  disown   # its end is no news
  local tries=0
  until grep -q 'Kafka Server started' "$dir/log"; do
    tries=$((tries + 1))
    { running && [ $tries -le 600 ]; } || { tail -n 60 "$dir/log" >&2; die "Kafka did not start"; }
    sleep 0.1
  done
  cat "$dir/address"
}

stop() {
  running || return 0
  local pid tries=0
  pid=$(cat "$dir/pid")
  # A stopped process would not hear.
  kill -CONT "$pid" && kill "$pid" || true
  while running; do
    tries=$((tries + 1))
    [ $tries -le 300 ] || kill -KILL "$pid" || true
    sleep 0.1
  done
  rm "$dir/pid"
}

remove() {
  [ -e "$dir" ] || return 0
  [ -e "$dir/.coco-kafka" ] || die "$dir was not made by kafka.sh"
  # Nothing in it is worth an orderly end.
  running && kill -KILL "$(cat "$dir/pid")"
  stop
  rm -rf "$dir"
}

run() {
  trap remove EXIT
  trap '' INT TERM HUP   # stdin says when
  start
  # Whoever reads what was printed sees its end, though this goes on.
  exec >&-
  cat >/dev/null
}

[ $# -ge 1 ] || usage
command=$1
[ "$command" = setup ] || { [ $# = 2 ] || usage; dir=$(realpath -m "$2"); }
case $command in
  setup | start | stop | remove | run) "$command" ;;
  *) usage ;;
esac
