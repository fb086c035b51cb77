//! The type of an expression over a relation's columns. Callers: `declare`.

use pgrx::PgList;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::subtransaction::subtransaction;
use crate::query::parse_analysis::{c_string, parse_analyzed};

/// Returns the type of a checked expression over a relation's columns, and whether the expression
/// is volatile. The caller acts as the flow's owner.
pub fn expression_type(
    argument: &str,
    text: &str,
    name: &str,
    relation_name: &str,
) -> Result<(Column, bool)> {
    let sql =
        format!("select (\n{text}\n) as x from {relation_name} as {}", crate::pg::spi::ident(name));
    check(argument, &sql)?;
    let tree = analyzed_tree(&sql)?;
    // SAFETY: the composed statement has one target entry.
    unsafe {
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList);
        let entry = entries.get_ptr(0).ok_or_else(|| Error::internal("no target entry"))?;
        let expr = (*entry).expr.cast::<pg_sys::Node>();
        let column = columns::result_column(
            "x".to_owned(),
            pg_sys::exprType(expr),
            pg_sys::exprTypmod(expr),
            pg_sys::exprCollation(expr),
        )?;
        Ok((column, pg_sys::contain_volatile_functions(expr)))
    }
}

/// Reports an error, with the name of the argument, if PostgreSQL cannot analyze `sql`.
fn check(argument: &str, sql: &str) -> Result<()> {
    subtransaction(
        || Ok(Spi::connect(|client| client.prepare(sql, &[]).map(|_| ()))?),
        |raised| Error {
            code: raised.code,
            message: format!("argument \"{argument}\": {}", raised.message),
            detail: raised.detail,
            hint: raised.hint,
        },
    )
}

/// Returns the analyzed tree of one statement without parameters.
fn analyzed_tree(sql: &str) -> Result<*mut pg_sys::Query> {
    let text = c_string(sql)?;
    // SAFETY: `sql` is one statement that coco composed around a checked expression.
    unsafe {
        let list = PgList::<pg_sys::RawStmt>::from_pg(pg_sys::pg_parse_query(text.as_ptr()));
        let raw = list.get_ptr(0).ok_or_else(|| Error::internal("nothing to analyze"))?;
        Ok(parse_analyzed(raw, &text))
    }
}
