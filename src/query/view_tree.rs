//! The tree of a bound query, as the query's view keeps it.

use pgrx::PgList;
use pgrx::pg_sys;

use crate::pg::error::{Error, Result};
use crate::pg::spi;
use crate::query::parse_analysis::c_string;

/// Returns the tree that a view keeps, for inspection only.
///
/// Takes no lock and waits for nobody, so another session may alter the objects that the tree
/// refers to.
pub fn read_bound_query(view: pg_sys::Oid) -> Result<*mut pg_sys::Query> {
    let action = spi::scalar::<String>(
        "select ev_action::pg_catalog.text from pg_catalog.pg_rewrite
          where ev_class operator(pg_catalog.=) $1 and ev_type operator(pg_catalog.=) '1'",
        &[spi::arg(view)],
    )?;
    let gone = || Error::internal("relation of a flow's query is not a view");
    let action = c_string(&action.ok_or_else(gone)?)?;
    // SAFETY: the catalog stores a rule as a list of queries, in the format that `stringToNode`
    // reads.
    unsafe {
        let list = pg_sys::stringToNode(action.as_ptr()).cast::<pg_sys::List>();
        let queries = PgList::<pg_sys::Query>::from_pg(list);
        queries.get_ptr(0).ok_or_else(gone)
    }
}

/// Returns a copy of the tree that a view keeps, for execution: takes the locks that execution
/// needs.
pub fn of_view(view: pg_sys::Oid) -> Result<*mut pg_sys::Query> {
    // SAFETY: the view is locked while it is open, and the lock stays until the transaction ends.
    // The tree is copied. Locks on the relations in the tree are taken as the rewriter takes them.
    unsafe {
        let relation = pg_sys::relation_open(view, pg_sys::AccessShareLock as i32);
        let is_view = (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_VIEW;
        let tree = match is_view && !(*relation).rd_rules.is_null() {
            true => pg_sys::copyObjectImpl(pg_sys::get_view_query(relation).cast()),
            false => std::ptr::null_mut(),
        };
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        if tree.is_null() {
            return Err(Error::internal("relation of a flow's query is not a view"));
        }
        let tree = tree.cast::<pg_sys::Query>();
        pg_sys::AcquireRewriteLocks(tree, true, false);
        Ok(tree)
    }
}

/// Returns a copy of the tree that a view keeps, for another view to keep.
pub fn copy_for_view(view: pg_sys::Oid) -> Result<*mut pg_sys::Query> {
    let tree = of_view(view)?;
    // Before PostgreSQL 16, the first two entries of a view's tree stand for the view itself, and
    // the server adds such entries to each view that it creates.
    #[cfg(feature = "pg15")]
    // SAFETY: the tree is a copy, and has these two entries.
    unsafe {
        (*tree).rtable = pg_sys::list_copy_tail((*tree).rtable, 2);
        pg_sys::OffsetVarNodes(tree.cast(), -2, 0);
    }
    Ok(tree)
}
