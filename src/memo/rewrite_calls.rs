//! Having a query's calls of memoised functions go by way of the memo.
//!
//! The planner is given a query in which each such call is one of `coco.memo_call`, with the item it is
//! for, the function, and the function's own arguments. That is done to the query as the rewriter
//! leaves it: also what a view calls is found. What the body of another function calls is not.
//!
//! The item is a column of the relation `item` that is composed around the user's query
//! ([`compose`](crate::query::compose)): that query is lateral to it, so that a variable of it may
//! stand at any depth.

use pgrx::pg_sys::{self, NodeTag};
use pgrx::{IntoDatum, PgList};
use std::collections::HashSet;
use std::ffi::{CStr, c_void};
use std::rc::Rc;

use crate::memo::session;
use crate::query::compose::ITEM;
use crate::query::place_items;

/// Has the calls in a query recall, if there are to be any that do.
///
/// # Safety
/// An analysed query, which is the caller's to change.
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

/// Where a query has the relation of the items.
#[derive(Clone, Copy)]
struct ItemColumn {
    relation: usize,
    column: pg_sys::AttrNumber,
    depth: u32,
}

struct CallRewriter {
    /// Those that are memoised.
    functions: Rc<HashSet<pg_sys::Oid>>,
    /// `coco.memo_call`.
    recall: pg_sys::Oid,
    item: Option<ItemColumn>,
    depth: u32,
    /// The query whose list of results is being walked.
    results_of: Option<*mut pg_sys::Query>,
    /// The calls that were found.
    sites: Vec<RewrittenCall>,
}

struct RewrittenCall {
    call: *mut pg_sys::FuncExpr,
    /// The query in whose list of results it stands, and not in the arguments of another.
    result_of: Option<*mut pg_sys::Query>,
}

impl CallRewriter {
    unsafe fn query(&mut self, query: *mut pg_sys::Query) {
        // SAFETY: the caller gives a query that the server has analyzed, and that is the planner's to change: its
        // lists hold what their names say, without null.
        unsafe {
            let before = (self.item, self.results_of);
            let relations = PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable);
            let mut subqueries = Vec::new();
            for (n, relation) in relations.iter_ptr().enumerate() {
                if (*relation).rtekind != pg_sys::RTEKind::RTE_SUBQUERY {
                    continue;
                }
                match items_column(relation) {
                    // The items themselves are not for an item: they are not walked.
                    Some(column) => {
                        self.item = Some(ItemColumn { relation: n + 1, column, depth: self.depth });
                    }
                    None => subqueries.push((*relation).subquery),
                }
            }
            let context = (self as *mut Self).cast::<c_void>();
            self.depth += 1;
            self.results_of = Some(query);
            visit((*query).targetList.cast(), context);
            self.results_of = None;
            #[cfg(any(feature = "pg14", feature = "pg15"))]
            pg_sys::query_tree_walker(query, Some(visit), context, IGNORED);
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            pg_sys::query_tree_walker_impl(query, Some(visit), context, IGNORED);
            for subquery in subqueries.into_iter().filter(|subquery| !subquery.is_null()) {
                self.query(subquery);
            }
            self.depth -= 1;
            (self.item, self.results_of) = before;
        }
    }

    /// Puts a call of `coco.memo_call` in the place of one of a memoised function; `false` where it is
    /// none.
    unsafe fn replace(&mut self, call: *mut pg_sys::FuncExpr) -> bool {
        let Some(item) = self.item else { return false };
        // SAFETY: as in `query`: a call of the query that is walked; what is made belongs to the same memory.
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
            // Which call of several: filled in when all are known.
            arguments.push(constant(pg_sys::INT4OID, 4, 0i32.into_datum()).cast());
            for argument in PgList::<pg_sys::Node>::from_pg((*call).args).iter_ptr() {
                arguments.push(argument);
            }
            (*call).args = arguments.into_pg();
            (*call).funcid = self.recall;
            true
        }
    }

    /// What stands in FROM, where the type of a function's rows is taken from its declaration, and of
    /// any other expression from its own: so the call is made one, by a label that is not dropped, for
    /// the type modifier is another.
    unsafe fn as_expression(&self, node: *mut pg_sys::Node) -> *mut pg_sys::Node {
        // SAFETY: as in `query`: a node of the query that is walked, read as what its tag says it is.
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

    /// Numbers the calls from 1 where one may rest on the result of another: while an item waits for
    /// one of them, another's arguments may come from what is not there yet. Where all are results of
    /// one query, none can.
    unsafe fn number(&self) {
        let first = self.sites.first().and_then(|s| s.result_of);
        if self.sites.iter().all(|s| s.result_of.is_some() && s.result_of == first) {
            return;
        }
        for (n, site) in self.sites.iter().enumerate() {
            // SAFETY: the list was made in `replace`: its third is the number.
            unsafe {
                let arguments = PgList::<pg_sys::Node>::from_pg((*site.call).args);
                if let Some(number) = arguments.get_ptr(2) {
                    (*number.cast::<pg_sys::Const>()).constvalue = pg_sys::Datum::from(n + 1);
                }
            }
        }
    }
}

/// Subqueries are walked one by one: those of the items are not.
const IGNORED: i32 = pg_sys::QTW_IGNORE_RT_SUBQUERIES as i32;

/// The column of a subquery that numbers the items, if the subquery is that of the items: by the mark that
/// [`placing`] has put there, and not by a name that a user's query can have as well.
unsafe fn items_column(relation: *mut pg_sys::RangeTblEntry) -> Option<pg_sys::AttrNumber> {
    // SAFETY: an entry of an analysed query; the list of results of a subquery has entries alone.
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

/// The walker Postgres calls for every node. `true` would end the walk; it never does.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the context is the Walk that started this, which is not otherwise used meanwhile.
    unsafe {
        let walk = &mut *context.cast::<CallRewriter>();
        if (*node).type_ == NodeTag::T_Query {
            walk.query(node.cast());
            return false;
        }
        let before = walk.sites.len();
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        pg_sys::expression_tree_walker(node, Some(visit), context);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        pg_sys::expression_tree_walker_impl(node, Some(visit), context);
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
