//! PostgreSQL's walkers of query trees, under one name in all server versions.
//!
//! A callback returns `true` to end the walk, and calls a walker itself to descend into a node.

use std::ffi::c_void;

use pgrx::pg_sys;

/// Visits one node, which may be null. The second argument is the context of the walk.
pub type NodeVisitor = Option<unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool>;

/// Calls a callback, as the walkers do, for the node with which a walk begins. Returns whether the
/// callback ended the walk.
///
/// A callback raises an error as C code does. Called directly, it would leave the Rust functions
/// above it without running their destructors, and subtransactions would stay open.
///
/// # Safety
/// `node` belongs to a tree of the kind that the callback expects, and so does `context`.
pub unsafe fn visit(node: *mut pg_sys::Node, visit: NodeVisitor, context: *mut c_void) -> bool {
    let Some(visit) = visit else { return false };
    // SAFETY: the caller upholds the callback's contract.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| visit(node, context)) }
}

/// Calls PostgreSQL's `raw_expression_tree_walker`: visits the children of a node that the parser
/// created. Returns whether the callback ended the walk.
///
/// # Safety
/// `node` belongs to a raw tree, and `context` is what the callback expects.
pub unsafe fn walk_raw(node: *mut pg_sys::Node, visit: NodeVisitor, context: *mut c_void) -> bool {
    // SAFETY: the caller upholds the same contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::raw_expression_tree_walker(node, visit, context);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::raw_expression_tree_walker_impl(node, visit, context);
    }
}

/// Calls PostgreSQL's `expression_tree_walker`: visits the children of a node. Does not descend into
/// a query. Returns whether the callback ended the walk.
///
/// # Safety
/// `node` belongs to an analyzed tree, and `context` is what the callback expects.
pub unsafe fn walk_expression(
    node: *mut pg_sys::Node,
    visit: NodeVisitor,
    context: *mut c_void,
) -> bool {
    // SAFETY: the caller upholds the same contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::expression_tree_walker(node, visit, context);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::expression_tree_walker_impl(node, visit, context);
    }
}

/// Calls PostgreSQL's `query_tree_walker`: visits the parts of a query, except those that `flags`
/// (`QTW_…`) exclude. Returns whether the callback ended the walk.
///
/// # Safety
/// `query` is an analyzed tree, and `context` is what the callback expects.
pub unsafe fn walk_query(
    query: *mut pg_sys::Query,
    visit: NodeVisitor,
    context: *mut c_void,
    flags: u32,
) -> bool {
    let flags = flags as i32;
    // SAFETY: the caller upholds the same contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::query_tree_walker(query, visit, context, flags);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::query_tree_walker_impl(query, visit, context, flags);
    }
}

/// Returns a node in the place of another one, which may be null.
pub type NodeReplacer =
    unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> *mut pg_sys::Node;

/// Calls a callback for the node with which a change of a tree begins, as [`visit`] does. Returns the
/// node in its place.
///
/// # Safety
/// As for [`visit`].
pub unsafe fn mutate(
    node: *mut pg_sys::Node,
    replace: NodeReplacer,
    context: *mut c_void,
) -> *mut pg_sys::Node {
    // SAFETY: the caller upholds the callback's contract.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| replace(node, context)) }
}

/// Calls PostgreSQL's `expression_tree_mutator`: returns a copy of a node whose children are those that
/// the callback returns. Does not descend into a query.
///
/// # Safety
/// `node` belongs to an analyzed tree, and `context` is what the callback expects.
pub unsafe fn mutate_children(
    node: *mut pg_sys::Node,
    replace: NodeReplacer,
    context: *mut c_void,
) -> *mut pg_sys::Node {
    // SAFETY: the caller upholds the same contract. The bindings of PostgreSQL 15 declare the callback
    // without arguments, as the server's headers do; the server calls it with both.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::expression_tree_mutator(
            node,
            Some(std::mem::transmute::<
                NodeReplacer,
                unsafe extern "C-unwind" fn() -> *mut pg_sys::Node,
            >(replace)),
            context,
        );
        #[cfg(not(feature = "pg15"))]
        return pg_sys::expression_tree_mutator_impl(node, Some(replace), context);
    }
}
