-- That an update of a captured source costs what changed. Run by `make bench-delta`; :items is the
-- size of the large table, :runs the number of repetitions. Wall time includes the commit; CPU is
-- that of the backend, or of the worker.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
set client_min_messages = warning;
set bench.items = :items;

create table times (what text, run int, ms float8, cpu float8);
create table changed (id bigint);

-- The table, its flow, and the same kept by hand.
create procedure prepare(size text, n bigint) language plpgsql as $$
begin
  execute format('create table src_%s (id bigint primary key, n int, body text)', size);
  execute format('insert into src_%s select i, 0, md5(i::text) || repeat(''x'', 60) from generate_series(1, %s) i', size, n);
  commit;
  perform coco.create_flow(size, format('src_%s', size), format('select id, n, body from src_%s', size),
                           format('target_%s', size), '{id}', capture => 'trigger');
  perform coco.update(size);
  execute format('create table hand_%s (id bigint primary key, n int, body text)', size);
  execute format('insert into hand_%1$s select id, n, body from src_%1$s', size);
  commit;
end $$;

create function cpu(pid text) returns float8 language sql volatile as
$$ select split_part(pg_read_file('/proc/' || pid || '/schedstat'), ' ', 1)::float8 / 1e6 $$;

-- Runs a statement and commits. The first repetition warms up.
create procedure timed(name text, run int, statement text, pid text default 'self') language plpgsql as $$
declare began timestamptz; before float8;
begin
  commit;
  before := cpu(pid);
  began := clock_timestamp();
  execute statement;
  commit;
  if run > 0 then
    insert into times values (name, run, 1000 * extract(epoch from clock_timestamp() - began), cpu(pid) - before);
  end if;
  commit;
end $$;

-- Changes about count rows, spread over the table: of ten, eight are updated, one is deleted, and
-- one that an earlier change deleted comes back.
create procedure change(size text, count bigint, n bigint, run int) language plpgsql as $$
declare step bigint := n / count; first bigint := (run * 7919) % step;
begin
  truncate changed;
  insert into changed select i * step + first + 1 from generate_series(0, count - 1) i;
  execute format('update src_%s set n = n + 1 where id in (select id from changed where id / %s %% 10 < 8)', size, step);
  execute format('insert into src_%s select id, 1, md5(id::text) from changed where id / %s %% 10 = 8
                    on conflict (id) do update set n = excluded.n', size, step);
  execute format('delete from src_%s where id in (select id from changed where id / %s %% 10 = 9)', size, step);
  commit;
end $$;

create procedure checked(size text) language plpgsql as $$
begin
  if exists (select from coco.verify(size)) then
    raise exception 'the target of % differs from its query', size;
  end if;
  commit;
end $$;

call prepare('20k', 20000);
call prepare('100k', 100000);
call prepare('large', :items);
-- As autovacuum would.
vacuum analyze;
checkpoint;

create procedure by_hand(size text) language plpgsql as $$
begin
  execute format('merge into hand_%1$s t
           using (select id, n, body from src_%1$s where id in (select id from changed)) s on t.id = s.id
           when matched then update set n = s.n, body = s.body
           when not matched then insert values (s.id, s.n, s.body)', size);
  execute format('delete from hand_%1$s t where id in (select id from changed)
     and not exists (select from src_%1$s s where s.id = t.id)', size);
end $$;

-- 1,000 changes, and none.
create procedure small(run int) language plpgsql as $$
declare items bigint := current_setting('bench.items');
begin
  call change('100k', 1000, 100000, run);
  analyze changed;
  commit;
  call timed('1,000 of 100,000', run, $q$ select count(*) from coco.update('100k') $q$);
  call timed('1,000 of 100,000, by hand', run, $q$ call by_hand('100k') $q$);
  call change('large', 1000, items, run);
  analyze changed;
  commit;
  call timed('1,000 of large', run, $q$ select count(*) from coco.update('large') $q$);
  call timed('1,000 of large, by hand', run, $q$ call by_hand('large') $q$);
  call timed('nothing of 20,000', run, $q$ select count(*) from coco.update('20k') $q$);
  call timed('nothing of large', run, $q$ select count(*) from coco.update('large') $q$);
end $$;
select format('call small(%s)', i) from generate_series(0, 2 * :runs) i \gexec
call checked('100k');
call checked('large');

-- 1% of the large table: the flow, the flow while it is live, a materialized view, a MERGE by hand.
create materialized view view_large as select id, n, body from src_large;
create unique index on view_large (id);
vacuum analyze view_large, hand_large;
checkpoint;

create procedure percent(run int) language plpgsql as $$
declare items bigint := current_setting('bench.items'); worker text;
begin
  call change('large', items / 100, items, run);
  analyze changed;
  commit;
  -- Who reads the changed rows first tidies up their pages, and has them cached: in turns.
  if run % 2 = 1 then
    call timed('1%, refresh', run, 'refresh materialized view concurrently view_large');
    call timed('1%, by hand', run, $q$ call by_hand('large') $q$);
  end if;
  call timed('1%, coco.update', run, $q$ select count(*) from coco.update('large') $q$);
  if run % 2 = 0 then
    call timed('1%, by hand', run, $q$ call by_hand('large') $q$);
    call timed('1%, refresh', run, 'refresh materialized view concurrently view_large');
  end if;
  perform coco.start('large');
  commit;
  perform coco.wait('large', '10 minutes');
  commit;
  select w.pid into worker from coco.workers w limit 1;
  call change('large', items / 100, items, 1000 + run);
  call timed('1%, live', run, $q$ select coco.wait('large', '10 minutes') $q$, coalesce(worker, 'self'));
  call by_hand('large');
  commit;
  refresh materialized view concurrently view_large;
  commit;
  perform coco.stop('large');
  commit;
  if exists (select from hand_large t full join src_large s using (id) where t.n is distinct from s.n) then
    raise exception 'what was written by hand differs';
  end if;
  commit;
end $$;
select format('call percent(%s)', i) from generate_series(0, :runs) i \gexec
call checked('large');

with median as (
  select what, percentile_cont(0.5) within group (order by ms) as ms,
         percentile_cont(0.5) within group (order by cpu) as cpu,
         min(ms) as least, max(ms) as most
    from times group by what
)
select what, round(ms::numeric, 1) as ms, round(cpu::numeric, 1) as cpu_ms,
       round(least::numeric, 1) as least_ms, round(most::numeric, 1) as most_ms
  from median order by what;

with median as (
  select what, percentile_cont(0.5) within group (order by ms) as ms,
         percentile_cont(0.5) within group (order by cpu) as cpu
    from times group by what
)
select a.what, b.what as beside, round((a.ms / b.ms)::numeric, 3) as ratio,
       round((a.cpu / b.cpu)::numeric, 3) as cpu_ratio, v.bound
  from (values (1, '1,000 of large', '1,000 of 100,000', '<= 1.3'),
               (1, '1,000 of large, by hand', '1,000 of 100,000, by hand', ''),
               (2, 'nothing of large', 'nothing of 20,000', '<= 1.3'),
               (3, '1%, refresh', '1%, coco.update', '>= 20'),
               (4, '1%, refresh', '1%, live', '>= 20'),
               (5, '1%, coco.update', '1%, by hand', '<= 3'),
               (6, '1%, live', '1%, by hand', '')) v(n, x, y, bound)
  join median a on a.what = v.x join median b on b.what = v.y
 order by v.n, v.bound desc;
