-- What a role sees of its flows: those it owns, or whose owner it is a member of.

create view coco.flows with (security_barrier) as
select f.flow, f.owner, f.search_path, f.settings, f.created
  from coco.flow f
 where pg_catalog.pg_has_role(f.owner, 'usage');
comment on view coco.flows is 'The flows you own, or whose owner you are a member of.';

create view coco.sources with (security_barrier) as
select s.flow, s.name as source, s.relation, s.key,
       case when s.grouped then 'group' else 'row' end as item,
       s.used as used_columns, s.ordinal, s.fingerprint, s.tracking as tracking_table
  from coco.source s join coco.flow f using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage');
comment on view coco.sources is 'Their sources: item tells whether an item is a row or the group of rows that share the key; used_columns are those the content fingerprint covers.';

create view coco.targets with (security_barrier) as
select t.flow, pg_catalog.format('%I.%I', t.schema, t.name) as target, t.relation, t.key, t.query,
       t.made as made_by_coco, t.query_view
  from coco.target t join coco.flow f using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage');
comment on view coco.targets is 'Their targets: query_view is a view of the query over everything, which the target must equal.';

create view coco.tracking as select * from coco.tracking_rows();
comment on view coco.tracking is 'What is committed of every source item: version, fingerprints, process ordinal (microseconds) and time; target_keys where they are not those of the source key.';

create view coco.errors as select * from coco.error_rows();
comment on view coco.errors is 'Source items whose last evaluation failed: their target rows are those of before. Tried again at next_retry by coco.update, or at once by coco.retry.';

create view coco.status with (security_barrier) as
select f.flow,
       case when not exists (select from coco.target t where t.flow = f.flow) then 'incomplete'
            when exists (select from coco.target t where t.flow = f.flow
                            and not exists (select from pg_catalog.pg_class c where c.oid = t.relation))
              then 'target dropped'
            when exists (select from coco.source s where s.flow = f.flow
                            and not exists (select from pg_catalog.pg_class c where c.oid = s.relation))
              then 'source dropped'
            when exists (select from coco.target t where t.flow = f.flow
                            and not exists (select from pg_catalog.pg_class c where c.oid = t.query_view))
              or exists (select from coco.source s, pg_catalog.unnest(s.key || s.used) as u(name)
                          where s.flow = f.flow
                            and not exists (select from pg_catalog.pg_attribute a
                                             where a.attrelid = s.relation and a.attname = u.name
                                               and not a.attisdropped))
              then 'query broken'
            when e.failing > 0 then 'failing'
            else 'ready' end as state,
       (select pg_catalog.sum(greatest(c.reltuples, 0))::bigint
          from coco.source s join pg_catalog.pg_class c on c.oid = s.tracking
         where s.flow = f.flow) as items_estimate,
       coalesce(e.failing, 0) as failing,
       e.next_retry, e.last_error
  from coco.flow f
  left join (select flow, pg_catalog.count(*) as failing, pg_catalog.min(next_retry) as next_retry,
                    (pg_catalog.array_agg(message order by failed_at desc))[1] as last_error
               from coco.error_rows() group by flow) e using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage');
comment on view coco.status is 'One row a flow: its state, how many items it has (an estimate, as of the last ANALYZE), how many fail, when the next is tried again, and the last error.';
