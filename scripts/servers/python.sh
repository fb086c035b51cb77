# Sourced by the scripts of servers that are written in Python: fetching what they need, starting and
# stopping them. $name is the server's folder, $fetched what is said to be fetched; the server writes its
# url into a file of its directory, $dir, when it answers, and removes it when it ends.
# shellcheck shell=bash disable=SC2154  # name, fetched and dir are set by those who source it
here=$ROOT/scripts/servers/$name
packages=$ROOT/.tools/$name

setup() {
  mkdir -p "$ROOT/.tools"
  # One at a time: several tests may start at once.
  exec 9>"$ROOT/.tools/$name.lock"
  flock 9
  cmp -s "$here/requirements.txt" "$packages/requirements.txt" && return
  if ! python3 -m pip --version >/dev/null 2>&1; then
    apt_install python3 python3-pip || die "python3 with pip is missing, please install it"
  fi
  say "fetching $fetched into $packages"
  rm -rf "$packages"
  python3 -m pip install --quiet --no-deps --only-binary=:all: --disable-pip-version-check \
    --root-user-action=ignore --target "$packages" --requirement "$here/requirements.txt" >&2 ||
    die "pip could not fetch what scripts/servers/$name/requirements.txt lists"
  # Written last, so that an interrupted fetch is done again.
  cp "$here/requirements.txt" "$packages/requirements.txt"
}

# launch [OPTION...]: starts the server, and prints its url.
launch() {
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

# serve COMMAND…: what the script was called with.
serve() {
  case ${1:-} in
    setup) setup ;;
    start) [ $# -ge 2 ] || usage; dir=$(realpath -m "$2"); start "${@:3}" ;;
    stop) [ $# = 2 ] || usage; dir=$(realpath -m "$2"); stop ;;
    *) usage ;;
  esac
}
