//! Helper tasks: another process evaluates and writes a partition of the keys that an update found.
//!
//! The helper does this in a transaction of its own, which may commit even if the worker's
//! transaction does not. This is safe: either transaction writes an item and its tracking row
//! together, and the worker stores the cursor after all helpers have finished. coco uses helpers
//! only if all targets are owned by key and writing a row has no further effect. Items of different
//! processes are then independent of each other.

use pgrx::pg_sys;
use serde::{Deserialize, Serialize};
use std::rc::Rc;

use crate::catalog::model::Source;
use crate::catalog::relation_locks::PATIENCE;
use crate::catalog::{locks, target_table};
use crate::flows::{cache, live_rows};
use crate::pg::acting_role::RoleGuard;
use crate::pg::clock::now_micros;
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::tuplestore::rows::TupleStore;
use crate::update::backlog::ScanProgress;
use crate::update::candidate_rows::key_columns;
use crate::update::context::{UpdateContext, UpdateSnapshot};
use crate::update::decide_items::PassCounts;
use crate::update::helper_pool::{HelperResult, HelperTask};
use crate::update::limits::Limits;
use crate::update::run::{UpdateRun, logic_changed_error, logic_is_another};
use crate::update::target_writer::{TargetWriter, WriteOptions};
use crate::update::{expectations, initial_load, lookups};
use coco_core::decision::Mode;
use coco_core::version::LogicId;

/// The header of a helper task, before its keys.
#[derive(Serialize, Deserialize)]
struct HelperTaskHeader {
    flow: i32,
    source: i32,
    logic: i32,
    /// The worker's transaction.
    asker: u32,
    /// The number of items in a batch.
    batch: usize,
}

/// Some keys, and the helper that processes them; `None`: this process.
pub struct KeyPartition {
    pub keys: TupleStore,
    pub elsewhere: Option<Box<dyn HelperTask>>,
}

impl UpdateRun<'_> {
    /// Divides keys among this process and helpers, at least a batch for each. Returns `None` if
    /// this process keeps all keys.
    pub fn shares(
        &self,
        source: &Source,
        keys: &mut TupleStore,
    ) -> Result<Option<Vec<KeyPartition>>> {
        let most = self.limits.batch.max(1);
        let Some(helpers) = self.context.helpers() else { return Ok(None) };
        // A helper would read the lookups under a later snapshot, up to which nobody has followed
        // them.
        if keys.len() < 2 * most || lookups::has_any(self.flow, source) {
            return Ok(None);
        }
        let count = (helpers.count() + 1).min(keys.len() / most);
        if count < 2 || !self.is_divisible()? {
            return Ok(None);
        }
        let columns = key_columns(source);
        let each = keys.len().div_ceil(count);
        keys.rewind();
        let mut shares = vec![KeyPartition { keys: keys.take(&columns, each)?, elsewhere: None }];
        // The next process that locks the flow waits until these helpers have ended.
        locks::helper_lock(self.flow.id)?;
        loop {
            let mut keys = keys.take(&columns, each)?;
            if keys.len() == 0 {
                return Ok(Some(shares));
            }
            let elsewhere = helpers.ask(&self.portion(source, &mut keys)?)?;
            shares.push(KeyPartition { keys, elsewhere });
        }
    }

    /// Reports whether items are independent of each other, whichever process writes them.
    fn is_divisible(&self) -> Result<bool> {
        if self.recalling.is_some() || !self.flow.memoized.is_empty() {
            return Ok(false);
        }
        for writer in &self.writers {
            if !initial_load::takes_rows(writer.target)?
                || !target_table::constrained_columns(writer.target)?.is_empty()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn portion(&self, source: &Source, keys: &mut TupleStore) -> Result<Vec<u8>> {
        // SAFETY: in a transaction; assigns an id to it if it has none.
        let asker = unsafe { pg_sys::GetCurrentTransactionId() };
        let head = HelperTaskHeader {
            flow: self.flow.id,
            source: source.id,
            logic: self.writing.logic.0,
            asker: asker.into_inner(),
            batch: self.limits.batch,
        };
        let head = serde_json::to_vec(&head).map_err(|e| Error::internal(e.to_string()))?;
        let mut bytes = (head.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(head);
        keys.write_to(&key_columns(source), &mut bytes)?;
        Ok(bytes)
    }
}

/// Runs a helper task in the current transaction. The helper's snapshot is newer than the worker's.
/// If an item changed in between, the worker's next transaction finds the item up to date.
pub fn run_helper_task(bytes: &[u8]) -> Result<HelperResult> {
    let unreadable = || Error::internal("could not read a helper task");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(unreadable)?;
    let (head, keys) =
        rest.split_at_checked(u32::from_ne_bytes(*length) as usize).ok_or_else(unreadable)?;
    let head: HelperTaskHeader = serde_json::from_slice(head).map_err(|_| unreadable())?;
    let gone = || Error::internal("transaction that requested the helper task has ended");
    locks::helper_lock(head.flow)?;
    // If the worker's transaction is still in progress, no other process can start to work on the
    // flow from here on.
    // SAFETY: reads shared state.
    if !unsafe { pg_sys::TransactionIdIsInProgress(head.asker.into()) } {
        return Err(gone());
    }
    let ready = cache::runnable_to_read(
        &live_rows::flow_name(head.flow)?.ok_or_else(gone)?,
        Some(PATIENCE),
    )?;
    let flow = &ready.flow;
    let source = flow.sources.iter().find(|s| s.id == head.source).ok_or_else(gone)?;
    let (logic, generation) = (LogicId(head.logic), invalidation::invalidation_count());
    let same = ready.logic == Some(logic) || !logic_is_another(flow, logic)?;
    let mut pass = PassCounts::default();
    if same {
        let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
        let _snapshot = PinnedSnapshot::take();
        let mut keys = TupleStore::read_from(&key_columns(source), keys)?;
        let part = ScanProgress { done: 0, total: keys.len() as i64, began: now_micros() };
        let writers =
            flow.targets.iter().map(|target| TargetWriter { target, fresh: false }).collect();
        let writing = WriteOptions { mode: Mode::Normal, logic };
        let limits = Limits { batch: head.batch, changes: None, segment_bytes: 0 };
        let mut run = UpdateRun {
            flow,
            writers,
            writing,
            limits,
            context: UpdateContext::Session,
            snapshot: UpdateSnapshot::Own,
            recalling: None,
            part: None,
            generation,
            takes_unowned_rows: false,
            lost_keys: Rc::default(),
            expected: Rc::default(),
        };
        run.process_keys(source, &mut keys, part, &mut pass)?;
        expectations::settle(&run.flow.targets, &run.expected.take())?;
    }
    if !same || invalidation::invalidation_count() != generation && logic_is_another(flow, logic)? {
        return Err(logic_changed_error(flow));
    }
    Ok(HelperResult { counts: pass.counts, present: pass.present })
}
