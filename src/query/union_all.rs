//! UNION ALL in a query tree. Callers: `dependency_walk`, `bound_query`.

use pgrx::pg_sys::{self, NodeTag};
use pgrx::{PgList, is_a};

/// Reports whether a tree of set operations contains no other operation than UNION ALL. A null
/// pointer stands for a query without set operations.
///
/// # Safety
/// `node` is a node of an analyzed query, or null.
pub unsafe fn only_union_all(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller passes such a node; the code reads it as the type that its tag names.
    unsafe {
        if node.is_null() || !is_a(node, NodeTag::T_SetOperationStmt) {
            return true;
        }
        let set = node.cast::<pg_sys::SetOperationStmt>();
        (*set).op == pg_sys::SetOperation::SETOP_UNION
            && (*set).all
            && only_union_all((*set).larg)
            && only_union_all((*set).rarg)
    }
}

/// Returns the branches of a query that is a UNION ALL, and nothing for any other query.
///
/// # Safety
/// `query` is an analyzed query.
pub unsafe fn branches(query: *mut pg_sys::Query) -> Vec<*mut pg_sys::Query> {
    // SAFETY: the caller passes such a query, and its list contains the nodes that it is for.
    unsafe {
        if (*query).setOperations.is_null() || !only_union_all((*query).setOperations) {
            return vec![];
        }
        PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable)
            .iter_ptr()
            .filter(|entry| (**entry).rtekind == pg_sys::RTEKind::RTE_SUBQUERY)
            .map(|entry| (*entry).subquery)
            .collect()
    }
}
