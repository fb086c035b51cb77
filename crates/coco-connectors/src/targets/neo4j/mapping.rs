//! Determines whether rows become nodes or relationships, and from which columns.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use coco_core::change::TargetSchema;

/// The label of nodes that only relationships have created. Such a node is deleted with its last
/// relationship.
pub const ENDPOINT: &str = "_CocoEndpoint";

/// The mapping of a target's rows to graph elements.
#[derive(Debug, PartialEq)]
pub struct Mapping {
    pub element: GraphElement,
    /// The key columns, in the order of [`TargetSchema::key`], and their properties.
    pub key: Vec<Field>,
    /// The columns that only fill a property.
    pub others: Vec<Field>,
    /// Whether dates and times become values of Neo4j's own types.
    pub temporal: bool,
}

#[derive(Debug, PartialEq)]
pub enum GraphElement {
    Node { label: String },
    Relationship { kind: String, from: Endpoint, to: Endpoint },
}

/// The node at one end of a relationship.
#[derive(Debug, PartialEq)]
pub struct Endpoint {
    pub label: String,
    pub key: Vec<Field>,
}

/// A column, as its index in [`TargetSchema::columns`], and its property.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub column: usize,
    pub property: String,
}

impl Mapping {
    /// Reads a target's name, options and columns, or returns what is wrong with them.
    pub fn new(schema: &TargetSchema) -> Result<Mapping, String> {
        let field = |column: usize| Field { column, property: schema.columns[column].name.clone() };
        let named = |option: &str| -> Result<String, String> {
            let given = match schema.options.get(option) {
                None => &schema.target,
                Some(Value::String(given)) => given,
                Some(_) => return Err(format!("option \"{option}\" must be a string")),
            };
            check_name(given).map_err(|wrong| format!("the {option} {wrong}"))?;
            Ok(given.to_owned())
        };
        let kind = schema.options.get("kind").map(|kind| kind.as_str().unwrap_or_default());
        let element = match kind {
            None | Some("node") => {
                check_absent(&schema.options, &["type", "from", "to"], "relationship")?;
                GraphElement::Node { label: named("label")? }
            }
            Some("relationship") => {
                check_absent(&schema.options, &["label"], "node")?;
                let from = Endpoint::new(schema, "from")?;
                let to = Endpoint::new(schema, "to")?;
                GraphElement::Relationship { kind: named("type")?, from, to }
            }
            Some(_) => return Err("option \"kind\" must be node or relationship".to_owned()),
        };
        for column in &schema.columns {
            check_name(&column.name).map_err(|wrong| format!("the name of a column {wrong}"))?;
        }
        if schema.key.is_empty() {
            return Err("a target in Neo4j needs a key".to_owned());
        }
        // A column that identifies an endpoint is a property of the endpoint, and of the
        // relationship only if it is part of the key.
        let of_an_end = |column: usize| match &element {
            GraphElement::Node { .. } => false,
            GraphElement::Relationship { from, to, .. } => {
                from.key.iter().chain(&to.key).any(|f| f.column == column)
            }
        };
        let others = (0..schema.columns.len())
            .filter(|&column| !schema.is_key(column) && !of_an_end(column))
            .map(field)
            .collect();
        let key = schema.key.iter().map(|&column| field(column)).collect();
        let temporal = schema.options.get("temporal").is_some_and(|v| v == true || v == "true");
        Ok(Mapping { element, key, others, temporal })
    }

    /// Reports whether this column must have a value: it identifies the row or an endpoint.
    pub fn requires(&self, column: usize) -> bool {
        let ends: &[&Endpoint] = match &self.element {
            GraphElement::Node { .. } => &[],
            GraphElement::Relationship { from, to, .. } => &[from, to],
        };
        self.key.iter().chain(ends.iter().flat_map(|end| &end.key)).any(|f| f.column == column)
    }
}

impl Endpoint {
    fn new(schema: &TargetSchema, option: &str) -> Result<Endpoint, String> {
        let given = schema.options.get(option);
        let given = given.ok_or(format!("a relationship needs the option \"{option}\""))?;
        let (label, key) = parse(given).map_err(|wrong| format!("option \"{option}\" {wrong}"))?;
        let key = key.into_iter().map(|(column, property)| {
            let place = schema.columns.iter().position(|c| c.name == column);
            let column = place.ok_or(format!(
                "option \"{option}\" names the column \"{column}\", which the query does not \
                 return"
            ))?;
            Ok(Field { column, property })
        });
        Ok(Endpoint { label, key: key.collect::<Result<_, String>>()? })
    }
}

fn check_absent(options: &Map<String, Value>, names: &[&str], other: &str) -> Result<(), String> {
    match names.iter().find(|name| options.contains_key(**name)) {
        Some(name) => Err(format!(
            "option \"{name}\" requires \"kind\": \"{other}\": set that option too, or omit \
             \"{name}\""
        )),
        None => Ok(()),
    }
}

