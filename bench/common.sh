# Sourced by the benchmarks: a throw-away server with the extension, and what they measure with.
# BENCH_NO_SETUP=1 takes PG_CONFIG's server as it is: nothing is set up, built or installed.
# shellcheck shell=bash disable=SC2034  # variables are used by those who source it
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

# start_server [SETTING…]: lines for postgresql.conf. coco is preloaded.
start_server() {
  if [ -z "${BENCH_NO_SETUP:-}" ]; then
    "$ROOT/scripts/setup.sh"
    use_server
    install_extension release
  else
    use_server
  fi
  work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
  chmod 755 "$work"   # the server's user passes through
  trap stop_server EXIT
  trap 'exit 130' INT TERM
  url=$("$ROOT/scripts/cluster.sh" start "$work/pg")
  printf '%s\n' "shared_preload_libraries = 'coco'" "$@" |
    as_server_user tee -a "$work/pg/data/postgresql.conf" >/dev/null
  as_server_user "$PG_BIN/pg_ctl" restart -D "$work/pg/data" -l "$work/pg/log" -w -t 60 >/dev/null
  postmaster=$(as_server_user head -n 1 "$work/pg/data/postmaster.pid")
  sql "create extension coco"
  : >"$work/results"
}

stop_server() {
  local status=$?
  if [ $status != 0 ]; then tail -n 20 "$work/pg/log" >&2 || true; fi
  "$ROOT/scripts/cluster.sh" stop "$work/pg" || true
  rm -rf "$work"
}

# sql STATEMENT…: one value, or rows with | between their columns.
sql() {
  local statements=()
  for s in "$@"; do statements+=(-c "$s"); done
  PGOPTIONS='-c client_min_messages=warning' "$PG_BIN/psql" -XAtq -v ON_ERROR_STOP=1 -d "$url" "${statements[@]}"
}

# bench ARGUMENT…: pgbench; prints how many transactions it made.
bench() {
  (cd "$work" && "$PG_BIN/pgbench" -n -M prepared -j 2 "$@" "$url" >"$work/pgbench.out" 2>"$work/pgbench.err") ||
    { cat "$work/pgbench.out" "$work/pgbench.err" >&2; die "pgbench failed"; }
  sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$work/pgbench.out"
}

# Centiseconds of CPU that the server's ended processes have taken: backends that have disconnected,
# never a worker that goes on.
cpu_of_ended() { awk '{sub(/.*\) /, ""); print $14 + $15}' "/proc/$postmaster/stat"; }

# Waits until no client is connected, so that all have been counted.
wait_for_clients() {
  while [ "$(sql "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()")" != 0 ]; do
    sleep 0.1
  done
  sleep 0.1
}

# Nanoseconds of CPU that a process has taken.
cpu_of() { awk '{print $1}' "/proc/$1/schedstat"; }

# quantile P: of the numbers in stdin.
quantile() {
  sort -g | awk -v p="$1" '{v[NR] = $1} END {if (NR) {i = int(p * (NR - 1) + 0.5) + 1; print v[i]}}'
}
median() { sort -g | awk '{v[NR] = $1} END {if (NR) print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'; }

# note NAME VALUE: one repetition's figure; of NAME: their median.
note() { echo "$2" >>"$work/note.$1"; }
of() { median <"$work/note.$1"; }

# timed NAME [STATEMENT… --] STATEMENT…: in a session that has loaded the extension, and has run those
# before --; notes the milliseconds of the others.
timed() {
  local name=$1 now="select 'at ' || extract(epoch from clock_timestamp()) * 1000" before=() times
  shift
  if [[ " $* " == *" -- "* ]]; then
    while [ "$1" != -- ]; do before+=("$1"); shift; done
    shift
  fi
  times=$(sql "load 'coco'" "${before[@]}" "$now" "$@" "$now")
  note "$name" "$(awk '/^at / {b = $2; if (!n++) a = b} END {printf "%.2f", b - a}' <<<"$times")"
}

div() { awk -v a="$1" -v b="$2" -v f="${3:-%.2f}" 'BEGIN {if (b + 0 == 0) print "-"; else printf f "\n", a / b}'; }

# result WHAT FIGURE BESIDE [BOUND]: a row of the table at the end, with FIGURE / BESIDE.
result() { printf '%s\t%.4g\t%.4g\t%s\t%s\n' "$1" "$2" "$3" "$(div "$2" "$3")" "${4:-}" >>"$work/results"; }
# plain WHAT VALUE [BOUND]
plain() { printf '%s\t%s\t\t\t%s\n' "$1" "$2" "${3:-}" >>"$work/results"; }

# report TITLE: prints the table.
report() {
  printf '\n%s\n' "$1"
  {
    printf 'what\tfigure\tbeside\tratio\tbound\n'
    cat "$work/results"
  } | awk -F '\t' '{printf "  %-62s %12s %12s %8s  %s\n", $1, $2, $3, $4, $5}'
  : >"$work/results"
}

# verify FLOW: the only thing that makes a benchmark fail.
verify() {
  local wrong
  wrong=$(sql "select count(*) from coco.verify('$1')")
  [ "$wrong" = 0 ] || die "flow $1: $wrong rows differ from the query"
}
