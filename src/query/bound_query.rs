//! A query that a user wrote, bound to the objects that it named when it was declared.
//!
//! coco analyzes the text once, and a view keeps the analyzed tree, which refers to objects by OID.
//! coco therefore never resolves a name again, whatever is later created, renamed or added to a
//! search path. In the text, a source's name without a schema stands for the source's relation,
//! unless a CTE hides the name.
//!
//! An evaluation replaces the source by items ([`place_items`](crate::query::place_items)). This
//! module decides which places that read the source's relation are the item, and records them as
//! [`Places`]. The other places read the whole relation.

use pgrx::pg_sys::{self, NodeTag};
use std::ffi::{CStr, c_void};

use crate::catalog::model::Places;
use crate::pg::error::{Error, Result};
use crate::pg::spi;
use crate::query::item_names::Naming;
use crate::query::named_source::Named;
use crate::query::{union_all, walker};

/// A place in a tree that reads a relation.
#[derive(Clone, Copy)]
pub struct Occurrence {
    pub entry: *mut pg_sys::RangeTblEntry,
    /// The number of query levels between the tree's root and the query that contains the entry.
    pub depth: i32,
}

/// A text after analysis.
pub struct Bound {
    pub tree: *mut pg_sys::Query,
    pub places: Places,
}

/// Analyzes the only SELECT in `text`, and finds where it reads the items of `named`.
///
/// `item` is the alias of the place that is the item; the other places then read the whole
/// relation. Without it, the names without a schema are the item, or else the only place. The
/// caller acts as the flow's owner, and has checked the text with [`one_select`](crate::query::syntax::one_select).
pub fn bind_query(
    argument: &str,
    text: &str,
    named: &[Named],
    item: Option<&str>,
) -> Result<Bound> {
    let mut naming = Naming::new(named, false);
    let tree = naming.analyze(argument, text)?;
    refuse_writes(argument, tree)?;
    let shared =
        named.iter().enumerate().any(|(n, a)| named[..n].iter().any(|b| a.relation == b.relation));
    // With several sources, an alias says nothing about the places of the others.
    if let (Some(alias), false, true) = (item, naming.marks.is_empty(), named.len() > 1) {
        return Err(Error::invalid(format!(
            "argument \"item\" (\"{alias}\") is not needed: argument \"{argument}\" names the source without its schema"
        ))
        .detail("The places that name the source without its schema are the item.")
        .hint("Omit \"item\", or write the source with its schema everywhere."));
    }
    if naming.qualified == 0 && !shared && item.is_none() {
        let of = |o: &Occurrence| named.iter().find(|n| reads(o, n.relation)).map_or(0, |n| n.id);
        let places = found(tree, named).iter().map(of).collect();
        return checked(argument, Bound { tree, places }, named);
    }
    if naming.marks.is_empty() || item.is_some() {
        let places = chosen(argument, tree, named, item)?;
        return checked(argument, Bound { tree, places }, named);
    }
    // Some places are the item and others are not: give the former an alias that identifies them.
    let mut naming = Naming::new(named, true);
    let tree = naming.analyze(argument, text)?;
    let all = found(tree, named);
    let of = |o: &Occurrence| {
        // SAFETY: an entry of the tree. The parser gives an entry the same alias node that its name
        // has.
        let alias = unsafe { (*o.entry).alias };
        naming.marks.iter().find(|(mark, _)| *mark == alias).map_or(0, |(_, id)| *id)
    };
    let places: Places = all.iter().map(of).collect();
    let meant = places.iter().filter(|id| **id != 0).count();
    // If the parser copies an expression, the copy contains copies of the names.
    if meant != naming.marks.len() || all.len() != meant + naming.qualified {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("argument \"{argument}\" reads a source both as the item and as a whole, in a way that coco cannot tell apart"),
        )
        .hint("Write the subquery that reads the source as a FROM item of its own."));
    }
    checked(argument, Bound { tree, places }, named)
}

