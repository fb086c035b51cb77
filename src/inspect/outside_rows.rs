//! The rows that an external target should hold, as digests, for the comparison with the rows that
//! it holds.
//!
//! The ledger has the keys, and a fingerprint of each row, but not the rows. coco therefore runs
//! the flow's query once, and encodes its rows as for delivery. A row counts as known only if it
//! has the fingerprint of the ledger.

use std::collections::HashMap;

use pgrx::{IntoDatum, pg_sys};

use crate::catalog::model::{External, Flow, Target};
use crate::catalog::relation_locks;
use crate::memo;
use crate::outbox::change_batch::EntryValues;
use crate::outbox::row_encoder::Encoder;
use crate::outbox::tables::{FINGERPRINT, outbox_key};
use crate::outbox::{delivery_state, ledger};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{all_equal, numbered, stored};
use crate::pg::error::{Error, Result};
use crate::pg::json::object_sql;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::arg;
use crate::pg::tuplestore::row::Row;
use crate::pg::tuplestore::row_stream;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::names::KeyExprs;
use crate::update::orphans::{expected_rows_sql, failing_sources};
use coco_core::change::{Change, Encoding, TargetSchema};
use coco_core::key_range::{ChangeDigests, Digest, KeyRange, PartDigests, PartSums, RangeSet};
use coco_core::range_search::ExpectedRow;

/// Computes the digests of a change.
pub type DigestChange = fn(&TargetSchema, &Change) -> std::result::Result<ChangeDigests, String>;

/// The columns of the stored digests: the halves of the key's and the row's digest, what is known
/// of the row, and the key as the text of a JSON object.
const COLUMNS: [(&str, pg_sys::Oid); 6] = [
    ("key_high", pg_sys::INT8OID),
    ("key_low", pg_sys::INT8OID),
    ("row_high", pg_sys::INT8OID),
    ("row_low", pg_sys::INT8OID),
    ("known", pg_sys::INT4OID),
    ("key", pg_sys::TEXTOID),
];

const KNOWN: i32 = 0;
const KEY_ONLY: i32 = 1;
const UNSETTLED: i32 = 2;

/// The digests of the rows that one target should hold. They spill to disk beyond `work_mem`, and
/// outlive the transaction that reads the rows.
pub struct OutsideRows {
    rows: TupleStore,
}

impl OutsideRows {
    /// Reads the rows that the target should hold. The caller has locked the target against
    /// deliveries, and the flow's relations against being rewritten.
    pub fn read(
        flow: &Flow,
        target: &Target,
        external: &External,
        schema: &TargetSchema,
        encoding: Encoding,
        digest: DigestChange,
    ) -> Result<OutsideRows> {
        let columns: Vec<RowColumn> =
            COLUMNS.into_iter().map(|(name, oid)| RowColumn::new(name, oid)).collect();
        let mut all = OutsideRows { rows: TupleStore::held(&columns, rows::work_mem())? };
        let sent = delivery_state::delivery_status(target.id)?.map_or(0, |status| status.sent);
        let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
        let recalling = memo::session_of_look(flow)?;
        let _running = recalling.as_ref().map(|r| r.begin());
        let _now = PinnedSnapshot::take();
        relation_locks::check_not_rewritten(flow)?;
        let mut encoder = Encoder::new(target, encoding)?;
        let mut types = encoder.types().to_vec();
        types.push(pg_sys::TEXTOID);
        let json = types.len() - 1;
        let statements = SpiSession::connect()?;
        statements.reads_many();
        let failing = failing_sources(flow)?;
        let ledger = with_values(target, encoding, &ledger_rows(flow, target, external, &failing)?);
        row_stream::each(&statements, &ledger, &[arg(sent)], &types, &mut |row| {
            let is_known = row.get::<bool>(2).unwrap_or(false);
            let (key, values) = encoder.encode(row, is_known)?;
            let change = Change { key, row: values.filter(|_| is_known), version: 0 };
            let digests = digest(schema, &change).map_err(Error::internal)?;
            all.push(digests, if is_known { KNOWN } else { KEY_ONLY }, row, json);
            Ok(true)
        })?;
        let unsettled = with_values(target, encoding, &unsettled_keys(target, external));
        row_stream::each(&statements, &unsettled, &[arg(sent)], &types, &mut |row| {
            let (key, _) = encoder.encode(row, false)?;
            let change = Change { key, row: None, version: 0 };
            let digests = digest(schema, &change).map_err(Error::internal)?;
            all.push(digests, UNSETTLED, row, json);
            Ok(true)
        })?;
        Ok(all)
    }

