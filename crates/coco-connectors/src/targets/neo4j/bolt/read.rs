//! Decodes messages of a server.

use super::value::Value;

/// Maximum number of values in a message, including nested values.
const MOST_VALUES: usize = 100_000;
/// Maximum nesting depth of values.
const DEEPEST: usize = 32;

/// A message: its kind and its fields.
#[derive(Debug, PartialEq)]
pub struct Message {
    pub tag: u8,
    pub fields: Vec<Value>,
}

/// Decodes a message. The error continues "the server's message".
pub fn message(bytes: &[u8]) -> Result<Message, &'static str> {
    let mut reader = Reader { bytes, values: 0 };
    match reader.value(0)? {
        Value::Structure(tag, fields) if reader.bytes.is_empty() => Ok(Message { tag, fields }),
        Value::Structure(..) => Err("goes on after its end"),
        _ => Err("is not a structure"),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    values: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or("breaks off")?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn value(&mut self, depth: usize) -> Result<Value, &'static str> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err("has too many values");
        }
        if depth > DEEPEST {
            return Err("is nested too deeply");
        }
        let [marker] = self.take()?;
        let low = usize::from(marker & 0x0F);
        Ok(match marker {
            0x00..=0x7F | 0xF0..=0xFF => i64::from(i8::from_be_bytes([marker])).into(),
            0xC0 => Value::Null,
            0xC1 => f64::from_be_bytes(self.take()?).into(),
            0xC2 => false.into(),
            0xC3 => true.into(),
            0xC8 => i64::from(i8::from_be_bytes(self.take()?)).into(),
            0xC9 => i64::from(i16::from_be_bytes(self.take()?)).into(),
            0xCA => i64::from(i32::from_be_bytes(self.take()?)).into(),
            0xCB => i64::from_be_bytes(self.take()?).into(),
            0x80..=0x8F => self.string(low)?.into(),
            0xD0..=0xD2 => {
                let size = self.size(marker - 0xD0)?;
                self.string(size)?.into()
            }
            // Byte strings: no requested value contains any.
            0xCC..=0xCE => {
                let size = self.size(marker - 0xCC)?;
                self.skip(size)?;
                Value::Null
            }
            0x90..=0x9F => self.list(low, depth)?,
            0xD4..=0xD6 => {
                let size = self.size(marker - 0xD4)?;
                self.list(size, depth)?
            }
            0xA0..=0xAF => self.map(low, depth)?,
            0xD8..=0xDA => {
                let size = self.size(marker - 0xD8)?;
                self.map(size, depth)?
            }
            0xB0..=0xBF => {
                let [tag] = self.take()?;
                Value::Structure(tag, self.values(low, depth)?)
            }
            _ => return Err("has a value of an unknown kind"),
        })
    }

    /// Reads a length of one, two or four bytes.
    fn size(&mut self, kind: u8) -> Result<usize, &'static str> {
        Ok(match kind {
            0 => u8::from_be_bytes(self.take()?).into(),
            1 => u16::from_be_bytes(self.take()?).into(),
            _ => u32::from_be_bytes(self.take()?) as usize,
        })
    }

    fn skip(&mut self, size: usize) -> Result<&[u8], &'static str> {
        let (skipped, rest) = self.bytes.split_at_checked(size).ok_or("breaks off")?;
        self.bytes = rest;
        Ok(skipped)
    }

    fn string(&mut self, size: usize) -> Result<String, &'static str> {
        let text = str::from_utf8(self.skip(size)?);
        text.map(str::to_owned).map_err(|_| "has a text that is not UTF-8")
    }

    /// Reads values. Memory is only allocated for values that have arrived.
    fn values(&mut self, size: usize, depth: usize) -> Result<Vec<Value>, &'static str> {
        (0..size).map(|_| self.value(depth + 1)).collect()
    }

    fn list(&mut self, size: usize, depth: usize) -> Result<Value, &'static str> {
        self.values(size, depth).map(Value::List)
    }

    fn map(&mut self, size: usize, depth: usize) -> Result<Value, &'static str> {
        let entry = |_| match self.value(depth + 1)? {
            Value::String(name) => Ok((name, self.value(depth + 1)?)),
            _ => Err("has a map with a name that is not text"),
        };
        (0..size).map(entry).collect::<Result<_, _>>().map(Value::Map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let all = vec![
            Value::Null,
            true.into(),
            (-17).into(),
            128.into(),
            i64::MAX.into(),
            70_000.into(),
            0.1.into(),
            "a".repeat(300).into(),
            Value::List(vec![1.into(); 20]),
            Value::Map(vec![("n".to_owned(), Value::List(vec![]))]),
        ];
        let mut bytes = Vec::new();
        Value::Structure(0x70, all.clone()).write(&mut bytes);
        assert_eq!(message(&bytes), Ok(Message { tag: 0x70, fields: all }));
        for end in 0..bytes.len() {
            assert!(message(&bytes[..end]).is_err(), "{end}");
        }
        bytes.push(0);
        assert_eq!(message(&bytes), Err("goes on after its end"));
    }

    #[test]
    fn hostile_messages_are_refused() {
        let within = |inner: &[u8]| [&[0xB1, 0x71], inner].concat();
        for (bytes, why) in [
            (within(&[0x91; 1_000_000]), "nested too deeply"),
            (within(&[0xA1; 1_000_000]), "nested too deeply"),
            (within(&[0xB1; 1_000_000]), "nested too deeply"),
            (within(&[0xD6, 0xFF, 0xFF, 0xFF, 0xFF]), "breaks off"),
            (within(&[0xDA, 0xFF, 0xFF, 0xFF, 0xFF]), "breaks off"),
            (within(&[0xD2, 0xFF, 0xFF, 0xFF, 0xFF]), "breaks off"),
            (within(&[0xCE, 0xFF, 0xFF, 0xFF, 0xFF]), "breaks off"),
            (within(&[&[0xD6, 0, 0x10, 0, 0][..], &[0xC0; 1 << 20]].concat()), "too many values"),
            (within(&[0x81, 0xFF]), "not UTF-8"),
            (within(&[0xA1, 0x01, 0x01]), "name that is not text"),
            (within(&[0xC7]), "unknown kind"),
            (vec![0x01], "not a structure"),
            (vec![], "breaks off"),
        ] {
            let error = message(&bytes).expect_err(why);
            assert!(error.contains(why), "{error}, not {why}");
        }
    }
}
