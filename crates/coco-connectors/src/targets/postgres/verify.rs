//! Reads what the table holds: digests of ranges of keys, which the server computes, and the rows of
//! small ranges.
//!
//! A digest covers the binary form of the values, as the send functions of their types return it.
//! coco sends rows in this form, so a row has the same digest on both sides. No setting of a
//! session (DateStyle, TimeZone, extra_float_digits) changes the binary form.

use coco_core::change::{Change, DeliveryError, TargetSchema};
use coco_core::key_range::{ChangeDigests, Digest, HeldRow, KeyRange, PartDigests, RangeDigest};

use super::encode;
use super::error::StatementError;
use super::names::quoted;
use super::session::Session;
use super::table::Table;
use crate::targets::changed_meanwhile;

/// The largest number of parts in one comparison: an answer of less than half a megabyte.
pub const PARTS: usize = 4096;

/// [`crate::targets::Verification::digests`]
pub fn digests(schema: &TargetSchema, change: &Change) -> Result<ChangeDigests, String> {
    let malformed = || "values do not have the form of the target's columns".to_owned();
    let key = encode::fields(&change.key, schema.key.len()).ok_or_else(malformed)?;
    let row = match &change.row {
        Some(row) => Some(encode::fields(row, schema.columns.len()).ok_or_else(malformed)?),
        None => None,
    };
    Ok(ChangeDigests { key: Digest::of(&[key]), row: row.map(|row| Digest::of(&[row])) })
}

/// The send function of each column's type, qualified and quoted.
const SEND: &str = "
select a.attname::text, format('%I.%I', n.nspname, p.proname)
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid
  join pg_proc p on p.oid = t.typsend::oid
  join pg_namespace n on n.oid = p.pronamespace
 where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped";

/// Settings under which key values have the same JSON text on all servers.
const SETTINGS: &str = "set datestyle = 'ISO, MDY'; set intervalstyle = 'postgres'; \
                        set bytea_output = 'hex'; set extra_float_digits = 1";

/// A table with the expressions that the statements need.
pub struct VerifiedTable {
    /// `from … `: the rows `t`, with the digest `h.k` of the key and `d.r` of the row in
    /// hexadecimal digits. Rows outside the ranges have no `d`.
    from: String,
    /// The key columns as the text of a JSON object.
    json: String,
}

impl VerifiedTable {
    /// Looks up the send functions of the table's columns.
    pub async fn new(
        session: &Session,
        schema: &TargetSchema,
        table: &Table,
    ) -> Result<VerifiedTable, DeliveryError> {
        let made = VerifiedTable::make(session, schema, table).await;
        made.map_err(StatementError::into_delivery_error)
    }

    async fn make(
        session: &Session,
        schema: &TargetSchema,
        table: &Table,
    ) -> Result<VerifiedTable, StatementError> {
        let mut functions: Vec<(String, String)> = Vec::new();
        for row in session.query(SEND, &[&table.oid]).await? {
            functions.push((row.try_get(0)?, row.try_get(1)?));
        }
        let mut sent = Vec::new();
        for (n, column) in schema.columns.iter().enumerate() {
            let function = functions.iter().find(|(name, _)| *name == column.name);
            let Some((_, function)) = function else {
                let name = quoted(&column.name);
                return Err(StatementError::Fatal(DeliveryError::target(
                    "42883",
                    format!("type of column {name} on the server has no binary form"),
                )));
            };
            sent.push(format!("{function}(t.{}) as b{n}", quoted(&column.name)));
        }
        session.run(SETTINGS).await?;
        let row: Vec<usize> = (0..schema.columns.len()).collect();
        let json: Vec<String> = schema
            .key_columns()
            .map(|c| format!("{}, t.{}", literal(&c.name), quoted(&c.name)))
            .collect();
        // OFFSET keeps the planner from pulling the subqueries up, which would compute each value
        // several times. The digest of a row is computed only if its key is in a range.
        Ok(VerifiedTable {
            from: format!(
                "from {} as t
                 cross join lateral (select {} offset 0) as s
                 cross join lateral (select encode(sha256({}), 'hex') as k offset 0) as h
                 cross join lateral (select encode(sha256({}), 'hex') as r
                                      where left(h.k, $2::int4) = any ($1::text[]) offset 0) as d",
                table.name,
                sent.join(", "),
                fields(&schema.key),
                fields(&row),
            ),
            json: format!("jsonb_build_object({})::text", json.join(", ")),
        })
    }

