//! `coco.clear_memo`: deletes results of memoized functions, those of flows and those that coco
//! keeps of dropped flows.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::catalog::{flow_rows, version_rows};
use crate::flows::load;
use crate::memo::kept::{KeptResults, clear_kept};
use crate::memo::store;
use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// Deletes the results of a flow and of its versions, and those kept of dropped flows of this name:
/// of one function, or of all. Returns how many.
pub fn clear_flow(name: &str, function: Option<pg_sys::Oid>) -> Result<i64> {
    let function = function.map(store::function_name).transpose()?;
    let function = function.as_deref();
    match flow_rows::identify_flow(name) {
        Ok(_) => {
            let flow = load::lock_for_update(name)?;
            let of = KeptResults { flow: Some(name), owner: Some(flow.owner), function };
            let mut deleted = store::forget(&flow, function)?;
            for version in version_rows::versions_of(flow.id)? {
                deleted += store::forget(&load::lock_for_update(&version.name)?, function)?;
            }
            Ok(deleted + clear_kept(&of)?.unwrap_or(0))
        }
        Err(missing) if missing.code == PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT => {
            let of = KeptResults { flow: Some(name), owner: None, function };
            clear_kept(&of)?.ok_or(missing)
        }
        Err(error) => Err(error),
    }
}

/// Deletes the results of a function in all flows of the current role, and those kept of its
/// dropped flows. Returns how many.
pub fn clear_function(function: pg_sys::Oid) -> Result<i64> {
    let function = store::function_name(function)?;
    let owner = acting_role::current();
    let flows = {
        let _as = RoleGuard::extension_owner()?;
        spi::select(
            "select f.flow from coco_internal.flow f
              where f.owner = $1
                and exists (select from coco_internal.memo_stats s where s.flow = f.flow and s.function = $2)
              order by f.id",
            &[arg(owner), arg(function.as_str())],
            |r| spi::required::<String>(r, 1),
        )?
    };
    let mut deleted = 0;
    for flow in flows {
        pgrx::check_for_interrupts!();
        let flow = load::lock_for_update(&flow)?;
        deleted += store::forget(&flow, Some(&function))?;
    }
    let of = KeptResults { flow: None, owner: Some(owner), function: Some(&function) };
    Ok(deleted + clear_kept(&of)?.unwrap_or(0))
}
