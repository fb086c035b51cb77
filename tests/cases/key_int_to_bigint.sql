-- Seen at: every team that ran out of int (Basecamp, GitLab): ALTER COLUMN id TYPE bigint on a live table; debezium and risingwave#22610 (type changes).
-- Here: a used column and the key are widened, by ALTER TYPE and by the usual swap of columns. Expected: works, or a refusal that names the flow and the way.
create table t (id int primary key, v int, n varchar(10));
insert into t values (1, 1, 'a'), (2, 2, 'b');
select coco.create_flow('f', 't', 'select id, v, n from t', 'tt', '{id}');
select coco.start('f');
select lab.settled('f');
select lab.refused($_$alter table t alter column v type bigint$_$, 'cannot alter type of a column used by a view or rule');
select lab.refused($_$alter table t alter column n type varchar(20)$_$, 'cannot alter type of a column used by a view or rule');
select lab.refused($_$alter table t alter column n type text$_$, 'cannot alter type of a column used by a view or rule');
select lab.refused($_$alter table t alter column id type bigint$_$, 'cannot alter type of a column used by a view or rule');
-- the swap
alter table t add column id2 bigint;
update t set id2 = id;
begin;
alter table t drop constraint t_pkey;
alter table t rename column id to id_old;
alter table t rename column id2 to id;
alter table t alter id set not null;
alter table t add primary key (id);
alter table t alter id_old drop not null;
commit;
insert into t (id, v, n) values (3000000000, 3, 'c');
call lab.says('f', 'failed; key column "id" of source "t" of flow "f" has type bigint, but had type integer before;%');
select lab.refused($$select coco.set_query('f', null, 'select id, v, n from t')$$, 'has type bigint, but had type integer before');
select coco.drop_flow('f');
select lab.refused($$select coco.create_flow('f', 't', 'select id, v, n from t', 'tt', '{id}')$$, 'does not fit the query');
drop table tt;
select coco.create_flow('f', 't', 'select id, v, n from t', 'tt', '{id}');
select lab.update('f');
select * from lab.check('f', 'tt', 'select id, v, n from t');
