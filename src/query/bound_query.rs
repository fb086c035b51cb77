//! A query that a user wrote, bound to what it names when it was declared.
//!
//! The text is analysed once. Its tree is kept as a view's: by OID. So nothing is resolved by name again, whatever
//! is created, renamed or put on a search path later. Within the text a source's name, written without a schema,
//! stands for the source's relation, unless a CTE of that name hides it.
//!
//! An evaluation puts items in the place of the source ([`placing`](crate::query::place_items)). Which of the places that read
//! the source's relation are meant is decided here, and noted as [`Places`]: the other places read all of it.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::{CStr, CString, c_void};

use crate::catalog::model::Places;
use crate::pg::error::{Error, Result};
use crate::pg::spi;

/// A relation that has a name of its own in a text.
#[derive(Clone)]
pub struct Named {
    pub name: String,
    pub relation: pg_sys::Oid,
    /// The source's id; what [`Places`] has for it.
    pub id: i32,
    pub schema: String,
    pub table: String,
}

/// A place of a tree that reads a relation.
#[derive(Clone, Copy)]
pub struct Occurrence {
    pub entry: *mut pg_sys::RangeTblEntry,
    /// How far the query that has the entry is below the tree's own.
    pub depth: i32,
}

/// A text that was analysed.
pub struct Bound {
    pub tree: *mut pg_sys::Query,
    pub places: Places,
}

/// Analyses the one SELECT in `text`, and finds where it reads the items of `named`. `item`: the alias of the place
/// that is meant where the relation is only read by its qualified name, in several places. The caller acts as the
/// flow's owner, and has checked the text with [`one_select`](crate::query::analyze::one_select).
pub fn bind_query(
    argument: &str,
    text: &str,
    named: &[Named],
    item: Option<&str>,
) -> Result<Bound> {
    let mut naming = Naming::new(named, false);
    let tree = naming.analyse(argument, text)?;
    refuse_writes(argument, tree)?;
    let shared =
        named.iter().enumerate().any(|(n, a)| named[..n].iter().any(|b| a.relation == b.relation));
    if let (Some(alias), false) = (item, naming.marks.is_empty()) {
        return Err(Error::invalid(format!(
            "argument \"item\" (\"{alias}\") is not needed: argument \"{argument}\" names the source without its schema"
        ))
        .detail("These places are the item.")
        .hint("Leave it out, or write the source with its schema everywhere."));
    }
    if naming.qualified == 0 && !shared {
        let of = |o: &Occurrence| named.iter().find(|n| reads(o, n.relation)).map_or(0, |n| n.id);
        let places = found(tree, named).iter().map(of).collect();
        return checked(argument, Bound { tree, places }, named);
    }
    if naming.marks.is_empty() {
        let places = chosen(argument, tree, named, item)?;
        return checked(argument, Bound { tree, places }, named);
    }
    // Some places are meant and others are not: those that are get an alias that tells them apart.
    let mut naming = Naming::new(named, true);
    let tree = naming.analyse(argument, text)?;
    let all = found(tree, named);
    let of = |o: &Occurrence| {
        // SAFETY: an entry of the tree. The parser gives an entry the very alias that its name has.
        let alias = unsafe { (*o.entry).alias };
        naming.marks.iter().find(|(mark, _)| *mark == alias).map_or(0, |(_, id)| *id)
    };
    let places: Places = all.iter().map(of).collect();
    let meant = places.iter().filter(|id| **id != 0).count();
    // An expression that the parser copies has copies of the names in it.
    if meant != naming.marks.len() || all.len() != meant + naming.qualified {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("argument \"{argument}\" reads a source both as the item and as a whole, in a way that coco cannot tell apart"),
        )
        .hint("Write the subquery that reads the source as a FROM item of its own."));
    }
    checked(argument, Bound { tree, places }, named)
}

/// The places that are meant where no name without a schema is one of `named`: the only one, or the one that `item`
/// names.
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
                .detail(format!("It is read as: {}.", has.join(", "))));
            }
            _ => {
                return Err(Error::new(
                    pgrx::PgSqlErrorCode::ERRCODE_AMBIGUOUS_ALIAS,
                    format!("argument \"{argument}\" reads source \"{}\" in several places", source.name),
                )
                .detail("One of them is the item; the others read the whole table.")
                .hint(format!(
                    "Write the name without its schema where the item is meant ({}), or name the alias of that place with the argument \"item\".",
                    spi::ident(&source.name)
                )));
            }
        }
    }
    Ok(places.into())
}

fn alias_of(occurrence: &Occurrence) -> String {
    // SAFETY: every entry of an analysed tree has a name.
    unsafe { CStr::from_ptr((*(*occurrence.entry).eref).aliasname) }.to_string_lossy().into_owned()
}

