//! Replaces the source in a bound query by items.
//!
//! A composed statement ([`compose`](crate::query::compose)) reads a flow's query as the view that
//! keeps its tree, beside CTEs that contain the items: `with coco_source_7 as (…) select … from
//! coco.query_3_f as q`. When PostgreSQL has analyzed such a statement, this module replaces the
//! view by the view's tree. In that tree, it replaces each place of the source by a subquery with
//! the CTE's contents. PostgreSQL then plans the statement as if it had been written over the
//! items, and merges the subquery with the outer query; it would not merge a CTE.
//!
//! The code runs in PostgreSQL's hook after analysis, so that PostgreSQL expands views, applies row
//! security and invalidates plans as in any other statement. The hook recognizes a statement by the
//! relations it reads, not by its text: a view that this process knows as a flow's, next to CTEs
//! with these names. The hook places an item only if the types of the item's columns match the
//! relation's.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, c_void};

use crate::catalog::model::Places;
use crate::pg::error::{Error, Result};
use crate::query::trace_column::range_entry;
use crate::query::{bound_query, group_parts, view_tree, walker};

/// The prefix of the name of a CTE that contains the items of a source, before the source's id.
pub const SHADOW: &str = "coco_source_";

/// The prefix of the name of a CTE that contains the states of a source's groups, before the source's
/// id. [`group_parts`] then puts the group part of the query in the view's place.
pub const STATES: &str = "coco_states_";

/// The name of a CTE that prevents PostgreSQL from merging the query with the outer query.
pub const APART: &str = "coco_apart";

/// The alias of the relation of the items in a composed statement.
pub const ITEMS: &str = "item";

/// The value of a field in the entry of that relation that SQL never sets on a subquery. It
/// distinguishes the relation from a user's.
pub const ITEMS_MARK: &CStr = c"coco items";

/// The places of a bound query at which an evaluation puts items.
struct Placing {
    relations: Vec<pg_sys::Oid>,
    places: Places,
}

thread_local! {
    /// The queries that this process has composed statements over, by their views' OIDs.
    static KNOWN: RefCell<HashMap<u32, Placing>> = RefCell::default();
    /// The hook that was installed before this one; `None` until this one is installed.
    static NEXT: Cell<Option<pg_sys::post_parse_analyze_hook_type>> = const { Cell::new(None) };
}

/// Allows statements that follow to place items in a view's tree, at these places of these
/// relations.
pub fn know_shadows(view: pg_sys::Oid, relations: Vec<pg_sys::Oid>, places: Places) {
    if NEXT.get().is_none() {
        // SAFETY: the hook is a variable of this process, which runs PostgreSQL in one thread.
        unsafe {
            NEXT.set(Some(pg_sys::post_parse_analyze_hook));
            pg_sys::post_parse_analyze_hook = Some(analyzed);
        }
    }
    KNOWN.with(|known| known.borrow_mut().insert(view.to_u32(), Placing { relations, places }));
}

#[pg_guard]
unsafe extern "C-unwind" fn analyzed(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: PostgreSQL calls the hook with valid arguments. The query was just created, and the
    // hook may change it.
    unsafe {
        let mut walk = Walk { above: std::ptr::null_mut(), failed: None };
        walker::visit(explained(query).cast(), Some(look), (&raw mut walk).cast());
        if let Some(error) = walk.failed {
            pg_sys::panic::ErrorReport::from(error).report(PgLogLevel::ERROR);
        }
        if let Some(next) = NEXT.get().flatten() {
            pg_sys::ffi::pg_guard_ffi_boundary(|| next(state, query, jumble));
        }
    }
}

/// Returns the query that an EXPLAIN explains, or the query itself.
unsafe fn explained(query: *mut pg_sys::Query) -> *mut pg_sys::Query {
    // SAFETY: the statement of a utility command is a node, and PostgreSQL has analyzed the
    // statement of an EXPLAIN.
    unsafe {
        let statement = (*query).utilityStmt;
        if statement.is_null() || (*statement).type_ != NodeTag::T_ExplainStmt {
            return query;
        }
        let inner = (*statement.cast::<pg_sys::ExplainStmt>()).query;
        match inner.is_null() || (*inner).type_ != NodeTag::T_Query {
            true => query,
            false => inner.cast(),
        }
    }
}

