//! Rows that come while they are sent, as the data of a COPY.

use std::vec::IntoIter;

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::encode::{self, Tuples};
use crate::targets::pre_commit_stream::RowStream;
use coco_core::change::Values;

pub struct CopyStream<'a> {
    rows: &'a mut RowStream,
    /// Those that are here.
    piece: IntoIter<Values>,
    /// `None` after the last.
    tuples: Option<Tuples>,
    columns: usize,
    is_well_formed: bool,
}

impl CopyStream<'_> {
    /// Of rows of so many columns.
    pub fn new(rows: &mut RowStream, columns: usize) -> CopyStream<'_> {
        let tuples = Some(Tuples::new(columns));
        CopyStream { rows, piece: vec![].into_iter(), tuples, columns, is_well_formed: true }
    }

    pub fn pieces(&mut self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, async |this| Some((this.next().await?, this)))
    }

    /// Whether all were in the form of the columns: those that were not are left out.
    pub fn is_well_formed(&self) -> bool {
        self.is_well_formed
    }

    async fn next(&mut self) -> Option<Bytes> {
        let tuples = self.tuples.as_mut()?;
        loop {
            for row in self.piece.by_ref() {
                let Some(fields) = encode::fields(&row, self.columns) else {
                    self.is_well_formed = false;
                    continue;
                };
                if let Some(piece) = tuples.push(fields) {
                    return Some(piece);
                }
            }
            match self.rows.next().await {
                Some(rows) => self.piece = rows.into_iter(),
                None => return self.tuples.take().map(Tuples::finish),
            }
        }
    }
}
