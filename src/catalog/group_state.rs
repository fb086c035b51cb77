//! What coco keeps of a flow whose groups it keeps by deltas: what each row of the source contributes
//! to its group, and the state of each group. This file defines the columns of both tables and the
//! SQL between them; it runs nothing.
//!
//! - The view `coco.rows_<id>_<flow>` keeps the part of the query that concerns one row.
//! - The table of contributions has a row for each row of the source that the query's WHERE keeps:
//!   `r1…` (its key), `g1…` (its group), `v1…` (its values), and `failure`.
//! - The table of groups has a row for each group: `k1…`, `rows`, `failing`, `failure`, and `p1…`, the
//!   parts of the aggregates.
//!
//! All columns have core types, so that the extension's owner runs no user's code when it writes
//! them. A part is a count, a sum of numbers of type numeric, or the least or greatest value of the
//! group. Counts and sums add up and never fail.
//!
//! Callers: `query` (finds the shape of a query), `declare` (creates the tables), `update`.

use pgrx::pg_sys;

use crate::pg::columns::{Column, numbered};

/// How a row contributes the value of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    Unchanged,
    /// A sum of money, as a number.
    Amount,
    /// The parts of a finite interval.
    Months,
    Days,
    Micros,
    /// 0 for a finite interval, 1 for infinity, and -1 for -infinity.
    Sign,
}

impl Conversion {
    /// Returns the converted value of an expression of the query. The flow's owner evaluates it.
    pub fn of(self, value: &str) -> String {
        let field = |name: &str| format!("pg_catalog.extract('{name}', {value})");
        let times = |field: String, by: i64| {
            format!("({field} operator(pg_catalog.*) {by}::pg_catalog.numeric)")
        };
        match self {
            Conversion::Unchanged => value.to_owned(),
            Conversion::Amount => format!("({value})::pg_catalog.numeric"),
            Conversion::Months => format!(
                "({} operator(pg_catalog.+) {})::pg_catalog.int4",
                times(field("year"), 12),
                field("month")
            ),
            Conversion::Days => format!("({})::pg_catalog.int4", field("day")),
            Conversion::Micros => format!(
                "({} operator(pg_catalog.+) {} operator(pg_catalog.+) {})::pg_catalog.int8",
                times(field("hour"), 3_600_000_000),
                times(field("minute"), 60_000_000),
                field("microseconds")
            ),
            Conversion::Sign if cfg!(any(feature = "pg17", feature = "pg18")) => format!(
                "case when {value} is null then null when pg_catalog.isfinite({value}) then 0
                      when {value} operator(pg_catalog.>) '0'::pg_catalog.interval then 1 else -1 end::pg_catalog.int2"
            ),
            Conversion::Sign => format!("case when {value} is not null then 0::pg_catalog.int2 end"),
        }
    }
}

/// A value that a row contributes.
#[derive(Clone, Debug)]
pub struct RowValue {
    /// The place of the expression in the view of the row part, among the expressions.
    pub expression: usize,
    pub conversion: Conversion,
    /// The column of the table of contributions.
    pub column: Column,
}

/// What a group keeps of a value of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupPart {
    /// The number of values.
    Known,
    /// The sum of the numbers that [`GroupPart::Huge`] and the three parts after it do not count.
    Sum,
    /// The number of numbers that are too large to add, so that a sum never overflows.
    Huge,
    NotANumber,
    Infinite,
    NegativeInfinite,
    /// The largest number of digits after the point.
    Scale,
    /// The number of true values.
    True,
    /// The number of values 1 and -1.
    One,
    MinusOne,
    Least,
    Greatest,
    /// The number of different values.
    Distinct,
}

/// Numbers beyond these two are not added up.
const HUGE: &str = "'1e1000'::pg_catalog.numeric";

const NEGATIVE_HUGE: &str = "'-1e1000'::pg_catalog.numeric";

const NOT_A_NUMBER: &str = "'NaN'::pg_catalog.numeric";

const INFINITE: &str = "'Infinity'::pg_catalog.numeric";

const NEGATIVE_INFINITE: &str = "'-Infinity'::pg_catalog.numeric";

impl GroupPart {
    /// Reports whether the part of a group is the sum of its rows' parts. The other parts are read
    /// again from the contributions of the group.
    pub fn adds_up(self) -> bool {
        !matches!(self, GroupPart::Scale | GroupPart::Least | GroupPart::Greatest)
    }

