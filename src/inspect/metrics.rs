//! Metrics of flows for monitoring systems. They consist of numbers and names, without data of
//! users. A role that may read all statistics of the server (`pg_read_all_stats`) sees the metrics
//! of all flows.

use pgrx::pg_sys;
use pgrx::spi::SpiHeapTupleData;

use crate::catalog::internal_tables;
use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::error::{Error, Result};
use crate::pg::spi;
use crate::pg::subtransaction::look;

/// One value of a metric.
pub struct Metric {
    pub metric: &'static str,
    pub help: &'static str,
    pub flow: Option<String>,
    /// The source, target, function, expectation or worker, or the flow's state, that the value belongs
    /// to.
    pub name: Option<String>,
    pub server: Option<String>,
    pub value: f64,
}

/// The metrics that one statement returns. Its columns: flow, owners (NULL: visible to everybody),
/// name, server, then one column per metric.
struct Scope {
    name: &'static str,
    statement: &'static str,
    /// Each metric with its help text.
    metrics: &'static [(&'static str, &'static str)],
}

const SCOPES: [Scope; 7] = [
    Scope { name: "flow", statement: FLOWS, metrics: &FLOW_METRICS },
    Scope { name: "source", statement: SOURCES, metrics: &SOURCE_METRICS },
    Scope { name: "target", statement: TARGETS, metrics: &TARGET_METRICS },
    Scope { name: "function", statement: FUNCTIONS, metrics: &FUNCTION_METRICS },
    Scope { name: "expectation", statement: EXPECTATIONS, metrics: &EXPECTATION_METRICS },
    Scope { name: "log", statement: LOGS, metrics: &LOG_METRICS },
    Scope { name: "worker", statement: WORKERS, metrics: &WORKER_METRICS },
];

// The column `name` is the flow's state. Totals add up the stored history and the totals of runs
// that were removed from it.
const FLOWS: &str = "
select s.flow, array[f.owner::oid], s.state, null::text,
       1::float8,
       (f.live and not f.paused)::int::float8,
       s.pending::float8,
       extract(epoch from s.lag)::float8,
       s.failed_items::float8,
       s.items_estimate::float8,
       extract(epoch from s.followed_at)::float8,
       extract(epoch from greatest(t.ended, h.ended))::float8,
       (coalesce(t.runs, 0) + h.runs)::float8,
       (coalesce(t.errors, 0) + h.errors)::float8,
       extract(epoch from coalesce(t.elapsed, '0') + h.elapsed)::float8,
       (coalesce(t.seen, 0) + h.seen)::float8,
       (coalesce(t.unchanged, 0) + h.unchanged)::float8,
       (coalesce(t.evaluated, 0) + h.evaluated)::float8,
       (coalesce(t.failed, 0) + h.failed)::float8,
       (coalesce(t.upserted, 0) + h.upserted)::float8,
       (coalesce(t.deleted, 0) + h.deleted)::float8,
       extract(epoch from s.verified_at)::float8,
       s.differing_rows::float8
  from coco.status_detail s
  join coco_internal.flow f on f.flow = s.flow
  left join coco_internal.run_total t on t.flow = f.id
 cross join lateral (
   select count(*) as runs, count(e.error) as errors, coalesce(sum(e.elapsed), '0') as elapsed,
          coalesce(sum(e.seen), 0) as seen, coalesce(sum(e.unchanged), 0) as unchanged,
          coalesce(sum(e.evaluated), 0) as evaluated, coalesce(sum(e.failed), 0) as failed,
          coalesce(sum(e.upserted), 0) as upserted, coalesce(sum(e.deleted), 0) as deleted,
          max(e.started + e.elapsed) as ended
     from coco_internal.run_history e where e.flow = f.id) as h
 order by s.flow";

const FLOW_METRICS: [(&str, &str); 19] = [
    ("coco_flow_state", "Always 1; the name is the flow's state, as in coco.status."),
    ("coco_flow_live", "1 if the flow is live and not paused, else 0."),
    (
        "coco_flow_pending_changes",
        "Captured changes that the flow has not followed yet, counted up to 100,000 per source.",
    ),
    (
        "coco_flow_lag_seconds",
        "Time since the flow had followed all changes; 0 if none is pending.",
    ),
    (
        "coco_flow_failing_items",
        "Items whose last evaluation failed, and rows that are parked or that a target rejected.",
    ),
    ("coco_flow_items_estimate", "Tracked items, as of the last ANALYZE."),
    (
        "coco_flow_followed_timestamp_seconds",
        "Time at which the flow last stored how far it has followed its sources.",
    ),
    ("coco_flow_last_run_timestamp_seconds", "End of the last recorded run."),
    (
        "coco_flow_runs_total",
        "Runs; for a live flow, a run is the work of its worker in up to a minute.",
    ),
    ("coco_flow_run_errors_total", "Runs that failed as a whole."),
    ("coco_flow_run_seconds_total", "Time spent in runs."),
    ("coco_flow_items_seen_total", "Items checked."),
    ("coco_flow_items_unchanged_total", "Items whose content was unchanged."),
    ("coco_flow_items_evaluated_total", "Items evaluated."),
    (
        "coco_flow_items_failed_total",
        "Failures of items; an item that waits for its next retry counts in each run.",
    ),
    ("coco_flow_rows_upserted_total", "Target rows inserted or updated."),
    ("coco_flow_rows_deleted_total", "Target rows deleted."),
    (
        "coco_flow_verified_timestamp_seconds",
        "Last time at which a worker verified the flow's targets and found no difference.",
    ),
    ("coco_flow_differing_rows", "Rows that the last verification by a worker found to differ."),
];

