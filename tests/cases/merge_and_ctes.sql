-- Seen at: timescale/timescaledb#9326 (MERGE and AFTER STATEMENT triggers), citusdata/citus#2006, #1757 (data-modifying CTEs), instantdb/instant#739, grmkris/drizzle-pg-notify-audit-table#2.
-- Here: MERGE with all kinds of WHEN (also NOT MATCHED BY SOURCE, DO NOTHING, RETURNING), data-modifying CTEs over the same table, UPDATE FROM, DELETE USING, ON CONFLICT of several kinds, WHERE CURRENT OF, through a writable view with INSTEAD OF and a rule, COPY with WHERE.
-- Needs: PostgreSQL 17
create table t (id int primary key, k int not null, v text unique);
insert into t select i, i % 5, 'v' || i from generate_series(1, 100) i;
create function q() returns text language sql as $f$ select 'select k, count(*) as n, string_agg(v, '','' order by v) as vs from t group by k' $f$;
select coco.create_flow('r', 't', 'select id, k, v from t', 'tr', '{id}');
select coco.create_flow('g', 't', q(), 'tg', '{k}', source_key => '{k}');
select f, lab.update(f) from unnest('{r,g}'::text[]) f;
create table src (id int, k int, v text);
insert into src values (1, 7, 'm1'), (2, 2, null), (200, 1, 'new'), (3, 3, 'del');
merge into t using src on t.id = src.id when matched and src.v = 'del' then delete when matched and src.v is null then do nothing when matched then update set k = src.k, v = src.v when not matched and src.id > 500 then do nothing when not matched then insert values (src.id, src.k, src.v) when not matched by source and t.id between 90 and 95 then delete when not matched by source and t.id = 96 then update set v = 'unmatched' returning merge_action(), t.id;
with gone as (delete from t where id between 10 and 12 returning *), moved as (insert into t select id + 1000, k + 1, v || '!' from gone returning *), upd as (update t set v = v || '?' where id in (13, 14) returning *) select count(*) from gone, moved, upd;
update t set v = 'from ' || s.id from src s where s.id = t.id - 20;
delete from t using src s where s.id = t.id - 30;
insert into t values (2000, 0, 'x20'), (3000, 0, 'v40') on conflict (v) do update set k = excluded.k + 3 where t.k is not null;
insert into t values (21, 0, 'nope') on conflict do nothing;
begin;
declare c cursor for select * from t where id in (50, 51) for update;
fetch c;
update t set v = 'cur' where current of c;
fetch c;
delete from t where current of c;
commit;
create view tv as select id, v from t where id > 60;
update tv set v = 'by view' where id = 61;
delete from tv where id = 62;
create view ti as select * from t;
create function io() returns trigger language plpgsql as $$ begin insert into t values (new.id, 4, new.v); return new; end $$;
create trigger x instead of insert on ti for each row execute function io();
insert into ti values (5000, 0, 'instead');
create table other (id int);
create rule r as on insert to other do also update t set v = 'rule' || new.id where id = new.id;
insert into other values (70);
copy t from stdin where (id > 9000);
9001	1	copied
8000	1	left out
\.
select f, lab.update(f) from unnest('{r,g}'::text[]) f;
select * from lab.check('r', 'tr', 'select id, k, v from t');
select * from lab.check('g', 'tg', q());
select f, lab.update(f) from unnest('{r,g}'::text[]) f;
