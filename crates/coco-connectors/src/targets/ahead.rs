//! Rows that a target takes while others are still evaluated, in a transaction of its own that is committed only
//! once they are noted on this side: nobody sees what may still be undone here.

use tokio::sync::{mpsc, oneshot};

use coco_core::delivery::{Ahead, Values};

/// Pieces of rows that may wait to be taken. A sender is never made to wait for room.
const PIECES: usize = 64;

/// Where the rows are put. Dropped after the last of them.
pub struct Outlet(mpsc::Sender<Vec<Values>>);

/// Says that all rows are noted. Dropped instead, it has them taken back.
pub struct Note(oneshot::Sender<()>);

/// Rows on their way to [`super::Target::fill`].
pub struct Arriving {
    rows: mpsc::Receiver<Vec<Values>>,
    note: oneshot::Receiver<()>,
    /// Whether they were noted, once that is known.
    noted: Option<bool>,
}

/// Both ends of such a way.
pub fn way() -> (Outlet, Note, Arriving) {
    let ((put, rows), (say, note)) = (mpsc::channel(PIECES), oneshot::channel());
    (Outlet(put), Note(say), Arriving { rows, note, noted: None })
}

impl Ahead for Outlet {
    fn has_room(&self) -> bool {
        self.0.capacity() > 0 && !self.0.is_closed()
    }

    fn put(&self, rows: Vec<Values>) -> bool {
        self.0.try_send(rows).is_ok()
    }
}

impl Note {
    pub fn noted(self) {
        // Where nobody takes the rows any more that shows in what becomes of them.
        self.0.send(()).ok();
    }
}

impl Arriving {
    /// The next rows; `None` after the last, or where they are to be taken back.
    pub async fn next(&mut self) -> Option<Vec<Values>> {
        if self.noted.is_some() {
            return None;
        }
        tokio::select! {
            biased;
            rows = self.rows.recv() => rows,
            note = &mut self.note => {
                self.noted = Some(note.is_ok());
                None
            }
        }
    }

    /// Whether all that came are noted; waits until that is known.
    pub async fn noted(&mut self) -> bool {
        match self.noted {
            Some(noted) => noted,
            None => {
                let noted = (&mut self.note).await.is_ok();
                self.noted = Some(noted);
                noted
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(work)
    }

    fn piece(byte: u8) -> Vec<Values> {
        vec![Values::Binary(vec![byte])]
    }

    #[test]
    fn rows_come_before_they_are_noted() {
        let (outlet, note, mut arriving) = way();
        assert!(outlet.put(piece(1)) && outlet.put(piece(2)));
        drop(outlet);
        note.noted();
        run(async {
            assert_eq!(arriving.next().await, Some(piece(1)));
            assert_eq!(arriving.next().await, Some(piece(2)));
            assert_eq!(arriving.next().await, None);
            assert!(arriving.noted().await);
        });
    }

    #[test]
    fn they_are_taken_back_also_while_more_may_come() {
        let (outlet, note, mut arriving) = way();
        assert!(outlet.put(piece(1)));
        drop(note);
        run(async {
            assert_eq!(arriving.next().await, Some(piece(1)));
            assert_eq!(arriving.next().await, None);
            assert!(!arriving.noted().await);
        });
    }

    #[test]
    fn nobody_waits_for_room() {
        let (outlet, _note, arriving) = way();
        for _ in 0..PIECES {
            assert!(outlet.has_room() && outlet.put(piece(0)));
        }
        assert!(!outlet.has_room() && !outlet.put(piece(0)));
        drop(arriving);
        assert!(!outlet.has_room());
    }
}
