//! What the calls of memoised functions find while a statement of a flow's runs.

use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use crate::catalog::memo_function::MemoFunction;
use crate::catalog::model::Flow;
use coco_core::memo::{FunctionId, Place, Recall, Stats};

/// What becomes of a call that has no result yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMiss {
    /// It is noted, and the item is evaluated again when there is one.
    Suspends,
    /// It is computed at once, and nothing is kept.
    Computes,
}

/// The memo of one flow, during one update or one look at it.
pub struct MemoSession {
    /// Those that its queries call, by their oid.
    pub functions: HashMap<pg_sys::Oid, KnownFunction>,
    oids: Rc<HashSet<pg_sys::Oid>>,
    /// `coco.memo_call`.
    call: pg_sys::Oid,
    /// The flow's id, and its owner.
    pub flow: i32,
    pub owner: pg_sys::Oid,
    /// Its table of results, quoted and schema-qualified; none where there is none yet.
    pub table: Option<String>,
    /// Results of before are not taken: microseconds since 1970.
    pub since: Option<i64>,
    pub missing: OnMiss,
    pub recall: RefCell<Recall>,
    /// What was asked for, with the arguments.
    pub asked: RefCell<BTreeMap<Place, CallArguments>>,
    /// The numbers, in the batch, of the items that are being evaluated.
    pub numbers: RefCell<Vec<usize>>,
    pub stats: RefCell<BTreeMap<FunctionId, Stats>>,
    /// Holds what was asked for.
    context: Cell<pg_sys::MemoryContext>,
}

/// A memoised function, and what its results are kept under.
#[derive(Clone, Debug)]
pub struct KnownFunction {
    pub function: Rc<MemoFunction>,
    /// None where nothing was ever kept of it.
    pub id: Option<FunctionId>,
}

/// Arguments that outlive the statement, until they are forgotten.
#[derive(Clone, Debug)]
pub struct CallArguments {
    pub values: Vec<Option<pg_sys::Datum>>,
    /// The types of the values, and that of the result.
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
            since,
            missing,
            recall: RefCell::default(),
            asked: RefCell::default(),
            numbers: RefCell::default(),
            stats: RefCell::default(),
            context: Cell::new(std::ptr::null_mut()),
        }
    }

    /// Makes the statements that are planned and run until it is dropped recall. The planner hook is there since the flow
    /// was loaded.
    pub fn begin(self: &Rc<MemoSession>) -> MemoSessionGuard {
        MemoSessionGuard(NOW.replace(Some(self.clone())))
    }

    /// The function that results of this number are of.
    pub fn function(&self, id: FunctionId) -> Option<&Rc<MemoFunction>> {
        self.functions.values().find(|k| k.id == Some(id)).map(|k| &k.function)
    }

    pub fn count(&self, function: FunctionId, more: Stats) {
        *self.stats.borrow_mut().entry(function).or_default() += more;
    }

    /// Keeps a value for as long as what was asked for is.
    ///
    /// # Safety
    /// The datum is of a type of this length, passed by value or not.
    pub unsafe fn copy(&self, datum: pg_sys::Datum, by_value: bool, length: i16) -> pg_sys::Datum {
        // SAFETY: the context is made once, and lives until this is dropped.
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
                // Whole: what it points at in a table may be gone when it is used.
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

    /// Forgets what was asked for, and its arguments.
    pub fn answered(&self) {
        self.asked.borrow_mut().clear();
        if !self.context.get().is_null() {
            // SAFETY: made in `copy`; nothing points into it any more.
            unsafe { pg_sys::MemoryContextReset(self.context.get()) };
        }
    }
}

impl Drop for MemoSession {
    fn drop(&mut self) {
        if !self.context.get().is_null() {
            // SAFETY: made in `copy`, below the context that is never reset.
            unsafe { pg_sys::MemoryContextDelete(self.context.get()) };
        }
    }
}

/// While it is there, statements recall.
pub struct MemoSessionGuard(Option<Rc<MemoSession>>);

impl Drop for MemoSessionGuard {
    fn drop(&mut self) {
        NOW.replace(self.0.take());
    }
}

/// What statements recall from at this moment.
pub fn now() -> Option<Rc<MemoSession>> {
    NOW.with(|now| now.borrow().clone())
}

/// The functions that calls are put in the place of, and what is put there.
pub fn functions() -> Option<(Rc<HashSet<pg_sys::Oid>>, pg_sys::Oid)> {
    NOW.with(|now| now.borrow().as_ref().map(|r| (r.oids.clone(), r.call)))
}
