-- Seen at: willbryant/kitchen_sync#99, acts_as_list and dbt merge users: rows that swap a value which has a unique index of its own.
-- Here: an adopted target with a second unique constraint (position in a list). Two items swap; three rotate. The plain query's rows satisfy all constraints.
-- Expected: the target is the query.
create table todo (id int primary key, pos int not null, t text);
insert into todo values (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c'), (4, 4, 'd');
create table todo_pub (id int primary key, pos int not null unique, t text);
select coco.create_flow('todo', 'todo', 'select id, pos, t from todo', 'todo_pub', '{id}');
select lab.update('todo');
update todo set pos = case id when 1 then 2 when 2 then 1 end where id in (1, 2);
select lab.update('todo');
select * from lab.check('todo', 'todo_pub', 'select id, pos, t from todo');
update todo set pos = pos + 1;    -- all move up by one
select lab.update('todo');
select * from lab.check('todo', 'todo_pub', 'select id, pos, t from todo');
select seen, evaluated, upserted, failed from coco.retry('todo');
select * from coco.verify('todo', repair => true);
select * from lab.check('todo', 'todo_pub', 'select id, pos, t from todo');
-- a target that coco made, to which the user has added the unique index (the docs: "a table, yours to index")
select coco.create_flow('todo2', 'todo', 'select id, pos, t from todo', 'todo_pub2', '{id}');
select lab.update('todo2');
create unique index on todo_pub2 (pos);
update todo set pos = case id when 1 then (select pos from todo where id = 2) else (select pos from todo where id = 1) end where id in (1, 2);
select lab.update('todo2');
select * from lab.check('todo2', 'todo_pub2', 'select id, pos, t from todo');
