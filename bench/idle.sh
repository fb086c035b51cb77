#!/usr/bin/env bash
# What live flows cost while nothing changes, and what they cost a change of another flow: BENCH_FLOWS idle live flows
# (300), each on a table of its own, beside one. BENCH_SECONDS: of each measurement; BENCH_RATE: commits a second.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
flows=${BENCH_FLOWS:-300} seconds=${BENCH_SECONDS:-60} rate=${BENCH_RATE:-100}
start_server "track_commit_timestamp = on"

# add NAME: a live flow on a table of its own.
add() {
  sql "create table $1 (id bigint generated always as identity primary key, n int)" \
      "select coco.create_flow('$1', '$1', 'select id, n from $1', '${1}_target', '{id}', capture => 'trigger')" \
      "select coco.start('$1')" >/dev/null
}
echo "insert into busy (n) values (:client_id);" >"$work/row"

# coco_cpu: nanoseconds of CPU of coco's processes in this database, and of the launcher.
coco_cpu() {
  local pid all=0
  for pid in $(sql "select pid from pg_stat_activity where backend_type like 'coco%'"); do
    all=$((all + $(cpu_of "$pid")))
  done
  echo "$all"
}

# measure NAME
measure() {
  local before last
  sql "select coco.wait(flow, '60 s') from coco.flows" "vacuum analyze" >/dev/null
  # The workers store the history of their last transactions after a minute.
  sleep 80
  before=$(coco_cpu)
  sleep "$seconds"
  note "$1.idle" "$(div "$(($(coco_cpu) - before))" "$((seconds * 10000000))" %.4f)"
  last=$(sql "select coalesce(max(id), 0) from busy")
  before=$(coco_cpu)
  bench -c 2 -R "$rate" -T "$seconds" -f "$work/row" >/dev/null
  note "$1.busy" "$(div "$(($(coco_cpu) - before))" "$((seconds * 10000000))" %.4f)"
  sql "select coco.wait('busy', '60 s')" >/dev/null
  sql "select extract(epoch from pg_xact_commit_timestamp(t.xmin) - pg_xact_commit_timestamp(s.xmin)) * 1e3
         from busy s join busy_target t using (id) where s.id > $last" >"$work/latency"
  for p in 0.5 0.99; do note "$1.$p" "$(quantile $p <"$work/latency")"; done
  # Any DDL makes the workers look at every flow once.
  last=$(sql "select coalesce(max(id), 0) from busy")
  bench -c 2 -R "$rate" -T 20 -f "$work/row" >/dev/null &
  sleep 8
  sql "create table made_by_$1 (a int)" >/dev/null
  wait $!
  sql "select coco.wait('busy', '60 s')" >/dev/null
  note "$1.altered" "$(sql "select max(extract(epoch from pg_xact_commit_timestamp(t.xmin) - pg_xact_commit_timestamp(s.xmin)) * 1e3)
                              from busy s join busy_target t using (id) where s.id > $last")"
}

add busy
measure one
say "declaring $flows flows"
for ((n = 1; n <= flows; n++)); do add "idle_$n"; done
measure many
verify busy
result "nothing changes: % of a core" "$(of many.idle)" "$(of one.idle)" "<= 0.5 %"
result "one flow follows $rate commits/s: % of a core" "$(of many.busy)" "$(of one.busy)"
result "commit to its target, median, ms" "$(of many.0.5)" "$(of one.0.5)"
result "commit to its target, p99, ms" "$(of many.0.99)" "$(of one.0.99)"
result "the same, longest beside a CREATE TABLE, ms" "$(of many.altered)" "$(of one.altered)"
report "$flows idle live flows beside none (CPU of the workers and the launcher)"
