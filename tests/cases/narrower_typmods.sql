-- Seen at: confluentinc/kafka-connect-jdbc#1237 (loss of precision: numeric without scale into numeric(p,s)).
-- Here: adopted tables whose columns have less precision than the query: numeric(6,1), timestamp(0), time(0), interval(0), char(3), bit(4), varchar; and query columns cast to less. Expected: refused, or byte for byte the query.
create table t (id int primary key, n numeric, ts timestamptz, i interval, c char(8), b bit varying);
insert into t values (1, 1.234, '2025-01-01 00:00:00.6', '1.6 s', 'abcdefgh', '10101'), (2, 9999.95, '2025-01-01', '1 s', 'ab', '1');
create function try(d text, e text) returns text language plpgsql as $$ declare f text := 'f_' || md5(d); r record; begin execute format('create table %I (id int primary key, x %s)', f, d); begin perform coco.create_flow(f, 't', format('select id, %s as x from t', e), f, '{id}'); exception when others then return d || ' refused: ' || sqlerrm; end;
 perform coco.update(f); return d || ': ' || lab.check(f, format('%I', f), format('select id, %s as x from t where id not in (select (source_key ->> ''id'')::int from coco.errors where flow = %L)', e, f)); end $$;
select try(d, e) from (values ('numeric(6,1)', 'n'), ('numeric(5,1)', 'n'), ('timestamptz(0)', 'ts'), ('timestamptz(3)', 'ts'), ('interval(0)', 'i'), ('interval day to second(1)', 'i'), ('char(3)', 'c'), ('char(10)', 'c'), ('bit varying(3)', 'b'), ('numeric', 'n::numeric(8,2)'), ('numeric(8,1)', 'n::numeric(8,2)'), ('numeric(12,4)', 'n::numeric(8,2)')) v(d, e);
-- what does not fit at all fails alone
select lab.is((select string_agg(distinct sqlstate, ' ') from coco.errors), '22001');
