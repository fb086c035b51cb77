//! The initial-load buffer: rows of an initial load that the process delivers from its own memory,
//! instead of from the outbox.
//!
//! If anything stops this process, it moves the undelivered rows to the outbox. If it cannot do
//! that either, the mark `initial_load_until` in `coco_internal.delivery_state` remains, and coco exports
//! all rows of the target again.

use pgrx::pg_sys;
use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::catalog::locks::DeliveryLock;
use crate::catalog::model::{External, Flow, Target};
use crate::outbox::change_batch::{BatchReader, BatchSize, ChangeBatch, select_sql};
use crate::outbox::pre_commit_feed::PreCommitFeed;
use crate::outbox::{delivery_state, foreign_server};
use crate::pg::acting_role::RoleGuard;
use crate::pg::bulk_insert::spec::{AfterRow, RowBuffer};
use crate::pg::columns::{Column, numbered, stored};
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::subtransaction::subtransaction;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use coco_core::change::{Encoding, RowSink, TargetSchema};

/// How long a process keeps rows in the buffer. The limit bounds the work that coco repeats if the
/// process is lost.
const LONGEST: Duration = Duration::from_secs(10);

/// The columns of an outbox entry before its values, as [`select_sql`] returns them.
const HEAD: [(&str, pg_sys::Oid); 4] = [
    ("position", pg_sys::INT8OID),
    ("version", pg_sys::INT8OID),
    ("upsert", pg_sys::BOOLOID),
    ("refused", pg_sys::JSONBOID),
];

/// A request to buffer the rows for a target.
pub struct BufferedTarget {
    /// Prevents other processes from delivering to the target.
    pub lock: DeliveryLock,
    /// Takes rows before the commit, if the connector supports this.
    pub ahead: Option<Box<dyn RowSink>>,
}

/// The buffered rows of one target, each in the form of an outbox entry.
///
/// The buffer owns the lock on the target until the sender of its rows takes the lock over. If the
/// buffer is dropped before, for example because the load is rolled back, it releases the lock.
pub struct InitialLoadBuffer {
    lock: Option<DeliveryLock>,
    pub flow: String,
    pub target: i32,
    /// The schema for which the rows were made.
    shape: TargetSchema,
    rows: TupleStore,
    columns: Vec<RowColumn>,
    /// The target's columns.
    stored: Vec<Column>,
    /// The position of the first row.
    first: i64,
    /// How many rows were read.
    read: usize,
    /// Sends rows before the commit, until the transaction that fills the buffer ends.
    feed: Option<PreCommitFeed>,
    since: Instant,
}

impl InitialLoadBuffer {
    /// Returns an empty buffer whose positions begin at `first`. The caller fills it in this
    /// transaction.
    pub fn new(
        flow: &Flow,
        target: &Target,
        first: i64,
        hold: BufferedTarget,
    ) -> Result<InitialLoadBuffer> {
        let head = HEAD.into_iter().map(|(name, oid)| RowColumn::new(name, oid));
        let columns: Vec<RowColumn> =
            head.chain(rows::typed("c", &stored(&target.columns))).collect();
        let since = Instant::now();
        let feed = |ahead| PreCommitFeed::new(target, ahead, since + LONGEST);
        let BufferedTarget { lock, ahead } = hold;
        Ok(InitialLoadBuffer {
            lock: Some(lock),
            flow: flow.name.clone(),
            target: target.id,
            shape: foreign_server::target_schema(&flow.name, target)?,
            rows: TupleStore::held(&columns, rows::maintenance_work_mem())?,
            columns,
            stored: target.columns.clone(),
            first,
            read: 0,
            feed: ahead.map(feed).transpose()?,
            since,
        })
    }