/// Parses the label of an endpoint, and its key columns with their properties.
fn parse(end: &Value) -> Result<(String, BTreeMap<String, String>), String> {
    const FORM: &str = "must be written {\"label\": …, \"key\": {column: property, …}}";
    let end = end.as_object().ok_or(FORM)?;
    if end.keys().any(|k| k != "label" && k != "key") {
        return Err(FORM.to_owned());
    }
    let label = end.get("label").and_then(Value::as_str).ok_or(FORM)?;
    check_name(label).map_err(|wrong| format!("has a label that {wrong}"))?;
    let mut key = BTreeMap::new();
    for (column, property) in end.get("key").and_then(Value::as_object).ok_or(FORM)? {
        let property = property.as_str().ok_or(FORM)?;
        check_name(property).map_err(|wrong| format!("has a property that {wrong}"))?;
        if key.values().any(|p| p == property) {
            return Err(format!("fills the property \"{property}\" twice"));
        }
        key.insert(column.clone(), property.to_owned());
    }
    if key.is_empty() { Err(FORM.to_owned()) } else { Ok((label.to_owned(), key)) }
}

/// Checks the option `kind`.
pub fn check_kind(value: &str) -> Result<(), String> {
    match value {
        "node" | "relationship" => Ok(()),
        _ => Err("must be node or relationship".to_owned()),
    }
}

/// Checks the options `from` and `to`, which are JSON texts.
pub fn check_endpoint(value: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(value).map_err(|_| "must be a JSON object")?;
    parse(&value).map(drop)
}

/// Checks the name of a label, a type or a property.
pub fn check_name(value: &str) -> Result<(), String> {
    if value.is_empty() {
        Err("must not be empty".to_owned())
    } else if value.contains('\0') {
        Err("must not contain the character U+0000".to_owned())
    } else if value == ENDPOINT {
        Err(format!("must not be {ENDPOINT}, which marks nodes that relationships have created"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use coco_core::change::Column;

    fn schema(columns: &[&str], key: &[usize], options: Value) -> TargetSchema {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            type_schema: "pg_catalog".to_owned(),
            type_name: "text".to_owned(),
        };
        TargetSchema {
            flow: "f".to_owned(),
            target: "Thing".to_owned(),
            columns: columns.iter().map(column).collect(),
            key: key.to_vec(),
            options: options.as_object().expect("an object").clone(),
        }
    }

    fn mentions() -> Value {
        json!({"kind": "relationship", "type": "MENTIONS",
               "from": {"label": "Document", "key": {"doc": "id"}},
               "to": {"label": "Entity", "key": {"entity": "name"}}})
    }

    #[test]
    fn a_target_is_nodes_labeled_as_it_is_named() {
        let m = Mapping::new(&schema(&["a", "id"], &[1], json!({}))).expect("fits");
        assert_eq!(m.element, GraphElement::Node { label: "Thing".to_owned() });
        assert_eq!(m.key, [Field { column: 1, property: "id".to_owned() }]);
        assert_eq!(m.others, [Field { column: 0, property: "a".to_owned() }]);
        assert!(!m.temporal && m.requires(1) && !m.requires(0));
    }

    #[test]
    fn columns_that_name_ends_are_no_properties_of_a_relationship() {
        let m =
            Mapping::new(&schema(&["id", "doc", "entity", "n"], &[0], mentions())).expect("fits");
        let others: Vec<_> = m.others.iter().map(|f| f.property.as_str()).collect();
        assert_eq!(others, ["n"]);
        assert!(m.requires(0) && m.requires(1) && m.requires(2) && !m.requires(3));
        let m = Mapping::new(&schema(&["doc", "entity"], &[0, 1], mentions())).expect("fits");
        assert_eq!(m.key.len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let wrong = |columns: &[&str], options: Value| {
            Mapping::new(&schema(columns, &[0], options)).expect_err("does not fit")
        };
        assert!(wrong(&["doc", "x"], mentions()).contains("\"entity\""));
        assert!(wrong(&["a"], json!({"kind": "relationship"})).contains("\"from\""));
        assert!(wrong(&["a"], json!({"kind": "edge"})).contains("kind"));
        assert!(wrong(&["a"], json!({"from": {}})).contains("\"from\""));
        assert!(wrong(&["a"], json!({"label": ""})).contains("empty"));
        assert!(wrong(&["a"], json!({"label": ENDPOINT})).contains(ENDPOINT));
        assert!(wrong(&["a\0"], json!({})).contains("U+0000"));
        for bad in [
            "1",
            "{",
            "{}",
            r#"{"label":"A"}"#,
            r#"{"label":"A","key":{}}"#,
            r#"{"label":"A","key":{"a":1}}"#,
            r#"{"label":"A","key":{"a":"x","b":"x"}}"#,
            r#"{"label":"A","key":{"a":"x"},"more":1}"#,
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }
}
