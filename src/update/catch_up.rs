//! Live flows: which there are, what hinders them, and whether they have caught up.

use std::time::Duration;

use crate::capture::{self, Mode as CaptureMode, change_log, cursor, triggers};
use crate::catalog::model::Flow;
use crate::catalog::{flow_rows, locks, restored};
use crate::flows::cache;
use crate::inspect::views;
use crate::outbox::delivery_state;
use crate::pg::acting_role::{self, ActingAs};
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};
use crate::pg::tuplestore::OneSnapshot;
use crate::pg::tuplestore::statements::Statements;
use crate::query::logic_fingerprint;
use crate::update;
use coco_core::backoff;
use coco_core::snapshot::Snapshot;

/// A flow that workers are to keep up to date.
pub struct Live {
    pub name: String,
    pub id: i32,
    /// How long it is left alone after it failed.
    pub wait: Duration,
    /// How often in a row it has failed.
    pub attempts: i32,
    /// The transaction that changed it last.
    changed_by: String,
}

/// The extension in this database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    pub extension: pgrx::pg_sys::Oid,
    /// Its version is the library's.
    pub fits: bool,
}

/// The extension, if it is there.
pub fn installed() -> Result<Option<Installed>> {
    let found = spi::select(
        "select oid, extversion = $1 from pg_catalog.pg_extension where extname = 'coco'",
        &[arg(acting_role::VERSION)],
        |r| Ok(Installed { extension: spi::required(r, 1)?, fits: spi::required(r, 2)? }),
    )?;
    Ok(found.into_iter().next())
}

/// The name of a flow.
pub fn name(flow: i32) -> Result<Option<String>> {
    let _as = ActingAs::extension_owner()?;
    spi::one("select flow from coco.flow where id = $1", &[arg(flow)])
}

/// Whether a worker has given up its place.
pub enum Left {
    Yes,
    /// It has, and a dump is being restored.
    Restoring,
    No,
}

/// Gives up a worker's place, if no flow is live and none is just being started: whoever starts one
/// then finds the place free.
pub fn leave(seat: u16) -> Result<Left> {
    let is_complete = restored::is_complete()?;
    // What a restore has locked it does not wait to see.
    if is_complete && !locks::flows_if_free()? {
        return Ok(Left::No);
    }
    let _now = OneSnapshot::take();
    if !flows()?.is_empty() {
        return Ok(Left::No);
    }
    locks::leave_seat(seat)?;
    Ok(if is_complete { Left::Yes } else { Left::Restoring })
}

/// The live flows of this database; none while a dump is restored.
pub fn flows() -> Result<Vec<Live>> {
    if !restored::is_complete()? {
        return Ok(vec![]);
    }
    let _as = ActingAs::extension_owner()?;
    spi::select(
        "select f.flow, f.id, coalesce(t.attempts, 0),
                greatest(0, coalesce(extract(epoch from t.next_retry - clock_timestamp()), 0))::float8,
                f.xmin::text
           from coco.flow f left join coco.trouble t on t.flow = f.id
          where f.live and not f.paused and coalesce(t.deaths, 0) < $1 order by f.id",
        &[arg(DEATHS)],
        |r| {
            Ok(Live {
                name: spi::required(r, 1)?,
                id: spi::required(r, 2)?,
                attempts: spi::required(r, 3)?,
                wait: backoff::plausible(
                    Duration::try_from_secs_f64(spi::required(r, 4)?).unwrap_or_default(),
                    LONGEST,
                ),
                changed_by: spi::required(r, 5)?,
            })
        },
    )
}

/// Makes a flow live, and sees to it that its sources are captured.
pub fn start(name: &str) -> Result<()> {
    let flow = flow_rows::locked(name)?;
    if flow.targets.is_empty() {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{name}\" has no target yet"),
        )
        .hint("Call coco.add_target first."));
    }
    put_triggers(&flow, true)?;
    if flow.paused {
        pgrx::ereport!(
            pgrx::PgLogLevel::NOTICE,
            pgrx::PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("flow \"{name}\" is paused: workers leave it alone until it is not"),
            update::unpause(name)
        );
    }
    restored::complete()?;
    let _as = ActingAs::extension_owner()?;
    spi::execute("update coco.flow set live = true where id = $1 and not live", &[arg(flow.id)])?;
    invalidation::changed()?;
    spi::execute("delete from coco.trouble where flow = $1", &[arg(flow.id)])?;
    Ok(())
}

/// Makes a flow that is not live any more; ends what a worker is doing for it just now, see [`locks::flow_ending_turn`].
pub fn stop(name: &str, announce: fn()) -> Result<()> {
    let id = flow_rows::number(name)?;
    locks::flow_ending_turn(id, announce)?;
    let _as = ActingAs::extension_owner()?;
    spi::execute("update coco.flow set live = false where id = $1 and live", &[arg(id)])?;
    invalidation::changed()?;
    spi::execute("delete from coco.trouble where flow = $1", &[arg(id)])?;
    Ok(())
}

