//! Flows as they were loaded, with their logic, kept until something changes that they depend on.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::catalog::model::Flow;
use crate::catalog::{locks, relation_locks};
use crate::flows::load;
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::snapshot::PinnedSnapshot;
use crate::query::logic_fingerprint;
use coco_core::version::LogicId;

/// A flow that can be run.
pub struct RunnableFlow {
    pub flow: Flow,
    /// The logic it has now; `None` where it is to be computed yet.
    pub logic: Option<LogicId>,
}

thread_local! {
    static KEPT: RefCell<HashMap<String, (u64, Rc<RunnableFlow>)>> = RefCell::new(HashMap::new());
}

/// A flow for its owner, whole, as [`registry::load`] loads it.
pub fn runnable_flow(name: &str) -> Result<Rc<RunnableFlow>> {
    let generation = invalidation::invalidation_count();
    let kept = KEPT.with(|k| k.borrow().get(name).filter(|(g, _)| *g == generation).cloned());
    if let Some((_, ready)) = kept {
        load::check_owner(&ready.flow)?;
        return Ok(ready);
    }
    // The snapshot of the caller's statement is as old as its wait for a lock.
    let _now = PinnedSnapshot::take();
    let flow = load::load_flow(name)?;
    let complete = flow.targets.iter().all(|t| t.relation.is_some()) && !flow.targets.is_empty();
    let logic = if complete { logic_fingerprint::kept_logic(&flow)? } else { None };
    let ready = Rc::new(RunnableFlow { flow, logic });
    // SAFETY: reads the backend's own state.
    let as_of_now = unsafe { pg_sys::XactIsoLevel } < pg_sys::XACT_REPEATABLE_READ as i32;
    // What changed while it was loaded may be in it by half.
    if complete && as_of_now && invalidation::invalidation_count() == generation {
        KEPT.with(|k| k.borrow_mut().insert(name.to_owned(), (generation, ready.clone())));
    }
    Ok(ready)
}

/// As [`runnable_flow`], and locks what the flow reads, so that nobody rewrites it after the snapshot that is taken next.
/// It is waited for, but no longer than `patience`.
pub fn runnable_to_read(name: &str, patience: Option<Duration>) -> Result<Rc<RunnableFlow>> {
    relation_locks::hold_relations(patience, || runnable_flow(name), |ready| &ready.flow)
}

/// As [`runnable_flow`], and holds off other updates and changes of the flow.
pub fn lock_runnable_flow(name: &str) -> Result<Rc<RunnableFlow>> {
    locks::lock_flow(runnable_flow(name)?.flow.id)?;
    // Again: it may have changed while the lock was waited for.
    runnable_flow(name)
}

/// As [`lock_runnable_flow`] and [`runnable_to_read`].
pub fn lock_runnable_to_read(name: &str) -> Result<Rc<RunnableFlow>> {
    locks::lock_flow(runnable_flow(name)?.flow.id)?;
    runnable_to_read(name, None)
}

/// As [`lock_runnable_to_read`], but `None` where somebody else has the flow's lock.
pub fn runnable_to_read_if_free(
    name: &str,
    patience: Option<Duration>,
) -> Result<Option<Rc<RunnableFlow>>> {
    match locks::lock_flow_if_free(runnable_flow(name)?.flow.id)? {
        true => runnable_to_read(name, patience).map(Some),
        false => Ok(None),
    }
}
