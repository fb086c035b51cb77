//! The catalog rows of live flows: which flows are live, why one failed, and when a worker retries
//! it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::catalog::{locks, restored};
use crate::flows::{schedules, upstream};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use coco_core::backoff;

/// A flow that workers keep up to date.
pub struct LiveFlow {
    pub name: String,
    pub id: i32,
    /// How long workers wait before they retry the flow after a failure.
    pub wait: Duration,
    /// How often in a row the flow has failed.
    pub attempts: i32,
    /// For how long a verification of the flow has been due; `None` if none is due.
    pub verify_due_for: Option<Duration>,
    /// The transaction that last changed the flow's row.
    changed_by: String,
    /// Whether the flow is the new version of another one, and replaces it once it has caught up.
    pub swaps: bool,
    /// When its schedule lets a worker update it; `None` if it follows each commit.
    pub next_update: Option<Instant>,
}

/// Returns the name of a flow; `None` if the flow does not exist.
pub fn flow_name(flow: i32) -> Result<Option<String>> {
    let _as = RoleGuard::extension_owner()?;
    spi::scalar("select flow from coco_internal.flow where id = $1", &[arg(flow)])
}

/// Whether a worker has given up its worker number.
pub enum LeaveOutcome {
    Yes,
    /// The worker has given it up, and a dump is being restored.
    Restoring,
    No,
}

/// Gives up a worker's number, if no flow is live and no session is starting one. A session that
/// starts a flow afterwards finds the number free.
pub fn leave_if_idle(seat: u16) -> Result<LeaveOutcome> {
    let is_complete = restored::is_complete()?;
    // A restore may hold this lock; do not require it then.
    if is_complete && !locks::lock_flows_if_free()? {
        return Ok(LeaveOutcome::No);
    }
    let _now = PinnedSnapshot::take();
    if !live_flows()?.is_empty() {
        return Ok(LeaveOutcome::No);
    }
    locks::leave_worker_slot(seat)?;
    Ok(if is_complete { LeaveOutcome::Yes } else { LeaveOutcome::Restoring })
}

/// Reports whether this database has prepared transactions.
pub fn has_prepared_transactions() -> Result<bool> {
    let found = spi::scalar::<bool>(
        "select exists (select from pg_catalog.pg_prepared_xacts p
                         where p.database operator(pg_catalog.=) pg_catalog.current_database())",
        &[],
    )?;
    Ok(found == Some(true))
}

/// Returns the live flows of this database; none while a dump is being restored.
pub fn live_flows() -> Result<Vec<LiveFlow>> {
    if !restored::is_complete()? {
        return Ok(vec![]);
    }
    let next_updates = schedules::next_updates()?;
    let _as = RoleGuard::extension_owner()?;
    spi::select(
        "select f.flow, f.id, coalesce(t.attempts, 0),
                greatest(0, coalesce(extract(epoch from t.next_retry - clock_timestamp()), 0))::float8,
                f.xmin::text,
                exists (select from coco_internal.version v
                         where v.flow = f.id and v.role = 'new' and v.swap = 'auto'),
                case when f.verify_interval is not null then
                  extract(epoch from clock_timestamp() - coalesce(w.attempted_at, f.created)
                                     - greatest(f.verify_interval, w.elapsed * 9))::float8 end
           from coco_internal.flow f left join coco_internal.flow_error t on t.flow = f.id
           left join coco_internal.verification w on w.flow = f.id
          where f.live and not f.paused and coalesce(t.deaths, 0) < $1 order by f.id",
        &[arg(DEATHS)],
        |r| {
            let id: i32 = spi::required(r, 2)?;
            Ok(LiveFlow {
                name: spi::required(r, 1)?,
                id,
                attempts: spi::required(r, 3)?,
                wait: backoff::plausible_wait(
                    Duration::try_from_secs_f64(spi::required(r, 4)?).unwrap_or_default(),
                    LONGEST,
                ),
                verify_due_for: r
                    .get::<f64>(7)?
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
                changed_by: spi::required(r, 5)?,
                swaps: spi::required(r, 6)?,
                next_update: next_updates.get(&id).copied(),
            })
        },
    )
}

