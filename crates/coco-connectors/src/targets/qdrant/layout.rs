//! Determines how rows become points: the vector columns, and the id of a point.

use std::collections::{BTreeMap, BTreeSet};

use qdrant_client::qdrant::Distance;
use serde_json::Value;

use super::config::{self, VectorOption};
use super::point_id::Naming;
use coco_core::change::{Column, TargetSchema};

/// Qdrant's name of the unnamed vector.
pub const UNNAMED: &str = "";
const LARGEST_SIZE: u64 = 65536;
const LONGEST_COLLECTION_NAME: usize = 255;
const LONGEST_VECTOR_NAME: usize = 200;
/// Qdrant uses names as file names, and rejects characters that some file systems do not allow.
const NOT_IN_NAMES: &[char] = &['<', '>', ':', '"', '/', '\\', '|', '?', '*', '\0', '\u{1f}'];

/// The mapping of a target's rows to points.
#[derive(Debug)]
pub struct Layout {
    pub naming: Naming,
    /// The vectors, at least one, by their index in [`TargetSchema::columns`].
    pub vectors: BTreeMap<usize, Vector>,
}

/// A vector of each point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector {
    /// Empty for the unnamed vector, which is then the only one.
    pub name: String,
    /// Number of dimensions, from 1.
    pub size: u64,
    pub distance: Distance,
}

impl Vector {
    pub fn is_unnamed(&self) -> bool {
        self.name == UNNAMED
    }
}

impl Layout {
    /// Returns the layout for the columns, key and options, or what is wrong with them.
    pub fn of(schema: &TargetSchema) -> Result<Layout, String> {
        check_name("the collection", &schema.target, LONGEST_COLLECTION_NAME)?;
        let mut options = match schema.options.get("vectors") {
            None => BTreeMap::new(),
            Some(Value::String(json)) => config::vectors(json)?,
            Some(json) => config::vectors(&json.to_string())?,
        };
        let mut vectors = BTreeMap::new();
        for (place, column) in schema.columns.iter().enumerate() {
            let option = options.remove(&column.name);
            if option.is_none() && !is_pgvector(column) {
                continue;
            }
            if schema.is_key(place) {
                return Err(format!(
                    "column \"{}\" is part of the key, and cannot be a vector",
                    column.name
                ));
            }
            vectors.insert(place, vector(column, option.unwrap_or_default())?);
        }
        if let Some(name) = options.keys().next() {
            return Err(format!("option \"vectors\" names \"{name}\", which is not a column"));
        }
        name_vectors(schema, &mut vectors)?;
        Ok(Layout { naming: Naming::of(schema), vectors })
    }
}

/// Returns a vector from a column's type and option, without a default name.
fn vector(column: &Column, option: VectorOption) -> Result<Vector, String> {
    let Column { name, type_name, .. } = column;
    let typed = match column.type_schema.as_str() {
        "pg_catalog" if type_name == "real[]" || type_name == "double precision[]" => None,
        _ if is_pgvector(column) => dimensions(type_name),
        _ => {
            return Err(format!(
                "column \"{name}\" is {type_name}: a vector must be vector, halfvec, real[] or \
                 double precision[]"
            ));
        }
    };
    let size = match (typed, option.size) {
        (Some(typed), Some(size)) if typed != size => {
            return Err(format!(
                "column \"{name}\" is {type_name}, but option \"vectors\" sets its size to {size}"
            ));
        }
        (Some(size), _) | (None, Some(size)) => size,
        (None, None) => {
            return Err(format!(
                "column \"{name}\" is {type_name}, which does not set the number of dimensions: \
                 set its size in option \"vectors\", or cast it, for example to vector(384)"
            ));
        }
    };
    if !(1..=LARGEST_SIZE).contains(&size) {
        return Err(format!("column \"{name}\" must have 1 to {LARGEST_SIZE} dimensions"));
    }
    let name = option.name.unwrap_or_default();
    Ok(Vector { name, size, distance: option.distance.into() })
}

/// Names the vectors. A single vector may stay unnamed. Several vectors each need a name, by
/// default the column's.
fn name_vectors(
    schema: &TargetSchema,
    vectors: &mut BTreeMap<usize, Vector>,
) -> Result<(), String> {
    let alone = match vectors.len() {
        0 => {
            return Err(
                "no column is a vector: cast one to vector(n), or name a real[] column in option \
                 \"vectors\""
                    .to_owned(),
            );
        }
        n => n == 1,
    };
    let mut names = BTreeSet::new();
    for (place, vector) in vectors {
        if vector.is_unnamed() && !alone {
            let column = schema.columns.get(*place).map(|c| c.name.clone());
            vector.name = column.unwrap_or_default();
        }
        if !vector.is_unnamed() {
            check_name("a vector", &vector.name, LONGEST_VECTOR_NAME)?;
        }
        if !names.insert(vector.name.clone()) {
            return Err(format!("two vectors have the name \"{}\"", vector.name));
        }
    }
    Ok(())
}

