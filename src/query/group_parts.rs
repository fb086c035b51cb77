//! The two parts of a query that groups the rows of its source: the row part computes what one row
//! contributes to its group, and the group part computes a row of the result from the state of a group.
//!
//! ```sql
//! select region, sum(amount) filter (where paid) as total from sales where kind = 1 group by region
//! -- the row part
//! select id as r1, region as g1, case when paid then amount end as e1 from sales where kind = 1
//! -- the group part, over the CTE of the states
//! select k1 as region, a1 as total from <states>
//! ```
//!
//! Both parts come from the bound tree, so no name is resolved again. HAVING and expressions over
//! aggregates stay as they are.
//!
//! Callers: `declare` (stores the row part in a view), `place_items` (the group part), `flows`.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use pgrx::prelude::*;
use std::ffi::{CStr, CString, c_void};

use crate::pg::columns::Column;
use crate::pg::error::{Error, Result};
use crate::query::group_rules::{ShapedGroups, cannot_keep, column_for};
use crate::query::named_source::Shadow;
use crate::query::trace_column::range_entry;
use crate::query::{key_rules, walker};

/// The prefixes of the columns of the CTE of the states: of what the query groups by, and of an
/// aggregate, each by its place.
pub const KEY: &str = "k";
pub const AGGREGATE: &str = "a";

/// A query that groups the rows of its source, taken apart.
pub struct GroupParts {
    /// What the query groups by, each once.
    grouped_by: Vec<*mut pg_sys::Node>,
    /// A copy of the query, in which no column stands for a grouped one.
    tree: *mut pg_sys::Query,
    /// The place of the source in FROM.
    at: i32,
    /// The aggregates of the query, each once.
    aggregates: Vec<*mut pg_sys::Node>,
}

/// The row part of a query, for a view to keep.
pub struct RowPart {
    pub tree: *mut pg_sys::Query,
    pub columns: Vec<Column>,
}

/// Takes a bound query apart. Fails (0A000) if coco has no rule for a clause of the query. Runs no
/// statement, because `place_items` calls it while the server analyzes one.
///
/// # Safety
/// `tree` is an analyzed tree, which nobody changes meanwhile.
pub unsafe fn take_apart(tree: *mut pg_sys::Query, relation: pg_sys::Oid) -> Result<GroupParts> {
    // SAFETY: the caller passes an analyzed tree, whose lists contain the node types that their names
    // say. The code changes a copy only.
    unsafe {
        let tree = pg_sys::copyObjectImpl(tree.cast()).cast::<pg_sys::Query>();
        check_clauses(&*tree)?;
        without_group_entry(tree);
        let at = only_relation(tree, relation)?;
        let grouped_by = grouped_by(tree);
        let shown = PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList);
        let mut search = Search { found: vec![], other: false };
        let context: *mut c_void = (&raw mut search).cast();
        for entry in shown.iter_ptr().filter(|entry| !(**entry).resjunk) {
            walker::visit((*entry).expr.cast(), Some(find_aggregates), context);
        }
        walker::visit((*tree).havingQual, Some(find_aggregates), context);
        if search.other {
            return Err(cannot_keep("the query calls GROUPING or a window function"));
        }
        if pg_sys::contain_volatile_functions((*(*tree).jointree).quals) {
            return Err(cannot_keep("the query calls a volatile function in WHERE"));
        }
        let mut aggregates: Vec<*mut pg_sys::Node> = Vec::new();
        for aggregate in search.found {
            add_once(&mut aggregates, aggregate);
        }
        Ok(GroupParts { grouped_by, tree, at, aggregates })
    }
}

