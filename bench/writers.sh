#!/usr/bin/env bash
# What capture costs writers: an UPDATE of a bare table beside the same of a captured table, in
# alternating runs. CPU is that of the clients' backends; no worker runs but where it is said.
# BENCH_SECONDS: of each run; BENCH_RUNS: how many of each.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
seconds=${BENCH_SECONDS:-8} runs=${BENCH_RUNS:-5}
# Nothing but writers in the figures: no vacuum, no checkpoint.
start_server "autovacuum = off" "checkpoint_timeout = 1h" "max_wal_size = 16GB"

for table in bare captured; do
  sql "create table $table (id bigint primary key, n int, body text)" \
      "insert into $table select i, 0, md5(i::text) from generate_series(1, 100000) i"
  printf '%s\n' '\set id random(1, 100000)' "update $table set n = n + 1 where id = :id;" >"$work/$table.row"
  printf '%s\n' '\set id 1000 * random(0, 99)' \
    "update $table set n = n + 1 where id > :id and id <= :id + 1000;" >"$work/$table.many"
done
sql "select coco.create_flow('f', 'captured', 'select id, n, body from captured', 'target', '{id}', capture => 'trigger')" \
    "select count(*) from coco.update('f')" "vacuum analyze" "checkpoint" >/dev/null

# one TABLE SCRIPT CLIENTS NAME
one() {
  local before after lsn made wal
  rm -f "$work"/log.*
  lsn=$(sql "select pg_current_wal_insert_lsn()")
  wait_for_clients
  before=$(cpu_of_ended)
  made=$(bench -c "$3" -T "$seconds" -f "$work/$1.$2" -l --log-prefix="$work/log")
  wait_for_clients
  after=$(cpu_of_ended)
  wal=$(sql "select pg_current_wal_insert_lsn() - '$lsn'::pg_lsn")
  note "$4.$1.cpu" "$(awk -v a="$before" -v b="$after" -v n="$made" 'BEGIN {print (b - a) * 1e4 / n}')"
  note "$4.$1.wal" "$(div "$wal" "$made" %.1f)"
  note "$4.$1.p99" "$(cat "$work"/log.* | awk '{print $3}' | quantile 0.99)"
  note "$4.$1.p50" "$(cat "$work"/log.* | awk '{print $3}' | quantile 0.5)"
}

# pairs SCRIPT CLIENTS NAME: a first run of each warms up and is not counted.
pairs() {
  one bare "$1" "$2" warm
  one captured "$1" "$2" warm
  for ((n = 0; n < runs; n++)); do
    say "$3: $((n + 1)) of $runs"
    one bare "$1" "$2" "$3"
    one captured "$1" "$2" "$3"
    note "$3.cpu" "$(div "$(tail -n 1 "$work/note.$3.captured.cpu")" "$(tail -n 1 "$work/note.$3.bare.cpu")" %.3f)"
    note "$3.p99" "$(div "$(tail -n 1 "$work/note.$3.captured.p99")" "$(tail -n 1 "$work/note.$3.bare.p99")" %.3f)"
    # So that the log does not grow without end; outside of what is measured.
    if [ "$4" = update ]; then sql "select count(*) from coco.update('f')" >/dev/null; fi
  done
}

# compare NAME LABEL: medians of each, and the median of the pairs' ratios.
compare() {
  result "$2: CPU, µs" "$(of "$1.captured.cpu")" "$(of "$1.bare.cpu")" "$3"
  plain "$2: CPU, median of the pairs' ratios" "$(of "$1.cpu") ($(quantile 0 <"$work/note.$1.cpu")–$(quantile 1 <"$work/note.$1.cpu"))"
  result "$2: median latency, µs" "$(of "$1.captured.p50")" "$(of "$1.bare.p50")"
  result "$2: p99 latency, µs" "$(of "$1.captured.p99")" "$(of "$1.bare.p99")" "$4"
  plain "$2: p99, median of the pairs' ratios" "$(of "$1.p99") ($(quantile 0 <"$work/note.$1.p99")–$(quantile 1 <"$work/note.$1.p99"))"
  result "$2: WAL, bytes" "$(of "$1.captured.wal")" "$(of "$1.bare.wal")"
}

pairs row 4 row update
pairs many 1 many update
verify f
sql "select coco.start('f')" "select coco.wait('f')" >/dev/null
pairs row 4 live wait
sql "select coco.wait('f', '10 minutes')" >/dev/null
verify f

compare row "one row, 4 clients" "<= 1.25" "<= 1.3"
compare many "1,000 rows, 1 client" "" ""
compare live "one row, 4 clients, a live flow" "" ""
report "UPDATE of a captured table beside a bare one, a transaction ($runs runs of $seconds s each; WAL beside a live flow is also the worker's)"