    /// Reports whether coco looks for values of the group by an index.
    fn needs_index(self) -> bool {
        !self.adds_up() || self == GroupPart::Distinct
    }

    /// Returns an expression for the part, over contributions `d` that satisfy a further condition.
    fn aggregate(self, value: &RowValue, condition: Option<&str>) -> String {
        let v = format!("d.{}", value.column.name);
        let count_of = |what: String| ("pg_catalog.count(*)".to_owned(), Some(what));
        let equals = |number: &str| count_of(format!("{v} operator(pg_catalog.=) {number}"));
        let is_number = value.column.type_oid == pg_sys::NUMERICOID;
        let is_small = format!(
            "{v} operator(pg_catalog.>) {NEGATIVE_HUGE} and {v} operator(pg_catalog.<) {HUGE}"
        );
        let (aggregate, own) = match self {
            GroupPart::Known => (format!("pg_catalog.count({v})"), None),
            GroupPart::Sum => (format!("pg_catalog.sum({v})"), is_number.then_some(is_small)),
            GroupPart::Huge => count_of(format!(
                "not ({is_small}) and {v} operator(pg_catalog.<>) {NOT_A_NUMBER}
                   and {v} operator(pg_catalog.<>) {INFINITE} and {v} operator(pg_catalog.<>) {NEGATIVE_INFINITE}"
            )),
            GroupPart::NotANumber => equals(NOT_A_NUMBER),
            GroupPart::Infinite => equals(INFINITE),
            GroupPart::NegativeInfinite => equals(NEGATIVE_INFINITE),
            GroupPart::True => count_of(v.clone()),
            GroupPart::One => equals("1"),
            GroupPart::MinusOne => equals("(-1)"),
            GroupPart::Distinct => (format!("pg_catalog.count(distinct {v})"), None),
            GroupPart::Least => (format!("pg_catalog.min({v})"), None),
            GroupPart::Greatest => (format!("pg_catalog.max({v})"), None),
            GroupPart::Scale => (format!("pg_catalog.max(pg_catalog.scale({v}))"), None),
        };
        let conditions: Vec<&str> = own.as_deref().into_iter().chain(condition).collect();
        let filtered = match conditions.is_empty() {
            true => aggregate,
            false => format!("{aggregate} filter (where {})", conditions.join(" and ")),
        };
        match self {
            GroupPart::Sum => format!("coalesce({filtered}, 0)::pg_catalog.numeric"),
            _ => filtered,
        }
    }

    /// Returns the expression over a contribution `c` by which an index finds the part.
    pub fn indexed(self, value: &RowValue, alias: &str) -> String {
        let v = format!("{alias}{}", value.column.name);
        match self {
            GroupPart::Scale => format!("(pg_catalog.scale({v}))"),
            _ => v,
        }
    }
}

/// A column of the table of groups that keeps a part of an aggregate.
#[derive(Clone, Debug)]
pub struct StatePart {
    /// The place of the value among the values of a row.
    pub value: usize,
    pub part: GroupPart,
    pub column: Column,
}

/// What is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summed {
    /// Smallint and integer: the sum is a bigint.
    Integer,
    /// Bigint: the sum is a numeric.
    Bigint,
    /// Numeric: whether each value has the same number of digits after the point.
    Numeric {
        is_scale_fixed: bool,
    },
    Money,
    Interval,
}

/// An aggregate of the query. The numbers are places among the values of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    Rows,
    /// Of an expression that is true for the rows to count.
    Count(usize),
    /// For [`Summed::Interval`], the place of [`Conversion::Sign`]; months, days and microseconds
    /// follow.
    Sum(usize, Summed),
    Average(usize, Summed),
    /// The number of different values.
    Distinct(usize),
    Least(usize),
    Greatest(usize),
    All(usize),
    Any(usize),
}

/// What rows contribute to their group, what a group keeps, and how the query's aggregates follow from
/// it.
#[derive(Clone, Debug, Default)]
pub struct GroupShape {
    /// The expressions of the query over a row: the columns of the view after the keys.
    pub expressions: Vec<Column>,
    pub values: Vec<RowValue>,
    pub parts: Vec<StatePart>,
    /// The aggregates of the query, each once, in the order in which the query names them.
    pub aggregates: Vec<Aggregate>,
}

