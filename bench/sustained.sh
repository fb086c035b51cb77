#!/usr/bin/env bash
# A live flow while writers run flat out with statements of 1,000 rows: its rate over time, how far
# it is behind, what grows; the same while a transaction stays open; and beside a loop of MERGE and
# DELETE over the same log, written by hand.
# BENCH_SECONDS: of each long run; BENCH_CLIENTS: writers; BENCH_RUNS: short runs of each follower.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
seconds=${BENCH_SECONDS:-60} clients=${BENCH_CLIENTS:-2} runs=${BENCH_RUNS:-3}
slice=$((seconds / 12 > 0 ? seconds / 12 : 1))
# Vacuum looks often, so that a short run shows what a long one would.
start_server "autovacuum_naptime = 5s" "max_wal_size = 4GB"

sql "create table src (id bigint primary key, n int, body text)" \
    "insert into src select i, 0, md5(i::text) from generate_series(1, 200000) i" \
    "select coco.create_flow('f', 'src', 'select id, n, body from src', 'target', '{id}', capture => 'trigger')" \
    "select count(*) from coco.update('f')" \
    "create table hand (id bigint primary key, n int, body text)" \
    "insert into hand select id, n, body from src" \
    "vacuum analyze" "checkpoint" >/dev/null
# Each client has blocks of its own: two that update the same rows would only wait for each other.
block="\\set id 1000 * ($clients * random(0, 200 / $clients - 1) + :client_id)"
printf '%s\n' "$block" "update src set n = n + 1 where id > :id and id <= :id + 1000;" >"$work/update"
printf '%s\n' "$block" "begin;" "delete from src where id > :id and id <= :id + 1000;" \
  "insert into src select i, 0, md5(i::text) from generate_series(:id + 1, :id + 1000 - :id / 1000 % 5) i;" \
  "commit;" >"$work/replace"

# The loop by hand: what is new in the log since the last snapshot, until told to stop and caught up.
sql "create table hand_cursor (snapshot pg_snapshot)" "insert into hand_cursor values (pg_current_snapshot())" \
    "create table hand_stop (stop bool)" "insert into hand_stop values (false)" \
    "create table hand_count (loops bigint, keys bigint)" "insert into hand_count values (0, 0)"
log=$(sql "select id from coco_internal.capture")
cat >"$work/hand.sql" <<SQL
create procedure by_hand() language plpgsql as \$\$
declare since pg_snapshot; here pg_snapshot; told bool; found bigint;
begin
  loop
    select stop, snapshot into told, since from hand_stop, hand_cursor;
    commit;
    set transaction isolation level repeatable read;
    here := pg_current_snapshot();
    set local enable_seqscan = off;
    create temp table if not exists new (id bigint);
    truncate new;
    insert into new
      select distinct k1 from (
        $(for n in $(sql "select right(relname, 1) from pg_class where relname ~ '^log_${log}_[0-9]$' and relnamespace = 'coco_internal'::regnamespace"); do
            echo "${union:-} select k1 from coco_internal.log_${log}_$n where xid >= pg_snapshot_xmax(since)
                  or xid = any (array(select pg_snapshot_xip(since)))"
            union="union all"
          done)
      ) l;
    get diagnostics found = row_count;
    set local enable_seqscan = on;
    if found > 0 then
      analyze new;
      merge into hand t using (select id, n, body from src where id in (select id from new)) s on t.id = s.id
        when matched then update set n = s.n, body = s.body
        when not matched then insert values (s.id, s.n, s.body);
      delete from hand t where id in (select id from new) and not exists (select from src s where s.id = t.id);
    end if;
    update hand_cursor set snapshot = here;
    update hand_count set loops = loops + 1, keys = keys + found;
    commit;
    exit when told and found = 0;
    if found = 0 then perform pg_sleep(0.01); end if;
  end loop;
end \$\$;
SQL
"$PG_BIN/psql" -Xq -v ON_ERROR_STOP=1 -d "$url" -f "$work/hand.sql"

now() { date +%s.%N; }
worker_pid() { sql "select pid from coco.workers limit 1"; }
# Rows the writers have noted: an update one, a replacement one for each row deleted and inserted.
written() { sql "select n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables where relname = 'src'"; }

