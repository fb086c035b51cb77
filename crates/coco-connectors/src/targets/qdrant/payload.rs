//! Encodes a column's value in a point's payload.

use std::collections::HashMap;

use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{ListValue, NullValue, Struct, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::RowError;

/// Maximum depth of nested objects and arrays. A protocol buffer is read to a depth of 100, and
/// each object takes three levels. A server that receives more cannot say which point caused the
/// error.
const DEEPEST: usize = 30;

/// Maximum significant digits of a double.
const MOST_DIGITS: usize = 767;

/// Converts JSON text to a payload value. A number that would lose digits is an error of the row.
pub fn value(column: &str, json: &RawValue) -> Result<Value, RowError> {
    convert(json, DEEPEST).map_err(|e| e.in_column(column))
}

fn convert(json: &RawValue, depth: usize) -> Result<Value, RowError> {
    let text = json.get();
    let kind = match text.as_bytes().first() {
        Some(b'{' | b'[') if depth == 0 => {
            return Err(RowError::new(
                "54000",
                format!("more than {DEEPEST} levels of nested objects or arrays"),
            ));
        }
        Some(b'{') => {
            let fields: HashMap<String, &RawValue> = read(text)?;
            let fields = fields.into_iter().map(|(name, v)| Ok((name, convert(v, depth - 1)?)));
            Kind::StructValue(Struct { fields: fields.collect::<Result<_, RowError>>()? })
        }
        Some(b'[') => {
            let values: Vec<&RawValue> = read(text)?;
            let values = values.into_iter().map(|v| convert(v, depth - 1));
            Kind::ListValue(ListValue { values: values.collect::<Result<_, _>>()? })
        }
        Some(b'"') => Kind::StringValue(read(text)?),
        Some(b't') => Kind::BoolValue(true),
        Some(b'f') => Kind::BoolValue(false),
        Some(b'n') => Kind::NullValue(NullValue::NullValue.into()),
        _ => number(text)?,
    };
    Ok(Value { kind: Some(kind) })
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, RowError> {
    // An example is half of a surrogate pair, which the type json accepts.
    serde_json::from_str(text).map_err(|e| RowError::new("22030", format!("JSON: {e}")))
}

/// Converts a number. Qdrant has 64-bit integers and doubles. Another number becomes a double if
/// the double, written with the same number of digits, is the same number.
fn number(text: &str) -> Result<Kind, RowError> {
    if let Ok(integer) = text.parse::<i64>() {
        return Ok(Kind::IntegerValue(integer));
    }
    let double: f64 = text.parse().map_err(|_| RowError::new("22P02", "no number"))?;
    let digits = digits(text);
    let is_same = |written: &str| self::digits(written) == digits;
    // The shortest form is checked, too: at a power of two, it need not be the nearest number of
    // its length.
    let with_as_many = format!("{double:.*e}", digits.len().clamp(1, MOST_DIGITS) - 1);
    if double.is_finite() && (is_same(&with_as_many) || is_same(&format!("{double:e}"))) {
        return Ok(Kind::DoubleValue(double));
    }
    let shown: String = text.chars().take(40).collect();
    Err(RowError::new(
        "22003",
        format!("{shown} is neither an integer of 64 bits nor a double without loss of digits"),
    ))
}

/// Returns the significant digits: without sign, point, exponent, and zeros at the ends. They are
/// enough to distinguish a number from its double.
fn digits(number: &str) -> String {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Value, RowError> {
        let raw: &RawValue = serde_json::from_str(json).expect("JSON");
        value("c", raw)
    }

    fn kind(json: &str) -> Kind {
        read(json).expect("a value").kind.expect("a kind")
    }

    #[test]
    fn values_are_what_they_are_in_json() {
        assert_eq!(kind("null"), Kind::NullValue(0));
        assert_eq!(kind("true"), Kind::BoolValue(true));
        assert_eq!(kind("false"), Kind::BoolValue(false));
        assert_eq!(kind(r#""a\nü""#), Kind::StringValue("a\nü".to_owned()));
        let Kind::StructValue(nested) = kind(r#"{"a": [1, {"b": null}], "": 2}"#) else {
            panic!("no object");
        };
        assert_eq!(nested.fields[""].kind, Some(Kind::IntegerValue(2)));
        assert_eq!(nested.fields["a"].to_string(), r#"[1,{"b":null}]"#);
    }

    #[test]
    fn numbers_are_kept_to_the_last_digit() {
        for integer in [i64::MIN, -1, 0, i64::MAX] {
            assert_eq!(kind(&integer.to_string()), Kind::IntegerValue(integer));
        }
        for (text, double) in [
            ("0.1", 0.1),
            ("-1.50", -1.5),
            ("0.000", 0.0),
            ("1e+20", 1e20),
            ("9.999999999999999e+22", 1e23),
            ("5e-324", 5e-324),
            ("1.7976931348623157e+308", f64::MAX),
            ("5.684341886080802e-14", 2f64.powi(-44)),
            ("9223372036854775808", 2f64.powi(63)),
            ("100000000000000000000000000000000000000", 1e38),
        ] {
            assert_eq!(kind(text), Kind::DoubleValue(double), "{text}");
        }
    }

    #[test]
    fn every_double_that_postgres_writes_is_one() {
        let mut bits: u64 = 1;
        for _ in 0..10_000 {
            bits = bits.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let double = f64::from_bits(bits);
            if double.is_finite() {
                assert_eq!(kind(&format!("{double:e}")), Kind::DoubleValue(double));
                assert_eq!(kind(&format!("{double:.16e}")), Kind::DoubleValue(double));
            }
        }
    }

    #[test]
    fn numbers_that_would_lose_digits_are_the_rows_fault() {
        for text in [
            "9223372036854775807.5",
            "18446744073709551615",
            "12345678901234567890",
            "0.12345678901234567890",
            "1e400",
            "1e-400",
        ] {
            let rejected = read(text).expect_err(text);
            assert_eq!(rejected.sqlstate, "22003");
            assert!(rejected.message.contains(text), "{}", rejected.message);
        }
        // The maximum length of numeric.
        let long = format!("{}.{}", "9".repeat(131_072), "1".repeat(16_383));
        assert!(read(&long).expect_err("too long").message.len() < 200);
    }

    #[test]
    fn json_that_is_too_deep_or_broken_is_the_rows_fault() {
        let nested = |n| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(read(&nested(DEEPEST)).is_ok());
        assert_eq!(read(&nested(DEEPEST + 1)).expect_err("too deep").sqlstate, "54000");
        assert_eq!(read(&nested(100_000)).expect_err("too deep").sqlstate, "54000");
        assert_eq!(read(r#""\ud800""#).expect_err("half a pair").sqlstate, "22030");
    }
}
