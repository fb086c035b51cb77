//! Digests that a receiver stores with each row, and returns on request.
//!
//! A receiver stores rows in a form of its own, so it cannot compute digests of what coco has sent.
//! If the server's option `digests` is true, each change contains the digests of its key and row. A
//! receiver that stores them can say later which changes it has.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use coco_core::change::{Change, DeliveryError, TargetSchema, Values};
use coco_core::key_range::{
    ChangeDigests, Digest, HeldRow, KeyRange, PartDigests, RangeDigest, RangeSet,
};

/// The option of a server whose receiver stores digests.
pub const OPTION: &str = "digests";

/// The largest number of parts in one comparison: an answer of less than half a megabyte.
pub const PARTS: usize = 4096;

/// Maximum bytes of an answer with digests or rows.
pub const LONGEST_ANSWER: usize = 16 << 20;

/// [`crate::targets::Verification::digests`]
pub fn digests(_schema: &TargetSchema, change: &Change) -> Result<ChangeDigests, String> {
    let json = || "rows for a webhook must be JSON".to_owned();
    let key = change.key.json().ok_or_else(json)?.as_bytes();
    let row = match change.row.as_ref().map(Values::json) {
        None => None,
        Some(row) => {
            let row = row.ok_or_else(json)?.as_bytes();
            Some(Digest::of(&[&(key.len() as u64).to_be_bytes(), key, row]))
        }
    };
    Ok(ChangeDigests { key: Digest::of(&[key]), row })
}

/// Returns a digest as 32 hexadecimal digits.
pub fn hex(digest: Digest) -> String {
    format!("{:032x}", digest.0)
}

/// A request for digests or rows.
#[derive(Serialize)]
struct Query<'a> {
    flow: &'a str,
    target: &'a str,
    query: &'static str,
    prefixes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

/// Returns the body of a request for the digests of parts.
pub fn parts_query(
    schema: &TargetSchema,
    ranges: &[KeyRange],
    digits: u32,
) -> Result<String, DeliveryError> {
    query(Query { digits: Some(digits), ..of_ranges(schema, "digests", ranges) })
}

/// Returns the body of a request for at most this many rows.
pub fn rows_query(
    schema: &TargetSchema,
    ranges: &[KeyRange],
    limit: usize,
) -> Result<String, DeliveryError> {
    query(Query { limit: Some(limit), ..of_ranges(schema, "rows", ranges) })
}

fn of_ranges<'a>(schema: &'a TargetSchema, query: &'static str, ranges: &[KeyRange]) -> Query<'a> {
    let prefixes = ranges.iter().map(KeyRange::prefix).collect();
    let (flow, target) = (schema.flow.as_str(), schema.target.as_str());
    Query { flow, target, query, prefixes, digits: None, limit: None }
}

fn query(query: Query<'_>) -> Result<String, DeliveryError> {
    serde_json::to_string(&query)
        .map_err(|e| DeliveryError::target("XX000", "a request is not JSON").detail(e.to_string()))
}

#[derive(Deserialize)]
struct Parts {
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    prefix: String,
    rows: u64,
    high: String,
    low: String,
}

#[derive(Deserialize)]
struct Rows {
    rows: Vec<StoredRow>,
}

#[derive(Deserialize)]
struct StoredRow {
    key: Box<RawValue>,
    key_digest: String,
    row_digest: String,
}

/// Reads the answer to [`parts_query`].
pub fn read_parts(
    body: &[u8],
    ranges: &[KeyRange],
    digits: u32,
) -> Result<PartDigests, DeliveryError> {
    let answer: Parts = serde_json::from_slice(body).map_err(malformed)?;
    let ranges = RangeSet::new(ranges);
    let sum = |hex: &str| u64::from_str_radix(hex, 16).map_err(malformed);
    let mut parts = PartDigests::new();
    for Part { prefix, rows, high, low } in answer.parts {
        let range = KeyRange::from_prefix(&prefix).filter(|range| range.digits() == digits);
        let range = range.ok_or_else(|| malformed(format!("prefix {prefix:?}")))?;
        let digest = RangeDigest { rows, high: sum(&high)?, low: sum(&low)? };
        if rows > 0 && ranges.contains(range.first_key()) {
            parts.insert(range, digest);
        }
    }
    Ok(parts)
}

