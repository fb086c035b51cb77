-- Seen at: opencollective/opencollective#6420, dba pages on REFRESH CONCURRENTLY (partial and expression indexes do not do).
-- Here: unique indexes that do not make a key one row's: partial, invalid, deferrable, of another collation, only-on-parent.
create table a (id int primary key, k int not null, active bool not null, v int);
create unique index on a (k) where active;
insert into a values (1, 1, true, 1), (2, 1, false, 2), (3, 2, true, 3);
select coco.create_flow('partial', 'a', 'select k, sum(v) as s from a group by k', 'partial', '{k}', source_key => '{k}');
select lab.update('partial');
select * from lab.check('partial', 'partial', 'select k, sum(v) as s from a group by k');
-- deferrable: two rows have one key inside a transaction, and an update is called there
create table d (id int primary key, pos int not null, v text, unique (pos) deferrable initially deferred);
insert into d values (1, 1, 'a'), (2, 2, 'b');
select coco.create_flow('deferred', 'd', 'select pos, string_agg(v, '','' order by v) as vs from d group by pos', 'deferred', '{pos}', source_key => '{pos}');
select lab.update('deferred');
begin;
update d set pos = 2 where id = 1;
select lab.update('deferred');
select * from lab.check('deferred', 'deferred', 'select pos, string_agg(v, '','' order by v) as vs from d group by pos');
update d set pos = 1 where id = 2;
commit;
select lab.update('deferred');
select * from lab.check('deferred', 'deferred', 'select pos, string_agg(v, '','' order by v) as vs from d group by pos');
-- an index that tells apart what the column holds to be equal
select exists (select from pg_collation where collname = 'und-x-icu') as icu \gset
\if :icu
create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create table u (email text collate ci not null, v int);
create unique index on u (email collate "C");
insert into u values ('a@x', 1), ('A@X', 2), ('b@x', 3);
select coco.create_flow('coll', 'u', 'select email, sum(v) as s from u group by email', 'coll', '{email}', source_key => '{email}');
select lab.update('coll');
select * from lab.check('coll', 'coll', 'select email, sum(v) as s from u group by email');
\endif
