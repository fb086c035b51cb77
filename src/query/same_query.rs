//! Compares bound queries: whether two analyzed trees are the same query, whatever their texts.
//!
//! Blanks, comments, and names that only label a FROM item do not count. Two trees with another
//! form never count as the same, even if they would return the same rows.
//!
//! Callers: `declare`, `inspect`.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::{CStr, c_void};

use crate::pg::error::Result;
use crate::query::bound_query::Bound;
use crate::query::parse_analysis::c_string;
use crate::query::walker;

/// Reports whether a query that was just bound is the query that a view keeps, with the same items.
pub fn is_same_query(fresh: &Bound, stored: &Bound) -> bool {
    if fresh.places != stored.places {
        return false;
    }
    // SAFETY: both trees are analyzed, and the copies are compared as nodes.
    unsafe {
        let (fresh, stored) = comparable(fresh.tree, stored.tree);
        pg_sys::equal(fresh.cast(), stored.cast())
    }
}

/// Reports whether a query that was just bound, and the query that a view keeps, compute a column
/// by the same expression. Both read the same single relation.
pub fn is_same_column(fresh: &Bound, stored: &Bound, name: &str) -> bool {
    // SAFETY: as above.
    unsafe {
        let (fresh, stored) = comparable(fresh.tree, stored.tree);
        match (column_of(fresh, name), column_of(stored, name)) {
            (Some(fresh), Some(stored)) => pg_sys::equal(fresh.cast(), stored.cast()),
            _ => false,
        }
    }
}

/// Gives the output columns of a query the names that they have in another query.
pub fn copy_column_names(from: &Bound, to: &Bound) {
    let columns = |query: &Bound| {
        // SAFETY: an analyzed tree, to which nobody else refers; the list contains target entries.
        unsafe {
            let all = PgList::<pg_sys::TargetEntry>::from_pg((*query.tree).targetList);
            all.iter_ptr().filter(|entry| !(**entry).resjunk).collect::<Vec<_>>()
        }
    };
    for (from, to) in columns(from).into_iter().zip(columns(to)) {
        // SAFETY: as above; trees may share names.
        unsafe { (*to).resname = (*from).resname };
    }
}

/// Names the output columns of a query that was just bound.
pub fn name_columns(query: &Bound, names: &[&str]) -> Result<()> {
    // SAFETY: an analyzed tree, to which nobody else refers; the list contains target entries.
    unsafe {
        let all = PgList::<pg_sys::TargetEntry>::from_pg((*query.tree).targetList);
        let shown = all.iter_ptr().filter(|entry| !(**entry).resjunk);
        for (entry, name) in shown.zip(names) {
            (*entry).resname = pg_sys::pstrdup(c_string(name)?.as_ptr());
        }
    }
    Ok(())
}

/// Returns the expression of an output column.
///
/// # Safety
/// `tree` is an analyzed tree. The expression is valid as long as the tree.
pub unsafe fn column_of(tree: *mut pg_sys::Query, name: &str) -> Option<*mut pg_sys::Expr> {
    // SAFETY: the list contains target entries, whose names are strings or null.
    unsafe {
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList);
        let named = |entry: &*mut pg_sys::TargetEntry| {
            let resname = (**entry).resname;
            !resname.is_null() && CStr::from_ptr(resname).to_bytes() == name.as_bytes()
        };
        entries.iter_ptr().find(named).map(|entry| (*entry).expr)
    }
}

/// Returns copies of two trees from which everything is removed that does not count.
unsafe fn comparable(
    fresh: *mut pg_sys::Query,
    stored: *mut pg_sys::Query,
) -> (*mut pg_sys::Query, *mut pg_sys::Query) {
    // SAFETY: the copies are walked and changed here alone.
    unsafe {
        let fresh = pg_sys::copyObjectImpl(fresh.cast()).cast::<pg_sys::Query>();
        let stored = pg_sys::copyObjectImpl(stored.cast()).cast::<pg_sys::Query>();
        #[cfg(feature = "pg15")]
        add_view_entries(fresh, stored);
        for tree in [fresh, stored] {
            walker::visit(tree.cast(), Some(strip), std::ptr::null_mut());
        }
        (fresh, stored)
    }
}

/// Adds the two entries for the view itself that a view's tree begins with before PostgreSQL 16.
#[cfg(feature = "pg15")]
unsafe fn add_view_entries(fresh: *mut pg_sys::Query, stored: *mut pg_sys::Query) {
    // SAFETY: both trees are copies, and entries may be shared between them.
    unsafe {
        pg_sys::OffsetVarNodes(fresh.cast(), 2, 0);
        let before = PgList::<pg_sys::RangeTblEntry>::from_pg((*stored).rtable);
        let after = PgList::<pg_sys::RangeTblEntry>::from_pg((*fresh).rtable);
        let mut all = PgList::<pg_sys::RangeTblEntry>::new();
        before.iter_ptr().take(2).chain(after.iter_ptr()).for_each(|entry| all.push(entry));
        (*fresh).rtable = all.into_pg();
    }
}

/// Visits a node of a tree: the callback of PostgreSQL's tree walkers. Returning `true` would end
/// the walk; it never does.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn strip(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node of an analyzed tree that belongs to this walk alone.
    unsafe {
        match (*node).type_ {
            NodeTag::T_Query => {
                let query = node.cast::<pg_sys::Query>();
                // Before PostgreSQL 17, `equal` compares the length of the text.
                (*query).stmt_len = 0;
                walker::walk_query(query, Some(strip), context, pg_sys::QTW_EXAMINE_RTES_BEFORE)
            }
            NodeTag::T_RangeTblEntry => {
                strip_names(&mut *node.cast::<pg_sys::RangeTblEntry>());
                false
            }
            _ => walker::walk_expression(node, Some(strip), context),
        }
    }
}

/// Removes the names of a FROM item that no result depends on. The names of columns stay if a row
/// of the item may become a record, whose fields have these names.
unsafe fn strip_names(entry: &mut pg_sys::RangeTblEntry) {
    // SAFETY: the pointers are null or alias nodes of the tree.
    unsafe {
        let has_alias = !entry.alias.is_null();
        let renames = has_alias && !(*entry.alias).colnames.is_null();
        let only_labels = !renames
            && match entry.rtekind {
                // A row of a relation has the relation's own type.
                pg_sys::RTEKind::RTE_RELATION => true,
                // Nothing refers to a row of a join without an alias.
                pg_sys::RTEKind::RTE_JOIN => !has_alias,
                #[cfg(feature = "pg18")]
                pg_sys::RTEKind::RTE_GROUP => true,
                _ => false,
            };
        match renames {
            true => (*entry.alias).aliasname = c"".as_ptr().cast_mut(),
            false => entry.alias = std::ptr::null_mut(),
        }
        match only_labels || entry.eref.is_null() {
            true => entry.eref = std::ptr::null_mut(),
            false => (*entry.eref).aliasname = c"".as_ptr().cast_mut(),
        }
    }
}
