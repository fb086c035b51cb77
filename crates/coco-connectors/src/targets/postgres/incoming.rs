//! Rows that come while they are sent, as the data of a COPY.

use std::vec::IntoIter;

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::encode::{self, Tuples};
use crate::targets::ahead::Arriving;
use coco_core::delivery::Values;

pub struct Incoming<'a> {
    rows: &'a mut Arriving,
    /// Those that are here.
    piece: IntoIter<Values>,
    /// `None` after the last.
    tuples: Option<Tuples>,
    columns: usize,
    fit: bool,
}

impl Incoming<'_> {
    /// Of rows of so many columns.
    pub fn new(rows: &mut Arriving, columns: usize) -> Incoming<'_> {
        let tuples = Some(Tuples::new(columns));
        Incoming { rows, piece: vec![].into_iter(), tuples, columns, fit: true }
    }

    pub fn pieces(&mut self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, async |this| Some((this.next().await?, this)))
    }

    /// Whether all were in the form of the columns: those that were not are left out.
    pub fn fit(&self) -> bool {
        self.fit
    }

    async fn next(&mut self) -> Option<Bytes> {
        let tuples = self.tuples.as_mut()?;
        loop {
            for row in self.piece.by_ref() {
                let Some(fields) = encode::fields(&row, self.columns) else {
                    self.fit = false;
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
