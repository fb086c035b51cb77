//! A call of a memoized function as the planner sees it:
//! `coco_internal.memo_call(item, function, call, arguments…)`.

use pgrx::{PgList, pg_sys};
use std::rc::Rc;

use crate::memo::session::{self, CallArguments, MemoSession, OnMiss};
use crate::memo::{counted_misses, reuse, store};
use crate::pg::datum_bytes::{self, DatumEncoding};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};
use crate::pg::value_codec::Codec;
use crate::pg::{fmgr, subtransaction};
use coco_core::fingerprint::Hasher;
use coco_core::memo_batch::{EntryIndex, FunctionId, MemoError, State, Stats};

/// Bytes. The size of the results that a session keeps in memory if it stores none.
const AT_HAND: usize = 64 * 1024 * 1024;

/// The number of arguments before the function's own ones.
const OWN: usize = 3;

/// What coco looks up once about a call in a query.
struct CallSite {
    function: pg_sys::Oid,
    strict: bool,
    arguments: Vec<Argument>,
    /// Bytes that distinguish calls of one function that can have different results for the same
    /// input: with other argument types or under another collation.
    kind: Vec<u8>,
    /// The types of the arguments, and of the result.
    types: Rc<[pg_sys::Oid]>,
    result: pg_sys::Oid,
    codec: Codec,
    /// The memoized function itself.
    own: pg_sys::FmgrInfo,
}

struct Argument {
    by: DatumEncoding,
    by_value: bool,
    length: i16,
}

/// Returns the stored result of a call. If there is none, notes the call as missing and returns
/// NULL, or computes the result, as the session says.
///
/// # Safety
/// `fcinfo` belongs to a call in progress.
pub unsafe fn recall(fcinfo: pg_sys::FunctionCallInfo) -> Result<Option<pg_sys::Datum>> {
    // SAFETY: Postgres calls functions of language C in this way.
    unsafe {
        let count = (*fcinfo).nargs as usize;
        // Only the planner hook can call this function with more arguments.
        if count < OWN {
            return Ok(None);
        }
        let info = (*fcinfo).flinfo;
        if (*info).fn_extra.is_null() {
            let site = CallSite::of(fcinfo)?;
            (*info).fn_extra =
                pgrx::PgMemoryContexts::For((*info).fn_mcxt).leak_and_drop_on_delete(site).cast();
        }
        let site = &mut *(*info).fn_extra.cast::<CallSite>();
        let all = (*fcinfo).args.as_slice(count);
        let own: Vec<Option<pg_sys::Datum>> =
            all[OWN..].iter().map(|a| (!a.isnull).then_some(a.value)).collect();
        if site.strict && own.iter().any(Option::is_none) {
            return Ok(None);
        }
        let known = session::now().and_then(|r| {
            let known = r.functions.get(&site.function)?;
            let (id, provided) = (known.id?, known.function.kind.is_provided());
            Some((r, id, provided))
        });
        let Some((recalling, id, provided)) = known else {
            return Ok(site.compute(fcinfo, &own));
        };
        // A NULL input needs no request to a provider.
        if provided && own.first().is_some_and(Option::is_none) {
            return Ok(None);
        }
        let item = match all[0].isnull {
            true => None,
            false => usize::try_from(all[0].value.value() as i32)
                .ok()
                .and_then(|n| recalling.numbers.borrow().get(n).copied()),
        };
        let number = all[2].value.value() as i32;
        site.recalled(&recalling, id, fcinfo, item, number, &own)
    }
}

