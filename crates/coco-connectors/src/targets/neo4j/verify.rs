//! Digests of nodes and relationships: of those that coco sends, and of those that a database
//! holds.
//!
//! Cypher has no function for digests without plugins, so each pass reads all rows of the target. A
//! digest covers the values as Bolt transfers them, in both directions.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveTime, TimeDelta};
use serde_json::Number;

use super::bolt::Value;
use super::cypher::{all_relationships, quote};
use super::encode;
use super::mapping::{ENDPOINT, Endpoint, GraphElement, Mapping};
use coco_core::change::{Change, TargetSchema};
use coco_core::key_range::{ChangeDigests, Digest, HeldRow};

/// The largest number of parts in one comparison. The sums stay in this process, and more parts
/// need fewer passes.
pub const PARTS: usize = 65_536;

/// [`crate::targets::Verification::digests`]
pub fn digests(schema: &TargetSchema, change: &Change) -> Result<ChangeDigests, String> {
    let mapping = Mapping::new(schema)?;
    let key = encode::key(schema, &mapping, &change.key).map_err(|e| e.message)?;
    let row = match &change.row {
        Some(row) => Some(encode::row(schema, &mapping, row).map_err(|e| e.message)?),
        None => None,
    };
    Ok(ChangeDigests { key: key_digest(&key), row: row.map(|row| row_digest(&key, &row)) })
}

/// Returns a statement that reads all rows of the target: `key` has the values of the key columns in
/// the key's order, `row` the values of all columns.
pub fn read_all(schema: &TargetSchema, mapping: &Mapping) -> String {
    let (matched, owner) = match &mapping.element {
        GraphElement::Node { label } => {
            (format!("MATCH (n:{}) WHERE NOT n:{}", quote(label), quote(ENDPOINT)), "n")
        }
        GraphElement::Relationship { .. } => (all_relationships(mapping), "r"),
    };
    let property = |owner: &str, name: &str| format!("{owner}.{}", quote(name));
    let key: Vec<String> = mapping.key.iter().map(|f| property(owner, &f.property)).collect();
    let of_end = |end: &Endpoint, node: &str, column: usize| {
        let field = end.key.iter().find(|field| field.column == column)?;
        Some(property(node, &field.property))
    };
    let row = schema.columns.iter().enumerate().map(|(place, column)| {
        let of_ends = match &mapping.element {
            GraphElement::Node { .. } => None,
            GraphElement::Relationship { from, to, .. } => {
                of_end(from, "x", place).or_else(|| of_end(to, "y", place))
            }
        };
        of_ends.unwrap_or_else(|| property(owner, &column.name))
    });
    let row: Vec<String> = row.collect();
    format!("{matched}\nRETURN [{}] AS key, [{}] AS row", key.join(", "), row.join(", "))
}

/// Returns the digests of a record of [`read_all`]; `None` if its key has a null. Such an element is
/// not from coco.
pub fn held_digests(record: &[Value]) -> Option<ChangeDigests> {
    let [key @ Value::List(values), row @ Value::List(_)] = record else { return None };
    if values.contains(&Value::Null) {
        return None;
    }
    Some(ChangeDigests { key: key_digest(key), row: Some(row_digest(key, row)) })
}

/// Returns a record of [`read_all`] as a row; `None` if a column cannot have its key's value.
pub fn held_row(
    schema: &TargetSchema,
    record: &[Value],
    digests: ChangeDigests,
) -> Option<HeldRow> {
    let Some(Value::List(values)) = record.first() else { return None };
    let mut json = serde_json::Map::new();
    for (column, value) in schema.key_columns().zip(values) {
        json.insert(column.name.clone(), key_json(value)?);
    }
    let json = serde_json::Value::Object(json).to_string();
    Some(HeldRow { key: digests.key, row: digests.row?, json })
}

fn key_digest(key: &Value) -> Digest {
    let mut bytes = Vec::new();
    key.write(&mut bytes);
    Digest::of(&[&bytes])
}

fn row_digest(key: &Value, row: &Value) -> Digest {
    let mut bytes = Vec::new();
    key.write(&mut bytes);
    row.write(&mut bytes);
    Digest::of(&[&bytes])
}

