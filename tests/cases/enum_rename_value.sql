-- Seen at: jOOQ/jOOQ#7775, typeorm/typeorm#10955, bytebase/bytebase#18879 (enum changes in migrations).
-- Here: ALTER TYPE ... RENAME VALUE and ADD VALUE while a flow uses the enum: as text, as target key (listed), as source key.
create type mood as enum ('sad', 'ok', 'happy');
create table person (id int primary key, m mood not null);
insert into person values (1, 'sad'), (2, 'ok'), (3, 'happy');
select coco.create_flow('as_text', 'person', 'select id, m::text as m from person', 'as_text', '{id}');
select coco.create_flow('as_enum', 'person', 'select id, m from person', 'as_enum', '{id}');
select coco.create_flow('as_key', 'person', 'select m, id as who from person', 'as_key', '{m}');
select coco.create_flow('grouped', 'person', 'select m, count(*) as n from person group by m', 'grouped', '{m}', source_key => '{m}');
select f, lab.update(f) from unnest('{as_text,as_enum,as_key,grouped}'::text[]) f;
alter type mood rename value 'sad' to 'blue';
alter type mood add value 'great' before 'ok';
insert into person values (4, 'great');
update person set m = 'ok' where id = 3;
delete from person where id = 2;
select f, lab.update(f) from unnest('{as_text,as_enum,as_key,grouped}'::text[]) f;
select * from lab.check('as_text', 'as_text', 'select id, m::text as m from person');
select * from lab.check('as_enum', 'as_enum', 'select id, m from person');
select * from lab.check('as_key', 'as_key', 'select m, id as who from person');
select * from lab.check('grouped', 'grouped', 'select m, count(*) as n from person group by m');
-- the item whose listed key has the old label now goes
delete from person where id = 1;
select lab.update('as_key');
select * from lab.check('as_key', 'as_key', 'select m, id as who from person');
table as_key;