/// Fails if the query has a clause for which there is no rule.
unsafe fn check_clauses(query: &pg_sys::Query) -> Result<()> {
    let clauses = [
        (!query.setOperations.is_null(), "UNION, INTERSECT or EXCEPT"),
        (!query.cteList.is_null(), "WITH"),
        (!query.groupingSets.is_null(), "grouping sets"),
        (!query.distinctClause.is_null(), "DISTINCT"),
        (!query.limitCount.is_null() || !query.limitOffset.is_null(), "LIMIT or OFFSET"),
        (query.hasWindowFuncs, "a window function"),
        (query.hasTargetSRFs, "a function that returns a set"),
        (query.hasSubLinks, "a subquery"),
    ];
    if let Some((_, clause)) = clauses.iter().find(|(has, _)| *has) {
        return Err(cannot_keep(format!("the query has {clause}")));
    }
    match query.groupClause.is_null() {
        true => Err(cannot_keep("the query has no GROUP BY")),
        false => Ok(()),
    }
}

/// Returns the place of the only relation in FROM.
unsafe fn only_relation(tree: *mut pg_sys::Query, relation: pg_sys::Oid) -> Result<i32> {
    // SAFETY: as in `take_apart`.
    unsafe {
        let from = PgList::<pg_sys::Node>::from_pg((*(*tree).jointree).fromlist);
        let refused = || cannot_keep("the query reads more in FROM than the table of its source");
        let node = from.get_ptr(0).filter(|_| from.len() == 1).ok_or_else(refused)?;
        if (*node).type_ != NodeTag::T_RangeTblRef {
            return Err(refused());
        }
        let at = (*node.cast::<pg_sys::RangeTblRef>()).rtindex;
        let entry = range_entry(tree, at).ok_or_else(refused)?;
        let is_source =
            (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION && (*entry).relid == relation;
        if is_source { Ok(at) } else { Err(refused()) }
    }
}

/// Returns what the query groups by, each once, in the order of GROUP BY.
unsafe fn grouped_by(tree: *mut pg_sys::Query) -> Vec<*mut pg_sys::Node> {
    // SAFETY: as in `take_apart`.
    unsafe {
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList);
        let mut grouped = Vec::new();
        for group in PgList::<pg_sys::SortGroupClause>::from_pg((*tree).groupClause).iter_ptr() {
            let reference = (*group).tleSortGroupRef;
            let entry = entries.iter_ptr().find(|entry| (**entry).ressortgroupref == reference);
            if let Some(entry) = entry {
                add_once(&mut grouped, (*entry).expr.cast());
            }
        }
        grouped
    }
}

/// Returns the place of an expression among others.
unsafe fn place_of(all: &[*mut pg_sys::Node], expression: *mut pg_sys::Node) -> Option<usize> {
    // SAFETY: nodes of analyzed trees.
    all.iter().position(|known| unsafe {
        pg_sys::equal((*known).cast::<c_void>(), expression.cast::<c_void>())
    })
}

/// Adds an expression unless it is there already.
unsafe fn add_once(all: &mut Vec<*mut pg_sys::Node>, expression: *mut pg_sys::Node) {
    // SAFETY: as above.
    if unsafe { place_of(all, expression) }.is_none() {
        all.push(expression);
    }
}

/// Returns the number of the source's column that an expression is.
unsafe fn column_of(node: *mut pg_sys::Node, at: i32) -> Option<i16> {
    // SAFETY: as in `take_apart`; the code reads the node as the type that its tag names.
    unsafe {
        if node.is_null() || (*node).type_ != NodeTag::T_Var {
            return None;
        }
        let var = &*node.cast::<pg_sys::Var>();
        let is_column = var.varno == at && var.varlevelsup == 0 && var.varattno > 0;
        is_column.then_some(var.varattno)
    }
}

