//! Binds the ordinal or the fingerprint of a source alone, to compare it with another one.

use pgrx::pg_sys;

use crate::declare::add_source::{SOURCE, bind_expressions, ordinal_sql};
use crate::pg::columns;
use crate::pg::error::Result;
use crate::pg::spi;
use crate::query::analyze::{self, Shadow};
use crate::query::bound_query::Bound;
use crate::query::used_columns;

/// Checks an ordinal or a fingerprint, and binds it alone: as the column `argument` of a query over
/// one row of the source. The caller must act as the flow's owner.
pub fn bind_expression(
    argument: &str,
    text: &str,
    name: &str,
    relation: pg_sys::Oid,
) -> Result<Bound> {
    let named = used_columns::named(SOURCE, name, relation)?;
    let shown = spi::qualified(&named.schema, &named.table);
    let sql = match argument {
        "ordinal" => ordinal_sql(text, name, &shown)?,
        _ => {
            analyze::one_expression(argument, text)?;
            text.to_owned()
        }
    };
    let shadow = Shadow { named, columns: columns::numbers(relation)?, key: vec![] };
    Ok(bind_expressions(argument, &[(argument, &sql)], shadow)?.0)
}
