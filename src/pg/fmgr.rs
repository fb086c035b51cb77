//! Calls a function by its OID.

use pgrx::pg_sys;

/// Calls a function with these arguments, under a collation.
///
/// # Safety
/// The arguments have the types that the function was looked up for.
pub unsafe fn invoke(
    function: &mut pg_sys::FmgrInfo,
    collation: pg_sys::Oid,
    arguments: &[Option<pg_sys::Datum>],
) -> Option<pg_sys::Datum> {
    // SAFETY: the call has the layout of FunctionCallInfoBaseData, with space for its arguments.
    unsafe {
        let own = function.fn_addr?;
        let size = std::mem::offset_of!(pg_sys::FunctionCallInfoBaseData, args)
            + arguments.len() * size_of::<pg_sys::NullableDatum>();
        let call = pg_sys::palloc0(size).cast::<pg_sys::FunctionCallInfoBaseData>();
        (*call).flinfo = function;
        (*call).fncollation = collation;
        (*call).nargs = arguments.len() as i16;
        let to = (*call).args.as_mut_slice(arguments.len());
        for (to, value) in to.iter_mut().zip(arguments) {
            to.isnull = value.is_none();
            to.value = value.unwrap_or(pg_sys::Datum::from(0usize));
        }
        let value = pg_sys::ffi::pg_guard_ffi_boundary(|| own(call));
        let isnull = (*call).isnull;
        pg_sys::pfree(call.cast());
        (!isnull).then_some(value)
    }
}
