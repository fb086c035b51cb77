//! The extension as it is installed in this database.

use crate::pg::acting_role;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// The extension in this database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InstalledExtension {
    pub extension: pgrx::pg_sys::Oid,
    /// Its version is the library's.
    pub fits: bool,
}

/// The extension, if it is there.
pub fn installed_extension() -> Result<Option<InstalledExtension>> {
    let found = spi::select(
        "select oid, extversion = $1 from pg_catalog.pg_extension where extname = 'coco'",
        &[arg(acting_role::VERSION)],
        |r| Ok(InstalledExtension { extension: spi::required(r, 1)?, fits: spi::required(r, 2)? }),
    )?;
    Ok(found.into_iter().next())
}
