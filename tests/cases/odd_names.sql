-- Seen at: elastic/connectors#2467, langchain-ai/langchainjs#3595, awslabs/aws-athena-query-federation#234, mathesar-foundation/mathesar#4180, hasura/graphql-engine#2822, ankane/pgsync#33.
-- Here: names with capitals, blanks, quotes, dots, keywords, per cent, backslash, newline, umlauts, of 63 bytes; names that coco itself uses (item, t, q, s, c1, i1, u1, k1, rows, coco_batch).
create schema "My Schema.x";
create table "My Schema.x"."User's ""Table"" %s \n $1" ("Id" int primary key, "select" text, "a.b" text, "c
d" text, "übergrößenträger_übergrößenträger_übergrößenträger_12" text, "%I" text, "ctid2" int);
insert into "My Schema.x"."User's ""Table"" %s \n $1" values (1, 's', 'ab', 'cd', 'ü', '%', 1), (2, null, '', '''', '"', '\', 2);
create function q() returns text language sql as $f$ select $q$select "Id" as "Ïd \' "" x", "select" as "from", "a.b" as "K.1", "c
d" as "new
line", "übergrößenträger_übergrößenträger_übergrößenträger_12" as "übergrößenträger_übergrößenträger_übergrößenträger_12", "%I" as "%%s" from "User's ""Table"" %s \n $1"$q$ $f$;
create function p() returns text language sql as $f$ select replace(q(), 'from "User', 'from "My Schema.x"."User') $f$;
select coco.create_flow(E'flow "%s" \\ ''x'' \n übergrößenträger übergrößenträg', '"My Schema.x"."User''s ""Table"" %s \n $1"', q(), '"My Schema.x"."Target ""1"" %s"', array[E'Ïd \\'' " x']);
select lab.update(E'flow "%s" \\ ''x'' \n übergrößenträger übergrößenträg');
update "My Schema.x"."User's ""Table"" %s \n $1" set "c
d" = 'changed' where "Id" = 2;
delete from "My Schema.x"."User's ""Table"" %s \n $1" where "Id" = 1;
select coco.start(E'flow "%s" \\ ''x'' \n übergrößenträger übergrößenträg');
select lab.settled(E'flow "%s" \\ ''x'' \n übergrößenträger übergrößenträg');
select * from lab.check(E'flow "%s" \\ ''x'' \n übergrößenträger übergrößenträg', '"My Schema.x"."Target ""1"" %s"', p());
select coco.stop(E'flow "%s" \\ ''x'' \n übergrößenträger übergrößenträg');
select lab.is((length(coco.report()) > 0 and length(coco.diagram()) > 0)::text, 'true');
create table item (id int primary key, i1 int, u1 int, k1 int, c1 int, rows int not null, no int, item int, t int, q int, s int, b int, action text, coco_item int, present bool, ordinal int, fingerprint text);
insert into item select i, i, i, i, i, i, i, i, i, i, i, i, 'e', i, true, i, 'x' from generate_series(1, 3) i;
select coco.create_flow('item', 'item', 'select * from item t', 't', '{id}');
select lab.update('item');
select coco.create_flow('rows', 'item', 'select rows, count(*) as item, max(no) as t, min(i1) as c1, sum(k1) as k1, array_agg(item.item order by id) as q from item group by rows', '"rows"', '{rows}', source_key => '{rows}');
select lab.update('rows');
update item set rows = 1, u1 = 7 where id = 2;
select f, lab.update(f) from unnest('{item,rows}'::text[]) f;
select * from lab.check('item', 't', 'select * from item t');
select * from lab.check('rows', '"rows"', 'select rows, count(*) as item, max(no) as t, min(i1) as c1, sum(k1) as k1, array_agg(item.item order by id) as q from item group by rows');
create table coco_batch (k1 int primary key, v int);
insert into coco_batch values (1, 1);
create table coco_output (k1 int primary key, v int);
insert into coco_output values (1, 5);
select coco.create_flow('own', 'coco_batch', 'select k1, b.v + o.v as v from coco_batch b join coco_output o using (k1)', 'coco_old', '{k1}');
select lab.update('own');
update coco_batch set v = 2;
select lab.update('own');
select * from lab.check('own', 'coco_old', 'select k1, b.v + o.v as v from coco_batch b join coco_output o using (k1)');
