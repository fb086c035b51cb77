-- Seen at: PostgREST and Hasura computed fields (functions over a table's row type), hasura/graphql-engine#2822.
-- Here: full_name(people) or people.full_name in a query. Expected: works, or is refused with a message that says why and what to write instead.
create table people (id int primary key, first text, last text);
insert into people values (1, 'A', 'B');
create function full_name(people) returns text language sql immutable as $$ select $1.first || ' ' || $1.last $$;
select id, full_name(people) as n, people.full_name as m from people;
select coco.create_flow('f1', 'people', 'select id, full_name(people) as n from people', 'f1', '{id}');
select lab.update('f1');
select coco.create_flow('f2', 'people', 'select id, p.full_name as n from people p', 'f2', '{id}');
select lab.update('f2');
select coco.create_flow('f3', 'people', 'select id, full_name(p::people) as n from people p', 'f3', '{id}');
select lab.update('f3');
select coco.create_flow('f4', 'people', 'select p.id, full_name(row(p.*)::people) as n from people p', 'f4', '{id}');
select lab.update('f4');
select coco.create_flow('f5', 'people', 'select public.people.id, first from people', 'f5', '{id}');
select lab.update('f5');
select coco.create_flow('f6', 'people', 'select id, first from public.people', 'f6', '{id}');
select lab.refused($_$select coco.create_flow('f7', 'people', 'select id, first from people tablesample system (100)', 'f7', '{id}')$_$, 'view that reads the table with TABLESAMPLE');
