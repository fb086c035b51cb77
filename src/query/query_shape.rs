//! What a query reads in its FROM clause, what it groups by, and where its columns come from: the
//! facts from which `declare` finds the source and the keys of a query.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::CStr;

use crate::pg::error::Result;
use crate::query::bound_query::Bound;
use crate::query::join_paths::PrimaryKeys;
use crate::query::joins::{self, Joins};
use crate::query::trace_column::{Tracing, range_entry, trace_column};
use crate::query::{declared_text, key_rules};

/// A column of a relation that a query reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadColumn {
    /// The number of the reading.
    pub reading: usize,
    pub column: i16,
}

/// A part of a query's FROM clause.
#[derive(Clone, Debug)]
pub struct FromItem {
    /// The number of the reading; `None` for a subquery or a function.
    pub reading: Option<usize>,
    pub alias: String,
    /// Whether an outer join can replace its rows by NULL.
    pub is_nullable: bool,
}

/// A column of a query's result.
#[derive(Clone, Debug)]
pub struct OutputColumn {
    pub name: String,
    /// The column that it always equals, if known.
    pub origin: Option<ReadColumn>,
    /// Whether the query groups by it.
    pub is_grouped: bool,
}

/// The facts about a query.
pub struct QueryShape {
    pub joins: Joins,
    /// Empty for UNION, INTERSECT, EXCEPT and VALUES.
    pub from: Vec<FromItem>,
    pub outputs: Vec<OutputColumn>,
    /// What the query groups by: `None` without GROUP BY.
    pub groups: Option<Vec<GroupedBy>>,
}

/// What a query groups by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupedBy {
    Column(ReadColumn),
    /// An expression over columns of one reading.
    Expression {
        reading: usize,
        /// The expression over the columns of the reading's relation.
        text: String,
        /// The name of the output column that equals it, if there is one.
        output: Option<String>,
    },
    /// Something else, for example a subquery, or several relations.
    Other,
}

impl GroupedBy {
    /// Returns the reading from whose row the value comes, if there is one.
    pub fn reading(&self) -> Option<usize> {
        match self {
            GroupedBy::Column(column) => Some(column.reading),
            GroupedBy::Expression { reading, .. } => Some(*reading),
            GroupedBy::Other => None,
        }
    }
}

impl QueryShape {
    /// Returns the relation of a reading.
    pub fn relation(&self, reading: usize) -> pg_sys::Oid {
        self.joins.readings[reading].relation
    }

    /// Returns the names of the output columns that equal these columns of a reading, if there is
    /// one for each.
    pub fn outputs_of(&self, reading: usize, columns: &[i16]) -> Option<Vec<String>> {
        let output = |column: &i16| {
            let origin = ReadColumn { reading, column: *column };
            let found = self.outputs.iter().find(|o| o.origin == Some(origin));
            found.map(|o| o.name.clone())
        };
        columns.iter().map(output).collect()
    }

    /// Returns the parts of FROM of which each combination of rows of `known` has at most one row:
    /// the query joins them by their primary keys.
    pub fn determined_by(&self, known: &[usize], keys: &PrimaryKeys) -> BTreeSet<usize> {
        let readings: Vec<usize> = self.from.iter().filter_map(|item| item.reading).collect();
        let mut determined: BTreeSet<usize> = known.iter().copied().collect();
        loop {
            let is_new = |reading: &&usize| {
                let key = keys.get(&self.relation(**reading).to_u32());
                let is_joined = |column: &i16| {
                    self.joins.equalities.iter().any(|e| {
                        e.of == **reading
                            && e.column == *column
                            && e.path.len() == 1
                            && determined.contains(&e.with)
                            && readings.contains(&e.with)
                    })
                };
                !determined.contains(*reading)
                    && key.is_some_and(|key| !key.is_empty() && key.iter().all(is_joined))
            };
            let Some(next) = readings.iter().find(is_new).copied() else { return determined };
            determined.insert(next);
        }
    }

