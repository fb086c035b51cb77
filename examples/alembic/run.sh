#!/usr/bin/env bash
# Migrates a database of a temporary server up, down and up again, and checks what autogenerate finds.
# shellcheck source=scripts/example.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/example.sh"
cd "$here"

say "a flow, declared by a migration"
alembic upgrade 0002
sql "insert into orders select n, 'customer ' || n % 10, n from generate_series(1, 1000) n"
expect "10 10" "select concat_ws(' ', evaluated, upserted) from coco.update('customer_totals')"
before=$(versions customer_totals)
alembic upgrade 0002
[ "$(versions customer_totals)" = "$before" ] || die "the second run wrote to the target"
expect "0" "select evaluated from coco.update('customer_totals')"

say "the query changes"
alembic upgrade head
expect "10 500500.00 1000" "select concat_ws(' ', count(*), sum(total), sum(orders)) from customer_totals"
expect "0" "select count(*) from coco.verify('customer_totals')"

say "autogenerate finds nothing"
sql "create index on customer_totals (total)"
alembic check
# Without the filter, it would drop the target.
mkdir "$work/plain"
cp -R . "$work/plain/"
sed -i 's/not in targets/is not None/' "$work/plain/migrations/env.py"
if alembic --config "$work/plain/alembic.ini" check >"$work/found" 2>&1; then die "the filter is not needed"; fi
grep -q "remove_table.*customer_totals" "$work/found" || { cat "$work/found" >&2; die "something else was found"; }

say "down, and up again"
alembic downgrade 0001
expect "0" "select count(*) from coco.flows"
expect "t" "select to_regclass('customer_totals') is null"
alembic upgrade head
expect "10 1000" "select concat_ws(' ', count(*), sum(orders)) from customer_totals"
say "the example works"