/// Replaces the columns that stand for grouped ones by these, and removes the entry that PostgreSQL
/// keeps for them from version 18 on.
unsafe fn without_group_entry(tree: *mut pg_sys::Query) {
    #[cfg(feature = "pg18")]
    // SAFETY: as in `take_apart`. The entry is the last one of the list, because the analysis adds it
    // after FROM; no other entry has a number after it.
    unsafe {
        let entries = PgList::<pg_sys::RangeTblEntry>::from_pg((*tree).rtable);
        let is_group =
            |entry: &*mut pg_sys::RangeTblEntry| (**entry).rtekind == pg_sys::RTEKind::RTE_GROUP;
        let Some(place) = entries.iter_ptr().position(|entry| is_group(&entry)) else { return };
        let mut replacing = Grouped {
            number: place as i32 + 1,
            expressions: entries.get_ptr(place).map_or(std::ptr::null_mut(), |e| (*e).groupexprs),
        };
        let context: *mut c_void = (&raw mut replacing).cast();
        let list: *mut pg_sys::Node = (*tree).targetList.cast();
        (*tree).targetList = walker::mutate(list, replace_grouped, context).cast();
        (*tree).havingQual = walker::mutate((*tree).havingQual, replace_grouped, context);
        (*tree).hasGroupRTE = false;
        if place + 1 == entries.len() {
            (*tree).rtable = pg_sys::list_truncate((*tree).rtable, place as i32);
        }
    }
    #[cfg(not(feature = "pg18"))]
    let _ = tree;
}

#[cfg(feature = "pg18")]
struct Grouped {
    number: i32,
    expressions: *mut pg_sys::List,
}

#[cfg(feature = "pg18")]
#[pg_guard]
unsafe extern "C-unwind" fn replace_grouped(
    node: *mut pg_sys::Node,
    context: *mut c_void,
) -> *mut pg_sys::Node {
    if node.is_null() {
        return node;
    }
    // SAFETY: a node of the tree; the context is the `Grouped` that started this walk.
    unsafe {
        let grouped = &*context.cast::<Grouped>();
        if (*node).type_ == NodeTag::T_Var {
            let var = &*node.cast::<pg_sys::Var>();
            let place = usize::try_from(var.varattno).ok().and_then(|n| n.checked_sub(1));
            let expressions = PgList::<pg_sys::Node>::from_pg(grouped.expressions);
            if let (true, Some(expression)) = (
                var.varno == grouped.number && var.varlevelsup == 0,
                place.and_then(|place| expressions.get_ptr(place)),
            ) {
                return pg_sys::copyObjectImpl(expression.cast()).cast();
            }
        }
        walker::mutate_children(node, replace_grouped, context)
    }
}

/// The aggregates of a query, in order.
struct Search {
    found: Vec<*mut pg_sys::Node>,
    /// Whether there is another construct that concerns several rows.
    other: bool,
}

#[pg_guard]
unsafe extern "C-unwind" fn find_aggregates(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node of the tree; the context is the `Search` that started this walk.
    unsafe {
        let search = context.cast::<Search>();
        match (*node).type_ {
            NodeTag::T_Aggref => {
                (*search).found.push(node);
                false
            }
            NodeTag::T_GroupingFunc | NodeTag::T_WindowFunc => {
                (*search).other = true;
                true
            }
            _ => walker::walk_expression(node, Some(find_aggregates), context),
        }
    }
}

impl GroupParts {
    /// Returns the place of the source in the query.
    pub fn place(&self) -> i32 {
        self.at
    }

    /// Returns the place of each column of the source's key among what the query groups by; `None` if
    /// the query does not group by exactly the key.
    pub fn places_of_key(&self, source: &Shadow) -> Option<Vec<usize>> {
        let at = self.at;
        let is_key = |name: &str, grouped: *mut pg_sys::Node| match source.key_expression(name) {
            // SAFETY: both expressions belong to analyzed trees.
            Some(key) => unsafe {
                key_rules::is_same_over_row(grouped, &|var| column_of(var, at), key)
            },
            // SAFETY: as above.
            None => unsafe { column_of(grouped, at) }
                .is_some_and(|number| source.column(number).is_some_and(|column| column == name)),
        };
        let place = |name: &String| self.grouped_by.iter().position(|node| is_key(name, *node));
        let places: Vec<usize> = source.key.iter().map(place).collect::<Option<_>>()?;
        let has_all = (0..self.grouped_by.len()).all(|n| places.contains(&n));
        (has_all && places.len() == self.grouped_by.len()).then_some(places)
    }

