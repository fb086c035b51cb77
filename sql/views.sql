-- Views through which a role sees its flows: those that it owns, or whose owner is a role of which it is a member. The
-- COMMENTs on the views are in comments/views.sql.

create view coco.flows with (security_barrier) as
select f.flow, f.owner, f.live, f.search_path, f.settings, f.created, f.label, f.batch_size, f.paused,
       f.lineage_index, f.lookups, f.max_rows, f.max_cost, f.verify_interval, f.refresh,
       f.fill_order, f.aggregate
  from coco_internal.flow f
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.sources with (security_barrier) as
select s.flow, s.name as source, s.relation, s.key,
       case when s.grouped then 'group' else 'row' end as item,
       s.used as used_columns, s.ordinal, s.fingerprint, s.capture, s.refresh_interval,
       s.tracking as tracking_table, s.tracking_view, s.key_expressions
  from coco_internal.source s join coco_internal.flow f using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage') and s.lookup_of is null;

create view coco.lookups with (security_barrier) as
select s.flow, s.name as lookup, s.relation, s.key, o.name as source, s.affects,
       s.used as used_columns, s.capture, s.refresh_interval, s.tracking as tracking_table,
       s.tracking_view, s.derived
  from coco_internal.source s join coco_internal.source o on o.id = s.lookup_of join coco_internal.flow f on f.flow = s.flow
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.targets with (security_barrier) as
select t.flow,
       coalesce(t.external,
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = t.relation),
                pg_catalog.format('%I.%I', t.schema, t.name)) as target,
       case when t.server is null then t.relation end as relation, t.key, t.query,
       t.managed, t.query_view, t.server, t.options,
       case when t.server is not null then t.relation end as ledger, t.outbox, t.ledger_view, t.outbox_view
  from coco_internal.target t join coco_internal.flow f using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.versions with (security_barrier) as
select m.flow, f.flow as version, v.role, v.swap, v.declared, v.keep_old, v.keep_until, v.waits_for, v.hint
  from coco_internal.version v join coco_internal.flow f on f.id = v.flow join coco_internal.flow m on m.id = v.of
 where pg_catalog.pg_has_role(f.owner, 'usage') and pg_catalog.pg_has_role(m.owner, 'usage');

create view coco.logic_versions with (security_barrier) as
select l.flow, l.fingerprint as logic_fingerprint, l.recorded, l.label
  from coco_internal.logic l join coco_internal.flow f using (flow)
 where pg_catalog.pg_has_role(f.owner, 'usage');

create view coco.tracking as select * from coco_internal.tracking_rows();

create view coco.errors as select * from coco_internal.error_rows();

create view coco.expectations as select * from coco_internal.expectation_rows();

create view coco.functions as select * from coco_internal.function_rows();

create view coco.kept_results with (security_barrier) as
select m.flow, m.owner, m.dropped, m.kept_until,
       array(select distinct k.function from coco_internal.kept_memo_function k where k.kept_memo = m.id order by 1) as functions,
       (select pg_catalog.sum(k.entries)::bigint from coco_internal.kept_memo_function k where k.kept_memo = m.id) as entries,
       pg_catalog.pg_total_relation_size(c.oid) as bytes
  from coco_internal.kept_memo m join pg_catalog.pg_class c on c.oid = m.memo_table
 where m.kept_until > pg_catalog.clock_timestamp() and pg_catalog.pg_has_role(m.owner, 'usage')
   and exists (select from pg_catalog.pg_roles r where r.oid = m.owner);

-- Every role may see the workers of this database, but the flow of a worker only if the role may see that flow.
create view coco.workers as
select w.pid, w.worker_no, f.flow, s.name as source,
       case when w.flow is null then 'waiting' else 'working' end as state, w.since, w.transactions,
       w.evaluated, w.upserted, w.deleted, w.failed
  from coco_internal.worker_rows() w
  left join coco_internal.flow f on f.id = w.flow and pg_catalog.pg_has_role(f.owner, 'usage')
  left join coco_internal.source s on s.id = w.source and s.flow = f.flow
 where w.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

