//! Encodes changes as records.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use coco_core::change::{Change, TargetSchema, Values};

/// The header with the flow of a record.
pub const FLOW: &str = "coco.flow";
/// The header with the process ordinal, a whole number in decimal digits. Of two records of a row,
/// the one with the larger ordinal is newer.
pub const PROCESS_ORDINAL: &str = "coco.process_ordinal";

/// A record with the index of its change, to identify it in delivery reports.
pub type Record<'a> = BaseRecord<'a, str, str, usize>;

/// Returns the record of a change. Its texts are sent unchanged: the same key always has the same
/// text, on which partitioning and compaction depend. Returns `None` unless the values are JSON.
pub fn record<'a>(
    schema: &'a TargetSchema,
    change: &'a Change,
    place: usize,
) -> Option<Record<'a>> {
    let ordinal = change.version.to_string();
    let headers = OwnedHeaders::new_with_capacity(2)
        .insert(Header { key: FLOW, value: Some(schema.flow.as_str()) })
        .insert(Header { key: PROCESS_ORDINAL, value: Some(ordinal.as_str()) });
    let record =
        BaseRecord::with_opaque_to(&schema.target, place).key(change.key.json()?).headers(headers);
    match change.row.as_ref().map(Values::json) {
        Some(value) => Some(record.payload(value?)),
        None => Some(record),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::Headers;
    use serde_json::Map;

    #[test]
    fn texts_are_sent_as_they_come() {
        let (flow, target) = ("the \"flow\"".to_owned(), "t".to_owned());
        let schema = TargetSchema {
            flow,
            target,
            columns: Vec::new(),
            key: Vec::new(),
            options: Map::new(),
        };
        let key = Values::Json("{\"id\" : 1.0}".to_owned());
        let row = Some(Values::Json("{\"id\" : 1.0,  \"a\":null}".to_owned()));
        let mut change = Change { key, row, version: i64::MAX };

        let made = record(&schema, &change, 7).unwrap_or_else(|| panic!("no record"));
        assert_eq!((made.topic, made.delivery_opaque), ("t", 7));
        assert_eq!(
            (made.key, made.payload),
            (change.key.json(), Some("{\"id\" : 1.0,  \"a\":null}"))
        );
        let headers = made.headers.unwrap_or_default();
        let header = |at| headers.try_get_as::<str>(at).and_then(Result::ok).and_then(|h| h.value);
        assert_eq!(header(0), Some("the \"flow\""));
        assert_eq!(header(1), Some("9223372036854775807"));

        change.row = None;
        assert!(record(&schema, &change, 0).is_some_and(|r| r.payload.is_none()));
        change.key = Values::Binary(Vec::new());
        assert!(record(&schema, &change, 0).is_none());
    }
}
