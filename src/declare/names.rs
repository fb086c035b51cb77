//! Checks of the names that users choose.

use pgrx::prelude::*;

use crate::catalog::version_rows::VersionRole;
use crate::pg::error::{Error, Result};

/// The largest number of bytes of a name.
const LONGEST: usize = 63;

/// Checks that a name is not empty and has at most 63 bytes. The name of a flow must not look like
/// the name of a version.
pub fn check_name(argument: &str, name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::invalid(format!("argument \"{argument}\" is empty")));
    }
    if name.len() > LONGEST {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_NAME_TOO_LONG,
            format!("argument \"{argument}\": name \"{name}\" is too long"),
        )
        .detail(format!("The name has {} bytes, and a name can have at most 63.", name.len())));
    }
    let ends = [VersionRole::New, VersionRole::Old].map(VersionRole::suffix);
    let names_flow = matches!(argument, "flow" | "new_name");
    if let (true, Some(end)) = (names_flow, ends.iter().find(|end| name.ends_with(**end))) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_RESERVED_NAME,
            format!("flow name \"{name}\" is reserved"),
        )
        .detail(format!(
            "Names that end with {end} belong to versions of flows, which coco.set_query creates."
        )));
    }
    Ok(())
}

/// Returns the name of a version of a flow.
pub fn version_name(flow: &str, role: VersionRole) -> Result<String> {
    let name = format!("{flow}{}", role.suffix());
    match name.len() > LONGEST {
        false => Ok(name),
        true => Err(Error::new(
            PgSqlErrorCode::ERRCODE_NAME_TOO_LONG,
            format!("name of flow \"{flow}\" is too long for a change without a gap"),
        )
        .detail(format!("The new version would be named \"{name}\", which has over 63 bytes."))),
    }
}

/// Returns the name of the table of a version. `table` is the table's name in the main flow.
pub fn version_table_name(table: &str, role: VersionRole) -> String {
    let mut end = table.len().min(LONGEST - role.suffix().len());
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &table[..end], role.suffix())
}

/// Returns the name of a partition of the table of a version. `name` and `partition` are the name and
/// the OID of its partner in the main flow. Names of partitions often differ at their ends only, so a
/// name that must be cut contains the OID.
pub fn version_partition_name(name: &str, partition: pg_sys::Oid, role: VersionRole) -> String {
    if name.len() + role.suffix().len() <= LONGEST {
        return format!("{name}{}", role.suffix());
    }
    let end = format!("_{}{}", partition.to_u32(), role.suffix());
    let mut cut = LONGEST - end.len();
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{end}", &name[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_versions_are_reserved_and_fit() {
        assert!(check_name("flow", "f").is_ok());
        assert!(check_name("flow", "f@new").is_err() && check_name("flow", "f@old").is_err());
        assert!(check_name("new_name", "f@new").is_err());
        assert!(check_name("name", "f@new").is_ok());
        assert!(version_name(&"f".repeat(59), VersionRole::Old).is_ok());
        assert!(version_name(&"f".repeat(60), VersionRole::New).is_err());
        assert_eq!(version_table_name("t", VersionRole::New), "t@new");
        let long = version_table_name(&"ä".repeat(31), VersionRole::Old);
        assert_eq!(long, format!("{}@old", "ä".repeat(29)));
    }

    #[test]
    fn names_of_partitions_stay_different() {
        let (one, other) = (pg_sys::Oid::from(16384), pg_sys::Oid::from(16385));
        assert_eq!(version_partition_name("p", one, VersionRole::New), "p@new");
        let long = "p".repeat(60);
        let name = version_partition_name(&long, one, VersionRole::Old);
        assert_eq!(name, format!("{}_16384@old", "p".repeat(53)));
        assert_ne!(name, version_partition_name(&long, other, VersionRole::Old));
    }
}
