//! Digests of points: of those that coco sends, and of those that a collection holds.
//!
//! Qdrant computes no digests, so each pass scrolls through the collection. A digest covers the id,
//! the whole payload, and those vectors that Qdrant stores as it receives them.

use std::collections::{BTreeMap, HashMap};

use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::with_vectors_selector::SelectorOptions;
use qdrant_client::qdrant::{
    Distance, PointId, RetrievedPoint, ScrollPoints, Value, VectorOutput, VectorsSelector,
    WithVectorsSelector, vector_output,
};
use serde_json::value::RawValue;

use super::layout::Layout;
use super::{encode, vector};
use coco_core::change::{Change, TargetSchema, Values};
use coco_core::key_range::{ChangeDigests, Digest, HeldRow};

/// The largest number of parts in one comparison. The sums stay in this process, and more parts
/// need fewer passes.
pub const PARTS: usize = 65_536;

/// Number of points of one answer.
const PAGE: u32 = 256;

/// Maximum digits of a double that are compared. A server may return another double for the same
/// number, which differs in its last digits.
const COMPARED_DIGITS: usize = 12;

/// Vectors by their names.
type VectorsByName = BTreeMap<String, Vec<f32>>;

/// [`crate::targets::Verification::digests`]
pub fn digests(schema: &TargetSchema, change: &Change) -> Result<ChangeDigests, String> {
    let layout = Layout::of(schema)?;
    let json = || "rows for Qdrant must be JSON".to_owned();
    let key = change.key.json().ok_or_else(json)?;
    let id = layout.naming.point_id(schema, key).map_err(|e| e.message)?;
    let row = match change.row.as_ref().map(Values::json) {
        None => None,
        Some(row) => {
            let row = row.ok_or_else(json)?;
            let point = encode::point(schema, &layout, key, row).map_err(|e| e.message)?;
            let vectors = sent_vectors(schema, &layout, row)?;
            Some(point_digest(&id, &point.payload, &vectors))
        }
    };
    Ok(ChangeDigests { key: id_digest(&id), row })
}

/// Returns the vectors of a row whose values Qdrant does not change. With the distance cosine, it
/// stores vectors of length 1.
fn sent_vectors(
    schema: &TargetSchema,
    layout: &Layout,
    row: &str,
) -> Result<VectorsByName, String> {
    let fields: HashMap<String, &RawValue> =
        serde_json::from_str(row).map_err(|e| format!("the row is not a JSON object: {e}"))?;
    let mut vectors = VectorsByName::new();
    for (place, as_is) in &layout.vectors {
        let column = schema.columns.get(*place).map_or("", |column| column.name.as_str());
        if as_is.distance != Distance::Cosine
            && let Some(json) = fields.get(column)
            && let Some(components) =
                vector::parse(column, json.get(), as_is).map_err(|e| e.message)?
        {
            vectors.insert(as_is.name.clone(), components);
        }
    }
    Ok(vectors)
}

/// Returns the request for the points from `offset` on.
pub fn page(schema: &TargetSchema, layout: &Layout, offset: Option<PointId>) -> ScrollPoints {
    let compared: Vec<String> = layout
        .vectors
        .values()
        .filter(|vector| vector.distance != Distance::Cosine)
        .map(|vector| vector.name.clone())
        .collect();
    let is_unnamed = layout.vectors.values().any(|vector| vector.is_unnamed());
    let vectors = match compared.is_empty() || is_unnamed {
        true => SelectorOptions::Enable(!compared.is_empty()),
        false => SelectorOptions::Include(VectorsSelector { names: compared }),
    };
    ScrollPoints {
        collection_name: schema.target.clone(),
        offset,
        limit: Some(PAGE),
        with_payload: Some(true.into()),
        with_vectors: Some(WithVectorsSelector { selector_options: Some(vectors) }),
        ..ScrollPoints::default()
    }
}