const SOURCES: &str = "
select s.flow, array[f.owner::oid], s.name, null::text,
       p.pending::float8, extract(epoch from k.followed_at)::float8
  from coco_internal.source s
  join coco_internal.flow f on f.flow = s.flow
  left join coco_internal.cursor k on k.source = s.id
  left join coco_internal.pending_rows() p on p.source = s.id
 order by s.flow, s.name";

const SOURCE_METRICS: [(&str, &str); 2] = [
    (
        "coco_source_pending_changes",
        "Captured changes of a source or lookup that the flow has not followed yet, counted up to 100,000.",
    ),
    (
        "coco_source_followed_timestamp_seconds",
        "Time at which the flow last stored how far it has followed the source.",
    ),
];

const TARGETS: &str = "
select d.flow, array[f.owner::oid], d.target, d.server,
       d.queued::float8, d.rejected::float8, d.attempts::float8,
       extract(epoch from d.sent_at)::float8,
       (select pg_total_relation_size(c.oid) from pg_class c where c.oid = t.outbox and c.oid = any ($1))::float8,
       extract(epoch from d.verified_at)::float8
  from coco.delivery_status d
  join coco_internal.flow f on f.flow = d.flow
  join coco_internal.target t on t.flow = d.flow and t.server = d.server and t.external = d.target
 order by d.flow, d.server, d.target";

const TARGET_METRICS: [(&str, &str); 6] = [
    (
        "coco_target_unsent_changes",
        "Changes in the outbox of an external target, counted up to 100,000.",
    ),
    ("coco_target_refused_rows", "Rows that the target rejected."),
    ("coco_target_failed_attempts", "Failed attempts in a row; 0 after a success."),
    ("coco_target_sent_timestamp_seconds", "Time of the last successful delivery."),
    (
        "coco_target_outbox_bytes",
        "Size of the outbox, including entries delivered since it was last emptied.",
    ),
    (
        "coco_target_verified_timestamp_seconds",
        "Last time at which coco.verify found no difference in the target.",
    ),
];

const FUNCTIONS: &str = "
select m.flow, array[f.owner::oid], m.function, null::text,
       sum(m.calls)::float8, sum(m.misses)::float8, sum(m.errors)::float8,
       sum(m.requests)::float8, sum(m.tokens_in)::float8, sum(m.tokens_out)::float8,
       sum(m.cost)::float8, extract(epoch from sum(m.elapsed))::float8
  from coco_internal.memo_stats m
  join coco_internal.flow f on f.flow = m.flow
 group by m.flow, f.owner, m.function
 order by m.flow, m.function";

const FUNCTION_METRICS: [(&str, &str); 8] = [
    ("coco_function_calls_total", "Results of a memoized function that items requested."),
    (
        "coco_function_misses_total",
        "Requested results that were computed, because none was stored.",
    ),
    ("coco_function_errors_total", "Inputs without a result."),
    ("coco_function_requests_total", "Requests to a provider, or calls of the function."),
    ("coco_function_tokens_in_total", "Tokens of inputs, as the provider counts them."),
    ("coco_function_tokens_out_total", "Tokens of outputs, as the provider counts them."),
    ("coco_function_cost_total", "Cost of the requests, in the unit of the server's prices."),
    ("coco_function_seconds_total", "Time spent computing results."),
];

// Two targets of a flow can have expectations of one name.
const EXPECTATIONS: &str = "
select t.flow, array[f.owner::oid],
       format('%s: %s', coalesce(t.external, format('%I.%I', t.schema, t.name)), x.name), null::text,
       x.checked::float8, x.failed::float8
  from coco_internal.expectation x
  join coco_internal.target t on t.id = x.target
  join coco_internal.flow f on f.flow = t.flow
 order by t.flow, x.id";

const EXPECTATION_METRICS: [(&str, &str); 2] = [
    ("coco_expectation_rows_checked_total", "Rows checked against an expectation of a target."),
    ("coco_expectation_rows_failed_total", "Rows that did not satisfy an expectation."),
];

