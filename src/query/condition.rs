//! The condition of an expectation: the checks of the bound expression.
//!
//! Caller: `declare`.

use pgrx::PgList;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::columns;
use crate::pg::error::{Error, Result};
use crate::query::bound_query::Bound;

/// Checks that coco can evaluate a bound condition for each row alone: the only column of a query
/// over one row.
pub fn check_condition(bound: &Bound) -> Result<()> {
    // SAFETY: the tree was just created, and nobody else refers to it. Its list contains target
    // entries.
    unsafe {
        let tree = &*bound.tree;
        let constructs = [
            (tree.hasSubLinks, "a subquery"),
            (tree.hasAggs, "an aggregate"),
            (tree.hasWindowFuncs, "a window function"),
            (tree.hasTargetSRFs, "a set-returning function"),
        ];
        if let Some((_, construct)) = constructs.iter().find(|(is_used, _)| *is_used) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("argument \"condition\" contains {construct}"),
            )
            .detail("coco checks the condition for each row alone.")
            .hint("Compute the value in the flow's query, and name the query's column in the condition."));
        }
        let entries = PgList::<pg_sys::TargetEntry>::from_pg(tree.targetList);
        let entry = entries.get_ptr(0).ok_or_else(|| Error::internal("no target entry"))?;
        let expression = (*entry).expr.cast::<pg_sys::Node>();
        let type_oid = pg_sys::exprType(expression);
        if type_oid != pg_sys::BOOLOID {
            let column = columns::result_column(String::new(), type_oid, -1, pg_sys::InvalidOid)?;
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("argument \"condition\" has type {}, not boolean", column.type_name),
            ));
        }
        if pg_sys::contain_volatile_functions(expression) {
            return Err(Error::invalid("argument \"condition\" calls a volatile function").detail(
                "The same row could satisfy the condition at one time, and fail at another.",
            ));
        }
    }
    Ok(())
}
