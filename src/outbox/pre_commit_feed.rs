//! Rows of a first fill that are sent while others are still evaluated, as far as their target takes them at once.
//! Nobody sees them there before they are committed here.

use std::time::Instant;

use crate::catalog::model::Target;
use crate::outbox::row_encoder::Encoder;
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::TupleStore;
use coco_core::delivery::{Ahead, Encoding, Values};

/// Bytes that are sent at once, about.
const PIECE: usize = 64 << 10;

/// What is on its way so, of rows that become more.
pub struct PreCommitFeed {
    to: Box<dyn Ahead>,
    encoder: Encoder,
    /// What is put there next, and its bytes.
    piece: Vec<Values>,
    bytes: usize,
    /// Rows that were read, and of these those that were put there.
    read: usize,
    sent: usize,
    /// No more are; from when on that is so in any case.
    over: bool,
    end: Instant,
}

impl PreCommitFeed {
    /// Until `end`, at most.
    pub fn new(target: &Target, to: Box<dyn Ahead>, end: Instant) -> Result<PreCommitFeed> {
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

    /// Sends what has been added, while there is room: rows as [`crate::outbox::change_batch::select_sql`] has them, that nobody else
    /// reads.
    pub fn go_on(&mut self, rows: &mut TupleStore) {
        // Who sends them later says why not.
        if self.read == 0 && !self.over && self.encoder.check(rows).is_err() {
            self.over = true;
        }
        while self.read < rows.len() && !self.over && (self.bytes > 0 || self.to.has_room()) {
            // To read from disk between two that are written takes longer than to read all later.
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
                // Who sends it later says why not.
                Err(_) => self.over = true,
            }
            if self.bytes >= PIECE {
                self.put();
            }
        }
    }

    /// Whether all of these were read.
    pub fn has_read(&self, rows: &TupleStore) -> bool {
        self.read == rows.len()
    }

    /// Sends what was read, and no more than that; returns how many rows are on their way.
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
        match self.to.put(rows) {
            true => self.sent += count,
            false => self.over = true,
        }
        self.over |= Instant::now() > self.end;
    }
}
