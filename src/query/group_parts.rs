//! The two parts of a query that groups the rows of its source: the row part computes what one row
//! contributes to its group, and the group part computes a row of the result from the state of a group.
//!
//! ```sql
//! select region, sum(amount) filter (where paid) as total from sales where kind = 1 group by region
//! -- the row part
//! select id as r1, region as g1, case when paid then amount end as e1 from sales where kind = 1
//! -- the group part, over the CTE of the states
//! select k2 as region, a1 as total from <states>
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

use crate::catalog::group_state::{
    Aggregate, Conversion, GroupPart, GroupShape, RowValue, StatePart, Summed,
};
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::query::trace_column::range_entry;
use crate::query::walker;

/// The prefixes of the columns of the CTE of the states: of a key column, by its number in the source,
/// and of an aggregate, by its place.
pub const KEY: &str = "k";
pub const AGGREGATE: &str = "a";

/// A query that groups the rows of its source, taken apart.
pub struct GroupParts {
    /// The numbers of the source's columns that the query groups by.
    pub grouped_by: Vec<i16>,
    /// A copy of the query, in which no column stands for a grouped one.
    tree: *mut pg_sys::Query,
    /// The place of the source in FROM.
    at: i32,
    /// The aggregates of the query, each once.
    aggregates: Vec<*mut pg_sys::Node>,
}

/// The shape of a query that groups the rows of its source, with the expressions over a row.
#[derive(Default)]
pub struct ShapedGroups {
    pub shape: GroupShape,
    expressions: Vec<*mut pg_sys::Node>,
}

/// The row part of a query, for a view to keep.
pub struct RowPart {
    pub tree: *mut pg_sys::Query,
    pub columns: Vec<Column>,
}

/// The beginning of the message of [`cannot_keep`].
pub const CANNOT_KEEP: &str = "cannot keep groups by deltas: ";

/// Returns the error that coco cannot keep the groups of a query by deltas.
pub fn cannot_keep(why: impl AsRef<str>) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("cannot keep groups by deltas: {}", why.as_ref()),
    )
    .hint("Leave out the argument \"aggregate\". coco then evaluates a changed group as a whole.")
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
        let grouped_by = grouped_columns(tree, at)?;
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
            let is_this = |known: &*mut pg_sys::Node| {
                pg_sys::equal((*known).cast::<c_void>(), aggregate.cast::<c_void>())
            };
            if !aggregates.iter().any(is_this) {
                aggregates.push(aggregate);
            }
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

