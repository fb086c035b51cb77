//! The verifications of live flows that workers run from time to time: when each flow was last
//! verified, and what differed.

use pgrx::datum::Interval;

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// What a verification has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct VerificationResult {
    /// How many rows differ.
    pub differing: i64,
    /// Whether more rows differ.
    pub is_cut: bool,
    /// Why a target was not compared.
    pub error: Option<String>,
}

impl VerificationResult {
    /// Adds the differences of a target.
    pub fn add(&mut self, differing: usize, is_cut: bool) {
        self.differing += differing as i64;
        self.is_cut |= is_cut;
    }
}

/// Stores the interval between two verifications of a flow. The first one takes place after the
/// interval. Without an interval, forgets what the last one has found. The caller acts as the
/// extension's owner.
pub fn set_interval(flow: i32, interval: Option<Interval>) -> Result<()> {
    let has_interval = interval.is_some();
    spi::execute(
        "update coco_internal.flow set verify_interval = $2 where id = $1",
        &[arg(flow), arg(interval)],
    )?;
    if !has_interval {
        return forget(flow);
    }
    spi::execute(
        "insert into coco_internal.verification (flow) values ($1) on conflict do nothing",
        &[arg(flow)],
    )?;
    Ok(())
}

/// Forgets what the last verification of a flow has found. The caller acts as the extension's owner.
pub fn forget(flow: i32) -> Result<()> {
    spi::execute("delete from coco_internal.verification where flow = $1", &[arg(flow)])?;
    Ok(())
}

/// Gives a flow the interval of another one. The caller acts as the extension's owner.
pub fn copy_interval(from: i32, to: i32) -> Result<()> {
    spi::execute(
        "update coco_internal.flow as v set verify_interval = m.verify_interval
           from coco_internal.flow as m where m.id = $1 and v.id = $2",
        &[arg(from), arg(to)],
    )?;
    Ok(())
}

/// Returns the interval between two verifications of one of the caller's flows; `None` if workers
/// verify nothing.
pub fn interval_of(flow: &str) -> Result<Option<Interval>> {
    spi::scalar("select f.verify_interval from coco.flows as f where f.flow = $1", &[arg(flow)])
}

/// Records that the verification of a flow begins. Returns `false` if none is due, or if another
/// session is changing the flow.
pub fn claim(flow: i32) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    // A restore leaves the row out.
    spi::execute(
        "insert into coco_internal.verification (flow, attempted_at)
         select f.id, f.created from coco_internal.flow f
          where f.id = $1 and f.verify_interval is not null for key share skip locked
         on conflict do nothing",
        &[arg(flow)],
    )?;
    let claimed = spi::execute(
        "with due as (
           select v.flow from coco_internal.verification v join coco_internal.flow f on f.id = v.flow
            where f.id = $1 and f.live and not f.paused
              and v.attempted_at + greatest(f.verify_interval, v.elapsed * 9) <= clock_timestamp()
              for update of v skip locked)
         update coco_internal.verification v
            set attempted_at = clock_timestamp(), elapsed = '0',
                error = 'a verification has begun and not ended yet'
           from due where due.flow = v.flow",
        &[arg(flow)],
    )?;
    Ok(claimed > 0)
}

/// Records what a verification has found.
pub fn note_result(flow: i32, found: &VerificationResult) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.verification
            set elapsed = clock_timestamp() - attempted_at, attempted_at = clock_timestamp(),
                verified_at = case when $2 = 0 and $4 is null then clock_timestamp() else verified_at end,
                differing = $2, is_cut = $3, error = $4
          where flow = $1",
        &[arg(flow), arg(found.differing), arg(found.is_cut), arg(found.error.clone())],
    )?;
    Ok(())
}

/// Records why a verification has ended early. What the one before it has found stays. The next one
/// is due after ten minutes, or after the interval if that is shorter.
pub fn note_error(flow: i32, why: &str) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.verification v
            set elapsed = clock_timestamp() - v.attempted_at, error = $2,
                attempted_at = clock_timestamp()
                  - greatest(coalesce(f.verify_interval, '0') - interval '10 minutes', '0')
           from coco_internal.flow f where f.id = v.flow and v.flow = $1",
        &[arg(flow), arg(why)],
    )?;
    Ok(())
}

/// Makes the next verification due at once, because `coco.verify` has repaired the flow. Until then,
/// it is not known whether rows differ.
pub fn verify_again(flow: i32) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.verification
            set attempted_at = 'epoch', elapsed = '0', differing = null, is_cut = false
          where flow = $1",
        &[arg(flow)],
    )?;
    Ok(())
}