fn reads(occurrence: &Occurrence, relation: pg_sys::Oid) -> bool {
    // SAFETY: an entry of a tree.
    unsafe { (*occurrence.entry).relid == relation }
}

fn found(tree: *mut pg_sys::Query, named: &[Named]) -> Vec<Occurrence> {
    let relations: Vec<pg_sys::Oid> = named.iter().map(|n| n.relation).collect();
    // SAFETY: a tree that was just made.
    unsafe { occurrences(tree, &relations) }
}

/// Refuses places that items cannot stand in for.
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
        .detail("There the query reads one item at a time, not the table.")
        .hint("Declare the flow over a view that reads the table so, or over the one partition or table that is meant."));
    }
    Ok(bound)
}

/// Refuses what a SELECT may do besides reading.
fn refuse_writes(argument: &str, tree: *mut pg_sys::Query) -> Result<()> {
    // SAFETY: a tree that was just made.
    let (modifies, locks) = unsafe { ((*tree).hasModifyingCTE, locks_rows(tree)) };
    let message = match (modifies, locks) {
        (true, _) => format!("argument \"{argument}\" writes in a WITH clause"),
        (_, true) => format!("argument \"{argument}\" locks rows (FOR UPDATE, FOR SHARE)"),
        _ => return Ok(()),
    };
    Err(Error::new(pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
        .hint("Leave that out: a flow's query only reads."))
}

unsafe fn locks_rows(tree: *mut pg_sys::Query) -> bool {
    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn look(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
        if node.is_null() {
            return false;
        }
        // SAFETY: a node of an analysed tree.
        unsafe {
            if (*node).type_ != NodeTag::T_Query {
                return walk_expression(node, Some(look), context);
            }
            let query = node.cast::<pg_sys::Query>();
            !(*query).rowMarks.is_null() || walk_query(query, Some(look), context, 0)
        }
    }
    // SAFETY: as above.
    unsafe { look(tree.cast(), std::ptr::null_mut()) }
}

/// The places of a tree that read one of these relations themselves, always in the same order.
///
/// # Safety
/// An analysed tree; the places are valid as long as it is.
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
        // SAFETY: a node of the tree; the context is the Walk below, which is not otherwise used meanwhile.
        unsafe {
            match (*node).type_ {
                NodeTag::T_Query => {
                    (*context.cast::<Walk>()).depth += 1;
                    let flags = pg_sys::QTW_EXAMINE_RTES_BEFORE as i32;
                    walk_query(node.cast(), Some(look), context, flags);
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
                _ => walk_expression(node, Some(look), context),
            }
        }
    }
    let mut walk = Walk { relations, depth: -1, found: vec![] };
    // SAFETY: as above.
    unsafe { look(tree.cast(), (&raw mut walk).cast()) };
    walk.found
}

/// The tree that a view keeps, to be looked at. It takes no lock, and waits for nobody: what it names may be another's
/// to alter meanwhile.
pub fn read_bound_query(view: pg_sys::Oid) -> Result<*mut pg_sys::Query> {
    let action = spi::scalar::<String>(
        "select ev_action::pg_catalog.text from pg_catalog.pg_rewrite
          where ev_class operator(pg_catalog.=) $1 and ev_type operator(pg_catalog.=) '1'",
        &[spi::arg(view)],
    )?;
    let gone = || Error::internal("the view of a flow's query is not one");
    let action = c_string(&action.ok_or_else(gone)?)?;
    // SAFETY: what the catalog has for a rule is a list of queries, in the form that this reads.
    unsafe {
        let list = pg_sys::stringToNode(action.as_ptr()).cast::<pg_sys::List>();
        let queries = PgList::<pg_sys::Query>::from_pg(list);
        queries.get_ptr(0).ok_or_else(gone)
    }
}

/// A copy of the tree that a view keeps, to be run: with the locks that this needs.
pub fn of_view(view: pg_sys::Oid) -> Result<*mut pg_sys::Query> {
    // SAFETY: the view is locked while it is open, and the lock stays until the transaction ends. Its tree is
    // copied; locks of what it reads are taken as the rewriter does.
    unsafe {
        let relation = pg_sys::relation_open(view, pg_sys::AccessShareLock as i32);
        let is_view = (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_VIEW;
        let tree = match is_view && !(*relation).rd_rules.is_null() {
            true => pg_sys::copyObjectImpl(pg_sys::get_view_query(relation).cast()),
            false => std::ptr::null_mut(),
        };
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        if tree.is_null() {
            return Err(Error::internal("the view of a flow's query is not one"));
        }
        let tree = tree.cast::<pg_sys::Query>();
        pg_sys::AcquireRewriteLocks(tree, true, false);
        Ok(tree)
    }
}

/// Names of a text that stand for relations of their own.
struct Naming<'a> {
    named: &'a [Named],
    /// Names that a CTE hides where we are.
    hidden: Vec<String>,
    /// Whether each name gets an alias.
    mark: bool,
    /// The aliases of the names that were found (null where there is none), and the ids of what they stand for.
    marks: Vec<(*mut pg_sys::Alias, i32)>,
    /// How often one of the relations is read by another name.
    qualified: usize,
}

