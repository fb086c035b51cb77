#!/usr/bin/env bash
# Rows to another Postgres: coco.update of a flow whose target is there, beside COPY of the same rows
# into a table there, over the same kind of connection. And to Kafka, beside the client library's own
# producer. In alternating runs.
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

# Neither server makes files for its WAL while it is measured, as on one that has run for a while: they are
# there to be used again. Nor does it write what was left by what came before.
rest() { sql "checkpoint" && there "checkpoint"; }

copy() {
  there "drop table if exists copied" && there "create table copied (id bigint primary key, body text not null)"
  rest
  local began; began=$(milliseconds)
  "$PG_BIN/psql" -XAtq -d "$other" -c "copy copied from stdin (format binary)" <"$work/rows"
  echo $(($(milliseconds) - began))
}

update() {
  sql "select coco.create_flow('f', 'docs', 'select id, body from docs', 'docs', '{id}', server => 'other')" >/dev/null
  rest
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

kafka="$work/kafka"
eval "$("$ROOT/scripts/servers/kafka.sh" start "$kafka" | grep -E '^plaintext=')"
trap '"$ROOT/scripts/servers/kafka.sh" remove "$kafka" || true; "$ROOT/scripts/cluster.sh" stop "$there" || true; stop_server' EXIT
sql "create server broker foreign data wrapper coco_kafka options (bootstrap_servers '$plaintext')" \
    "create user mapping for current_user server broker" >/dev/null
sql "select row_to_json(k)::text || chr(9) || row_to_json(d)::text from docs d, lateral (select d.id) k" >"$work/records"
(cd "$ROOT" && cargo build --quiet --release --no-default-features --features "$PG_FEATURE connectors" --example kafka_producer)
producer="${CARGO_TARGET_DIR:-$ROOT/target}/release/examples/kafka_producer"

publish() {
  sql "select coco.create_flow('k', 'docs', 'select id, body from docs', 'docs', '{id}', server => 'broker')" >/dev/null
  rest
  local began; began=$(milliseconds)
  sql "select * from coco.update('k')" >/dev/null
  echo $(($(milliseconds) - began))
  sql "select coco.drop_flow('k', keep_targets => false)" >/dev/null
}

for ((n = 0; n <= runs; n++)); do
  say "run $n of $runs"
  c=$(copy) u=$(update) p=$(publish) b=$("$producer" "$plaintext" "bare_$n" "$work/records")
  [ $n = 0 ] && { rm -f "$work"/note.*; continue; }   # warms up
  note copy "$c"; note update "$u"; note rate "$(div "$c" "$u")"
  note producer "$b"; note publish "$p"; note kafka_rate "$(div "$b" "$p")"
done
result "$rows rows, COPY beside coco.update, ms: its share of the rate" "$(of copy)" "$(of update)" ">= 0.4"
plain "the runs' shares" "$(sort -g "$work/note.rate" | paste -sd ' ')"
result "1% changed, ms, beside COPY of all" "$(of changed)" "$(of copy)"
result "reexport, ms, beside COPY of all" "$(of reexport)" "$(of copy)"
result "$rows rows, the bare producer beside coco.update to Kafka, ms" "$(of producer)" "$(of publish)" ">= 0.5"
plain "the runs' shares" "$(sort -g "$work/note.kafka_rate" | paste -sd ' ')"
report "Rows to another Postgres, and to Kafka"
