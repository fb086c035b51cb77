#!/usr/bin/env bash
# Groups that coco keeps by deltas, beside whole groups (the item engine) and beside the GROUP BY over all, run again into a
# table. One row changed in a group of BENCH_ROWS rows; 100 rows changed in BENCH_ITEMS rows of BENCH_GROUPS customers,
# write and refresh together; the writers alone, beside a table that nothing captures; and the first update.
# BENCH_RUNS: repetitions. The results are checked against the query.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rows=${BENCH_ROWS:-1000000} items=${BENCH_ITEMS:-500000} groups=${BENCH_GROUPS:-5000} runs=${BENCH_RUNS:-9}
start_server "autovacuum = off" "max_wal_size = 4GB"

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
  timed one.delta "select * from coco.update('one_delta')" \
    "update big set amount = amount + 1 where id = 77 * $n" -- "select * from coco.update('one_delta')"
  timed one.group "select * from coco.update('one_group')" "update big set amount = amount + 1 where id = 78 * $n" \
    -- "select * from coco.update('one_group')"
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
for way in delta group; do
  declare_flow "many_$way" sales customer "$many" "$way"
  timed "many.first.$way" "select * from coco.update('many_$way')"
  for ((n = 1; n <= runs; n++)); do
    say "100 rows of $items, $way: $n of $runs"
    change="amount = amount + 1 where id % ($items / 100) = $n"
    timed "many.write.$way" "update sales set $change" -- "update sales set $change"
    sql "select * from coco.update('many_$way')" >/dev/null
    timed "many.$way" "select * from coco.update('many_$way')" -- \
      "update sales set $change" "select * from coco.update('many_$way')"
    timed "many.bare" "update bare set $change" -- "update bare set $change"
    timed many.again "begin" "truncate many_again" "insert into many_again $many" "commit"
  done
  same "many_$way" "$many"
  verify "many_$way"
  sql "select coco.drop_flow('many_$way', keep_targets => false)" "vacuum sales, bare" >/dev/null
done

result "one row in a group of $rows (ms; whole group)" "$(of one.delta)" "$(of one.group)"
result "one row in a group of $rows (ms; GROUP BY over all)" "$(of one.delta)" "$(of one.again)"
plain "one row in a group of $rows (ms)" "$(of one.delta)" "<= 2"
result "100 rows of $items, write and refresh (ms; whole groups)" "$(of many.delta)" "$(of many.group)"
result "100 rows of $items, write and refresh (ms; GROUP BY)" "$(of many.delta)" "$(of many.again)"
plain "100 rows of $items, write and refresh (ms; pg_ivm took 5.3)" "$(of many.delta)" "<= 5.3"
result "100 rows written (ms; a bare table)" "$(of many.write.delta)" "$(of many.bare)" "<= 1.25"
result "first update, 2 groups of $rows rows (ms; whole groups)" "$(of one.first.delta)" "$(of one.first.group)"
result "first update, $groups groups of $items rows (ms; GROUP BY)" "$(of many.first.delta)" "$(of many.again)" "<= 1.5"
report "Groups by deltas"
