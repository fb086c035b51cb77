-- Seen at: debezium dbz#2020, pgpartman/pg_partman#336 (stored generated columns).
-- Here: all the ways in which a table's content changes without a row trigger: ALTER COLUMN SET EXPRESSION / DROP EXPRESSION of a stored column, ADD COLUMN with a volatile default, ALTER TYPE USING of a column that only SELECT * of a group or the fingerprint uses, SET LOGGED, CLUSTER, REPLICA IDENTITY; used as value, group key, ordinal. Expected: the plain query.
-- Needs: PostgreSQL 17
create table t (id int primary key, net numeric not null, gross numeric generated always as (net * 1.19) stored, k int generated always as (0) stored not null, x text default 'x');
insert into t (id, net) values (1, 100), (2, 200);
select coco.create_flow('v', 't', 'select id, gross from t', 'tv', '{id}');
select coco.create_flow('g', 't', 'select k, sum(gross) as s from t group by k', 'tg', '{k}', source_key => '{k}');
select coco.create_flow('f', 't', 'select id, net from t', 'tf', '{id}', fingerprint => 'net || x');
select coco.start(f) from unnest('{v,g,f}'::text[]) f;
select lab.settled('v', 'g', 'f');
alter table t alter column gross set expression as (net * 1.07);
select lab.settled('v', 'g');
select * from lab.check('v', 'tv', 'select id, gross from t');
select * from lab.check('g', 'tg', 'select k, sum(gross) as s from t group by k');
alter table t alter column k set expression as (id % 2);
select lab.settled('g');
select * from lab.check('g', 'tg', 'select k, sum(gross) as s from t group by k');
alter table t alter column gross drop expression;
update t set gross = 5 where id = 1;
select lab.settled('v');
select * from lab.check('v', 'tv', 'select id, gross from t');
-- a column in the fingerprint's expression: as a view that names it would refuse
select lab.refused($$alter table t alter column x drop default, alter column x type int using 7$$, 'cannot alter type of a column used by a view or rule');
select lab.refused($$alter table t drop column x$$, 'other objects depend on it');
update t set net = 1;
select lab.settled('v', 'g', 'f');
select * from lab.check('f', 'tf', 'select id, net from t');
select coco.stop(f) from unnest('{v,g,f}'::text[]) f;
