-- Seen at: pg_partman and Timescale users (tableoid::regclass to tell partitions), xmin as row version (Npgsql, Airbyte's xmin replication).
-- Here: a query that names tableoid, xmin or ctid of its source. Expected: works, or is refused with a message that says why.
create table ev (id int not null, region text not null, primary key (id, region)) partition by list (region);
create table ev_eu partition of ev for values in ('eu');
create table ev_us partition of ev for values in ('us');
insert into ev values (1, 'eu'), (2, 'us');
select lab.refused($_$select coco.create_flow('part', 'ev', 'select id, region, tableoid::regclass::text as part from ev', 'ev_part', '{id,region}')$_$, 'system column');
select lab.refused($_$select coco.create_flow('x', 'ev', 'select id, region, xmin::text as version from ev', 'ev_x', '{id,region}')$_$, 'system column');
select lab.refused($_$select coco.create_flow('v', 'ev', 'select id, region from ev', 'ev_v', '{id,region}', ordinal => 'xmin::text::bigint')$_$, 'system column');
select lab.refused($_$select coco.create_flow('f', 'ev', 'select id, region from ev', 'ev_f', '{id,region}', fingerprint => 'tableoid')$_$, 'system column');
