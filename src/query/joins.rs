//! Finds the equalities by which a bound query restricts the rows of the relations that it reads.
//!
//! Such an equality compares a column of a relation with a column of another relation, at a place
//! where the query needs no row of the first that equals no row of the second: a condition of
//! WHERE, of an inner join, or of the nullable side of an outer join, at any depth, and a
//! comparison with a subquery (IN). docs/internals/lookups.md has the reasons.
//!
//! Callers: `join_paths`, `query_shape`, `declare`.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::c_void;

use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, StoredType};
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};
use crate::query::bound_query::{self, Bound};
use crate::query::trace_column::{
    ColumnOrigin, RowPath, Tracing, trace_column, trace_output, without_labels,
};
use crate::query::walker;

/// A place at which a query reads a relation.
#[derive(Clone, Debug)]
pub struct Reading {
    pub relation: pg_sys::Oid,
    /// Whether the place is the item.
    pub is_item: bool,
    /// Whether the query reads only a sample of the relation.
    pub is_sampled: bool,
}

/// An equality that restricts the rows of a reading.
#[derive(Clone, Debug)]
pub struct Equality {
    /// The number of the restricted reading.
    pub of: usize,
    pub column: i16,
    /// The number of the reading that it is compared with.
    pub with: usize,
    pub with_column: i16,
    /// Equalities with the same path compare with the same row of `with`.
    pub path: RowPath,
    pub comparison: Comparison,
}

/// The operator of an equality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Schema-qualified: `operator(pg_catalog.=)`.
    operator: String,
    /// Whether the restricted column is its left operand.
    of_is_left: bool,
    /// The types that the operands are converted to, if they have others.
    of_type: Option<String>,
    with_type: Option<String>,
}

impl Comparison {
    /// Returns the equality of two expressions.
    pub fn to_sql(&self, of: &str, with: &str) -> String {
        let converted = |value: &str, to: &Option<String>| match to {
            Some(to) => format!("{value}::{to}"),
            None => value.to_owned(),
        };
        let (of, with) = (converted(of, &self.of_type), converted(with, &self.with_type));
        let operator = &self.operator;
        match self.of_is_left {
            true => format!("{of} {operator} {with}"),
            false => format!("{with} {operator} {of}"),
        }
    }
}

/// What a query reads, and the equalities between the readings.
pub struct Joins {
    pub readings: Vec<Reading>,
    pub equalities: Vec<Equality>,
    /// The numbers of the readings, by the addresses of their entries in the tree.
    numbers: HashMap<usize, usize>,
}

impl Joins {
    /// Returns the number of the reading that an entry of the tree is.
    pub fn number(&self, entry: *mut pg_sys::RangeTblEntry) -> Option<usize> {
        self.numbers.get(&(entry as usize)).copied()
    }
}

/// Finds the readings of a bound query, and the equalities that restrict them. `source` is the
/// relation of the items. Leaves out the relations in `without`.
pub fn find_joins(bound: &Bound, source: pg_sys::Oid, without: &[pg_sys::Oid]) -> Result<Joins> {
    // SAFETY: the tree was just created or read, and no other code refers to it.
    let places = unsafe { bound_query::occurrences(bound.tree, &[source]) };
    let items = places.iter().zip(bound.places.iter()).filter(|(_, id)| **id != 0);
    let items = items.map(|(place, _)| place.entry as usize).collect();
    let mut walk = JoinWalk {
        items,
        without,
        stack: vec![],
        readings: vec![],
        numbers: HashMap::new(),
        found: vec![],
    };
    // SAFETY: as above; the context is the walk, and no other code uses it during the walk.
    unsafe {
        let context = (&raw mut walk).cast();
        walker::visit(bound.tree.cast(), Some(visit), context);
    }
    let JoinWalk { readings, numbers, found, .. } = walk;
    let mut equalities = Vec::new();
    for found in found {
        equalities.extend(found.checked()?);
    }
    Ok(Joins { readings, equalities, numbers })
}

