-- Seen at: PeerDB-io/peerdb#554, #1226, ClickHouse/walshadow#106, airbytehq/airbyte#7871, debezium/debezium#7382 (dbz#1833), smart-data-lake#923.
-- Here: NaN and infinities in numeric, float, date, timestamptz and interval, as values, keys and group keys, and as ordinal.
create table m (id int primary key, n numeric not null, f float8 not null, d date not null, t timestamptz not null, i interval not null);
insert into m values (1, 'NaN', 'NaN', 'infinity', 'infinity', 'infinity'), (2, '-Infinity', '-Infinity', '-infinity', '-infinity', '-infinity'), (3, 'Infinity', '-0', '2020-02-29', 'epoch', '0'), (4, 'NaN', '0', '2020-02-29', '4713-01-01 BC', '0 mons');
select coco.create_flow('v', 'm', 'select * from m', 'v', '{id}');
select coco.create_flow('gn', 'm', 'select n, count(*) as c, sum(f) as s, max(t) as t from m group by n', 'gn', '{n}', source_key => '{n}');
select coco.create_flow('gf', 'm', 'select f + 0 as f, count(*) as c from m group by f + 0', 'gf', '{f}', source_key => '{f}');
select coco.create_flow('o', 'm', 'select id, n, f from m', 'o', '{id}', ordinal => 't');
select f, lab.update(f) from unnest('{v,gn,gf,o}'::text[]) f;
select * from lab.check('v', 'v', 'select * from m');
select * from lab.check('gn', 'gn', 'select n, count(*) as c, sum(f) as s, max(t) as t from m group by n');
select * from lab.check('gf', 'gf', 'select f + 0 as f, count(*) as c from m group by f + 0');
select * from lab.check('o', 'o', 'select id, n, f from m');
update m set f = '-0', n = 'NaN', t = 'infinity' where id in (2, 4);
select f, lab.update(f) from unnest('{v,gn,gf,o}'::text[]) f;
select * from lab.check('v', 'v', 'select * from m');
select * from lab.check('gn', 'gn', 'select n, count(*) as c, sum(f) as s, max(t) as t from m group by n');
select * from lab.check('gf', 'gf', 'select f + 0 as f, count(*) as c from m group by f + 0');
select * from lab.check('o', 'o', 'select id, n, f from m');
-- an ordinal far away: microseconds there
create table far (id int primary key, at timestamptz not null, v int);
insert into far values (1, '9999-12-31 00:00:00.000001+00', 1);
select coco.create_flow('far', 'far', 'select id, v from far', 'far_t', '{id}', ordinal => 'at');
select lab.update('far');
update far set at = '9999-12-31 00:00:00.000002+00', v = 2;
select lab.update('far');
select * from lab.check('far', 'far_t', 'select id, v from far');
