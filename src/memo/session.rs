//! The memo session: the results that calls of memoized functions find while a statement of a flow
//! runs.

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use crate::catalog::memo_function::MemoFunction;
use crate::catalog::model::Flow;
use coco_core::memo_batch::{EntryIndex, FunctionId, MemoBatch, Stats};
use coco_core::provider::Task;

/// What a call does if its result is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMiss {
    /// The call notes the missing result. coco evaluates the item again when the result is known.
    Suspends,
    /// The call computes the result at once, and coco does not store it.
    Computes,
    /// The call returns NULL, and coco counts it: [`CountedMisses`].
    Counts,
}

/// The calls without a result in a session that only counts them.
#[derive(Debug, Default)]
pub struct CountedMisses {
    /// By the function and the fingerprint of the input.
    pub calls: BTreeMap<(FunctionId, i64), CountedMiss>,
    /// The requests that would compute results. Calls refer to them by position.
    pub requests: Vec<MissedRequest>,
}

/// An input without a result.
#[derive(Clone, Copy, Debug)]
pub struct CountedMiss {
    /// The number of calls with this input.
    pub calls: u64,
    /// The bytes of the input as the store keeps it.
    pub input_bytes: u64,
    /// The request that would compute the result; `None` if no provider computes it.
    pub request: Option<usize>,
    /// The estimated tokens of the input's text.
    pub tokens: u64,
}

/// A kind of request to a provider.
#[derive(Clone, Debug, PartialEq)]
pub struct MissedRequest {
    /// The server that the call names; `None` if its URL determines the server.
    pub server: Option<String>,
    pub task: Task,
}

/// The memo of one flow during one update, or during one statement that stores no results, such as
/// `coco.verify`.
pub struct MemoSession {
    /// The memoized functions that the flow's queries call, by OID.
    pub functions: HashMap<pg_sys::Oid, KnownFunction>,
    oids: Rc<HashSet<pg_sys::Oid>>,
    /// The OID of `coco_internal.memo_call`.
    call: pg_sys::Oid,
    /// The flow's id, and its owner.
    pub flow: i32,
    pub owner: pg_sys::Oid,
    /// The flow's table of results, quoted and qualified with its schema; `None` if there is none
    /// yet.
    pub table: Option<String>,
    /// The tables of other flows in which coco looks for missing results, once they are known.
    pub others: RefCell<Option<Rc<[OtherTable]>>>,
    /// Results from before this time are ignored: microseconds since 1970.
    pub since: Option<i64>,
    pub missing: OnMiss,
    pub recall: RefCell<MemoBatch>,
    /// The missing results, with the arguments of their calls.
    pub asked: RefCell<BTreeMap<EntryIndex, CallArguments>>,
    /// The numbers, in the batch, of the items that are being evaluated.
    pub numbers: RefCell<Vec<usize>>,
    pub stats: RefCell<BTreeMap<FunctionId, Stats>>,
    /// The calls without a result, with [`OnMiss::Counts`].
    pub counted: RefCell<CountedMisses>,
    /// The memory context of the arguments in `asked`.
    context: Cell<pg_sys::MemoryContext>,
}

/// A memoized function, and the id of its results in the store.
#[derive(Clone, Debug)]
pub struct KnownFunction {
    pub function: Rc<MemoFunction>,
    /// Negative if no result of the function was ever stored, and the session stores none.
    pub id: Option<FunctionId>,
    /// The session ignores results from before this time, because they have expired: microseconds
    /// since 1970.
    pub since: Option<i64>,
}

/// A table of results of another flow of the same owner, or of one that was dropped.
#[derive(Debug)]
pub struct OtherTable {
    pub relation: pg_sys::Oid,
    /// Quoted and qualified with its schema.
    pub name: String,
    pub functions: Vec<OtherFunction>,
}

/// A function of a session that another table has results of.
#[derive(Clone, Copy, Debug)]
pub struct OtherFunction {
    pub own: FunctionId,
    /// The function's id in the other table.
    pub other: FunctionId,
    /// Results from before this time are ignored: microseconds since 1970.
    pub since: Option<i64>,
}

/// Arguments that outlive the statement, until [`MemoSession::answered`] discards them.
#[derive(Clone, Debug)]
pub struct CallArguments {
    pub values: Vec<Option<pg_sys::Datum>>,
    /// The types of the values, and of the result.
    pub types: Rc<[pg_sys::Oid]>,
    pub result: pg_sys::Oid,
}

