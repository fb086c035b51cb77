-- Seen at: estuary/connectors#2279 (a staging table is renamed over the followed one and nobody notices).
-- Here: t is renamed away and a new one takes its name, in one transaction, while live. Expected: the rows of one of the two; which, said somewhere.
create table t (id int primary key, v text);
insert into t values (1, 'old');
select coco.create_flow('f', 't', 'select id, v from t', 'tt', '{id}');
select lab.update('f');
select coco.start('f');
create table t_new (like t including all);
insert into t_new values (1, 'new'), (2, 'new');
begin;
alter table t rename to t_old;
alter table t_new rename to t;
commit;
insert into t values (3, 'new');
insert into t_old values (9, 'old too');
select lab.settled('f');
select lab.is((select relation::text from coco.sources), 't_old');
select * from lab.check('f', 'tt', 'select id, v from t_old');
select lab.refused($$drop table t_old$$, 'view coco.query_1_f depends on table t_old');
select coco.stop('f');