impl CallSite {
    unsafe fn of(fcinfo: pg_sys::FunctionCallInfo) -> Result<CallSite> {
        // SAFETY: `fcinfo` belongs to a call in progress, and has as many arguments as it says. The
        // call's expression is null or a function call, because `rewrite_calls` makes no other
        // node.
        unsafe {
            let info = (*fcinfo).flinfo;
            let count = (*fcinfo).nargs as usize;
            let args = (*fcinfo).args.as_slice(count);
            let call = (*info).fn_expr.cast::<pg_sys::FuncExpr>();
            if call.is_null() || args[1].isnull {
                return Err(Error::internal(
                    "call of a memoized function was not rewritten by the planner hook",
                ));
            }
            let function = pg_sys::Oid::from(args[1].value.value() as u32);
            may_execute(function)?;
            let context = (*info).fn_mcxt;
            let mut own = pg_sys::FmgrInfo::default();
            pg_sys::fmgr_info_cxt(function, &mut own, context);
            let before = pg_sys::MemoryContextSwitchTo(context);
            let list = PgList::<pg_sys::Node>::from_pg((*call).args);
            let mut theirs = PgList::<pg_sys::Node>::new();
            for argument in list.iter_ptr().skip(OWN) {
                theirs.push(argument);
            }
            let expression = pg_sys::makeFuncExpr(
                function,
                (*call).funcresulttype,
                theirs.into_pg(),
                (*call).funccollid,
                (*call).inputcollid,
                (*call).funcformat,
            );
            (*expression).funcvariadic = (*call).funcvariadic;
            own.fn_expr = expression.cast();
            pg_sys::MemoryContextSwitchTo(before);

            let mut kind = Vec::new();
            let mut arguments = Vec::new();
            let types: Rc<[pg_sys::Oid]> =
                (OWN..count).map(|n| pg_sys::get_fn_expr_argtype(info, n as i32)).collect();
            for type_oid in types.iter().copied() {
                let (mut length, mut by_value) = (0i16, false);
                pg_sys::get_typlenbyval(type_oid, &mut length, &mut by_value);
                arguments.push(Argument { by: datum_bytes::by(type_oid), by_value, length });
            }
            if is_polymorphic(function) {
                for type_oid in types.iter().copied() {
                    let name = pg_sys::format_type_be_qualified(type_oid);
                    kind.extend(std::ffi::CStr::from_ptr(name).to_bytes_with_nul());
                }
            }
            let collation = (*call).inputcollid;
            if collation != pg_sys::InvalidOid && collation != pg_sys::DEFAULT_COLLATION_OID {
                let name = pg_sys::get_collation_name(collation);
                if !name.is_null() {
                    kind.extend(std::ffi::CStr::from_ptr(name).to_bytes_with_nul());
                }
            }
            Ok(CallSite {
                function,
                strict: own.fn_strict,
                arguments,
                kind,
                types,
                result: (*call).funcresulttype,
                codec: Codec::of((*call).funcresulttype, context)?,
                own,
            })
        }
    }

    unsafe fn recalled(
        &mut self,
        recalling: &MemoSession,
        id: FunctionId,
        fcinfo: pg_sys::FunctionCallInfo,
        item: Option<usize>,
        number: i32,
        own: &[Option<pg_sys::Datum>],
    ) -> Result<Option<pg_sys::Datum>> {
        let mut input = self.kind.clone();
        for (argument, value) in self.arguments.iter().zip(own) {
            // SAFETY: the call's arguments have the types with which it was planned.
            unsafe { datum_bytes::read(&mut input, argument.by, *value) };
        }
        let hash = Hasher::new().part(&input).finish().0;
        let mut half = [0; 8];
        half.copy_from_slice(&hash[..8]);
        let fingerprint = i64::from_le_bytes(half);
        let stores_none = recalling.missing != OnMiss::Suspends;
        if stores_none {
            recalling.recall.borrow_mut().clear_if_larger_than(AT_HAND);
        }
        let place = recalling.recall.borrow_mut().entry(id, fingerprint, &input);
        if stores_none && recalling.recall.borrow().get(place).state == State::Asked {
            let found = store::find(recalling, &[(id, fingerprint)])?;
            {
                let mut recall = recalling.recall.borrow_mut();
                found.into_iter().for_each(|entry| recall.load(entry));
            }
            reuse::load_reusable(recalling, &[place])?;
            let mut recall = recalling.recall.borrow_mut();
            if recall.get(place).state == State::Asked {
                recall.set_state(place, State::Absent);
            }
        }
        let known = recalling.recall.borrow_mut().result(place, &self.codec.kind().0);
        if let Some(result) = known {
            if recalling.missing == OnMiss::Counts {
                recalling.count(id, Stats { calls: 1, ..Stats::default() });
            }
            if let Some(item) = item {
                recalling.recall.borrow_mut().record_use(item, place);
            }
            // SAFETY: in the transaction of the call.
            return result.map(|bytes| unsafe { self.codec.read(&bytes) }).transpose();
        }
        let state = match recalling.recall.borrow().get(place).state.clone() {
            // The stored result had a wrong seal.
            State::Asked if stores_none => State::Absent,
            state => state,
        };
        match state {
            State::Known(_) => Err(Error::internal("stored result was not used")),
            State::Failed(fault) => Err(raised(fault)),
            State::Absent if recalling.missing == OnMiss::Counts => {
                let values = own.to_vec();
                let arguments =
                    CallArguments { values, types: Rc::clone(&self.types), result: self.result };
                counted_misses::count_miss(recalling, (id, fingerprint), input.len(), &arguments);
                Ok(None)
            }
            State::Absent => {
                let began = std::time::Instant::now();
                // Counts as an error until the function returns.
                recalling.count(id, Stats { errors: 1, ..Stats::default() });
                // SAFETY: the function's own arguments.
                let value = unsafe { self.compute(fcinfo, own) };
                // SAFETY: the value has the type that the function returns.
                let kept = unsafe { self.codec.keep(value) };
                recalling.count(
                    id,
                    Stats {
                        errors: -1,
                        misses: 1,
                        requests: 1,
                        bytes: kept.result.as_ref().map_or(0, |b| b.len() as i64),
                        micros: began.elapsed().as_micros() as i64,
                        ..Stats::default()
                    },
                );
                let mut recall = recalling.recall.borrow_mut();
                recall.set_computed(place, kept);
                if let Some(item) = item {
                    recall.record_use(item, place);
                }
                Ok(value)
            }
            // SAFETY: the function's own arguments.
            State::Asked if item.is_none() => Ok(unsafe { self.compute(fcinfo, own) }),
            State::Asked => {
                self.ask(recalling, place, item, number, own);
                Ok(None)
            }
        }
    }