    /// Reports whether each part of FROM is one of these readings.
    pub fn has_only(&self, readings: &BTreeSet<usize>) -> bool {
        self.from.iter().all(|item| item.reading.is_some_and(|r| readings.contains(&r)))
    }
}

/// Describes a bound query in which nothing is an item yet.
pub fn describe_query(bound: &Bound) -> Result<QueryShape> {
    let joins = joins::find_joins(bound, pg_sys::InvalidOid, &[])?;
    let tree = bound.tree;
    // SAFETY: the tree was just created, and no other code refers to it. The code reads each node as
    // the type that its tag names.
    unsafe {
        let query = &*tree;
        let mut from = Vec::new();
        if query.setOperations.is_null() {
            add_from(tree, query.jointree.cast(), &joins, IsNullable::No, &mut from);
        }
        let stack = [tree];
        let origin = |expression: *mut pg_sys::Expr| {
            let found = trace_column(expression.cast(), &stack, Tracing::Value)?;
            // A column of a subquery's relation says nothing about the rows of this query.
            let is_direct = found.path.len() == 1;
            let reading = joins.number(found.entry).filter(|_| is_direct)?;
            Some(ReadColumn { reading, column: found.column })
        };
        let groups = PgList::<pg_sys::SortGroupClause>::from_pg(query.groupClause);
        let is_grouped = |reference: u32| {
            reference != 0 && groups.iter_ptr().any(|group| (*group).tleSortGroupRef == reference)
        };
        let entries = PgList::<pg_sys::TargetEntry>::from_pg(query.targetList);
        let mut outputs = Vec::new();
        for entry in entries.iter_ptr().filter(|entry| !(**entry).resjunk) {
            let name = match (*entry).resname.is_null() {
                true => String::new(),
                false => CStr::from_ptr((*entry).resname).to_string_lossy().into_owned(),
            };
            outputs.push(OutputColumn {
                name,
                origin: origin((*entry).expr),
                is_grouped: is_grouped((*entry).ressortgroupref),
            });
        }
        let by = |group: *mut pg_sys::SortGroupClause| {
            let is_it =
                |e: &*mut pg_sys::TargetEntry| (**e).ressortgroupref == (*group).tleSortGroupRef;
            let Some(entry) = entries.iter_ptr().find(is_it) else { return Ok(GroupedBy::Other) };
            if let Some(column) = origin((*entry).expr) {
                return Ok(GroupedBy::Column(column));
            }
            let expression = grouped_expression((*entry).expr.cast(), tree);
            let Some((reading, text)) = text_over_one_reading(expression, &origin, &joins)? else {
                return Ok(GroupedBy::Other);
            };
            let is_shown = !(*entry).resjunk && !(*entry).resname.is_null();
            let output =
                is_shown.then(|| CStr::from_ptr((*entry).resname).to_string_lossy().into_owned());
            Ok(GroupedBy::Expression { reading, text, output })
        };
        let has_groups = !query.groupClause.is_null();
        let is_plain = query.groupingSets.is_null();
        let parts: Vec<GroupedBy> = match is_plain {
            true => groups.iter_ptr().map(by).collect::<Result<_>>()?,
            false => vec![GroupedBy::Other],
        };
        // An aggregate without GROUP BY has one row for everything.
        let groups = match (has_groups, query.hasAggs) {
            (true, _) => Some(parts),
            (false, true) => Some(vec![GroupedBy::Other]),
            (false, false) => None,
        };
        Ok(QueryShape { joins, from, outputs, groups })
    }
}

