//! The extension as installed in this database.

use crate::pg::acting_role;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// The installed extension.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InstalledExtension {
    pub extension: pgrx::pg_sys::Oid,
    /// Whether the installed version is the library's.
    pub fits: bool,
}

/// Returns the extension, if it is installed.
pub fn installed_extension() -> Result<Option<InstalledExtension>> {
    let found = spi::select(
        "select oid, extversion = $1 from pg_catalog.pg_extension where extname = 'coco'",
        &[arg(acting_role::VERSION)],
        |r| Ok(InstalledExtension { extension: spi::required(r, 1)?, fits: spi::required(r, 2)? }),
    )?;
    Ok(found.into_iter().next())
}
