//! The shadows of a composed statement, taken away before it is planned.
//!
//! A shadow is a CTE, since that is what an unqualified name in a user's text finds first. But Postgres never merges
//! a subquery that has CTEs with what is around it: it would be run anew for each item, by one process. So each
//! shadow is put where it is read, as a subquery: what Postgres makes of such a CTE in the end (`inline_cte` in
//! optimizer/plan/subselect.c). From there on it plans the user's query as if it had been written over the items.

use std::ffi::{CStr, c_void};

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};

use super::compose::OUTPUT;

unsafe extern "C-unwind" {
    // rewrite/rewriteManip.h; the same from 14 to 18, and not among pgrx's bindings.
    fn IncrementVarSublevelsUp(node: *mut pg_sys::Node, by: i32, least: i32);
}

/// Takes the shadows out of a statement that [`compose`](super::compose) has composed.
///
/// # Safety
/// An analysed query, which is the caller's to change.
pub unsafe fn see_through(query: *mut pg_sys::Query) {
    // SAFETY: entries are what their kinds say.
    unsafe {
        for entry in PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable).iter_ptr() {
            if (*entry).rtekind != pg_sys::RTEKind::RTE_SUBQUERY {
                continue;
            }
            // What is below that is the user's.
            match is_output(entry) {
                true => take_shadows((*entry).subquery),
                false => see_through((*entry).subquery),
            }
        }
    }
}

/// Whether a subquery is the user's query over an item, with the shadows.
unsafe fn is_output(entry: *mut pg_sys::RangeTblEntry) -> bool {
    // SAFETY: an entry for a subquery.
    unsafe {
        (*entry).lateral
            && !(*(*entry).subquery).cteList.is_null()
            && CStr::from_ptr((*(*entry).eref).aliasname).to_bytes() == OUTPUT.as_bytes()
    }
}

unsafe fn take_shadows(query: *mut pg_sys::Query) {
    // SAFETY: the list has what WITH has.
    unsafe {
        for shadow in PgList::<pg_sys::CommonTableExpr>::from_pg((*query).cteList).iter_ptr() {
            let mut walk = Walk { shadow, level: -1 };
            visit(query.cast(), (&raw mut walk).cast());
        }
        (*query).cteList = std::ptr::null_mut();
    }
}

struct Walk {
    shadow: *mut pg_sys::CommonTableExpr,
    /// How far the query that is walked is below the one that has the shadow.
    level: i32,
}

impl Walk {
    unsafe fn is_read_by(&self, entry: *mut pg_sys::RangeTblEntry) -> bool {
        // SAFETY: an entry for a CTE has a name.
        unsafe {
            (*entry).rtekind == pg_sys::RTEKind::RTE_CTE
                && i32::try_from((*entry).ctelevelsup) == Ok(self.level)
                && CStr::from_ptr((*entry).ctename) == CStr::from_ptr((*self.shadow).ctename)
        }
    }

    /// Makes an entry that reads the shadow one of a subquery.
    unsafe fn put_into(&self, entry: *mut pg_sys::RangeTblEntry) {
        // SAFETY: the shadow is a query; the copy is the entry's own.
        unsafe {
            let copy = pg_sys::copyObjectImpl((*self.shadow).ctequery.cast()).cast();
            if self.level > 0 {
                pg_sys::ffi::pg_guard_ffi_boundary(|| IncrementVarSublevelsUp(copy, self.level, 1));
            }
            let entry = &mut *entry;
            entry.rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
            entry.subquery = copy.cast();
            entry.security_barrier = false;
            entry.ctename = std::ptr::null_mut();
            entry.ctelevelsup = 0;
            entry.self_reference = false;
            entry.coltypes = std::ptr::null_mut();
            entry.coltypmods = std::ptr::null_mut();
            entry.colcollations = std::ptr::null_mut();
        }
    }
}

/// The walker Postgres calls for every node. `true` would end the walk; it never does.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the context is the Walk that started this, which is not otherwise used meanwhile.
    unsafe {
        match (*node).type_ {
            NodeTag::T_Query => {
                // Entries come last: what is put into one is not walked.
                let order = pg_sys::QTW_EXAMINE_RTES_AFTER as i32;
                (*context.cast::<Walk>()).level += 1;
                #[cfg(any(feature = "pg14", feature = "pg15"))]
                pg_sys::query_tree_walker(node.cast(), Some(visit), context, order);
                #[cfg(not(any(feature = "pg14", feature = "pg15")))]
                pg_sys::query_tree_walker_impl(node.cast(), Some(visit), context, order);
                (*context.cast::<Walk>()).level -= 1;
            }
            NodeTag::T_RangeTblEntry => {
                let walk = &*context.cast::<Walk>();
                if walk.is_read_by(node.cast()) {
                    walk.put_into(node.cast());
                }
            }
            _ => {
                #[cfg(any(feature = "pg14", feature = "pg15"))]
                pg_sys::expression_tree_walker(node, Some(visit), context);
                #[cfg(not(any(feature = "pg14", feature = "pg15")))]
                pg_sys::expression_tree_walker_impl(node, Some(visit), context);
            }
        }
        false
    }
}
