//! Encodes changes as tuples of `COPY … FROM STDIN (FORMAT binary)`.
//!
//! A row already has this form except for the count of its fields. It is checked and copied.

use bytes::{BufMut, Bytes, BytesMut};

use coco_core::change::Values;

/// The signature, no flags, and no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The value in the place of a tuple's field count that marks the end.
const TRAILER: i16 = -1;
/// Size of a piece. Smaller pieces cost time; larger ones only cost memory.
const PIECE: usize = 64 << 10;

/// The data of a COPY, in pieces.
pub struct Tuples {
    fields: i16,
    buffer: BytesMut,
}

impl Tuples {
    /// Creates the data for rows with this many fields. Numbered rows have one more field.
    pub fn new(fields: usize) -> Tuples {
        let mut buffer = BytesMut::with_capacity(PIECE + PIECE / 4);
        buffer.put_slice(HEADER);
        // A table has at most 1600 columns.
        Tuples { fields: i16::try_from(fields).unwrap_or(i16::MAX), buffer }
    }

    /// Adds a row. Returns a piece if one is complete.
    pub fn push(&mut self, fields: &[u8]) -> Option<Bytes> {
        self.buffer.put_i16(self.fields);
        self.buffer.put_slice(fields);
        self.piece()
    }

    /// Adds a row with an `integer` before its own fields. A batch never has more rows than an
    /// `integer` can count.
    pub fn push_numbered(&mut self, number: usize, fields: &[u8]) -> Option<Bytes> {
        self.buffer.put_i16(self.fields.saturating_add(1));
        self.buffer.put_i32(4);
        self.buffer.put_i32(i32::try_from(number).unwrap_or(i32::MAX));
        self.buffer.put_slice(fields);
        self.piece()
    }

    /// Returns the last piece.
    pub fn finish(mut self) -> Bytes {
        self.buffer.put_i16(TRAILER);
        self.buffer.freeze()
    }

    fn piece(&mut self) -> Option<Bytes> {
        if self.buffer.len() < PIECE {
            return None;
        }
        let piece = self.buffer.split().freeze();
        self.buffer.reserve(PIECE + PIECE / 4);
        Some(piece)
    }
}

/// Returns the fields of binary values if they are exactly `count` fields. Otherwise the server
/// would misread the following rows.
pub fn fields(values: &Values, count: usize) -> Option<&[u8]> {
    let bytes = values.binary()?;
    let mut rest = bytes;
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<4>()?;
        rest = match i32::from_be_bytes(*length) {
            -1 => after,
            length => after.split_at_checked(usize::try_from(length).ok()?)?.1,
        };
    }
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut row = Vec::new();
        for value in values {
            row.put_i32(value.map_or(-1, |v| v.len() as i32));
            row.put_slice(value.unwrap_or_default());
        }
        row
    }

    #[test]
    fn a_copy_is_a_header_the_tuples_and_a_trailer() {
        let mut tuples = Tuples::new(2);
        assert_eq!(tuples.push(&row(&[Some(b"x"), None])), None);
        let data = tuples.finish();
        assert_eq!(data[..19], *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        assert_eq!(data[19..], *b"\0\x02\0\0\0\x01x\xff\xff\xff\xff\xff\xff");
    }

    #[test]
    fn a_number_is_a_field_before_the_others() {
        let mut tuples = Tuples::new(1);
        tuples.push_numbered(7, &row(&[None]));
        assert_eq!(tuples.finish()[19..], *b"\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\xff\xff");
    }

    #[test]
    fn pieces_come_to_the_same() {
        let long = row(&[Some(&[b'x'; 40_000])]);
        let mut tuples = Tuples::new(1);
        let mut sent: Vec<u8> = Vec::new();
        for _ in 0..5 {
            sent.extend(tuples.push(&long).unwrap_or_default());
        }
        sent.extend(tuples.finish());
        assert_eq!(sent.len(), 19 + 5 * (2 + long.len()) + 2);
    }

    #[test]
    fn fields_are_counted() {
        let two = row(&[Some(b"abc"), None]);
        assert_eq!(fields(&Values::Binary(two.clone()), 2), Some(&two[..]));
        assert_eq!(fields(&Values::Binary(Vec::new()), 0), Some(&[][..]));
        for count in [0, 1, 3] {
            assert_eq!(fields(&Values::Binary(two.clone()), count), None);
        }
        for cut in 1..two.len() {
            assert_eq!(fields(&Values::Binary(two[..cut].to_vec()), 2), None);
        }
        assert_eq!(fields(&Values::Binary(vec![0xff, 0xff, 0xff, 0xfe]), 1), None);
        assert_eq!(fields(&Values::Json("{}".to_owned()), 0), None);
    }
}
