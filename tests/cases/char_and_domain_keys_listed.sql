-- Seen at: risingwavelabs/risingwave#26444 (domain keys), greenplum-db/gpdb#4126 (citext keys), risingwavelabs/risingwave#21805 (bytea keys).
-- Here: target keys that are listed as text in the tracking row and must be cast back: char(n), domains with checks (also changed later), bytea, "char", money, regclass, composite, range, enum array.
create domain code as char(5) check (value <> 'zzz');
create type pair as (a int, b text);
create type mood as enum ('x', 'y z', 'q"uo''te');
create table s (id int primary key, c char(5), d code, b bytea, ch "char", m money, rc regclass, p pair, ts tstzrange, e mood[], nm name, f real, dt date, iv interval, l pg_lsn, n inet, js jsonb, bt bit varying);
create table some_table (x int);
insert into s values (1, 'a', 'b', '\x5c00', 'x', '1234.5', 'some_table', '(1,"x,y")', '[2020-01-01,)', '{x,"y z"}', 'n', '1e-7', 'infinity', '1 mon -1 day', '0/1', '::1', '{"a":[1.10]}', '101'),
                     (2, '', 'c  ', '', '', '-1', 'pg_class', '(,)', 'empty', '{}', '', 'NaN', '0044-03-15 BC', '-infinity', 'FF/FF', '10.0.0.0/8', 'null', '');
create function each(s text) returns setof text language plpgsql as $$ declare t text; r text; begin
 foreach t in array '{c,d,b,ch,m,rc,p,ts,e,nm,f,dt,iv,l,n,js,bt}'::text[] loop execute replace(s, '@', t) into r; return next t || ': ' || coalesce(r, '-'); end loop; end $$;
select each($$select coco.create_flow('l_@', 's', 'select @, id as who from s', 'l_@', '{@}')$$);
select each($$select lab.update('l_@')$$);
select each($$select x::text from lab.check('l_@', 'l_@', 'select @, id as who from s') x$$);
alter domain code add constraint late check (value <> 'b') not valid;   -- what is stored stays
alter table some_table rename to renamed_table;
alter type mood rename value 'x' to 'x2';
update s set id = id + 10;      -- other items, the same target keys: they change hands
select each($$select lab.update('l_@')$$);
select each($$select x::text from lab.check('l_@', 'l_@', 'select @, id as who from s') x$$);
delete from s where id = 11;
select each($$select lab.update('l_@')$$);
select each($$select x::text from lab.check('l_@', 'l_@', 'select @, id as who from s') x$$);
