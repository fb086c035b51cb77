-- Seen at: timescale/timescaledb#8898, #8851, #10296, #6902 (buckets of a time zone with DST).
-- Here: hourly buckets of Europe/Vienna over the night of 2025-10-26, as a generated column and by a view; sessions of other time zones write and update. Expected: the plain query under the flow's time zone.
set timezone = 'Europe/Vienna';
create table m (id int primary key, at timestamptz not null, v int not null, day date generated always as ((at at time zone 'Europe/Vienna')::date) stored not null);
create view mh as select date_trunc('hour', at, 'Europe/Vienna') as hour, at, v from m;
insert into m select i, timestamptz '2025-10-25 22:00+02' + i * interval '10 min', i from generate_series(1, 60) i;
create function qd() returns text language sql as $$ select 'select day, count(*) as n, sum(v) as s, min(at)::text as first, date_trunc(''day'', min(at)) as d from m group by day' $$;
create function qh() returns text language sql as $$ select 'select hour, count(*) as n, to_char(hour, ''HH24:MI TZ OF'') as label from mh group by hour' $$;
select coco.create_flow('d', 'm', qd(), 'by_day', '{day}', source_key => '{day}');
select coco.create_flow('h', 'mh', qh(), 'by_hour', '{hour}', source_key => '{hour}');
select f, lab.update(f) from unnest('{d,h}'::text[]) f;
select * from lab.check('d', 'by_day', qd());
select * from lab.check('h', 'by_hour', qh());
select label, n from by_hour order by hour;
set timezone = 'America/New_York';
insert into m values (1000, '2025-10-26 02:30+01', 5), (1001, '2025-10-26 02:30+02', 6);
update m set at = at + interval '1 hour' where id between 20 and 30;
select f, lab.update(f) from unnest('{d,h}'::text[]) f;
set timezone = 'Europe/Vienna';
select * from lab.check('d', 'by_day', qd());
select * from lab.check('h', 'by_hour', qh());
set timezone = 'Asia/Kathmandu';
select coco.start('d');
delete from m where id < 10;
select lab.settled('d');
set timezone = 'Europe/Vienna';
select * from lab.check('d', 'by_day', qd());
select coco.stop('d');
