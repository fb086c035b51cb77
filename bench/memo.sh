#!/usr/bin/env bash
# Memoized functions: texts embedded by a provider that takes a while for each request, beside the time
# that its concurrency allows; what a result that is there costs, beside the same query without it; and
# the memory of an update beside a memo that is ten times as large.
# BENCH_INPUTS: distinct texts; BENCH_ROWS: items of which each result is there; BENCH_RUNS.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
inputs=${BENCH_INPUTS:-10000} rows=${BENCH_ROWS:-100000} runs=${BENCH_RUNS:-5}
delay=50 batch=64 concurrency=16
start_server

(cd "$ROOT" && cargo build --quiet --release --no-default-features --features "$PG_FEATURE connectors" --example provider)
coproc PROVIDER { "${CARGO_TARGET_DIR:-$ROOT/target}/release/examples/provider" "$delay"; }
read -r base <&"${PROVIDER[0]}"
# What it was asked since the last time: requests and inputs.
counted() { echo >&"${PROVIDER[1]}"; read -r requests_made inputs_asked <&"${PROVIDER[0]}"; }
milliseconds() { date +%s%N | cut -c 1-13; }

sql "create server models foreign data wrapper coco_openai
       options (url '$base', batch_size '$batch', concurrency '$concurrency')" \
    "create table texts (id int primary key, body text not null)" \
    "insert into texts select i, md5(i::text) || ' ' || i from generate_series(1, $inputs) i" >/dev/null
requests=$(((inputs + batch - 1) / batch))
ideal=$(((requests + concurrency - 1) / concurrency * delay))

for ((n = 0; n <= runs; n++)); do
  say "run $n of $runs: $inputs texts"
  sql "select coco.create_flow('f', 'texts', 'select id, coco.embed(body, ''models'', ''m'') as e from texts', 'embedded', '{id}')" >/dev/null
  began=$(milliseconds)
  sql "select * from coco.update('f')" >/dev/null
  [ $n = 0 ] || note embedded $(($(milliseconds) - began))
  counted
  [ "$requests_made $inputs_asked" = "$requests $inputs" ] ||
    die "$inputs_asked texts were asked for in $requests_made requests"
  verify f
  sql "set coco.memo_retention = 0" "select coco.drop_flow('f', keep_targets => false)" >/dev/null
done
result "$inputs texts, ${delay} ms a request of $batch, $concurrency at once (ms)" "$(of embedded)" "$ideal" "<= 1.3"

# What the items ask for is there: a flow of which each item is evaluated and written again, beside one
# whose query has results of the same size without a call.
sql "create function vector_of(t text) returns real[] language sql stable
       return (select array_agg((ascii(substr(t, 1 + i % 32, 1)) / 128.0)::real) from generate_series(1, 384) as i)" \
    "select coco.memoize('vector_of(text)')" \
    "create table items (id int primary key, body text not null)" \
    "insert into items select i, repeat(md5(i::text), 30) from generate_series(1, $rows) i" \
    "create table plain (v real[]); insert into plain select vector_of('x')" \
    "select coco.create_flow('hits', 'items', 'select id, vector_of(body) as v from items', 'hit', '{id}')" \
    "select coco.create_flow('none', 'items', 'select id, p.v from items, plain p', 'unhit', '{id}')" \
    "select * from coco.update('hits')" "select * from coco.update('none')" "vacuum analyze" >/dev/null
for ((n = 1; n <= runs; n++)); do
  say "run $n of $runs: $rows results that are there"
  for flow in hits none; do
    note $flow "$(sql "select extract(epoch from sum(elapsed)) * 1000000 / $rows from coco.update('$flow', 'reexport')")"
  done
done
[ "$(sql "select misses = $rows from coco.functions where flow = 'hits'")" = t ] || die "something was computed again"
plain "a result that is there (microseconds)" \
  "$(awk -v a="$(of hits)" -v b="$(of none)" 'BEGIN {printf "%.1f", a - b}')" "<= 20"

# Peak memory of a session that updates 10,000 items, by the size of the memo.
peak() {
  sql "create table many_$1 (id int primary key, body text not null)" \
      "insert into many_$1 select i, 'text $1 ' || i from generate_series(1, $1) i" \
      "select coco.create_flow('many_$1', 'many_$1', 'select id, lower_of(body) as v from many_$1', 'of_$1', '{id}')" \
      "select * from coco.update('many_$1')" "update many_$1 set body = body || '.' where id <= 10000" >/dev/null
  {
    echo "select count(*) from coco.update('many_$1') \\g /dev/null"
    echo "select pg_backend_pid() \\g $work/pid"
    echo "\\! awk '/^VmHWM|^RssShmem/ {v[\$1] = \$2} END {print v[\"VmHWM:\"] - v[\"RssShmem:\"]}' /proc/\$(cat $work/pid)/status"
  } | "$PG_BIN/psql" -XAtq -d "$url"
}
sql "create function lower_of(t text) returns text language plpgsql as 'begin return lower(t); end'" \
    "select coco.memoize('lower_of(text)')" >/dev/null
say "memory beside 100,000 and 1,000,000 results"
small=$(peak 100000) large=$(peak 1000000)
result "memory of an update of 10,000, 1,000,000 results beside 100,000 (kB)" "$large" "$small"

report "Memoized functions"
