#!/usr/bin/env bash
# PgBouncer with a pool of two connections that it gives away by transaction: flows, updates and live flows over it, and
# settings of a flow that do not stay in a connection. libpq's variables say where PgBouncer listens.
set -euo pipefail
psql() { command psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 "$@"; }
fail() { echo "error: $*" >&2; exit 1; }
# expect RESULT STATEMENT: over a connection of its own.
expect() { local said; said=$(psql -c "$2"); [ "$said" = "$1" ] || fail "$2: $said, not $1"; }

psql -c "create table bouncer_source (id int primary key, body text not null)" \
  -c "insert into bouncer_source select n, 'row ' || n from generate_series(1, 50) n"
psql -c "select coco.create_flow('bouncer', source => 'bouncer_source', target => 'bouncer_target', key => '{id}',
           query => 'select id, upper(body) as body from bouncer_source')" >/dev/null
expect "50|50" "select evaluated, upserted from coco.update('bouncer')"
# Many clients at a time.
for n in $(seq 12); do
  psql -c "update bouncer_source set body = 'client $n' where id = $n" -c "select count(*) from coco.update('bouncer')" >/dev/null &
  clients+=($!)
done
for client in "${clients[@]}"; do wait "$client" || fail "a client failed"; done
expect 0 "select count(*) from coco.verify('bouncer')"
# What a flow runs under does not stay in the connection.
expect '"$user", public' "select current_setting('search_path') from coco.update('bouncer')"
psql -c "select coco.start('bouncer')" >/dev/null
psql -c "update bouncer_source set body = 'live'"
expect t "select coco.wait('bouncer', '60 s')"
expect 50 "select count(*) from bouncer_target where body = 'LIVE'"
psql -c "select coco.stop('bouncer')" -c "select coco.drop_flow('bouncer', keep_targets => false)" >/dev/null
