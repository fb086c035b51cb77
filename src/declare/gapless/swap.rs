//! When a version of a flow replaces it: `coco.swap`, `coco.rollback`, `coco.update` of the flow,
//! and the worker of a live flow.

use pgrx::PgSqlErrorCode;
use std::time::Duration;

use crate::catalog::version_rows::{self, FlowVersion, VersionRole};
use crate::catalog::{flow_rows, locks, relation_locks};
use crate::declare;
use crate::declare::gapless::exchange::exchange;
use crate::declare::gapless::partitions::follow_partitions;
use crate::flows::load;
use crate::pg::error::{Error, Result};
use crate::pg::notice::{notice, warning};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::subtransaction::subtransaction;

/// How long `coco.swap` and `coco.rollback` wait for transactions that have read the target.
const PATIENCE_WHEN_CALLED: Duration = Duration::from_secs(10);

/// How long an update waits for them.
const PATIENCE_OF_UPDATE: Duration = Duration::from_secs(1);

/// How long a worker waits for them in one attempt.
const PATIENCE_OF_WORKER: Duration = Duration::from_millis(300);

/// What a swap needs from its caller.
pub struct SwapCaller<'a> {
    /// Brings a flow up to date. Returns the number of failed items.
    pub update: &'a dyn Fn(&str) -> Result<i64>,
    /// See [`locks::lock_flow_ending_transaction`].
    pub announce: fn(),
}

/// Replaces a flow by its new version.
pub fn swap(name: &str, caller: &SwapCaller) -> Result<()> {
    replace(name, VersionRole::New, caller)
}

/// Replaces a flow by its old version.
pub fn roll_back(name: &str, caller: &SwapCaller) -> Result<()> {
    replace(name, VersionRole::Old, caller)
}

fn replace(name: &str, role: VersionRole, caller: &SwapCaller) -> Result<()> {
    let main = load::lock_identified(name)?.id;
    let found = {
        let _now = PinnedSnapshot::take();
        version_rows::version_of(main, role)?
    };
    let version = found.ok_or_else(|| no_version(name, role))?;
    follow_partitions(&version)?;
    (caller.update)(&version.name)?;
    locks::lock_flow(version.id)?;
    exchange_locked(&version, PATIENCE_WHEN_CALLED, caller.announce)
}

/// Gives up the new version of a flow.
pub fn discard(name: &str, announce: fn()) -> Result<()> {
    let main = flow_rows::flow_id(name)?;
    let version = version_rows::version_of(main, VersionRole::New)?
        .ok_or_else(|| no_version(name, VersionRole::New))?;
    declare::drop_flow(&version.name, false, announce)
}

fn no_version(name: &str, role: VersionRole) -> Error {
    let hint = match role {
        VersionRole::New => "Declare one with coco.set_query(…, gapless => true).",
        VersionRole::Old => {
            "A swap keeps the old version if coco.set_query was called with keep_old."
        }
    };
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("flow \"{name}\" has no {} version", role.name()),
    )
    .hint(hint)
}

/// Exchanges a flow and its version, whose locks this transaction holds, and drops the old version
/// if it is not kept.
fn exchange_locked(version: &FlowVersion, patience: Duration, announce: fn()) -> Result<()> {
    let _now = PinnedSnapshot::take();
    locks::block_update_requests(version.of, &version.of_name)?;
    locks::block_update_requests(version.id, &version.name)?;
    if version.role == VersionRole::New
        && let Some(old) = version_rows::version_of(version.of, VersionRole::Old)?
    {
        declare::drop_flow(&old.name, false, announce)?;
    }
    let main = load::load_for_update(&version.of_name)?;
    let replacement = load::load_flow(&version.name)?;
    exchange(&main, &replacement, version, patience)?;
    match version_rows::as_version(main.id)? {
        Some(old) if old.is_expired => declare::drop_flow(&old.name, false, announce),
        _ => Ok(()),
    }
}

