//! The names in a query's text that stand for items: coco replaces them in the parsed text by the
//! relations of their sources, and then analyzes it.
//!
//! A source's name without a schema stands for the source's relation, unless a CTE hides the name.
//! Callers: `bound_query`.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::{CStr, c_void};

use crate::pg::error::{Error, Result};
use crate::pg::subtransaction::subtransaction;
use crate::query::named_source::Named;
use crate::query::parse_analysis::{c_string, parse_analyzed};
use crate::query::walker;

/// The names in a text that stand for relations of their own.
pub struct Naming<'a> {
    named: &'a [Named],
    /// Names that a CTE hides at the current place.
    hidden: Vec<String>,
    /// Whether each name gets an alias.
    mark: bool,
    /// The aliases of the names found (null if a name has none), each with the id of its source.
    pub marks: Vec<(*mut pg_sys::Alias, i32)>,
    /// How often the text reads one of the relations by another name.
    pub qualified: usize,
}

impl Naming<'_> {
    /// Returns a handler of names that has found none. With `mark`, each name that stands for an
    /// item gets an alias, which identifies its place.
    pub fn new(named: &[Named], mark: bool) -> Naming<'_> {
        Naming { named, hidden: vec![], mark, marks: vec![], qualified: 0 }
    }

    /// Parses a text, replaces the names in it by their relations, and analyzes it.
    pub fn analyze(&mut self, argument: &str, text: &str) -> Result<*mut pg_sys::Query> {
        let text = c_string(text)?;
        subtransaction(
            || {
                // SAFETY: the text is one SELECT, which the caller has checked; the trees live in
                // the caller's memory context.
                unsafe {
                    let list =
                        PgList::<pg_sys::RawStmt>::from_pg(pg_sys::pg_parse_query(text.as_ptr()));
                    let raw =
                        list.get_ptr(0).ok_or_else(|| Error::internal("nothing to analyze"))?;
                    let context = std::ptr::from_mut(self).cast();
                    walker::visit((*raw).stmt, Some(look_raw), context);
                    Ok(parse_analyzed(raw, &text))
                }
            },
            |raised| Error {
                code: raised.code,
                message: format!("argument \"{argument}\": {}", raised.message),
                detail: raised.detail,
                hint: raised.hint,
            },
        )
    }

    /// Handles a relation's name in a raw tree.
    unsafe fn name(&mut self, name: *mut pg_sys::RangeVar) {
        // SAFETY: the parser created the node and its strings.
        unsafe {
            let var = &mut *name;
            let relname = CStr::from_ptr(var.relname).to_string_lossy().into_owned();
            if var.schemaname.is_null() {
                if self.hidden.contains(&relname) {
                    return;
                }
                if let Some(of) = self.named.iter().find(|n| n.name == relname) {
                    if var.alias.is_null() && (self.mark || of.table != of.name) {
                        let alias =
                            pg_sys::palloc0(size_of::<pg_sys::Alias>()).cast::<pg_sys::Alias>();
                        (*alias).type_ = NodeTag::T_Alias;
                        (*alias).aliasname = var.relname;
                        var.alias = alias;
                    }
                    var.schemaname = copied(&of.schema);
                    var.relname = copied(&of.table);
                    self.marks.push((var.alias, of.id));
                    return;
                }
            }
            let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
            let found = pg_sys::RangeVarGetRelidExtended(
                name,
                pg_sys::NoLock as i32,
                missing_ok,
                None,
                std::ptr::null_mut(),
            );
            if self.named.iter().any(|n| n.relation == found) {
                self.qualified += 1;
            }
        }
    }

    /// Walks a SELECT with a WITH clause. The names of its CTEs hide others only where they are
    /// visible.
    unsafe fn with(&mut self, select: *mut pg_sys::SelectStmt) {
        let before = self.hidden.len();
        // SAFETY: the parser created the nodes. The clause is walked separately, and then restored.
        unsafe {
            let clause = (*select).withClause;
            let ctes = PgList::<pg_sys::CommonTableExpr>::from_pg((*clause).ctes);
            let name = |cte: *mut pg_sys::CommonTableExpr| {
                CStr::from_ptr((*cte).ctename).to_string_lossy().into_owned()
            };
            if (*clause).recursive {
                self.hidden.extend(ctes.iter_ptr().map(name));
            }
            for cte in ctes.iter_ptr() {
                walker::visit((*cte).ctequery, Some(look_raw), std::ptr::from_mut(self).cast());
                self.hidden.push(name(cte));
            }
            (*select).withClause = std::ptr::null_mut();
            walker::walk_raw(select.cast(), Some(look_raw), std::ptr::from_mut(self).cast());
            (*select).withClause = clause;
        }
        self.hidden.truncate(before);
    }
}

/// Visits a node of a raw tree: the callback of PostgreSQL's tree walkers. Returning `true` would
/// end the walk; it never does.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn look_raw(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node of a raw tree; the context is the `Naming` that started this walk.
    unsafe {
        pg_sys::check_stack_depth();
        let naming = &mut *context.cast::<Naming>();
        match (*node).type_ {
            NodeTag::T_RangeVar => naming.name(node.cast()),
            NodeTag::T_SelectStmt if !(*node.cast::<pg_sys::SelectStmt>()).withClause.is_null() => {
                naming.with(node.cast());
            }
            // A locking clause names aliases, not relations.
            NodeTag::T_LockingClause => {}
            _ => {
                walker::walk_raw(node, Some(look_raw), context);
            }
        }
        false
    }
}

/// Copies a string into PostgreSQL's memory. Names of relations contain no NUL byte.
unsafe fn copied(text: &str) -> *mut std::ffi::c_char {
    // SAFETY: the allocation has space for the text and the final zero, which `palloc0` sets.
    unsafe {
        let copy = pg_sys::palloc0(text.len() + 1).cast::<u8>();
        std::ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
        copy.cast()
    }
}
