-- Seen at: pgpartman/pg_partman (inheritance sets), maxtepkeev/architect#62 (legacy INHERITS partitions).
-- Here: (a) FROM ONLY parent; (b) one key in parent and child (a primary key does not span the tree); (c) tableoid, the usual way to tell the parts.
create table cities (name text primary key, pop int not null);
create table capitals (state text, primary key (name)) inherits (cities);
insert into cities values ('A', 1), ('B', 2);
insert into capitals values ('C', 3, 'X');
select lab.refused($_$select coco.create_flow('only', 'cities', 'select name, pop from only cities', 'only_cities', '{name}')$_$, 'reads the source cities with ONLY');
select coco.create_flow('all', 'cities', 'select name, pop from cities', 'all_cities', '{name}');
select lab.update('all');
select * from lab.check('all', 'all_cities', 'select name, pop from cities');
insert into capitals values ('A', 10, 'Y');     -- the same key, in a child
select lab.update('all');
select * from lab.check('all', 'all_cities', 'select name, pop from cities');
update cities set pop = pop + 1;
select lab.update('all');
select * from lab.check('all', 'all_cities', 'select name, pop from cities');
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
