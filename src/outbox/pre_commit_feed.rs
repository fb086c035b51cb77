//! Sends rows of an initial load while coco still evaluates others, as far as the target takes
//! them. Nobody sees these rows in the target before coco has committed locally.

use std::time::Instant;

use crate::catalog::model::Target;
use crate::outbox::row_encoder::Encoder;
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::TupleStore;
use coco_core::change::{Encoding, RowSink, Values};

/// The approximate number of bytes that coco passes to the connector at a time.
const PIECE: usize = 64 << 10;

/// The state of sending rows from a growing buffer before the commit.
pub struct PreCommitFeed {
    to: Box<dyn RowSink>,
    encoder: Encoder,
    /// The rows that coco sends next, and their bytes.
    piece: Vec<Values>,
    bytes: usize,
    /// How many rows were read, and how many of these were sent.
    read: usize,
    sent: usize,
    /// Whether no more rows are sent before the commit, and the time after which this is always the
    /// case.
    over: bool,
    end: Instant,
}

impl PreCommitFeed {
    /// Returns a feed that sends rows until `end` at the latest.
    pub fn new(target: &Target, to: Box<dyn RowSink>, end: Instant) -> Result<PreCommitFeed> {
        let encoder = Encoder::new(target, Encoding::Binary)?;
        Ok(PreCommitFeed {
            to,
            encoder,
            piece: vec![],
            bytes: 0,
            read: 0,
            sent: 0,
            over: false,
            end,
        })
    }

    /// Sends the rows that were added, as far as the connector takes them. The rows have the
    /// columns of [`crate::outbox::change_batch::select_sql`], and the feed must be their only
    /// reader.
    pub fn go_on(&mut self, rows: &mut TupleStore) {
        // The process that sends the rows after the commit reports the error.
        if self.read == 0 && !self.over && self.encoder.check(rows).is_err() {
            self.over = true;
        }
        while self.read < rows.len() && !self.over && (self.bytes > 0 || self.to.has_capacity()) {
            // To read rows from disk alternately with writing them takes longer than to read all of
            // them later.
            if !rows.is_in_memory() || !rows.advance() {
                self.over = true;
                return;
            }
            self.read += 1;
            match self.encoder.row(rows.row()) {
                Ok(row) => {
                    self.bytes += row.bytes();
                    self.piece.push(row);
                }
                // The process that sends the row after the commit reports the error.
                Err(_) => self.over = true,
            }
            if self.bytes >= PIECE {
                self.put();
            }
        }
    }

    /// Reports whether the feed has read all of these rows.
    pub fn has_read(&self, rows: &TupleStore) -> bool {
        self.read == rows.len()
    }

    /// Sends the rows that were read, and reads no more. Returns how many rows were sent.
    pub fn end(mut self) -> usize {
        if !self.over && self.bytes > 0 {
            self.put();
        }
        self.sent
    }

    fn put(&mut self) {
        let rows = std::mem::take(&mut self.piece);
        self.bytes = 0;
        let count = rows.len();
        match self.to.try_push(rows) {
            true => self.sent += count,
            false => self.over = true,
        }
        self.over |= Instant::now() > self.end;
    }
}
