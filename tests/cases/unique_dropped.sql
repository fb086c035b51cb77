-- Seen at: estuary, Debezium and Spice (spiceai/spiceai#11930): a key that is dropped or changed while followed.
-- Here: the primary key is dropped after the declaration, and two rows come to share the key. Expected: the plain query, or an error that says what is wrong.
create table t (id int primary key, n int not null, v text);
insert into t values (1, 1, 'a'), (2, 1, 'b');
select coco.create_flow('f', 't', 'select id, n, v from t', 'tt', '{id,n}');
select coco.create_flow('g', 't', 'select id, v from t', 'gg', '{id}');
select f, lab.update(f) from unnest('{f,g}'::text[]) f;
alter table t drop constraint t_pkey;
alter table t add primary key (id, n);
insert into t values (1, 2, 'a2');
select lab.refused($$select coco.update('f')$$, 'unique');
select lab.refused($$select coco.update('g')$$, 'unique');