fn check_name(of: &str, name: &str, longest: usize) -> Result<(), String> {
    if let Some(bad) = name.chars().find(|c| NOT_IN_NAMES.contains(c)) {
        return Err(format!("the name of {of} must not contain {bad:?}: Qdrant does not allow it"));
    }
    if matches!(name, "" | "." | "..") || name.len() > longest {
        return Err(format!(
            "the name of {of} must be 1 to {longest} bytes long, and not \".\" or \"..\""
        ));
    }
    Ok(())
}

fn is_pgvector(column: &Column) -> bool {
    let base = column.type_name.split('(').next();
    column.type_schema != "pg_catalog" && matches!(base, Some("vector" | "halfvec"))
}

/// Returns the number in `vector(384)`.
fn dimensions(type_name: &str) -> Option<u64> {
    type_name.split_once('(')?.1.strip_suffix(')')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(columns: &[(&str, &str)], vectors: Value) -> TargetSchema {
        let columns = columns.iter().map(|(name, type_name)| Column {
            name: (*name).to_owned(),
            type_schema: match type_name.contains("vec") {
                true => "public".to_owned(),
                false => "pg_catalog".to_owned(),
            },
            type_name: (*type_name).to_owned(),
        });
        let mut options = serde_json::Map::new();
        if !vectors.is_null() {
            options.insert("vectors".to_owned(), vectors);
        }
        let (flow, target) = ("f".to_owned(), "docs".to_owned());
        TargetSchema { flow, target, columns: columns.collect(), key: vec![0], options }
    }

    fn wrong(columns: &[(&str, &str)], vectors: Value) -> String {
        Layout::of(&schema(columns, vectors)).expect_err("a wrong layout")
    }

    #[test]
    fn one_vector_is_unnamed_and_several_have_their_columns_names() {
        let one = schema(&[("id", "integer"), ("e", "vector(3)")], Value::Null);
        let one = Layout::of(&one).expect("a layout");
        let e = Vector { name: String::new(), size: 3, distance: Distance::Cosine };
        assert_eq!(one.vectors, BTreeMap::from([(1, e)]));

        let columns = [("id", "integer"), ("e", "halfvec(3)"), ("f", "real[]")];
        let options = json!({"f": {"size": 2, "distance": "euclid", "name": "title"}});
        // The option has the same meaning as text.
        for options in [options.clone(), Value::String(options.to_string())] {
            let two = Layout::of(&schema(&columns, options)).expect("a layout");
            let names: Vec<&str> = two.vectors.values().map(|v| v.name.as_str()).collect();
            assert_eq!(names, ["e", "title"]);
            assert_eq!(two.vectors[&2].distance, Distance::Euclid);
        }
    }

    #[test]
    fn what_is_wrong_with_columns_and_options_is_said() {
        let id = ("id", "integer");
        assert!(wrong(&[id, ("b", "text")], Value::Null).contains("no column is a vector"));
        assert!(wrong(&[id, ("e", "vector")], Value::Null).contains("number of dimensions"));
        let three = json!({"e": {"size": 3}});
        assert!(wrong(&[id, ("e", "vector(4)")], three.clone()).contains("sets its size to 3"));
        assert!(wrong(&[id, ("e", "text")], three.clone()).contains("must be vector"));
        assert!(wrong(&[id, ("f", "vector(3)")], three).contains("is not a column"));
        assert!(wrong(&[("e", "vector(3)")], Value::Null).contains("of the key"));
        assert!(wrong(&[id, ("e", "real[]")], json!({"e": {"size": 0}})).contains("1 to 65536"));
        let twice = json!({"e": {"name": "f"}});
        let twice = wrong(&[id, ("e", "vector(3)"), ("f", "vector(3)")], twice);
        assert!(twice.contains("two vectors"), "{twice}");
        let slash = json!({"e": {"name": "a/b"}});
        assert!(wrong(&[id, ("e", "vector(3)")], slash).contains("'/'"));
    }

    #[test]
    fn names_that_qdrant_does_not_take_are_refused() {
        for name in ["", ".", "..", "a/b", "a:b", "\"a\"", &"ü".repeat(128)] {
            let mut schema = schema(&[("id", "integer"), ("e", "vector(3)")], Value::Null);
            schema.target = (*name).to_owned();
            assert!(Layout::of(&schema).is_err(), "{name}");
        }
    }
}
