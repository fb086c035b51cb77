-- Seen at: dbt-labs/dbt-adapters#159, dbt-labs/dbt-core#5691, #7873 (NULL in a unique key); PostgreSQL 18: NOT NULL ... NOT VALID.
-- Here: a key column whose NOT NULL constraint is not validated: NULLs are still there. Expected: the plain query, where the rows with NULL are a group.
-- Needs: PostgreSQL 18
create table t (a int, b text, unique (a));
insert into t values (1, 'x'), (null, 'y'), (null, 'z');
alter table t add constraint a_nn not null a not valid;
select coco.create_flow('row', 't', 'select a, b from t', 'row_t', '{a}', source_key => '{a}');
-- two rows of the group have one target key
select lab.update('row', 1);
select lab.is((select sqlstate || source_key from coco.errors where flow = 'row'), '21000{"a": null}');
delete from t where b = 'z';
select lab.update('row');
select * from lab.check('row', 'row_t', 'select a, b from t');
create table g (id int primary key, k int, v int);
insert into g values (1, 1, 1), (2, null, 2), (3, null, 3);
alter table g add constraint k_nn not null k not valid;
select coco.create_flow('grp', 'g', 'select k, coalesce(k, -1) as kk, sum(v) as s from g group by k', 'grp_g', '{kk}', source_key => '{k}');
select lab.update('grp');
select * from lab.check('grp', 'grp_g', 'select k, coalesce(k, -1) as kk, sum(v) as s from g group by k');
-- NOT NULL dropped after the declaration
create table n (id int primary key, k int not null, v int);
insert into n values (1, 1, 1), (2, 2, 2);
select coco.create_flow('nn', 'n', 'select coalesce(k, -1) as kk, sum(v) as s from n group by k', 'nn', '{kk}', source_key => '{k}');
select lab.update('nn');
alter table n alter column k drop not null;
insert into n values (3, null, 3), (4, 1, 10);
-- the rows without a key fail alone, with a hint that fits a table
select lab.update('nn', 1);
select lab.is((select concat_ws(' ', sqlstate, source_key, message) from coco.errors where flow = 'nn'), '22004 {"k": null} source "n" has a row whose key is NULL');
select lab.is((select hint like 'Give such rows a key, or delete them.%' from coco.errors where flow = 'nn')::text, 'true');
select * from lab.check('nn', 'nn', 'select coalesce(k, -1) as kk, sum(v) as s from n where k is not null group by k');
select lab.is((select string_agg(difference || key, ' ') from coco.verify('nn')), 'failing{"k": null}');
select lab.is((select string_agg(difference || key, ' ') from coco.verify('nn', repair => true)), 'failing{"k": null}');
-- by the log alone, by a scan in parts, and live
insert into n values (5, 2, 20), (6, null, 6);
select lab.update('nn', 1);
select * from lab.check('nn', 'nn', 'select coalesce(k, -1) as kk, sum(v) as s from n where k is not null group by k');
select coco.start('nn');
insert into n values (7, 3, 30), (8, null, 8);
select lab.settled('nn');
select * from lab.check('nn', 'nn', 'select coalesce(k, -1) as kk, sum(v) as s from n where k is not null group by k');
select lab.is((select state from coco.status where flow = 'nn'), 'degraded');
update n set k = 4 where k is null;
select lab.settled('nn');
select * from lab.check('nn', 'nn', 'select coalesce(k, -1) as kk, sum(v) as s from n group by k');
select lab.is((select count(*) from coco.errors)::text, '0');
select coco.stop('nn');
-- items that are rows, from the first update on, and a key of two columns
create table r (a int not null, b int not null, v int, primary key (a, b));
select coco.create_flow('rr', 'r', 'select a, b, v from r', 'rr', '{a,b}');
alter table r drop constraint r_pkey;
alter table r alter column b drop not null;
create unique index on r (a, b);
insert into r values (1, 1, 1), (1, null, 2), (1, null, 3), (2, 2, 4);
select lab.update('rr', 2);
select * from lab.check('rr', 'rr', 'select a, b, v from r where b is not null');
update r set v = v + 1;
select lab.update('rr', 2);
select * from lab.check('rr', 'rr', 'select a, b, v from r where b is not null');
delete from r where b is null;
select lab.update('rr');
select * from lab.check('rr', 'rr', 'select a, b, v from r');
select lab.is((select count(*) from coco.errors)::text, '0');
