-- Seen at: debezium/debezium#7588 (dbz#2020, generated columns), airbytehq/airbyte#45338 (generated columns NULL on incremental updates).
-- Here (PostgreSQL 18): the expression of a VIRTUAL generated column is changed. No row is written, no file changes, yet every value is another.
-- Expected: the next update finds it (as it does for a STORED one), or the ALTER is refused.
-- Needs: PostgreSQL 18
create table item (id int primary key, net numeric not null, gross numeric generated always as (net * 1.19) virtual);
insert into item values (1, 100), (2, 200);
select coco.create_flow('item', 'item', 'select id, gross from item', 'item_gross', '{id}');
select lab.update('item');
select * from lab.check('item', 'item_gross', 'select id, gross from item');
alter table item alter column gross set expression as (net * 1.07);
select lab.update('item');
select * from lab.check('item', 'item_gross', 'select id, gross from item');
select lab.update('item', 0, 'full_reprocess');
select * from lab.check('item', 'item_gross', 'select id, gross from item');