/// Returns a value of a key column as JSON, in the form of PostgreSQL's `to_json`.
fn key_json(value: &Value) -> Option<serde_json::Value> {
    Some(match value {
        Value::Boolean(value) => (*value).into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => match Number::from_f64(*number) {
            Some(number) => number.into(),
            None => number.to_string().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Structure(tag, fields) => {
            let numbers: Option<Vec<i64>> = fields
                .iter()
                .map(|field| match field {
                    Value::Integer(number) => Some(*number),
                    _ => None,
                })
                .collect();
            temporal_text(*tag, &numbers?)?.into()
        }
        Value::Null | Value::List(_) | Value::Map(_) => return None,
    })
}

/// Returns a date or a time of Bolt 4 in ISO 8601.
fn temporal_text(tag: u8, numbers: &[i64]) -> Option<String> {
    const LOCAL: &str = "%Y-%m-%dT%H:%M:%S%.f";
    Some(match (tag, numbers) {
        (b'D', [days]) => {
            let day = NaiveDate::from_ymd_opt(1970, 1, 1)?;
            day.checked_add_signed(TimeDelta::try_days(*days)?)?.format("%Y-%m-%d").to_string()
        }
        (b't', [nanoseconds]) => {
            let seconds = u32::try_from(nanoseconds.div_euclid(1_000_000_000)).ok()?;
            let rest = u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?;
            let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds, rest)?;
            time.format("%H:%M:%S%.f").to_string()
        }
        (b'd', [seconds, nanoseconds]) => {
            let time = DateTime::from_timestamp(*seconds, u32::try_from(*nanoseconds).ok()?)?;
            time.naive_utc().format(LOCAL).to_string()
        }
        (b'F', [seconds, nanoseconds, offset]) => {
            let zone = FixedOffset::east_opt(i32::try_from(*offset).ok()?)?;
            let seconds = seconds.checked_sub(*offset)?;
            let time = DateTime::from_timestamp(seconds, u32::try_from(*nanoseconds).ok()?)?;
            time.with_timezone(&zone).to_rfc3339()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDateTime;
    use coco_core::change::{Column, Values};
    use serde_json::json;

    fn schema(options: serde_json::Value) -> TargetSchema {
        let column = |name: &str, type_name: &str| Column {
            name: name.to_owned(),
            type_schema: "pg_catalog".to_owned(),
            type_name: type_name.to_owned(),
        };
        TargetSchema {
            flow: "f".to_owned(),
            target: "Doc".to_owned(),
            columns: vec![column("id", "integer"), column("a", "text"), column("b", "text")],
            key: vec![0],
            options: options.as_object().cloned().unwrap_or_default(),
        }
    }

    fn statement(schema: &TargetSchema) -> String {
        read_all(schema, &Mapping::new(schema).expect("a mapping"))
    }

    #[test]
    fn all_columns_are_read() {
        assert_eq!(
            statement(&schema(json!({}))),
            "MATCH (n:`Doc`) WHERE NOT n:`_CocoEndpoint`\n\
             RETURN [n.`id`] AS key, [n.`id`, n.`a`, n.`b`] AS row"
        );
        let end = |column: &str| json!({"label": "End", "key": {column: "name"}});
        let options = json!({"kind": "relationship", "from": end("a"), "to": end("b")});
        let statement = statement(&schema(options));
        let end = "\nRETURN [r.`id`] AS key, [r.`id`, x.`name`, y.`name`] AS row";
        assert!(statement.ends_with(end), "{statement}");
    }

    #[test]
    fn what_is_held_as_it_was_sent_has_the_same_digest() {
        let schema = schema(json!({}));
        let key = Values::Json(r#"{"id":7}"#.to_owned());
        let row = Some(Values::Json(r#"{"id":7,"a":"x","b":null}"#.to_owned()));
        let sent = digests(&schema, &Change { key, row, version: 1 }).expect("digests");
        let record = |a: &str| {
            let key = Value::List(vec![7.into()]);
            [key, Value::List(vec![7.into(), a.into(), Value::Null])]
        };
        assert_eq!(held_digests(&record("x")), Some(sent));
        assert_ne!(held_digests(&record("y")), Some(sent));
        let held = held_row(&schema, &record("x"), sent).expect("a row");
        assert_eq!(held.json, r#"{"id":7}"#);
        let nameless = [Value::List(vec![Value::Null]), Value::List(vec![])];
        assert_eq!(held_digests(&nameless), None);
    }

    #[test]
    fn keys_become_what_postgres_reads() {
        let day = NaiveDate::from_ymd_opt(2024, 2, 29).expect("a day");
        let time = NaiveTime::from_hms_milli_opt(1, 2, 3, 500).expect("a time");
        let both = NaiveDateTime::new(day, time);
        let zoned = DateTime::parse_from_rfc3339("2024-02-29T01:02:03.5+05:45").expect("a time");
        for (value, expected) in [
            (Value::from(7i64), json!(7)),
            (Value::from(1.5), json!(1.5)),
            (Value::from("x"), json!("x")),
            (Value::from(true), json!(true)),
            (Value::from(day), json!("2024-02-29")),
            (Value::from(time), json!("01:02:03.500")),
            (Value::from(both), json!("2024-02-29T01:02:03.500")),
            (Value::from(zoned), json!("2024-02-29T01:02:03.500+05:45")),
        ] {
            assert_eq!(key_json(&value), Some(expected));
        }
        assert_eq!(key_json(&Value::Null), None);
        assert_eq!(key_json(&Value::Structure(b'?', vec![])), None);
    }
}
