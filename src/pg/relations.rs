//! Looks up relations by name.

use pgrx::pg_sys;

use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// Returns the relation with this name, if it exists.
pub fn find_relation(schema: &str, name: &str) -> Result<Option<pg_sys::Oid>> {
    spi::scalar(
        "select c.oid from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where n.nspname = $1::text and c.relname = $2::text",
        &[arg(schema), arg(name)],
    )
}
