//! What a first fill has to send, kept by the process that sends it, and not in the outbox.
//!
//! Whatever hinders that process, what has not arrived is put into the outbox then. Where it could not even do
//! that, the target is found to be marked (`initial_load_until` in coco.delivery_state), and is sent all once more.

use pgrx::pg_sys;
use std::cell::Cell;
use std::time::{Duration, Instant};

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
use coco_core::delivery::{Ahead, Encoding, Shape};

/// For no longer than that: so much is sent once more where the process is lost.
const LONGEST: Duration = Duration::from_secs(10);

/// The columns of an outbox but for its values, as [`select_sql`] has them.
const HEAD: [(&str, pg_sys::Oid); 4] = [
    ("position", pg_sys::INT8OID),
    ("version", pg_sys::INT8OID),
    ("upsert", pg_sys::BOOLOID),
    ("refused", pg_sys::JSONBOID),
];

/// That a process keeps what is to be sent to a target.
pub struct BufferedTarget {
    /// What takes rows at once.
    pub ahead: Option<Box<dyn Ahead>>,
}

/// Rows of one target, each as its entry in the outbox would be.
pub struct InitialLoadBuffer {
    pub flow: String,
    pub target: i32,
    /// What they were made for.
    shape: Shape,
    rows: TupleStore,
    columns: Vec<RowColumn>,
    /// The columns of the target.
    stored: Vec<Column>,
    /// The position of the first.
    first: i64,
    /// How many were read.
    read: usize,
    /// Those that are sent at once, until the transaction ends in which they are kept.
    feed: Option<PreCommitFeed>,
    since: Instant,
}

impl InitialLoadBuffer {
    /// None yet. To be filled in this transaction, with positions from `first`.
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
        Ok(InitialLoadBuffer {
            flow: flow.name.clone(),
            target: target.id,
            shape: foreign_server::target_schema(&flow.name, target)?,
            rows: TupleStore::held(&columns, rows::maintenance_work_mem())?,
            columns,
            stored: target.columns.clone(),
            first,
            read: 0,
            feed: hold.ahead.map(feed).transpose()?,
            since,
        })
    }

    /// What is to be kept of rows `n`; `$1` is their version.
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

    /// Sends ahead what there is room for by now.
    pub fn feed(&mut self) {
        let Some(feed) = &mut self.feed else { return };
        feed.go_on(&mut self.rows);
        if feed.has_read(&self.rows) {
            self.end_feed();
        }
    }

    /// Sends nothing ahead any more: to be called in the transaction in which they are kept.
    pub fn end_feed(&mut self) {
        if let Some(feed) = self.feed.take() {
            self.read = feed.end();
            self.rows.seek(self.read);
        }
    }

    /// Up to where they were read, or sent ahead; `None`: none was.
    pub fn upto(&self) -> Option<i64> {
        (self.read > 0).then(|| self.first + self.read as i64 - 1)
    }

    /// Has all read once more.
    pub fn restart(&mut self) {
        self.read = 0;
        self.rows.rewind();
    }

    /// Whether that is what the target is to have now.
    pub fn fits(&self, shape: &Shape) -> bool {
        self.shape == *shape
    }

    /// Whether they were kept for long enough.
    pub fn is_over(&self) -> bool {
        self.since.elapsed() > LONGEST
    }

    /// Whether all up to this position is all there is.
    pub fn is_all(&self, upto: i64) -> bool {
        upto >= self.last()
    }

    fn last(&self) -> i64 {
        self.first + self.rows.len() as i64 - 1
    }

    /// Reads what comes next. `None` where nothing is left, or a row cannot be encoded: in the outbox it is found out
    /// which one.
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
            // Written as they are read.
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

    /// Puts all, or what comes after a position, into the outbox: before all that is there, since its place was
    /// kept.
    pub fn queue(
        mut self,
        flow: &Flow,
        target: &Target,
        external: &External,
        after: Option<i64>,
    ) -> Result<()> {
        // Of another shape it stays marked.
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
