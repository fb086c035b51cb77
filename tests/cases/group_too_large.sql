-- Seen at: timescale/pgai#538-like (worker out of memory), estuary; any "count by country".
-- Here: one group whose rows together are over 1 GB (100 documents of 11 MB), among small ones. Expected: the query is only a count; the group is right, or it fails by itself and the others go on.
create table doc (id int primary key, k int not null, body text not null);
insert into doc select i, 1 + i % 5, 'small' || i from generate_series(1, 50) i;
select coco.create_flow('g', 'doc', 'select k, count(*) as n, sum(length(body)) as chars from doc group by k', 'g', '{k}', source_key => '{k}');
select lab.update('g');
insert into doc values (1001, 7, repeat('x', 11000000));
insert into doc select 1000 + i, 7, body from doc, generate_series(2, 100) i where id = 1001;
update doc set body = 'changed' where id = 1;
select lab.update('g', 1);
select lab.is((select format('%s %s', source_key, sqlstate) from coco.errors), '{"k": 7} 54000');
select * from lab.check('g', 'g', 'select k, count(*) as n, sum(length(body)) as chars from doc where k <> 7 group by k');
select coco.start('g');
update doc set body = 'changed again' where id = 2;
select lab.settled('g');
select * from lab.check('g', 'g', 'select k, count(*) as n, sum(length(body)) as chars from doc where k <> 7 group by k');
-- a group that shrinks comes
delete from doc where id > 1005;
select lab.settled('g');
select * from lab.check('g', 'g', 'select k, count(*) as n, sum(length(body)) as chars from doc group by k');
select coco.stop('g');
