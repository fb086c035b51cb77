//! Encodes rows as Bolt values that Neo4j can store in a property, or returns an error of the row.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use serde_json::value::RawValue;

use super::bolt::Value;
use super::decimal;
use super::mapping::Mapping;
use coco_core::change::{Column, TargetSchema, Values};

/// The reason why a row cannot be encoded.
#[derive(Debug, PartialEq)]
pub struct EncodeError {
    pub sqlstate: &'static str,
    pub message: String,
}

/// The form of a column's values, as far as their JSON does not show it.
#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// The type of the JSON value.
    Plain,
    /// Always a float, even if the JSON is an integer or the text `NaN`.
    Float,
    /// The type of the JSON number, or the text `NaN`.
    Numeric,
    /// pgvector's text: a list of floats.
    Vector,
    Timestamp,
    TimestampTz,
    Date,
    Time,
    Array(Box<Form>),
}

/// Returns the values of all columns in their order, for `$rows`.
pub fn row(schema: &TargetSchema, mapping: &Mapping, row: &Values) -> Result<Value, EncodeError> {
    let places = 0..schema.columns.len();
    values(schema, mapping, row, places)
}

/// Returns the values of the key columns in the key's order, for `$keys`.
pub fn key(schema: &TargetSchema, mapping: &Mapping, key: &Values) -> Result<Value, EncodeError> {
    values(schema, mapping, key, schema.key.iter().copied())
}

fn values(
    schema: &TargetSchema,
    mapping: &Mapping,
    values: &Values,
    places: impl Iterator<Item = usize>,
) -> Result<Value, EncodeError> {
    let unreadable = || encode_error("22000", "the row is not a valid JSON object");
    let json = values.json().ok_or_else(unreadable)?;
    let fields: HashMap<String, &RawValue> =
        serde_json::from_str(json).map_err(|_| unreadable())?;
    let mut list = Vec::new();
    for place in places {
        let column = &schema.columns[place];
        let about = |u: EncodeError| EncodeError {
            message: format!("column \"{}\" {}", column.name, u.message),
            ..u
        };
        let raw =
            fields.get(&column.name).ok_or_else(|| about(encode_error("22000", "is missing")))?;
        let value = value(raw.get(), &Form::of(column, mapping.temporal)).map_err(about)?;
        if mapping.requires(place) {
            check_identifies(&value).map_err(about)?;
        }
        list.push(value);
    }
    Ok(Value::List(list))
}

/// Checks that a value can identify a node or a relationship: null and NaN equal nothing.
fn check_identifies(value: &Value) -> Result<(), EncodeError> {
    match value {
        Value::Null => {
            Err(encode_error("23502", "is null, but identifies a node or a relationship"))
        }
        Value::Float(f) if f.is_nan() => {
            Err(encode_error("22023", "is NaN, but identifies a node or a relationship"))
        }
        _ => Ok(()),
    }
}

impl Form {
    fn of(column: &Column, temporal: bool) -> Form {
        Form::named(&column.type_name, column.type_schema == "pg_catalog", temporal)
    }

    fn named(type_name: &str, of_postgres: bool, temporal: bool) -> Form {
        if let Some(element) = type_name.strip_suffix("[]") {
            return Form::Array(Box::new(Form::named(element, of_postgres, temporal)));
        }
        // Without modifiers, which may be in the middle: `vector(3)`, `timestamp(3) with time
        // zone`.
        let name = match (type_name.split_once('('), type_name.split_once(')')) {
            (Some((before, _)), Some((_, after))) => format!("{before}{after}"),
            _ => type_name.to_owned(),
        };
        match name.as_str() {
            // The types of pgvector, in any schema.
            "vector" | "halfvec" => Form::Vector,
            _ if !of_postgres => Form::Plain,
            "real" | "double precision" => Form::Float,
            "numeric" => Form::Numeric,
            "timestamp without time zone" if temporal => Form::Timestamp,
            "timestamp with time zone" if temporal => Form::TimestampTz,
            "date" if temporal => Form::Date,
            "time without time zone" if temporal => Form::Time,
            _ => Form::Plain,
        }
    }
}

