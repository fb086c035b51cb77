-- A flow is declared, updated, verified and dropped; the extension goes and leaves nothing.
-- It may warn that the server is an older minor release.
set client_min_messages = error;
create extension coco;
reset client_min_messages;
create table public.note (id int primary key, body text not null);
insert into public.note values (1, 'one'), (2, 'two. three'), (3, '');
select coco.create_flow('pieces',
  source => 'public.note',
  query  => $$ select note.id, c.n, c.chunk from note, coco.split_text(note.body, 6) as c $$,
  target => 'public.piece',
  key    => '{id,n}');
select source, seen, evaluated, upserted, deleted, failed from coco.update('pieces');
update public.note set body = 'two' where id = 2;
select source, seen, evaluated, upserted, deleted, failed from coco.update('pieces');
select * from public.piece order by id, n;
select count(*) from coco.verify('pieces');
select coco.drop_flow('pieces', keep_targets => false);
drop extension coco;
select count(*) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname like 'coco%';
select count(*) from pg_catalog.pg_trigger where not tgisinternal;
