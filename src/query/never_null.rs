//! Decides which columns of a query's result can never be NULL, so that coco declares them NOT NULL
//! in a target that it creates. A column of which this is not certain counts as one that can.
//!
//! Callers: `declare`, `flows`.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::CStr;

use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// Reports for each column of a query's result whether it can never be NULL.
///
/// # Safety
/// `tree` is an analyzed tree, which nobody changes meanwhile.
pub unsafe fn columns_never_null(tree: *mut pg_sys::Query) -> Result<Vec<bool>> {
    // SAFETY: the caller passes an analyzed tree.
    unsafe {
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList);
        let shown = entries.iter_ptr().filter(|entry| !(**entry).resjunk);
        shown.map(|entry| is_column_never_null(tree, (*entry).resno)).collect()
    }
}

/// Reports whether a column of a query's result can never be NULL. `number` counts from 1.
unsafe fn is_column_never_null(query: *mut pg_sys::Query, number: i16) -> Result<bool> {
    // SAFETY: `query` is an analyzed tree, or a subquery of one, whose lists contain the node types
    // that their names say.
    unsafe {
        let Some(place) = usize::try_from(number).ok().and_then(|n| n.checked_sub(1)) else {
            return Ok(false);
        };
        if !(*query).groupingSets.is_null() {
            return Ok(false);
        }
        if !(*query).setOperations.is_null() {
            // Each row of the result is a row of one of these subqueries.
            let mut parts = 0;
            for entry in PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable).iter_ptr() {
                if (*entry).rtekind != pg_sys::RTEKind::RTE_SUBQUERY {
                    continue;
                }
                parts += 1;
                if !is_column_never_null((*entry).subquery, number)? {
                    return Ok(false);
                }
            }
            return Ok(parts > 0);
        }
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*query).targetList);
        match entries.get_ptr(place) {
            Some(entry) => is_never_null((*entry).expr.cast(), query),
            None => Ok(false),
        }
    }
}

/// Reports whether an expression of a query can never be NULL.
unsafe fn is_never_null(node: *mut pg_sys::Node, query: *mut pg_sys::Query) -> Result<bool> {
    if node.is_null() {
        return Ok(false);
    }
    // SAFETY: as above; the code reads each node as the type that its tag names.
    unsafe {
        match (*node).type_ {
            NodeTag::T_Const => Ok(!(*node.cast::<pg_sys::Const>()).constisnull),
            NodeTag::T_Var => is_variable_never_null(node.cast(), query),
            NodeTag::T_RelabelType => {
                is_never_null((*node.cast::<pg_sys::RelabelType>()).arg.cast(), query)
            }
            NodeTag::T_CollateExpr => {
                is_never_null((*node.cast::<pg_sys::CollateExpr>()).arg.cast(), query)
            }
            NodeTag::T_NullTest | NodeTag::T_BooleanTest | NodeTag::T_ArrayExpr => Ok(true),
            NodeTag::T_CoalesceExpr => {
                is_any_never_null((*node.cast::<pg_sys::CoalesceExpr>()).args, query)
            }
            // GREATEST and LEAST ignore NULL.
            NodeTag::T_MinMaxExpr => {
                is_any_never_null((*node.cast::<pg_sys::MinMaxExpr>()).args, query)
            }
            NodeTag::T_CaseExpr => is_case_never_null(node.cast(), query),
            NodeTag::T_FuncExpr => is_call_never_null(node.cast(), query),
            NodeTag::T_SubLink => {
                let kind = (*node.cast::<pg_sys::SubLink>()).subLinkType;
                Ok(kind == pg_sys::SubLinkType::EXISTS_SUBLINK)
            }
            NodeTag::T_Aggref => Ok(is_count((*node.cast::<pg_sys::Aggref>()).aggfnoid)),
            NodeTag::T_WindowFunc => {
                let function = (*node.cast::<pg_sys::WindowFunc>()).winfnoid;
                Ok(is_count(function) || is_rank(function))
            }
            _ => Ok(false),
        }
    }
}

