//! Reads the data of `coco.report()` from the views that the caller may read.

use crate::inspect::{flow_graph, metrics};
use crate::pg::error::Result;
use crate::pg::spi;
use coco_report::{FailedRow, Flow, Function, Report, Run, Target, Worker};

/// Number of runs shown for each flow.
const RUNS: i32 = 60;

/// Number of errors shown.
const ERRORS: i32 = 100;

/// Returns the data of the report.
pub fn report() -> Result<Report> {
    let mut report = head()?;
    report.graph = flow_graph::graph(None, true)?;
    report.flows = flows()?;
    report.targets = targets()?;
    report.errors = errors()?;
    report.runs = runs()?;
    report.workers = workers()?;
    report.functions = functions(&report.flows)?;
    Ok(report)
}

fn head() -> Result<Report> {
    let rows = spi::select(
        "select current_database()::text, to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS TZ'),
                format('coco %s, PostgreSQL %s',
                       (select extversion from pg_catalog.pg_extension where extname = 'coco'),
                       current_setting('server_version')),
                extract(epoch from clock_timestamp())::float8",
        &[],
        |r| {
            Ok(Report {
                database: spi::required(r, 1)?,
                made: spi::required(r, 2)?,
                versions: spi::required(r, 3)?,
                now: spi::required(r, 4)?,
                ..Report::default()
            })
        },
    )?;
    Ok(rows.into_iter().next().unwrap_or_default())
}

fn flows() -> Result<Vec<Flow>> {
    spi::select(
        "select s.flow, f.owner::text, s.state, f.live, s.pending, extract(epoch from s.lag)::float8,
                to_char(s.followed_at, 'YYYY-MM-DD HH24:MI:SS'), s.items_estimate, s.failed_items,
                to_char(s.next_retry, 'YYYY-MM-DD HH24:MI:SS'), s.last_error, s.hint
           from coco.status_detail s join coco.flows f on f.flow = s.flow order by s.flow",
        &[],
        |r| {
            Ok(Flow {
                name: spi::required(r, 1)?,
                owner: spi::required(r, 2)?,
                state: spi::required(r, 3)?,
                live: spi::required(r, 4)?,
                pending: r.get(5)?,
                lag: r.get(6)?,
                followed: r.get(7)?,
                items: r.get(8)?,
                failed_items: r.get(9)?,
                next_retry: r.get(10)?,
                error: r.get(11)?,
                hint: r.get(12)?,
            })
        },
    )
}

fn targets() -> Result<Vec<Target>> {
    spi::select(
        "select t.flow, t.target, t.server, array_to_string(t.key, ', '), d.queued, d.rejected,
                to_char(d.sent_at, 'YYYY-MM-DD HH24:MI:SS'),
                to_char(d.next_retry, 'YYYY-MM-DD HH24:MI:SS'), d.last_error, d.hint, t.query
           from coco.targets t
           left join coco.delivery_status d
             on d.flow = t.flow and d.target = t.target and d.server = t.server
          order by t.flow, t.target",
        &[],
        |r| {
            Ok(Target {
                flow: spi::required(r, 1)?,
                name: spi::required(r, 2)?,
                server: r.get(3)?,
                key: spi::required(r, 4)?,
                queued: r.get(5)?,
                rejected: r.get(6)?,
                sent: r.get(7)?,
                next_retry: r.get(8)?,
                error: r.get(9)?,
                hint: r.get(10)?,
                query: spi::required(r, 11)?,
            })
        },
    )
}

fn errors() -> Result<Vec<FailedRow>> {
    spi::select(
        "select flow, coalesce(source, target, ''), coalesce(source_key, target_key)::text, sqlstate,
                message, detail, hint, attempts, to_char(next_retry, 'YYYY-MM-DD HH24:MI:SS')
           from coco.errors order by failed_at desc limit $1",
        &[spi::arg(ERRORS)],
        |r| {
            Ok(FailedRow {
                flow: spi::required(r, 1)?,
                object: spi::required(r, 2)?,
                key: r.get::<String>(3)?.unwrap_or_default(),
                sqlstate: spi::required(r, 4)?,
                message: spi::required(r, 5)?,
                detail: r.get(6)?,
                hint: r.get(7)?,
                attempts: spi::required(r, 8)?,
                next_retry: r.get(9)?,
            })
        },
    )
}

fn runs() -> Result<Vec<Run>> {
    spi::select(
        "select f.flow, h.run_id, to_char(h.started, 'YYYY-MM-DD HH24:MI:SS'),
                extract(epoch from h.started)::float8, extract(epoch from h.elapsed)::float8,
                h.reason, h.initiator, h.seen, h.unchanged, h.evaluated, h.upserted, h.deleted, h.failed,
                h.error, h.label
           from coco.flows f
          cross join lateral (select * from coco.history(f.flow) order by run_id desc limit $1) as h
          order by f.flow, h.run_id desc",
        &[spi::arg(RUNS)],
        |r| {
            Ok(Run {
                flow: spi::required(r, 1)?,
                run: spi::required(r, 2)?,
                started: spi::required(r, 3)?,
                at: spi::required(r, 4)?,
                elapsed: spi::required(r, 5)?,
                reason: spi::required(r, 6)?,
                initiator: spi::required(r, 7)?,
                seen: spi::required(r, 8)?,
                unchanged: spi::required(r, 9)?,
                evaluated: spi::required(r, 10)?,
                upserted: spi::required(r, 11)?,
                deleted: spi::required(r, 12)?,
                failed: spi::required(r, 13)?,
                error: r.get(14)?,
                label: r.get(15)?,
            })
        },
    )
}

fn workers() -> Result<Vec<Worker>> {
    spi::select(
        "select worker_no, pid, state, flow, to_char(since, 'YYYY-MM-DD HH24:MI:SS'), transactions, evaluated,
                upserted, deleted, failed
           from coco.workers order by worker_no, pid",
        &[],
        |r| {
            Ok(Worker {
                worker_no: spi::required(r, 1)?,
                pid: spi::required(r, 2)?,
                state: spi::required(r, 3)?,
                flow: r.get(4)?,
                since: r.get::<String>(5)?.unwrap_or_default(),
                transactions: spi::required(r, 6)?,
                evaluated: spi::required(r, 7)?,
                upserted: spi::required(r, 8)?,
                deleted: spi::required(r, 9)?,
                failed: spi::required(r, 10)?,
            })
        },
    )
}

/// Returns the statistics of memoized functions for these flows.
fn functions(flows: &[Flow]) -> Result<Vec<Function>> {
    let mut all: Vec<Function> = Vec::new();
    for m in metrics::metrics("function")? {
        let (Some(flow), Some(name)) = (m.flow, m.name) else { continue };
        // A role that may read all statistics also receives those of other roles' flows.
        if !flows.iter().any(|f| f.name == flow) {
            continue;
        }
        let known = all.iter().position(|f| f.flow == flow && f.name == name);
        let at = known.unwrap_or_else(|| {
            all.push(Function { flow, name, ..Function::default() });
            all.len() - 1
        });
        let function = &mut all[at];
        match m.metric {
            "coco_function_calls_total" => function.calls = m.value,
            "coco_function_misses_total" => function.misses = m.value,
            "coco_function_errors_total" => function.errors = m.value,
            "coco_function_requests_total" => function.requests = m.value,
            "coco_function_tokens_in_total" | "coco_function_tokens_out_total" => {
                function.tokens += m.value
            }
            "coco_function_cost_total" => function.cost = m.value,
            "coco_function_seconds_total" => function.seconds = m.value,
            _ => {}
        }
    }
    Ok(all)
}