/// Encodes one value from its JSON.
fn value(json: &str, form: &Form) -> Result<Value, EncodeError> {
    match json.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => Ok(true.into()),
        Some(b'f') => Ok(false.into()),
        Some(b'"') => {
            let text: String = serde_json::from_str(json).map_err(|_| {
                encode_error("22P05", "contains half of a surrogate pair, which is not valid text")
            })?;
            of_text(text, form)
        }
        Some(b'[') => list(json, form),
        // Neo4j stores no maps in properties.
        Some(b'{') => Ok(json.into()),
        _ => number(json, form),
    }
}

fn number(json: &str, form: &Form) -> Result<Value, EncodeError> {
    if *form == Form::Float {
        return float(json);
    }
    if let Ok(integer) = json.parse::<i64>() {
        return Ok(integer.into());
    }
    decimal::float(json).map(Value::from).ok_or_else(|| {
        let message = format!(
            "is {}, which no number of Neo4j represents exactly: cast it to text or to double \
             precision",
            shortened(json)
        );
        encode_error("22003", message)
    })
}

fn float(text: &str) -> Result<Value, EncodeError> {
    // Postgres and Rust use the same text for NaN, Infinity and -Infinity.
    let float = text.trim().parse::<f64>();
    float
        .map(Value::from)
        .map_err(|_| encode_error("22P02", format!("is not a number: {}", shortened(text))))
}

fn of_text(text: String, form: &Form) -> Result<Value, EncodeError> {
    let encode_error = |what: &str| {
        let text = shortened(&text);
        encode_error(
            "22008",
            format!(
                "is {text}, which is not a {what} of Neo4j: omit \"temporal\", or cast it to text"
            ),
        )
    };
    let iso = "%Y-%m-%dT%H:%M:%S%.f";
    match form {
        Form::Plain | Form::Array(_) => Ok(text.into()),
        Form::Float | Form::Numeric => float(&text),
        Form::Vector => {
            let inside = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(&text);
            let floats: Result<Vec<_>, _> = inside.split(',').map(float).collect();
            Ok(Value::List(floats?))
        }
        Form::TimestampTz => DateTime::parse_from_rfc3339(&text)
            .map(Value::from)
            .map_err(|_| encode_error("date and time with a zone")),
        Form::Timestamp => NaiveDateTime::parse_from_str(&text, iso)
            .map(Value::from)
            .map_err(|_| encode_error("date and time")),
        Form::Date => NaiveDate::parse_from_str(&text, "%Y-%m-%d")
            .map(Value::from)
            .map_err(|_| encode_error("date")),
        Form::Time => NaiveTime::parse_from_str(&text, "%H:%M:%S%.f")
            .map(Value::from)
            .map_err(|_| encode_error("time")),
    }
}

/// Returns a list if all values have one type, or else the JSON text.
fn list(json: &str, form: &Form) -> Result<Value, EncodeError> {
    let elements: Vec<&RawValue> =
        serde_json::from_str(json).map_err(|_| encode_error("22000", "is not valid JSON"))?;
    let element_form = match form {
        Form::Array(element) => {
            // An array must be a list in every row. JSON may vary.
            if elements.iter().any(|e| e.get() == "null") {
                return Err(encode_error(
                    "22004",
                    "is an array that contains a null, which Neo4j's lists cannot hold: remove it \
                     with array_remove",
                ));
            }
            element.as_ref()
        }
        _ => &Form::Plain,
    };
    let class = |json: &str| match json.as_bytes().first() {
        Some(b'"') => Some('s'),
        Some(b't' | b'f') => Some('b'),
        Some(b'n' | b'[' | b'{') | None => None,
        Some(_) => Some('n'),
    };
    let first = elements.first().map(|e| class(e.get()));
    let alike = elements.iter().all(|e| class(e.get()).is_some() && Some(class(e.get())) == first);
    // A text in an array of numbers is NaN.
    let numbers = matches!(element_form, Form::Float | Form::Numeric)
        && elements.iter().all(|e| class(e.get()).is_some());
    if !(alike || numbers) || *element_form == Form::Vector {
        return Ok(json.into());
    }
    let values: Result<Vec<_>, _> = elements.iter().map(|e| value(e.get(), element_form)).collect();
    Ok(Value::List(of_one_type(values?)?))
}

/// Converts all numbers to floats if one is a float.
fn of_one_type(values: Vec<Value>) -> Result<Vec<Value>, EncodeError> {
    if !values.iter().any(|v| matches!(v, Value::Float(_))) {
        return Ok(values);
    }
    let float = |value: Value| match &value {
        Value::Integer(i) => number(&format!("{i}.0"), &Form::Plain),
        _ => Ok(value),
    };
    values.into_iter().map(float).collect()
}

