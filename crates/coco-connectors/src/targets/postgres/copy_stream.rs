//! Encodes rows as the data of a COPY while they arrive.

use std::vec::IntoIter;

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::encode::{self, Tuples};
use crate::targets::pre_commit_stream::RowStream;
use coco_core::change::Values;

pub struct CopyStream<'a> {
    rows: &'a mut RowStream,
    /// Rows that have arrived and are not encoded yet.
    piece: IntoIter<Values>,
    /// `None` after the last piece.
    tuples: Option<Tuples>,
    columns: usize,
    is_well_formed: bool,
}

impl CopyStream<'_> {
    /// Creates a stream of rows with this many columns.
    pub fn new(rows: &mut RowStream, columns: usize) -> CopyStream<'_> {
        let tuples = Some(Tuples::new(columns));
        CopyStream { rows, piece: vec![].into_iter(), tuples, columns, is_well_formed: true }
    }

    pub fn pieces(&mut self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, async |this| Some((this.next().await?, this)))
    }

    /// Reports whether all rows had the form of the columns. Malformed rows are left out.
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