thread_local! {
    static NOW: RefCell<Option<Rc<MemoSession>>> = const { RefCell::new(None) };
}

impl MemoSession {
    pub fn new(
        flow: &Flow,
        functions: HashMap<pg_sys::Oid, KnownFunction>,
        call: pg_sys::Oid,
        table: Option<String>,
        since: Option<i64>,
        missing: OnMiss,
    ) -> MemoSession {
        let oids = Rc::new(functions.keys().copied().collect());
        MemoSession {
            functions,
            oids,
            call,
            flow: flow.id,
            owner: flow.owner,
            table,
            others: RefCell::default(),
            since,
            missing,
            recall: RefCell::default(),
            asked: RefCell::default(),
            numbers: RefCell::default(),
            stats: RefCell::default(),
            counted: RefCell::default(),
            context: Cell::new(std::ptr::null_mut()),
        }
    }

    /// Makes the statements that are planned and run until the guard is dropped use this session.
    /// The planner hook was installed when the flow was loaded.
    pub fn begin(self: &Rc<MemoSession>) -> MemoSessionGuard {
        MemoSessionGuard(NOW.replace(Some(self.clone())))
    }

    /// Returns the function whose results have this id.
    pub fn function(&self, id: FunctionId) -> Option<&Rc<MemoFunction>> {
        self.functions.values().find(|k| k.id == Some(id)).map(|k| &k.function)
    }

    /// Returns the functions whose results can expire, and the times from which results count.
    pub fn expiring(&self) -> (Vec<i32>, Vec<i64>) {
        let known = self.functions.values();
        known.filter_map(|known| Some((known.id?.0, known.since?))).unzip()
    }

    /// Adds to the statistics of a function's calls.
    pub fn count(&self, function: FunctionId, more: Stats) {
        *self.stats.borrow_mut().entry(function).or_default() += more;
    }

    /// Copies a value, which then lives as long as the missing results.
    ///
    /// # Safety
    /// The datum has a type of this length, passed by value or by reference as `by_value` says.
    pub unsafe fn copy(&self, datum: pg_sys::Datum, by_value: bool, length: i16) -> pg_sys::Datum {
        // SAFETY: the context is created once, and lives until the session is dropped.
        unsafe {
            if self.context.get().is_null() {
                self.context.set(pg_sys::AllocSetContextCreateExtended(
                    pg_sys::TopMemoryContext,
                    c"coco memo".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                ));
            }
            let before = pg_sys::MemoryContextSwitchTo(self.context.get());
            let copy = match length {
                // Copied with its TOAST data, because the table may no longer have that data when
                // the copy is used.
                -1 => pg_sys::Datum::from(pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr())),
                _ if by_value => datum,
                -2 => pg_sys::Datum::from(pg_sys::pstrdup(datum.cast_mut_ptr())),
                length => {
                    let copy = pg_sys::palloc(length.max(0) as usize).cast::<u8>();
                    let from = datum.cast_mut_ptr::<u8>();
                    std::ptr::copy_nonoverlapping(from, copy, length.max(0) as usize);
                    pg_sys::Datum::from(copy)
                }
            };
            pg_sys::MemoryContextSwitchTo(before);
            copy
        }
    }

    /// Discards the missing results and their arguments.
    pub fn answered(&self) {
        self.asked.borrow_mut().clear();
        if !self.context.get().is_null() {
            // SAFETY: created in `copy`; nothing points into the context any more.
            unsafe { pg_sys::MemoryContextReset(self.context.get()) };
        }
    }
}

impl Drop for MemoSession {
    fn drop(&mut self) {
        if !self.context.get().is_null() {
            // SAFETY: created in `copy`, as a child of a context that is never reset.
            unsafe { pg_sys::MemoryContextDelete(self.context.get()) };
        }
    }
}

/// While this guard exists, statements use its session.
pub struct MemoSessionGuard(Option<Rc<MemoSession>>);

impl Drop for MemoSessionGuard {
    fn drop(&mut self) {
        NOW.replace(self.0.take());
    }
}

/// Returns the session that statements currently use.
pub fn now() -> Option<Rc<MemoSession>> {
    NOW.with(|now| now.borrow().clone())
}

/// Returns the memoized functions of the current session, and the OID of `coco_internal.memo_call`, which
/// replaces their calls.
pub fn functions() -> Option<(Rc<HashSet<pg_sys::Oid>>, pg_sys::Oid)> {
    NOW.with(|now| now.borrow().as_ref().map(|r| (r.oids.clone(), r.call)))
}
