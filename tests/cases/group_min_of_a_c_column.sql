-- Here: a group of a column whose collation is not the database's. Expected: as the plain query.
-- Needs: PostgreSQL 17
create table w (id int primary key, k int not null, v text collate pg_c_utf8 not null, n text collate "C" not null);
insert into w values (1, 1, 'ÉTÉ', 'b'), (2, 1, 'ça', 'B');
create function q() returns text language sql as $$ select 'select k, string_agg(lower(v), '' '' order by id) as l, bool_or(v ~* ''éTÉ'') as m, initcap(max(v)) as i from w group by k' $$;
select coco.create_flow('w', 'w', q(), 'wt', '{k}', source_key => '{k}');
select lab.update('w');
select * from lab.check('w', 'wt', q());
