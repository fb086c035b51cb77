//! Values, and their encoding as PackStream.

use chrono::{
    DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset, Timelike,
};

/// A value of a row, of a parameter, or of a response.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    String(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
    /// A date or a time, by its tag.
    Structure(u8, Vec<Value>),
}

const DATE: u8 = b'D';
const LOCAL_TIME: u8 = b't';
const LOCAL_DATE_TIME: u8 = b'd';
const DATE_TIME: u8 = b'F';

/// The day from which dates are counted, as chrono counts days.
const FIRST_DAY: i32 = 719_163;

impl Value {
    /// Returns the value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, v)| v),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Appends the encoded value.
    pub fn write(&self, to: &mut Vec<u8>) {
        match self {
            Value::Null => to.push(0xC0),
            Value::Boolean(false) => to.push(0xC2),
            Value::Boolean(true) => to.push(0xC3),
            Value::Integer(integer) => write_integer(*integer, to),
            Value::Float(float) => {
                to.push(0xC1);
                to.extend(float.to_be_bytes());
            }
            Value::String(text) => write_string(text, to),
            Value::List(values) => {
                write_size(values.len(), 0x90, [0xD4, 0xD5, 0xD6], to);
                values.iter().for_each(|value| value.write(to));
            }
            Value::Map(entries) => {
                write_size(entries.len(), 0xA0, [0xD8, 0xD9, 0xDA], to);
                for (name, value) in entries {
                    write_string(name, to);
                    value.write(to);
                }
            }
            Value::Structure(tag, fields) => {
                write_structure(*tag, fields.len(), to);
                fields.iter().for_each(|field| field.write(to));
            }
        }
    }
}

/// Appends the header of a structure with less than 16 fields, which must follow.
pub fn write_structure(tag: u8, fields: usize, to: &mut Vec<u8>) {
    to.extend([0xB0 | (fields & 0x0F) as u8, tag]);
}

pub fn write_string(text: &str, to: &mut Vec<u8>) {
    write_size(text.len(), 0x80, [0xD0, 0xD1, 0xD2], to);
    to.extend(text.as_bytes());
}

/// Appends a length in as few bytes as possible. A batch is far below 4 GB.
fn write_size(size: usize, tiny: u8, [one, two, four]: [u8; 3], to: &mut Vec<u8>) {
    if let (0..16, Ok(size)) = (size, u8::try_from(size)) {
        to.push(tiny | size);
    } else if let Ok(size) = u8::try_from(size) {
        to.extend([one, size]);
    } else if let Ok(size) = u16::try_from(size) {
        to.push(two);
        to.extend(size.to_be_bytes());
    } else {
        to.push(four);
        to.extend(u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    }
}

fn write_integer(integer: i64, to: &mut Vec<u8>) {
    if let (-16..128, Ok(tiny)) = (integer, i8::try_from(integer)) {
        to.extend(tiny.to_be_bytes());
    } else if let Ok(integer) = i8::try_from(integer) {
        to.push(0xC8);
        to.extend(integer.to_be_bytes());
    } else if let Ok(integer) = i16::try_from(integer) {
        to.push(0xC9);
        to.extend(integer.to_be_bytes());
    } else if let Ok(integer) = i32::try_from(integer) {
        to.push(0xCA);
        to.extend(integer.to_be_bytes());
    } else {
        to.push(0xCB);
        to.extend(integer.to_be_bytes());
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Boolean(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::String(value)
    }
}

impl From<NaiveDate> for Value {
    fn from(date: NaiveDate) -> Value {
        let days = i64::from(date.num_days_from_ce()) - i64::from(FIRST_DAY);
        Value::Structure(DATE, vec![days.into()])
    }
}

impl From<NaiveTime> for Value {
    fn from(time: NaiveTime) -> Value {
        let seconds = i64::from(time.num_seconds_from_midnight());
        let nanoseconds = seconds * 1_000_000_000 + i64::from(time.nanosecond());
        Value::Structure(LOCAL_TIME, vec![nanoseconds.into()])
    }
}

impl From<NaiveDateTime> for Value {
    fn from(time: NaiveDateTime) -> Value {
        let seconds = time.and_utc().timestamp();
        let nanoseconds = i64::from(time.nanosecond());
        Value::Structure(LOCAL_DATE_TIME, vec![seconds.into(), nanoseconds.into()])
    }
}

impl From<DateTime<FixedOffset>> for Value {
    /// Converts a timestamp. Bolt 4 counts seconds in local time.
    fn from(time: DateTime<FixedOffset>) -> Value {
        let offset = i64::from(time.offset().fix().local_minus_utc());
        let seconds = time.timestamp() + offset;
        let nanoseconds = i64::from(time.nanosecond());
        Value::Structure(DATE_TIME, vec![seconds.into(), nanoseconds.into(), offset.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: impl Into<Value>) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.into().write(&mut bytes);
        bytes
    }

    /// The examples of the PackStream specification.
    #[test]
    fn values_are_written_as_packstream_has_them() {
        assert_eq!(written(Value::Null), [0xC0]);
        assert_eq!(written(true), [0xC3]);
        assert_eq!(
            written(std::f64::consts::TAU),
            [0xC1, 0x40, 0x19, 0x21, 0xFB, 0x54, 0x44, 0x2D, 0x18]
        );
        assert_eq!(written(1), [0x01]);
        assert_eq!(written(-16), [0xF0]);
        assert_eq!(written(-17), [0xC8, 0xEF]);
        assert_eq!(written(128), [0xC9, 0x00, 0x80]);
        assert_eq!(written(1234), [0xC9, 0x04, 0xD2]);
        assert_eq!(written(-2147483648), [0xCA, 0x80, 0, 0, 0]);
        assert_eq!(written(i64::MIN), [0xCB, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written("A"), [0x81, 0x41]);
        assert_eq!(written("a".repeat(26))[..2], [0xD0, 0x1A]);
        assert_eq!(written("a".repeat(256))[..3], [0xD1, 0x01, 0x00]);
        assert_eq!(written("a".repeat(65_536))[..5], [0xD2, 0, 1, 0, 0]);
        assert_eq!(written(Value::List(vec![1.into(), 2.into()])), [0x92, 1, 2]);
        assert_eq!(written(Value::List(vec![Value::Null; 16]))[..2], [0xD4, 16]);
        let map = Value::Map(vec![("one".to_owned(), "eins".into())]);
        assert_eq!(written(map), *b"\xA1\x83one\x84eins");
    }

    #[test]
    fn times_are_structures() {
        let fields = |value: Value| match value {
            Value::Structure(tag, fields) => (tag, fields),
            other => panic!("{other:?}"),
        };
        let date = NaiveDate::from_ymd_opt(1970, 1, 3).expect("a day");
        assert_eq!(fields(date.into()), (b'D', vec![2.into()]));
        let time = NaiveTime::from_hms_nano_opt(0, 0, 1, 5).expect("a time");
        assert_eq!(fields(time.into()), (b't', vec![1_000_000_005.into()]));
        assert_eq!(fields(date.and_time(time).into()), (b'd', vec![172_801.into(), 5.into()]));
        let zoned = DateTime::parse_from_rfc3339("1970-01-01T01:00:00+01:00").expect("a time");
        assert_eq!(fields(zoned.into()), (b'F', vec![3600.into(), 0.into(), 3600.into()]));
    }
}