create view coco.progress as
select f.flow, s.name as source, p.pid, p.items_done, p.items_total, p.since, p.estimated_end
  from coco_internal.progress_rows() p
  join coco_internal.flow f on f.id = p.flow and pg_catalog.pg_has_role(f.owner, 'usage')
  join coco_internal.source s on s.id = p.source and s.flow = f.flow
 where p.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

create view coco.delivery_status as select * from coco_internal.delivery_rows();

-- Everything that coco knows of a flow's state. coco.status shows the part that fits on a screen.
create view coco.status_detail with (security_barrier) as
select g.flow, g.state,
       case when g.state in ('live', 'up to date', 'unknown') then 'well'
            when g.state in ('incomplete', 'paused', 'restoring', 'no worker', 'never updated', 'behind') then 'stale'
            when g.state = 'degraded' then 'degraded'
            else 'broken' end as health,
       g.live, g.pending,
       case when g.pending > 0 then pg_catalog.clock_timestamp() - g.behind_since
            when g.pending = 0 then interval '0' end as lag,
       g.followed_at, g.items_estimate, g.failed_items, g.next_retry,
       case when g.state = 'paused' then null
            else coalesce(g.message,
              case g.state
                when 'incomplete' then 'the flow has no target'
                when 'target dropped' then pg_catalog.format('target %s no longer exists', g.lost_target)
                when 'source dropped' then pg_catalog.format('source or lookup "%s" no longer exists', g.lost_source)
                when 'query broken' then 'an object that the flow reads no longer exists'
                when 'restoring' then 'a dump is being restored'
                when 'no worker' then 'no worker runs in this database'
                when 'degraded' then g.difference
              end, g.item_message) end as last_error,
       case when g.state = 'paused'
            then pg_catalog.format('Continue the flow: SELECT coco.alter_flow(%L, paused => false)', g.flow)
            else coalesce(g.message_hint,
              case g.state
                when 'incomplete' then 'Call coco.add_target; if the flow has no source yet, call coco.add_source first.'
                when 'target dropped' then case when g.live
                  then 'A worker creates and fills the target again. To drop it for good, call coco.drop_flow.'
                  else pg_catalog.format('To create and fill the target again: SELECT * FROM coco.update(%L)', g.flow) end
                when 'source dropped' then pg_catalog.format('Drop the flow, and declare it over another relation: SELECT coco.drop_flow(%L)', g.flow)
                when 'query broken' then 'Give the target a query that works: coco.set_query.'
                when 'set aside' then pg_catalog.format('The server''s log says how the processes ended. Correct the cause, then: SELECT coco.start(%L)', g.flow)
                when 'failed' then case when g.live
                  then pg_catalog.format('Correct the cause. coco tries again at next_retry, or at once: SELECT coco.start(%L)', g.flow)
                  else pg_catalog.format('Correct the cause, then: SELECT * FROM coco.update(%L)', g.flow) end
                when 'restoring' then 'Wait until the restore of the dump has ended. If it has ended, call coco.start, which allows workers to start.'
                when 'no worker' then pg_catalog.format('Add coco to shared_preload_libraries and restart the server, or: SELECT coco.start(%L). If the server''s log says "could not start a worker", increase max_worker_processes.', g.flow)
                when 'degraded' then case when g.difference is not null
                  then pg_catalog.format('To see the rows: SELECT * FROM coco.verify(%L%s). To mend them, add repair => true.', g.flow,
                                         case when g.is_external then ', outside => true' end)
                  else pg_catalog.format('SELECT * FROM coco.errors WHERE flow = %L shows why. To try again after a correction: SELECT * FROM coco.retry(%1$L)', g.flow) end
                when 'never updated' then pg_catalog.format('Update the flow once: SELECT * FROM coco.update(%L); or keep it up to date: SELECT coco.start(%1$L)', g.flow)
                when 'behind' then case when g.live
                  then 'A worker updates the flow as soon as it can. The view coco.workers shows what the workers do.'
                  else pg_catalog.format('Update the flow once: SELECT * FROM coco.update(%L); or keep it up to date: SELECT coco.start(%1$L)', g.flow) end
                when 'unknown' then pg_catalog.format('coco does not capture every source of the flow, so only an update finds their changes: SELECT * FROM coco.update(%L)', g.flow)
              end) end as hint,
       g.label, g.next_update, g.verified_at, g.differing_rows, g.verify_error
  from (
select f.flow, f.live,
       case when t.count = 0 then 'incomplete'
            when t.lost is not null then 'target dropped'
            when s.lost is not null then 'source dropped'
            when t.is_broken or s.is_broken then 'query broken'
            when f.paused then 'paused'
            when x.deaths >= 3 then 'set aside'
            when x.flow is not null or d.flow is not null or y.flow is not null then 'failed'
            when f.live and not r.complete then 'restoring'
            when f.live and not exists (select from pg_catalog.pg_locks l
                            where l.locktype = 'object' and l.classid = 'coco_internal.flow'::pg_catalog.regclass
                              and l.objid = 0 and l.granted and l.mode = 'ShareUpdateExclusiveLock'
                              and l.database = (select d.oid from pg_catalog.pg_database d
                                                 where d.datname = pg_catalog.current_database()))
              then 'no worker'
            when e.failed_items > 0 or v.differing > 0 then 'degraded'
            -- A worker that is a minute late has other work, or does not get on.
            when f.live and z.flow is not null
              then case when z.next_update > pg_catalog.clock_timestamp() - interval '1 minute' then 'up to date'
                        else 'behind' end
            when f.live then 'live'
            when k.followed_at is null
                 and not exists (select from coco_internal.run_history h where h.flow = f.id and h.error is null)
                 and not exists (select from coco_internal.run_total h where h.flow = f.id and h.runs > h.errors)
              then 'never updated'
            when p.pending > 0 or k.is_unfinished or t.changed > k.updated_at then 'behind'
            when p.sources = s.count then 'up to date'
            else 'unknown' end as state,
       -- what is known is a lower bound; 0 is an answer only if all sources are known
       case when p.sources = s.count or p.pending > 0 then p.pending end as pending,
       p.behind_since, k.followed_at, s.items_estimate, e.failed_items,
       least(e.next_retry, case when x.deaths >= 3 then null else x.next_retry end, d.next_retry) as next_retry,
       t.lost as lost_target, s.lost as lost_source,
       coalesce(x.message, d.message, y.message) as message,
       case when x.flow is not null then x.hint
            when d.flow is not null then d.hint
            else y.hint end as message_hint,
       v.verified_at, v.differing as differing_rows, v.error as verify_error, t.is_external,
       case when v.differing > 0 then pg_catalog.format('%s%s %s in the targets',
              case when v.is_cut then 'more than ' end, v.differing,
              case when v.differing = 1 then 'row differs' else 'rows differ' end) end as difference,
       e.last_error as item_message,
       (select h.label from coco_internal.run_history h where h.flow = f.id order by h.run_id desc limit 1) as label,
       z.next_update
  from coco_internal.flow f
 cross join coco_internal.restore_is_complete() as r (complete)
 cross join lateral (
   select pg_catalog.count(*) as count, pg_catalog.max(t.changed) as changed,
          pg_catalog.bool_or(t.server is not null) as is_external,
          pg_catalog.min(coalesce(t.external, pg_catalog.format('%I.%I', t.schema, t.name)))
            filter (where not exists (select from pg_catalog.pg_class c where c.oid = t.relation)
                       or t.outbox is not null
                          and not exists (select from pg_catalog.pg_class c where c.oid = t.outbox)) as lost,
          coalesce(pg_catalog.bool_or(not exists (select from pg_catalog.pg_class c where c.oid = t.query_view)
            or exists (select from coco_internal.expectation x
                        where x.target = t.id
                          and not exists (select from pg_catalog.pg_class c where c.oid = x.condition_view))),
                   false) as is_broken
     from coco_internal.target t where t.flow = f.flow) as t
 cross join lateral (
   select pg_catalog.count(*) as count,
          pg_catalog.min(s.name)
            filter (where not exists (select from pg_catalog.pg_class c where c.oid = s.relation)) as lost,
          coalesce(pg_catalog.bool_or(
            (s.ordinal is not null or s.fingerprint is not null)
              and not exists (select from pg_catalog.pg_class c where c.oid = s.expressions)
            or s.affects is not null
              and not exists (select from pg_catalog.pg_class c where c.oid = s.affects_view)
            or s.key_expressions is not null
              and not exists (select from pg_catalog.pg_class c where c.oid = s.key_view)
            or exists (select from pg_catalog.unnest(s.key) with ordinality as u(name, place)
                        where s.key_expressions[u.place] is null
                          and not exists (select from pg_catalog.pg_attribute a
                                           where a.attrelid = s.relation and a.attname = u.name
                                             and not a.attisdropped))), false) as is_broken,
          pg_catalog.sum((select c.reltuples::float8 from pg_catalog.pg_class c
                           where c.oid = s.tracking and c.reltuples >= 0))::bigint as items_estimate
     from coco_internal.source s where s.flow = f.flow) as s
  left join coco_internal.failure_rows() e on e.flow = f.flow
  left join coco_internal.verification v on v.flow = f.id
  left join coco_internal.flow_error x on x.flow = f.id
  left join coco_internal.schedule_rows() z on z.flow = f.id
  left join (select distinct on (t.flow) t.flow, d.next_retry, d.hint,
                    pg_catalog.format('target %I on server %I: %s', t.external, t.server, d.message) as message
               from coco_internal.delivery_state d join coco_internal.target t on t.id = d.target
              where d.message is not null order by t.flow, d.failed_at) d on d.flow = f.flow
  -- A worker of a live flow tells more than a session whose update has failed.
  left join coco_internal.session_error_rows() y on y.flow = f.id and not f.live
  -- The logic of a cursor is 0 while a worker evaluates a source in several transactions.
  left join (select s.flow, pg_catalog.min(k.followed_at) as followed_at,
                    pg_catalog.max(k.followed_at) filter (where s.lookup_of is null) as updated_at,
                    pg_catalog.bool_or(k.logic = 0) filter (where s.lookup_of is null) as is_unfinished
               from coco_internal.cursor k join coco_internal.source s on s.id = k.source group by s.flow) k on k.flow = f.flow
  left join coco_internal.pending_flow_rows() p on p.flow = f.flow
 where pg_catalog.pg_has_role(f.owner, 'usage')) as g;

-- At most 100 columns wide in psql if the flows are well. The flows that need attention come first.
create view coco.status with (security_barrier) as
select s.flow, s.state, s.pending, pg_catalog.date_trunc('second', s.lag) as lag, s.failed_items,
       pg_catalog.date_trunc('second', s.next_retry) as next_retry, s.last_error, s.hint
  from coco.status_detail s
 order by case s.health when 'broken' then 0 when 'degraded' then 1 when 'stale' then 2 else 3 end, s.flow;

-- One branch for each scope, so that a query with a condition on scope computes only that scope.
create view coco.metrics as
select 'flow' as scope, m.* from coco_internal.metric_rows('flow') m
union all
select 'source', m.* from coco_internal.metric_rows('source') m
union all
select 'target', m.* from coco_internal.metric_rows('target') m
union all
select 'function', m.* from coco_internal.metric_rows('function') m
union all
select 'expectation', m.* from coco_internal.metric_rows('expectation') m
union all
select 'log', m.* from coco_internal.metric_rows('log') m
union all
select 'worker', m.* from coco_internal.metric_rows('worker') m;