SIZES="select (select sum(pg_relation_size(oid))::bigint / 1024 from pg_class where relnamespace = 'coco_internal'::regnamespace and relname ~ '^log_.*[0-9]$'),
  pg_relation_size('coco_internal.cursor') / 1024, pg_indexes_size('coco_internal.cursor') / 1024,
  (select sum(pg_total_relation_size(oid))::bigint / 1024 from pg_class where relnamespace = 'coco'::regnamespace and relkind = 'r'
      and relname !~ '^(log|tracking)_' and relname <> 'cursor'),
  (select sum(pg_total_relation_size(tracking_table))::bigint / 1024 from coco.sources),
  pg_total_relation_size('target') / 1024,
  pg_total_relation_size('pg_class') / 1024,
  (select sum(pg_total_relation_size(c))::bigint / 1024 from unnest('{pg_attribute,pg_statistic,pg_depend,pg_shdepend,pg_type,pg_index}'::regclass[]) c)"

# sample NAME: a line a slice into $work/NAME.slices, until $work/running is gone.
sample() {
  local last_w=0 last_e=0 last_t=0 last_c=0 last_at=0 at w e t c line pid
  pid=$(worker_pid)
  while [ -e "$work/running" ]; do
    at=$(now) w=$(written) c=$(cpu_of "$pid")
    line=$(sql "select evaluated + deleted, transactions from coco.workers limit 1" "select pending, round(extract(epoch from lag)::numeric, 2) from coco.status_detail" "$SIZES" | paste -sd '|')
    IFS='|' read -r e t rest <<<"$line"
    if [ "$last_at" != 0 ]; then
      awk -v OFS='|' -v s="$(awk -v a="$at" -v b="$last_at" 'BEGIN {print a - b}')" -v w="$((w - last_w))" -v e="$((e - last_e))" \
        -v t="$((t - last_t))" -v c="$((c - last_c))" -v rest="$rest" \
        'BEGIN {print int(w / s), int(e / s), t / s, (t ? c / t / 1e6 : 0), rest}' >>"$work/$1.slices"
    fi
    last_at=$at last_w=$w last_e=$e last_t=$t last_c=$c
    sleep "$slice"
  done
}

show() {
  printf '\n%s (slices of %s s; sizes in kB)\n' "$2" "$slice"
  {
    echo 'written/s|evaluated/s|turns/s|CPU ms/turn|pending|lag s|logs|cursor|its index|catalog|tracking|target|pg_class|pg_attribute…'
    cat "$work/$1.slices"
  } | awk -F '|' '{for (i = 1; i <= NF; i++) printf "%14.13s", $i; print ""}'
}

# load NAME SECONDS: writers; then waits until the flow has caught up. Short runs are not sampled:
# coco.status counts what is pending, which takes its share of the processors.
load() {
  local from began at
  from=$(written) at=$(now)
  local sampler=
  if [ "$1" != short ]; then
    touch "$work/running"
    sample "$1" &
    sampler=$!
  fi
  bench -c "$clients" -T "$2" -f "$work/update@2" -f "$work/replace@1" >/dev/null
  began=$(now)
  rm -f "$work/running"
  waiting=$(sql "select coco.wait('f', '10 minutes')" "select split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)" | tail -n 1)
  catching=$(awk -v a="$(now)" -v b="$began" 'BEGIN {print a - b}')
  if [ -n "$sampler" ]; then wait "$sampler"; fi
  sleep 1.2   # statistics
  total=$(($(written) - from))
  writing=$(awk -v a="$began" -v b="$at" 'BEGIN {print a - b}')
}

halves() { awk -F '|' '{v[NR] = $2} END {h = int(NR / 2); for (i = 1; i <= h; i++) {a += v[i]; b += v[NR - h + i]} if (a) printf "%.2f\n", b / a}' "$work/$1.slices"; }

sql "select coco.start('f')" "select coco.wait('f', '5 minutes')" >/dev/null
sql "select coco.wait('f')" >/dev/null
pid=$(worker_pid)

