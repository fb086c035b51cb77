#!/usr/bin/env bash
# From a commit in a source to the commit in the target of the last of BENCH_FLOWS live flows (10), each of which follows
# the target of the one before it; beside the first flow alone, on another table. BENCH_SECONDS: of each run;
# BENCH_RUNS: how many of each; BENCH_RATE: commits a second.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
seconds=${BENCH_SECONDS:-10} runs=${BENCH_RUNS:-5} rate=${BENCH_RATE:-50} flows=${BENCH_FLOWS:-10}
start_server "track_commit_timestamp = on"

for table in single chained; do
  sql "create table $table (id bigint generated always as identity primary key, n int not null)"
  echo "insert into $table (n) values (:client_id);" >"$work/$table.row"
done
sql "select coco.create_flow('single_flow', 'single', 'select id, n + 1 as n from single', 'single_target', '{id}', capture => 'trigger')" >/dev/null
before=chained
for ((n = 1; n <= flows; n++)); do
  sql "select coco.create_flow('f$n', '$before', 'select id, n + 1 as n from $before', 't$n', '{id}', capture => 'trigger')" >/dev/null
  before=t$n
done
sql "select coco.start(flow) from coco.flows" "select coco.wait(flow) from coco.flows" >/dev/null

# run TABLE TARGET: latencies from the commit of a row to that of its row in the target, in milliseconds.
run() {
  local last
  last=$(sql "select coalesce(max(id), 0) from $1")
  bench -c 2 -R "$rate" -T "$seconds" -f "$work/$1.row" >/dev/null
  sql "select coco.wait(flow) from coco.flows" >/dev/null
  sql "select extract(epoch from pg_xact_commit_timestamp(t.xmin) - pg_xact_commit_timestamp(s.xmin)) * 1e3
         from $1 s join $2 t using (id) where s.id > $last" >"$work/$1.latency"
}

for ((n = 0; n <= runs; n++)); do
  say "run $n of $runs"
  run single single_target
  run chained "$before"
  [ "$n" = 0 ] && continue   # warms up
  for table in single chained; do
    for p in 0.5 0.99; do note "$table.$p" "$(quantile $p <"$work/$table.latency")"; done
  done
done
verify single_flow
for ((n = 1; n <= flows; n++)); do verify "f$n"; done
result "commit to the target of flow $flows, median, ms" "$(of chained.0.5)" "$(of single.0.5)" "<= 20 ms"
result "commit to the target of flow $flows, p99, ms" "$(of chained.0.99)" "$(of single.0.99)"
report "A chain of $flows live flows at $rate commits a second ($runs runs of $seconds s; beside: one flow)"
