#!/usr/bin/env bash
# Takes docs/images/report.png and report-dark.png: coco.report() of flows that work and flows that do not, on a
# throw-away server, as a browser shows it.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
"$ROOT/scripts/setup.sh"
use_server
# shellcheck disable=SC2119  # not about this script's own arguments
install_extension

work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
cleanup() {
  "$ROOT/scripts/cluster.sh" stop "$work/pg" || true
  rm -rf "$work" 2>/dev/null || as_root rm -rf "$work" || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"

url=$("$ROOT/scripts/cluster.sh" start "$work/pg" --fast)
psql() { "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 -d "$1" "${@:2}"; }
psql "$url" -c "alter system set shared_preload_libraries = 'coco'" -c "create database shop"
as_server_user "$PG_BIN/pg_ctl" restart -D "$work/pg/data" -l "$work/pg/log" -w >/dev/null
url=${url/dbname=postgres/dbname=shop}

say "flows that have something to tell"
psql "$url" -o /dev/null <<'SQL'
create extension coco;
create table documents (id int primary key, author int not null, title text, body text);
create table authors (id int primary key, name text);
create table orders (id int primary key, customer int not null, amount numeric);
insert into authors select i, 'Author ' || i from generate_series(1, 20) i;
insert into documents select i, i % 20 + 1, 'Title ' || i % 700, repeat('Some words of document ' || i || '. ', 20)
  from generate_series(1, 3000) i;
insert into orders select i, i % 200, i % 97 from generate_series(1, 20000) i;
create function summarize(title text) returns text language sql immutable as 'select left(title, 60)';
select coco.memoize('summarize(text)');
select coco.create_flow('chunks');
select coco.add_source('chunks', 'documents');
select coco.add_lookup('chunks', 'authors', affects => 'select d.id from authors a join documents d on d.author = a.id');
select coco.add_target('chunks', 'document_chunks',
  'select d.id as document, c.n, c.chunk, a.name as author, summarize(d.title) as summary
     from documents d join authors a on a.id = d.author, coco.split_text(d.body, 200) c', '{document,n}');
select coco.create_flow('words', 'document_chunks',
  'select document, n, array_length(string_to_array(chunk, $$ $$), 1) / (document - 77) as words from document_chunks',
  'chunk_words', '{document,n}');
create server search foreign data wrapper coco_http options (url 'http://127.0.0.1:1/');
select coco.create_flow('search', 'document_chunks', 'select document, n, chunk from document_chunks',
  'chunks', '{document,n}', server => 'search');
select coco.create_flow('totals', 'orders', source_key => '{customer}', target => 'customer_totals', key => '{customer}',
  query => 'select customer, sum(amount) as total, count(*) as orders from orders group by customer');
select coco.create_flow('big_customers', 'customer_totals', 'select customer, total from customer_totals where total > 4800',
  'big_customers', '{customer}');
select coco.update('totals');
select coco.update('big_customers');
select coco.start(flow) from coco.flows where flow in ('chunks', 'words', 'search');
select coco.wait(flow, '5 min') from coco.flows where flow in ('chunks', 'words');
analyze;
SQL
for _ in 1 2 3 4 5 6; do
  sleep 12
  psql "$url" -o /dev/null -c "update documents set title = title || '!' where id <= 20" \
    -c "update orders set amount = amount + 1 where id % 400 = extract(second from now())::int" \
    -c "select coco.update('totals')" -c "select coco.update('big_customers')"
done
psql "$url" -o /dev/null -c "update orders set amount = amount + 1 where id % 100 = 0"
sleep 15

psql "$url" -At -c 'select coco.report()' >"$work/report.html"
mkdir "$work/pictures"
"$ROOT/scripts/browser.sh" "$work/report.html" "$work/pictures" >/dev/null
mkdir -p "$ROOT/docs/images"
have pngquant || apt_install pngquant || die "pngquant is missing, please install it"
pngquant --force --strip --output "$ROOT/docs/images/report.png" "$work/pictures/light-top.png"
pngquant --force --strip --output "$ROOT/docs/images/report-dark.png" "$work/pictures/dark-top.png"
ls -l "$ROOT"/docs/images/report*.png
