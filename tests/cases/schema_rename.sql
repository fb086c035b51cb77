-- Seen at: norBIT/alkisimport#101 (ALTER SCHEMA RENAME breaks functions with a fixed search_path), dimitri/pgloader#903.
-- Here: the schema with source, function and target is renamed. Expected: goes on, or an error that names the flow and what to do.
create schema shop;
set search_path = shop, public;
create function shop.f(int) returns int language sql immutable as 'select $1 * 2';
create table shop.t (id int primary key, v int not null);
insert into shop.t values (1, 1), (2, 2);
select coco.create_flow('s', 't', 'select id, f(v) as v from t', 'tt', '{id}');
select lab.update('s');
alter schema shop rename to store;
set search_path = store, public;
update store.t set v = 5 where id = 1;
select lab.update('s');
select flow, state, last_error, hint from coco.status;
select * from lab.check('s', 'store.tt', 'select id, f(v) as v from t');
select coco.set_query('s', null, 'select id, store.f(v) as v from t');
select lab.update('s');
select * from lab.check('s', 'store.tt', 'select id, f(v) as v from t');
-- a plain query without functions
select coco.create_flow('s2', 't', 'select id, v from t', 'tt2', '{id}');
select lab.update('s2');
alter schema store rename to mart;
update mart.t set v = 6 where id = 2;
select lab.update('s2');
select * from lab.check('s2', 'mart.tt2', 'select id, v from mart.t');
