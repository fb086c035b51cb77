//! A backend's cache of loaded flows with their logic. An entry is valid until something that the
//! flow depends on changes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::catalog::model::Flow;
use crate::catalog::{locks, relation_locks};
use crate::flows::{live_rows, load};
use crate::pg::backend;
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi;
use crate::query::logic_fingerprint;
use coco_core::version::LogicId;

/// A flow that can be run.
pub struct RunnableFlow {
    pub flow: Flow,
    /// The flow's current logic; `None` if it must still be computed.
    pub logic: Option<LogicId>,
}

thread_local! {
    static KEPT: RefCell<HashMap<String, (u64, Rc<RunnableFlow>)>> = RefCell::new(HashMap::new());
}

/// Returns a complete flow for its owner, from the cache or as [`load::load_flow`] loads it.
pub fn runnable_flow(name: &str) -> Result<Rc<RunnableFlow>> {
    let generation = invalidation::invalidation_count();
    let kept = KEPT.with(|k| k.borrow().get(name).filter(|(g, _)| *g == generation).cloned());
    if let Some((_, ready)) = kept {
        load::check_owner(&ready.flow)?;
        return Ok(ready);
    }
    // The snapshot of the caller's statement may be as old as the start of a wait for a lock.
    let _now = PinnedSnapshot::take();
    let flow = load::load_flow(name)?;
    let complete = flow.targets.iter().all(|t| t.relation.is_some()) && !flow.targets.is_empty();
    let logic = if complete { logic_fingerprint::kept_logic(&flow)? } else { None };
    let ready = Rc::new(RunnableFlow { flow, logic });
    // If the catalog changed during loading, the flow may be a mix of two states.
    if complete
        && !backend::keeps_its_snapshot()
        && invalidation::invalidation_count() == generation
    {
        KEPT.with(|k| k.borrow_mut().insert(name.to_owned(), (generation, ready.clone())));
    }
    Ok(ready)
}

/// Returns a flow as [`runnable_flow`] does, and locks the relations that it reads, so that nobody
/// rewrites them after the caller takes its snapshot. Waits for these locks at most for `patience`.
pub fn runnable_to_read(name: &str, patience: Option<Duration>) -> Result<Rc<RunnableFlow>> {
    relation_locks::hold_relations(patience, || runnable_flow(name), |ready| &ready.flow)
}

/// Returns a flow as [`runnable_flow`] does, and locks it against other updates and changes.
pub fn lock_runnable_flow(name: &str) -> Result<Rc<RunnableFlow>> {
    load::lock_identified(name)?;
    locked_flow(name)
}

/// Returns a flow that the caller has locked. The catalog then has the names that it uses.
fn locked_flow(name: &str) -> Result<Rc<RunnableFlow>> {
    let ready = runnable_flow(name)?;
    if !ready.flow.has_new_names || spi::is_read_only() {
        return Ok(ready);
    }
    KEPT.with_borrow_mut(|kept| kept.remove(name));
    runnable_flow(name)
}

/// Returns a flow with the locks of both [`lock_runnable_flow`] and [`runnable_to_read`].
pub fn lock_runnable_to_read(name: &str) -> Result<Rc<RunnableFlow>> {
    lock_runnable_flow(name)?;
    runnable_to_read(name, None)
}

/// Returns a flow as [`lock_runnable_to_read`] does; `None` if another session holds the flow's
/// lock.
pub fn runnable_to_read_if_free(
    name: &str,
    patience: Option<Duration>,
) -> Result<Option<Rc<RunnableFlow>>> {
    let id = runnable_flow(name)?.flow.id;
    match locks::lock_flow_if_free(id)? {
        // Another flow may have the name by now.
        true => Ok(Some(runnable_to_read(name, patience)?).filter(|ready| ready.flow.id == id)),
        false => Ok(None),
    }
}

/// Returns a flow as [`runnable_to_read_if_free`] does, whatever its name is by now. `name` is the
/// name that the caller knows. Returns `None` also if the flow was dropped.
pub fn identified_to_read_if_free(
    id: i32,
    name: &str,
    patience: Option<Duration>,
) -> Result<Option<Rc<RunnableFlow>>> {
    // Nobody can rename the flow while it is locked.
    if !locks::lock_flow_if_free(id)? {
        return Ok(None);
    }
    if is_kept_as(id, name) {
        return runnable_to_read(name, patience).map(Some);
    }
    let found = {
        let _now = PinnedSnapshot::take();
        live_rows::flow_name(id)?
    };
    found.map(|name| runnable_to_read(&name, patience)).transpose()
}

/// Reports whether the cache has the flow with this id under this name.
fn is_kept_as(id: i32, name: &str) -> bool {
    let generation = invalidation::invalidation_count();
    KEPT.with_borrow(|kept| {
        kept.get(name).is_some_and(|(at, ready)| *at == generation && ready.flow.id == id)
    })
}
