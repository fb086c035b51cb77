//! Whether a query takes each row of its source by itself: then it may be run over all of them at once.

use std::ffi::CStr;

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};

use super::analysis::analysed_tree;
use super::error::Result;

/// Whether each row of a query comes from one row of its source, whatever others there are: it reads it once, and
/// joins it with nothing that it must be left out for. `sql` has the query in its FROM clause, and the source as a
/// CTE of this name. `false` where that is not known.
pub fn is_row_by_row(sql: &str, source: &str) -> Result<bool> {
    let tree = analysed_tree(sql)?;
    // SAFETY: an analysed tree: its entries and nodes are what their tags say.
    unsafe {
        let entries = PgList::<pg_sys::RangeTblEntry>::from_pg((*tree).rtable);
        let Some(query) = entries.get_ptr(0).filter(|_| entries.len() == 1) else {
            return Ok(false);
        };
        let is_query = (*query).rtekind == pg_sys::RTEKind::RTE_SUBQUERY;
        Ok(is_query && goes_row_by_row((*query).subquery, source, 1))
    }
}

/// The same of a query so many levels below the CTE.
unsafe fn goes_row_by_row(query: *mut pg_sys::Query, source: &str, level: u32) -> bool {
    // SAFETY: as above.
    unsafe {
        let q = &*query;
        let puts_together = q.hasAggs || q.hasWindowFuncs || q.hasSubLinks;
        let lists = [q.groupClause, q.groupingSets, q.distinctClause, q.cteList, q.rowMarks];
        let nodes = [q.setOperations, q.havingQual, q.limitCount, q.limitOffset];
        if puts_together
            || lists.iter().any(|list| !list.is_null())
            || nodes.iter().any(|node| !node.is_null())
        {
            return false;
        }
        let mut at = None;
        let entries = PgList::<pg_sys::RangeTblEntry>::from_pg(q.rtable);
        for (entry, place) in entries.iter_ptr().zip(1..) {
            let reads_source = match (*entry).rtekind {
                pg_sys::RTEKind::RTE_RELATION
                | pg_sys::RTEKind::RTE_FUNCTION
                | pg_sys::RTEKind::RTE_VALUES
                | pg_sys::RTEKind::RTE_JOIN => continue,
                pg_sys::RTEKind::RTE_CTE => {
                    (*entry).ctelevelsup == level
                        && CStr::from_ptr((*entry).ctename).to_bytes() == source.as_bytes()
                }
                pg_sys::RTEKind::RTE_SUBQUERY => {
                    goes_row_by_row((*entry).subquery, source, level + 1)
                }
                _ => false,
            };
            if !reads_source || at.replace(place).is_some() {
                return false;
            }
        }
        at.is_some_and(|at| keeps_rows(q.jointree.cast(), at) == Some(true))
    }
}

/// Whether joins take a relation's rows one by one, and never leave one out that another has no match among them
/// for; `None` where it is not in this part.
unsafe fn keeps_rows(node: *mut pg_sys::Node, at: i32) -> Option<bool> {
    // SAFETY: a node of a join tree is one of these.
    unsafe {
        match (*node).type_ {
            NodeTag::T_RangeTblRef => {
                ((*node.cast::<pg_sys::RangeTblRef>()).rtindex == at).then_some(true)
            }
            NodeTag::T_FromExpr => {
                let from = (*node.cast::<pg_sys::FromExpr>()).fromlist;
                let parts = PgList::<pg_sys::Node>::from_pg(from);
                parts.iter_ptr().find_map(|part| keeps_rows(part, at))
            }
            NodeTag::T_JoinExpr => {
                let join = &*node.cast::<pg_sys::JoinExpr>();
                let inner = join.jointype == pg_sys::JoinType::JOIN_INNER;
                let left = keeps_rows(join.larg, at)
                    .map(|keeps| keeps && (inner || join.jointype == pg_sys::JoinType::JOIN_LEFT));
                let right = || {
                    keeps_rows(join.rarg, at).map(|keeps| {
                        keeps && (inner || join.jointype == pg_sys::JoinType::JOIN_RIGHT)
                    })
                };
                left.or_else(right)
            }
            _ => Some(false),
        }
    }
}
