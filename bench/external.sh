#!/usr/bin/env bash
# Rows to another Postgres: coco.update of a flow whose target is there, beside COPY of the same rows
# into a table there, over the same kind of connection; in alternating runs.
# BENCH_ROWS: how many; BENCH_RUNS: how many of each.
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rows=${BENCH_ROWS:-100000} runs=${BENCH_RUNS:-5}
start_server

there="$work/there"
other=$("$ROOT/scripts/cluster.sh" start "$there")
trap '"$ROOT/scripts/cluster.sh" stop "$there" || true; stop_server' EXIT
host=$(sed -E 's/.*host=([^ ]+).*/\1/' <<<"$other") port=$(sed -E 's/.*port=([^ ]+).*/\1/' <<<"$other")
there() { "$PG_BIN/psql" -XAtq -v ON_ERROR_STOP=1 -d "$other" -c "$1"; }

sql "create table docs (id bigint primary key, body text not null)" \
    "insert into docs select i, repeat(md5(i::text), 6) from generate_series(1, $rows) i" \
    "vacuum analyze docs" \
    "create server other foreign data wrapper coco_postgres
       options (host '$host', port '$port', dbname 'postgres', sslmode 'disable')" \
    "create user mapping for current_user server other options (user 'postgres')" >/dev/null
"$PG_BIN/psql" -XAtq -d "$url" -c "copy docs to stdout (format binary)" >"$work/rows"

milliseconds() { date +%s%N | cut -c 1-13; }

copy() {
  there "drop table if exists copied" && there "create table copied (id bigint primary key, body text not null)"
  local began; began=$(milliseconds)
  "$PG_BIN/psql" -XAtq -d "$other" -c "copy copied from stdin (format binary)" <"$work/rows"
  echo $(($(milliseconds) - began))
}

update() {
  sql "select coco.create_flow('f', 'docs', 'select id, body from docs', 'docs', '{id}', server => 'other')" >/dev/null
  local began; began=$(milliseconds)
  sql "select * from coco.update('f')" >/dev/null
  echo $(($(milliseconds) - began))
  [ "$(there "select count(*) from docs")" = "$rows" ] || die "rows are missing there"
  sql "update docs set body = 'x' || body where id % 100 = 0" >/dev/null
  began=$(milliseconds)
  sql "select * from coco.update('f')" >/dev/null
  note changed $(($(milliseconds) - began))
  began=$(milliseconds)
  sql "select * from coco.update('f', 'reexport')" >/dev/null
  note reexport $(($(milliseconds) - began))
  verify f
  sql "select coco.drop_flow('f', keep_targets => false)" "update docs set body = substr(body, 2) where id % 100 = 0" "vacuum docs" >/dev/null
}

for ((n = 0; n <= runs; n++)); do
  say "run $n of $runs"
  c=$(copy) u=$(update)
  [ $n = 0 ] && { rm -f "$work"/note.*; continue; }   # warms up
  note copy "$c"; note update "$u"; note rate "$(div "$c" "$u")"
done
result "$rows rows, COPY beside coco.update, ms: its share of the rate" "$(of copy)" "$(of update)" ">= 0.4"
plain "the runs' shares" "$(sort -g "$work/note.rate" | paste -sd ' ')"
result "1% changed, ms, beside COPY of all" "$(of changed)" "$(of copy)"
result "reexport, ms, beside COPY of all" "$(of reexport)" "$(of copy)"
report "Rows to another Postgres"
