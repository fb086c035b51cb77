#!/usr/bin/env bash
# Prometheus and postgres_exporter with the files of examples/monitoring, on free ports of 127.0.0.1.
#   monitoring.sh setup              fetch them into .tools/ (the others do too)
#   monitoring.sh start DIR PID DSN  start postgres_exporter for a database, and a Prometheus that scrapes it
#                                    each second, no longer than the process PID; prints their urls as
#                                    exporter=… prometheus=…
#   monitoring.sh stop DIR           stop them
#   monitoring.sh promtool DIR ARG…  run promtool in examples/monitoring
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
examples=$ROOT/examples/monitoring
tools=$ROOT/.tools/monitoring
packages=(prometheus prometheus-postgres-exporter)

usage() { sed -n '2,8s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }

# Debian's packages, unpacked: installed, they would start services.
setup() {
  mkdir -p "$ROOT/.tools"
  exec 9>"$ROOT/.tools/monitoring.lock"
  flock 9
  if [ ! -e "$tools/.fetched" ]; then
    have apt-get && have dpkg-deb || die "no apt-get here: ${packages[*]} cannot be fetched"
    say "fetching ${packages[*]} into $tools"
    rm -rf "$tools"
    mkdir -p "$tools/deb"
    (
      cd "$tools/deb"
      apt-get download -q "${packages[@]}" >&2 && exit
      # The usual reason in a fresh container: no package lists yet.
      as_root apt-get update >&2 && apt-get download -q "${packages[@]}" >&2
    ) || die "apt-get could not fetch ${packages[*]}"
    for deb in "$tools"/deb/*.deb; do dpkg-deb -x "$deb" "$tools"; done
    rm -rf "$tools/deb"
    touch "$tools/.fetched"
  fi
  exec 9>&-
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# launch NAME URL COMMAND…: starts it, and waits until it answers.
launch() {
  local name=$1 url=$2 pid
  shift 2
  setsid "$@" >>"$dir/$name.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >>"$dir/pids"
  for _ in $(seq 600); do
    if python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$url" 2>/dev/null; then
      return
    fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  cat "$dir/$name.log" >&2
  die "$name did not start"
}

start() {
  local owner=$1 dsn=$2 exporter prometheus
  setup
  mkdir -p "$dir"
  exporter=127.0.0.1:$(free_port)
  DATA_SOURCE_NAME=$dsn launch exporter "http://$exporter/metrics" \
    "$tools/usr/bin/prometheus-postgres-exporter" --web.listen-address="$exporter" --no-collector.database \
    --no-collector.bgwriter --disable-default-metrics --disable-settings-metrics \
    --extend.query-path="$examples/postgres_exporter.queries.yml"
  prometheus=127.0.0.1:$(free_port)
  sed -e "s/localhost:9399/$exporter/" -e 's/_interval: 15s/_interval: 1s/' "$examples/prometheus.yml" >"$dir/prometheus.yml"
  cp "$examples/alerts.yml" "$dir"
  launch prometheus "http://$prometheus/-/ready" \
    "$tools/usr/bin/prometheus" --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/data" \
    --web.listen-address="$prometheus"
  # shellcheck disable=SC2016  # expanded by the shell that is started
  setsid bash -c 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; kill $(cat "$2") 2>/dev/null' \
    watch "$owner" "$dir/pids" >/dev/null 2>&1 </dev/null &
  echo "exporter=http://$exporter prometheus=http://$prometheus"
}

stop() {
  local pid
  [ -e "$dir/pids" ] || return 0
  while read -r pid; do kill "$pid" 2>/dev/null || true; done <"$dir/pids"
  rm -f "$dir/pids"
}

[ $# -ge 2 ] || [ "${1:-}" = setup ] || usage
[ "$1" = setup ] || dir=$(realpath -m "$2")
case $1 in
  setup) setup ;;
  start) [ $# = 4 ] || usage; start "$3" "$4" ;;
  stop) stop ;;
  promtool) setup; cd "$examples"; exec "$tools/usr/bin/promtool" "${@:3}" ;;
  *) usage ;;
esac
