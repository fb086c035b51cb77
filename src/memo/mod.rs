//! Memoized functions: coco stores their results per flow, by the content of the input, and
//! computes the missing results of a batch together.
//!
//! `registration` records which functions are memoized, and `called_functions` finds those that a
//! query calls. A batch then passes through these steps:
//!
//! 1. Begin: [`begin_batch`] loads the results that the batch's items used last (`result_uses`).
//! 2. Rewrite: `rewrite_calls` replaces the calls in the query by calls of `call_site`.
//! 3. Run: `evaluate_batch` runs the query over the batch, with a `session`.
//! 4. Call: `call_site` looks the result up in the session, and returns it.
//! 5. Miss: if there is none, `call_site` notes the call and returns NULL. The item is suspended.
//! 6. Resolve: `resolve_misses` gets all missing results, from the `store`, from other flows' tables
//!    (`reuse`), from a batch function (`batch_call`) or from a provider (`provider_resolve`).
//! 7. Settle: `settle` and `spending` record the results, and what they cost.
//! 8. Repeat from step 3 for the suspended items, until no result is missing.
//! 9. Store: `store` writes the results to the table that `result_table` creates, and `result_uses`
//!    counts the items that use them.
//! 10. End: [`end_batch`] stores results that no item uses for a while.
//!
//! `kept` keeps the table when the flow is dropped. `counted_misses` and `call_history` serve estimates:
//! which results are missing, and what earlier ones have cost.

pub mod batch_call;
pub mod call_history;
pub mod call_site;
pub mod called_functions;
pub mod counted_misses;
pub mod evaluate_batch;
pub mod kept;
pub mod provider_resolve;
pub mod registration;
pub mod resolve_misses;
pub mod result_table;
pub mod result_uses;
pub mod reuse;
pub mod rewrite_calls;
pub mod session;
pub mod settle;
pub mod spending;
pub mod store;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::catalog::model::{Flow, Source};
use crate::memo::session::{MemoSession, OnMiss};
use crate::pg::error::Result;
use crate::query::batch::{Action, Batch};
use coco_core::memo_batch::{FunctionId, Stats};

/// Returns the memo session for an update of a flow. Returns `None` if the flow's queries call no
/// memoized function, and no results were ever stored. The session ignores results from before
/// `since` (microseconds since 1970).
pub fn session_of_update(flow: &Flow, since: Option<i64>) -> Result<Option<Rc<MemoSession>>> {
    if flow.memoized.is_empty() && flow.memo.is_none() {
        return Ok(None);
    }
    let table = result_table::make(flow)?;
    let known = store::known(flow, true)?;
    let recalling =
        MemoSession::new(flow, known, store::recall()?, Some(table), since, OnMiss::Suspends);
    Ok(Some(Rc::new(recalling)))
}

/// Returns a memo session that stores no results: for `coco.verify`, `coco.preview`, `coco.explain`
/// and the search for orphaned rows. Returns `None` if the flow's queries call no memoized function.
pub fn session_of_look(flow: &Flow) -> Result<Option<Rc<MemoSession>>> {
    if flow.memoized.is_empty() {
        return Ok(None);
    }
    let known = store::known(flow, false)?;
    let table = flow.memo.clone();
    let recalling = MemoSession::new(flow, known, store::recall()?, table, None, OnMiss::Computes);
    Ok(Some(Rc::new(recalling)))
}

/// Returns a memo session for an estimate: it uses stored results from after `since` (microseconds
/// since 1970), computes none, and counts the missing ones. Returns `None` if the flow's queries call
/// no memoized function.
pub fn session_of_estimate(flow: &Flow, since: Option<i64>) -> Result<Option<Rc<MemoSession>>> {
    if flow.memoized.is_empty() {
        return Ok(None);
    }
    let known = store::known(flow, false)?;
    let table = flow.memo.clone();
    let recalling = MemoSession::new(flow, known, store::recall()?, table, since, OnMiss::Counts);
    Ok(Some(Rc::new(recalling)))
}

/// Begins a batch: loads the results that its items used when they were last evaluated.
pub fn begin_batch(recalling: &MemoSession, source: &Source, batch: &Batch) -> Result<()> {
    end_batch(recalling)?;
    let used = match batch.items.iter().any(|i| i.tracked && i.action == Action::Evaluate) {
        true => result_uses::used_by(recalling, source, batch)?,
        false => vec![],
    };
    let mut recall = recalling.recall.borrow_mut();
    used.into_iter().for_each(|entry| recall.load(entry));
    Ok(())
}

/// Ends a batch. Results that were computed for it and that no item uses are stored for a while.
pub fn end_batch(recalling: &MemoSession) -> Result<()> {
    store::keep_unused(recalling)?;
    recalling.recall.borrow_mut().clear();
    Ok(())
}

/// Stores the statistics of the calls since the last call of this function, and returns them by the
/// functions' names.
pub fn count_calls(recalling: &MemoSession) -> Result<BTreeMap<String, Stats>> {
    let reused = recalling.recall.borrow_mut().take_reused();
    for (function, reused) in reused {
        recalling.count(function, Stats { reused, ..Stats::default() });
    }
    let stats = recalling.stats.take();
    store::count(&stats)?;
    let named =
        |(id, stats): (FunctionId, Stats)| recalling.function(id).map(|f| (f.name.clone(), stats));
    Ok(stats.into_iter().filter_map(named).collect())
}