/// Returns the ids of live flows in the order in which a worker updates them. Flows of one owner
/// that feed each other form a chain, in which each flow comes after those that feed it. Chains of
/// different owners are kept apart, so that one owner's flow does not delay another's.
pub fn in_order(flows: &[LiveFlow]) -> Result<Vec<Vec<i32>>> {
    if let [only] = flows {
        return Ok(vec![vec![only.id]]);
    }
    let chains = upstream::read_chains()?;
    let live = (0..chains.flows.len())
        .filter(|at| flows.iter().any(|flow| flow.id == chains.flows[*at].id));
    let has_same_owner = |a: usize, b: usize| chains.flows[a].owner == chains.flows[b].owner;
    let ids = |group: Vec<usize>| -> Vec<i32> {
        group.into_iter().map(|at| chains.flows[at].id).collect()
    };
    let mut groups = chains.order.groups(live.clone(), has_same_owner);
    // A chain that feeds a chain of another owner comes first.
    let sorted = chains.order.sorted(live);
    groups.sort_by_key(|group| sorted.iter().position(|at| group.first() == Some(at)));
    Ok(groups.into_iter().map(ids).collect())
}

/// Reports whether an order contains exactly these flows.
pub fn is_order_of(order: &[Vec<i32>], flows: &[LiveFlow]) -> bool {
    let ids: HashSet<i32> = order.iter().flatten().copied().collect();
    ids.len() == flows.len() && flows.iter().all(|flow| ids.contains(&flow.id))
}

/// Records why an update of a flow failed as a whole, and when a worker retries the flow. Returns
/// `false` if the flow is no longer live.
pub fn record_flow_error(flow: &LiveFlow, sqlstate: &str, why: &Error) -> Result<bool> {
    // coco.stop and coco.drop_flow cancel an update in order to change the flow. The flow has not
    // failed.
    let canceled = sqlstate == CANCELED;
    if canceled && !locks::lock_flow_if_free(flow.id)? {
        return Ok(false);
    }
    let unchanged = canceled.then_some(flow.changed_by.as_str());
    let attempts = flow.attempts.saturating_add(1);
    let for_a_lock = is_lock_error(sqlstate);
    let longest = if for_a_lock { LONGEST_FOR_A_LOCK } else { LONGEST };
    let delay = backoff::retry_delay(attempts.max(1) as u32).min(longest);
    let _as = RoleGuard::extension_owner()?;
    let hint = match (&why.hint, sqlstate) {
        (None, "42501") => missing_privilege_hint(flow)?,
        (None, _) if for_a_lock => Some(LOCKED.to_owned()),
        (hint, _) => hint.clone(),
    };
    let recorded = spi::execute(
        "with f as (
           -- skip a flow that another session is dropping
           select id from coco_internal.flow
            where id = $1 and live and ($8::text is null or xmin::text = $8) for key share skip locked
         )
         insert into coco_internal.flow_error as t
                (flow, attempts, next_retry, sqlstate, message, detail, hint)
         select f.id, $2, clock_timestamp() + make_interval(secs => $3), $4, $5, $6, $7
           from f
         on conflict (flow) do update
            set attempts = excluded.attempts, failed_at = excluded.failed_at,
                next_retry = excluded.next_retry, sqlstate = excluded.sqlstate,
                message = excluded.message, detail = excluded.detail, hint = excluded.hint,
                deaths = 0",
        &[
            arg(flow.id),
            arg(attempts),
            arg(delay.as_secs_f64()),
            arg(sqlstate),
            arg(why.message.as_str()),
            arg(why.detail.clone()),
            arg(hint),
            arg(unchanged),
        ],
    )?;
    Ok(recorded > 0)
}

