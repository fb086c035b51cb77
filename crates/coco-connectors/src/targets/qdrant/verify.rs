//! Digests of points: of those that coco sends, and of those that a collection holds.
//!
//! Qdrant computes no digests, so each pass scrolls through the collection. A digest covers the id,
//! the whole payload, and the vectors. With the distance cosine, Qdrant stores vectors with length 1,
//! rounded to 32 bits. A number stands for such vectors, which differs little if they differ little.

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

/// The unit of [`projection`]: 2^-40.
const UNITS: f64 = 1_099_511_627_776.0;

/// How much the projections of a point's vectors may differ: 1e-6.
///
/// Rounding moves each component by at most 2^-24 of its value, and the weights of the components in
/// a projection are random. The error of a projection therefore has a standard deviation of less than
/// 1e-7 for each vector.
pub const TOLERANCE: u64 = 1_099_512;

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
            Some(point_digest(&layout, &id, &point.payload, &vectors))
        }
    };
    Ok(ChangeDigests { key: id_digest(&id), row })
}

/// Returns the vectors of a row.
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
        if let Some(json) = fields.get(column)
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
    let is_unnamed = layout.vectors.values().any(|vector| vector.is_unnamed());
    let vectors = match is_unnamed {
        true => SelectorOptions::Enable(true),
        false => SelectorOptions::Include(VectorsSelector {
            names: layout.vectors.values().map(|vector| vector.name.clone()).collect(),
        }),
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
        let is_compared = layout.vectors.values().any(|wanted| wanted.name == name);
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
    let row = point_digest(layout, &id, &payload, &held);
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

fn point_digest(
    layout: &Layout,
    id: &PointId,
    payload: &HashMap<String, Value>,
    vectors: &VectorsByName,
) -> Digest {
    let is_normalized = |name: &str| {
        layout.vectors.values().any(|v| v.name == name && v.distance == Distance::Cosine)
    };
    let id = id_text(id);
    let mut bytes = Vec::new();
    let mut projected: Option<i64> = None;
    write_text(&id, &mut bytes);
    write_fields(payload, &mut bytes);
    for (name, components) in vectors {
        write_text(name, &mut bytes);
        write_size(components.len(), &mut bytes);
        match is_normalized(name) {
            true => {
                let more = projection(&id, name, components);
                projected = Some(projected.unwrap_or(0).wrapping_add(more));
            }
            false => {
                components.iter().for_each(|component| bytes.extend(component.to_be_bytes()));
            }
        }
    }
    let digest = Digest::of(&[&bytes]);
    match projected {
        Some(projected) => Digest::from_halves(digest.halves().0, projected),
        None => digest,
    }
}

/// Returns the sum of the components of a vector after it is given length 1, each with a weight that
/// depends on the point, the vector and the place. If two vectors have the same direction, except for
/// rounding, the sums are almost equal; otherwise, they are so only by chance.
fn projection(id: &str, name: &str, components: &[f32]) -> i64 {
    let square = |component: &f32| f64::from(*component) * f64::from(*component);
    let length: f64 = components.iter().map(square).sum();
    // Qdrant computes the length with 32 bits. A larger one makes it store zeros.
    if length == 0.0 || length > f64::from(f32::MAX) {
        return 0;
    }
    let length = length.sqrt();
    let mut state = Digest::of(&[id.as_bytes(), b"\0", name.as_bytes()]).halves().0 as u64;
    let weighted = |component: &f32| next_weight(&mut state) * f64::from(*component) / length;
    let sum: f64 = components.iter().map(weighted).sum();
    (sum * UNITS).round() as i64
}

/// Returns a number from -1 to 1 that looks random (SplitMix64).
fn next_weight(state: &mut u64) -> f64 {
    const HALF: f64 = 9_007_199_254_740_992.0 / 2.0;
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / HALF - 1.0
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
    fn vectors_that_qdrant_gives_length_1_are_compared_by_direction() {
        let schema = schema("cosine");
        let sent = digests(&schema, &change(r#"{"id":7,"n":2.0,"e":[3,4]}"#)).expect("digests");
        let sent = sent.row.expect("a row");
        let there = |vector: &[f32]| row_of(&schema, held(Kind::IntegerValue(2), vector)).row;
        let next = |component: f32| f32::from_bits(component.to_bits() + 1);
        for same in [[0.6f32, 0.8f32], [next(0.6), 0.8], [0.6, next(0.8)], [3.0, 4.0]] {
            assert!(there(&same).is_within(sent, TOLERANCE), "{same:?}");
        }
        for other in [[0.8f32, 0.6f32], [-0.6, 0.8], [0.601, 0.799_25], [0.0, 0.0]] {
            assert!(!there(&other).is_within(sent, TOLERANCE), "{other:?}");
        }
        let payload = row_of(&schema, held(Kind::IntegerValue(3), &[0.6, 0.8])).row;
        assert!(!payload.is_within(sent, TOLERANCE));
        let none = Change {
            row: Some(Values::Json(r#"{"id":7,"n":2.0,"e":[0,0]}"#.to_owned())),
            ..change("{}")
        };
        let zero = digests(&schema, &none).expect("digests").row.expect("a row");
        assert!(there(&[0.0, 0.0]).is_within(zero, TOLERANCE));
        let layout = Layout::of(&schema).expect("a layout");
        let vectors = page(&schema, &layout, None).with_vectors.and_then(|v| v.selector_options);
        assert_eq!(vectors, Some(SelectorOptions::Enable(true)));
    }

    #[test]
    fn rounding_a_vector_changes_its_projection_little() {
        for size in [2usize, 384, 1536, 4096] {
            let vector: Vec<f32> =
                (0..size).map(|n| ((n * 7919 + 13) % 1009) as f32 / 97.0 - 5.0).collect();
            // As Qdrant does it: in 32 bits.
            let length = vector.iter().map(|c| c * c).sum::<f32>().sqrt();
            let stored: Vec<f32> = vector.iter().map(|c| c / length).collect();
            let difference = projection("7", "e", &vector) - projection("7", "e", &stored);
            assert!(difference.unsigned_abs() < TOLERANCE / 4, "{size}: {difference}");
            let other = projection("8", "e", &vector) - projection("7", "e", &vector);
            assert!(size == 2 || other.unsigned_abs() > TOLERANCE * 100, "{size}: {other}");
        }
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
