//! Candidates as rows: the columns that the statements of [`crate::update::detect`] return, and
//! reading them. [`crate::update::candidate_sql`] builds the statements.

use pgrx::pg_sys;

use crate::catalog::item_failure::ItemFailure;
use crate::catalog::model::Source;
use crate::pg::tuplestore::named_row::named_row;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::query::compose;
use coco_core::decision::{Decision, Mode, decide};
use coco_core::version::{
    CommittedVersion, Failure, Fingerprint, LogicId, Ordinal, ProcessOrdinal, SourceVersion,
};

named_row! {
    /// The columns of a candidate after its key `k1…`.
    pub struct CandidateRow, CandidateExprs {
        /// Whether the source has the item.
        present: bool,
        ordinal: i64,
        fingerprint: pgrx::Uuid,
        /// Whether the item has a tracking row, from which the following columns come.
        tracked: bool,
        source_ordinal: i64,
        content_fingerprint: pgrx::Uuid,
        logic_id: i32,
        process_ordinal: i64,
        failed: bool,
        failed_fingerprint: pgrx::Uuid,
        failed_logic: i32,
        due: bool,
        attempts: i32,
        claims: String,
        /// Whether a lookup changed that the item's result depends on.
        forced: bool,
        /// The number of rows with the item's key.
        rows: i64,
        /// Why coco could not read the item.
        unread: String,
    }
}

/// Returns the columns of the keys to look at: `k1…`, and whether coco forces the item.
pub fn key_columns(source: &Source) -> Vec<RowColumn> {
    let mut columns = rows::typed("k", &source.key);
    columns.push(RowColumn::new("forced", pg_sys::BOOLOID));
    columns
}

/// Returns the columns of candidates: `k1…`, those of [`CandidateRow`], and with `carry` the
/// columns that the query uses.
pub fn candidate_columns(source: &Source, carry: bool) -> Vec<RowColumn> {
    let mut columns = rows::typed("k", &source.key);
    columns.extend(CandidateRow::columns());
    if carry {
        columns.extend(compose::carried(source).into_iter().map(|(column, _)| column));
    }
    columns
}

/// What coco knows about one candidate.
pub struct Candidate {
    pub incoming: Option<SourceVersion>,
    pub stored: Option<CommittedVersion>,
    pub failure: Option<Failure>,
    pub process_ordinal: Option<ProcessOrdinal>,
    pub attempts: i32,
    /// The target key that the item claims.
    pub claims: Option<String>,
    /// Whether a lookup changed that the item's result depends on.
    pub forced: bool,
    /// Why coco could not read the item. Only its tracking row is known then.
    pub unread: Option<ItemFailure>,
}

impl From<CandidateRow> for Candidate {
    fn from(row: CandidateRow) -> Candidate {
        let is = |flag: Option<bool>| flag.unwrap_or(false);
        let fingerprint = |value: Option<pgrx::Uuid>| value.map(|u| Fingerprint(*u.as_bytes()));
        Candidate {
            incoming: is(row.present).then(|| SourceVersion {
                ordinal: row.ordinal.map(Ordinal),
                content: fingerprint(row.fingerprint),
            }),
            stored: is(row.tracked).then(|| CommittedVersion {
                ordinal: row.source_ordinal.map(Ordinal),
                content: fingerprint(row.content_fingerprint),
                logic: row.logic_id.map(LogicId),
            }),
            failure: is(row.failed).then(|| Failure {
                content: fingerprint(row.failed_fingerprint),
                logic: row.failed_logic.map(LogicId),
                is_due: is(row.due),
            }),
            process_ordinal: row.process_ordinal.map(ProcessOrdinal),
            attempts: row.attempts.unwrap_or(0),
            claims: row.claims,
            forced: is(row.forced),
            unread: row.unread.map(|why| ItemFailure::from_text(&why)),
        }
    }
}

impl Candidate {
    /// Reports whether the item exists, with its committed content.
    pub fn is_as_committed(&self) -> bool {
        let contents = self.stored.zip(self.incoming).map(|(s, i)| (s.content, i.content));
        contents.is_some_and(|(before, now)| before.is_some() && before == now)
    }

    /// Decides what to do with the item. A forced item that exists is always evaluated.
    pub fn decide(&self, logic: LogicId, mode: Mode) -> Decision {
        if self.forced && self.incoming.is_some() {
            return Decision::Evaluate;
        }
        // The tracking row of an item that was never committed contains only its failure.
        let gone = self.incoming.is_none();
        let committed = self.stored.as_ref().filter(|s| s.logic.is_some() || gone);
        decide(committed, self.incoming.as_ref(), self.failure.as_ref(), logic, mode)
    }
}

/// The candidates that a scan or a lookup by key found, in the order in which it found them.
pub struct Candidates {
    rows: TupleStore,
    keys: usize,
    /// The number of columns before the carried ones.
    head: usize,
    columns: usize,
    /// Whether the candidates carry the columns that the query uses of their items:
    /// [`compose::carried`].
    pub carry: bool,
    read: usize,
    /// The number of candidates after which [`Candidates::next`] pauses.
    until: usize,
}

impl Candidates {
    /// Wraps rows of [`candidate_columns`].
    pub fn new(source: &Source, rows: TupleStore, carry: bool) -> Candidates {
        Candidates {
            rows,
            keys: source.key.len(),
            head: candidate_columns(source, false).len(),
            columns: candidate_columns(source, carry).len(),
            carry,
            read: 0,
            until: usize::MAX,
        }
    }

    /// Returns the rows, of [`candidate_columns`].
    pub fn rows(&self) -> &TupleStore {
        &self.rows
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Pauses after this many candidates; [`Candidates::rest`] continues.
    pub fn first(&mut self, many: usize) -> &mut Candidates {
        self.until = many;
        self
    }

    /// Continues after the pause of [`Candidates::first`], up to the end.
    pub fn rest(&mut self) -> &mut Candidates {
        self.until = usize::MAX;
        self
    }

    /// Moves to the next item; `None` at the end.
    pub fn next(&mut self) -> Option<Candidate> {
        if self.read == self.until || !self.rows.advance() {
            return None;
        }
        self.read += 1;
        Some(CandidateRow::read(self.rows.row(), self.keys).into())
    }

    /// Returns the key of the item that was just read.
    pub fn key(&self) -> Vec<Option<pg_sys::Datum>> {
        (0..self.keys).map(|k| self.rows.datum(k)).collect()
    }

    /// Returns the carried columns of the item that was just read.
    pub fn carried(&self) -> Vec<Option<pg_sys::Datum>> {
        (self.head..self.columns).map(|c| self.rows.datum(c)).collect()
    }
}