    /// Notes a missing result, with a copy of the arguments.
    fn ask(
        &self,
        recalling: &MemoSession,
        place: EntryIndex,
        item: Option<usize>,
        number: i32,
        own: &[Option<pg_sys::Datum>],
    ) {
        let asks = item.is_some_and(|item| recalling.recall.borrow_mut().record_miss(item, number));
        if !asks || recalling.asked.borrow().contains_key(&place) {
            return;
        }
        let values = self
            .arguments
            .iter()
            .zip(own)
            // SAFETY: the arguments have the types that were looked up.
            .map(|(a, v)| v.map(|v| unsafe { recalling.copy(v, a.by_value, a.length) }))
            .collect();
        let arguments =
            CallArguments { values, types: Rc::clone(&self.types), result: self.result };
        recalling.asked.borrow_mut().insert(place, arguments);
    }

    /// Calls the memoized function itself.
    unsafe fn compute(
        &mut self,
        fcinfo: pg_sys::FunctionCallInfo,
        own: &[Option<pg_sys::Datum>],
    ) -> Option<pg_sys::Datum> {
        // SAFETY: the function was looked up for these arguments.
        unsafe { fmgr::invoke(&mut self.own, (*fcinfo).fncollation, own) }
    }
}

/// Checks the right to execute a function. Postgres does not check it, because the query calls
/// `coco_internal.memo_call` instead.
pub fn may_execute(function: pg_sys::Oid) -> Result<()> {
    let denied = spi::scalar::<String>(
        "select $1::pg_catalog.oid::pg_catalog.regprocedure::pg_catalog.text
          where not pg_catalog.has_function_privilege($1, 'execute')",
        &[arg(function)],
    )?;
    match denied {
        None => Ok(()),
        Some(name) => Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for function {name}"),
        )
        .hint(format!("GRANT EXECUTE ON FUNCTION {name} TO the flow's owner."))),
    }
}

unsafe fn is_polymorphic(function: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup.
    unsafe {
        let mut types = std::ptr::null_mut();
        let mut count = 0;
        pg_sys::get_func_signature(function, &mut types, &mut count);
        std::slice::from_raw_parts(types, count.max(0) as usize)
            .iter()
            .any(|t| pg_sys::get_typtype(*t) as u8 == b'p')
    }
}

fn raised(fault: MemoError) -> Error {
    Error {
        code: subtransaction::sqlstate_code(&fault.sqlstate),
        message: fault.message,
        detail: fault.detail,
        hint: fault.hint,
    }
}
