-- Seen at: dbt-labs/dbt-adapters#159, dbt-labs/dbt-core#5691, #7873 (NULL in a unique key); PostgreSQL 18: NOT NULL ... NOT VALID.
-- Here: a key column whose NOT NULL constraint is not validated: NULLs are still there. Expected: refused (as a nullable key is), or the plain query.
-- Needs: PostgreSQL 18
create table t (a int, b text, unique (a));
insert into t values (1, 'x'), (null, 'y'), (null, 'z');
alter table t add constraint a_nn not null a not valid;
select lab.refused($_$select coco.create_flow('row', 't', 'select a, b from t', 'row_t', '{a}', source_key => '{a}')$_$, 'HINT');
create table g (id int primary key, k int, v int);
insert into g values (1, 1, 1), (2, null, 2), (3, null, 3);
alter table g add constraint k_nn not null k not valid;
select lab.refused($_$select coco.create_flow('grp', 'g', 'select k, coalesce(k, -1) as kk, sum(v) as s from g group by k', 'grp_g', '{kk}', source_key => '{k}')$_$, 'HINT');
-- NOT NULL dropped after the declaration
create table n (id int primary key, k int not null, v int);
insert into n values (1, 1, 1), (2, 2, 2);
select coco.create_flow('nn', 'n', 'select coalesce(k, -1) as kk, sum(v) as s from n group by k', 'nn', '{kk}', source_key => '{k}');
select lab.update('nn');
alter table n alter column k drop not null;
insert into n values (3, null, 3), (4, 1, 10);
-- the rows without a key are refused alone, with a hint that fits a table
select lab.refused($$select coco.update('nn')$$, 'flow "nn"');
