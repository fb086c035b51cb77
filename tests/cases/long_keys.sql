-- Seen at: everybody who made a URL or a title a key ("index row size … exceeds btree version 4 maximum 2704").
-- Here: group keys and target keys longer than a btree entry holds, incompressible. Expected: these items fail by themselves (also as groups), the others go on; writers do not fail.
create function r(seed int, n int) returns text language sql immutable as $$ select string_agg(md5(seed::text || i), '') from generate_series(1, n) i $$;
create table page (id int primary key, url text not null, hits int not null);
insert into page select i, 'u' || i % 3, i from generate_series(1, 9) i;
insert into page values (100, r(1, 300), 5), (101, r(1, 300), 6);
select coco.create_flow('g', 'page', 'select md5(url) as u, sum(hits) as hits from page group by url', 'g', '{u}', source_key => '{url}');
select coco.create_flow('l', 'page', 'select id || url as u, hits from page', 'l', '{u}');
select lab.update('l', 2);
select lab.update('g', 2);
select lab.is((select string_agg(flow || sqlstate, ' ' order by flow) from coco.errors), 'g54000 g54000 l54000 l54000');
select * from lab.check('l', 'l', 'select id || url as u, hits from page where id < 100');
select * from lab.check('g', 'g', 'select md5(url) as u, sum(hits) as hits from page where id < 100 group by url');
update page set hits = hits + 1;
select coco.start('l');
select coco.start('g');
select lab.settled('l', 'g');
select lab.is((select string_agg(state, ' ') from coco.status), 'failing failing');
select * from lab.check('l', 'l', 'select id || url as u, hits from page where id < 100');
select * from lab.check('g', 'g', 'select md5(url) as u, sum(hits) as hits from page where id < 100 group by url');
update page set url = 'short' where id >= 100;
select lab.settled('l', 'g');
select * from lab.check('l', 'l', 'select id || url as u, hits from page');
select * from lab.check('g', 'g', 'select md5(url) as u, sum(hits) as hits from page group by url');
select coco.stop('l');
select coco.stop('g');
