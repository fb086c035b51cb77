-- Seen at: sraoss/pgsql-ivm#47 (renamed view breaks writers), greenplum-db/gpdb#14489, yugabyte/yugabyte-db#11008 (columns renamed), people who add columns, indexes, defaults, triggers and constraints to a derived table.
-- Here: a made target, live: renamed, moved to another schema, a column added (nullable, NOT NULL with and without default, generated, identity), a used column renamed and retyped, its primary key dropped, made UNLOGGED, partition of another table, clustered, its owner changed, a CHECK that fails. Expected: goes on, or an error that says how to mend; writers never fail.
create table t (id int primary key, v int, w text);
insert into t select i, i, 'w' || i from generate_series(1, 20) i;
create schema app;
select coco.create_flow('f', 't', 'select id, v, w from t', 'tgt', '{id}');
select coco.start('f');
select lab.settled('f');
-- Alters, writes, and waits until the target is the query; says is what coco.status comes to say instead.
create procedure step(ddl text, shape text, says text default null)
language plpgsql as $$
begin
  raise notice '%', ddl;
  execute ddl;
  commit;
  update t set v = v + 1, w = 'x' || v where id % 2 = 0;
  commit;
  if says is not null then
    call lab.says('f', says);
  else
    perform lab.settled('f');
    perform lab.check('f', shape, 'select id, v, w from t');
  end if;
end $$;
call step('alter table tgt rename to tgt2', 'tgt2');
call step('alter table tgt2 set schema app', 'app.tgt2');
call step('alter schema app rename to app2', 'app2.tgt2');
call step('alter table app2.tgt2 add column note text', '(select id, v, w from app2.tgt2)');
call step('alter table app2.tgt2 add column n2 int not null default 7', '(select id, v, w from app2.tgt2)');
call step('alter table app2.tgt2 add column g int generated always as (v * 2) stored', '(select id, v, w from app2.tgt2)');
call step('alter table app2.tgt2 add column i int generated always as identity', '(select id, v, w from app2.tgt2)');
call step('create index on app2.tgt2 (v); cluster app2.tgt2 using tgt_pkey', '(select id, v, w from app2.tgt2)');
call step('alter table app2.tgt2 set unlogged', '(select id, v, w from app2.tgt2)');
call step('alter table app2.tgt2 alter column w type varchar(100)', null, 'failed; target app2.tgt2 of flow "f" has another type for column "w"; Alter the table back, %');
call step('alter table app2.tgt2 alter column w type text', '(select id, v, w from app2.tgt2)');
alter table app2.tgt2 drop column g;
call step('alter table app2.tgt2 alter column v type bigint', null, 'failed; target app2.tgt2 of flow "f" has another type for column "v"; Alter the table back, %');
select lab.refused($$select coco.verify('f')$$, 'Column "v" is bigint, the query returns integer.');
call step('alter table app2.tgt2 alter column v type int', '(select id, v, w from app2.tgt2)');
call step('alter table app2.tgt2 rename column w to ww', null, 'failed; target app2.tgt2 of flow "f" has no column "w"%; %');
call step('alter table app2.tgt2 rename column ww to w', '(select id, v, w from app2.tgt2)');
call step('alter table app2.tgt2 add column must int', '(select id, v, w from app2.tgt2)');
call step('update app2.tgt2 set must = 0; alter table app2.tgt2 alter must set not null; insert into t values (100, 1, null)', null, 'degraded; null value in column "must"%');
call step('alter table app2.tgt2 drop column must', '(select id, v, w from app2.tgt2)');
call step('alter table app2.tgt2 drop constraint tgt_pkey', '(select id, v, w from app2.tgt2)');
insert into app2.tgt2 (id, v, w) select id, v, w from app2.tgt2 where id < 3;
select lab.is((select string_agg(difference || key, ' ' order by key) from coco.verify('f')), 'extra{"id": 1} extra{"id": 2}');
delete from app2.tgt2 where id < 3;
alter table app2.tgt2 add primary key (id);
select lab.is((select string_agg(difference || key, ' ' order by key) from coco.verify('f', repair => true)), 'missing{"id": 1} missing{"id": 2}');
call step('select 1', '(select id, v, w from app2.tgt2)');
call step('alter table app2.tgt2 drop column v', null, 'failed; target app2.tgt2 of flow "f" has no column "v"; Alter the table back, or call coco.set_query with a query that fits%');
select coco.set_query('f', null, 'select id, v, w from t');
select coco.start('f');
call step('select 1', '(select id, v, w from app2.tgt2)');
select coco.stop('f');
-- a column that would change values on their way, of the same type
create table p (id int primary key, x numeric, at timestamptz(6));
insert into p values (1, 1.25, '2000-01-01 00:00:00.25');
select coco.create_flow('p', 'p', 'select id, x, at from p', 'pt', '{id}');
select coco.start('p');
select lab.settled('p');
alter table pt alter column x type numeric(6, 1), alter column at type timestamptz(0);
update p set x = 2.25;
call lab.says('p', 'failed; target public.pt of flow "p" has another type for column "x"; Alter the table back%');
select lab.is((select x::text from pt), '1.3');
alter table pt alter column x type numeric, alter column at type timestamptz(6);
select lab.settled('p');
select lab.is((select string_agg(difference || key, ' ') from coco.verify('p')), null);
select lab.is((select x::text from pt), '2.25');
alter table pt drop column x, add column x numeric generated always as (id) stored;
update p set x = 3.25;
call lab.says('p', 'failed; target public.pt of flow "p" generates column "x"; %');
select coco.stop('p');
