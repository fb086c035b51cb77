//! Rewrites the calls of memoized functions in a query, so that they use the memo.
//!
//! In the query that the planner receives, each such call is a call of `coco_internal.memo_call`, with the
//! item, the function, and the function's own arguments. coco rewrites the query as the rewriter
//! left it, so it also finds calls in views. coco does not find calls in the body of another
//! function.
//!
//! The item is a column of the relation `item` that coco composes around the user's query
//! ([`compose`](crate::query::compose)). That query is lateral to the relation, so a variable for
//! the item is allowed at any depth.

use pgrx::pg_sys::{self, NodeTag};
use pgrx::{IntoDatum, PgList};
use std::collections::HashSet;
use std::ffi::{CStr, c_void};
use std::rc::Rc;

use crate::memo::session;
use crate::query::compose::ITEM;
use crate::query::place_items;
use crate::query::walker;

/// Rewrites the calls in a query, if a memo session is active. Returns whether one is.
///
/// # Safety
/// `query` is an analyzed query, and the caller may change it.
pub unsafe fn recall(query: *mut pg_sys::Query) -> bool {
    let Some((functions, recall)) = session::functions() else { return false };
    let mut walk =
        CallRewriter { functions, recall, item: None, depth: 0, results_of: None, sites: vec![] };
    // SAFETY: as above.
    unsafe {
        walk.query(query);
        walk.number();
    }
    true
}

/// The position of the items' number in a query.
#[derive(Clone, Copy)]
struct ItemColumn {
    relation: usize,
    column: pg_sys::AttrNumber,
    depth: u32,
}

struct CallRewriter {
    /// The memoized functions.
    functions: Rc<HashSet<pg_sys::Oid>>,
    /// The OID of `coco_internal.memo_call`.
    recall: pg_sys::Oid,
    item: Option<ItemColumn>,
    depth: u32,
    /// The query whose target list is being walked.
    results_of: Option<*mut pg_sys::Query>,
    /// The rewritten calls.
    sites: Vec<RewrittenCall>,
}

struct RewrittenCall {
    call: *mut pg_sys::FuncExpr,
    /// The query whose target list contains the call, if the call is not in the arguments of
    /// another rewritten call.
    result_of: Option<*mut pg_sys::Query>,
}

