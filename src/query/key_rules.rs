//! What the expressions of a source key must be like, and whether a query groups by one of them.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::c_void;

use crate::query::walker;

/// The properties of an expression that decide whether a key can contain it.
pub struct ExpressionRules {
    /// Whether the expression calls a function that is not immutable.
    pub is_mutable: bool,
    /// Whether the expression is computed from the columns of one row alone.
    pub is_over_one_row: bool,
}

/// Returns the properties of each output column of a query over one row.
///
/// # Safety
/// `tree` is an analyzed tree, which nobody changes meanwhile.
pub unsafe fn rules_of_columns(tree: *mut pg_sys::Query) -> Vec<ExpressionRules> {
    // SAFETY: the caller passes an analyzed tree, whose target list contains target entries.
    unsafe {
        let query = &*tree;
        let is_simple =
            !(query.hasAggs || query.hasWindowFuncs || query.hasTargetSRFs || query.hasSubLinks);
        let entries = PgList::<pg_sys::TargetEntry>::from_pg(query.targetList);
        let shown = entries.iter_ptr().filter(|entry| !(**entry).resjunk);
        shown
            .map(|entry| {
                let expression = (*entry).expr.cast::<pg_sys::Node>();
                ExpressionRules {
                    is_mutable: pg_sys::contain_mutable_functions(expression),
                    is_over_one_row: is_simple && pg_sys::contain_var_clause(expression),
                }
            })
            .collect()
    }
}

/// Reports whether an expression of a query is an expression over the columns of one row. `column`
/// returns the number of the column of this row that a variable of the first expression always
/// equals; the variables of the second one are columns of this row.
///
/// # Safety
/// Both expressions belong to analyzed trees, and so do the variables that `column` gets.
pub unsafe fn is_same_over_row(
    expression: *mut pg_sys::Node,
    column: &dyn Fn(*mut pg_sys::Node) -> Option<i16>,
    over_row: *mut pg_sys::Node,
) -> bool {
    // SAFETY: the copies are changed here alone.
    unsafe {
        let own = |var: *mut pg_sys::Node| Some((*var.cast::<pg_sys::Var>()).varattno);
        let (left, right) = (over_one_row(expression, column), over_one_row(over_row, &own));
        match (left, right) {
            (Some(left), Some(right)) => pg_sys::equal(left.cast(), right.cast()),
            _ => false,
        }
    }
}

struct Renumbering<'a> {
    column: &'a dyn Fn(*mut pg_sys::Node) -> Option<i16>,
    failed: bool,
}

/// Returns a copy of an expression whose variables are columns of one row, which has number 1;
/// `None` if `column` returns no number for a variable.
///
/// # Safety
/// The expression belongs to an analyzed tree, and so do the variables that `column` gets.
pub unsafe fn over_one_row(
    expression: *mut pg_sys::Node,
    column: &dyn Fn(*mut pg_sys::Node) -> Option<i16>,
) -> Option<*mut pg_sys::Node> {
    // SAFETY: the copy belongs to this function, and the context lives as long as the walk.
    unsafe {
        let copy = pg_sys::copyObjectImpl(expression.cast()).cast::<pg_sys::Node>();
        let mut renumbering = Renumbering { column, failed: false };
        walker::visit(copy, Some(renumber), (&raw mut renumbering).cast());
        (!renumbering.failed).then_some(copy)
    }
}

/// Visits a node of an expression: the callback of PostgreSQL's tree walkers. Returning `true` ends
/// the walk.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn renumber(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node of the copy; the context is the `Renumbering` that started this walk.
    unsafe {
        if (*node).type_ != NodeTag::T_Var {
            return walker::walk_expression(node, Some(renumber), context);
        }
        let renumbering = &mut *context.cast::<Renumbering>();
        let Some(number) = (renumbering.column)(node) else {
            renumbering.failed = true;
            return true;
        };
        let var = &mut *node.cast::<pg_sys::Var>();
        var.varno = 1;
        var.varattno = number;
        var.varlevelsup = 0;
        var.varnosyn = 0;
        var.varattnosyn = 0;
        #[cfg(not(feature = "pg15"))]
        {
            var.varnullingrels = std::ptr::null_mut();
        }
        false
    }
}