/// An equality whose operator is not checked yet.
struct FoundEquality {
    of: usize,
    with: usize,
    origin: ColumnOrigin,
    other: ColumnOrigin,
    operator: pg_sys::Oid,
    collation: pg_sys::Oid,
    of_is_left: bool,
}

impl FoundEquality {
    /// Returns the equality if coco can rely on its operator: values that are equal as keys are
    /// equal for it.
    fn checked(self) -> Result<Option<Equality>> {
        let FoundEquality { origin, other, operator, .. } = &self;
        // SAFETY: lookups in the system catalogs and the type cache, within a transaction.
        let is_reliable = unsafe {
            let base = pg_sys::getBaseType(origin.type_oid);
            let flags = pg_sys::TYPECACHE_BTREE_OPFAMILY | pg_sys::TYPECACHE_EQ_OPR;
            let family = (*pg_sys::lookup_type_cache(base, flags as i32)).btree_opf;
            family != pg_sys::InvalidOid
                && pg_sys::get_op_opfamily_strategy(*operator, family)
                    == pg_sys::BTEqualStrategyNumber as i32
                && pg_sys::op_strict(*operator)
                && is_deterministic(origin.collation)
                && is_deterministic(self.collation)
        };
        if !is_reliable || columns::keep(origin.type_oid)? == StoredType::Json {
            return Ok(None);
        }
        let described = spi::select(
            "select pg_catalog.format('operator(%I.%s)', n.nspname, o.oprname), o.oprleft, o.oprright
               from pg_catalog.pg_operator o
               join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
              where o.oid = $1",
            &[arg(*operator)],
            |r| {
                let row: (String, pg_sys::Oid, pg_sys::Oid) =
                    (spi::required(r, 1)?, spi::required(r, 2)?, spi::required(r, 3)?);
                Ok(row)
            },
        )?;
        let Some((name, left, right)) = described.into_iter().next() else { return Ok(None) };
        let (of_wants, with_wants) = if self.of_is_left { (left, right) } else { (right, left) };
        let (Some(of_type), Some(with_type)) =
            (conversion(origin.type_oid, of_wants)?, conversion(other.type_oid, with_wants)?)
        else {
            return Ok(None);
        };
        let comparison =
            Comparison { operator: name, of_is_left: self.of_is_left, of_type, with_type };
        Ok(Some(Equality {
            of: self.of,
            column: origin.column,
            with: self.with,
            with_column: other.column,
            path: self.other.path,
            comparison,
        }))
    }
}

/// Reports whether only equal texts are equal under a collation.
fn is_deterministic(collation: pg_sys::Oid) -> bool {
    // SAFETY: a lookup in the system catalogs, within a transaction.
    collation == pg_sys::InvalidOid || unsafe { pg_sys::get_collation_isdeterministic(collation) }
}

/// Returns the type that a column is converted to for an operator; `Some(None)` if the operator
/// accepts the column as it is, and `None` if coco cannot write the conversion.
fn conversion(has: pg_sys::Oid, wants: pg_sys::Oid) -> Result<Option<Option<String>>> {
    if has == wants {
        return Ok(Some(None));
    }
    // SAFETY: lookups in the system catalogs, within a transaction.
    let (is_polymorphic, base) = unsafe {
        (pg_sys::get_typtype(wants) as u8 == pg_sys::TYPTYPE_PSEUDO, pg_sys::getBaseType(has))
    };
    if is_polymorphic {
        return Ok((base == has).then_some(None));
    }
    let _names = RoleGuard::qualifying_names()?;
    Ok(Some(Some(spi::type_name(wants, -1)?)))
}

struct JoinWalk<'a> {
    /// The addresses of the entries that are items.
    items: HashSet<usize>,
    without: &'a [pg_sys::Oid],
    /// The queries around the current node, outermost first.
    stack: Vec<*mut pg_sys::Query>,
    readings: Vec<Reading>,
    numbers: HashMap<usize, usize>,
    found: Vec<FoundEquality>,
}

