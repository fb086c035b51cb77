#!/usr/bin/env bash
# How much sooner a live flow has caught up where a second process helps its worker (coco.max_workers = 2):
# all rows of a table are changed while the flow is stopped; the time is from coco.start until coco.wait returns.
# And what there is to be had: UPDATE of two plain tables of half the rows each, one after the other and at once.
# Of two flows: one that writes a row for each, and computes next to nothing; and documents in chunks, of
# each of which the first sentence is edited.
# BENCH_ITEMS: rows; BENCH_DOCUMENTS: documents of 4 kB; BENCH_RUNS: repetitions of each.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
items=${BENCH_ITEMS:-300000} documents=${BENCH_DOCUMENTS:-40000} runs=${BENCH_RUNS:-5}
start_server "autovacuum = off" "max_wal_size = 8GB" "shared_buffers = 512MB"

sql "create table src (id bigint primary key, n int, body text)" \
    "insert into src select i, 0, repeat(md5(i::text), 4) from generate_series(1, $items) i" \
    "select coco.create_flow('f', 'src', 'select id, n, md5(body) as digest, body from src', 'target', '{id}', capture => 'trigger')" \
    "select count(*) from coco.update('f')" \
    "create table documents (id bigint primary key, n int, body text)" \
    "insert into documents select i, 0, (select string_agg(md5(i::text || k) || '. ', ' ') from generate_series(1, 115) k) from generate_series(1, $documents) i" \
    "select coco.create_flow('chunks', 'documents', 'select d.id, c.n, c.chunk from documents d, coco.split_text(d.body, 1000) as c', 'chunks', '{id,n}', capture => 'trigger')" \
    "select count(*) from coco.update('chunks')" >/dev/null

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

# catch_up FLOW WORKERS CHANGE…
catch_up() {
  local flow=$1 workers=$2
  shift 2
  sql "alter system set coco.max_workers = $workers" "select pg_reload_conf()" >/dev/null
  sql "$@" >/dev/null
  sql "vacuum analyze" "checkpoint"
  timed "${flow}_$workers" "select coco.start('$flow')" "select coco.wait('$flow', '10 minutes')"
  verify "$flow"
  sql "select coco.stop('$flow')" >/dev/null
}

for ((n = 0; n <= runs; n++)); do
  say "$n of $runs"
  for workers in 1 2; do
    catch_up f $workers "update src set n = n + 1, body = md5(n::text) || body where true" "update src set body = substr(body, 33)"
    catch_up chunks $workers "update documents set n = n + 1, body = overlay(body placing md5((id * n)::text) from 1 for 32)"
  done
  plain_tables
  [ $n = 0 ] && rm -f "$work"/note.*   # warms up
done
result "catching up with $documents documents, in chunks: one process (ms; two)" "$(of chunks_1)" "$(of chunks_2)" ">= 1.6"
result "catching up with $items rows, 1:1: one process (ms; two)" "$(of f_1)" "$(of f_2)" ">= 1.6"
result "the same rows in two plain tables: one after the other (ms; at once)" "$(of after)" "$(of at_once)"
report "Processes for one flow"