impl GroupShape {
    /// Returns the result of an aggregate. `part` returns the expression of a part, by its place.
    pub fn result_sql(
        &self,
        aggregate: Aggregate,
        rows: &str,
        part: impl Fn(usize) -> String,
    ) -> String {
        let of = |value: usize, wanted: GroupPart| {
            let at = self.parts.iter().position(|p| p.value == value && p.part == wanted);
            at.map_or_else(|| "null".to_owned(), &part)
        };
        let if_any = |value: usize, result: &str| {
            format!(
                "case when {} operator(pg_catalog.>) 0 then {result} end",
                of(value, GroupPart::Known)
            )
        };
        let divided = |sum: &str, value: usize| {
            format!(
                "{sum} operator(pg_catalog./) ({})::pg_catalog.numeric",
                of(value, GroupPart::Known)
            )
        };
        match aggregate {
            Aggregate::Rows => rows.to_owned(),
            Aggregate::Count(value) => of(value, GroupPart::True),
            Aggregate::Sum(value, summed) => {
                let sum = of(value, GroupPart::Sum);
                match summed {
                    Summed::Integer => if_any(value, &format!("({sum})::pg_catalog.int8")),
                    Summed::Bigint => if_any(value, &sum),
                    Summed::Money => if_any(value, &format!("({sum})::pg_catalog.money")),
                    Summed::Numeric { is_scale_fixed } => {
                        let sum = exact_sum(sum, of(value, GroupPart::Scale), is_scale_fixed);
                        if_any(value, &number(value, &of, &sum))
                    }
                    Summed::Interval => if_any(value, &interval(value, &of, |sum| sum)),
                }
            }
            Aggregate::Average(value, summed) => {
                let sum = of(value, GroupPart::Sum);
                match summed {
                    Summed::Integer | Summed::Bigint | Summed::Money => {
                        if_any(value, &divided(&sum, value))
                    }
                    Summed::Numeric { is_scale_fixed } => {
                        let sum = exact_sum(sum, of(value, GroupPart::Scale), is_scale_fixed);
                        if_any(value, &number(value, &of, &divided(&sum, value)))
                    }
                    Summed::Interval => {
                        let known = of(value, GroupPart::Known);
                        let divided = |sum: String| {
                            format!("({sum}) operator(pg_catalog./) ({known})::pg_catalog.float8")
                        };
                        if_any(value, &interval(value, &of, divided))
                    }
                }
            }
            Aggregate::Distinct(value) => of(value, GroupPart::Distinct),
            Aggregate::Least(value) => of(value, GroupPart::Least),
            Aggregate::Greatest(value) => of(value, GroupPart::Greatest),
            Aggregate::All(value) => {
                let all = format!(
                    "{} operator(pg_catalog.=) {}",
                    of(value, GroupPart::True),
                    of(value, GroupPart::Known)
                );
                if_any(value, &all)
            }
            Aggregate::Any(value) => {
                if_any(value, &format!("{} operator(pg_catalog.>) 0", of(value, GroupPart::True)))
            }
        }
    }

    /// Returns the expressions of all parts, `p1…`, over the contributions `d` of a group.
    pub fn totals_sql(&self) -> Vec<String> {
        let total = |p: &StatePart| p.part.aggregate(&self.values[p.value], None);
        self.parts.iter().map(total).collect()
    }

    /// Returns the expressions of the changes of all parts, over contributions `d` of a group that came
    /// (`d.came`) or went. A part that does not add up is NULL. `distinct` returns the expression of a
    /// change of [`GroupPart::Distinct`], which does not follow from these contributions alone.
    pub fn changes_sql(&self, distinct: impl Fn(&RowValue) -> String) -> Vec<String> {
        let change = |p: &StatePart| {
            if p.part == GroupPart::Distinct {
                return distinct(&self.values[p.value]);
            }
            let of = |condition| p.part.aggregate(&self.values[p.value], Some(condition));
            match p.part.adds_up() {
                true => format!("{} operator(pg_catalog.-) {}", of("d.came"), of("not d.came")),
                false => format!("null::{}", p.column.type_name),
            }
        };
        self.parts.iter().map(change).collect()
    }

    /// Returns the expressions over contributions by which indexes find parts of a group, each with its
    /// value.
    pub fn indexed(&self, alias: &str) -> Vec<(String, &RowValue)> {
        let mut all: Vec<(String, &RowValue)> = Vec::new();
        for p in self.parts.iter().filter(|p| p.part.needs_index()) {
            let value = &self.values[p.value];
            let on = p.part.indexed(value, alias);
            if !all.iter().any(|(known, _)| *known == on) {
                all.push((on, value));
            }
        }
        all
    }

