-- Seen at: supabase/supa_audit#5, pgMemento, plv8/plv8#96, hasura (row_to_json of a table): the shape of a row goes with the table.
-- Here: SELECT id, to_jsonb(t): then a column is added, and one is renamed or dropped. Expected: as the plain query, or a clear refusal.
create table doc (id int primary key, title text);
insert into doc values (1, 'a'), (2, 'b');
select coco.create_flow('j', 'doc', 'select id, to_jsonb(d) as j from doc d', 'doc_json', '{id}');
select coco.create_flow('star', 'doc', 'select * from doc', 'doc_star', '{id}');
select f, lab.update(f) from unnest('{j,star}'::text[]) f;
alter table doc add column lang text default 'en';
update doc set lang = 'de' where id = 2;
select f, lab.update(f) from unnest('{j,star}'::text[]) f;
select * from lab.check('j', 'doc_json', 'select id, to_jsonb(d) as j from doc d');
select * from lab.check('star', 'doc_star', 'select id, title from doc');
select f, lab.update(f, 0, 'full_reprocess') from unnest('{j,star}'::text[]) f;
select * from lab.check('j', 'doc_json', 'select id, to_jsonb(d) as j from doc d');
-- the mend: the same query again
select coco.set_query('j', null, 'select id, to_jsonb(d) as j from doc d');
select lab.update('j');
select * from lab.check('j', 'doc_json', 'select id, to_jsonb(d) as j from doc d');