unsafe fn is_any_never_null(nodes: *mut pg_sys::List, query: *mut pg_sys::Query) -> Result<bool> {
    // SAFETY: as above.
    unsafe {
        for node in PgList::<pg_sys::Node>::from_pg(nodes).iter_ptr() {
            if is_never_null(node, query)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

unsafe fn is_case_never_null(
    case: *mut pg_sys::CaseExpr,
    query: *mut pg_sys::Query,
) -> Result<bool> {
    // SAFETY: as above.
    unsafe {
        for when in PgList::<pg_sys::CaseWhen>::from_pg((*case).args).iter_ptr() {
            if !is_never_null((*when).result.cast(), query)? {
                return Ok(false);
            }
        }
        is_never_null((*case).defresult.cast(), query)
    }
}

/// Functions of PostgreSQL's that never return NULL, unless an argument is NULL, whatever their
/// argument types.
const NEVER_NULL: [&CStr; 13] = [
    c"abs",
    c"btrim",
    c"date",
    c"date_bin",
    c"date_trunc",
    c"length",
    c"lower",
    c"md5",
    c"replace",
    c"timestamp",
    c"timestamptz",
    c"timezone",
    c"upper",
];

unsafe fn is_call_never_null(
    call: *mut pg_sys::FuncExpr,
    query: *mut pg_sys::Query,
) -> Result<bool> {
    // SAFETY: as above. The name of a function is a palloc'd string, or null if it was dropped.
    unsafe {
        let function = (*call).funcid;
        // A function that a user creates gets a larger OID.
        if function.to_u32() >= pg_sys::FirstNormalObjectId {
            return Ok(false);
        }
        let name = pg_sys::get_func_name(function);
        if name.is_null() || !NEVER_NULL.contains(&CStr::from_ptr(name)) {
            return Ok(false);
        }
        for argument in PgList::<pg_sys::Node>::from_pg((*call).args).iter_ptr() {
            if !is_never_null(argument, query)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Reports whether this is `count(*)` or `count(expression)`.
fn is_count(function: pg_sys::Oid) -> bool {
    matches!(function.to_u32(), pg_sys::F_COUNT_ | pg_sys::F_COUNT_ANY)
}

/// Reports whether this is `row_number()`, `rank()` or `dense_rank()`.
fn is_rank(function: pg_sys::Oid) -> bool {
    matches!(function.to_u32(), pg_sys::F_ROW_NUMBER | pg_sys::F_RANK_ | pg_sys::F_DENSE_RANK_)
}

unsafe fn is_variable_never_null(var: *mut pg_sys::Var, query: *mut pg_sys::Query) -> Result<bool> {
    // SAFETY: as above. The number of the Var leads to an entry of the query; otherwise nothing is
    // read.
    unsafe {
        if (*var).varlevelsup != 0 || (*var).varattno <= 0 || may_be_nulled(var, query) {
            return Ok(false);
        }
        let place = (*var).varno - 1;
        let entries = PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable);
        let entry = usize::try_from(place).ok().and_then(|place| entries.get_ptr(place));
        let Some(entry) = entry else { return Ok(false) };
        match (*entry).rtekind {
            pg_sys::RTEKind::RTE_RELATION => is_not_null((*entry).relid, (*var).varattno),
            pg_sys::RTEKind::RTE_SUBQUERY => {
                is_column_never_null((*entry).subquery, (*var).varattno)
            }
            #[cfg(feature = "pg18")]
            pg_sys::RTEKind::RTE_GROUP => {
                let exprs = PgList::<pg_sys::Node>::from_pg((*entry).groupexprs);
                match exprs.get_ptr((*var).varattno as usize - 1) {
                    Some(expr) => is_never_null(expr, query),
                    None => Ok(false),
                }
            }
            _ => Ok(false),
        }
    }
}

/// Reports whether an outer join may replace the value by NULL.
#[cfg(not(feature = "pg15"))]
unsafe fn may_be_nulled(var: *mut pg_sys::Var, _query: *mut pg_sys::Query) -> bool {
    // SAFETY: as above.
    unsafe { !(*var).varnullingrels.is_null() }
}

/// Reports whether an outer join may replace the value by NULL. Before PostgreSQL 16, a Var does
/// not say which joins are above it, so each outer join of the query counts.
#[cfg(feature = "pg15")]
unsafe fn may_be_nulled(_var: *mut pg_sys::Var, query: *mut pg_sys::Query) -> bool {
    // SAFETY: as above.
    unsafe {
        PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable).iter_ptr().any(|entry| {
            (*entry).rtekind == pg_sys::RTEKind::RTE_JOIN
                && (*entry).jointype != pg_sys::JoinType::JOIN_INNER
        })
    }
}

/// Reports whether no row that a query reads from a relation has NULL in this column. A foreign
/// table does not enforce NOT NULL, and a child table may have a column that its parent has not
/// declared NOT NULL for it.
fn is_not_null(relation: pg_sys::Oid, column: i16) -> Result<bool> {
    let _names = RoleGuard::qualifying_names()?;
    let found = spi::scalar::<bool>(
        "select true
           from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid
          where c.oid = $1 and a.attnum = $2 and a.attnotnull and a.attgenerated::text <> 'v'
            and case c.relkind::text
                  when 'r' then not exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid)
                  when 'p' then not exists (select from pg_catalog.pg_partition_tree(c.oid) t
                                              join pg_catalog.pg_class f on f.oid = t.relid
                                             where f.relkind = 'f')
                  else false end
            -- a constraint that is not validated does not cover existing rows
            and not exists (select from pg_catalog.pg_constraint n
                             where n.conrelid = a.attrelid and n.contype = 'n' and not n.convalidated
                               and n.conkey operator(pg_catalog.@>) array[a.attnum])",
        &[arg(relation), arg(column)],
    )?;
    Ok(found == Some(true))
}
