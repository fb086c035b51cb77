#!/usr/bin/env bash
# Builds the dbt project on a temporary server, again, and after changes of the data and of the models.
# shellcheck source=scripts/example.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/example.sh"
cp -R "$here" "$work/project"   # dbt writes into the project, and this script changes models
cd "$work/project"
export DBT_PROFILES_DIR=$PWD

sql "create schema shop;
     create table shop.products (id int primary key, price numeric(8, 2) not null);
     create table shop.order_lines (id int primary key, customer text not null, product int not null, pieces int not null);
     create index on shop.order_lines (product);
     insert into shop.products select n, n from generate_series(1, 20) n;
     insert into shop.order_lines select n, 'customer ' || n % 50, 1 + n % 20, 1 + n % 3 from generate_series(1, 1000) n"

# The targets have what the models say of the present data.
correct() {
  expect 0 "select count(*) from
    (select l.customer, count(*), sum(l.pieces * p.price) from shop.order_lines l join shop.products p on p.id = l.product group by 1) q
    full join analytics.customer_totals t on q = (t.customer, t.lines, t.total) where q.customer is null or t.customer is null"
}
flows() { sql "select string_agg(concat_ws(' ', flow, created), ', ' order by flow) from coco.flows"; }

say "the first run"
dbt build
expect "analytics.customer_totals,analytics.line_amounts" "select string_agg(flow, ',' order by flow) from coco.flows"
expect "1000 50" "select (select count(*) from analytics.line_amounts) || ' ' || (select count(*) from analytics.customer_totals)"
correct

say "the second run changes nothing"
before="$(flows) $(versions analytics.line_amounts) $(versions analytics.customer_totals)"
dbt run
[ "$(flows) $(versions analytics.line_amounts) $(versions analytics.customer_totals)" = "$before" ] || die "the second run wrote"

say "the data change"
sql "update shop.products set price = 100 where id = 7; delete from shop.order_lines where id <= 10;
     insert into shop.order_lines values (2001, 'a new customer', 7, 50)"
dbt run
correct
expect "t" "select 'a new customer' in (select customer from analytics.large_customers)"

say "a query changes"
before="$(flows) $(versions analytics.line_amounts)"
sed -i 's/sum(amount) as total/sum(amount) as total, max(amount) as largest/' models/customer_totals.sql
dbt run
[ "$(flows) $(versions analytics.line_amounts)" = "$before" ] || die "another flow changed"
correct
expect 0 "select count(*) from analytics.customer_totals where largest is null"

say "a declaration changes: the flow and what follows from it are declared again"
sed -i "s/'key': \['customer', 'line_id'\]/'key': ['line_id', 'customer']/" models/line_amounts.sql
dbt build
correct
expect "line_id,customer" "select array_to_string(key, ',') from coco.targets where flow = 'analytics.line_amounts'"

say "a full refresh"
dbt run --full-refresh
correct
expect 0 "select count(*) from coco.flows, coco.verify(flow)"

say "a flow becomes a plain table"
dbt run-operation coco_drop_flow --args '{flow: analytics.customer_totals}'
sed -i "s/materialized='coco_flow'/materialized='table'/" models/customer_totals.sql
dbt run
correct
expect "analytics.line_amounts" "select string_agg(flow, ',') from coco.flows"
say "the example works"
