-- A worker keeps a flow up to date; DROP EXTENSION takes it all away. For tests/deb/try.sh.
set client_min_messages = warning;
create table s (id int primary key, v int not null);
insert into s select i, i from generate_series(1, 100) i;
select coco.create_flow('f',
  source => 's', query => 'select id, v * 2 as v from s', target => 't', key => '{id}') \g /dev/null
select coco.start('f') \g /dev/null
update s set v = v + 1;
select coco.wait('f', timeout => '60 s') \g /dev/null
do $$
begin
  if exists (select from s full join t using (id) where s.v * 2 is distinct from t.v) then
    raise exception 'the target differs';
  end if;
end $$;
drop extension coco cascade;
drop table s, t;
do $$
begin
  if exists (select from pg_namespace where nspname like 'coco%') or exists (select from pg_trigger where not tgisinternal) then
    raise exception 'DROP EXTENSION has left objects';
  end if;
end $$;
