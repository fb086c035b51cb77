//! Encodes changes as the body of a request, with an idempotency key.

use serde::Serialize;
use serde_json::value::RawValue;

use super::verify;
use coco_core::change::{Change, DeliveryError, TargetSchema, Values};
use coco_core::fingerprint::Hasher;

/// The body of a request, and a key that is equal for equal changes.
pub struct Request {
    /// 32 hexadecimal digits.
    pub idempotency_key: String,
    pub body: String,
}

#[derive(Serialize)]
struct Body<'a> {
    flow: &'a str,
    target: &'a str,
    batch: &'a str,
    changes: Vec<Entry<'a>>,
}

/// Keys and rows stay unchanged text: parsing and rewriting a number could lose digits.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Entry<'a> {
    Upsert {
        key: &'a RawValue,
        row: &'a RawValue,
        version: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        key_digest: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        row_digest: Option<String>,
    },
    Delete {
        key: &'a RawValue,
        version: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        key_digest: Option<String>,
    },
}

/// Whether the changes of a request contain their digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentDigests {
    Included,
    Omitted,
}

pub fn request(
    schema: &TargetSchema,
    changes: &[Change],
    digests: SentDigests,
) -> Result<Request, DeliveryError> {
    let idempotency_key = idempotency_key(schema, changes)?;
    let entries: Result<Vec<_>, DeliveryError> =
        changes.iter().map(|change| entry(schema, change, digests)).collect();
    let body = Body {
        flow: &schema.flow,
        target: &schema.target,
        batch: &idempotency_key,
        changes: entries?,
    };
    let body = serde_json::to_string(&body).map_err(not_json)?;
    Ok(Request { idempotency_key, body })
}

fn entry<'a>(
    schema: &TargetSchema,
    change: &'a Change,
    digests: SentDigests,
) -> Result<Entry<'a>, DeliveryError> {
    let (key, version) = (raw(&change.key)?, change.version);
    let made = match digests {
        SentDigests::Omitted => None,
        SentDigests::Included => {
            let made = verify::digests(schema, change);
            Some(made.map_err(|why| DeliveryError::target("XX000", why))?)
        }
    };
    let key_digest = made.map(|digests| verify::hex(digests.key));
    Ok(match &change.row {
        Some(row) => {
            let row_digest = made.and_then(|digests| digests.row).map(verify::hex);
            Entry::Upsert { key, row: raw(row)?, version, key_digest, row_digest }
        }
        None => Entry::Delete { key, version, key_digest },
    })
}

/// Returns the key of a request. It covers the versions: if a row returns to an earlier value, that
/// is another change to the receiver, not the first one repeated.
fn idempotency_key(schema: &TargetSchema, changes: &[Change]) -> Result<String, DeliveryError> {
    let mut hasher = Hasher::new();
    hasher.part(schema.flow.as_bytes()).part(schema.target.as_bytes());
    for change in changes {
        hasher.part(text(&change.key)?.as_bytes());
        match &change.row {
            Some(row) => hasher.part(text(row)?.as_bytes()),
            None => hasher.null(),
        };
        hasher.part(&change.version.to_le_bytes());
    }
    Ok(hasher.finish().0.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn raw(values: &Values) -> Result<&RawValue, DeliveryError> {
    serde_json::from_str(text(values)?).map_err(not_json)
}

fn text(values: &Values) -> Result<&str, DeliveryError> {
    values.json().ok_or_else(|| DeliveryError::target("XX000", "a row is not encoded as JSON"))
}

/// Returns an error that does not occur, because Postgres has written the JSON.
fn not_json(error: serde_json::Error) -> DeliveryError {
    DeliveryError::target("XX000", "a row is not JSON").detail(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::SentDigests::{Included, Omitted};
    use super::*;

    fn schema(flow: &str) -> TargetSchema {
        TargetSchema {
            flow: flow.to_owned(),
            target: "t".to_owned(),
            columns: vec![],
            key: vec![],
            options: serde_json::Map::new(),
        }
    }

    fn change(key: &str, row: Option<&str>, version: i64) -> Change {
        let json = |text: &str| Values::Json(text.to_owned());
        Change { key: json(key), row: row.map(json), version }
    }

    #[test]
    fn rows_are_written_as_they_are() {
        let row = r#"{"id":1,"n":0.10000000000000000000000001, "s":"a\u0000\"é"}"#;
        let changes = [change(r#"{"id":1}"#, Some(row), 7), change(r#"{"id":2}"#, None, 8)];
        let Request { body, idempotency_key } =
            request(&schema("a\"b"), &changes, Omitted).expect("JSON");
        let expected = format!(
            r#"{{"flow":"a\"b","target":"t","batch":"{idempotency_key}","changes":[{{"op":"upsert","key":{{"id":1}},"row":{row},"version":7}},{{"op":"delete","key":{{"id":2}},"version":8}}]}}"#
        );
        assert_eq!(body, expected);
    }

    #[test]
    fn the_same_changes_and_no_others_have_the_same_key() {
        let key = |flow: &str, changes: &[Change]| {
            request(&schema(flow), changes, Omitted).expect("JSON").idempotency_key
        };
        let one = change("1", Some("2"), 7);
        let first = key("f", std::slice::from_ref(&one));
        assert_eq!((first.len(), &first), (32, &key("f", &[change("1", Some("2"), 7)])));
        for (flow, changes) in [
            ("g", vec![one.clone()]),
            ("f", vec![change("1", Some("2"), 8)]),
            ("f", vec![change("1", None, 7)]),
            ("f", vec![change("1", Some("3"), 7)]),
            ("f", vec![one.clone(), one]),
            ("f", vec![]),
        ] {
            assert_ne!(first, key(flow, &changes));
        }
    }

    #[test]
    fn digests_are_sent_if_they_are_wanted() {
        let changes = [change(r#"{"id":1}"#, Some(r#"{"id":1}"#), 7), change("2", None, 8)];
        let made = changes.clone().map(|c| verify::digests(&schema("f"), &c).expect("digests"));
        let Request { body, .. } = request(&schema("f"), &changes, Included).expect("JSON");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let [first, second] = &body["changes"].as_array().expect("changes")[..] else {
            panic!("{body}");
        };
        assert_eq!(first["key_digest"], verify::hex(made[0].key));
        assert_eq!(first["row_digest"], verify::hex(made[0].row.expect("a row")));
        assert_eq!(second["key_digest"], verify::hex(made[1].key));
        assert_eq!(second.get("row_digest"), None);
    }

    #[test]
    fn what_is_no_json_is_not_sent() {
        assert!(request(&schema("f"), &[change("{", None, 1)], Omitted).is_err());
        let binary = Change { key: Values::Binary(vec![]), row: None, version: 1 };
        assert!(request(&schema("f"), &[binary], Omitted).is_err());
    }
}