say "a live flow, $seconds s"
load warm 3
cpu=$(cpu_of "$pid")
load live "$seconds"
cpu=$(($(cpu_of "$pid") - cpu))
verify f
show live "A live flow"
plain "rows written a second" "$(div "$total" "$writing" %.0f)"
plain "evaluated a second, second half beside the first" "$(halves live)" ">= 0.9"
result "time to catch up after the writers, s (beside: their time)" "$catching" "$writing"
plain "CPU of the worker a row written, µs" "$(div "$cpu" "$((total * 1000))")"
result "CPU of coco.wait while it catches up, ms (beside: the worker)" "$(div "$waiting" 1e6)" "$(div "$cpu" 1e6)"

say "a live flow and an open transaction, $seconds s"
"$PG_BIN/psql" -XAtq -d "$url" -c "begin isolation level repeatable read" -c "select pg_current_xact_id()" \
  -c "select pg_sleep(1e6)" >/dev/null 2>&1 &
holder=$!
sleep 0.5
cpu=$(cpu_of "$pid")
load open "$seconds"
cpu=$(($(cpu_of "$pid") - cpu))
show open "A live flow, a transaction being open"
plain "open transaction: rows written a second" "$(div "$total" "$writing" %.0f)"
plain "open transaction: evaluated a second, second half beside the first" "$(halves open)" ">= 0.9"
result "open transaction: time to catch up, s (beside: the writers' time)" "$catching" "$writing"
plain "open transaction: CPU of the worker a row written, µs" "$(div "$cpu" "$((total * 1000))")"
plain "open transaction: buffers of a look into coco_internal.cursor" \
  "$(sql "explain (analyze, buffers, timing off) select * from coco_internal.cursor where source = (select min(id) from coco_internal.source)" | grep -m 1 -o 'shared hit=[0-9]*')"
sql "select pg_terminate_backend(pid) from pg_stat_activity where query like 'select pg_sleep(1e6)%'" >/dev/null
wait "$holder" 2>/dev/null || true
verify f

# Short runs, in turns: the time until caught up and the follower's CPU, for each row written.
for ((n = 1; n <= runs; n++)); do
  say "the flow beside a loop by hand: $n of $runs"
  cpu=$(cpu_of "$pid")
  load short 10
  note live.rate "$(awk -v t="$total" -v a="$writing" -v b="$catching" 'BEGIN {print t / (a + b)}')"
  note live.cpu "$(div "$(($(cpu_of "$pid") - cpu))" "$((total * 1000))" %.3f)"

  sql "select coco.stop('f')" "update hand_stop set stop = false"
  # What happened meanwhile is not part of it.
  sql "begin; lock hand; truncate hand; insert into hand select id, n, body from src; update hand_cursor set snapshot = pg_current_snapshot(); commit" \
      "vacuum analyze hand"
  from=$(written) began=$(now)
  PGOPTIONS='-c synchronous_commit=off -c client_min_messages=warning -c application_name=hand' \
    "$PG_BIN/psql" -Xq -d "$url" -c "call by_hand()" -c "select split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)" -At >"$work/hand.cpu" &
  hand=$!
  bench -c "$clients" -T 10 -f "$work/update@2" -f "$work/replace@1" >/dev/null
  sql "update hand_stop set stop = true"
  wait "$hand"
  time=$(awk -v a="$(now)" -v b="$began" 'BEGIN {print a - b}')
  sleep 1.2
  total=$(($(written) - from))
  note hand.rate "$(div "$total" "$time")"
  note hand.cpu "$(div "$(cat "$work/hand.cpu")" "$((total * 1000))" %.3f)"
  [ "$(sql "select count(*) from hand t full join src s using (id) where t.n is distinct from s.n")" = 0 ] || say "what was written by hand differs"
  sql "select coco.start('f')" "select coco.wait('f', '10 minutes')" >/dev/null
  pid=$(worker_pid)
done
verify f
result "rows followed a second, live flow (beside: by hand)" "$(of live.rate)" "$(of hand.rate)" ">= 0.5"
result "CPU of the follower a row written, µs (beside: by hand)" "$(of live.cpu)" "$(of hand.cpu)" "<= 2"
report "Writers flat out: $clients clients, statements of 1,000 rows"