// A change log is visible to the owners of flows that follow it.
const LOGS: &str = "
select null::text,
       array(select f.owner::oid from coco_internal.source s join coco_internal.flow f on f.flow = s.flow
              where s.relation = c.relation),
       c.relation::text, null::text,
       (select coalesce(sum(pg_total_relation_size(l.oid)), 0)
          from pg_class l
         where l.oid = any ($1) and l.relnamespace = 'coco_internal'::regnamespace and l.relkind = 'r'
           and l.relname in (select format('log_%s_%s', c.id, n)::name
                               from generate_series(0, 2) as n))::float8
  from coco_internal.capture c
 order by 3";

const LOG_METRICS: [(&str, &str); 1] =
    [("coco_log_bytes", "Size of the change log of a captured table.")];

const WORKERS: &str = "
select null::text, null::oid[], null::text, null::text,
       (select count(*) from pg_locks l
         where l.locktype = 'object' and l.classid = 'coco_internal.flow'::regclass and l.objid = 0
           and l.granted and l.mode = 'ShareUpdateExclusiveLock'
           and l.database = (select d.oid from pg_database d
                              where d.datname = current_database()))::float8,
       null::float8, null::float8, null::float8, null::float8, null::float8
union all
select null, null, w.worker_no::text, null, null, w.transactions, w.evaluated, w.upserted, w.deleted, w.failed
  from coco_internal.worker_rows() w
 where w.database = (select d.oid from pg_database d where d.datname = current_database())";

const WORKER_METRICS: [(&str, &str); 6] = [
    ("coco_running_workers", "Workers of this database."),
    ("coco_worker_turns_total", "Transactions of a worker since it started; name is its number."),
    ("coco_worker_items_evaluated_total", "Items evaluated by a worker since it started."),
    (
        "coco_worker_rows_upserted_total",
        "Target rows inserted or updated by a worker since it started.",
    ),
    ("coco_worker_rows_deleted_total", "Target rows deleted by a worker since it started."),
    (
        "coco_worker_items_failed_total",
        "Failures of items in a worker's transactions since it started.",
    ),
];

/// Returns the metrics of a scope that the caller may see. Omits metrics that have no value.
pub fn metrics(scope: &str) -> Result<Vec<Metric>> {
    let Some(scope) = SCOPES.iter().find(|s| s.name == scope) else {
        let names: Vec<&str> = SCOPES.iter().map(|s| s.name).collect();
        return Err(Error::invalid(format!(
            "unrecognized value for argument \"scope\": \"{scope}\""
        ))
        .hint(format!("Valid values are {}.", names.join(", "))));
    };
    let rows = look(|| {
        let _as = RoleGuard::extension_owner()?;
        let measured = match scope.name {
            "target" | "log" => free_tables()?,
            _ => vec![],
        };
        spi::select(scope.statement, &[spi::arg(measured)], |r| read(scope, r))
    })?;
    let all = acting_role::has_rights_of(pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_STATS));
    let mut metrics = Vec::new();
    for (owners, row) in rows {
        let may = |owners: Vec<pg_sys::Oid>| owners.into_iter().any(acting_role::has_rights_of);
        if all || owners.is_none_or(may) {
            metrics.extend(row);
        }
    }
    Ok(metrics)
}

/// Returns the outboxes and change logs whose size can be read without waiting for a lock. The
/// caller must act as the extension's owner.
fn free_tables() -> Result<Vec<pg_sys::Oid>> {
    let all = spi::select(
        "select c.oid from pg_class c
          where c.relnamespace = 'coco_internal'::regnamespace and c.relkind = 'r'
            and (c.oid in (select outbox from coco_internal.target) or c.relname ~ '^log_[0-9]+_[0-9]+$')",
        &[],
        |r| spi::required::<pg_sys::Oid>(r, 1),
    )?;
    Ok(all.into_iter().filter(|table| internal_tables::lock_to_read(*table)).collect())
}

/// Returns a row's metrics, and the owners of its flows; `None` if everybody may see them.
fn read(scope: &Scope, row: &SpiHeapTupleData) -> Result<(Option<Vec<pg_sys::Oid>>, Vec<Metric>)> {
    let (flow, owners) = (row.get::<String>(1)?, row.get::<Vec<pg_sys::Oid>>(2)?);
    let (name, server) = (row.get::<String>(3)?, row.get::<String>(4)?);
    let mut metrics = Vec::new();
    for (place, (metric, help)) in scope.metrics.iter().enumerate() {
        if let Some(value) = row.get::<f64>(5 + place)? {
            // Only the metric of the state has a name in addition to the flow's.
            let is_states = scope.name == "flow" && *metric != "coco_flow_state";
            let name = name.clone().filter(|_| !is_states);
            let (flow, server) = (flow.clone(), server.clone());
            metrics.push(Metric { metric, help, flow, name, server, value });
        }
    }
    Ok((owners, metrics))
}
