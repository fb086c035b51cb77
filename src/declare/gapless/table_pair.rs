//! The two tables that a swap exchanges.

use pgrx::pg_sys;

use crate::catalog::model::{Flow, Target};
use crate::catalog::version_rows::VersionRole;
use crate::declare::names;
use crate::pg::error::{Error, Result};

/// A table of the main flow, and the table of a version that takes over its name.
pub struct TablePair {
    pub main: Target,
    pub version: Target,
    pub main_table: pg_sys::Oid,
    pub version_table: pg_sys::Oid,
    /// The name that the main flow's table gets, without its schema.
    pub retired: String,
}

impl TablePair {
    /// Returns the tables of two flows, in the order of their targets.
    pub fn of_flows(main: &Flow, version: &Flow) -> Result<Vec<TablePair>> {
        if main.targets.len() != version.targets.len() {
            return Err(Error::new(
                pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("flows \"{}\" and \"{}\" have different targets", main.name, version.name),
            )
            .detail("A target was added after the version was declared.")
            .hint("Discard the version with coco.discard, and declare it again."));
        }
        main.targets
            .iter()
            .zip(&version.targets)
            .map(|(main, version)| pair(main, version))
            .collect()
    }

    /// Returns the name that the version's table gets, quoted and schema-qualified.
    pub fn name(&self) -> String {
        self.main.relation_name()
    }

    /// Returns the name of the version's table in the middle of a swap, without its schema.
    pub fn temporary(&self) -> String {
        format!("coco_swap_{}", self.version_table.to_u32())
    }
}

fn pair(main: &Target, version: &Target) -> Result<TablePair> {
    let dropped = |target: &Target| {
        Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("target {} was dropped", target.relation_name()),
        )
        .hint("Call coco.update to create and fill it again.")
    };
    Ok(TablePair {
        main_table: main.relation.ok_or_else(|| dropped(main))?,
        version_table: version.relation.ok_or_else(|| dropped(version))?,
        retired: names::version_table_name(&main.name, VersionRole::Old),
        main: main.clone(),
        version: version.clone(),
    })
}
