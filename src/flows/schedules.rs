//! Schedules of flows in the catalog: at which times workers update a flow, and when its last
//! update by its schedule began.
//!
//! Callers: `declare`, `workers`, `inspect`, and `update` for `coco.wait`.

use pgrx::pg_sys;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::catalog::locks;
use crate::pg::acting_role::{RoleGuard, SavedGucs};
use crate::pg::clock;
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::time_zone::ServerTimeZone;
use coco_core::schedule::Schedule;

/// The value of the argument `refresh` that stands for no schedule.
pub const AFTER_COMMITS: &str = "commit";

/// Reads the argument `refresh`; `None` means after each commit.
pub fn parse_refresh(text: &str) -> Result<Option<Schedule>> {
    if text.trim().eq_ignore_ascii_case(AFTER_COMMITS) {
        return Ok(None);
    }
    Schedule::parse(text).map(Some).map_err(|why| {
        Error::invalid(format!("invalid refresh schedule: \"{text}\"")).detail(why).hint(
            "Use commit, an interval of at least one second such as '5 minutes', or a cron line such as '0 3 * * *'.",
        )
    })
}

/// Reports whether the catalog's text of a schedule, if there is one, is a schedule. Otherwise the
/// flow follows each commit.
pub fn is_schedule(refresh: Option<&str>) -> bool {
    refresh.is_some_and(|text| Schedule::parse(text).is_ok())
}

/// Stores the schedule of a flow as its owner has written it. The caller holds the flow's lock, or
/// has just created the flow.
pub fn store_refresh(flow: &str, text: &str) -> Result<()> {
    let schedule = parse_refresh(text)?;
    let text = schedule.map(|_| text.trim());
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.flow set refresh = $2 where flow = $1",
        &[arg(flow), arg(text)],
    )?;
    Ok(())
}

/// A flow that workers update by a schedule.
pub struct ScheduledFlow {
    pub id: i32,
    pub flow: String,
    pub owner: pg_sys::Oid,
    /// Whether the flow is live and not paused.
    pub is_followed: bool,
    /// When its last update by the schedule began: microseconds since 1970.
    pub last_update: Option<i64>,
    text: String,
    schedule: Schedule,
    time_zone: String,
}

impl ScheduledFlow {
    /// Returns when workers update the flow next, in microseconds since 1970; `None` if its schedule
    /// names no such time. A time that is not after `now` means at once.
    pub fn next_update(&self, now: i64) -> Option<i64> {
        let zone = ServerTimeZone::named(&self.time_zone);
        self.schedule.next_update(self.last_update, now, &zone)
    }

    /// Returns the time until the next update: zero if the flow is due.
    fn due_in(&self, now: i64) -> Duration {
        match self.next_update(now) {
            Some(at) => Duration::from_micros(at.saturating_sub(now).max(0).unsigned_abs()),
            None => Duration::MAX,
        }
    }
}

/// Selects the flows with a schedule.
const SCHEDULED: &str = "
select f.id, f.flow, f.owner::oid, f.live and not f.paused, f.refresh, f.settings,
       (extract(epoch from r.began) * 1000000)::int8
  from coco_internal.flow f left join coco_internal.scheduled_run r on r.flow = f.id
 where f.refresh is not null";

/// Returns all flows with a schedule, whoever owns them.
pub fn scheduled_flows() -> Result<Vec<ScheduledFlow>> {
    read(SCHEDULED, &[])
}

/// Returns a flow with its schedule; `None` if it has none.
fn scheduled_flow(flow: i32) -> Result<Option<ScheduledFlow>> {
    let found = read(&format!("{SCHEDULED} and f.id = $1"), &[arg(flow)])?;
    Ok(found.into_iter().next())
}

fn read(query: &str, args: &[spi::Arg]) -> Result<Vec<ScheduledFlow>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(query, args, |r| {
        let text: String = spi::required(r, 5)?;
        // No function of coco's stores a schedule that cannot be read.
        let Ok(schedule) = Schedule::parse(&text) else { return Ok(None) };
        let settings = SavedGucs::from_json(&spi::required::<Json>(r, 6)?)?;
        Ok(Some(ScheduledFlow {
            id: spi::required(r, 1)?,
            flow: spi::required(r, 2)?,
            owner: spi::required(r, 3)?,
            is_followed: spi::required(r, 4)?,
            last_update: r.get(7)?,
            text,
            schedule,
            time_zone: settings.value("TimeZone").unwrap_or("UTC").to_owned(),
        }))
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// The longest time for which a worker relies on the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Returns when a worker must look at each scheduled flow that it follows, by the flow's id.
pub fn next_updates() -> Result<HashMap<i32, Instant>> {
    let (now, began) = (clock::now_micros(), Instant::now());
    let followed = scheduled_flows()?.into_iter().filter(|flow| flow.is_followed);
    Ok(followed.map(|flow| (flow.id, began + flow.due_in(now).min(LONGEST_WAIT))).collect())
}

/// Locks a flow, unless another process has locked it or its schedule names a later time for its
/// next update. Another worker may have updated the flow since the caller read its schedule.
pub fn lock_if_due(flow: i32) -> Result<bool> {
    if !locks::lock_flow_if_free(flow)? {
        return Ok(false);
    }
    let _now = PinnedSnapshot::take();
    let found = scheduled_flow(flow)?;
    Ok(found.is_none_or(|flow| flow.due_in(clock::now_micros()).is_zero()))
}

/// Records that a flow was updated by its schedule. `began`: microseconds since 1970. The caller
/// holds the flow's lock.
pub fn note_update(flow: i32, began: i64) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "insert into coco_internal.scheduled_run as r (flow, began)
         select f.id, to_timestamp($2 / 1000000.0) from coco_internal.flow f
          where f.id = $1 and f.refresh is not null
         on conflict (flow) do update set began = excluded.began",
        &[arg(flow), arg(began)],
    )?;
    Ok(())
}

/// Fails if a flow has not been updated since a moment, `since` ago, and workers will not update it
/// in the time that is left.
pub fn check_updated_in_time(flow: i32, since: Duration, left: Duration) -> Result<()> {
    let _now = PinnedSnapshot::latest();
    let Some(found) = scheduled_flow(flow)?.filter(|flow| flow.is_followed) else {
        return Ok(());
    };
    let now = clock::now_micros();
    let age = found.last_update.map(|last| now.saturating_sub(last));
    let is_since = age.is_some_and(|age| u128::try_from(age).unwrap_or(0) <= since.as_micros());
    let due_in = found.due_in(now);
    if is_since || due_in <= left {
        return Ok(());
    }
    Err(Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("flow \"{}\" is not updated before the timeout", found.flow),
    )
    .detail(match found.next_update(now) {
        Some(_) => format!(
            "Its schedule is \"{}\"; the next update is in {} s.",
            found.text,
            due_in.as_secs()
        ),
        None => format!("Its schedule \"{}\" names no time of a next update.", found.text),
    })
    .hint("Call coco.update to bring the flow up to date now, or wait longer."))
}
