-- Seen at: turbot/steampipe-postgres-fdw#93, SciPhi-AI/R2R#1264, Mintplex-Labs/anything-llm#4339, langchain-ai/langchainjs#4340 (\u0000 in JSON).
-- Here: a json column with \u0000, a number beyond numeric, deep nesting; the query takes it apart. Expected: these items fail by themselves, all others are right, also when they are mended.
create table doc (id int primary key, j json not null);
insert into doc select i, json_build_object('t', 'text ' || i) from generate_series(1, 500) i;
insert into doc values (1001, '{"t": "bad \u0000 one"}'), (1002, '{"t": 1e400000}'), (1003, '{"t": "\ud83d"}'), (1004, ('{"t":' || repeat('[', 3000) || repeat(']', 3000) || '}')::json), (1005, '{"t":"fine"}');
select coco.create_flow('d', 'doc', $$select id, j->>'t' as t, j::jsonb as b from doc$$, 'docs', '{id}');
select lab.update('d', 3);
select lab.is((select string_agg(source_key ->> 'id' || ' ' || sqlstate, ', ' order by source_key ->> 'id') from coco.errors), '1001 22P05, 1002 22003, 1003 22P02');
select * from lab.check('d', 'docs', $$select id, j->>'t' as t, j::jsonb as b from doc where id not in (1001, 1002, 1003)$$);
update doc set j = '{"t": "mended"}' where id in (1001, 1002, 1003);
select lab.update('d');
select * from lab.check('d', 'docs', $$select id, j->>'t' as t, j::jsonb as b from doc$$);
