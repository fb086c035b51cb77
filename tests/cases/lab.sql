-- What the cases ask. Each function raises an error where what comes is not what is expected, which ends the case.
create schema lab;
grant usage on schema lab to public;

-- The target holds the rows of the plain query, told apart as text (so that -0 is not 0, and 1.0 is not 1.00), and
-- coco.verify finds no difference. Items that fail are none: a case asks for them by itself.
create function lab.check(flow text, target text, query text) returns text
language plpgsql as $$
declare missing bigint; extra bigint; sample text; found text; failing text; n bigint;
begin
  execute format('select count(*), min(x) from (select (q.*)::text as x from (%1$s) q except all select (t.*)::text from %2$s t) d', query, target)
     into missing, sample;
  execute format('select count(*), coalesce($1, min(x)) from (select (t.*)::text as x from %2$s t except all select (q.*)::text from (%1$s) q) d', query, target)
     into extra, sample using sample;
  execute 'select string_agg(difference || '' '' || key, ''; '') from (select * from coco.verify($1) where difference <> ''failing'' limit 5) v' into found using flow;
  if missing > 0 or extra > 0 or found is not null then
    execute 'select string_agg(sqlstate || '' '' || message, ''; '') from (select * from coco.errors where flow = $1 limit 5) e' into failing using flow;
    raise exception '% is not the query: % missing, % extra', target, missing, extra
      using detail = format('for example %s; coco.verify: %s; coco.errors: %s', left(sample, 200), left(found, 500), left(failing, 500));
  end if;
  execute format('select count(*) from %s t', target) into n;
  return n || ' rows';
end $$;

-- A statement is refused: its SQLSTATE, message, detail and hint together are like the pattern.
create function lab.refused(statement text, pattern text) returns text
language plpgsql as $$
declare state text; message text; detail text; hint text; said text;
begin
  execute statement;
  raise exception using errcode = 'LAB00', message = 'not refused: ' || statement;
exception
  when sqlstate 'LAB00' then raise;
  when others then
    get stacked diagnostics state = returned_sqlstate, message = message_text, detail = pg_exception_detail, hint = pg_exception_hint;
    said := concat_ws(' ', state, message, nullif(detail, ''), 'HINT: ' || nullif(hint, ''));
    if said not like '%' || pattern || '%' then
      raise exception 'refused in another way: %', said using detail = statement;
    end if;
    return said;
end $$;

-- Two values are the same.
create function lab.is(actual text, expected text) returns text
language plpgsql as $$
begin
  if actual is distinct from expected then
    raise exception 'it is %, not %', coalesce(actual, 'NULL'), coalesce(expected, 'NULL');
  end if;
  return actual;
end $$;

-- An update of a flow ends, and so many of its items fail.
create function lab.update(flow text, failed bigint default 0, mode text default 'normal') returns text
language plpgsql as $$
declare u record;
begin
  execute 'select sum(seen) as seen, sum(evaluated) as evaluated, sum(upserted) as upserted, sum(u.deleted) as deleted, sum(u.failed) as failed from coco.update($1, $2) u'
     into u using flow, mode;
  if u.failed <> $2 then
    raise exception '% items of % fail, not %', u.failed, flow, $2
      using detail = (select string_agg(s || ' ' || m, '; ') from (select e.sqlstate as s, e.message as m from coco.errors e where e.flow = $1 limit 5) e);
  end if;
  return u::text;
end $$;

-- A live flow has followed what is committed.
create function lab.settled(variadic flows text[]) returns text
language plpgsql as $$
declare f text;
begin
  foreach f in array flows loop
    if not coco.wait(f, '20 s') then
      raise exception '% does not catch up: %', f, (select format('%s; %s; %s', s.state, s.last_error, s.hint) from coco.status s where s.flow = f);
    end if;
  end loop;
  return 'settled';
end $$;

-- A condition comes true within a while. Call it outside of a transaction that has read.
create procedure lab.until(condition text)
language plpgsql as $$
declare holds bool; began timestamptz := clock_timestamp();
begin
  loop
    execute 'select ' || condition into holds;
    exit when holds;
    commit;
    if clock_timestamp() > began + interval '20 s' then
      raise exception 'waited in vain until %', condition
        using detail = (select string_agg(format('%s: %s; %s; %s', s.flow, s.state, s.last_error, s.hint), ' | ') from coco.status s);
    end if;
    perform pg_sleep(0.05);
  end loop;
end $$;

-- What coco.status says of a flow (state, error, hint) comes to be like the pattern.
create procedure lab.says(flow text, pattern text)
language plpgsql as $$
declare said text; began timestamptz := clock_timestamp();
begin
  loop
    execute 'select concat_ws(''; '', state, last_error, hint) from coco.status where flow = $1' into said using flow;
    exit when said like pattern;
    commit;
    if clock_timestamp() > began + interval '20 s' then
      raise exception '% says: %', flow, said;
    end if;
    perform pg_sleep(0.05);
  end loop;
end $$;
