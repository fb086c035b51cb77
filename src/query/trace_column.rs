//! Traces an expression of a bound query to the column of a relation from which its value comes.
//!
//! Callers: `joins`, `query_shape`, `analyze`.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::CStr;

/// What the origin of an expression has to guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracing {
    /// Each value is NULL, or the value of the column in a row that the query reads.
    Value,
    /// In addition, if the query keeps only results in which the expression has one of some values,
    /// then rows that have none of these values in the column do not matter.
    Restriction,
}

/// For each query between an expression and a column: the query, and the number of the entry in it.
/// At one moment of an evaluation, two expressions with the same path come from the same row.
pub type RowPath = Vec<(usize, usize)>;

/// The column from which an expression's value comes.
pub struct ColumnOrigin {
    /// An entry of the query that reads a relation.
    pub entry: *mut pg_sys::RangeTblEntry,
    pub column: i16,
    pub type_oid: pg_sys::Oid,
    pub collation: pg_sys::Oid,
    pub path: RowPath,
}

/// Returns an expression without changes of its type that keep its value.
///
/// # Safety
/// `node` is null or belongs to an analyzed tree.
pub unsafe fn without_labels(mut node: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: the code reads each node as the type that its tag names.
    unsafe {
        while !node.is_null() && (*node).type_ == NodeTag::T_RelabelType {
            node = (*node.cast::<pg_sys::RelabelType>()).arg.cast();
        }
    }
    node
}

/// Returns the origin of an expression of the innermost query of `stack`. `stack` contains the
/// queries around the expression, outermost first.
///
/// # Safety
/// `expression` and `stack` belong to one analyzed tree.
pub unsafe fn trace_column(
    expression: *mut pg_sys::Node,
    stack: &[*mut pg_sys::Query],
    how: Tracing,
) -> Option<ColumnOrigin> {
    // SAFETY: the caller upholds the same contract.
    unsafe { trace(expression, stack, how, RowPath::new()) }
}

/// Returns the origin of an output column of a subquery. `outer` are the queries around it.
///
/// # Safety
/// `inner` and `outer` belong to one analyzed tree.
pub unsafe fn trace_output(
    inner: *mut pg_sys::Query,
    number: i16,
    outer: &[*mut pg_sys::Query],
    how: Tracing,
) -> Option<ColumnOrigin> {
    // SAFETY: the caller upholds the same contract.
    unsafe { output(inner, number, outer, how, RowPath::new()) }
}

unsafe fn trace(
    expression: *mut pg_sys::Node,
    stack: &[*mut pg_sys::Query],
    how: Tracing,
    mut path: RowPath,
) -> Option<ColumnOrigin> {
    // SAFETY: the code reads each node as the type that its tag names, and `stack` contains the
    // queries around the node.
    unsafe {
        pg_sys::check_stack_depth();
        let node = without_labels(expression);
        if node.is_null() || (*node).type_ != NodeTag::T_Var {
            return None;
        }
        let var = node.cast::<pg_sys::Var>();
        let column = (*var).varattno;
        let up = (*var).varlevelsup as usize;
        // A restriction of an outer query's column does not restrict the rows of this query.
        if column <= 0 || (how == Tracing::Restriction && up > 0) {
            return None;
        }
        let level = stack.len().checked_sub(1 + up)?;
        let here = &stack[..=level];
        let entry = range_entry(stack[level], (*var).varno)?;
        let place = (stack[level] as usize, usize::try_from((*var).varno).ok()?);
        match (*entry).rtekind {
            pg_sys::RTEKind::RTE_RELATION => {
                path.push(place);
                let (type_oid, collation) = ((*var).vartype, (*var).varcollid);
                Some(ColumnOrigin { entry, column, type_oid, collation, path })
            }
            pg_sys::RTEKind::RTE_SUBQUERY => {
                path.push(place);
                output((*entry).subquery, column, here, how, path)
            }
            pg_sys::RTEKind::RTE_CTE => {
                path.push(place);
                let outer = level.checked_sub((*entry).ctelevelsup as usize)?;
                let ctes = PgList::<pg_sys::CommonTableExpr>::from_pg((*stack[outer]).cteList);
                let name = CStr::from_ptr((*entry).ctename);
                let cte = ctes.iter_ptr().find(|c| CStr::from_ptr((**c).ctename) == name)?;
                // Another reference to the expression may need the other rows.
                if (*cte).cterecursive
                    || (how == Tracing::Restriction && (*cte).cterefcount != 1)
                    || (*(*cte).ctequery).type_ != NodeTag::T_Query
                {
                    return None;
                }
                output((*cte).ctequery.cast(), column, &stack[..=outer], how, path)
            }
            pg_sys::RTEKind::RTE_JOIN => {
                let aliases = PgList::<pg_sys::Node>::from_pg((*entry).joinaliasvars);
                trace(aliases.get_ptr(column as usize - 1)?, here, how, path)
            }
            #[cfg(feature = "pg18")]
            pg_sys::RTEKind::RTE_GROUP => {
                let grouped = PgList::<pg_sys::Node>::from_pg((*entry).groupexprs);
                trace(grouped.get_ptr(column as usize - 1)?, here, how, path)
            }
            _ => None,
        }
    }
}

unsafe fn output(
    inner: *mut pg_sys::Query,
    number: i16,
    outer: &[*mut pg_sys::Query],
    how: Tracing,
    path: RowPath,
) -> Option<ColumnOrigin> {
    // SAFETY: as in `trace`.
    unsafe {
        if inner.is_null()
            || !(*inner).setOperations.is_null()
            || !(*inner).groupingSets.is_null()
            || number <= 0
        {
            return None;
        }
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*inner).targetList);
        let entry = entries.get_ptr(number as usize - 1)?;
        if how == Tracing::Restriction && !keeps_restriction(inner, entry) {
            return None;
        }
        trace((*entry).expr.cast(), &[outer, &[inner]].concat(), how, path)
    }
}

/// Reports whether a restriction of an output column of a query equals the same restriction of the
/// rows that the query reads.
unsafe fn keeps_restriction(query: *mut pg_sys::Query, entry: *mut pg_sys::TargetEntry) -> bool {
    // SAFETY: as in `trace`.
    unsafe {
        let query = &*query;
        if !query.limitCount.is_null()
            || !query.limitOffset.is_null()
            || query.hasWindowFuncs
            || query.hasTargetSRFs
            || query.hasDistinctOn
        {
            return false;
        }
        let is_grouped =
            query.hasAggs || !query.groupClause.is_null() || !query.havingQual.is_null();
        let groups = PgList::<pg_sys::SortGroupClause>::from_pg(query.groupClause);
        let reference = (*entry).ressortgroupref;
        !is_grouped
            || reference != 0
                && groups.iter_ptr().any(|group| (*group).tleSortGroupRef == reference)
    }
}

/// Returns the range table entry that a Var refers to. The number is unsigned in PostgreSQL 14 and
/// signed in later versions.
///
/// # Safety
/// The server has analyzed the query.
pub unsafe fn range_entry(
    query: *mut pg_sys::Query,
    number: impl TryInto<usize>,
) -> Option<*mut pg_sys::RangeTblEntry> {
    let place = number.try_into().ok()?.checked_sub(1)?;
    // SAFETY: an entry that does not exist is not read.
    unsafe { PgList::from_pg((*query).rtable).get_ptr(place) }
}
