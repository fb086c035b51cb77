#!/usr/bin/env bash
# Groups that coco keeps by deltas, beside whole groups (the item engine), the GROUP BY over all, run again into a table, and
# an incremental view of pg_ivm: one row changed in a group of BENCH_ROWS rows; 100 rows changed in BENCH_ITEMS rows of
# BENCH_GROUPS customers, write and refresh together; the writers alone, beside a table that nothing captures; and the
# first update. Each change follows another one in the same session. The results are checked against the query.
# BENCH_RUNS: repetitions. BENCH_PG_IVM: a checkout of pg_ivm, which is built there; without it, pg_ivm is left out.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rows=${BENCH_ROWS:-1000000} items=${BENCH_ITEMS:-500000} groups=${BENCH_GROUPS:-5000} runs=${BENCH_RUNS:-9}
start_server "autovacuum = off" "max_wal_size = 4GB"
ivm=${BENCH_PG_IVM:-}
if [ -n "$ivm" ]; then
  # The flags of the server's own build may be those of another compiler.
  (cd "$ivm" && make -s PG_CONFIG="$PG_CONFIG" with_llvm=no CFLAGS="-O2 -fwrapv -fno-strict-aliasing" all install) >&2 ||
    die "pg_ivm could not be built in $ivm"
  sql "create extension pg_ivm"
fi

# declare FLOW TABLE KEY QUERY [delta]
declare_flow() {
  local how=group
  if [ "${5:-}" = delta ]; then how=delta; fi
  sql "select coco.create_flow('$1', '$2', \$\$ $4 \$\$, '$1', '{$3}', source_key => '{$3}', aggregate => '$how')" >/dev/null
}

# same TABLE QUERY KEY
same() {
  [ "$(sql "select count(*) from ((table $1 except all ($2)) union all (($2) except all table $1)) d")" = 0 ] ||
    die "$1 differs from the query"
}

one="select region, count(*) as sales, sum(amount) as amount, avg(amount) as mean, max(amount) as most from big group by region"
sql "create table big (id bigint primary key, region int not null, amount numeric(12,2) not null)" \
    "insert into big select i, 1 + (i > $rows)::int, (i * 7919 % 100000) / 100.0 from generate_series(1::bigint, $rows + 1000) i" \
    "create index on big (region)" "vacuum analyze big" \
    "create table one_again (region int primary key, sales bigint, amount numeric, mean numeric, most numeric)" "checkpoint"
declare_flow one_delta big region "$one" delta
declare_flow one_group big region "$one"
timed one.first.delta "select * from coco.update('one_delta')"
timed one.first.group "select * from coco.update('one_group')"
for ((n = 1; n <= runs; n++)); do
  say "one row of $rows: $n of $runs"
  sql "vacuum one_delta, one_group"
  for way in delta group; do
    timed "one.$way" "update big set amount = amount + 1 where id = 76 * $n" "select * from coco.update('one_$way')" \
      "update big set amount = amount + 1 where id = 77 * $n" -- "select * from coco.update('one_$way')"
  done
  sql "select * from coco.update('one_delta')" >/dev/null
  timed one.again "begin" "truncate one_again" "insert into one_again $one" "commit"
done
same one_delta "$one"
same one_group "$one"
same one_again "$one"
sql "select coco.drop_flow('one_delta', keep_targets => false), coco.drop_flow('one_group', keep_targets => false)" \
    "drop table big, one_again" >/dev/null

many="select customer, sum(amount) as amount, count(*) as sales from sales group by customer"
sql "create table sales (id bigint primary key, customer int not null, amount numeric(12,2) not null)" \
    "insert into sales select i, i % $groups, (i * 7919 % 100000) / 100.0 from generate_series(1::bigint, $items) i" \
    "create index on sales (customer)" "create table bare (like sales including all)" "insert into bare table sales" \
    "create table many_again (customer int primary key, amount numeric, sales bigint)" "vacuum analyze sales, bare" "checkpoint"
# change TABLE NUMBER: 100 rows, which an index finds.
change() {
  echo "update $1 set amount = amount + 1 where id = any (array(select g * ($items / 100) + $2 from generate_series(0, 99) g))"
}
for way in delta group ${ivm:+ivm}; do
  refresh=()
  if [ "$way" = ivm ]; then
    timed many.first.ivm "select pgivm.create_immv('many_ivm', '$many')"
  else
    declare_flow "many_$way" sales customer "$many" "$way"
    timed "many.first.$way" "select * from coco.update('many_$way')"
    refresh=("select * from coco.update('many_$way')")
  fi
  for ((n = 1; n <= runs; n++)); do
    say "100 rows of $items, $way: $n of $runs"
    timed "many.$way" "$(change sales "$n")" "${refresh[@]}" -- "$(change sales $((n + 100)))" "${refresh[@]}"
    timed "many.write.$way" "$(change sales "$n")" -- "$(change sales $((n + 100)))"
    [ "$way" = ivm ] || sql "${refresh[@]}" >/dev/null
    timed "many.bare" "$(change bare "$n")" -- "$(change bare $((n + 100)))"
    timed many.again "begin" "truncate many_again" "insert into many_again $many" "commit"
  done
  if [ "$way" = ivm ]; then
    [ "$(sql "select count(*) from ((select customer, amount, sales from many_ivm except all ($many)) union all
                ($many except all select customer, amount, sales from many_ivm)) d")" = 0 ] || die "many_ivm differs from the query"
    sql "drop table many_ivm"
  else
    same "many_$way" "$many"
    verify "many_$way"
    sql "select coco.drop_flow('many_$way', keep_targets => false)" >/dev/null
  fi
  sql "vacuum sales, bare"
done

result "one row in a group of $rows (ms; whole group)" "$(of one.delta)" "$(of one.group)"
result "one row in a group of $rows (ms; GROUP BY over all)" "$(of one.delta)" "$(of one.again)"
plain "one row in a group of $rows (ms)" "$(of one.delta)" "<= 2"
result "100 rows of $items, write and refresh (ms; whole groups)" "$(of many.delta)" "$(of many.group)"
result "100 rows of $items, write and refresh (ms; GROUP BY)" "$(of many.delta)" "$(of many.again)"
if [ -n "$ivm" ]; then
  result "100 rows of $items, write and refresh (ms; pg_ivm)" "$(of many.delta)" "$(of many.ivm)" "<= 1"
  result "100 rows written, pg_ivm (ms; a bare table)" "$(of many.write.ivm)" "$(of many.bare)"
  result "first update, $groups groups of $items rows (ms; create_immv)" "$(of many.first.delta)" "$(of many.first.ivm)"
fi
result "100 rows written (ms; a bare table)" "$(of many.write.delta)" "$(of many.bare)" "<= 1.25"
result "first update, 2 groups of $rows rows (ms; whole groups)" "$(of one.first.delta)" "$(of one.first.group)"
result "first update, $groups groups of $items rows (ms; GROUP BY)" "$(of many.first.delta)" "$(of many.again)" "<= 1.5"
report "Groups by deltas"
