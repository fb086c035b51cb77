-- psql: what its backslash commands say of coco, variables, \gset and \watch's kin.
\set ON_ERROR_STOP 1
\pset pager off
create table psql_source (id int primary key, body text not null);
insert into psql_source values (1, 'one'), (2, 'two');
\set flow psql
select coco.create_flow(:'flow',
  source => 'psql_source', query => 'select id, upper(body) as body from psql_source',
  target => 'psql_target', key => '{id}') \g /dev/null
select evaluated, upserted from coco.update(:'flow') \gset
\if :{?evaluated}
\else
  do $$ begin raise exception 'no counts'; end $$;
\endif
select :evaluated = 2 and :upserted = 2 as right \gset
\if :right
\else
  do $$ begin raise exception 'wrong counts'; end $$;
\endif
\dx+ coco
\df coco.update
\dv coco.*
\d+ coco.status
\d+ psql_target
\d+ psql_source
\dn+ coco
\dew
\copy psql_target to '/dev/null'
select coco.drop_flow(:'flow', keep_targets => false) \g /dev/null
drop table psql_source;