/// Puts triggers back where they are missing, and the flow's owner may still put them there. Else the source is scanned.
/// Without `wait`, which nobody has asked for, not where writers are in the way.
fn put_triggers(flow: &Flow, wait: bool) -> Result<()> {
    for source in flow.followed() {
        if source.capture != CaptureMode::Scan
            && triggers::may_be_put_back(source.relation, flow.owner, wait)?
        {
            let always = source.capture == CaptureMode::Always;
            triggers::ensure(source.relation, &source.key, always, wait)?;
        }
    }
    Ok(())
}

/// Puts the triggers of a flow's sources back, if nobody needs to be waited for.
pub fn mend(name: &str) -> Result<()> {
    put_triggers(&flow_rows::load(name)?, false)
}

/// Records why a flow's run failed as a whole, and when it is tried again. `false` where the flow is
/// not there any more.
pub fn troubled(flow: &Live, sqlstate: &str, why: &Error) -> Result<bool> {
    // coco.stop and coco.drop_flow cancel a turn to change the flow: that is no failure of it.
    let canceled = sqlstate == CANCELED;
    if canceled && !locks::flow_if_free(flow.id)? {
        return Ok(false);
    }
    let unchanged = canceled.then_some(flow.changed_by.as_str());
    let attempts = flow.attempts.saturating_add(1);
    let for_a_lock = is_for_a_lock(sqlstate);
    let longest = if for_a_lock { LONGEST_FOR_A_LOCK } else { LONGEST };
    let delay = backoff::delay(attempts.max(1) as u32).min(longest);
    let _as = ActingAs::extension_owner()?;
    let hint = match (&why.hint, sqlstate) {
        (None, "42501") => lacking(flow)?,
        (None, _) if for_a_lock => Some(LOCKED.to_owned()),
        (hint, _) => hint.clone(),
    };
    let recorded = spi::execute(
        "with f as (
           -- one that is just being dropped is left alone
           select id from coco.flow
            where id = $1 and live and ($8::text is null or xmin::text = $8) for key share skip locked
         )
         insert into coco.trouble as t
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

/// What to do about a right that a flow's owner lacks.
fn lacking(flow: &Live) -> Result<Option<String>> {
    let owner = spi::one::<String>(
        "select owner::regrole::text from coco.flow where id = $1",
        &[arg(flow.id)],
    )?;
    Ok(owner.map(|owner| {
        format!(
            "Grant the right, or where row security is on a policy for all rows, to role {owner}, as \
             which the flow runs; or give the flow to another role with coco.alter_flow."
        )
    }))
}

/// A flow that fails as a whole is tried again at least this often: what is mended by hand, like a
/// right that was missing, is noticed soon.
const LONGEST: Duration = Duration::from_secs(60);

/// How long a flow is put off that has failed as a whole so many times in a row.
pub fn put_off(times: i32) -> Duration {
    backoff::delay(times.max(1) as u32).min(LONGEST)
}

/// The same where it waits for a lock, or was ended so that others could go on.
const LONGEST_FOR_A_LOCK: Duration = Duration::from_secs(4);

const LOCKED: &str = "Another session holds a lock on a table of the flow, or on a row of a target: look for it in pg_locks. The flow is tried again every few seconds; other flows go on.";

/// Whether a turn ended because of a lock of somebody else's: it is over soon, or a deadlock.
pub fn is_for_a_lock(sqlstate: &str) -> bool {
    matches!(sqlstate, "55P03" | "40P01")
}

/// A flow that so many processes in a row have died of is set aside.
pub const DEATHS: i32 = 3;

/// What became known of a flow whose process has died.
pub struct Died {
    pub flow: String,
    pub message: String,
    pub hint: Option<String>,
}

/// Records that a process died by a signal while it worked on a flow. `None` if the flow is not live any more.
pub fn died(flow: i32) -> Result<Option<Died>> {
    const ONCE: &str = "a process died while it worked on the flow";
    let aside =
        format!("the flow is set aside: {DEATHS} processes in a row died while they worked on it");
    let hint =
        "The server's log says how they died. Call coco.start to let workers try the flow again.";
    let _as = ActingAs::extension_owner()?;
    let found = spi::returning(
        "with f as (select id, flow from coco.flow where id = $1 and live for key share skip locked)
         insert into coco.trouble as t
                (flow, attempts, deaths, next_retry, sqlstate, message, hint)
         select f.id, 1, 1, clock_timestamp() + interval '1 s', '58000', $2, $4 from f
         on conflict (flow) do update
            set attempts = t.attempts + 1, deaths = t.deaths + 1, failed_at = excluded.failed_at,
                next_retry = excluded.next_retry, sqlstate = excluded.sqlstate,
                message = case when t.deaths + 1 >= $5 then $3 else excluded.message end,
                detail = null, hint = excluded.hint
         returning (select f.flow from f), t.message, t.hint",
        &[arg(flow), arg(ONCE), arg(aside), arg(hint), arg(DEATHS)],
        |r| Ok(Died { flow: spi::required(r, 1)?, message: spi::required(r, 2)?, hint: r.get(3)? }),
    )?;
    Ok(found.into_iter().next())
}

/// SQLSTATE of a statement that was canceled.
const CANCELED: &str = "57014";

/// Lets workers try a flow again that was set aside.
pub fn lift(flow: i32) -> Result<()> {
    let _as = ActingAs::extension_owner()?;
    spi::execute("delete from coco.trouble where flow = $1 and deaths > 0", &[arg(flow)])?;
    Ok(())
}

/// Forgets what hindered a flow.
pub fn recovered(flow: &Live) -> Result<()> {
    let _as = ActingAs::extension_owner()?;
    spi::execute("delete from coco.trouble where flow = $1", &[arg(flow.id)])?;
    Ok(())
}

/// A moment to wait for: what was committed by then.
pub struct Mark {
    seen: Snapshot,
    at: std::time::Instant,
}

/// Now, for a live flow.
pub fn mark(name: &str) -> Result<Mark> {
    let ready = cache::ready(name)?;
    if !ready.flow.live {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{name}\" is not live"),
        )
        .hint("coco.start makes it live; coco.update brings it up to date once."));
    }
    update::check_not_paused(&ready.flow)?;
    let _now = OneSnapshot::latest();
    let seen = cursor::here()?;
    Ok(Mark { seen, at: std::time::Instant::now() })
}

