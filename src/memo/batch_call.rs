//! Calls of a batch function: a function over arrays that computes many results of a memoized
//! function at once.
//!
//! coco checks the batch function before each use, because it may have changed since
//! `coco.memoize`: its owner, its argument types and its result type. If it does not match, coco
//! does not call it. coco checks the returned array, too.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::catalog::memo_function::MemoFunction;
use crate::memo::registration;
use crate::memo::session::CallArguments;
use crate::pg::error::{Error, Result};
use crate::pg::fmgr;
use crate::pg::value_codec::Codec;
use coco_core::memo_batch::{ComputedResult, EntryIndex};

/// A batch function that currently matches its memoized function.
pub struct BatchCall {
    oid: pg_sys::Oid,
    /// The element types of the arrays that it takes, and of the array that it returns.
    arguments: Vec<pg_sys::Oid>,
    result: pg_sys::Oid,
}

impl BatchCall {
    /// Checks the batch function of a function. `owner` must own it.
    pub fn of(
        function: &MemoFunction,
        batch: pg_sys::Oid,
        owner: pg_sys::Oid,
    ) -> Result<BatchCall> {
        if batch == pg_sys::InvalidOid {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                format!("the batch function of {} no longer exists", function.name),
            )
            .hint("Create the batch function again, or memoize the function without it."));
        }
        let fitting = registration::fitting(function.oid, batch).map_err(|error| Error {
            message: format!(
                "could not use the batch function of {}: {}",
                function.name, error.message
            ),
            ..error
        })?;
        if fitting.owner != owner {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_FUNCTION_DEFINITION,
                format!(
                    "the batch function of {} has another owner than when it was registered",
                    function.name
                ),
            )
            .hint("If this is intended, memoize the function again."));
        }
        Ok(BatchCall { oid: batch, arguments: fitting.arguments, result: fitting.result })
    }

    /// Calls the batch function with all inputs at once. Returns a result for each.
    pub fn call(
        &self,
        function: &MemoFunction,
        asked: &[(EntryIndex, CallArguments)],
    ) -> Result<Vec<ComputedResult>> {
        let fits = |asked: &CallArguments| {
            asked.result == self.result
                && *asked.types == *self.arguments
                && asked.values.len() == self.arguments.len()
        };
        if !asked.iter().all(|(_, asked)| fits(asked)) {
            return Err(wrong(function, "takes or returns other types than the call in the query"));
        }
        // SAFETY: the function takes an array of each of the values' types, as checked above and by
        // `of`. By its declaration it returns an array.
        unsafe {
            let mut codec = Codec::of(self.result, pg_sys::CurrentMemoryContext)?;
            let mut arrays = Vec::with_capacity(self.arguments.len());
            for (n, element) in self.arguments.iter().enumerate() {
                let values: Vec<_> =
                    asked.iter().map(|(_, a)| a.values.get(n).copied().flatten()).collect();
                arrays.push(Some(make_array(*element, &values)));
            }
            let mut info = pg_sys::FmgrInfo::default();
            pg_sys::fmgr_info(self.oid, &mut info);
            let results = match fmgr::invoke(&mut info, pg_sys::DEFAULT_COLLATION_OID, &arrays) {
                None => vec![],
                Some(array) => elements(function, self.result, array)?,
            };
            if results.len() != asked.len() {
                let (returned, given) = (results.len(), asked.len());
                return Err(wrong(
                    function,
                    &format!("returned {returned} results for {given} inputs"),
                ));
            }
            Ok(results.into_iter().map(|value| codec.keep(value)).collect())
        }
    }
}

fn wrong(function: &MemoFunction, what: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_E_R_I_E_SRF_PROTOCOL_VIOLATED,
        format!("the batch function of {} {what}", function.name),
    )
    .hint("Return an array with one result for each input, in the same order.")
}

unsafe fn make_array(element: pg_sys::Oid, values: &[Option<pg_sys::Datum>]) -> pg_sys::Datum {
    // SAFETY: the caller's values have the element type; both lists have the length that is passed.
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

/// Returns the elements of an array. Fails unless the array is a list of values of this type.
unsafe fn elements(
    function: &MemoFunction,
    element: pg_sys::Oid,
    array: pg_sys::Datum,
) -> Result<Vec<Option<pg_sys::Datum>>> {
    // SAFETY: by the declaration of the function that returned it, the datum is an array. The
    // elements are read as values of the type that the array's header names.
    unsafe {
        let plain = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        if (*plain).elemtype != element {
            return Err(wrong(function, "returned an array of another type"));
        }
        if !matches!((*plain).ndim, 0 | 1) {
            let dimensions = (*plain).ndim;
            return Err(wrong(function, &format!("returned an array of {dimensions} dimensions")));
        }
        let (mut length, mut by_value, mut align) = (0i16, false, 0);
        pg_sys::get_typlenbyvalalign(element, &mut length, &mut by_value, &mut align);
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
        Ok((0..count.max(0) as usize).map(|n| (!*nulls.add(n)).then_some(*values.add(n))).collect())
    }
}
