//! Accounting for results that were computed for calls without a stored result: kept through a rollback, since they were
//! paid for.

use pgrx::IntoDatum;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::catalog::memo_function::MemoFunction;
use crate::memo::session::{CallArguments, MemoSession};
use crate::pg::error::Error;
use crate::pg::subtransaction;
use crate::pg::value_codec::Codec;
use coco_core::memo::{ComputedResult, Entry, Fault, Place, State, Stats};
use coco_core::provider::Usage;

/// What a function was asked, and is not in the store.
pub type MissedCalls = Vec<(Place, CallArguments)>;

/// A result that was computed in this process, and is not committed yet.
pub struct ResolvedMisses {
    pub flow: i32,
    pub function: Rc<MemoFunction>,
    pub entry: Entry,
}

/// What was done for a transaction, and cost something.
#[derive(Default)]
pub struct ResolvedSinceCommit {
    pub computed: Vec<ResolvedMisses>,
    /// At which server, and for which flow.
    pub spent: Vec<(String, i32, Usage)>,
}

thread_local! {
    static DONE: RefCell<ResolvedSinceCommit> = RefCell::default();
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Notes a result, or why there is none.
pub fn settle_results(
    recalling: &MemoSession,
    place: Place,
    result: std::result::Result<ComputedResult, Fault>,
) {
    let mut recall = recalling.recall.borrow_mut();
    let function = recall.get(place).function;
    match result {
        Ok(kept) => {
            let length = kept.result.as_ref().map_or(0, |b| b.len() as i64);
            recalling.count(function, Stats { misses: 1, bytes: length, ..Stats::default() });
            recall.computed(place, kept);
        }
        Err(fault) => {
            recalling.count(function, Stats { errors: 1, ..Stats::default() });
            recall.settle(place, State::Failed(fault));
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

/// Notes what was spent at a server for a flow.
pub fn spent(recalling: &MemoSession, server: &str, usage: Usage) {
    if WATCHED.get() {
        let spent = (server.to_owned(), recalling.flow, usage);
        DONE.with(|done| done.borrow_mut().spent.push(spent));
    }
}

/// Has what is computed be remembered in this process until [`committed`] or [`rolled_back`]: it is a
/// worker, whose transactions are its own.
pub fn watch() {
    WATCHED.set(true);
}

/// The transaction is committed: what was done for it is kept.
pub fn committed() {
    DONE.take();
}

/// The transaction was rolled back: what was done for it.
pub fn rolled_back() -> ResolvedSinceCommit {
    DONE.take()
}

/// A value of Rust's as a result.
pub fn encoded_result<T: IntoDatum>(codec: &mut Codec, value: T) -> ComputedResult {
    // SAFETY: the caller's value is of the function's result type.
    unsafe { codec.keep(value.into_datum()) }
}

/// An error as what an input is to blame for.
pub fn call_error(error: Error) -> Fault {
    Fault {
        sqlstate: subtransaction::sqlstate(error.code as i32),
        message: error.message,
        detail: error.detail,
        hint: error.hint,
    }
}