    fn push(&mut self, digests: ChangeDigests, known: i32, row: Row, json: usize) {
        let (key_high, key_low) = digests.key.halves();
        let (row_high, row_low) = digests.row.unwrap_or_default().halves();
        self.rows.push(&[
            key_high.into_datum(),
            key_low.into_datum(),
            row_high.into_datum(),
            row_low.into_datum(),
            known.into_datum(),
            row.datum(json),
        ]);
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns the digests of the parts of these ranges.
    pub fn part_digests(&mut self, ranges: &[KeyRange], digits: u32) -> PartDigests {
        let mut sums = PartSums::new(ranges, digits);
        self.rows.rewind();
        while self.rows.advance() {
            pgrx::check_for_interrupts!();
            match self.known() {
                ExpectedRow::Known(row) => sums.add(self.digest(0), row),
                // Its digest differs from that of any row, so that its range is read.
                ExpectedRow::KeyOnly => sums.add(self.digest(0), Digest::default()),
                ExpectedRow::Unsettled => {}
            }
        }
        sums.finish()
    }

    /// Returns the rows of these ranges, and their keys as JSON objects.
    pub fn in_ranges(&mut self, ranges: &[KeyRange]) -> RowsInRanges {
        let ranges = RangeSet::new(ranges);
        let mut found = RowsInRanges::default();
        self.rows.rewind();
        while self.rows.advance() {
            pgrx::check_for_interrupts!();
            let key = self.digest(0);
            if ranges.contains(key) {
                found.rows.insert(key, self.known());
                found.keys.insert(key, self.rows.get::<String>(5).unwrap_or_default());
            }
        }
        found
    }

    /// Returns the digest in a column of the row just read and the column after it.
    fn digest(&self, column: usize) -> Digest {
        let half = |column| self.rows.get::<i64>(column).unwrap_or(0);
        Digest::from_halves(half(column), half(column + 1))
    }

    fn known(&self) -> ExpectedRow {
        match self.rows.get::<i32>(4) {
            Some(KNOWN) => ExpectedRow::Known(self.digest(2)),
            Some(KEY_ONLY) => ExpectedRow::KeyOnly,
            _ => ExpectedRow::Unsettled,
        }
    }
}

/// The rows of some ranges that a target should hold, by the digests of their keys.
#[derive(Default)]
pub struct RowsInRanges {
    pub rows: HashMap<Digest, ExpectedRow>,
    /// The keys as the texts of JSON objects.
    pub keys: HashMap<Digest, String>,
}

/// Returns a SELECT of entries `o` in the form that an encoder reads, each with its key as the text
/// of a JSON object.
fn with_values(target: &Target, encoding: Encoding, entries: &str) -> String {
    let EntryValues { values, also } = EntryValues::new(target, encoding);
    format!(
        "select o.position, o.version, o.upsert, o.refused is not null, {values}, o.json::pg_catalog.text
           from ({entries}) as o{also}"
    )
}

/// Returns a SELECT of the ledger's rows in the form of outbox entries. `upsert` says whether the
/// row is known. Leaves out keys with a change after position `$1`, and keys with a rejected
/// change.
fn ledger_rows(
    flow: &Flow,
    target: &Target,
    external: &External,
    failing: &[bool],
) -> Result<String> {
    let at = KeyExprs::new(&flow.sources[0], target);
    let is_known = format!("coalesce(x.{FINGERPRINT} operator(pg_catalog.=) n.fingerprint, false)");
    let values: Vec<String> = target
        .columns
        .iter()
        .zip(numbered("c", target.columns.len()))
        .map(|(column, c)| {
            let new = column.as_stored(&format!("n.{c}"));
            match target.key.iter().any(|k| k.name == column.name) {
                // If the row is not known, the query may return the key with other bytes.
                true => {
                    format!("case when {is_known} then {new} else x.{} end as {c}", column.quoted())
                }
                false => format!("{new} as {c}"),
            }
        })
        .collect();
    Ok(format!(
        "select 0::pg_catalog.int8 as position, 0::pg_catalog.int8 as version, {is_known} as upsert,
                null::pg_catalog.jsonb as refused, {values}, {json} as json
           from {ledger} as x
           left join (select n.*, {fingerprint} as fingerprint from ({query}) as n offset 0) as n
             on {same}
          where not exists (select from {outbox} as u where {unsettled} and {same_outbox})",
        values = values.join(", "),
        json = key_object(target, &at.target_key),
        ledger = target.relation_name(),
        fingerprint = ledger::fingerprint(target, "n.c"),
        query = expected_rows_sql(flow, target, failing)?,
        same = all_equal(&target.key, &at.new_key, &at.target_key),
        outbox = external.outbox_view,
        unsettled = unsettled_sql("u"),
        same_outbox = all_equal(&stored(&target.key), &outbox_keys(target, "u"), &at.target_key),
    ))
}

/// Returns a SELECT of the outbox entries whose keys [`ledger_rows`] leaves out. None is an upsert,
/// because the row of a rejected entry may have no form in which coco could send it.
fn unsettled_keys(target: &Target, external: &External) -> String {
    format!(
        "select u.position, u.version, false as upsert, u.refused, {},
                {} as json
           from {} as u where {}",
        numbered("u.c", target.columns.len()).join(", "),
        key_object(target, &outbox_keys(target, "u")),
        external.outbox_view,
        unsettled_sql("u"),
    )
}

/// Returns a condition on an outbox entry: it comes after position `$1`, or was rejected.
fn unsettled_sql(entry: &str) -> String {
    format!("({entry}.position operator(pg_catalog.>) $1 or {entry}.refused is not null)")
}

fn outbox_keys(target: &Target, entry: &str) -> Vec<String> {
    outbox_key(target).iter().map(|k| format!("{entry}.{k}")).collect()
}

/// Returns an SQL expression for a key with these values as a jsonb object.
fn key_object(target: &Target, values: &[String]) -> String {
    object_sql(target.key.iter().map(|k| k.name.as_str()).zip(values.iter().cloned()))
}
