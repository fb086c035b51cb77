//! Which types' values mean the same on another server, and which types are the same.

use coco_core::change::Column;

use super::names;

/// Types whose values are OIDs, which name something else on another server.
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

/// What pgvector brings.
const VECTORS: [&str; 3] = ["vector", "halfvec", "sparsevec"];

/// Whether a column's values can go to another server.
///
/// The binary form of an array or a composite says the OIDs of the types in it, and those of types
/// that do not come with Postgres differ between servers. Which types are composite shows there
/// alone: see [`super::table`].
pub fn check(column: &Column) -> Result<(), String> {
    let name = &column.type_name;
    let element = name.strip_suffix("[]");
    if !is_built_in(column) && element.is_some() {
        return Err(format!(
            "column {} has type {name}: an array of a type that does not come with Postgres has no form that another server understands; cast it, to text[] for one",
            names::quoted(&column.name)
        ));
    }
    if is_built_in(column) && OIDS.contains(&element.unwrap_or(name)) {
        return Err(format!(
            "column {} has type {name}, whose values mean nothing on another server: cast it to text",
            names::quoted(&column.name)
        ));
    }
    Ok(())
}

/// Whether a column's type comes with Postgres, and so has the same OID on all servers.
pub fn is_built_in(column: &Column) -> bool {
    column.type_schema == "pg_catalog"
}

/// The bare name of a type that does not come with Postgres, without modifiers.
pub fn bare_name(column: &Column) -> String {
    match names::identifier(&column.type_name) {
        Some((name, _)) => name,
        None => column.type_name.clone(),
    }
}

/// Whether it is one of pgvector's types.
pub fn is_vector(column: &Column) -> bool {
    !is_built_in(column) && VECTORS.contains(&bare_name(column).as_str())
}

/// A type as the other server has it.
pub struct RemoteType {
    pub schema: String,
    /// As Postgres writes it, without the schema.
    pub name: String,
}

impl RemoteType {
    /// Whether it holds every value of a column just as it is: it is of the same name (in whatever
    /// schema, if it does not come with Postgres), and has the same modifiers or none. Others would
    /// round numbers and times in silence.
    pub fn fits(&self, column: &Column) -> bool {
        (self.schema == "pg_catalog") == is_built_in(column)
            && (self.name == column.type_name || self.name == without_modifiers(&column.type_name))
    }
}

/// `numeric(10,2)` as `numeric`, `timestamp(3) with time zone` as `timestamp with time zone`.
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
