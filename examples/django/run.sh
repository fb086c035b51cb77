#!/usr/bin/env bash
# Migrates a database of a temporary server, runs Django's tests there, and reverses the migrations.
# shellcheck source=scripts/example.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/example.sh"
cd "$here"

say "migrations"
./manage.py migrate --verbosity 0
./manage.py makemigrations --check --dry-run
sql "insert into shop_order (customer, amount) select 'customer ' || n % 10, n from generate_series(1, 1000) n"
expect "10 10" "select concat_ws(' ', evaluated, upserted) from coco.update('customer_totals')"
before=$(versions shop_customertotal)
./manage.py migrate --verbosity 0
[ "$(versions shop_customertotal)" = "$before" ] || die "the second run wrote to the target"
expect "0" "select evaluated from coco.update('customer_totals')"
expect "10 500500.00 1000" "select concat_ws(' ', count(*), sum(total), sum(orders)) from shop_customertotal"

say "Django's tests, in a copy of template_coco"
PGDATABASE=postgres admin "create database template_coco is_template true template template0"
extension template_coco
./manage.py test --noinput
./manage.py test --noinput --reverse

say "the migrations reversed"
./manage.py migrate --verbosity 0 shop zero
expect "0" "select count(*) from coco.flows"
expect "t" "select to_regclass('shop_customertotal') is null"
say "the example works"