/// Returns a hint for a privilege that the flow's owner lacks.
fn missing_privilege_hint(flow: &LiveFlow) -> Result<Option<String>> {
    let owner = spi::scalar::<String>(
        "select owner::regrole::text from coco_internal.flow where id = $1",
        &[arg(flow.id)],
    )?;
    Ok(owner.map(|owner| {
        format!(
            "The flow runs as its owner. Grant the missing privilege, or create a policy that admits \
             all rows if the table has row-level security, for role {owner}. Or give the flow to \
             another role with coco.alter_flow."
        )
    }))
}

/// The longest delay before a worker retries a flow that failed as a whole. With a short delay, the
/// worker soon notices a manual repair, such as a granted privilege.
const LONGEST: Duration = Duration::from_secs(60);

/// Returns the delay before a worker retries a flow that failed this many times in a row.
pub fn retry_delay(times: i32) -> Duration {
    backoff::retry_delay(times.max(1) as u32).min(LONGEST)
}

/// The longest delay if the update waited for a lock, or was ended so that other flows could
/// continue.
const LONGEST_FOR_A_LOCK: Duration = Duration::from_secs(4);

const LOCKED: &str = "Find the blocking session in pg_locks: it holds a lock on a table of the flow, or on a row of a target. A worker retries the flow every few seconds; other flows continue.";

/// Reports whether an update ended because of another session's lock: it did not get the lock in
/// time, or there was a deadlock.
pub fn is_lock_error(sqlstate: &str) -> bool {
    matches!(sqlstate, "55P03" | "40P01")
}

/// Workers set a flow aside after signals have terminated this many processes in a row that worked
/// on it.
pub const DEATHS: i32 = 3;

/// What coco reports about a flow whose process was terminated by a signal.
pub struct ProcessDeath {
    pub flow: String,
    pub message: String,
    pub hint: Option<String>,
}

/// Records that a signal killed a process while it worked on a flow. Returns `None` if the flow is
/// no longer live.
pub fn record_process_death(flow: i32) -> Result<Option<ProcessDeath>> {
    const ONCE: &str = "a process was terminated by a signal while it worked on the flow";
    let aside = format!(
        "the flow is set aside: {DEATHS} processes in a row were terminated by a signal while they \
         worked on it"
    );
    let hint =
        "Find the cause in the server's log. Then call coco.start to let workers retry the flow.";
    let _as = RoleGuard::extension_owner()?;
    let found = spi::returning(
        "with f as (select id, flow from coco_internal.flow where id = $1 and live for key share skip locked)
         insert into coco_internal.flow_error as t
                (flow, attempts, deaths, next_retry, sqlstate, message, hint)
         select f.id, 1, 1, clock_timestamp() + interval '1 s', '58000', $2, $4 from f
         on conflict (flow) do update
            set attempts = t.attempts + 1, deaths = t.deaths + 1, failed_at = excluded.failed_at,
                next_retry = excluded.next_retry, sqlstate = excluded.sqlstate,
                message = case when t.deaths + 1 >= $5 then $3 else excluded.message end,
                detail = null, hint = excluded.hint
         returning (select f.flow from f), t.message, t.hint",
        &[arg(flow), arg(ONCE), arg(aside), arg(hint), arg(DEATHS)],
        |r| Ok(ProcessDeath { flow: spi::required(r, 1)?, message: spi::required(r, 2)?, hint: r.get(3)? }),
    )?;
    Ok(found.into_iter().next())
}

/// The SQLSTATE of a canceled statement.
const CANCELED: &str = "57014";

/// Lets workers retry a flow that was set aside.
pub fn lift_suspension(flow: i32) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "delete from coco_internal.flow_error where flow = $1 and deaths > 0",
        &[arg(flow)],
    )?;
    Ok(())
}

/// Deletes the recorded error of a flow.
pub fn clear_flow_error(flow: &LiveFlow) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute("delete from coco_internal.flow_error where flow = $1", &[arg(flow.id)])?;
    Ok(())
}
