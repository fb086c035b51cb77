//! `coco_internal.capture`, the trigger function that fills change logs, and `coco_internal.before_drop`, the event
//! trigger function that runs before DROP EXTENSION.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::capture::{drop_extension, trigger_append};
use crate::memo::kept;
use crate::workers::commit_wakeup;

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_capture(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the trigger manager calls this function with a valid call in progress.
    match unsafe { trigger_append::capture(fcinfo) } {
        Ok(wrote) => {
            wrote.into_iter().for_each(commit_wakeup::wrote_log);
            pg_sys::Datum::from(0usize)
        }
        Err(error) => {
            ErrorReport::from(error).report(PgLogLevel::ERROR);
            pg_sys::Datum::from(0usize)
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_coco_capture() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_before_drop(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the event trigger manager calls this function with a valid call in progress.
    let drops_coco = unsafe { drop_extension::before(fcinfo) };
    let prepared = drops_coco.and_then(|drops| if drops { kept::drop_all() } else { Ok(()) });
    if let Err(error) = prepared {
        ErrorReport::from(error).report(PgLogLevel::ERROR);
    }
    pg_sys::Datum::from(0usize)
}

#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_coco_before_drop() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}