    /// Finds the rules for the aggregates of the query. Fails (0A000) if there is none for one of them.
    pub fn shape(&self) -> Result<ShapedGroups> {
        let mut shaped = ShapedGroups::default();
        for aggregate in &self.aggregates {
            // SAFETY: an aggregate of the tree.
            unsafe { shaped.add_aggregate((*aggregate).cast())? };
        }
        Ok(shaped)
    }
}

impl GroupParts {
    /// Returns the row part: the columns of these numbers, what the query groups by at these places,
    /// then the expressions.
    ///
    /// # Safety
    /// The numbers are those of columns of the source.
    pub unsafe fn row_part(
        self,
        shaped: ShapedGroups,
        row_key: &[i16],
        key: &[usize],
    ) -> Result<RowPart> {
        let GroupParts { tree, at, grouped_by, .. } = self;
        let ShapedGroups { shape, expressions } = shaped;
        // SAFETY: the tree is a copy that nobody else refers to. Its only entry in FROM is the source.
        unsafe {
            let entry = range_entry(tree, at)
                .ok_or_else(|| Error::internal("a query has no entry for its source"))?;
            let relation = (*entry).relid;
            let mut nodes: Vec<(String, *mut pg_sys::Node)> = Vec::new();
            for (n, number) in row_key.iter().enumerate() {
                let (mut type_oid, mut typmod, mut collation) =
                    (pg_sys::InvalidOid, -1, pg_sys::InvalidOid);
                pg_sys::get_atttypetypmodcoll(
                    relation,
                    *number,
                    &mut type_oid,
                    &mut typmod,
                    &mut collation,
                );
                let var = pg_sys::makeVar(at, *number, type_oid, typmod, collation, 0);
                nodes.push((format!("r{}", n + 1), var.cast()));
                allow_reading(tree, entry, *number);
            }
            for (n, place) in key.iter().enumerate() {
                let grouped = grouped_by
                    .get(*place)
                    .ok_or_else(|| Error::internal("a query does not group by its source key"))?;
                let copy = pg_sys::copyObjectImpl((*grouped).cast());
                nodes.push((format!("g{}", n + 1), copy.cast()));
            }
            for (column, node) in shape.expressions.iter().zip(expressions) {
                nodes.push((column.name.clone(), node));
            }
            let mut entries = PgList::<pg_sys::TargetEntry>::new();
            let mut columns = Vec::with_capacity(nodes.len());
            for (n, (name, node)) in nodes.into_iter().enumerate() {
                columns.push(column_for(name.clone(), node)?);
                let name =
                    CString::new(name).map_err(|_| Error::internal("name contains a NUL byte"))?;
                let name = pg_sys::pstrdup(name.as_ptr());
                let number = n as pg_sys::AttrNumber + 1;
                entries.push(pg_sys::makeTargetEntry(node.cast(), number, name, false));
            }
            (*tree).targetList = entries.into_pg();
            ungroup(tree);
            (*tree).havingQual = std::ptr::null_mut();
            Ok(RowPart { tree, columns })
        }
    }

    /// Returns the group part: the query over `states`, a subquery with a column for everything that
    /// the query groups by ([`KEY`]) and each aggregate ([`AGGREGATE`]).
    ///
    /// # Safety
    /// `states` is an analyzed subquery that is one level below the query.
    pub unsafe fn group_part(self, states: *mut pg_sys::Query) -> Result<*mut pg_sys::Query> {
        let GroupParts { tree, at, aggregates, grouped_by } = self;
        // SAFETY: the tree is a copy that nobody else refers to. The walks change each expression of
        // the result in turn.
        unsafe {
            let mut replacing = States { at, states, grouped_by, aggregates, failed: None };
            let context: *mut c_void = (&raw mut replacing).cast();
            let mut kept = PgList::<pg_sys::TargetEntry>::new();
            for entry in PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList).iter_ptr() {
                if (*entry).resjunk {
                    continue;
                }
                (*entry).expr =
                    walker::mutate((*entry).expr.cast(), replace_by_state, context).cast();
                (*entry).ressortgroupref = 0;
                kept.push(entry);
            }
            let having = walker::mutate((*tree).havingQual, replace_by_state, context);
            if let Some(error) = replacing.failed {
                return Err(error);
            }
            (*tree).targetList = kept.into_pg();
            ungroup(tree);
            (*tree).havingQual = std::ptr::null_mut();
            (*(*tree).jointree).quals = having;
            Ok(tree)
        }
    }
}

