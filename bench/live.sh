#!/usr/bin/env bash
# From a commit in the source to the commit in the target of a live flow, row by row, at a steady
# rate; beside the single-row commit of a bare table at the same rate, in alternating runs.
# BENCH_SECONDS: of each run; BENCH_RUNS: how many of each; BENCH_RATE: commits a second.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
seconds=${BENCH_SECONDS:-10} runs=${BENCH_RUNS:-5} rate=${BENCH_RATE:-500}
start_server "track_commit_timestamp = on"

for table in bare captured; do
  sql "create table $table (id bigint generated always as identity primary key, n int, body text)"
  echo "insert into $table (n, body) values (:client_id, 'some text of a row');" >"$work/$table.row"
done
sql "select coco.create_flow('f', 'captured', 'select id, n, body from captured', 'target', '{id}', capture => 'trigger')" \
    "select coco.start('f')" "select coco.wait('f')" >/dev/null

# run TABLE: latencies of the commits (without the time a client was late) into $work/TABLE.latency
run() {
  rm -f "$work"/log.*
  bench -c 4 -R "$rate" -T "$seconds" -f "$work/$1.row" -l --log-prefix="$work/log" >/dev/null
  cat "$work"/log.* | awk '{print $3 - $7}' >"$work/$1.latency"
}

# series NAME: alternating runs; the first of each warms up and is not counted.
series() {
  local n p what worker last cpu turns
  for ((n = 0; n <= runs; n++)); do
    say "$1: run $n of $runs"
    run bare
    last=$(sql "select coalesce(max(id), 0) from captured")
    worker=$(sql "select pid from coco.workers limit 1")
    turns=$(sql "select sum(transactions) from coco.workers") cpu=$(cpu_of "$worker")
    run captured
    sql "select coco.wait('f')" >/dev/null
    cpu=$(($(cpu_of "$worker") - cpu)) turns=$(($(sql "select sum(transactions) from coco.workers") - turns))
    sql "select extract(epoch from pg_xact_commit_timestamp(t.xmin) - pg_xact_commit_timestamp(s.xmin)) * 1e6
           from captured s join target t using (id) where s.id > $last" >"$work/follow.latency"
    [ $n = 0 ] && continue   # warms up
    for what in bare captured follow; do
      for p in 0.5 0.9 0.99 1; do note "$1.$what.$p" "$(quantile $p <"$work/$what.latency")"; done
    done
    note "$1.r.p50" "$(div "$(tail -n 1 "$work/note.$1.follow.0.5")" "$(tail -n 1 "$work/note.$1.bare.0.5")")"
    note "$1.r.p99" "$(div "$(tail -n 1 "$work/note.$1.follow.0.99")" "$(tail -n 1 "$work/note.$1.bare.0.5")")"
    note "$1.turns" "$turns"
    note "$1.cpu" "$(div "$cpu" "$((turns * 1000))")"
    note "$1.rows" "$(wc -l <"$work/follow.latency")"
  done
}

# results NAME LABEL
results() {
  result "$2: commit to target, median, µs" "$(of "$1.follow.0.5")" "$(of "$1.bare.0.5")" "<= 5"
  result "$2: commit to target, p90, µs" "$(of "$1.follow.0.9")" "$(of "$1.bare.0.5")"
  result "$2: commit to target, p99, µs" "$(of "$1.follow.0.99")" "$(of "$1.bare.0.5")" "<= 25"
  result "$2: commit to target, longest, µs" "$(of "$1.follow.1")" "$(of "$1.bare.0.5")"
  result "$2: bare commit, p99, µs" "$(of "$1.bare.0.99")" "$(of "$1.bare.0.5")"
  result "$2: commit of the captured table, median, µs" "$(of "$1.captured.0.5")" "$(of "$1.bare.0.5")"
  result "$2: commit of the captured table, p99, µs" "$(of "$1.captured.0.99")" "$(of "$1.bare.0.5")"
  plain "$2: ratios of the runs' medians" "$(sort -g "$work/note.$1.r.p50" | paste -sd ' ')"
  plain "$2: ratios of the runs' p99" "$(sort -g "$work/note.$1.r.p99" | paste -sd ' ')"
  plain "$2: rows a run" "$(of "$1.rows")"
  plain "$2: turns of the worker a run" "$(of "$1.turns")"
  plain "$2: CPU of the worker a turn, µs" "$(of "$1.cpu")"
}

series short
verify f
# Most of a segment: what was followed long ago is in the log until the segment is full.
sql "insert into captured (n, body) select 0, 'some text of a row' from generate_series(1, 300000)" \
    "select coco.wait('f', '10 minutes')" "vacuum analyze captured, target" "checkpoint" >/dev/null
series long
verify f

results short "short log"
results long "log of 300,000"
report "A live flow at $rate commits a second ($runs runs of $seconds s; beside: the median bare commit)"
