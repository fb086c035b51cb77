-- What an update costs beside the plain statements it stands for: one server, alternating
-- repetitions, medians. Run by `make bench`; :items is the size of the source. Each update scans.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
set client_min_messages = warning;
create extension coco;
create table src (id bigint primary key, body text, n int, unused text);
insert into src select i, md5(i::text) || repeat('x', 140), i, 'u' from generate_series(1, :items) i;
create table plain (id bigint primary key, body text, n int);
create table times (what text, ms float8);
create table docs (id bigint primary key, body text not null);
insert into docs
select i, string_agg(md5(i || ' ' || k) || repeat(' some words of a document', 8), '. ' order by k)
  from generate_series(1, :items / 4) i, generate_series(1, 4) k group by i;
create table plain_chunks (doc_id bigint, n int, chunk text, primary key (doc_id, n));
vacuum analyze src, docs;
checkpoint;

create procedure timed(name text, statement text) language plpgsql as $$
declare began timestamptz := clock_timestamp();
begin
  execute statement;
  insert into times values (name, 1000 * extract(epoch from clock_timestamp() - began));
end $$;

create procedure repetition() language plpgsql as $$
begin
  truncate plain;
  call timed('insert', 'insert into plain select id, body, n from src');
  commit;
  perform coco.create_flow('f', 'src', 'select id, body, n from src', 'target', '{id}',
                           capture => 'scan');
  commit;
  call timed('first', $q$ select * from coco.update('f') $q$);
  commit;
  call timed('read', 'select count(*), sum(length(body)), sum(n) from src');
  call timed('nothing', $q$ select * from coco.update('f') $q$);
  commit;
  update src set body = 'y' || body where id % 100 = 0;
  commit;
  call timed('one percent', $q$ select * from coco.update('f') $q$);
  commit;
  if exists (select from coco.verify('f')) then raise exception 'the target differs from its query'; end if;
  perform coco.drop_flow('f', keep_targets => false);
  commit;
end $$;

-- A document makes four chunks.
create procedure chunks() language plpgsql as $$
begin
  truncate plain_chunks;
  call timed('insert chunks', 'insert into plain_chunks select d.id, c.n, c.chunk from docs d, coco.split_text(d.body, 260) c');
  commit;
  perform coco.create_flow('c', 'docs',
    'select d.id as doc_id, c.n, c.chunk from docs d, coco.split_text(d.body, 260) c', 'chunks', '{doc_id,n}',
    capture => 'scan');
  commit;
  call timed('first chunks', $q$ select * from coco.update('c') $q$);
  commit;
  if (select count(*) from chunks) <> 4 * (select count(*) from docs) then raise exception 'not four chunks each'; end if;
  if exists (select from coco.verify('c')) then raise exception 'the target differs from its query'; end if;
  perform coco.drop_flow('c', keep_targets => false);
  commit;
end $$;

call repetition();
call repetition();
call repetition();
call chunks();
call chunks();
call chunks();

with median as (
  select what, percentile_cont(0.5) within group (order by ms) as ms from times group by what
)
select a.what as update, b.what as beside,
       round(a.ms::numeric) as ms, round(b.ms::numeric) as beside_ms, round((a.ms / b.ms)::numeric, 2) as ratio, bound
  from (values (1, 'first', 'insert', '<= 1.8'), (2, 'first chunks', 'insert chunks', '<= 1.5'), (3, 'nothing', 'read', '<= 5'),
               (4, 'one percent', 'nothing', '')) v(n, x, y, bound)
  join median a on a.what = v.x join median b on b.what = v.y
 order by n;

select coco.create_flow('f', 'src', 'select id, body, n from src', 'target', '{id}', capture => 'scan') \g /dev/null
select * from coco.update('f') \g /dev/null
select round(pg_total_relation_size(tracking_table)::numeric / :items, 1) as "tracking_bytes_an_item (<= 140)"
  from coco.sources;
