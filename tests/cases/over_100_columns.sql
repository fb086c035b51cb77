-- Seen at: toluaina/pgsync#149 (a table of 83 columns: "cannot pass more than 100 arguments to a function").
-- Here: a wide fact table (ordinary in warehouses), copied by SELECT *. Expected: the target is the query.
select format('create table wide (id int primary key, %s)', string_agg(format('m%s int', i), ', ')) from generate_series(1, 120) i \gexec
insert into wide (id, m1, m120) select i, i, -i from generate_series(1, 5) i;
select coco.create_flow('wide', 'wide', 'select * from wide', 'wide_copy', '{id}');
select lab.update('wide');
select * from lab.check('wide', 'wide_copy', 'select * from wide');
update wide set m77 = 5 where id = 3;
select lab.update('wide');
select * from lab.check('wide', 'wide_copy', 'select * from wide');
-- 101 columns, 100 of them with values; and a group
select format('create table g (k int not null, %s)', string_agg(format('m%s int', i), ', ')) from generate_series(1, 101) i \gexec
insert into g (k, m1, m101) select i % 2, i, -i from generate_series(1, 6) i;
select format($$select coco.create_flow('g', 'g', 'select k, count(*) as n, %s from g group by k', 'g_sums', '{k}', source_key => '{k}')$$, string_agg(format('sum(m%s) as s%s', i, i), ', ')) from generate_series(1, 101) i \gexec
select lab.update('g');