/// Returns the expression that an entry of a GROUP BY clause stands for.
unsafe fn grouped_expression(
    expression: *mut pg_sys::Node,
    _tree: *mut pg_sys::Query,
) -> *mut pg_sys::Node {
    // From PostgreSQL 18 on, the entry refers to an entry of the range table with the expressions.
    #[cfg(feature = "pg18")]
    // SAFETY: the expression belongs to the tree, and the code reads each node as the type that its
    // tag names.
    unsafe {
        if (*expression).type_ == NodeTag::T_Var {
            let var = &*expression.cast::<pg_sys::Var>();
            if let Some(entry) = range_entry(_tree, var.varno)
                && (*entry).rtekind == pg_sys::RTEKind::RTE_GROUP
            {
                let grouped = PgList::<pg_sys::Node>::from_pg((*entry).groupexprs);
                let place = usize::try_from(var.varattno - 1).unwrap_or(usize::MAX);
                return grouped.get_ptr(place).unwrap_or(expression);
            }
        }
    }
    expression
}

/// Writes an expression as a text over the columns of the only reading that it uses. Returns `None`
/// if a source key cannot contain the expression.
unsafe fn text_over_one_reading(
    expression: *mut pg_sys::Node,
    origin: &dyn Fn(*mut pg_sys::Expr) -> Option<ReadColumn>,
    joins: &Joins,
) -> Result<Option<(usize, String)>> {
    // SAFETY: the expression belongs to an analyzed tree, and so do its variables.
    unsafe {
        let is_simple = !pg_sys::contain_mutable_functions(expression)
            && pg_sys::contain_var_clause(expression)
            && !pg_sys::contain_subplans(expression);
        if !is_simple {
            return Ok(None);
        }
        let reading = Cell::new(None);
        let column = |var: *mut pg_sys::Node| {
            let found = origin(var.cast())?;
            let is_same = reading.get().is_none_or(|of| of == found.reading);
            reading.set(Some(found.reading));
            is_same.then_some(found.column)
        };
        let Some(over_row) = key_rules::over_one_row(expression, &column) else { return Ok(None) };
        let Some(reading) = reading.get() else { return Ok(None) };
        let relation = joins.readings[reading].relation;
        let text = declared_text::expression_text(over_row, relation)?;
        Ok(Some((reading, text)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IsNullable {
    Yes,
    No,
}

/// Adds the parts of a FROM clause.
unsafe fn add_from(
    query: *mut pg_sys::Query,
    node: *mut pg_sys::Node,
    joins: &Joins,
    nullable: IsNullable,
    from: &mut Vec<FromItem>,
) {
    if node.is_null() {
        return;
    }
    // SAFETY: a node of the query's FROM clause; the code reads it as the type that its tag names.
    unsafe {
        pg_sys::check_stack_depth();
        match (*node).type_ {
            NodeTag::T_RangeTblRef => {
                let number = (*node.cast::<pg_sys::RangeTblRef>()).rtindex;
                let Some(entry) = range_entry(query, number) else { return };
                let alias = CStr::from_ptr((*(*entry).eref).aliasname);
                from.push(FromItem {
                    reading: joins.number(entry),
                    alias: alias.to_string_lossy().into_owned(),
                    is_nullable: nullable == IsNullable::Yes,
                });
            }
            NodeTag::T_FromExpr => {
                let parts = (*node.cast::<pg_sys::FromExpr>()).fromlist;
                for part in PgList::<pg_sys::Node>::from_pg(parts).iter_ptr() {
                    add_from(query, part, joins, nullable, from);
                }
            }
            NodeTag::T_JoinExpr => {
                let join = &*node.cast::<pg_sys::JoinExpr>();
                let yes = IsNullable::Yes;
                let (left, right) = match join.jointype {
                    pg_sys::JoinType::JOIN_INNER => (nullable, nullable),
                    pg_sys::JoinType::JOIN_LEFT => (nullable, yes),
                    pg_sys::JoinType::JOIN_RIGHT => (yes, nullable),
                    _ => (yes, yes),
                };
                add_from(query, join.larg, joins, left, from);
                add_from(query, join.rarg, joins, right, from);
            }
            _ => {}
        }
    }
}