fn encode_error(sqlstate: &'static str, message: impl Into<String>) -> EncodeError {
    EncodeError { sqlstate, message: message.into() }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(type_name: &str, json: &str) -> Result<Value, EncodeError> {
        value(json, &Form::named(type_name, true, true))
    }

    fn list_of(values: &[f64]) -> Value {
        Value::List(values.iter().map(|f| Value::from(*f)).collect())
    }

    #[test]
    fn scalars_are_what_their_json_and_type_say() {
        for (type_name, json, expected) in [
            ("integer", "7", Value::from(7_i64)),
            ("bigint", "-9223372036854775808", i64::MIN.into()),
            ("double precision", "7", 7.0.into()),
            ("real", "0.1", 0.1.into()),
            ("double precision", "\"-Infinity\"", f64::NEG_INFINITY.into()),
            ("numeric", "7", 7_i64.into()),
            ("numeric(10,2)", "7.00", 7.0.into()),
            ("text", "\"NaN\"", "NaN".into()),
            ("text", r#""\u00e9\n\"""#, "é\n\"".into()),
            ("boolean", "true", true.into()),
            ("jsonb", r#"{"a": 1}"#, r#"{"a": 1}"#.into()),
            ("text", "null", Value::Null),
            ("date", "\"2024-02-29\"", NaiveDate::from_ymd_opt(2024, 2, 29).expect("a day").into()),
        ] {
            assert_eq!(of(type_name, json), Ok(expected), "{type_name} {json}");
        }
        assert!(matches!(of("numeric", "\"NaN\""), Ok(Value::Float(f)) if f.is_nan()));
        assert!(matches!(
            of("timestamp(3) with time zone", "\"2024-01-01T00:00:00.123+01:00\""),
            Ok(Value::Structure(b'F', _))
        ));
        assert!(matches!(
            of("timestamp without time zone", "\"2024-01-01T00:00:00\""),
            Ok(Value::Structure(b'd', _))
        ));
        assert!(matches!(
            of("time without time zone", "\"23:59:59.5\""),
            Ok(Value::Structure(b't', _))
        ));
    }

    #[test]
    fn numbers_and_times_that_would_change_are_refused() {
        for (type_name, json, sqlstate) in [
            ("numeric", "9223372036854775809", "22003"),
            ("numeric", "0.12345678901234567890", "22003"),
            ("jsonb", "1e400", "22003"),
            ("numeric[]", "[9007199254740993, 0.5]", "22003"),
            ("date", "\"infinity\"", "22008"),
            ("date", "\"0044-03-15 BC\"", "22008"),
            ("timestamp with time zone", "\"12024-01-01T00:00:00+00:00\"", "22008"),
            ("time without time zone", "\"24:00:00\"", "22008"),
            ("vector(2)", "\"[1,x]\"", "22P02"),
            ("text[]", r#"["a",null]"#, "22004"),
            ("json", r#""\ud800""#, "22P05"),
        ] {
            assert_eq!(
                of(type_name, json).map_err(|u| u.sqlstate),
                Err(sqlstate),
                "{type_name} {json}"
            );
        }
    }

    #[test]
    fn lists_are_of_one_type_or_json() {
        assert_eq!(of("vector(3)", "\"[1,2.5,-3e-05]\""), Ok(list_of(&[1.0, 2.5, -3e-05])));
        assert_eq!(of("numeric[]", "[1,2.5]"), Ok(list_of(&[1.0, 2.5])));
        assert_eq!(of("double precision[]", "[1,2]"), Ok(list_of(&[1.0, 2.0])));
        assert!(matches!(of("real[]", "[1,\"NaN\"]"), Ok(Value::List(l)) if l.len() == 2));
        assert_eq!(of("text[]", "[]"), Ok(list_of(&[])));
        for json in [r#"["a", 1]"#, "[1, null]", "[[1], [2]]", r#"[{"a": 1}]"#, "[1, true]"] {
            assert_eq!(of("jsonb", json), Ok(json.into()), "{json}");
        }
        assert_eq!(of("integer[]", "[[1,2],[3,4]]"), Ok("[[1,2],[3,4]]".into()));
        assert_eq!(of("vector(2)[]", r#"["[1,2]"]"#), Ok(r#"["[1,2]"]"#.into()));
    }
}
