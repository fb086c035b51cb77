#!/usr/bin/env bash
# Aggregates: an item is the group of rows that share a key. After 1% of the groups were touched, an update
# beside the GROUP BY over all, run again into a table; and the first update beside the same.
# BENCH_ITEMS: rows; BENCH_GROUPS: customers; BENCH_RUNS: repetitions.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
items=${BENCH_ITEMS:-1000000} groups=${BENCH_GROUPS:-100000} runs=${BENCH_RUNS:-5}
start_server "autovacuum = off" "max_wal_size = 4GB"

query="select customer, sum(amount) as amount, count(*) as sales from sales group by customer"
sql "create table sales (id bigint primary key, customer int not null, amount numeric(12,2) not null)" \
    "insert into sales select i, i % $groups, (i * 7919 % 100000) / 100.0 from generate_series(1::bigint, $items) i" \
    "create index on sales (customer)" "create table plain (customer int primary key, amount numeric, sales bigint)" \
    "vacuum analyze sales" "checkpoint"

for ((n = 1; n <= runs; n++)); do
  say "$n of $runs"
  sql "select coco.create_flow('totals', 'sales', \$\$ $query \$\$, 'totals', '{customer}', source_key => '{customer}')" >/dev/null
  timed first "select * from coco.update('totals')"
  timed again "begin" "truncate plain" "insert into plain $query" "commit"
  sql "vacuum analyze totals"
  timed touched "select * from coco.update('totals')" \
    "update sales set amount = amount + 1 where id <= $items / 100 and customer % 100 = $n" \
    "insert into sales select $items + 1 + i * 100 + $n, i * 100 + $n, 1 from generate_series(0, $groups / 100 - 1) i" \
    -- "select * from coco.update('totals')"
  timed again "begin" "truncate plain" "insert into plain $query" "commit"
  [ "$(sql "select count(*) from totals t full join plain p using (customer) where t.amount is distinct from p.amount or t.sales is distinct from p.sales")" = 0 ] ||
    die "the totals differ"
  sql "select coco.drop_flow('totals', keep_targets => false)" \
      "delete from sales where id > $items" >/dev/null
  sql "vacuum sales"
done
result "first update, $groups groups of $items rows (ms; GROUP BY)" "$(of first)" "$(of again)"
result "1% of the groups touched: GROUP BY over all (ms; coco)" "$(of again)" "$(of touched)" ">= 20"
report "Group items"
