#!/usr/bin/env bash
# What coco.estimate says of 50 changes of different kinds, beside what the updates then do: rows, requests, tokens and
# time. The last lines count the changes within 10 % (rows), 20 % (requests, tokens) and a factor of 2 (time).
# BENCH_ROWS: rows of the source; BENCH_SAMPLE: items that coco evaluates for an estimate.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rows=${BENCH_ROWS:-100000} sample=${BENCH_SAMPLE:-1000}
start_server "max_wal_size = 4GB"

(cd "$ROOT" && cargo build --quiet --release --no-default-features --features "$PG_FEATURE connectors" --example provider)
coproc PROVIDER { "${CARGO_TARGET_DIR:-$ROOT/target}/release/examples/provider" 1; }
read -r base <&"${PROVIDER[0]}"

sql "create server models foreign data wrapper coco_openai options (url '$base', batch_size '64', concurrency '16')" \
    "create table d (id int primary key, v int not null, body text not null)" \
    "insert into d select i, i, 'row ' || i from generate_series(1, $rows) i" \
    "create table texts (id int primary key, body text not null)" \
    "insert into texts select i, md5(i::text) || ' ' || i from generate_series(1, $rows / 10) i" \
    "create function shown(i int) returns int language sql immutable as 'select i'" \
    "select coco.create_flow('f', 'd', 'select id, n, shown(v) as v, body from d, generate_series(1, 1 + id % 3) n', 't', '{id,n}')" \
    "select coco.create_flow('e', 'texts', 'select id, coco.embed(body, ''models'', ''m0'') as e from texts', 'embedded', '{id}')" >/dev/null

# change WHAT FLOW STATEMENT [QUERY]: makes a change, or sets a query; estimates the update before, runs it, and notes
# both. With QUERY, coco estimates the query before the statement sets it.
change() {
  local what=$1 flow=$2 statement=$3 arguments="'$2', sample => $sample" estimated actual
  [ -n "${4:-}" ] && arguments="$arguments, query => \$q\$$4\$q\$"
  [ -n "${4:-}" ] || sql "$statement" "vacuum analyze" >/dev/null
  estimated=$(sql "select round(coalesce(sum(estimate) filter (where measure in ('upserted', 'deleted')), 0)),
                          coalesce(sum(estimate) filter (where measure = 'requests'), 0),
                          coalesce(sum(estimate) filter (where measure = 'tokens_in'), 0),
                          sum(estimate) filter (where measure = 'seconds')
                     from coco.estimate($arguments)")
  [ -z "${4:-}" ] || sql "$statement" >/dev/null
  actual=$(sql "select sum(upserted + deleted),
                       coalesce(sum((select sum((f.value->>'requests')::numeric) from jsonb_each(memo) f)), 0),
                       coalesce(sum((select sum((f.value->>'tokens_in')::numeric) from jsonb_each(memo) f)), 0),
                       extract(epoch from sum(elapsed))
                  from coco.update('$flow')")
  printf '%s|%s|%s\n' "$what" "$estimated" "$actual" >>"$work/changes"
}

say "first updates"
change "first update" f "select 1"
change "first update, embeddings" e "select 1"
say "changed rows"
for share in 1 2 5 10 25 50 75 100; do
  change "update of $share % of the rows" f "update d set v = v + 1 where id % 100 < $share"
done
for share in 1 5 10; do
  change "delete of $share % of the rows" f "delete from d where id % 100 < $share"
  change "insert of $share % of the rows" f "insert into d select i, i, 'row ' || i from generate_series(1, $rows) i where i % 100 < $share"
done
say "replaced functions"
for share in 1 2 5 10 20 30 40 50 75 100; do
  change "function that differs for $share % of the items" f \
    "create or replace function shown(i int) returns int language sql immutable as 'select case when i % 100 < $share then -i - $share else i end'"
done
say "queries"
for share in 2 3 4 5 6 7; do
  query="select id, n, shown(v) as v, body from d, generate_series(1, 1 + id % $share) n"
  change "query of up to $share rows an item" f "select coco.set_query('f', null, \$q\$$query\$q\$)" "$query"
done
for share in 10 30 50 70; do
  query="select id, n, shown(v) as v, body from d, generate_series(1, 1 + id % 3) n where id % 100 >= $share"
  change "query without $share % of the items" f "select coco.set_query('f', null, \$q\$$query\$q\$)" "$query"
done
query="select id, n, shown(v) as v, body, upper(body) as more from d, generate_series(1, 1 + id % 3) n"
change "query with another column" f "select coco.set_query('f', null, \$q\$$query\$q\$)" "$query"
query="select id, n, shown(v) as v, body from d, generate_series(1, 1 + id % 3) n"
change "query with a column less" f "select coco.set_query('f', null, \$q\$$query\$q\$)" "$query"
say "embeddings"
for share in 1 2 5 10 25 50 75 100; do
  change "$share % of the texts are new" e "update texts set body = 'new ' || $share || md5(body) where id % 100 < $share"
done
change "texts that exist already" e "update texts set body = (select o.body from texts o where o.id = 1) where id % 10 = 0"
for model in m1 m2 m3; do
  query="select id, coco.embed(body, 'models', '$model') as e from texts"
  change "model $model" e "select coco.set_query('e', null, \$q\$$query\$q\$)" "$query"
done
verify f
verify e

printf '\n%s changes of %s rows, sample of %s items: estimate / actual\n' "$(wc -l <"$work/changes")" "$rows" "$sample"
awk -F '|' -v OFS='' '
  function near(a, b, by) { return a <= b * (1 + by) + 1 && a >= b * (1 - by) - 1 }
  {
    printf "  %-46s %9d / %-9d %6d / %-6d %8d / %-8d %7.2f / %.2f s\n", $1, $2, $6, $3, $7, $4, $8, $5, $9
    rows += near($2, $6, 0.1); requests += near($3, $7, 0.2); tokens += near($4, $8, 0.2)
    # Below 0.1 s, the time depends on the processes more than on the work.
    time += ($5 <= $9 * 2 + 0.1 && $5 >= $9 / 2 - 0.1)
  }
  END {
    printf "  within bounds: rows %d, requests %d, tokens %d, time %d of %d\n", rows, requests, tokens, time, NR
  }' "$work/changes"