/// Returns the columns that the query groups by.
unsafe fn grouped_columns(tree: *mut pg_sys::Query, at: i32) -> Result<Vec<i16>> {
    // SAFETY: as in `take_apart`; the code reads each node as the type that its tag names.
    unsafe {
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList);
        let mut columns = Vec::new();
        for group in PgList::<pg_sys::SortGroupClause>::from_pg((*tree).groupClause).iter_ptr() {
            let reference = (*group).tleSortGroupRef;
            let entry = entries.iter_ptr().find(|entry| (**entry).ressortgroupref == reference);
            let expression = entry.map_or(std::ptr::null_mut(), |entry| (*entry).expr);
            match column_of(expression.cast(), at) {
                Some(column) => columns.push(column),
                None => {
                    return Err(cannot_keep(
                        "the query groups by an expression that is not a column",
                    ));
                }
            }
        }
        columns.sort_unstable();
        columns.dedup();
        Ok(columns)
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

impl ShapedGroups {
    /// Adds an aggregate that the query does not name before.
    unsafe fn add_aggregate(&mut self, aggregate: *mut pg_sys::Aggref) -> Result<()> {
        // SAFETY: an aggregate of the tree, whose lists contain the node types that their names say.
        unsafe {
            let of = &*aggregate;
            let name = function_name(of.aggfnoid);
            let refused = |why: &str| Err(cannot_keep(format!("the query calls {name}, {why}")));
            if pg_sys::get_func_namespace(of.aggfnoid).to_u32() != pg_sys::PG_CATALOG_NAMESPACE {
                return refused("which is not an aggregate of PostgreSQL itself");
            }
            if !of.aggdistinct.is_null() {
                return refused("with DISTINCT");
            }
            if !of.aggorder.is_null() || of.aggkind as u8 != b'n' {
                return refused("whose result depends on an order of rows");
            }
            let arguments = PgList::<pg_sys::TargetEntry>::from_pg(of.args);
            if of.aggvariadic || of.agglevelsup != 0 || arguments.len() > 1 {
                return refused("for which there is no rule");
            }
            let argument = arguments.get_ptr(0).map(|entry| (*entry).expr.cast::<pg_sys::Node>());
            for part in [argument.unwrap_or(std::ptr::null_mut()), of.aggfilter.cast()] {
                if pg_sys::contain_volatile_functions(part) {
                    return refused("over a volatile function");
                }
            }
            let filter = of.aggfilter.cast::<pg_sys::Node>();
            let kind = match argument {
                None if name == "count" && filter.is_null() => Aggregate::Rows,
                None if name == "count" => {
                    let all = pg_sys::makeBoolConst(true, false);
                    Aggregate::Count(self.counted(filtered(all, filter))?)
                }
                None => return refused("for which there is no rule"),
                Some(argument) if name == "count" => {
                    Aggregate::Count(self.counted(filtered(is_not_null(argument), filter))?)
                }
                Some(argument) => {
                    let value = filtered(argument, filter);
                    match self.aggregate_of(&name, value, argument, of.inputcollid)? {
                        Ok(kind) => kind,
                        Err(why) => return refused(&why),
                    }
                }
            };
            self.shape.aggregates.push(kind);
            Ok(())
        }
    }

    /// Returns an aggregate over one expression, or why there is no rule for it. `value` is the
    /// expression if the filter of the aggregate takes the row, and NULL otherwise.
    unsafe fn aggregate_of(
        &mut self,
        name: &str,
        value: *mut pg_sys::Node,
        argument: *mut pg_sys::Node,
        collation: pg_sys::Oid,
    ) -> Result<std::result::Result<Aggregate, String>> {
        // SAFETY: expressions of the tree.
        let (type_oid, typmod) =
            unsafe { (pg_sys::exprType(argument), pg_sys::exprTypmod(argument)) };
        let kind = match name {
            "sum" | "avg" => {
                let summed = match type_oid {
                    pg_sys::INT2OID | pg_sys::INT4OID => Summed::Integer,
                    pg_sys::INT8OID => Summed::Bigint,
                    pg_sys::NUMERICOID => {
                        Summed::Numeric { is_scale_fixed: is_scale_fixed(typmod) }
                    }
                    pg_sys::MONEYOID => Summed::Money,
                    pg_sys::INTERVALOID => Summed::Interval,
                    pg_sys::FLOAT4OID | pg_sys::FLOAT8OID => {
                        return Ok(Err(
                            "and sums of floating-point numbers depend on their order".to_owned()
                        ));
                    }
                    _ => return Ok(Err("for which there is no rule".to_owned())),
                };
                let value = self.summed(value, summed)?;
                match name {
                    "sum" => Aggregate::Sum(value, summed),
                    _ => Aggregate::Average(value, summed),
                }
            }
            "min" | "max" => {
                if !has_one_form(type_oid, typmod, collation) {
                    let type_name =
                        columns::result_column(String::new(), type_oid, -1, pg_sys::InvalidOid)?
                            .type_name;
                    return Ok(Err(format!("and equal values of type {type_name} can differ")));
                }
                let value = self.add_value(value, Conversion::Unchanged)?;
                match name {
                    "min" => {
                        self.add_part(value, GroupPart::Least)?;
                        Aggregate::Least(value)
                    }
                    _ => {
                        self.add_part(value, GroupPart::Greatest)?;
                        Aggregate::Greatest(value)
                    }
                }
            }
            "bool_and" | "every" | "bool_or" => {
                let value = self.add_value(value, Conversion::Unchanged)?;
                self.add_part(value, GroupPart::Known)?;
                self.add_part(value, GroupPart::True)?;
                match name {
                    "bool_or" => Aggregate::Any(value),
                    _ => Aggregate::All(value),
                }
            }
            _ => return Ok(Err("for which there is no rule".to_owned())),
        };
        Ok(Ok(kind))
    }

    /// Adds what `count` needs of an expression that is true for the rows to count.
    fn counted(&mut self, expression: *mut pg_sys::Node) -> Result<usize> {
        let value = self.add_value(expression, Conversion::Unchanged)?;
        self.add_part(value, GroupPart::True)?;
        Ok(value)
    }

    /// Adds what `sum` and `avg` need of an expression.
    fn summed(&mut self, expression: *mut pg_sys::Node, summed: Summed) -> Result<usize> {
        if summed == Summed::Interval {
            let sign = self.add_value(expression, Conversion::Sign)?;
            for part in [GroupPart::Known, GroupPart::One, GroupPart::MinusOne] {
                self.add_part(sign, part)?;
            }
            // These follow the sign, because nothing else adds them.
            for conversion in [Conversion::Months, Conversion::Days, Conversion::Micros] {
                let value = self.add_value(expression, conversion)?;
                self.add_part(value, GroupPart::Sum)?;
            }
            return Ok(sign);
        }
        let conversion = match summed {
            Summed::Money => Conversion::Amount,
            _ => Conversion::Unchanged,
        };
        let value = self.add_value(expression, conversion)?;
        self.add_part(value, GroupPart::Known)?;
        self.add_part(value, GroupPart::Sum)?;
        if let Summed::Numeric { is_scale_fixed } = summed {
            for part in [
                GroupPart::Huge,
                GroupPart::NotANumber,
                GroupPart::Infinite,
                GroupPart::NegativeInfinite,
            ] {
                self.add_part(value, part)?;
            }
            if !is_scale_fixed {
                self.add_part(value, GroupPart::Scale)?;
            }
        }
        Ok(value)
    }

    /// Returns the place of a value, which is added unless the shape has it.
    fn add_value(&mut self, node: *mut pg_sys::Node, conversion: Conversion) -> Result<usize> {
        // SAFETY: expressions of the tree.
        let is_same = |known: &*mut pg_sys::Node| unsafe {
            pg_sys::equal((*known).cast::<c_void>(), node.cast::<c_void>())
        };
        let expression = match self.expressions.iter().position(is_same) {
            Some(place) => place,
            None => {
                let name = format!("e{}", self.expressions.len() + 1);
                self.shape.expressions.push(column_for(name, node)?);
                self.expressions.push(node);
                self.expressions.len() - 1
            }
        };
        let values = &mut self.shape.values;
        let is_known =
            |value: &RowValue| value.expression == expression && value.conversion == conversion;
        if let Some(place) = values.iter().position(is_known) {
            return Ok(place);
        }
        let of = &self.shape.expressions[expression];
        let (type_oid, collation) = match conversion {
            Conversion::Unchanged => (of.type_oid, of.collation),
            Conversion::Amount => (pg_sys::NUMERICOID, pg_sys::InvalidOid),
            Conversion::Months | Conversion::Days => (pg_sys::INT4OID, pg_sys::InvalidOid),
            Conversion::Micros => (pg_sys::INT8OID, pg_sys::InvalidOid),
            Conversion::Sign => (pg_sys::INT2OID, pg_sys::InvalidOid),
        };
        let name = format!("v{}", values.len() + 1);
        let column = columns::result_column(name, type_oid, -1, collation)?;
        values.push(RowValue { expression, conversion, column });
        Ok(values.len() - 1)
    }

    /// Adds a part unless the shape has it.
    fn add_part(&mut self, value: usize, part: GroupPart) -> Result<()> {
        let parts = &mut self.shape.parts;
        if parts.iter().any(|p| p.value == value && p.part == part) {
            return Ok(());
        }
        let of = &self.shape.values[value].column;
        let (type_oid, collation) = match part {
            GroupPart::Sum => (pg_sys::NUMERICOID, pg_sys::InvalidOid),
            GroupPart::Scale => (pg_sys::INT4OID, pg_sys::InvalidOid),
            GroupPart::Least | GroupPart::Greatest => (of.type_oid, of.collation),
            _ => (pg_sys::INT8OID, pg_sys::InvalidOid),
        };
        let name = format!("p{}", parts.len() + 1);
        let column = columns::result_column(name, type_oid, -1, collation)?;
        parts.push(StatePart { value, part, column });
        Ok(())
    }
}

impl GroupParts {
    /// Returns the row part: the columns of these numbers, then the expressions.
    ///
    /// # Safety
    /// The numbers are those of columns of the source.
    pub unsafe fn row_part(
        self,
        shaped: ShapedGroups,
        row_key: &[i16],
        key: &[i16],
    ) -> Result<RowPart> {
        let GroupParts { tree, at, .. } = self;
        let ShapedGroups { shape, expressions } = shaped;
        // SAFETY: the tree is a copy that nobody else refers to. Its only entry in FROM is the source.
        unsafe {
            let entry = range_entry(tree, at)
                .ok_or_else(|| Error::internal("a query has no entry for its source"))?;
            let relation = (*entry).relid;
            let mut nodes: Vec<(String, *mut pg_sys::Node)> = Vec::new();
            for (prefix, numbers) in [("r", row_key), ("g", key)] {
                for (n, number) in numbers.iter().enumerate() {
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
                    nodes.push((format!("{prefix}{}", n + 1), var.cast()));
                    allow_reading(tree, entry, *number);
                }
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

    /// Returns the group part: the query over `states`, a subquery with a column for each key column of
    /// the source ([`KEY`]) and each aggregate ([`AGGREGATE`]).
    ///
    /// # Safety
    /// `states` is an analyzed subquery that is one level below the query.
    pub unsafe fn group_part(self, states: *mut pg_sys::Query) -> Result<*mut pg_sys::Query> {
        let GroupParts { tree, at, aggregates, .. } = self;
        // SAFETY: the tree is a copy that nobody else refers to. The walks change each expression of
        // the result in turn.
        unsafe {
            let mut replacing = States { at, states, aggregates, failed: None };
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

/// Replaces the columns and the aggregates of a query by columns of the states.
struct States {
    at: i32,
    states: *mut pg_sys::Query,
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
        match (*node).type_ {
            NodeTag::T_Aggref => {
                let is_this = |known: &*mut pg_sys::Node| {
                    pg_sys::equal((*known).cast::<c_void>(), node.cast::<c_void>())
                };
                let place = states.aggregates.iter().position(is_this);
                states.column(&format!("{AGGREGATE}{}", place.map_or(0, |n| n + 1)), node)
            }
            NodeTag::T_Var => match column_of(node, states.at) {
                Some(number) => states.column(&format!("{KEY}{number}"), node),
                None => walker::mutate_children(node, replace_by_state, context),
            },
            _ => walker::mutate_children(node, replace_by_state, context),
        }
    }
}

/// Returns an expression that is true if a value is not NULL. A row of NULLs is not NULL, as for `count`.
unsafe fn is_not_null(value: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: an analyzed expression. The memory of the new node is zeroed, as makeNode does it.
    unsafe {
        let test = pg_sys::palloc0(size_of::<pg_sys::NullTest>()).cast::<pg_sys::NullTest>();
        (*test).xpr.type_ = NodeTag::T_NullTest;
        (*test).arg = value.cast();
        (*test).nulltesttype = pg_sys::NullTestType::IS_NOT_NULL;
        (*test).location = -1;
        test.cast()
    }
}

/// Returns an expression that is NULL for a row that a filter does not take.
unsafe fn filtered(value: *mut pg_sys::Node, filter: *mut pg_sys::Node) -> *mut pg_sys::Node {
    if filter.is_null() {
        return value;
    }
    // SAFETY: both are analyzed expressions. The memory of the new nodes is zeroed, as makeNode does it.
    unsafe {
        let (type_oid, typmod, collation) =
            (pg_sys::exprType(value), pg_sys::exprTypmod(value), pg_sys::exprCollation(value));
        let when = pg_sys::palloc0(size_of::<pg_sys::CaseWhen>()).cast::<pg_sys::CaseWhen>();
        (*when).xpr.type_ = NodeTag::T_CaseWhen;
        (*when).expr = filter.cast();
        (*when).result = value.cast();
        (*when).location = -1;
        let mut arms = PgList::<pg_sys::CaseWhen>::new();
        arms.push(when);
        let case = pg_sys::palloc0(size_of::<pg_sys::CaseExpr>()).cast::<pg_sys::CaseExpr>();
        (*case).xpr.type_ = NodeTag::T_CaseExpr;
        (*case).casetype = type_oid;
        (*case).casecollid = collation;
        (*case).args = arms.into_pg();
        (*case).defresult = pg_sys::makeNullConst(type_oid, typmod, collation).cast();
        (*case).location = -1;
        case.cast()
    }
}

/// Returns the column of a result that an expression is.
fn column_for(name: String, node: *mut pg_sys::Node) -> Result<Column> {
    // SAFETY: an expression of an analyzed tree.
    let (type_oid, typmod, collation) =
        unsafe { (pg_sys::exprType(node), pg_sys::exprTypmod(node), pg_sys::exprCollation(node)) };
    columns::result_column(name, type_oid, typmod, collation)
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

/// Returns the name of a function.
unsafe fn function_name(function: pg_sys::Oid) -> String {
    // SAFETY: a lookup in the system catalogs, within a transaction.
    unsafe {
        let name = pg_sys::get_func_name(function);
        match name.is_null() {
            true => function.to_u32().to_string(),
            false => CStr::from_ptr(name).to_string_lossy().into_owned(),
        }
    }
}

/// Reports whether numbers with this type modifier have the same number of digits after the point.
fn is_scale_fixed(typmod: i32) -> bool {
    typmod >= pg_sys::VARHDRSZ as i32
}

/// Reports whether equal values of a type are the same, byte for byte. The least of several equal values,
/// or the key of their group, is otherwise any of them.
pub fn has_one_form(type_oid: pg_sys::Oid, typmod: i32, collation: pg_sys::Oid) -> bool {
    match type_oid {
        pg_sys::NUMERICOID => is_scale_fixed(typmod),
        pg_sys::BPCHAROID => typmod >= pg_sys::VARHDRSZ as i32 && is_deterministic(collation),
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::NAMEOID => is_deterministic(collation),
        pg_sys::BOOLOID
        | pg_sys::CHAROID
        | pg_sys::INT2OID
        | pg_sys::INT4OID
        | pg_sys::INT8OID
        | pg_sys::OIDOID
        | pg_sys::MONEYOID
        | pg_sys::DATEOID
        | pg_sys::TIMEOID
        | pg_sys::TIMETZOID
        | pg_sys::TIMESTAMPOID
        | pg_sys::TIMESTAMPTZOID
        | pg_sys::UUIDOID
        | pg_sys::BYTEAOID
        | pg_sys::INETOID
        | pg_sys::CIDROID
        | pg_sys::MACADDROID
        | pg_sys::PG_LSNOID
        | pg_sys::XID8OID => true,
        // SAFETY: a lookup in the system catalogs, within a transaction.
        other => unsafe { pg_sys::type_is_enum(other) },
    }
}

fn is_deterministic(collation: pg_sys::Oid) -> bool {
    // SAFETY: a lookup in the system catalogs, within a transaction.
    collation != pg_sys::InvalidOid && unsafe { pg_sys::get_collation_isdeterministic(collation) }
}
