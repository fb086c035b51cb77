//! Getting what is missing: out of the store, or computed, many results at a time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};

use super::call::may_execute;
use super::functions::{Function, Kind};
use super::provided;
use super::recalling::{Arguments, Recalling};
use super::{fmgr, store};
use crate::catalog::error::{Error, Result};
use crate::catalog::subtransaction::{Raised, subtransaction};
use crate::catalog::tuples::OneSnapshot;
use crate::engine::isolate::{Attempt, isolate};
use crate::engine::memo::{Bytes, Entry, Fault, FunctionId, Place, State, Stats};
use crate::engine::provider::Usage;

/// What a function was asked, and is not in the store.
pub type Asked = Vec<(Place, Arguments)>;

/// A result that was computed in this process, and is not committed yet.
pub struct Computed {
    pub flow: i32,
    pub function: Rc<Function>,
    pub entry: Entry,
}

/// What was done for a transaction, and cost something.
#[derive(Default)]
pub struct Done {
    pub computed: Vec<Computed>,
    /// At which server, and for which flow.
    pub spent: Vec<(String, i32, Usage)>,
}

thread_local! {
    static DONE: RefCell<Done> = RefCell::default();
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Finds or computes all that was asked for. Of what the query itself computes it only makes sure
/// that it is not in the store.
pub fn resolve(recalling: &Recalling) -> Result<()> {
    let asked = std::mem::take(&mut *recalling.asked.borrow_mut());
    let keys: Vec<(FunctionId, i64)> = {
        let recall = recalling.recall.borrow();
        asked.keys().map(|p| recall.get(*p)).map(|e| (e.function, e.fingerprint)).collect()
    };
    let found = {
        // What earlier batches have stored is there too.
        let _now = OneSnapshot::take();
        store::find(recalling, &keys)?
    };
    let mut left: BTreeMap<FunctionId, Asked> = BTreeMap::new();
    {
        let mut recall = recalling.recall.borrow_mut();
        found.into_iter().for_each(|entry| recall.load(entry));
        for (place, arguments) in asked {
            let entry = recall.get(place);
            if entry.state == State::Asked {
                left.entry(entry.function).or_default().push((place, arguments));
            }
        }
    }
    let mut provided = Vec::new();
    for (id, asked) in left {
        let function = recalling
            .function(id)
            .cloned()
            .ok_or_else(|| Error::internal("a function that is not memoised was asked"))?;
        match function.kind {
            Kind::Plain => {
                let mut recall = recalling.recall.borrow_mut();
                asked.iter().for_each(|(place, _)| recall.settle(*place, State::Absent));
            }
            Kind::Batch { function: batch, size } => {
                in_batches(recalling, id, &function, batch, size.max(1) as usize, &asked)?;
            }
            Kind::Embed | Kind::Generate | Kind::Post => provided.push((id, function, asked)),
        }
    }
    if !provided.is_empty() {
        provided::ask(recalling, provided)?;
    }
    recalling.answered();
    Ok(())
}

/// Notes a result, or why there is none.
pub fn settle(recalling: &Recalling, place: Place, result: std::result::Result<Bytes, Fault>) {
    let mut recall = recalling.recall.borrow_mut();
    let function = recall.get(place).function;
    let state = match result {
        Ok(bytes) => {
            let length = bytes.as_ref().map_or(0, |b| b.len() as i64);
            recalling.count(function, Stats { misses: 1, bytes: length, ..Stats::default() });
            State::Known(bytes)
        }
        Err(fault) => {
            recalling.count(function, Stats { errors: 1, ..Stats::default() });
            State::Failed(fault)
        }
    };
    recall.settle(place, state);
    let entry = recall.get(place).clone();
    if let (true, State::Known(_), Some(function)) =
        (WATCHED.get(), &entry.state, recalling.function(function))
    {
        let computed = Computed { flow: recalling.flow, function: Rc::clone(function), entry };
        DONE.with(|done| done.borrow_mut().computed.push(computed));
    }
}

/// Notes what was spent at a server for a flow.
pub fn spent(recalling: &Recalling, server: &str, usage: Usage) {
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
pub fn rolled_back() -> Done {
    DONE.take()
}

fn in_batches(
    recalling: &Recalling,
    id: FunctionId,
    function: &Rc<Function>,
    batch: pg_sys::Oid,
    size: usize,
    asked: &Asked,
) -> Result<()> {
    may_execute(batch)?;
    for asked in asked.chunks(size) {
        let began = Instant::now();
        let mut requests = 0;
        let mut attempt = |range: std::ops::Range<usize>| -> Result<Attempt<Raised>> {
            pgrx::check_for_interrupts!();
            requests += 1;
            let part = &asked[range];
            let work = || call(function, batch, part).map_err(Stop::Flow);
            match subtransaction(work, Stop::Raised) {
                Ok(results) => {
                    for ((place, _), result) in part.iter().zip(results) {
                        settle(recalling, *place, Ok(result));
                    }
                    Ok(Attempt::Done)
                }
                Err(Stop::Raised(raised)) => Ok(Attempt::Failed(raised)),
                Err(Stop::Flow(error)) => Err(error),
            }
        };
        isolate(0..asked.len(), &mut attempt, &mut |n, raised| {
            let fault = Fault {
                sqlstate: raised.sqlstate,
                message: raised.message,
                detail: raised.detail,
                hint: raised.hint,
            };
            settle(recalling, asked[n].0, Err(fault));
            Ok(())
        })?;
        let micros = began.elapsed().as_micros() as i64;
        recalling.count(id, Stats { requests, micros, ..Stats::default() });
    }
    Ok(())
}

enum Stop {
    Raised(Raised),
    Flow(Error),
}

/// Calls a function over arrays with all inputs at once.
fn call(
    function: &Function,
    batch: pg_sys::Oid,
    asked: &[(Place, Arguments)],
) -> Result<Vec<Bytes>> {
    let Some((_, first)) = asked.first() else { return Ok(vec![]) };
    let codec = first.result;
    // SAFETY: the batch function was checked to take an array for each argument of the function and to
    // return an array of its results; arrays are made of the arguments' own types.
    unsafe {
        let mut types = std::ptr::null_mut();
        let mut count = 0;
        pg_sys::get_func_signature(batch, &mut types, &mut count);
        let types = std::slice::from_raw_parts(types, count.max(0) as usize);
        let mut arrays = Vec::new();
        for (n, array) in types.iter().enumerate() {
            let element = pg_sys::get_element_type(*array);
            let values: Vec<_> =
                asked.iter().map(|(_, a)| a.values.get(n).copied().flatten()).collect();
            arrays.push(Some(make_array(element, &values)));
        }
        let mut info = pg_sys::FmgrInfo::default();
        pg_sys::fmgr_info(batch, &mut info);
        let result = fmgr::invoke(&mut info, pg_sys::DEFAULT_COLLATION_OID, &arrays);
        let results = match result {
            None => vec![],
            Some(array) => elements(codec.type_oid(), array),
        };
        if results.len() != asked.len() {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_E_R_I_E_SRF_PROTOCOL_VIOLATED,
                format!(
                    "the batch function of {} returned {} results for {} inputs",
                    function.name,
                    results.len(),
                    asked.len()
                ),
            )
            .hint("It has to return an array with one result for each input, in their order."));
        }
        Ok(results.into_iter().map(|value| codec.write(value)).collect())
    }
}