/// Finds the item by alias, or as the only place that reads the relation: for a text without names
/// that stand for the item, or with `item`.
fn chosen(
    argument: &str,
    tree: *mut pg_sys::Query,
    named: &[Named],
    item: Option<&str>,
) -> Result<Places> {
    let all = found(tree, named);
    let mut places = vec![0; all.len()];
    for source in named {
        let of: Vec<usize> = (0..all.len()).filter(|n| reads(&all[*n], source.relation)).collect();
        let meant: Vec<usize> = match item {
            Some(alias) => of.iter().copied().filter(|n| alias_of(&all[*n]) == alias).collect(),
            None => of.clone(),
        };
        match (meant.as_slice(), of.len()) {
            ([one], _) => places[*one] = source.id,
            (_, 0) => {}
            ([], _) if named.len() > 1 => {}
            ([], _) => {
                let has: Vec<String> = of.iter().map(|n| alias_of(&all[*n])).collect();
                return Err(Error::invalid(format!(
                    "argument \"item\": argument \"{argument}\" does not read source \"{}\" under the alias \"{}\"",
                    source.name,
                    item.unwrap_or_default()
                ))
                .detail(format!("The query reads the source as: {}.", has.join(", ")))
                .hint("Pass one of these aliases."));
            }
            (several, all)
                if is_only_source(named, source)
                    && is_read_once_per_branch(tree, source.relation, all) =>
            {
                several.iter().for_each(|n| places[*n] = source.id);
            }
            _ => {
                return Err(Error::new(
                    pgrx::PgSqlErrorCode::ERRCODE_AMBIGUOUS_ALIAS,
                    format!("argument \"{argument}\" reads source \"{}\" in several places", source.name),
                )
                .detail("One of these places is the item; the others read the whole table.")
                .hint(format!(
                    "Write the item's name without its schema ({}), or pass the alias of its place as the argument \"item\".",
                    spi::ident(&source.name)
                )));
            }
        }
    }
    Ok(places.into())
}

/// Reports whether no other source has the same relation.
fn is_only_source(named: &[Named], source: &Named) -> bool {
    named.iter().filter(|other| other.relation == source.relation).count() == 1
}

/// Reports whether a tree is a UNION ALL whose branches contain all places that read the relation,
/// at most one each. Each of these places is then the item, as if the branches were queries of
/// their own.
fn is_read_once_per_branch(tree: *mut pg_sys::Query, relation: pg_sys::Oid, places: usize) -> bool {
    // SAFETY: the tree was just created.
    let branches = unsafe { union_all::branches(tree) };
    // SAFETY: the branches belong to the tree.
    let counts: Vec<usize> =
        branches.iter().map(|b| unsafe { occurrences(*b, &[relation]) }.len()).collect();
    counts.iter().all(|count| *count <= 1) && counts.iter().sum::<usize>() == places
}

/// Returns the aliases under which a bound query reads the items of `named`, each once.
pub fn item_aliases(bound: &Bound, named: &[Named]) -> Vec<String> {
    let mut aliases = Vec::new();
    for (place, id) in found(bound.tree, named).iter().zip(bound.places.iter()) {
        let alias = alias_of(place);
        if *id != 0 && !aliases.contains(&alias) {
            aliases.push(alias);
        }
    }
    aliases
}

/// Returns how many places of a tree read a relation.
pub fn count_places(tree: *mut pg_sys::Query, relation: pg_sys::Oid) -> usize {
    // SAFETY: the caller passes a tree that it has just created.
    unsafe { occurrences(tree, &[relation]) }.len()
}

/// Returns the places of a tree that read a relation: `id` for those with this alias, and 0 for the
/// others.
pub fn places_by_alias(
    tree: *mut pg_sys::Query,
    relation: pg_sys::Oid,
    id: i32,
    alias: &str,
) -> Places {
    // SAFETY: the caller passes a tree that it has just read.
    let places = unsafe { occurrences(tree, &[relation]) };
    places.iter().map(|place| if alias_of(place) == alias { id } else { 0 }).collect()
}

fn alias_of(occurrence: &Occurrence) -> String {
    // SAFETY: every entry of an analyzed tree has an `eref` with a name.
    unsafe { CStr::from_ptr((*(*occurrence.entry).eref).aliasname) }.to_string_lossy().into_owned()
}

