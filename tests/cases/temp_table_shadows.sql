-- Seen at: CVE-2023-22847 family (unqualified names), dbt temp tables named as models.
-- Here: the session that calls coco.update has a temporary table (and a temporary view) of the name that the query reads besides the source.
-- Expected: the flow reads the table it was declared over.
create table rate (cur text primary key, r numeric);
insert into rate values ('EUR', 1);
create table pay (id int primary key, cur text not null, amount numeric not null);
insert into pay values (1, 'EUR', 10), (2, 'EUR', 20);
select coco.create_flow('p', 'pay', 'select pay.id, amount * r as a from pay join rate using (cur)', 'paid', '{id}');
select lab.update('p');
create temp table rate (cur text, r numeric);
insert into rate values ('EUR', 99);
update pay set amount = 11 where id = 1;
select lab.update('p');
table paid;
select * from lab.check('p', 'paid', 'select pay.id, amount * r as a from pay join public.rate using (cur)');
create temp table pay (id int, cur text, amount numeric);
insert into pay values (1, 'EUR', 1000);
update public.pay set amount = 12 where id = 1;
select lab.update('p');
table paid;
