//! Snapshots: the transactions that a reader of a change log has seen.

/// A snapshot, as PostgreSQL's `pg_snapshot`. It sees the transactions below `xmax`, except those
/// in `running`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub xmin: u64,
    pub xmax: u64,
    /// Ascending, each at least `xmin` and less than `xmax`.
    pub running: Vec<u64>,
}

/// The largest number of transactions that [`Snapshot::mark_ended`] adds to the running ones.
const MOST_ADDED: u64 = 1000;

impl Snapshot {
    /// Parses `xmin:xmax:xip,…`. Returns `None` if the text is not a snapshot.
    pub fn parse(text: &str) -> Option<Snapshot> {
        let mut parts = text.split(':');
        let xmin = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let list = parts.next()?;
        let running = match list {
            "" => vec![],
            list => list.split(',').map(|x| x.parse().ok()).collect::<Option<_>>()?,
        };
        parts.next().is_none().then_some(Snapshot { xmin, xmax, running })
    }

    /// Marks a transaction as in progress, so that the snapshot does not see it. A snapshot sees
    /// the reader's own transaction as complete, but that transaction may still write after it has
    /// read.
    pub fn mark_in_progress(&mut self, xid: u64) {
        if xid >= self.xmax {
            return;
        }
        if let Err(place) = self.running.binary_search(&xid) {
            self.running.insert(place, xid);
            self.xmin = self.xmin.min(xid);
        }
    }

    /// Marks a transaction as ended, so that the snapshot sees it. Transactions between the end of
    /// the snapshot and this one then count as running. If these are too many, changes nothing.
    pub fn mark_ended(&mut self, xid: u64) {
        if xid < self.xmax {
            self.running.retain(|x| *x != xid);
        } else if xid - self.xmax <= MOST_ADDED {
            self.running.extend(self.xmax..xid);
            self.xmax = xid + 1;
        }
        self.xmin = self.running.first().copied().unwrap_or(self.xmax);
    }

    /// Excludes the transactions from `end` on. The reader then reads the new entries in two parts.
    pub fn truncate_at(&mut self, end: u64) {
        if end < self.xmax {
            self.xmax = end;
            self.running.retain(|x| *x < end);
            self.xmin = self.running.first().copied().unwrap_or(end);
        }
    }
}

impl std::fmt::Display for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let running: Vec<String> = self.running.iter().map(u64::to_string).collect();
        write!(f, "{}:{}:{}", self.xmin, self.xmax, running.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_reads_and_writes_as_postgres_does() {
        for text in ["10:20:10,14,15", "10:10:", "7:9:7"] {
            assert_eq!(Snapshot::parse(text).expect(text).to_string(), text);
        }
        for text in ["", "10", "10:20", "a:b:", "10:20:x", "1:2:3:4"] {
            assert_eq!(Snapshot::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_own_transaction_is_put_back_among_the_running() {
        let put = |text: &str, xid| {
            let mut s = Snapshot::parse(text).expect(text);
            s.mark_in_progress(xid);
            s.to_string()
        };
        assert_eq!(put("10:20:10,14", 12), "10:20:10,12,14");
        assert_eq!(put("15:20:15", 12), "12:20:12,15");
        assert_eq!(put("20:20:", 12), "12:20:12");
        assert_eq!(put("10:20:10,14", 14), "10:20:10,14");
        // A transaction that began after the snapshot is not seen anyway.
        assert_eq!(put("10:20:10", 20), "10:20:10");
    }

    #[test]
    fn a_transaction_that_has_ended_is_seen() {
        let end = |text: &str, xid| {
            let mut s = Snapshot::parse(text).expect(text);
            s.mark_ended(xid);
            s.to_string()
        };
        assert_eq!(end("10:20:10,14", 10), "14:20:14");
        assert_eq!(end("10:20:10", 10), "20:20:");
        assert_eq!(end("10:20:10", 12), "10:20:10");
        // What began between the snapshot and the transaction is still not seen.
        assert_eq!(end("10:20:10", 20), "10:21:10");
        assert_eq!(end("20:20:", 22), "20:23:20,21");
        assert_eq!(end("20:20:", 1021), "20:20:");
    }

    #[test]
    fn a_cut_snapshot_sees_nothing_from_its_end_on() {
        let cut = |text: &str, end| {
            let mut s = Snapshot::parse(text).expect(text);
            s.truncate_at(end);
            s.to_string()
        };
        assert_eq!(cut("10:20:10,14", 12), "10:12:10");
        assert_eq!(cut("10:20:14", 12), "12:12:");
        assert_eq!(cut("10:20:14", 30), "10:20:14");
    }
}
