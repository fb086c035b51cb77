-- Seen at: pgedge-vectorizer#51-like poison rows, dust-tt/dust#20554, PostgreSQL 18 virtual generated columns (computed, and failing, when read).
-- Here: one row for which (a) the fingerprint expression, (b) the ordinal expression, (c) a virtual generated column that the query uses, of a row and of a group, raises an error; while changes are looked for by key and by a scan, and in a first update. Expected: that item fails by itself, the others go on.
-- Needs: PostgreSQL 18
create table t (id int primary key, j text not null, n text not null, x int not null, inv int generated always as (100 / x) virtual);
insert into t (id, j, n, x) select i, '{"a": ' || i || '}', i, i from generate_series(1, 20) i;
select coco.create_flow('fp', 't', 'select id, j from t', 'fp', '{id}', fingerprint => 'j::jsonb');
select coco.create_flow('od', 't', 'select id, j from t', 'od', '{id}', ordinal => 'n::int');
select coco.create_flow('vg', 't', 'select id, inv from t', 'vg', '{id}');
select coco.create_flow('gr', 't', 'select n, sum(inv) as s from t group by n', 'gr', '{n}', source_key => '{n}');
select f, lab.update(f) from unnest('{fp,od,vg,gr}'::text[]) f;
update t set j = 'broken', n = 'x', x = 0 where id = 7;
update t set j = '{"a": "new"}', n = 1000, x = 50 where id = 8;
select f, lab.update(f, 1) from unnest('{fp,od,vg,gr}'::text[]) f;
select lab.is((select string_agg(flow || source_key || sqlstate, ' ' order by flow) from coco.errors), 'fp{"id": 7}22P02 gr{"n": "x"}22012 od{"id": 7}22P02 vg{"id": 7}22012');
select * from lab.check('fp', 'fp', $$select id, case id when 7 then '{"a": 7}' else j end from t$$);
select * from lab.check('od', 'od', $$select id, case id when 7 then '{"a": 7}' else j end from t$$);
select * from lab.check('vg', 'vg', 'select id, case id when 7 then 14 else inv end from t');
select * from lab.check('gr', 'gr', $$select n, sum(inv) as s from t where n <> 'x' group by n$$);
-- all of it is scanned
select f, lab.update(f, 1, 'full_reprocess') from unnest('{fp,od,vg,gr}'::text[]) f;
-- it is tried again, fails again, and delays nobody
select coco.start(f) from unnest('{fp,od,vg,gr}'::text[]) f;
insert into t (id, j, n, x) values (100, '1', 100, 1);
select lab.settled('fp', 'od', 'vg', 'gr');
select lab.is((select string_agg(state, ' ') from coco.status), 'degraded degraded degraded degraded');
select * from lab.check('fp', 'fp', $$select id, case id when 7 then '{"a": 7}' else j end from t$$);
select * from lab.check('vg', 'vg', 'select id, case id when 7 then 14 else inv end from t');
select * from lab.check('gr', 'gr', $$select n, sum(inv) as s from t where n <> 'x' group by n$$);
-- it is mended
update t set j = '7', n = '7', x = 7 where id = 7;
select lab.settled('fp', 'od', 'vg', 'gr');
select lab.is((select count(*) from coco.errors)::text, '0');
select * from lab.check('fp', 'fp', 'select id, j from t');
select * from lab.check('od', 'od', 'select id, j from t');
select * from lab.check('vg', 'vg', 'select id, inv from t');
select * from lab.check('gr', 'gr', 'select n, sum(inv) as s from t group by n');
select coco.stop(f) from unnest('{fp,od,vg,gr}'::text[]) f;
-- a first update
create table u (id int primary key, x int not null, inv int generated always as (100 / x) virtual);
insert into u (id, x) select i, i - 5 from generate_series(1, 20) i;
select coco.create_flow('u', 'u', 'select id, inv from u', 'ut', '{id}');
select lab.update('u', 1);
select * from lab.check('u', 'ut', 'select id, inv from u where id <> 5');