fn reads(occurrence: &Occurrence, relation: pg_sys::Oid) -> bool {
    // SAFETY: an entry of an analyzed tree.
    unsafe { (*occurrence.entry).relid == relation }
}

fn found(tree: *mut pg_sys::Query, named: &[Named]) -> Vec<Occurrence> {
    let relations: Vec<pg_sys::Oid> = named.iter().map(|n| n.relation).collect();
    // SAFETY: the tree was just created.
    unsafe { occurrences(tree, &relations) }
}

/// Rejects places that items cannot replace.
fn checked(argument: &str, bound: Bound, named: &[Named]) -> Result<Bound> {
    for (place, id) in found(bound.tree, named).iter().zip(bound.places.iter()) {
        if *id == 0 {
            continue;
        }
        // SAFETY: an entry of the tree.
        let entry = unsafe { &*place.entry };
        let construct = match (entry.inh, entry.tablesample.is_null()) {
            (false, _) => "ONLY",
            (_, false) => "TABLESAMPLE",
            _ => continue,
        };
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("argument \"{argument}\" reads the source {} with {construct}", alias_of(place)),
        )
        .detail("At this place the query reads one item at a time, not the table.")
        .hint(format!("Declare the flow over a view that reads the table with {construct}, or over a single table or partition.")));
    }
    Ok(bound)
}

/// Rejects a SELECT that writes or locks rows.
fn refuse_writes(argument: &str, tree: *mut pg_sys::Query) -> Result<()> {
    // SAFETY: the tree was just created.
    let (modifies, locks) = unsafe { ((*tree).hasModifyingCTE, locks_rows(tree)) };
    let message = match (modifies, locks) {
        (true, _) => format!("argument \"{argument}\" writes in a WITH clause"),
        (_, true) => format!("argument \"{argument}\" locks rows (FOR UPDATE, FOR SHARE)"),
        _ => return Ok(()),
    };
    Err(Error::new(pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
        .hint("Remove this clause: a flow's query only reads."))
}

unsafe fn locks_rows(tree: *mut pg_sys::Query) -> bool {
    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn look(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
        if node.is_null() {
            return false;
        }
        // SAFETY: a node of an analyzed tree.
        unsafe {
            if (*node).type_ != NodeTag::T_Query {
                return walker::walk_expression(node, Some(look), context);
            }
            let query = node.cast::<pg_sys::Query>();
            !(*query).rowMarks.is_null() || walker::walk_query(query, Some(look), context, 0)
        }
    }
    // SAFETY: as above.
    unsafe { walker::visit(tree.cast(), Some(look), std::ptr::null_mut()) }
}

/// Returns the places of a tree that directly read one of these relations, always in the same
/// order.
///
/// # Safety
/// `tree` is an analyzed tree. The places are valid as long as the tree.
pub unsafe fn occurrences(tree: *mut pg_sys::Query, relations: &[pg_sys::Oid]) -> Vec<Occurrence> {
    struct Walk<'a> {
        relations: &'a [pg_sys::Oid],
        depth: i32,
        found: Vec<Occurrence>,
    }
    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn look(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
        if node.is_null() {
            return false;
        }
        // SAFETY: a node of the tree; the context is the `Walk` below, and no other code uses it
        // during the walk.
        unsafe {
            match (*node).type_ {
                NodeTag::T_Query => {
                    (*context.cast::<Walk>()).depth += 1;
                    let flags = pg_sys::QTW_EXAMINE_RTES_BEFORE;
                    walker::walk_query(node.cast(), Some(look), context, flags);
                    (*context.cast::<Walk>()).depth -= 1;
                    false
                }
                NodeTag::T_RangeTblEntry => {
                    let walk = &mut *context.cast::<Walk>();
                    let entry = node.cast::<pg_sys::RangeTblEntry>();
                    if (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                        && walk.relations.contains(&(*entry).relid)
                    {
                        walk.found.push(Occurrence { entry, depth: walk.depth });
                    }
                    false
                }
                _ => walker::walk_expression(node, Some(look), context),
            }
        }
    }
    let mut walk = Walk { relations, depth: -1, found: vec![] };
    // SAFETY: as above.
    unsafe { walker::visit(tree.cast(), Some(look), (&raw mut walk).cast()) };
    walk.found
}
