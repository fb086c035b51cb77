//! A stream of rows to a target before the local commit. The target receives the rows in a
//! transaction of its own. It commits that transaction only after the local commit, so nobody sees
//! rows that may still be rolled back.

use tokio::sync::{mpsc, oneshot};

use coco_core::change::{RowSink, Values};

/// Number of pieces that the stream buffers. A sender never waits for space.
const MAX_QUEUED: usize = 64;

/// The sending end of the stream. It is dropped after the last rows.
pub struct RowSender(mpsc::Sender<Vec<Values>>);

/// Confirms the local commit. If it is dropped instead, the target discards the rows.
pub struct CommitSignal(oneshot::Sender<()>);

/// The receiving end of the stream, for [`super::Target::load_stream`].
pub struct RowStream {
    rows: mpsc::Receiver<Vec<Values>>,
    signal: oneshot::Receiver<()>,
    /// Whether the local transaction was committed, once that is known.
    committed: Option<bool>,
}

/// Creates a stream.
pub fn channel() -> (RowSender, CommitSignal, RowStream) {
    let ((queue, rows), (confirm, signal)) = (mpsc::channel(MAX_QUEUED), oneshot::channel());
    (RowSender(queue), CommitSignal(confirm), RowStream { rows, signal, committed: None })
}

impl RowSink for RowSender {
    fn has_capacity(&self) -> bool {
        self.0.capacity() > 0 && !self.0.is_closed()
    }

    fn try_push(&self, rows: Vec<Values>) -> bool {
        self.0.try_send(rows).is_ok()
    }
}

impl CommitSignal {
    pub fn confirm(self) {
        // If the receiver is gone, the result of the delivery shows it.
        self.0.send(()).ok();
    }
}

impl RowStream {
    /// Returns the next rows. Returns `None` after the last rows, or if the signal came or was
    /// dropped.
    pub async fn next(&mut self) -> Option<Vec<Values>> {
        if self.committed.is_some() {
            return None;
        }
        tokio::select! {
            biased;
            rows = self.rows.recv() => rows,
            signal = &mut self.signal => {
                self.committed = Some(signal.is_ok());
                None
            }
        }
    }

    /// Waits for the end of the local transaction, and returns whether it was committed.
    pub async fn wait_committed(&mut self) -> bool {
        match self.committed {
            Some(committed) => committed,
            None => {
                let committed = (&mut self.signal).await.is_ok();
                self.committed = Some(committed);
                committed
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
        let (sender, signal, mut stream) = channel();
        assert!(sender.try_push(piece(1)) && sender.try_push(piece(2)));
        drop(sender);
        signal.confirm();
        run(async {
            assert_eq!(stream.next().await, Some(piece(1)));
            assert_eq!(stream.next().await, Some(piece(2)));
            assert_eq!(stream.next().await, None);
            assert!(stream.wait_committed().await);
        });
    }

    #[test]
    fn they_are_taken_back_also_while_more_may_come() {
        let (sender, signal, mut stream) = channel();
        assert!(sender.try_push(piece(1)));
        drop(signal);
        run(async {
            assert_eq!(stream.next().await, Some(piece(1)));
            assert_eq!(stream.next().await, None);
            assert!(!stream.wait_committed().await);
        });
    }

    #[test]
    fn nobody_waits_for_room() {
        let (sender, _note, stream) = channel();
        for _ in 0..MAX_QUEUED {
            assert!(sender.has_capacity() && sender.try_push(piece(0)));
        }
        assert!(!sender.has_capacity() && !sender.try_push(piece(0)));
        drop(stream);
        assert!(!sender.has_capacity());
    }
}