unsafe fn make_array(element: pg_sys::Oid, values: &[Option<pg_sys::Datum>]) -> pg_sys::Datum {
    unsafe {
        let (mut length, mut by_value, mut align) = (0i16, false, 0);
        pg_sys::get_typlenbyvalalign(element, &mut length, &mut by_value, &mut align);
        let mut datums: Vec<_> =
            values.iter().map(|v| v.unwrap_or(pg_sys::Datum::from(0usize))).collect();
        let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
        let (mut counts, mut from) = ([values.len() as i32], [1i32]);
        pg_sys::Datum::from(pg_sys::construct_md_array(
            datums.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            counts.as_mut_ptr(),
            from.as_mut_ptr(),
            element,
            i32::from(length),
            by_value,
            align,
        ))
    }
}

unsafe fn elements(element: pg_sys::Oid, array: pg_sys::Datum) -> Vec<Option<pg_sys::Datum>> {
    unsafe {
        let (mut length, mut by_value, mut align) = (0i16, false, 0);
        pg_sys::get_typlenbyvalalign(element, &mut length, &mut by_value, &mut align);
        let plain = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            plain,
            element,
            i32::from(length),
            by_value,
            align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        (0..count.max(0) as usize).map(|n| (!*nulls.add(n)).then_some(*values.add(n))).collect()
    }
}

/// A value of Rust's as a result's bytes.
pub fn bytes_of<T: IntoDatum>(codec: super::codec::Codec, value: T) -> Bytes {
    // SAFETY: the caller's value is of the function's result type.
    unsafe { codec.write(value.into_datum()) }
}