/// Reads the answer to [`rows_query`].
pub fn read_rows(body: &[u8], ranges: &[KeyRange]) -> Result<Vec<HeldRow>, DeliveryError> {
    let answer: Rows = serde_json::from_slice(body).map_err(malformed)?;
    let ranges = RangeSet::new(ranges);
    let digest = |hex: &str| Digest::from_hex(hex).ok_or_else(|| malformed("a digest"));
    let mut rows = Vec::new();
    for StoredRow { key, key_digest, row_digest } in answer.rows {
        let held = HeldRow {
            key: digest(&key_digest)?,
            row: digest(&row_digest)?,
            json: key.get().to_owned(),
        };
        if ranges.contains(held.key) {
            rows.push(held);
        }
    }
    Ok(rows)
}

fn malformed(why: impl ToString) -> DeliveryError {
    DeliveryError::target("08P01", "the webhook did not answer a request for digests")
        .detail(why.to_string())
        .hint("Set the server's option digests only if the receiver answers such requests.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(prefixes: &[&str]) -> Vec<KeyRange> {
        prefixes.iter().map(|p| KeyRange::from_prefix(p).expect("a range")).collect()
    }

    fn schema() -> TargetSchema {
        TargetSchema {
            flow: "f".to_owned(),
            target: "t".to_owned(),
            columns: vec![],
            key: vec![],
            options: serde_json::Map::new(),
        }
    }

    #[test]
    fn requests_name_prefixes() {
        assert_eq!(
            parts_query(&schema(), &ranges(&["0a", "ff"]), 3).expect("JSON"),
            r#"{"flow":"f","target":"t","query":"digests","prefixes":["0a","ff"],"digits":3}"#
        );
        assert_eq!(
            rows_query(&schema(), &ranges(&["0a"]), 7).expect("JSON"),
            r#"{"flow":"f","target":"t","query":"rows","prefixes":["0a"],"limit":7}"#
        );
    }

    #[test]
    fn answers_are_read() {
        let body = br#"{"parts":[{"prefix":"0a1","rows":2,"high":"ffffffffffffffff","low":"10"},
                                 {"prefix":"0b1","rows":1,"high":"1","low":"2"}]}"#;
        let parts = read_parts(body, &ranges(&["0a"]), 3).expect("parts");
        let digest = RangeDigest { rows: 2, high: u64::MAX, low: 16 };
        assert_eq!(parts, PartDigests::from([(ranges(&["0a1"])[0], digest)]));
        let (key, row) = ("0".repeat(32), "1".repeat(32));
        let body = format!(
            r#"{{"rows":[{{"key":{{"id":1}},"key_digest":"{key}","row_digest":"{row}"}}]}}"#
        );
        let rows = read_rows(body.as_bytes(), &ranges(&["0"])).expect("rows");
        assert_eq!((rows.len(), rows[0].json.as_str()), (1, r#"{"id":1}"#));
        assert_eq!(read_rows(body.as_bytes(), &ranges(&["1"])).expect("rows"), []);
    }

    #[test]
    fn other_answers_are_errors() {
        let all = [KeyRange::ALL];
        for body in ["", "{}", r#"{"refused":[]}"#, r#"{"parts":[{"prefix":"x"}]}"#] {
            assert_eq!(read_parts(body.as_bytes(), &all, 1).expect_err(body).sqlstate, "08P01");
            assert_eq!(read_rows(body.as_bytes(), &all).expect_err(body).sqlstate, "08P01");
        }
        let longer = br#"{"parts":[{"prefix":"0a","rows":1,"high":"1","low":"1"}]}"#;
        assert!(read_parts(longer, &all, 1).is_err());
    }
}
