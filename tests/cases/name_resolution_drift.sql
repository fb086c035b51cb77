-- Seen at: nearform/temporal_tables#3, point-source/supabase-tenant-rbac#16 (names found by search_path), graphile and PostgREST overloads.
-- Here: after the declaration a better match of a name appears: an overload of a function, or a table in an earlier schema of the flow's path.
-- Expected: all rows by one rule, that of the declaration, and nothing for coco.verify to find.
create function label(v numeric) returns text language sql immutable as $$ select 'number ' || v $$;
create table t (id int primary key, v int not null);
insert into t values (1, 1), (2, 2), (3, 3);
select coco.create_flow('f', 't', 'select id, label(v) as l from t', 'tt', '{id}');
select lab.update('f');
create function label(v int) returns text language sql immutable as $$ select 'integer ' || v $$;
update t set v = 20 where id = 2;
select lab.update('f');
select * from lab.check('f', 'tt', 'select id, label(v::numeric) as l from t');
select * from lab.check('f', 'tt', 'select id, label(v::numeric) as l from t');
-- a table in an earlier schema
create schema app;
create table public.rate (cur text primary key, r numeric);
insert into public.rate values ('EUR', 1);
create table pay (id int primary key, cur text not null, amount numeric not null);
insert into pay values (1, 'EUR', 10), (2, 'EUR', 20);
set search_path = app, public;
select coco.create_flow('p');
select coco.add_source('p', 'pay');
select coco.add_lookup('p', 'public.rate', affects => 'select pay.id from rate join pay using (cur)');
select coco.add_target('p', 'public.paid', 'select pay.id, amount * r as a from pay join rate using (cur)', '{id}');
select lab.update('p');
create table app.rate (cur text primary key, r numeric);
insert into app.rate values ('EUR', 7);
update pay set amount = 11 where id = 1;
select lab.update('p');
select * from lab.check('p', 'public.paid', 'select pay.id, amount * r as a from public.pay join public.rate using (cur)');
