-- Seen at: timescale/timescaledb#6941, #9289, #2414, #5574, #5588 (owners and jobs: REASSIGN OWNED, DROP ROLE, renamed roles).
-- Here: a live flow of a role that is renamed, whose objects are REASSIGNed, then dropped; and DROP OWNED. Expected: goes on under the new owner, or says what is wrong; no writer fails.
create role lab33_a login;
create role lab33_b login;
grant usage on schema coco to lab33_a, lab33_b;
grant usage, create on schema public to lab33_a, lab33_b;
set role lab33_a;
create table t (id int primary key, v int);
insert into t values (1, 1);
select coco.create_flow('f', 't', 'select id, v from t', 'tt', '{id}');
select lab.update('f');
select coco.start('f');
reset role;
alter role lab33_a rename to lab33_x;
insert into t values (2, 2);
select lab.settled('f');
select * from lab.check('f', 'tt', 'select id, v from t');
select lab.is((select owner::text from coco.flows), 'lab33_x');
reassign owned by lab33_x to lab33_b;
insert into t values (3, 3);
-- the source is another's now: it is said, with what to do
call lab.says('f', 'failed; permission denied for table t;%coco.alter_flow%');
select lab.is((select owner::text from coco.flows), 'lab33_x');
select coco.alter_flow('f', owner => 'lab33_b');
select coco.start('f');
select lab.settled('f');
select * from lab.check('f', 'tt', 'select id, v from t');
-- DROP OWNED
drop owned by lab33_b cascade;
call lab.says('f', '%dropped%');
select coco.drop_flow('f');
revoke all on schema coco from lab33_x, lab33_b;
revoke all on schema public from lab33_x;
drop role lab33_b;
drop role lab33_x;
select lab.is((select count(*) from coco.flows)::text, '0');
select lab.is((select string_agg(relname, ' ') from pg_class where relnamespace = 'coco'::regnamespace and relname ~ '^(log|tracking|query)_[0-9]'), null);
