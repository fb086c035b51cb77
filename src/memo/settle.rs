//! Accounts for results that coco computes for missing calls. Results of a transaction that is
//! rolled back are kept, because they were paid for.

use pgrx::IntoDatum;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::catalog::memo_function::MemoFunction;
use crate::memo::session::{CallArguments, MemoSession};
use crate::pg::error::Error;
use crate::pg::subtransaction;
use crate::pg::value_codec::Codec;
use coco_core::memo_batch::{ComputedResult, EntryIndex, MemoEntry, MemoError, State, Stats};
use coco_core::provider::Usage;

/// The calls of a function whose results the store does not have.
pub type MissedCalls = Vec<(EntryIndex, CallArguments)>;

/// A result that was computed in this process and is not committed yet.
pub struct ResolvedMisses {
    pub flow: i32,
    pub function: Rc<MemoFunction>,
    pub entry: MemoEntry,
}

/// The results and expenses of the current transaction.
#[derive(Default)]
pub struct ResolvedSinceCommit {
    pub computed: Vec<ResolvedMisses>,
    /// Each expense, with its server and its flow.
    pub spent: Vec<(String, i32, Usage)>,
}

thread_local! {
    static DONE: RefCell<ResolvedSinceCommit> = RefCell::default();
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Records a result, or the error that prevents it.
pub fn settle_results(
    recalling: &MemoSession,
    place: EntryIndex,
    result: std::result::Result<ComputedResult, MemoError>,
) {
    let mut recall = recalling.recall.borrow_mut();
    let function = recall.get(place).function;
    match result {
        Ok(kept) => {
            let length = kept.result.as_ref().map_or(0, |b| b.len() as i64);
            recalling.count(function, Stats { misses: 1, bytes: length, ..Stats::default() });
            recall.set_computed(place, kept);
        }
        Err(fault) => {
            recalling.count(function, Stats { errors: 1, ..Stats::default() });
            recall.set_state(place, State::Failed(fault));
        }
    }
    let entry = recall.get(place).clone();
    if let (true, State::Known(_), Some(function)) =
        (WATCHED.get(), &entry.state, recalling.function(function))
    {
        let computed =
            ResolvedMisses { flow: recalling.flow, function: Rc::clone(function), entry };
        DONE.with(|done| done.borrow_mut().computed.push(computed));
    }
}

/// Records an expense at a server for a flow.
pub fn spent(recalling: &MemoSession, server: &str, usage: Usage) {
    if WATCHED.get() {
        let spent = (server.to_owned(), recalling.flow, usage);
        DONE.with(|done| done.borrow_mut().spent.push(spent));
    }
}

/// Makes this process remember computed results until [`committed`] or [`rolled_back`]. Only a
/// worker calls this, because it controls its own transactions.
pub fn watch() {
    WATCHED.set(true);
}

/// Discards the remembered results, after the transaction that stored them was committed.
pub fn committed() {
    DONE.take();
}

/// Returns and discards the results and expenses of a transaction that was rolled back.
pub fn rolled_back() -> ResolvedSinceCommit {
    DONE.take()
}

/// Converts a Rust value to a result.
pub fn encoded_result<T: IntoDatum>(codec: &mut Codec, value: T) -> ComputedResult {
    // SAFETY: the caller's value has the function's result type.
    unsafe { codec.keep(value.into_datum()) }
}

/// Converts an error to the error of an input.
pub fn call_error(error: Error) -> MemoError {
    MemoError {
        sqlstate: subtransaction::sqlstate(error.code as i32),
        message: error.message,
        detail: error.detail,
        hint: error.hint,
    }
}
