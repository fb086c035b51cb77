//! Passes rows from one process of the server to another, as bytes: first a header that identifies
//! the types, then each value as its type's send function writes it.
//!
//! The reading process compares the types with those it expects, and accepts values only through
//! their type's receive function. Both processes act as the role that owns the types.

use pgrx::pg_sys;

use crate::pg::error::{Error, Result};
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::value_codec::Codec;

/// The length that marks a NULL.
const NULL: u32 = u32::MAX;

impl TupleStore {
    /// Writes all rows as bytes, for [`TupleStore::read_from`] in another process.
    pub fn write_to(&mut self, columns: &[RowColumn], bytes: &mut Vec<u8>) -> Result<()> {
        let mut context = pgrx::PgMemoryContexts::new("coco rows to pass");
        let mut codecs = codecs(columns)?;
        bytes.extend(head(&codecs));
        self.rewind();
        while self.advance() {
            pgrx::check_for_interrupts!();
            for (place, codec) in codecs.iter_mut().enumerate() {
                let Some(datum) = self.datum(place) else {
                    bytes.extend(NULL.to_ne_bytes());
                    continue;
                };
                // SAFETY: the rows were created with these columns; the context frees what the
                // type's function leaves behind.
                let value = unsafe { context.switch_to(|_| codec.write(datum)) };
                let length = u32::try_from(value.len()).ok().filter(|length| *length != NULL);
                let length = length
                    .ok_or_else(|| Error::internal("a value is larger than Postgres can hold"))?;
                bytes.extend(length.to_ne_bytes());
                bytes.extend(value);
            }
            // SAFETY: nothing in the context is used any longer.
            unsafe { context.reset() };
        }
        Ok(())
    }

    /// Reads rows of these columns that another process has written.
    pub fn read_from(columns: &[RowColumn], bytes: &[u8]) -> Result<TupleStore> {
        let mut context = pgrx::PgMemoryContexts::new("coco rows that were passed");
        let mut codecs = codecs(columns)?;
        let head = head(&codecs);
        let mut rest = bytes
            .strip_prefix(head.as_slice())
            .ok_or_else(|| Error::internal("rows of another process have unexpected types"))?;
        let mut rows = TupleStore::new(columns)?;
        let mut values = Vec::with_capacity(codecs.len());
        while !rest.is_empty() {
            pgrx::check_for_interrupts!();
            values.clear();
            for codec in &mut codecs {
                let bytes = field(&mut rest)?;
                // SAFETY: called within a transaction; the value is copied before the context is
                // reset.
                let read = |bytes| unsafe { context.switch_to(|_| codec.read(bytes)) };
                values.push(bytes.map(read).transpose()?);
            }
            rows.push(&values);
            // SAFETY: the row was copied.
            unsafe { context.reset() };
        }
        Ok(rows)
    }
}

/// Returns the bytes of the next value; `None` for NULL.
fn field<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    let cut = || Error::internal("rows of another process are truncated");
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = u32::from_ne_bytes(*length);
    if length == NULL {
        *rest = after;
        return Ok(None);
    }
    let (value, after) = after.split_at_checked(length as usize).ok_or_else(cut)?;
    *rest = after;
    Ok(Some(value))
}

fn codecs(columns: &[RowColumn]) -> Result<Vec<Codec>> {
    // SAFETY: called within a transaction; the codecs do not outlive the call that created them.
    let codec = |c: &RowColumn| unsafe { Codec::of(c.type_oid, pg_sys::CurrentMemoryContext) };
    columns.iter().map(codec).collect()
}

/// Returns the header that identifies the types.
fn head(codecs: &[Codec]) -> Vec<u8> {
    let mut head = (codecs.len() as u32).to_ne_bytes().to_vec();
    codecs.iter().for_each(|codec| head.extend(codec.kind().0));
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_end_where_they_say_and_no_later() {
        let mut bytes = vec![];
        for value in [Some(&b"ab"[..]), None, Some(b"")] {
            match value {
                None => bytes.extend(NULL.to_ne_bytes()),
                Some(value) => {
                    bytes.extend((value.len() as u32).to_ne_bytes());
                    bytes.extend(value);
                }
            }
        }
        let mut rest = bytes.as_slice();
        let mut next = || field(&mut rest).expect("a field").map(<[u8]>::to_vec);
        assert_eq!((next(), next(), next()), (Some(b"ab".to_vec()), None, Some(vec![])));
        for cut in [1, 3, 5] {
            let mut rest = &bytes[..cut];
            assert!(field(&mut rest).is_err(), "{cut}");
        }
        let mut rest = &[0xFF, 0xFF, 0xFF, 0x7F, 1][..];
        assert!(field(&mut rest).is_err());
    }
}
