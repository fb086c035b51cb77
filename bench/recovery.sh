#!/usr/bin/env bash
# How soon a change is in the target of a live flow when something is in the way: its worker was ended; what another
# flow reads or writes is locked; another flow waits for a provider that does not answer; or there are 25 databases
# with live flows, and the server has 8 slots for background processes.
# BENCH_RUNS: how often a worker is ended, and how often each lock is tried; BENCH_DATABASES.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
runs=${BENCH_RUNS:-10} databases=${BENCH_DATABASES:-25}
start_server "max_worker_processes = 8" "max_prepared_transactions = 5" "max_connections = 100"

milliseconds() { date +%s%N | cut -c 1-13; }
longest() { sort -g "$work/note.$1" | tail -n 1; }
# times NAME WHAT BOUND: a row with the median, and one with the longest.
times() {
  plain "$2: median of $(wc -l <"$work/note.$1"), ms" "$(of "$1")"
  plain "$2: longest, ms" "$(longest "$1")" "<= $3"
}
# followed FLOW TABLE [AT_MOST]: changes a row, and returns when it is in the target. With a limit, also if it is not.
followed() {
  [ "$(sql "update $2 set n = n + 1 where id = 1" "select coco.wait('$1', '${3:-2 minutes}')")" = t ] ||
    [ -n "${3:-}" ] || die "flow $1 did not follow"
}
# flow NAME TABLE
flow() {
  sql "create table $2 (id int primary key, n int, body text)" \
      "insert into $2 select i, 0, md5(i::text) from generate_series(1, 1000) i" \
      "select coco.create_flow('$1', '$2', 'select id, n, body from $2', '$2_target', '{id}', capture => 'trigger')" \
      "select coco.start('$1')" "select coco.wait('$1')" >/dev/null
}
flow a one
flow b two

# While somebody writes, so that a worker is ended in the middle of a turn, too; and one that has just begun, since the
# times between are shorter than two seconds.
printf "%s\n" "\\set id random(2, 1000)" "update one set n = n + 1 where id = :id;" >"$work/write"
bench -c 4 -R 100 -T $((runs * 2)) -f "$work/write" >/dev/null &
writers=$!
for ((n = 1; n <= runs; n++)); do
  say "a worker is ended: $n of $runs"
  sleep "1.$((RANDOM % 1000))"
  while [ -z "$(sql "select pid from coco.workers")" ]; do sleep 0.02; done
  began=$(milliseconds)
  sql "select pg_terminate_backend(pid) from coco.workers" >/dev/null
  followed a one
  note ended $(($(milliseconds) - began))
done
wait "$writers"
times ended "a worker was ended" 2000

# locked NAME STATEMENT: what another session holds is held by a transaction that was prepared.
locked() {
  for ((n = 1; n <= runs; n++)); do
    sql "begin" "update one set n = n + 1 where id < 10" "commit" >/dev/null
    sql "begin" "$2" "prepare transaction 'held'" >/dev/null
    sleep "0.$((RANDOM % 1000))"
    began=$(milliseconds)
    followed b two
    note "$1" $(($(milliseconds) - began))
    sql "rollback prepared 'held'" >/dev/null
  done
}
say "locks"
locked source "lock table one in access exclusive mode"
locked target "lock table one_target in access exclusive mode"
locked row "update one_target set n = 0 where id = 3"
times source "another flow's source is locked" 1000
times target "another flow's target is locked" 1000
times row "a row of another flow's target is locked" 1000

say "a provider that does not answer"
coproc SILENT { exec perl -MIO::Socket::INET -e '$| = 1; $s = IO::Socket::INET->new(Listen => 64, LocalAddr => "127.0.0.1") or die;
  print $s->sockport, "\n"; sleep'; }
silent=$SILENT_PID
read -r port <&"${SILENT[0]}"
sql "create server silent foreign data wrapper coco_openai options (url 'http://127.0.0.1:$port')" \
    "select coco.create_flow('c', 'one', 'select id, coco.embed(body, ''silent'', ''m'') as e from one', 'embedded', '{id}')" \
    "select coco.start('c')" >/dev/null
for ((n = 1; n <= 3; n++)); do
  sleep 1
  began=$(milliseconds)
  followed b two '10 s'
  note silent $(($(milliseconds) - began))
done
times silent "another flow's provider does not answer" 1000
sql "select coco.drop_flow('c')" >/dev/null
kill "$silent" 2>/dev/null || true

say "$databases databases"
for f in a b; do
  sql "select coco.wait('$f', '1 minute')" >/dev/null
  verify $f
done
sql "select coco.stop('a')" "select coco.stop('b')" >/dev/null
# in_database N STATEMENT…
in_database() {
  local database=d$1 statements=()
  shift
  for s in "$@"; do statements+=(-c "$s"); done
  PGOPTIONS='-c client_min_messages=warning' "$PG_BIN/psql" -XAtq -v ON_ERROR_STOP=1 -d "$url dbname=$database" "${statements[@]}"
}
for ((d = 1; d <= databases; d++)); do
  sql "create database d$d template template0" >/dev/null
  in_database "$d" "create extension coco" "create table one (id int primary key, n int)" "insert into one values (1, 0)" \
    "select coco.create_flow('f', 'one', 'select id, n from one', 'target', '{id}', capture => 'trigger')" \
    "select count(*) from coco.update('f')" >/dev/null
done
# served NAME FIRST: changes a row in each database from this one on at once, and waits for all.
served() {
  local d pids=()
  for ((d = $2; d <= databases; d++)); do
    (
      began=$(milliseconds)
      [ "$(in_database "$d" "update one set n = n + 1" "select coco.wait('f', '5 minutes')")" = t ] || exit 1
      note "$1" $(($(milliseconds) - began))
    ) &
    pids+=($!)
  done
  for d in "${pids[@]}"; do wait "$d" || die "a flow was not served"; done
}
few=$((databases - 2))
for ((d = few; d <= databases; d++)); do in_database "$d" "select coco.start('f')" >/dev/null; done
served few $few
times few "$databases databases, 8 slots, three live flows" 5000
for ((d = 1; d < few; d++)); do in_database "$d" "select coco.start('f')" >/dev/null; done
served warm 1
for ((n = 1; n <= 3; n++)); do sleep 2; served all 1; done
times all "$databases databases, 8 slots, all with a live flow" 5000
as_server_user "$PG_BIN/pg_ctl" restart -D "$work/pg/data" -l "$work/pg/log" -w -t 300 -m fast >/dev/null
served again 1
times again "the same, right after the server was started again" 5000
report "From a change to the target of a live flow, when something is in the way"
