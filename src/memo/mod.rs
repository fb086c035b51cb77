//! Memoised functions: their results are kept per flow, by the content of their input, and what is
//! missing of a batch is computed together.
//!
//! `rewrite` has a query's calls go by way of `call`, which finds what `recalling` holds and notes what
//! it does not; `evaluate` evaluates a batch until nothing is missing, `resolve` gets what is, and
//! `store` keeps it, in the table that `table` makes; `uses` counts which items use it.

pub mod batch_call;
pub mod call_site;
pub mod called_functions;
pub mod evaluate_batch;
pub mod provider_resolve;
pub mod registration;
pub mod resolve_misses;
pub mod result_table;
pub mod result_uses;
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
use coco_core::memo::{FunctionId, Stats};

/// What an update of a flow recalls from; None where its queries call no memoised function, and no
/// results were ever kept. Results of before `since` (microseconds since 1970) are not taken.
pub fn session_of_update(flow: &Flow, since: Option<i64>) -> Result<Option<Rc<MemoSession>>> {
    if flow.memoised.is_empty() && flow.memo.is_none() {
        return Ok(None);
    }
    let table = result_table::make(flow)?;
    let known = store::known(flow, true)?;
    let recalling =
        MemoSession::new(flow, known, store::recall()?, Some(table), since, OnMiss::Suspends);
    Ok(Some(Rc::new(recalling)))
}

/// What a look at a flow recalls from, which keeps nothing.
pub fn session_of_look(flow: &Flow) -> Result<Option<Rc<MemoSession>>> {
    if flow.memoised.is_empty() {
        return Ok(None);
    }
    let known = store::known(flow, false)?;
    let table = flow.memo.clone();
    let recalling = MemoSession::new(flow, known, store::recall()?, table, None, OnMiss::Computes);
    Ok(Some(Rc::new(recalling)))
}

/// Begins a batch: what its items used when they were last evaluated is at hand.
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

/// Ends a batch: of what was computed for it nothing is lost.
pub fn end_batch(recalling: &MemoSession) -> Result<()> {
    store::keep_unused(recalling)?;
    recalling.recall.borrow_mut().clear();
    Ok(())
}

/// What calls came to since this was asked before, by the functions' names; and notes it.
pub fn count_calls(recalling: &MemoSession) -> Result<BTreeMap<String, Stats>> {
    let stats = recalling.stats.take();
    store::count(&stats)?;
    let named =
        |(id, stats): (FunctionId, Stats)| recalling.function(id).map(|f| (f.name.clone(), stats));
    Ok(stats.into_iter().filter_map(named).collect())
}