struct Walk {
    /// The query around the query being visited.
    above: *mut pg_sys::Query,
    failed: Option<Error>,
}

/// Visits a node: the callback of PostgreSQL's tree walkers. Returning `true` ends the walk.
#[pg_guard]
unsafe extern "C-unwind" fn look(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node of an analyzed tree; the context is the `Walk` that started this walk.
    unsafe {
        if (*node).type_ != NodeTag::T_Query {
            return walker::walk_expression(node, Some(look), context);
        }
        let query = node.cast::<pg_sys::Query>();
        let walk = context.cast::<Walk>();
        let above = std::mem::replace(&mut (*walk).above, query);
        // The tree that `place_items` inserts is a user's and must not be walked, so the walk comes
        // first.
        let ended = walker::walk_query(query, Some(look), context, 0);
        (*walk).above = above;
        if ended {
            return true;
        }
        match place_items(query, above) {
            Ok(()) => false,
            Err(error) => {
                (*walk).failed = Some(error);
                true
            }
        }
    }
}

/// Replaces the view of a flow's query by the view's tree, with items in it.
unsafe fn place_items(query: *mut pg_sys::Query, above: *mut pg_sys::Query) -> Result<()> {
    // SAFETY: a query of the tree, whose lists contain the node types that their names say.
    unsafe {
        if (*query).cteList.is_null() {
            return Ok(());
        }
        let ctes = PgList::<pg_sys::CommonTableExpr>::from_pg((*query).cteList);
        let named = |prefix: &str| -> Vec<(i32, *mut pg_sys::Query)> {
            let one = |cte| Some((source_of(cte, prefix)?, (*cte).ctequery.cast()));
            ctes.iter_ptr().filter_map(one).collect()
        };
        let (shadows, states) = (named(SHADOW), named(STATES));
        if shadows.is_empty() && states.is_empty() {
            return Ok(());
        }
        for entry in PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable).iter_ptr() {
            if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
                continue;
            }
            let known = KNOWN.with(|known| {
                let known = known.borrow();
                known.get(&(*entry).relid.to_u32()).map(|p| (p.relations.clone(), p.places.clone()))
            });
            let Some((relations, places)) = known else { continue };
            let tree = view_tree::of_view((*entry).relid)?;
            let apart = ctes.iter_ptr().any(|cte| name_of(cte).to_bytes() == APART.as_bytes());
            let all = bound_query::occurrences(tree, &relations);
            if all.len() != places.len() {
                return Err(Error::internal("stored query does not match its recorded places"));
            }
            if let [(_, states)] = states.as_slice() {
                let [relation] = relations.as_slice() else {
                    return Err(Error::internal("a query over groups has several sources"));
                };
                becomes_subquery(entry, over_states(tree, *relation, *states)?);
                if !apart {
                    (*query).cteList = std::ptr::null_mut();
                }
                mark_items(above);
                continue;
            }
            for (occurrence, id) in all.iter().zip(places.iter()).filter(|(_, id)| **id != 0) {
                let shadow = shadows.iter().find(|(of, _)| of == id);
                let (_, shadow) = shadow.ok_or_else(|| {
                    Error::internal("composed statement contains no items for a source")
                })?;
                let copy = pg_sys::copyObjectImpl((*shadow).cast()).cast::<pg_sys::Query>();
                complete(copy, (*occurrence.entry).relid)?;
                // The CTE is one level below the query that contains it, and the place is one level
                // below its own query.
                pg_sys::IncrementVarSublevelsUp(copy.cast(), occurrence.depth + 1, 1);
                becomes_subquery(occurrence.entry, copy);
            }
            becomes_subquery(entry, tree);
            if !apart {
                (*query).cteList = std::ptr::null_mut();
            }
            mark_items(above);
        }
        Ok(())
    }
}

