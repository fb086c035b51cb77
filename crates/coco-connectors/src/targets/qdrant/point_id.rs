//! Computes the id of a row's point. The id of a key is the same in every collection, and never
//! changes.

use std::collections::HashMap;

use qdrant_client::qdrant::PointId;
use serde_json::value::RawValue;
use uuid::{Uuid, uuid};

use super::error::RowError;
use coco_core::change::TargetSchema;

/// The namespace of the UUIDs (RFC 9562, version 5) that are derived from keys. It must never
/// change.
const NAMESPACE: Uuid = uuid!("aede6d9d-0fd9-4091-b8e4-e949801c3db2");

/// The way in which a point's id is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The key is one UUID column. Its values are the ids.
    Uuid,
    /// The key is one integer column. Values from 0 are the ids; others are [`Naming::Derived`].
    Integer,
    /// A version 5 UUID of the key as a JSON array: the values in the order of the key, as
    /// `row_to_json` writes them, without spaces between them.
    ///
    /// The text is not normalized, so two keys share a point only if coco treats them as equal.
    Derived,
}

impl Naming {
    /// Returns the naming for the types of the key columns.
    pub fn of(schema: &TargetSchema) -> Naming {
        let mut columns = schema.key_columns();
        match (columns.next(), columns.next()) {
            (Some(only), None) if only.type_schema == "pg_catalog" => {
                match only.type_name.as_str() {
                    "uuid" => Naming::Uuid,
                    "smallint" | "integer" | "bigint" => Naming::Integer,
                    _ => Naming::Derived,
                }
            }
            _ => Naming::Derived,
        }
    }

    /// Returns the id of a row's point. `key` is a JSON object of the key columns.
    pub fn point_id(self, schema: &TargetSchema, key: &str) -> Result<PointId, RowError> {
        let fields: HashMap<String, &RawValue> = serde_json::from_str(key)
            .map_err(|e| RowError::new("22030", format!("the key is not a JSON object: {e}")))?;
        let mut values = Vec::with_capacity(schema.key.len());
        for column in schema.key_columns() {
            let value = fields.get(&column.name).ok_or_else(|| {
                RowError::new("22030", format!("the key has no column \"{}\"", column.name))
            })?;
            values.push(value.get());
        }
        match (self, values.as_slice()) {
            (Naming::Uuid, [quoted]) => {
                let parsed = Uuid::try_parse(quoted.trim_matches('"'));
                let uuid = parsed.map_err(|_| RowError::new("22P02", "the key is not a UUID"))?;
                return Ok(PointId::from(uuid.to_string()));
            }
            (Naming::Integer, [digits]) => {
                if let Ok(number) = digits.parse::<u64>() {
                    return Ok(PointId::from(number));
                }
            }
            _ => {}
        }
        let key = format!("[{}]", values.join(","));
        Ok(PointId::from(Uuid::new_v5(&NAMESPACE, key.as_bytes()).to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coco_core::change::Column;

    fn schema(key: &[(&str, &str)]) -> TargetSchema {
        let columns = key.iter().map(|(name, type_name)| Column {
            name: (*name).to_owned(),
            type_schema: "pg_catalog".to_owned(),
            type_name: (*type_name).to_owned(),
        });
        TargetSchema {
            flow: "f".to_owned(),
            target: "t".to_owned(),
            columns: columns.collect(),
            key: (0..key.len()).collect(),
            options: serde_json::Map::new(),
        }
    }

    fn id(key: &[(&str, &str)], json: &str) -> PointId {
        let schema = schema(key);
        Naming::of(&schema).point_id(&schema, json).expect("an id")
    }

    #[test]
    fn uuids_and_integers_from_0_are_ids_as_they_are() {
        let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        assert_eq!(id(&[("u", "uuid")], &format!(r#"{{"u":"{uuid}"}}"#)), PointId::from(uuid));
        assert_eq!(id(&[("n", "bigint")], r#"{"n":0}"#), PointId::from(0));
        let largest = i64::MAX.unsigned_abs();
        assert_eq!(id(&[("n", "bigint")], &format!(r#"{{"n":{largest}}}"#)), largest.into());
    }

    /// The expected ids are Python's:
    /// `uuid.uuid5(uuid.UUID("aede6d9d-0fd9-4091-b8e4-e949801c3db2"), '["Köln",7]')`
    #[test]
    fn other_keys_have_a_uuid_that_does_not_change() {
        let two = [("city", "text"), ("n", "integer")];
        let cologne = PointId::from("31248dba-72ed-5f68-b230-2b4af1030467");
        assert_eq!(id(&two, r#"{"city":"Köln","n":7}"#), cologne);
        // The order is that of the key, and names have no influence.
        assert_eq!(id(&two, r#"{"n":7,"city":"Köln"}"#), cologne);
        assert_eq!(id(&[("a", "text"), ("b", "integer")], r#"{"a":"Köln","b":7}"#), cologne);
        assert_eq!(
            id(&[("n", "bigint")], r#"{"n":-1}"#),
            PointId::from("44b92b87-7c89-5bda-87b8-9fec7f7012c5")
        );
        // No two keys have the same text.
        assert_ne!(
            id(&[("a", "text"), ("b", "text")], r#"{"a":"x\",\"y","b":"z"}"#),
            id(&[("a", "text"), ("b", "text")], r#"{"a":"x","b":"y\",\"z"}"#)
        );
    }

    #[test]
    fn a_key_that_is_none_is_the_rows_fault() {
        let schema = schema(&[("u", "uuid")]);
        for key in [r#"{"u":null}"#, r#"{"v":"x"}"#, "no json"] {
            assert!(Naming::of(&schema).point_id(&schema, key).is_err(), "{key}");
        }
    }
}
