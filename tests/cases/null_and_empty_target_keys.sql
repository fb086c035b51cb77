-- Seen at: risingwavelabs/risingwave#12933 (NULL in a sink's key panics it), dbt-labs/dbt-core#7873, sraoss/pgsql-ivm#31, hackorum.dev/topics/73472 (duplicates with NULL pass REFRESH CONCURRENTLY).
-- Here: rows whose target key column is NULL, of covered and listed keys; adopted target with UNIQUE NULLS NOT DISTINCT; duplicates with NULLs. Expected: those items fail by themselves with a clear message (the plain query's rows cannot be keyed), the rest is right; when mended they come.
create table t (id int primary key, k text, v int);
insert into t values (1, 'a', 1), (2, null, 2), (3, '', 3), (4, 'b', 4);
select coco.create_flow('cov', 't', 'select id, k, v from t', 'cov', '{id,k}');
select coco.create_flow('lst', 't', 'select k, v from t', 'lst', '{k}');
create table adopted (k text unique nulls not distinct, v int);
select lab.refused($_$select coco.create_flow('ado', 't', 'select k, v from t', 'adopted', '{k}')$_$, 'Key column k is nullable');
select f, lab.update(f, 1) from unnest('{cov,lst}'::text[]) f;
select lab.is((select string_agg(flow || source_key || sqlstate, ' ' order by flow) from coco.errors), 'cov{"id": 2}23502 lst{"id": 2}23502');
select * from lab.check('cov', 'cov', 'select id, k, v from t where k is not null');
select * from lab.check('lst', 'lst', 'select k, v from t where k is not null');
update t set k = 'c' where id = 2;
select f, lab.update(f) from unnest('{cov,lst}'::text[]) f;
select * from lab.check('cov', 'cov', 'select id, k, v from t');
select * from lab.check('lst', 'lst', 'select k, v from t');
update t set k = null where id = 1;
select f, lab.update(f, 1) from unnest('{cov,lst}'::text[]) f;
-- nullable key in an adopted table with a plain unique index
create table ad2 (k text, v int);
create unique index on ad2 (k);
select lab.refused($_$select coco.create_flow('ad2', 't', 'select k, v from t', 'ad2', '{k}')$_$, 'Key column k is nullable');