/// Returns the group part of a query, over the states of groups.
unsafe fn over_states(
    tree: *mut pg_sys::Query,
    relation: pg_sys::Oid,
    states: *mut pg_sys::Query,
) -> Result<*mut pg_sys::Query> {
    // SAFETY: the tree is a copy of what the view keeps. The states are one level below the query that
    // contains the CTE, and the place of the source is one level below its own query.
    unsafe {
        let parts = group_parts::take_apart(tree, relation)?;
        let place = parts.place();
        let states = pg_sys::copyObjectImpl(states.cast()).cast::<pg_sys::Query>();
        pg_sys::IncrementVarSublevelsUp(states.cast(), 1, 1);
        let tree = parts.group_part(states)?;
        let entry = range_entry(tree, place)
            .ok_or_else(|| Error::internal("a query has no entry for its source"))?;
        (*(*entry).eref).colnames = std::ptr::null_mut();
        becomes_subquery(entry, states);
        Ok(tree)
    }
}

unsafe fn name_of<'a>(cte: *mut pg_sys::CommonTableExpr) -> &'a CStr {
    // SAFETY: every CTE has a name.
    unsafe { CStr::from_ptr((*cte).ctename) }
}

/// Returns the id of a source, if the name of a CTE is the prefix with this id.
unsafe fn source_of(cte: *mut pg_sys::CommonTableExpr, prefix: &str) -> Option<i32> {
    // SAFETY: a CTE of an analyzed tree.
    let (name, query) = unsafe { (name_of(cte), (*cte).ctequery) };
    // SAFETY: as above; the pointer is not null.
    let is_query = !query.is_null() && unsafe { (*query).type_ } == NodeTag::T_Query;
    name.to_str().ok()?.strip_prefix(prefix)?.parse().ok().filter(|_| is_query)
}

/// Turns an entry that reads a relation into an entry of a subquery, as the rewriter does with a
/// view.
unsafe fn becomes_subquery(entry: *mut pg_sys::RangeTblEntry, query: *mut pg_sys::Query) {
    // SAFETY: the entry and the subquery belong to the tree. The server still checks privileges on
    // the relation if it keeps them outside the entry, as it does for a view.
    unsafe {
        let entry = &mut *entry;
        entry.rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
        entry.subquery = query;
        entry.security_barrier = false;
        entry.tablesample = std::ptr::null_mut();
        entry.inh = false;
        #[cfg(feature = "pg15")]
        {
            entry.relid = pg_sys::InvalidOid;
            entry.relkind = 0;
            entry.rellockmode = 0;
            entry.requiredPerms = 0;
        }
        // A relation may have gained columns since the tree was created.
        let has = PgList::<pg_sys::Node>::from_pg((*entry.eref).colnames).len();
        let mut names = PgList::<pg_sys::Node>::from_pg((*entry.eref).colnames);
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*query).targetList);
        for column in entries.iter_ptr().filter(|e| !(**e).resjunk).skip(has) {
            let name = match (*column).resname.is_null() {
                true => c"".as_ptr().cast_mut(),
                false => (*column).resname,
            };
            names.push(pg_sys::makeString(pg_sys::pstrdup(name)).cast());
        }
        (*entry.eref).colnames = names.into_pg();
    }
}

