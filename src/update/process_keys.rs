//! Processes the items of known keys, with the help of other processes if the keys are many.

use pgrx::pg_sys;

use crate::catalog::model::Source;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::tuplestore::rows::TupleStore;
use crate::query::batch::Batch;
use crate::query::compose;
use crate::update::backlog::ScanProgress;
use crate::update::candidate_rows::key_columns;
use crate::update::decide_items::PassCounts;
use crate::update::detect;
use crate::update::helper_pool::HelperTask;
use crate::update::run::UpdateRun;

impl UpdateRun<'_> {
    /// Processes the items of some keys: `k1…`, `forced`. `part` is the progress before them.
    pub fn process_keys(
        &mut self,
        source: &Source,
        keys: &mut TupleStore,
        mut part: ScanProgress,
        pass: &mut PassCounts,
    ) -> Result<()> {
        if keys.len() == 0 {
            return Ok(());
        }
        // Other processes do not see the states of groups that this transaction has changed.
        let shares = match source.reads_states {
            true => None,
            false => self.shares(source, keys)?,
        };
        let Some(shares) = shares else {
            return self.process_keys_alone(source, keys, part, pass);
        };
        let (others, own): (Vec<_>, Vec<_>) =
            shares.into_iter().partition(|share| share.elsewhere.is_some());
        for mut share in own {
            self.process_keys_alone(source, &mut share.keys, part, pass)?;
            part.done += share.keys.len() as i64;
        }
        for mut share in others {
            match share.elsewhere.map_or(Ok(None), HelperTask::done)? {
                Some(done) => {
                    pass.counts += done.counts;
                    pass.present += done.present;
                }
                None => {
                    // The helper may have written the items, so read their current state.
                    let _now = PinnedSnapshot::take();
                    self.process_keys_alone(source, &mut share.keys, part, pass)?;
                }
            }
            part.done += share.keys.len() as i64;
        }
        Ok(())
    }

    /// Does the same without help, a batch at a time. coco then keeps what it has read of the items
    /// only until it has written them, and the pages that it read are still cached when it writes.
    fn process_keys_alone(
        &mut self,
        source: &Source,
        keys: &mut TupleStore,
        mut part: ScanProgress,
        pass: &mut PassCounts,
    ) -> Result<()> {
        let mut deferred = Batch::new(source, compose::carries(source))?;
        keys.rewind();
        loop {
            let some =
                keys.take(&key_columns(source), keys_at_once(keys.len(), self.limits.batch))?;
            if some.len() == 0 {
                break;
            }
            let mut found = detect::lookup_candidates(source, &some, true)?;
            self.part = Some(part);
            self.process_all_but_deferred(source, &mut found, |_| true, pass, &mut deferred)?;
            part.done += some.len() as i64;
        }
        self.part = None;
        self.write_deferred(source, &mut deferred, &mut pass.counts)
    }
}

/// Returns how many of these keys to look up and write at a time. Each item has pages of its own in
/// the source, the target and the tracking table, which should still be cached when coco writes the
/// item. But each time costs a subtransaction, and a transaction with more than 64 of them slows
/// other transactions down.
fn keys_at_once(keys: usize, batch: usize) -> usize {
    const SUBTRANSACTIONS: usize = 60;
    // SAFETY: reads a variable that is set when the server starts.
    let buffers = usize::try_from(unsafe { pg_sys::NBuffers }).unwrap_or(0);
    (buffers / 8).max(keys.div_ceil(SUBTRANSACTIONS)).clamp(1, batch)
}