    /// [`crate::targets::Target::part_digests`]
    pub async fn part_digests(
        &self,
        session: &Session,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, DeliveryError> {
        let read = self.read_digests(session, ranges, digits).await;
        read.map_err(StatementError::into_delivery_error)
    }

    async fn read_digests(
        &self,
        session: &Session,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, StatementError> {
        let half =
            |from: u32| format!("sum(('x' || substr(d.r, {from}, 16))::bit(64)::int8)::text");
        let sql = format!(
            "select left(h.k, $3::int4), count(*), {}, {} {} group by 1",
            half(1),
            half(17),
            self.from
        );
        let (prefixes, length) = prefixes(ranges);
        let parts = i32::try_from(digits).unwrap_or(i32::MAX);
        let mut digests = PartDigests::new();
        for row in session.query(&sql, &[&prefixes, &length, &parts]).await? {
            let range = KeyRange::from_prefix(row.try_get(0)?).ok_or_else(malformed)?;
            let rows: i64 = row.try_get(1)?;
            let (high, low): (&str, &str) = (row.try_get(2)?, row.try_get(3)?);
            let sum = |text: &str| text.parse::<i128>().map(|n| n as u64).map_err(|_| malformed());
            let digest = RangeDigest { rows: rows as u64, high: sum(high)?, low: sum(low)? };
            digests.insert(range, digest);
        }
        Ok(digests)
    }

    /// [`crate::targets::Target::held_rows`]
    pub async fn held_rows(
        &self,
        session: &Session,
        ranges: &[KeyRange],
        most: usize,
    ) -> Result<Vec<HeldRow>, DeliveryError> {
        let rows = self.read_rows(session, ranges, most).await;
        let rows = rows.map_err(StatementError::into_delivery_error)?;
        if rows.len() > most { Err(changed_meanwhile()) } else { Ok(rows) }
    }

    async fn read_rows(
        &self,
        session: &Session,
        ranges: &[KeyRange],
        most: usize,
    ) -> Result<Vec<HeldRow>, StatementError> {
        let sql = format!("select h.k, d.r, {} {} limit $3::int8", self.json, self.from);
        let (prefixes, length) = prefixes(ranges);
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let mut rows = Vec::new();
        for row in session.query(&sql, &[&prefixes, &length, &limit]).await? {
            let digest = |text: &str| Digest::from_hex(text).ok_or_else(malformed);
            rows.push(HeldRow {
                key: digest(row.try_get(0)?)?,
                row: digest(row.try_get(1)?)?,
                json: row.try_get(2)?,
            });
        }
        Ok(rows)
    }
}

fn malformed() -> StatementError {
    StatementError::Fatal(DeliveryError::server("08P01", "the server returned a malformed digest"))
}

/// Returns the prefixes of ranges, and their number of digits.
fn prefixes(ranges: &[KeyRange]) -> (Vec<String>, i32) {
    let digits = ranges.first().map_or(0, KeyRange::digits);
    (ranges.iter().map(KeyRange::prefix).collect(), i32::try_from(digits).unwrap_or(0))
}

/// Returns the values `s.b…` as the fields of a tuple in `COPY … (format binary)`: each value after
/// its length, and -1 for NULL.
fn fields(columns: &[usize]) -> String {
    let field = |n: &usize| {
        format!("coalesce(int4send(octet_length(s.b{n})) || s.b{n}, '\\xffffffff'::bytea)")
    };
    columns.iter().map(field).collect::<Vec<_>>().join(" || ")
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(
            fields(&[0, 2]),
            "coalesce(int4send(octet_length(s.b0)) || s.b0, '\\xffffffff'::bytea) || \
             coalesce(int4send(octet_length(s.b2)) || s.b2, '\\xffffffff'::bytea)"
        );
    }

    #[test]
    fn ranges_become_prefixes() {
        let ranges = ["0a", "ff"].map(|p| KeyRange::from_prefix(p).expect("a range"));
        assert_eq!(prefixes(&ranges), (vec!["0a".to_owned(), "ff".to_owned()], 2));
        assert_eq!(prefixes(&[KeyRange::ALL]), (vec![String::new()], 0));
    }
}