    /// Returns the names of the columns of the parts.
    pub fn part_names(&self) -> Vec<String> {
        numbered("p", self.parts.len())
    }

    /// Returns the values of which groups keep the number of different ones.
    pub fn distinct_values(&self) -> impl Iterator<Item = &RowValue> {
        let parts = self.parts.iter().filter(|p| p.part == GroupPart::Distinct);
        parts.map(|p| &self.values[p.value])
    }

    /// Returns the names of the columns of the values.
    pub fn value_names(&self) -> Vec<String> {
        numbered("v", self.values.len())
    }

    /// Returns the parts that are read again from the contributions of a group, with their values, each
    /// with its place.
    pub fn read_again(&self) -> impl Iterator<Item = (usize, GroupPart, &RowValue)> {
        let parts = self.parts.iter().enumerate().filter(|(_, p)| !p.part.adds_up());
        parts.map(|(n, p)| (n, p.part, &self.values[p.value]))
    }
}

/// Returns a sum with as many digits after the point as the number with the most of them, as `sum`
/// returns it.
fn exact_sum(sum: String, scale: String, is_scale_fixed: bool) -> String {
    match is_scale_fixed {
        true => sum,
        false => format!("pg_catalog.round({sum}, {scale})"),
    }
}

/// Returns the result of an aggregate over numbers: `finite`, unless some numbers are not finite. Raises
/// an error (22003) if a number is too large to add.
fn number(value: usize, of: &impl Fn(usize, GroupPart) -> String, finite: &str) -> String {
    let some = |part: GroupPart| format!("{} operator(pg_catalog.>) 0", of(value, part));
    format!(
        "case when {huge} then pg_catalog.power(10 operator(pg_catalog.+) ({count})::pg_catalog.numeric, 200000)
              when {nan} or {plus} and {minus} then {NOT_A_NUMBER}
              when {plus} then {INFINITE} when {minus} then {NEGATIVE_INFINITE} else {finite} end",
        huge = some(GroupPart::Huge),
        count = of(value, GroupPart::Huge),
        nan = some(GroupPart::NotANumber),
        plus = some(GroupPart::Infinite),
        minus = some(GroupPart::NegativeInfinite),
    )
}

/// Returns the result of an aggregate over intervals, from the sums of their parts.
fn interval(
    sign: usize,
    of: &impl Fn(usize, GroupPart) -> String,
    finish: impl Fn(String) -> String,
) -> String {
    let sum = |after: usize| of(sign + after, GroupPart::Sum);
    let (months, days, micros) = (sum(1), sum(2), sum(3));
    // The number of hours may be larger than make_interval accepts, so it gets two halves.
    let hours = format!("pg_catalog.div({micros}, 3600000000)");
    let half = format!("pg_catalog.div({hours}, 2)");
    let seconds = format!(
        "(pg_catalog.mod({micros}, 3600000000) operator(pg_catalog./) 1000000::pg_catalog.numeric)::pg_catalog.float8"
    );
    let finite = finish(format!(
        "pg_catalog.make_interval(0, ({months})::pg_catalog.int4, 0, ({days})::pg_catalog.int4,
                                  ({half})::pg_catalog.int4, 0, {seconds})
           operator(pg_catalog.+)
         pg_catalog.make_interval(0, 0, 0, 0, ({hours} operator(pg_catalog.-) {half})::pg_catalog.int4)"
    ));
    if !cfg!(any(feature = "pg17", feature = "pg18")) {
        return finite;
    }
    let some = |part: GroupPart| format!("{} operator(pg_catalog.>) 0", of(sign, part));
    let infinity = "'infinity'::pg_catalog.interval";
    // PostgreSQL adds no infinity to its opposite either (22008). The number of rows keeps the planner
    // from computing the constant.
    format!(
        "case when {plus} and {minus}
              then {infinity} operator(pg_catalog.-) ({infinity} operator(pg_catalog.*) ({count})::pg_catalog.float8)
              when {plus} then {infinity} when {minus} then '-infinity'::pg_catalog.interval
              else {finite} end",
        plus = some(GroupPart::One),
        minus = some(GroupPart::MinusOne),
        count = of(sign, GroupPart::One),
    )
}

/// The columns of the table of groups between its key and the parts.
pub const ROWS: &str = "rows";

/// The number of the group's rows for which the query raises an error.
pub const FAILING: &str = "failing";
