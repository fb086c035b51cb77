//! Decides whether a query processes each source row independently. If so, coco can run it over all
//! rows at once.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};

use crate::catalog::model::{BoundView, Flow, Source};
use crate::pg::error::Result;
use crate::query::view_tree;

/// Reports whether each row of a query's result comes from one row of its source, whatever other
/// rows exist. Such a query reads the source once, and never on the nullable side of an outer join.
/// Returns `false` if this is not known.
pub fn is_row_by_row(query: &BoundView, flow: &Flow, source: &Source) -> Result<bool> {
    if query.places.as_ref() != [source.id] || flow.sources.len() > 1 {
        return Ok(false);
    }
    // SAFETY: an analyzed tree, whose entries and nodes match their tags.
    Ok(unsafe { goes_row_by_row(view_tree::read_bound_query(query.view)?, source.relation) })
}

/// Reports the same of a query, or subquery, that reads the relation.
unsafe fn goes_row_by_row(query: *mut pg_sys::Query, relation: pg_sys::Oid) -> bool {
    // SAFETY: `query` is an analyzed tree, or a subquery of one.
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
                pg_sys::RTEKind::RTE_RELATION if (*entry).relid == relation => true,
                pg_sys::RTEKind::RTE_RELATION
                | pg_sys::RTEKind::RTE_FUNCTION
                | pg_sys::RTEKind::RTE_VALUES
                | pg_sys::RTEKind::RTE_JOIN => continue,
                pg_sys::RTEKind::RTE_SUBQUERY => goes_row_by_row((*entry).subquery, relation),
                _ => false,
            };
            if !reads_source || at.replace(place).is_some() {
                return false;
            }
        }
        at.is_some_and(|at| keeps_rows(q.jointree.cast(), at) == Some(true))
    }
}

/// Reports whether the joins process a relation's rows one by one: the relation is never on the
/// nullable side of an outer join, where a row of the other side without a match depends on all
/// rows. Returns `None` if this part of the tree does not contain the relation.
unsafe fn keeps_rows(node: *mut pg_sys::Node, at: i32) -> Option<bool> {
    // SAFETY: the nodes of a join tree have one of these types.
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
