#!/usr/bin/env bash
# How much sooner a live flow has caught up where a second process helps its worker (coco.max_workers = 2):
# all rows of a table are changed while the flow is stopped; the time is from coco.start until coco.wait returns.
# And what there is to be had: UPDATE of two plain tables of half the rows each, one after the other and at once.
# BENCH_ITEMS: rows; BENCH_RUNS: repetitions of each.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
items=${BENCH_ITEMS:-300000} runs=${BENCH_RUNS:-5}
start_server "autovacuum = off" "max_wal_size = 8GB" "shared_buffers = 512MB"

sql "create table src (id bigint primary key, n int, body text)" \
    "insert into src select i, 0, repeat(md5(i::text), 4) from generate_series(1, $items) i" \
    "select coco.create_flow('f', 'src', 'select id, n, md5(body) as digest, body from src', 'target', '{id}', capture => 'trigger')" \
    "select count(*) from coco.update('f')" >/dev/null

for half in a b; do
  sql "create table half_$half (id bigint primary key, n int, digest text, body text)" \
      "insert into half_$half select i, 0, md5(i::text), repeat(md5(i::text), 4) from generate_series(1, $items / 2) i" >/dev/null
done

milliseconds() { date +%s%N | cut -c 1-13; }
change() { sql "update half_$1 set n = n + 1, digest = md5(digest)"; }

plain_tables() {
  sql "vacuum analyze" "checkpoint"
  local began; began=$(milliseconds)
  change a; change b
  note after $(($(milliseconds) - began))
  sql "vacuum analyze" "checkpoint"
  began=$(milliseconds)
  change a & change b
  wait $!
  note at_once $(($(milliseconds) - began))
}

# catch_up WORKERS
catch_up() {
  sql "alter system set coco.max_workers = $1" "select pg_reload_conf()" >/dev/null
  sql "update src set n = n + 1, body = md5(n::text) || body where true" "update src set body = substr(body, 33)" >/dev/null
  sql "vacuum analyze" "checkpoint"
  timed "workers_$1" "select coco.start('f')" "select coco.wait('f', '10 minutes')"
  verify f
  sql "select coco.stop('f')" >/dev/null
}

for ((n = 0; n <= runs; n++)); do
  say "$n of $runs"
  catch_up 1
  catch_up 2
  plain_tables
  [ $n = 0 ] && rm -f "$work"/note.*   # warms up
done
result "catching up with $items changed rows: one process (ms; two)" "$(of workers_1)" "$(of workers_2)" ">= 1.6"
result "the same rows in two plain tables: one after the other (ms; at once)" "$(of after)" "$(of at_once)"
report "Processes for one flow"
