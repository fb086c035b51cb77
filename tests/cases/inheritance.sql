-- Seen at: pgpartman/pg_partman (inheritance sets), maxtepkeev/architect#62 (legacy INHERITS partitions).
-- Here: (a) FROM ONLY parent; (b) one key in parent and child (a primary key does not span the tree); (c) tableoid, the usual way to tell the parts.
-- Expected: ONLY is refused. No index spans a table and its children, so the rows that share a key are one item, which fails alone where it gives a target key twice; a child that comes later stops a flow whose items are rows, with a hint.
create table cities (name text primary key, pop int not null);
create table capitals (state text, primary key (name)) inherits (cities);
insert into cities values ('A', 1), ('B', 2);
insert into capitals values ('C', 3, 'X');
select lab.refused($_$select coco.create_flow('only', 'cities', 'select name, pop from only cities', 'only_cities', '{name}')$_$, 'reads the source cities with ONLY');
select coco.create_flow('all', 'cities', 'select name, pop from cities', 'all_cities', '{name}');
select lab.update('all');
select * from lab.check('all', 'all_cities', 'select name, pop from cities');
insert into capitals values ('A', 10, 'Y');     -- the same key, in a child
select lab.update('all', 1);
select lab.is((select sqlstate || source_key from coco.errors where flow = 'all'), '21000{"name": "A"}');
select lab.is((select string_agg(t::text, ' ' order by name) from all_cities t), '(A,1) (B,2) (C,3)');
select lab.is((select string_agg(difference || key, ' ') from coco.verify('all')), 'failing{"name": "A"}');
update cities set pop = pop + 1;
select lab.update('all', 1);
select lab.is((select string_agg(t::text, ' ' order by name) from all_cities t), '(A,1) (B,3) (C,4)');
delete from only cities where name = 'A';
select lab.update('all');
select * from lab.check('all', 'all_cities', 'select name, pop from cities');
-- the same, with a target key that tells them apart
create table p2 (id int primary key, v int not null);
create table c2 (primary key (id)) inherits (p2);
insert into p2 values (1, 1);
select coco.create_flow('two', 'p2', 'select id, v, count(*) as n from p2 group by 1, 2', 'two', '{id,v}');
select lab.update('two');
insert into c2 values (1, 2);
select lab.update('two');
select * from lab.check('two', 'two', 'select id, v, count(*) as n from p2 group by 1, 2');
-- an ordinal says that each key names one row of them all, which updates check
create table log (id int primary key, v int not null, version int not null);
create table log_1 (primary key (id)) inherits (log);
insert into log_1 values (1, 1, 1), (2, 2, 1);
select coco.create_flow('ordered', 'log', 'select id, v from log', 'ordered', '{id}', ordinal => 'version');
select lab.update('ordered');
select * from lab.check('ordered', 'ordered', 'select id, v from log');
insert into log values (1, 9, 2);
select lab.refused($$select coco.update('ordered')$$, 'has several rows with one key');
delete from log_1 where id = 1;
select lab.update('ordered');
select * from lab.check('ordered', 'ordered', 'select id, v from log');
-- a child that comes later, before an update and while the flow is live
create table late (id int primary key, v int not null);
create table late_1 (like late including all);
insert into late values (1, 1);
insert into late_1 values (1, 2), (3, 3);
select coco.create_flow('late', 'late', 'select id, v from late', 'late_t', '{id}');
select lab.update('late');
alter table late_1 inherit late;
select lab.refused($$select coco.update('late')$$, 'the key (id) of source "late" of flow "late" is no longer unique');
select lab.refused($$select coco.update('late')$$, 'HINT: Detach the child tables');
alter table late_1 no inherit late;
select lab.update('late');
select * from lab.check('late', 'late_t', 'select id, v from late');
select coco.start('late');
select lab.settled('late');
alter table late_1 inherit late;
update late set v = v + 1;
call lab.says('late', 'failed; the key (id) of source "late" of flow "late" is no longer unique; Detach the child tables%');
select lab.is((select string_agg(t::text, ' ') from late_t t), '(1,1)');
select coco.drop_flow('late', keep_targets => true);
select coco.create_flow('late', 'late', 'select id, sum(v) as v from late group by id', 'late_sum', '{id}');
select lab.update('late');
select * from lab.check('late', 'late_sum', 'select id, sum(v) as v from late group by id');
-- a target that others inherit from holds a key twice
create table heir (id int primary key, v int not null);
create table heir_1 () inherits (heir);
select lab.refused($$select coco.create_flow('heir', 'late_sum', 'select id, v::int as v from late_sum', 'heir', '{id}')$$, 'tables inherit from target public.heir');
