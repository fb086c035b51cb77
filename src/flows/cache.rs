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
use crate::pg::snapshot::OneSnapshot;
use crate::query::logic_fingerprint;
use coco_core::version::LogicId;

/// A flow that can be run.
pub struct Ready {
    pub flow: Flow,
    /// The logic it has now; `None` where it is to be computed yet.
    pub logic: Option<LogicId>,
}

thread_local! {
    static KEPT: RefCell<HashMap<String, (u64, Rc<Ready>)>> = RefCell::new(HashMap::new());
}

/// A flow for its owner, whole, as [`registry::load`] loads it.
pub fn ready(name: &str) -> Result<Rc<Ready>> {
    let generation = invalidation::now();
    let kept = KEPT.with(|k| k.borrow().get(name).filter(|(g, _)| *g == generation).cloned());
    if let Some((_, ready)) = kept {
        load::check_owner(&ready.flow)?;
        return Ok(ready);
    }
    // The snapshot of the caller's statement is as old as its wait for a lock.
    let _now = OneSnapshot::take();
    let flow = load::load(name)?;
    let complete = flow.targets.iter().all(|t| t.relation.is_some()) && !flow.targets.is_empty();
    let logic = if complete { logic_fingerprint::kept(&flow)? } else { None };
    let ready = Rc::new(Ready { flow, logic });
    // SAFETY: reads the backend's own state.
    let as_of_now = unsafe { pg_sys::XactIsoLevel } < pg_sys::XACT_REPEATABLE_READ as i32;
    // What changed while it was loaded may be in it by half.
    if complete && as_of_now && invalidation::now() == generation {
        KEPT.with(|k| k.borrow_mut().insert(name.to_owned(), (generation, ready.clone())));
    }
    Ok(ready)
}

/// As [`ready`], and locks what the flow reads, so that nobody rewrites it after the snapshot that is taken next.
/// It is waited for, but no longer than `patience`.
pub fn to_read(name: &str, patience: Option<Duration>) -> Result<Rc<Ready>> {
    relation_locks::held(patience, || ready(name), |ready| &ready.flow)
}

/// As [`ready`], and holds off other updates and changes of the flow.
pub fn locked(name: &str) -> Result<Rc<Ready>> {
    locks::flow(ready(name)?.flow.id)?;
    // Again: it may have changed while the lock was waited for.
    ready(name)
}

/// As [`locked`] and [`to_read`].
pub fn locked_to_read(name: &str) -> Result<Rc<Ready>> {
    locks::flow(ready(name)?.flow.id)?;
    to_read(name, None)
}

/// As [`locked_to_read`], but `None` where somebody else has the flow's lock.
pub fn to_read_if_free(name: &str, patience: Option<Duration>) -> Result<Option<Rc<Ready>>> {
    match locks::flow_if_free(ready(name)?.flow.id)? {
        true => to_read(name, patience).map(Some),
        false => Ok(None),
    }
}
