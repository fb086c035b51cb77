#!/usr/bin/env bash
# That what an update costs does not grow with what there is: the peak memory of the process that updates,
# and an update of a captured source that finds nothing changed.
# BENCH_ITEMS: rows of the large table; BENCH_RUNS: repetitions.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
items=${BENCH_ITEMS:-10000000} runs=${BENCH_RUNS:-25}
start_server "autovacuum = off" "max_wal_size = 8GB"

declare_flow() {
  sql "create table src_$1 (id bigint primary key, body text, n int)" \
      "insert into src_$1 select i, md5(i::text) || repeat('x', 140), i from generate_series(1, $1) i" \
      "select coco.create_flow('f$1', 'src_$1', 'select id, body, n from src_$1', 'target_$1', '{id}', capture => 'trigger')" >/dev/null
}

# peak ITEMS STATEMENT…: the peak in kB of the memory that is a session's own, which runs them.
peak() {
  {
    echo "select pg_backend_pid() \\g $work/pid"
    printf '%s \\g /dev/null\n' "${@:2}"
    echo "\\! awk '/^VmHWM|^RssShmem/ {v[\$1] = \$2} END {print v[\"VmHWM:\"] - v[\"RssShmem:\"]}' /proc/\$(cat $work/pid)/status"
  } | "$PG_BIN/psql" -XAtq -v ON_ERROR_STOP=1 -d "$url"
}

for size in 100000 "$items"; do
  say "$size rows"
  declare_flow "$size"
  note "first.$size" "$(peak "$size" "select * from coco.update('f$size')")"
  tracking=$(sql "select round(pg_total_relation_size(tracking_table) / $size.0, 1) from coco.sources where flow = 'f$size'")
  note "full.$size" "$(peak "$size" "select * from coco.update('f$size', 'full_reprocess')")"
  verify "f$size"
done
declare_flow 20000
sql "select * from coco.update('f20000')" "vacuum analyze" "checkpoint" >/dev/null

result "peak memory of a first update, $items rows (kB; 100,000)" "$(of "first.$items")" "$(of first.100000)"
plain "it grows by (MB)" "$(awk -v a="$(of "first.$items")" -v b="$(of first.100000)" 'BEGIN {printf "%.1f", (a - b) / 1024}')" "< 32"
result "peak memory of a full_reprocess, $items rows (kB; 100,000)" "$(of "full.$items")" "$(of full.100000)"
plain "it grows by (MB)" "$(awk -v a="$(of "full.$items")" -v b="$(of full.100000)" 'BEGIN {printf "%.1f", (a - b) / 1024}')" "< 32"

say "nothing changed, $runs times each"
for ((n = 1; n <= runs; n++)); do
  for size in 20000 "$items"; do
    timed "nothing.$size" "select count(*) from coco.update('f$size')" -- "select count(*) from coco.update('f$size')"
  done
done
result "nothing changed, $items rows (ms; 20,000)" "$(of "nothing.$items")" "$(of nothing.20000)" "<= 1.2"
plain "tracking, bytes an item with its index" "$tracking" "<= 140"
report "A source of $items rows"