/// Returns the digests and the key of a point. The key is `None` if the payload has no key columns:
/// such a point is not from coco.
pub fn held_row(
    schema: &TargetSchema,
    layout: &Layout,
    point: RetrievedPoint,
) -> Option<HeldPoint> {
    let RetrievedPoint { id, payload, vectors, .. } = point;
    let id = id?;
    let mut held = VectorsByName::new();
    let mut add = |name: String, vector: VectorOutput| {
        let is_compared = layout
            .vectors
            .values()
            .any(|wanted| wanted.name == name && wanted.distance != Distance::Cosine);
        if let (true, vector_output::Vector::Dense(dense)) = (is_compared, vector.into_vector()) {
            held.insert(name, dense.data);
        }
    };
    match vectors.and_then(|vectors| vectors.vectors_options) {
        Some(VectorsOptions::Vector(vector)) => add(String::new(), vector),
        Some(VectorsOptions::Vectors(named)) => {
            named.vectors.into_iter().for_each(|(name, vector)| add(name, vector));
        }
        None => {}
    }
    let row = point_digest(&id, &payload, &held);
    Some(HeldPoint { key: id_digest(&id), row, json: key_json(schema, &payload) })
}

/// A point of a collection.
pub struct HeldPoint {
    pub key: Digest,
    pub row: Digest,
    json: Option<String>,
}

impl HeldPoint {
    /// Returns the point as a row, if its key is known.
    pub fn into_row(self) -> Option<HeldRow> {
        let HeldPoint { key, row, json } = self;
        Some(HeldRow { key, row, json: json? })
    }
}

fn id_text(id: &PointId) -> String {
    match &id.point_id_options {
        Some(PointIdOptions::Num(number)) => number.to_string(),
        Some(PointIdOptions::Uuid(uuid)) => uuid.to_ascii_lowercase(),
        None => String::new(),
    }
}

fn id_digest(id: &PointId) -> Digest {
    Digest::of(&[id_text(id).as_bytes()])
}

fn point_digest(id: &PointId, payload: &HashMap<String, Value>, vectors: &VectorsByName) -> Digest {
    let mut bytes = Vec::new();
    write_text(&id_text(id), &mut bytes);
    write_fields(payload, &mut bytes);
    for (name, components) in vectors {
        write_text(name, &mut bytes);
        write_size(components.len(), &mut bytes);
        components.iter().for_each(|component| bytes.extend(component.to_be_bytes()));
    }
    Digest::of(&[&bytes])
}

fn write_size(size: usize, to: &mut Vec<u8>) {
    to.extend((size as u64).to_be_bytes());
}

fn write_text(text: &str, to: &mut Vec<u8>) {
    write_size(text.len(), to);
    to.extend(text.as_bytes());
}

/// Appends fields in the order of their names.
fn write_fields(fields: &HashMap<String, Value>, to: &mut Vec<u8>) {
    let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
    write_size(sorted.len(), to);
    for (name, value) in sorted {
        write_text(name, to);
        write_value(value, to);
    }
}

fn write_value(value: &Value, to: &mut Vec<u8>) {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => to.push(0),
        Some(Kind::BoolValue(value)) => to.extend([1, u8::from(*value)]),
        Some(Kind::IntegerValue(number)) => {
            to.push(2);
            write_text(&number.to_string(), to);
        }
        Some(Kind::DoubleValue(number)) => {
            to.push(2);
            write_text(&double_text(*number), to);
        }
        Some(Kind::StringValue(text)) => {
            to.push(3);
            write_text(text, to);
        }
        Some(Kind::ListValue(list)) => {
            to.push(4);
            write_size(list.values.len(), to);
            list.values.iter().for_each(|value| write_value(value, to));
        }
        Some(Kind::StructValue(nested)) => {
            to.push(5);
            write_fields(&nested.fields, to);
        }
    }
}

/// Returns the digits of a double that are compared. A double without a fraction has the text of an
/// integer: a server may return either.
fn double_text(number: f64) -> String {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    match number.fract() == 0.0 && number.abs() < LARGEST {
        true => (number as i64).to_string(),
        false => format!("{number:.*e}", COMPARED_DIGITS - 1),
    }
}