/// Updates the versions of a flow after an update of the flow itself, and swaps a new version in, if
/// `may_swap` and it is ready. A version that cannot be updated or swapped does not fail the update
/// of its flow.
pub fn follow_versions(main: i32, caller: &SwapCaller, may_swap: bool) -> Result<()> {
    let versions = version_rows::versions_of(main)?;
    if versions.is_empty() {
        return Ok(());
    }
    // The flow must not get ahead of its version.
    locks::lock_flow(main)?;
    for version in versions {
        if version.is_expired {
            declare::drop_flow(&version.name, false, caller.announce)?;
            continue;
        }
        let updated = contained(|| {
            follow_partitions(&version)?;
            (caller.update)(&version.name)
        });
        let failed = match updated {
            Ok(failed) => failed,
            Err(why) => {
                tell("could not update", &version, &why)?;
                continue;
            }
        };
        if version.role != VersionRole::New || !version.swaps_by_itself || !may_swap {
            version_rows::note_reason(version.id, None)?;
            continue;
        }
        let swapped = match failed {
            0 => contained(|| {
                locks::lock_flow(version.id)?;
                exchange_locked(&version, PATIENCE_OF_UPDATE, caller.announce)
            }),
            _ => Err(failing(&version, failed)),
        };
        match swapped {
            Ok(()) => {
                notice(format!("flow \"{}\" uses its new version", version.of_name));
                // The swap has dropped the old version that comes next.
                return Ok(());
            }
            Err(why) => tell("could not swap", &version, &why)?,
        }
    }
    Ok(())
}

/// The result of a worker's attempt to swap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SwapOutcome {
    Swapped,
    /// The flow has no new version that swaps by itself, or another session works on one of them.
    NotNow,
    /// Items of the new version fail.
    Failing,
}

/// Brings a new version up to date and swaps it in, in a transaction of a worker.
pub fn swap_in_turn(version: i32, caller: &SwapCaller) -> Result<SwapOutcome> {
    let ready = || -> Result<Option<FlowVersion>> {
        let found = version_rows::as_version(version)?;
        Ok(found.filter(|v| v.role == VersionRole::New && v.swaps_by_itself))
    };
    let Some(found) = ready()? else { return Ok(SwapOutcome::NotNow) };
    if !locks::lock_flow_if_free(found.of)? || !locks::lock_flow_if_free(version)? {
        return Ok(SwapOutcome::NotNow);
    }
    // A worker that updates one of them for a session knows it by its name.
    let requests = [found.of, version].map(locks::lock_update_request_if_free);
    if !requests.into_iter().collect::<Result<Vec<bool>>>()?.into_iter().all(|is_free| is_free) {
        return Ok(SwapOutcome::NotNow);
    }
    // Another session may have swapped or discarded it before this one had the locks.
    let _now = PinnedSnapshot::take();
    let Some(found) = ready()? else { return Ok(SwapOutcome::NotNow) };
    if load::load_for_update(&found.of_name)?.paused {
        return Ok(SwapOutcome::NotNow);
    }
    follow_partitions(&found)?;
    let failed = (caller.update)(&found.name)?;
    if failed > 0 {
        version_rows::note_reason(version, Some(&failing(&found, failed)))?;
        return Ok(SwapOutcome::Failing);
    }
    exchange_locked(&found, PATIENCE_OF_WORKER, caller.announce)?;
    Ok(SwapOutcome::Swapped)
}

/// Drops an old version whose time is over, if nobody works on it or reads it.
pub fn drop_expired(version: i32, announce: fn()) -> Result<()> {
    if !locks::lock_flow_if_free(version)? {
        return Ok(());
    }
    let _now = PinnedSnapshot::take();
    let Some(found) = version_rows::as_version(version)?.filter(|v| v.is_expired) else {
        return Ok(());
    };
    let tables: Vec<_> = load::load_for_update(&found.name)?
        .targets
        .iter()
        .filter(|target| target.made)
        .filter_map(|target| target.relation)
        .collect();
    match relation_locks::lock_exclusively(&tables, Duration::ZERO)? {
        true => declare::drop_flow(&found.name, false, announce),
        false => Ok(()),
    }
}

fn failing(version: &FlowVersion, failed: i64) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the new version of flow \"{}\" has failed items ({failed})", version.of_name),
    )
    .hint("Look at coco.errors. Call coco.swap to use the new version all the same, or coco.discard to give it up.")
}

/// Runs work in a subtransaction, so that an error in it ends neither the transaction nor the update
/// of the main flow.
fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    subtransaction(work, |raised| Error {
        code: raised.code,
        message: raised.message,
        detail: raised.detail,
        hint: raised.hint,
    })
}

/// Records and reports why a version was not updated or swapped.
fn tell(what: &str, version: &FlowVersion, why: &Error) -> Result<()> {
    version_rows::note_reason(version.id, Some(why))?;
    let mut detail = "The flow itself is up to date.".to_owned();
    for more in [&why.detail, &why.hint].into_iter().flatten() {
        detail.push(' ');
        detail.push_str(more);
    }
    warning(
        format!(
            "{what} the {} version of flow \"{}\": {}",
            version.role.name(),
            version.of_name,
            why.message
        ),
        &detail,
    );
    Ok(())
}
