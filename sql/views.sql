-- Views through which a role sees its flows: those that it owns, or whose owner is a role of which it is a member. The
-- COMMENTs on the views are in comments/views.sql.

create view coco.flows with (security_barrier) as
select f.flow, f.owner, f.live, f.search_path, f.settings, f.created, f.label, f.batch_size, f.paused,
       f.lineage_index
  from coco.flow f
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.sources with (security_barrier) as
select s.flow, s.name as source, s.relation, s.key,
       case when s.grouped then 'group' else 'row' end as item,
       s.used as used_columns, s.ordinal, s.fingerprint, s.capture, s.refresh_interval,
       s.tracking as tracking_table, s.tracking_view
  from coco.source s join coco.flow f using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage') and s.lookup_of is null;

create view coco.lookups with (security_barrier) as
select s.flow, s.name as lookup, s.relation, s.key, o.name as source, s.affects,
       s.used as used_columns, s.capture, s.refresh_interval, s.tracking as tracking_table,
       s.tracking_view
  from coco.source s join coco.source o on o.id = s.lookup_of join coco.flow f on f.flow = s.flow
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.targets with (security_barrier) as
select t.flow, coalesce(t.external, pg_catalog.format('%I.%I', t.schema, t.name)) as target,
       case when t.server is null then t.relation end as relation, t.key, t.query,
       t.managed, t.query_view, t.server, t.options,
       case when t.server is not null then t.relation end as ledger, t.outbox, t.ledger_view, t.outbox_view
  from coco.target t join coco.flow f using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.tracking as select * from coco.tracking_rows();

create view coco.errors as select * from coco.error_rows();

create view coco.functions as select * from coco.function_rows();

-- Every role may see the workers of this database, but the flow of a worker only if the role may see that flow.
create view coco.workers as
select w.pid, w.worker_no, f.flow, s.name as source,
       case when w.flow is null then 'waiting' else 'working' end as state, w.since, w.transactions,
       w.evaluated, w.upserted, w.deleted, w.failed
  from coco.worker_rows() w
  left join coco.flow f on f.id = w.flow and pg_catalog.pg_has_role(f.owner, 'usage')
  left join coco.source s on s.id = w.source and s.flow = f.flow
 where w.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

create view coco.progress as
select f.flow, s.name as source, p.pid, p.items_done, p.items_total, p.since, p.estimated_end
  from coco.progress_rows() p
  join coco.flow f on f.id = p.flow and pg_catalog.pg_has_role(f.owner, 'usage')
  join coco.source s on s.id = p.source and s.flow = f.flow
 where p.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

create view coco.delivery_status as select * from coco.delivery_rows();

create view coco.status with (security_barrier) as
select f.flow,
       case when not exists (select from coco.target t where t.flow = f.flow) then 'incomplete'
            when exists (select from coco.target t where t.flow = f.flow
                            and (not exists (select from pg_catalog.pg_class c where c.oid = t.relation)
                                 or t.outbox is not null
                                    and not exists (select from pg_catalog.pg_class c where c.oid = t.outbox)))
              then 'target dropped'
            when exists (select from coco.source s where s.flow = f.flow
                            and not exists (select from pg_catalog.pg_class c where c.oid = s.relation))
              then 'source dropped'
            when exists (select from coco.target t where t.flow = f.flow
                            and not exists (select from pg_catalog.pg_class c where c.oid = t.query_view))
              or exists (select from coco.source s
                          where s.flow = f.flow
                            and ((s.ordinal is not null or s.fingerprint is not null)
                                 and not exists (select from pg_catalog.pg_class c where c.oid = s.expressions)
                                 or s.affects is not null
                                    and not exists (select from pg_catalog.pg_class c where c.oid = s.affects_view)))
              or exists (select from coco.source s, pg_catalog.unnest(s.key) as u(name)
                          where s.flow = f.flow
                            and not exists (select from pg_catalog.pg_attribute a
                                             where a.attrelid = s.relation and a.attname = u.name
                                               and not a.attisdropped))
              then 'query broken'
            when f.paused then 'paused'
            when x.deaths >= 3 then 'set aside'
            when x.flow is not null or d.flow is not null then 'failed'
            when f.live and not r.complete then 'restoring'
            when f.live and not exists (select from pg_catalog.pg_locks l
                            where l.locktype = 'object' and l.classid = 'coco.flow'::pg_catalog.regclass
                              and l.objid = 0 and l.granted and l.mode = 'ShareUpdateExclusiveLock'
                              and l.database = (select d.oid from pg_catalog.pg_database d
                                                 where d.datname = pg_catalog.current_database()))
              then 'no worker'
            when e.failed_items > 0 then 'degraded'
            when f.live then 'live'
            else 'idle' end as state,
       p.pending,
       case when p.pending > 0 then pg_catalog.clock_timestamp() - k.followed_at
            when p.pending = 0 then interval '0' end as lag,
       k.followed_at as followed_at,
       (select pg_catalog.sum(greatest(c.reltuples, 0))::bigint
          from coco.source s join pg_catalog.pg_class c on c.oid = s.tracking
         where s.flow = f.flow) as items_estimate,
       coalesce(e.failed_items, 0) as failed_items,
       least(e.next_retry, case when x.deaths >= 3 then null else x.next_retry end, d.next_retry) as next_retry,
       coalesce(x.message, d.message, e.last_error) as last_error,
       coalesce(x.hint, d.hint,
                case when f.live and not r.complete
                     then 'Wait until the restore of the dump has ended. If it has ended, call coco.start, which allows workers to start.' end) as hint
  from coco.flow f
 cross join coco.restore_is_complete() as r (complete)
  left join (select flow, pg_catalog.count(*) as failed_items, pg_catalog.min(next_retry) as next_retry,
                    (pg_catalog.array_agg(message order by failed_at desc))[1] as last_error
               from coco.error_rows() group by flow) e on e.flow = f.flow
  left join coco.flow_error x on x.flow = f.id
  left join (select distinct on (t.flow) t.flow, d.next_retry, d.hint,
                    pg_catalog.format('target %I on server %I: %s', t.external, t.server, d.message) as message
               from coco.delivery_state d join coco.target t on t.id = d.target
              where d.message is not null order by t.flow, d.failed_at) d on d.flow = f.flow
  left join (select s.flow, pg_catalog.min(k.followed_at) as followed_at
               from coco.cursor k join coco.source s on s.id = k.source group by s.flow) k on k.flow = f.flow
  left join (select s.flow, pg_catalog.sum(r.pending)::bigint as pending
               from coco.pending_rows() r join coco.source s on s.id = r.source group by s.flow) p on p.flow = f.flow
 where pg_catalog.pg_has_role(f.owner, 'usage');

-- One branch for each scope, so that a query with a condition on scope computes only that scope.
create view coco.metrics as
select 'flow' as scope, m.* from coco.metric_rows('flow') m
union all
select 'source', m.* from coco.metric_rows('source') m
union all
select 'target', m.* from coco.metric_rows('target') m
union all
select 'function', m.* from coco.metric_rows('function') m
union all
select 'log', m.* from coco.metric_rows('log') m
union all
select 'worker', m.* from coco.metric_rows('worker') m;