impl CallRewriter {
    unsafe fn query(&mut self, query: *mut pg_sys::Query) {
        // SAFETY: the caller passes a query that the server has analyzed and that the planner may
        // change. The query's lists hold nodes of the types that their names say, and no null
        // pointer.
        unsafe {
            let before = (self.item, self.results_of);
            let relations = PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable);
            let mut subqueries = Vec::new();
            for (n, relation) in relations.iter_ptr().enumerate() {
                if (*relation).rtekind != pg_sys::RTEKind::RTE_SUBQUERY {
                    continue;
                }
                match items_column(relation) {
                    // Calls in the relation of the items belong to no item, so it is not walked.
                    Some(column) => {
                        self.item = Some(ItemColumn { relation: n + 1, column, depth: self.depth });
                    }
                    None => subqueries.push((*relation).subquery),
                }
            }
            let context = (self as *mut Self).cast::<c_void>();
            self.depth += 1;
            self.results_of = Some(query);
            walker::visit((*query).targetList.cast(), Some(visit), context);
            self.results_of = None;
            walker::walk_query(query, Some(visit), context, IGNORED);
            for subquery in subqueries.into_iter().filter(|subquery| !subquery.is_null()) {
                self.query(subquery);
            }
            self.depth -= 1;
            (self.item, self.results_of) = before;
        }
    }

    /// Replaces a call of a memoized function by a call of `coco_internal.memo_call`. Returns `false` if the
    /// function is not memoized.
    unsafe fn replace(&mut self, call: *mut pg_sys::FuncExpr) -> bool {
        let Some(item) = self.item else { return false };
        // SAFETY: as in `query`: the call belongs to the query that is walked, and new nodes are
        // allocated in the same memory context.
        unsafe {
            let function = (*call).funcid;
            if (*call).funcretset || !self.functions.contains(&function) {
                return false;
            }
            let levels = self.depth - 1 - item.depth;
            let var = pg_sys::makeVar(
                item.relation as _,
                item.column,
                pg_sys::INT4OID,
                -1,
                pg_sys::InvalidOid,
                levels,
            );
            let constant = |type_oid, length, datum: Option<pg_sys::Datum>| {
                pg_sys::makeConst(
                    type_oid,
                    -1,
                    pg_sys::InvalidOid,
                    length,
                    datum.unwrap_or(pg_sys::Datum::from(0usize)),
                    datum.is_none(),
                    true,
                )
            };
            let mut arguments = PgList::<pg_sys::Node>::new();
            arguments.push(var.cast());
            arguments.push(constant(pg_sys::OIDOID, 4, function.into_datum()).cast());
            // The number of the call. `number` sets it when all calls are known.
            arguments.push(constant(pg_sys::INT4OID, 4, 0i32.into_datum()).cast());
            for argument in PgList::<pg_sys::Node>::from_pg((*call).args).iter_ptr() {
                arguments.push(argument);
            }
            (*call).args = arguments.into_pg();
            (*call).funcid = self.recall;
            true
        }
    }

    /// Wraps a rewritten call in FROM in a label. Postgres takes the row type of a bare function
    /// call from the function's declaration, but that of any other expression from the expression.
    /// The label has another type modifier, so Postgres does not remove it.
    unsafe fn as_expression(&self, node: *mut pg_sys::Node) -> *mut pg_sys::Node {
        // SAFETY: as in `query`: a node of the query that is walked, read as the type that its tag
        // names.
        unsafe {
            let is_call = (*node).type_ == NodeTag::T_FuncExpr
                && (*node.cast::<pg_sys::FuncExpr>()).funcid == self.recall;
            if !is_call {
                return node;
            }
            let result = pg_sys::exprType(node);
            let collation = pg_sys::exprCollation(node);
            let form = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
            pg_sys::makeRelabelType(node.cast(), result, 0, collation, form).cast()
        }
    }

    /// Numbers the calls from 1 if one may depend on the result of another: the arguments of one
    /// call may come from a missing result of another. An item then asks only for the results of
    /// one of them in a pass. If all calls are in one target list, none depends on another.
    unsafe fn number(&self) {
        let first = self.sites.first().and_then(|s| s.result_of);
        if self.sites.iter().all(|s| s.result_of.is_some() && s.result_of == first) {
            return;
        }
        for (n, site) in self.sites.iter().enumerate() {
            // SAFETY: `replace` made the list; its third element is the number.
            unsafe {
                let arguments = PgList::<pg_sys::Node>::from_pg((*site.call).args);
                if let Some(number) = arguments.get_ptr(2) {
                    (*number.cast::<pg_sys::Const>()).constvalue = pg_sys::Datum::from(n + 1);
                }
            }
        }
    }
}

/// Subqueries are walked one by one, because the subquery of the items is left out.
const IGNORED: u32 = pg_sys::QTW_IGNORE_RT_SUBQUERIES;

/// Returns the column of a subquery that numbers the items, if the subquery is the relation of the
/// items. coco recognizes that relation by the mark that [`place_items`] has set, and not by its
/// name, because a user's query can use the same name.
unsafe fn items_column(relation: *mut pg_sys::RangeTblEntry) -> Option<pg_sys::AttrNumber> {
    // SAFETY: an entry of an analyzed query. The target list of a subquery contains only target
    // entries.
    unsafe {
        if !place_items::is_items(relation) || (*relation).subquery.is_null() {
            return None;
        }
        let results = PgList::<pg_sys::TargetEntry>::from_pg((*(*relation).subquery).targetList);
        let column = results.iter_ptr().find(|result| {
            let name = (**result).resname;
            !(**result).resjunk
                && !name.is_null()
                && CStr::from_ptr(name).to_bytes() == ITEM.as_bytes()
        })?;
        Some((*column).resno)
    }
}

/// The walker that Postgres calls for each node. The walker never returns `true`, which would end
/// the walk.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the context is the `CallRewriter` that started the walk, and nothing else uses it
    // during the walk.
    unsafe {
        let walk = &mut *context.cast::<CallRewriter>();
        if (*node).type_ == NodeTag::T_Query {
            walk.query(node.cast());
            return false;
        }
        let before = walk.sites.len();
        walker::walk_expression(node, Some(visit), context);
        if (*node).type_ == NodeTag::T_RangeTblFunction {
            let function = node.cast::<pg_sys::RangeTblFunction>();
            (*function).funcexpr = walk.as_expression((*function).funcexpr);
        }
        if (*node).type_ == NodeTag::T_FuncExpr && walk.replace(node.cast()) {
            let nested = walk.sites.len() > before;
            let result_of = walk.results_of.filter(|_| !nested);
            walk.sites.push(RewrittenCall { call: node.cast(), result_of });
        }
        false
    }
}