/// Returns the key columns as a JSON object.
fn key_json(schema: &TargetSchema, payload: &HashMap<String, Value>) -> Option<String> {
    let mut key = serde_json::Map::new();
    for column in schema.key_columns() {
        let value: serde_json::Value = match &payload.get(&column.name)?.kind {
            Some(Kind::BoolValue(value)) => (*value).into(),
            Some(Kind::IntegerValue(number)) => (*number).into(),
            Some(Kind::DoubleValue(number)) => (*number).into(),
            Some(Kind::StringValue(text)) => text.as_str().into(),
            _ => return None,
        };
        key.insert(column.name.clone(), value);
    }
    Some(serde_json::Value::Object(key).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coco_core::change::Column;
    use qdrant_client::qdrant::DenseVector;
    use serde_json::json;

    fn schema(distance: &str) -> TargetSchema {
        let column = |name: &str, type_name: &str| Column {
            name: name.to_owned(),
            type_schema: "pg_catalog".to_owned(),
            type_name: type_name.to_owned(),
        };
        let mut options = serde_json::Map::new();
        options.insert("vectors".to_owned(), json!({"e": {"size": 2, "distance": distance}}));
        TargetSchema {
            flow: "f".to_owned(),
            target: "docs".to_owned(),
            columns: vec![column("id", "integer"), column("n", "numeric"), column("e", "real[]")],
            key: vec![0],
            options,
        }
    }

    fn change(row: &str) -> Change {
        let row = Some(Values::Json(row.to_owned()));
        Change { key: Values::Json("{\"id\":7}".to_owned()), row, version: 1 }
    }

    fn held(n: Kind, vector: &[f32]) -> RetrievedPoint {
        let value = |kind| Value { kind: Some(kind) };
        let payload = [("id", Kind::IntegerValue(7)), ("n", n)];
        let dense = vector_output::Vector::Dense(DenseVector { data: vector.to_vec() });
        let vector = VectorOutput { vector: Some(dense), ..VectorOutput::default() };
        RetrievedPoint {
            id: Some(PointId::from(7)),
            payload: payload
                .into_iter()
                .map(|(name, kind)| (name.to_owned(), value(kind)))
                .collect(),
            vectors: Some(qdrant_client::qdrant::VectorsOutput {
                vectors_options: Some(VectorsOptions::Vector(vector)),
            }),
            ..RetrievedPoint::default()
        }
    }

    fn row_of(schema: &TargetSchema, point: RetrievedPoint) -> HeldRow {
        let layout = Layout::of(schema).expect("a layout");
        held_row(schema, &layout, point).and_then(HeldPoint::into_row).expect("a row")
    }

    #[test]
    fn a_point_that_is_held_as_it_was_sent_has_the_same_digest() {
        let schema = schema("dot");
        let sent = digests(&schema, &change(r#"{"id":7,"n":1.50,"e":[0.1,2]}"#)).expect("digests");
        let row = row_of(&schema, held(Kind::DoubleValue(1.5), &[0.1, 2.0]));
        assert_eq!((Some(row.row), row.key), (sent.row, sent.key));
        assert_eq!(row.json, r#"{"id":7}"#);
        let next = f64::from_bits(1.5f64.to_bits() + 1);
        let row = row_of(&schema, held(Kind::DoubleValue(next), &[0.1, 2.0]));
        assert_eq!(Some(row.row), sent.row);
        for other in [
            held(Kind::DoubleValue(1.51), &[0.1, 2.0]),
            held(Kind::StringValue("1.5".to_owned()), &[0.1, 2.0]),
            held(Kind::DoubleValue(1.5), &[0.1, 2.5]),
        ] {
            assert_ne!(Some(row_of(&schema, other).row), sent.row);
        }
    }

    #[test]
    fn vectors_that_qdrant_changes_are_not_compared() {
        let schema = schema("cosine");
        let sent = digests(&schema, &change(r#"{"id":7,"n":2.0,"e":[3,4]}"#)).expect("digests");
        let row = row_of(&schema, held(Kind::IntegerValue(2), &[0.6, 0.8]));
        assert_eq!(Some(row.row), sent.row);
        let layout = Layout::of(&schema).expect("a layout");
        let vectors = page(&schema, &layout, None).with_vectors.and_then(|v| v.selector_options);
        assert_eq!(vectors, Some(SelectorOptions::Enable(false)));
    }

    #[test]
    fn a_point_without_a_key_has_no_name() {
        let schema = schema("dot");
        let layout = Layout::of(&schema).expect("a layout");
        let mut point = held(Kind::IntegerValue(1), &[1.0, 2.0]);
        point.payload.remove("id");
        assert!(held_row(&schema, &layout, point).expect("a point").into_row().is_none());
    }
}