impl Naming<'_> {
    fn new(named: &[Named], mark: bool) -> Naming<'_> {
        Naming { named, hidden: vec![], mark, marks: vec![], qualified: 0 }
    }

    /// Parses a text, gives the names in it what they stand for, and analyses it.
    fn analyse(&mut self, argument: &str, text: &str) -> Result<*mut pg_sys::Query> {
        let text = c_string(text)?;
        crate::pg::subtransaction::subtransaction(
            || {
                // SAFETY: the text is one SELECT, which the caller has checked; the trees live in the context that
                // the caller is in.
                unsafe {
                    let list =
                        PgList::<pg_sys::RawStmt>::from_pg(pg_sys::pg_parse_query(text.as_ptr()));
                    let raw =
                        list.get_ptr(0).ok_or_else(|| Error::internal("nothing to analyse"))?;
                    let context = std::ptr::from_mut(self).cast();
                    look_raw((*raw).stmt, context);
                    Ok(crate::query::parse_analysis::parse_analyzed(raw, &text))
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

    /// A relation's name in a raw tree.
    unsafe fn name(&mut self, name: *mut pg_sys::RangeVar) {
        // SAFETY: the parser has made the node, and its strings.
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

    /// A SELECT with a WITH clause, whose names hide others where they are visible.
    unsafe fn with(&mut self, select: *mut pg_sys::SelectStmt) {
        let before = self.hidden.len();
        // SAFETY: the parser has made the nodes. The clause is walked by itself, and put back.
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
                look_raw((*cte).ctequery, std::ptr::from_mut(self).cast());
                self.hidden.push(name(cte));
            }
            (*select).withClause = std::ptr::null_mut();
            walk_raw(select.cast(), Some(look_raw), std::ptr::from_mut(self).cast());
            (*select).withClause = clause;
        }
        self.hidden.truncate(before);
    }
}

/// The walker that Postgres calls for every node of a raw tree. `true` would end the walk; it never does.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn look_raw(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node of a raw tree; the context is the Naming that started this.
    unsafe {
        pg_sys::check_stack_depth();
        let naming = &mut *context.cast::<Naming>();
        match (*node).type_ {
            NodeTag::T_RangeVar => naming.name(node.cast()),
            NodeTag::T_SelectStmt if !(*node.cast::<pg_sys::SelectStmt>()).withClause.is_null() => {
                naming.with(node.cast());
            }
            // It names aliases, not relations.
            NodeTag::T_LockingClause => {}
            _ => {
                walk_raw(node, Some(look_raw), context);
            }
        }
        false
    }
}

type Visit = Option<unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool>;

unsafe fn walk_raw(node: *mut pg_sys::Node, visit: Visit, context: *mut c_void) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::raw_expression_tree_walker(node, visit, context);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        return pg_sys::raw_expression_tree_walker_impl(node, visit, context);
    }
}

/// As Postgres' `expression_tree_walker`.
///
/// # Safety
/// A node of an analysed tree, and what the callback takes.
pub unsafe fn walk_expression(node: *mut pg_sys::Node, visit: Visit, context: *mut c_void) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::expression_tree_walker(node, visit, context);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        return pg_sys::expression_tree_walker_impl(node, visit, context);
    }
}

/// As Postgres' `query_tree_walker`.
///
/// # Safety
/// An analysed tree, and what the callback takes.
pub unsafe fn walk_query(
    query: *mut pg_sys::Query,
    visit: Visit,
    context: *mut c_void,
    flags: i32,
) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::query_tree_walker(query, visit, context, flags);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        return pg_sys::query_tree_walker_impl(query, visit, context, flags);
    }
}

/// A string of Postgres' own. Names of relations have no NUL byte.
unsafe fn copied(text: &str) -> *mut std::ffi::c_char {
    // SAFETY: room for the text and its end; palloc0 leaves a zero there.
    unsafe {
        let copy = pg_sys::palloc0(text.len() + 1).cast::<u8>();
        std::ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
        copy.cast()
    }
}

fn c_string(s: &str) -> Result<CString> {
    CString::new(s).map_err(|_| Error::invalid("text with a NUL byte"))
}