/// Gives items the columns of a relation: the columns that the items have, matched by name, and
/// NULL for the others. The tree relies on the relation's types, so this function checks the types
/// of the items.
unsafe fn complete(items: *mut pg_sys::Query, relation: pg_sys::Oid) -> Result<()> {
    // SAFETY: the relation is already locked, together with the tree that reads it, and its
    // descriptor is only read. The items are a copy, and nothing refers to its columns by number.
    unsafe {
        let open = pg_sys::relation_open(relation, pg_sys::NoLock as i32);
        let shape = (*open).rd_att;
        let has = PgList::<pg_sys::TargetEntry>::from_pg((*items).targetList);
        let mut taken = 0;
        let mut fits = true;
        let mut all = PgList::<pg_sys::TargetEntry>::new();
        for place in 0..(*shape).natts as usize {
            let attribute = &*crate::pg::tuplestore::row_types::attribute(shape, place);
            let name = CStr::from_ptr(attribute.attname.data.as_ptr());
            let found = has.iter_ptr().find(|e| {
                !attribute.attisdropped
                    && !(**e).resname.is_null()
                    && CStr::from_ptr((**e).resname) == name
            });
            let value = match found {
                Some(entry) => {
                    taken += 1;
                    let (value, ok) = of_type((*entry).expr, attribute);
                    fits &= ok;
                    value
                }
                None if attribute.attisdropped => nothing(pg_sys::INT4OID, -1, pg_sys::InvalidOid),
                None => nothing(attribute.atttypid, attribute.atttypmod, attribute.attcollation),
            };
            let number = place as pg_sys::AttrNumber + 1;
            let name = pg_sys::pstrdup(name.as_ptr());
            all.push(pg_sys::makeTargetEntry(value, number, name, false));
        }
        pg_sys::relation_close(open, pg_sys::NoLock as i32);
        if !fits || taken != has.len() {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "a source was altered while coco composed a statement over it",
            )
            .hint("Try again."));
        }
        (*items).targetList = all.into_pg();
        Ok(())
    }
}

/// Returns a NULL of a type.
unsafe fn nothing(type_oid: pg_sys::Oid, typmod: i32, collation: pg_sys::Oid) -> *mut pg_sys::Expr {
    // SAFETY: the type exists.
    unsafe { pg_sys::makeNullConst(type_oid, typmod, collation).cast() }
}

/// Returns an expression relabeled as a column's type, and whether the types match. A value of a
/// domain is also a value of the domain's base type.
unsafe fn of_type(
    value: *mut pg_sys::Expr,
    column: &pg_sys::FormData_pg_attribute,
) -> (*mut pg_sys::Expr, bool) {
    // SAFETY: an analyzed expression.
    unsafe {
        let has = pg_sys::exprType(value.cast());
        if has == column.atttypid {
            return (value, true);
        }
        let form = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
        let label = pg_sys::makeRelabelType(
            value,
            column.atttypid,
            column.atttypmod,
            column.attcollation,
            form,
        );
        (label.cast(), pg_sys::getBaseType(column.atttypid) == has)
    }
}

/// Marks the relation of the items, which the query refers to laterally.
unsafe fn mark_items(above: *mut pg_sys::Query) {
    if above.is_null() {
        return;
    }
    // SAFETY: a query of the tree.
    unsafe {
        for entry in PgList::<pg_sys::RangeTblEntry>::from_pg((*above).rtable).iter_ptr() {
            if (*entry).rtekind == pg_sys::RTEKind::RTE_SUBQUERY
                && CStr::from_ptr((*(*entry).eref).aliasname).to_bytes() == ITEMS.as_bytes()
            {
                (*entry).enrname = pg_sys::pstrdup(ITEMS_MARK.as_ptr());
            }
        }
    }
}

/// Reports whether an entry is the relation of the items of a composed statement.
///
/// # Safety
/// `entry` belongs to an analyzed tree.
pub unsafe fn is_items(entry: *mut pg_sys::RangeTblEntry) -> bool {
    // SAFETY: the caller upholds the same contract.
    unsafe {
        (*entry).rtekind == pg_sys::RTEKind::RTE_SUBQUERY
            && !(*entry).enrname.is_null()
            && CStr::from_ptr((*entry).enrname) == ITEMS_MARK
    }
}

/// Returns the name of the CTE that contains the states of a source's groups.
pub fn states_name(source: i32) -> String {
    format!("{STATES}{source}")
}

/// Returns the name of the CTE that contains the items of a source.
pub fn shadow_name(source: i32) -> String {
    format!("{SHADOW}{source}")
}