/// Removes the grouping and the order of a query.
unsafe fn ungroup(tree: *mut pg_sys::Query) {
    // SAFETY: the tree is a copy that nobody else refers to.
    unsafe {
        (*tree).groupClause = std::ptr::null_mut();
        (*tree).sortClause = std::ptr::null_mut();
        (*tree).hasAggs = false;
    }
}

/// Replaces what a query groups by, and its aggregates, by columns of the states.
struct States {
    at: i32,
    states: *mut pg_sys::Query,
    grouped_by: Vec<*mut pg_sys::Node>,
    aggregates: Vec<*mut pg_sys::Node>,
    failed: Option<Error>,
}

impl States {
    /// Returns the column of this name, as the query around the states refers to it, in the place of
    /// `node`. A value of a domain is kept as a value of the domain's base type.
    unsafe fn column(&mut self, name: &str, node: *mut pg_sys::Node) -> *mut pg_sys::Node {
        // SAFETY: the states are an analyzed subquery, and the node belongs to an analyzed tree.
        unsafe {
            let entries = PgList::<pg_sys::TargetEntry>::from_pg((*self.states).targetList);
            let is_named = |entry: &*mut pg_sys::TargetEntry| {
                !(**entry).resname.is_null()
                    && CStr::from_ptr((**entry).resname).to_bytes() == name.as_bytes()
            };
            let wanted = pg_sys::exprType(node);
            let found = entries.iter_ptr().find(is_named);
            let has = found.map(|entry| pg_sys::exprType((*entry).expr.cast()));
            match (found, has) {
                (Some(entry), Some(has)) if has == wanted => {
                    pg_sys::makeVarFromTargetEntry(self.at, entry).cast()
                }
                (Some(entry), Some(has)) if has == pg_sys::getBaseType(wanted) => {
                    let value = pg_sys::makeVarFromTargetEntry(self.at, entry);
                    let form = pg_sys::CoercionForm::COERCE_IMPLICIT_CAST;
                    let collation = pg_sys::exprCollation(node);
                    pg_sys::makeRelabelType(value.cast(), wanted, -1, collation, form).cast()
                }
                _ => {
                    let what =
                        format!("the states of groups have no column \"{name}\" of its type");
                    self.failed = Some(Error::internal(what));
                    node
                }
            }
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn replace_by_state(
    node: *mut pg_sys::Node,
    context: *mut c_void,
) -> *mut pg_sys::Node {
    if node.is_null() {
        return node;
    }
    // SAFETY: a node of the tree; the context is the `States` that started this walk.
    unsafe {
        let states = &mut *context.cast::<States>();
        if (*node).type_ == NodeTag::T_Aggref {
            let place = place_of(&states.aggregates, node);
            return states.column(&format!("{AGGREGATE}{}", place.map_or(0, |n| n + 1)), node);
        }
        match place_of(&states.grouped_by, node) {
            Some(place) => states.column(&format!("{KEY}{}", place + 1), node),
            None => walker::mutate_children(node, replace_by_state, context),
        }
    }
}

/// Lets whoever reads a query read a column of an entry, if this role has the right to.
unsafe fn allow_reading(tree: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry, column: i16) {
    let number = i32::from(column) - pg_sys::FirstLowInvalidHeapAttributeNumber;
    // SAFETY: an entry of the query that reads a relation has such a list of columns.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            let _ = tree;
            (*entry).selectedCols = pg_sys::bms_add_member((*entry).selectedCols, number);
        }
        #[cfg(not(feature = "pg15"))]
        {
            let rights = pg_sys::getRTEPermissionInfo((*tree).rteperminfos, entry);
            (*rights).selectedCols = pg_sys::bms_add_member((*rights).selectedCols, number);
        }
    }
}