/// Whether a live flow has followed everything that was committed at a mark.
pub fn caught_up(name: &str, mark: &Mark) -> Result<bool> {
    let _now = OneSnapshot::latest();
    let ready = cache::ready(name)?;
    let flow = &ready.flow;
    if flow.targets.iter().any(|t| t.relation.is_none()) {
        return Ok(false);
    }
    let logic = match ready.logic {
        Some(logic) => logic,
        None => logic_fingerprint::known(flow)?,
    };
    let statements = Statements::connect()?;
    for source in flow.followed() {
        let Some(stored) = cursor::load(source)? else {
            return Ok(false);
        };
        if stored.cursor.logic != logic && flow.sources.iter().any(|s| s.id == source.id) {
            return Ok(false);
        }
        let captured = source.capture != CaptureMode::Scan;
        if let Some(capture) = capture::find(source.relation)?.filter(|c| captured && c.is_whole())
        {
            let (signature, adequate) = cursor::signature(&statements, source.relation, &capture)?;
            if adequate {
                let until = Some(&mark.seen);
                let snapshot = &stored.cursor.snapshot;
                if stored.cursor.signature != signature
                    || change_log::pending(&statements, &capture, snapshot, until, 1)?
                        .is_none_or(|n| n > 0)
                {
                    return Ok(false);
                }
                continue;
            }
        }
        // Read as a whole: since then.
        if stored.age > mark.at.elapsed() {
            return Ok(false);
        }
    }
    // What follows from it is in the outboxes: that it is sent, too, is waited for.
    Ok(!flow.is_external() || !delivery_state::left(&delivery_state::marks(flow)?)?)
}

/// Changes of a source that its flow has not followed yet.
pub struct Pending {
    pub source: i32,
    pub count: i64,
    /// There are more: they were not all counted.
    pub at_least: bool,
}

/// Changes counted of a source, at most.
const COUNTED: i64 = 100_000;

/// The captured changes that the caller's flows have not followed yet.
pub fn pending() -> Result<Vec<Pending>> {
    views::of_each(|flow| {
        let mut all = Vec::new();
        for source in flow.followed() {
            let Some(stored) = cursor::load(source)? else { continue };
            let Some(capture) = capture::find(source.relation)?.filter(|c| c.is_whole()) else {
                continue;
            };
            let _now = OneSnapshot::latest();
            let statements = Statements::connect()?;
            let (signature, _) = cursor::signature(&statements, source.relation, &capture)?;
            if source.capture == CaptureMode::Scan || signature != stored.cursor.signature {
                continue;
            }
            let since = &stored.cursor.snapshot;
            let Some(count) = change_log::pending(&statements, &capture, since, None, COUNTED)?
            else {
                continue;
            };
            let at_least = count >= COUNTED;
            all.push(Pending { source: source.id, count: count.min(COUNTED), at_least });
        }
        Ok(all)
    })
}
