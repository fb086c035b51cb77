-- Seen at: sraoss/pgsql-ivm#144, timescale/timescaledb#5008 (TRUNCATE of what another aggregate rests on), trickle-labs/pg-trickle#331, #409 (a table that is a target is a source again).
-- Here: three flows in a chain, two of them live, TRUNCATE CASCADE of the root, RESTART IDENTITY, refill in the same transaction, TRUNCATE rolled back to a savepoint; then a cycle of two flows, which is refused.
create table dept (id int generated always as identity primary key, name text);
create table emp (id int primary key, dept int references dept, pay int not null);
insert into dept (name) select 'd' || i from generate_series(1, 5) i;
insert into emp select i, 1 + i % 5, i from generate_series(1, 50) i;
create table emp_n (id int primary key, dept int not null, pay int not null);
select coco.create_flow('a', 'emp', 'select id, dept, pay from emp where dept is not null', 'emp_n', '{id}');
select coco.create_flow('b', 'emp_n', 'select dept, sum(pay) as pay, count(*) as n from emp_n group by dept', 'by_dept', '{dept}', source_key => '{dept}');
select coco.update('b');
alter table by_dept alter n set not null;
select coco.create_flow('c', 'by_dept', 'select n, count(*) as depts from by_dept group by n', 'by_size', '{n}', source_key => '{n}');
select coco.start('a');
select coco.start('b');
select coco.start('c');
create function w() returns text language sql as $$ select lab.settled('a', 'b', 'c') from generate_series(1, 3) $$;
select w();
create function chk() returns text language sql as $$
  select lab.check('a', 'emp_n', 'select id, dept, pay from emp where dept is not null')
      || lab.check('b', 'by_dept', 'select dept, sum(pay) as pay, count(*) as n from emp where dept is not null group by dept')
      || lab.check('c', 'by_size', 'select n, count(*) as depts from (select dept, count(*) as n from emp where dept is not null group by dept) x group by n') $$;
select * from chk();
update emp set dept = 1 where id < 10;
delete from emp where dept = 3;
select w();
select * from chk();
begin;
truncate dept restart identity cascade;
insert into dept (name) values ('x'), ('y');
insert into emp values (1, 1, 100), (2, 2, 200), (3, 2, 300);
commit;
select w();
select * from chk();
begin;
savepoint s;
truncate emp;
rollback to s;
insert into emp values (4, 1, 1);
commit;
begin;
truncate emp;
rollback;
select w();
select * from chk();
truncate emp, dept;
select w();
select * from chk();
select coco.stop('a');
select coco.stop('b');
select coco.stop('c');
-- a cycle is found at its declaration
create table p (id int primary key, v int);
create table q (id int primary key, v int);
select coco.create_flow('pq', 'p', 'select id, v + 1 as v from p where v < 20', 'q', '{id}');
do $$
begin
  perform coco.create_flow('qp', 'q', 'select id + 1 as id, v from q', 'p', '{id}');
  raise 'a cycle was declared';
exception when invalid_object_definition then null;
end $$;
select lab.is((select string_agg(flow, ' ' order by flow) from coco.flows), 'a b c pq');