    /// Returns the receiver of the rows `n` that the buffer keeps. `$1` is their version.
    pub fn keeping(&mut self) -> RowBuffer<'_> {
        let head = ["$1", "true", "null::pg_catalog.jsonb"].map(str::to_owned);
        let values = numbered("n.c", self.stored.len());
        let values = self.stored.iter().zip(values).map(|(c, n)| c.as_stored(&n));
        let expressions = head.into_iter().chain(values).collect();
        let then = self.feed.as_mut().map(|feed| {
            let then: AfterRow = Box::new(|rows| feed.go_on(rows));
            then
        });
        RowBuffer { rows: &mut self.rows, expressions, first: self.first, then }
    }

    /// Sends as many rows before the commit as the target takes now.
    pub fn feed(&mut self) {
        let Some(feed) = &mut self.feed else { return };
        feed.go_on(&mut self.rows);
        if feed.has_read(&self.rows) {
            self.end_feed();
        }
    }

    /// Stops sending rows before the commit. Call this in the transaction that fills the buffer.
    pub fn end_feed(&mut self) {
        if let Some(feed) = self.feed.take() {
            self.read = feed.end();
            self.rows.seek(self.read);
        }
    }

    /// Returns the position of the last row that was read or sent before the commit; `None` if
    /// there is none.
    pub fn upto(&self) -> Option<i64> {
        (self.read > 0).then(|| self.first + self.read as i64 - 1)
    }

    /// Returns the lock on the target. The caller keeps it as long as it delivers to the target;
    /// `None` if a caller took it before.
    pub fn take_lock(&mut self) -> Option<DeliveryLock> {
        self.lock.take()
    }

    /// Starts over at the first row.
    pub fn restart(&mut self) {
        self.read = 0;
        self.rows.rewind();
    }

    /// Reports whether the rows have the target's current schema.
    pub fn fits(&self, shape: &TargetSchema) -> bool {
        self.shape.has_same_rows(shape)
    }

    /// Reports whether the buffer has reached its time limit.
    pub fn is_over(&self) -> bool {
        self.since.elapsed() > LONGEST
    }

    /// Reports whether the buffer has no row after this position.
    pub fn is_all(&self, upto: i64) -> bool {
        upto >= self.last()
    }

    fn last(&self) -> i64 {
        self.first + self.rows.len() as i64 - 1
    }

    /// Reads the next batch. Returns `None` if no row is left or if a row cannot be encoded. When
    /// the rows are in the outbox, the reader of the outbox determines the row that cannot be
    /// encoded.
    pub fn read(
        &mut self,
        flow: &Flow,
        target: &Target,
        encoding: Encoding,
        size: BatchSize,
    ) -> Result<Option<ChangeBatch>> {
        enum Stop {
            Unfit,
            Error(Error),
        }
        let before = self.read;
        let read = subtransaction(
            || self.read_batch(flow, target, encoding, size).map_err(Stop::Error),
            |_| Stop::Unfit,
        );
        match read {
            Ok(batch) => Ok(batch),
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::Unfit) => {
                self.read = before;
                self.rows.seek(before);
                Ok(None)
            }
        }
    }

    fn read_batch(
        &mut self,
        flow: &Flow,
        target: &Target,
        encoding: Encoding,
        size: BatchSize,
    ) -> Result<Option<ChangeBatch>> {
        let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
        let _snapshot = PinnedSnapshot::take();
        let after = self.first + self.read as i64 - 1;
        let mut reading = BatchReader::new(target, encoding, size, after)?;
        let taken = match encoding {
            // Encoded directly from the buffer.
            Encoding::Binary => reading.add_rows(&mut self.rows)?,
            Encoding::Json => {
                let some = self.rows.take_some(&self.columns, size.changes, size.bytes)?;
                let statements = SpiSession::connect()?;
                statements.name("coco_held", &some)?;
                let from = select_sql(target, encoding, "coco_held");
                reading.add_all(&statements, &from, &[], &Cell::new(0))?;
                some.len()
            }
        };
        let batch = reading.done();
        let count = batch.as_ref().map_or(0, |batch| batch.changes.len());
        self.read += count;
        if count < taken {
            self.rows.seek(self.read);
        }
        Ok(batch)
    }

    /// Moves all rows, or those after a position, to the outbox. The rows precede all entries of
    /// the outbox, because their positions were reserved.
    pub fn queue(
        mut self,
        flow: &Flow,
        target: &Target,
        external: &External,
        after: Option<i64>,
    ) -> Result<()> {
        // If the target has another schema now, the mark stays, and coco exports all rows again.
        if !self.fits(&foreign_server::target_schema(&flow.name, target)?) {
            return Ok(());
        }
        let acting = RoleGuard::extension_owner()?;
        let arrived = after.map_or(0, |after| after + 1 - self.first);
        self.rows.seek(usize::try_from(arrived).unwrap_or(0));
        let rest = self.rows.take(&self.columns, usize::MAX)?;
        let statements = SpiSession::connect()?;
        statements.name("coco_held", &rest)?;
        let columns: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
        let columns = columns.join(", ");
        statements.execute(
            &format!(
                "insert into {} ({columns}) overriding system value select {columns} from coco_held",
                external.outbox
            ),
            &[],
        )?;
        drop(statements);
        drop(acting);
        delivery_state::note_initial_load_sent(self.target)
    }
}
