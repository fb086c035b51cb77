//! Encodes a row as a point: an id, vectors, and all other columns as payload.

use std::collections::HashMap;

use qdrant_client::qdrant::{NamedVectors, PointStruct, Vector, Vectors};
use serde_json::value::RawValue;

use super::error::RowError;
use super::layout::Layout;
use super::{payload, vector};
use coco_core::change::TargetSchema;

/// Returns the point of a row. `key` and `row` are JSON objects from column names to values.
pub fn point(
    schema: &TargetSchema,
    layout: &Layout,
    key: &str,
    row: &str,
) -> Result<PointStruct, RowError> {
    let id = layout.naming.point_id(schema, key)?;
    let fields: HashMap<String, &RawValue> = serde_json::from_str(row)
        .map_err(|e| RowError::new("22030", format!("the row is not a JSON object: {e}")))?;
    let mut unnamed = None;
    let mut named = HashMap::new();
    let mut rest = HashMap::with_capacity(schema.columns.len());
    for (place, column) in schema.columns.iter().enumerate() {
        let name = &column.name;
        let json = fields
            .get(name)
            .ok_or_else(|| RowError::new("22030", format!("the row has no column \"{name}\"")))?;
        let Some(as_is) = layout.vectors.get(&place) else {
            rest.insert(name.clone(), payload::value(name, json)?);
            continue;
        };
        let Some(components) = vector::parse(name, json.get(), as_is)? else { continue };
        match as_is.is_unnamed() {
            true => unnamed = Some(Vector::from(components)),
            false => drop(named.insert(as_is.name.clone(), Vector::from(components))),
        }
    }
    let vectors = match unnamed {
        Some(vector) => Vectors::from(vector),
        // Also sent without any vector, so that earlier vectors of the point are removed.
        None => Vectors::from(NamedVectors { vectors: named }),
    };
    Ok(PointStruct { id: Some(id), payload: rest, vectors: Some(vectors) })
}
