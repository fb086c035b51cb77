//! The rules for the aggregates of a query whose groups coco keeps by deltas: what a row contributes to
//! each aggregate, and what a group keeps of it. An aggregate without a rule is refused (0A000).
//!
//! Callers: `group_parts` and `declare`.

use pgrx::PgList;
use pgrx::pg_sys::{self, NodeTag};
use pgrx::prelude::*;
use std::ffi::{CStr, c_void};

use crate::catalog::group_state::{
    Aggregate, Conversion, GroupPart, GroupShape, RowValue, StatePart, Summed,
};
use crate::pg::columns::{self, Column, StoredType};
use crate::pg::error::{Error, Result};

/// The shape of a query that groups the rows of its source, with the expressions over a row.
#[derive(Default)]
pub struct ShapedGroups {
    pub shape: GroupShape,
    pub expressions: Vec<*mut pg_sys::Node>,
}

/// The beginning of the message of [`cannot_keep`].
pub const CANNOT_KEEP: &str = "cannot keep groups by deltas: ";

/// Returns the error that coco cannot keep the groups of a query by deltas.
pub fn cannot_keep(why: impl AsRef<str>) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("cannot keep groups by deltas: {}", why.as_ref()),
    )
    .hint("Declare the flow without aggregate => 'delta'. coco then evaluates a changed item as a whole.")
}

impl ShapedGroups {
    /// Adds an aggregate that the query does not name before.
    ///
    /// # Safety
    /// It is an aggregate of an analyzed tree, which nobody changes meanwhile.
    pub unsafe fn add_aggregate(&mut self, aggregate: *mut pg_sys::Aggref) -> Result<()> {
        // SAFETY: an aggregate of the tree, whose lists contain the node types that their names say.
        unsafe {
            let of = &*aggregate;
            let name = function_name(of.aggfnoid);
            let refused = |why: &str| Err(cannot_keep(format!("the query calls {name}, {why}")));
            if pg_sys::get_func_namespace(of.aggfnoid).to_u32() != pg_sys::PG_CATALOG_NAMESPACE {
                return refused("which is not an aggregate of PostgreSQL itself");
            }
            let is_distinct = !of.aggdistinct.is_null();
            if is_distinct && name != "count" {
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
                Some(argument) if is_distinct => {
                    let type_oid = pg_sys::exprType(argument);
                    if !can_be_counted(type_oid)? {
                        return refused("over values that coco cannot compare");
                    }
                    let value =
                        self.add_value(filtered(argument, filter), Conversion::Unchanged)?;
                    self.add_part(value, GroupPart::Distinct)?;
                    Aggregate::Distinct(value)
                }
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
pub fn column_for(name: String, node: *mut pg_sys::Node) -> Result<Column> {
    // SAFETY: an expression of an analyzed tree.
    let (type_oid, typmod, collation) =
        unsafe { (pg_sys::exprType(node), pg_sys::exprTypmod(node), pg_sys::exprCollation(node)) };
    columns::result_column(name, type_oid, typmod, collation)
}

/// Reports whether coco can count the different values of a type: a table of its own stores them as
/// they are, and an index finds them.
fn can_be_counted(type_oid: pg_sys::Oid) -> Result<bool> {
    let column = columns::result_column(String::new(), type_oid, -1, pg_sys::InvalidOid)?;
    Ok(column.kept != StoredType::Json && column.equals.is_some())
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
