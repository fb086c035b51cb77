//! Determines which types have the same values on another server, and which types are equal.

use coco_core::change::Column;

use super::names;

/// Types whose values are OIDs. An OID has another meaning on another server.
const OIDS: [&str; 11] = [
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];

/// The types of pgvector.
const VECTORS: [&str; 3] = ["vector", "halfvec", "sparsevec"];

/// Checks that a column's values can be sent to another server.
///
/// The binary form of an array or a composite contains the OIDs of its types. The OIDs of types
/// that are not built in differ between servers. Only the server shows which types are composite:
/// see [`super::table`].
pub fn check(column: &Column) -> Result<(), String> {
    let name = &column.type_name;
    let element = name.strip_suffix("[]");
    if !is_built_in(column) && element.is_some() {
        return Err(format!(
            "column {} has type {name}: an array of a type that is not built in cannot be sent to \
             another server; cast it, for example to text[]",
            names::quoted(&column.name)
        ));
    }
    if is_built_in(column) && OIDS.contains(&element.unwrap_or(name)) {
        return Err(format!(
            "column {} has type {name}, whose values have no meaning on another server: cast it to \
             text",
            names::quoted(&column.name)
        ));
    }
    Ok(())
}

/// Reports whether a column's type is built in. It then has the same OID on all servers.
pub fn is_built_in(column: &Column) -> bool {
    column.type_schema == "pg_catalog"
}

/// Returns the name of a type that is not built in, without modifiers.
pub fn bare_name(column: &Column) -> String {
    match names::identifier(&column.type_name) {
        Some((name, _)) => name,
        None => column.type_name.clone(),
    }
}

/// Reports whether it is a type of pgvector.
pub fn is_vector(column: &Column) -> bool {
    !is_built_in(column) && VECTORS.contains(&bare_name(column).as_str())
}

/// A column type on the other server.
pub struct RemoteType {
    pub schema: String,
    /// As Postgres writes it, without the schema.
    pub name: String,
}

impl RemoteType {
    /// Reports whether the type holds every value of a column unchanged. It must have the same
    /// name, in any schema if it is not built in, and the same modifiers or none. Other types would
    /// silently round numbers and times.
    pub fn fits(&self, column: &Column) -> bool {
        (self.schema == "pg_catalog") == is_built_in(column)
            && (self.name == column.type_name || self.name == without_modifiers(&column.type_name))
    }
}

/// Returns `numeric(10,2)` as `numeric`, and `timestamp(3) with time zone` as `timestamp with time
/// zone`.
fn without_modifiers(type_name: &str) -> String {
    let start = match type_name.strip_prefix('"') {
        Some(_) => names::identifier(type_name).map_or(0, |(_, rest)| type_name.len() - rest.len()),
        None => 0,
    };
    let (name, rest) = type_name.split_at(start);
    match rest.split_once('(').and_then(|(a, rest)| Some((a, rest.split_once(')')?.1))) {
        Some((before, after)) => format!("{name}{before}{after}"),
        None => type_name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_schema: &str, type_name: &str) -> Column {
        Column {
            name: "c".to_owned(),
            type_schema: type_schema.to_owned(),
            type_name: type_name.to_owned(),
        }
    }

    #[test]
    fn modifiers_are_taken_off() {
        for (with, without) in [
            ("integer", "integer"),
            ("numeric(10,2)", "numeric"),
            ("timestamp(3) with time zone", "timestamp with time zone"),
            ("character varying(10)[]", "character varying[]"),
            ("vector(384)", "vector"),
            ("\"odd (1)\"", "\"odd (1)\""),
            ("\"odd (1)\"(3)", "\"odd (1)\""),
        ] {
            assert_eq!(without_modifiers(with), without);
        }
    }

    #[test]
    fn a_type_fits_with_its_own_modifiers_or_none() {
        let fits = |schema: &str, there: &str, column: &Column| {
            RemoteType { schema: schema.to_owned(), name: there.to_owned() }.fits(column)
        };
        let money = column("pg_catalog", "numeric(10,2)");
        assert!(fits("pg_catalog", "numeric(10,2)", &money));
        assert!(fits("pg_catalog", "numeric", &money));
        assert!(!fits("pg_catalog", "numeric(10,1)", &money));
        assert!(!fits("pg_catalog", "bigint", &money));
        assert!(!fits("pg_catalog", "numeric(10,2)", &column("pg_catalog", "numeric")));
        let embedding = column("public", "vector(3)");
        assert!(fits("extensions", "vector(3)", &embedding));
        assert!(fits("extensions", "vector", &embedding));
        assert!(!fits("extensions", "vector(4)", &embedding));
        assert!(!fits("public", "date", &column("pg_catalog", "date")));
    }

    #[test]
    fn what_holds_oids_is_refused() {
        for (schema, name) in
            [("public", "mood[]"), ("pg_catalog", "regclass"), ("pg_catalog", "regtype[]")]
        {
            assert!(check(&column(schema, name)).is_err(), "{name}");
        }
        for (schema, name) in [
            ("public", "mood"),
            ("public", "vector(3)"),
            ("pg_catalog", "text[]"),
            ("pg_catalog", "oid"),
        ] {
            assert_eq!(check(&column(schema, name)), Ok(()));
        }
    }
}