impl JoinWalk<'_> {
    unsafe fn query(&mut self, query: *mut pg_sys::Query) {
        // SAFETY: the caller passes a query that the server has analyzed and that nobody changes
        // during the walk. Its lists contain the node types that their names say.
        unsafe {
            self.stack.push(query);
            for entry in PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable).iter_ptr() {
                self.reading(entry);
            }
            self.from((*query).jointree.cast());
            let context = std::ptr::from_mut(self).cast();
            let flags = pg_sys::QTW_IGNORE_JOINALIASES;
            walker::walk_query(query, Some(visit), context, flags);
            self.stack.pop();
        }
    }

    /// Returns the number of the reading that an entry is.
    unsafe fn reading(&mut self, entry: *mut pg_sys::RangeTblEntry) -> Option<usize> {
        // SAFETY: an entry of the tree.
        let read = unsafe { &*entry };
        if read.rtekind != pg_sys::RTEKind::RTE_RELATION || self.without.contains(&read.relid) {
            return None;
        }
        let next = self.readings.len();
        let number = *self.numbers.entry(entry as usize).or_insert(next);
        if number == next {
            self.readings.push(Reading {
                relation: read.relid,
                is_item: self.items.contains(&(entry as usize)),
                is_sampled: !read.tablesample.is_null(),
            });
        }
        Some(number)
    }

    /// Looks at the conditions of a part of FROM. Returns the numbers of the entries in it.
    unsafe fn from(&mut self, node: *mut pg_sys::Node) -> BTreeSet<usize> {
        let mut below = BTreeSet::new();
        if node.is_null() {
            return below;
        }
        // SAFETY: a node of the FROM clause; the code reads it as the type that its tag names.
        unsafe {
            pg_sys::check_stack_depth();
            match (*node).type_ {
                NodeTag::T_RangeTblRef => {
                    let number = (*node.cast::<pg_sys::RangeTblRef>()).rtindex;
                    below.extend(usize::try_from(number).ok());
                }
                NodeTag::T_FromExpr => {
                    let from = &*node.cast::<pg_sys::FromExpr>();
                    for part in PgList::<pg_sys::Node>::from_pg(from.fromlist).iter_ptr() {
                        below.extend(self.from(part));
                    }
                    self.conditions(from.quals, &below);
                }
                NodeTag::T_JoinExpr => {
                    let join = &*node.cast::<pg_sys::JoinExpr>();
                    let (left, right) = (self.from(join.larg), self.from(join.rarg));
                    below = &left | &right;
                    // An outer join keeps rows of the other side that satisfy no condition.
                    let restricted = match join.jointype {
                        pg_sys::JoinType::JOIN_INNER => below.clone(),
                        pg_sys::JoinType::JOIN_LEFT => right,
                        pg_sys::JoinType::JOIN_RIGHT => left,
                        _ => BTreeSet::new(),
                    };
                    self.conditions(join.quals, &restricted);
                }
                _ => {}
            }
        }
        below
    }

    /// Looks at a condition that must be true, and that restricts these entries.
    unsafe fn conditions(&mut self, node: *mut pg_sys::Node, restricted: &BTreeSet<usize>) {
        if node.is_null() {
            return;
        }
        // SAFETY: an analyzed condition; the code reads it as the type that its tag names.
        unsafe {
            pg_sys::check_stack_depth();
            match (*node).type_ {
                NodeTag::T_BoolExpr => {
                    let all = &*node.cast::<pg_sys::BoolExpr>();
                    if all.boolop == pg_sys::BoolExprType::AND_EXPR {
                        for part in PgList::<pg_sys::Node>::from_pg(all.args).iter_ptr() {
                            self.conditions(part, restricted);
                        }
                    }
                }
                NodeTag::T_OpExpr => self.equality(node.cast(), restricted),
                NodeTag::T_SubLink => self.subquery(node.cast()),
                _ => {}
            }
        }
    }

    unsafe fn equality(&mut self, operation: *mut pg_sys::OpExpr, restricted: &BTreeSet<usize>) {
        // SAFETY: as in `conditions`.
        unsafe {
            let operands = PgList::<pg_sys::Node>::from_pg((*operation).args);
            let (Some(left), Some(right), 2) =
                (operands.get_ptr(0), operands.get_ptr(1), operands.len())
            else {
                return;
            };
            let here = self.stack.last().map_or(0, |query| *query as usize);
            for (of, with, of_is_left) in [(left, right, true), (right, left, false)] {
                let Some(origin) = trace_column(of, &self.stack, Tracing::Restriction) else {
                    continue;
                };
                let is_restricted = origin
                    .path
                    .first()
                    .is_some_and(|(query, number)| *query == here && restricted.contains(number));
                if is_restricted {
                    let other = trace_column(with, &self.stack, Tracing::Value);
                    self.add(origin, other, operation, of_is_left);
                }
            }
        }
    }

    /// Looks at a comparison with the rows of a subquery: `x IN (SELECT …)`.
    unsafe fn subquery(&mut self, link: *mut pg_sys::SubLink) {
        // SAFETY: as in `conditions`.
        unsafe {
            let link = &*link;
            let is_any = link.subLinkType == pg_sys::SubLinkType::ANY_SUBLINK;
            if !is_any
                || link.testexpr.is_null()
                || link.subselect.is_null()
                || (*link.subselect).type_ != NodeTag::T_Query
            {
                return;
            }
            let mut comparisons = vec![];
            match (*link.testexpr).type_ {
                NodeTag::T_BoolExpr => {
                    let all = &*link.testexpr.cast::<pg_sys::BoolExpr>();
                    if all.boolop == pg_sys::BoolExprType::AND_EXPR {
                        comparisons.extend(PgList::<pg_sys::Node>::from_pg(all.args).iter_ptr());
                    }
                }
                _ => comparisons.push(link.testexpr),
            }
            for comparison in comparisons {
                if (*comparison).type_ != NodeTag::T_OpExpr {
                    continue;
                }
                let operation = comparison.cast::<pg_sys::OpExpr>();
                let operands = PgList::<pg_sys::Node>::from_pg((*operation).args);
                let (Some(left), Some(right)) = (operands.get_ptr(0), operands.get_ptr(1)) else {
                    continue;
                };
                let right = without_labels(right);
                if right.is_null() || (*right).type_ != NodeTag::T_Param {
                    continue;
                }
                let column = &*right.cast::<pg_sys::Param>();
                let number = i16::try_from(column.paramid).unwrap_or(0);
                if column.paramkind != pg_sys::ParamKind::PARAM_SUBLINK {
                    continue;
                }
                let inner = link.subselect.cast();
                if let Some(origin) = trace_output(inner, number, &self.stack, Tracing::Restriction)
                {
                    let other = trace_column(left, &self.stack, Tracing::Value);
                    self.add(origin, other, operation, false);
                }
            }
        }
    }

    unsafe fn add(
        &mut self,
        origin: ColumnOrigin,
        other: Option<ColumnOrigin>,
        operation: *mut pg_sys::OpExpr,
        of_is_left: bool,
    ) {
        let Some(other) = other.filter(|other| other.entry != origin.entry) else { return };
        // SAFETY: entries of the tree, and a comparison of it.
        unsafe {
            if let (Some(of), Some(with)) = (self.reading(origin.entry), self.reading(other.entry))
            {
                let (operator, collation) = ((*operation).opno, (*operation).inputcollid);
                self.found.push(FoundEquality {
                    of,
                    with,
                    origin,
                    other,
                    operator,
                    collation,
                    of_is_left,
                });
            }
        }
    }
}

/// Visits a node of the tree: the callback of PostgreSQL's tree walkers. Returning `true` would end
/// the walk; it never does.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the context is the `JoinWalk` that started this walk; no other code uses it during the
    // walk.
    unsafe {
        if (*node).type_ == NodeTag::T_Query {
            (*context.cast::<JoinWalk>()).query(node.cast());
            return false;
        }
        walker::walk_expression(node, Some(visit), context)
    }
}
