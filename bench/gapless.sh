#!/usr/bin/env bash
# A query is changed without a gap, and changed back by coco.rollback, while readers poll the target about every
# millisecond. A read fails if a row is missing, has no value, or is of another version than the other rows of the read.
# BENCH_ROWS: of the source and the target; BENCH_RATE: reads a second.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rows=${BENCH_ROWS:-2000000} rate=${BENCH_RATE:-1000}
start_server

sql "create table s (id int primary key, n int not null)" \
    "insert into s select i, i from generate_series(1, $rows) i" "vacuum analyze s" \
    "select coco.create_flow('f', 's', 'select id, n, n * 2 as v, 1 as version from s', 't', '{id}', capture => 'trigger')" \
    "select count(*) from coco.update('f')" "vacuum analyze t" "select coco.start('f')" "select coco.wait('f')" >/dev/null

# Ten rows that are always there. The division raises an error if a read does not see all of them as of one version.
cat >"$work/read.sql" <<SQL
\set first random(1, $rows - 10)
select 1 / (count(*) = 10 and count(v) = 10 and count(distinct version) = 1 and bool_and(v = n * (version + 1)))::int
  from t where id >= :first and id < :first + 10;
SQL

# A row of the source changes now and then, so that both versions are followed.
cat >"$work/write.sql" <<SQL
\set id random(1, $rows)
update s set n = n + 1 where id = :id;
SQL

(cd "$work" && exec "$PG_BIN/pgbench" -n -M prepared -c 2 -R "$rate" -T 86400 -f read.sql -l --log-prefix=read "$url" >read.out 2>&1) &
readers=$!
(cd "$work" && exec "$PG_BIN/pgbench" -n -M prepared -c 1 -R 20 -T 86400 -f write.sql "$url" >write.out 2>&1) &
writer=$!

# seconds_until CONDITION
seconds_until() {
  local began=$EPOCHREALTIME
  for ((n = 0; n < 18000; n++)); do
    if [ "$(sql "select $1")" = t ]; then
      div "$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN {print b - a}')" 1
      return
    fi
    sleep 0.1
  done
  die "not within half an hour: $1"
}

# reads NAME: what the readers have read since the last call.
lines=0
reads() {
  local all
  cat "$work"/read.[0-9]* | sort -n -k5,5 -k6,6 >"$work/all"
  all=$(wc -l <"$work/all")
  tail -n +$((lines + 1)) "$work/all" | awk '{print ($3 - $7) / 1000}' >"$work/$1.reads"
  lines=$all
  plain "$1: reads" "$(wc -l <"$work/$1.reads")"
  plain "$1: read, median, ms" "$(median <"$work/$1.reads")"
  plain "$1: longest read, ms" "$(quantile 1 <"$work/$1.reads")" "< 50"
}

sleep 10
reads "before"
sql "select coco.set_query('f', null, 'select id, n, n * 3 as v, 2 as version from s', gapless => true, keep_old => '1 hour')" >/dev/null
plain "gapless: seconds until the new version is the target" "$(seconds_until "(select version = 2 from t limit 1)")"
sleep 5
reads "gapless"
sql "select coco.rollback('f')" >/dev/null
plain "rollback: seconds until the old version is the target" "$(seconds_until "(select version = 1 from t limit 1)")"
sleep 5
reads "rollback"
kill -0 "$readers" 2>/dev/null || { cat "$work/read.out" >&2; die "a reader has failed"; }
kill "$writer" "$readers"
wait "$writer" "$readers" || true
if grep -iE 'error|aborted' "$work/read.out" "$work/write.out" >&2; then die "a reader or the writer has failed"; fi
sql "select coco.wait('f', '10 minutes')" >/dev/null
verify f
report "A change without a gap, $rows rows, $rate reads a second"
