//! Decides whether a query quickly returns exactly one row for each item.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::c_void;

use crate::catalog::model::{BoundView, Source};
use crate::pg::error::Result;
use crate::query::{view_tree, walker};

/// Reports whether the query returns one row for each item, whatever the items are. Such a query
/// computes only expressions of the source's own columns, with PostgreSQL's built-in functions.
/// Returns `false` if this is not known.
///
/// (Other functions can take so long that the update's progress is worth reporting. In that case
/// the caller must first know the number of items.)
pub fn of_each(query: &BoundView, source: &Source) -> Result<bool> {
    if source.grouped || query.places.as_ref() != [source.id] {
        return Ok(false);
    }
    // SAFETY: an analyzed tree, whose entries match their kinds.
    Ok(unsafe { keeps(view_tree::read_bound_query(query.view)?, source) })
}

/// Reports whether a query returns one row for each row of the source.
unsafe fn keeps(query: *mut pg_sys::Query, source: &Source) -> bool {
    // SAFETY: `query` is an analyzed tree, or a subquery of one.
    unsafe {
        let q = &*query;
        let lists = [q.groupClause, q.groupingSets, q.distinctClause, q.cteList, q.rowMarks];
        let nodes = [q.setOperations, q.havingQual, q.limitCount, q.limitOffset];
        if q.hasAggs
            || q.hasTargetSRFs
            || q.hasSubLinks
            || walker::visit(q.targetList.cast(), Some(calls_others), std::ptr::null_mut())
            || lists.iter().any(|list| !list.is_null())
            || nodes.iter().any(|node| !node.is_null())
        {
            return false;
        }
        let Some(entry) = only(q).filter(|_| (*q.jointree).quals.is_null()) else { return false };
        match (*entry).rtekind {
            pg_sys::RTEKind::RTE_RELATION => (*entry).relid == source.relation,
            pg_sys::RTEKind::RTE_SUBQUERY => keeps((*entry).subquery, source),
            _ => false,
        }
    }
}

/// Reports whether an expression calls a function that is not built in, or that is volatile.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn calls_others(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: an analyzed expression.
    unsafe {
        if pg_sys::check_functions_in_node(node, Some(is_others), context) {
            return true;
        }
        walker::walk_expression(node, Some(calls_others), context)
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn is_others(function: pg_sys::Oid, _context: *mut c_void) -> bool {
    function.to_u32() >= pg_sys::FirstNormalObjectId
        // SAFETY: a lookup of an existing function.
        || unsafe { pg_sys::func_volatile(function) } as u8 == pg_sys::PROVOLATILE_VOLATILE
}

/// Returns the only relation that a query reads in FROM.
unsafe fn only(query: &pg_sys::Query) -> Option<*mut pg_sys::RangeTblEntry> {
    // SAFETY: the caller passes a query of an analyzed tree.
    unsafe {
        let from = PgList::<pg_sys::Node>::from_pg((*query.jointree).fromlist);
        let node = from.get_ptr(0).filter(|_| from.len() == 1)?;
        if (*node).type_ != NodeTag::T_RangeTblRef {
            return None;
        }
        let place = usize::try_from((*node.cast::<pg_sys::RangeTblRef>()).rtindex - 1).ok()?;
        PgList::<pg_sys::RangeTblEntry>::from_pg(query.rtable).get_ptr(place)
    }
}
