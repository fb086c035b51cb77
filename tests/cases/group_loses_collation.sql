-- Seen at: IvorySQL/IvorySQL#1864 (equality ignores a column's collation), citusdata/citus#8036, npgsql/npgsql#3188 (columns with a collation of their own are in use).
-- Here: a column with a collation of its own (the database's is C), in a group.
-- Expected: as the plain query.
-- Needs: PostgreSQL 18
create table word (id int primary key, page int not null, w text collate pg_unicode_fast not null);
insert into word values (1, 1, 'élan'), (2, 1, 'zebra'), (3, 2, 'straße');
create function q() returns text language sql as $f$ select $$select page, string_agg(upper(w), ' ' order by id) as shouted from word group by page$$ $f$;
select coco.create_flow('words', 'word', source_key => '{page}', query => q(), target => 'words', key => '{page}');
select lab.update('words');
table words;
select page, string_agg(upper(w), ' ' order by id) as shouted from word group by page;
select * from lab.check('words', 'words', q());
-- the same query, an item a row: right
select coco.create_flow('rows', 'word', 'select id, upper(w) as shouted from word', 'rows', '{id}');
select lab.update('rows');
select * from lab.check('rows', 'rows', 'select id, upper(w) as shouted from word');
update word set w = w || 'é' where id = 3;
select lab.update('rows');
select * from lab.check('rows', 'rows', 'select id, upper(w) as shouted from word');
