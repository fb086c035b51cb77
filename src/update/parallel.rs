//! A portion of a turn: some of the items that were found, of which another process takes care.
//!
//! It does so in a transaction of its own, which may be committed where that of the turn is not: an item and
//! its tracking row are written together in either, and the cursor is stored by the turn, after all portions.
//! It is done where target keys are covered and writing does no more than to write rows: then the items of
//! two processes have nothing to do with each other.

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
use crate::update::helper_pool::{HelperResult, HelperTask};
use crate::update::limits::Limits;
use crate::update::run::{UpdateContext, UpdateRun, logic_is_another};
use crate::update::source_plan::key_columns;
use crate::update::target_writer::{TargetWriter, WriteOptions};
use crate::update::{initial_load, lookups};
use coco_core::decide::Mode;
use coco_core::version::LogicId;

/// What the other process is told; the keys follow.
#[derive(Serialize, Deserialize)]
struct HelperTaskHeader {
    flow: i32,
    source: i32,
    logic: i32,
    /// The transaction of the turn.
    asker: u32,
    /// Items of a batch.
    batch: usize,
}

/// Some keys, and who takes care of them; `None`: this process.
pub struct KeyPartition {
    pub keys: TupleStore,
    pub elsewhere: Option<Box<dyn HelperTask>>,
}

impl UpdateRun<'_> {
    /// Parts keys among this process and others, at least a batch for each; `None` where this one keeps them all.
    pub fn shares(
        &self,
        source: &Source,
        keys: &mut TupleStore,
    ) -> Result<Option<Vec<KeyPartition>>> {
        let most = self.limits.batch.max(1);
        let UpdateContext::Live(_, _, helpers) = self.by else { return Ok(None) };
        // What another process looks up it sees as of later: up to there nobody has followed the lookups.
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
        // Whoever has the flow's lock next waits until those have ended that were asked.
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

    /// Whether items have nothing to do with each other, whoever writes them.
    fn is_divisible(&self) -> Result<bool> {
        if self.recalling.is_some() || !self.flow.memoised.is_empty() {
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
        // SAFETY: in a transaction; it gets an id, if it has none.
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

/// Takes care of a portion, in the current transaction. Under a snapshot that is newer than that of the turn:
/// what changed in between, the next turn will find to be as it is.
pub fn run_helper_task(bytes: &[u8]) -> Result<HelperResult> {
    let unreadable = || Error::internal("a portion of a turn cannot be read");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(unreadable)?;
    let (head, keys) =
        rest.split_at_checked(u32::from_ne_bytes(*length) as usize).ok_or_else(unreadable)?;
    let head: HelperTaskHeader = serde_json::from_slice(head).map_err(|_| unreadable())?;
    let gone = || Error::internal("the turn that this was a portion of has ended");
    locks::helper_lock(head.flow)?;
    // From here on nobody else begins with the flow, if the turn has not ended yet.
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
    let mut done = HelperResult::default();
    if same {
        let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
        let _snapshot = PinnedSnapshot::take();
        let mut keys = TupleStore::read_from(&key_columns(source), keys)?;
        let part = ScanProgress { done: 0, total: keys.len() as i64, began: now_micros() };
        let writers =
            flow.targets.iter().map(|target| TargetWriter { target, fresh: false }).collect();
        let writing = WriteOptions { mode: Mode::Normal, logic };
        let limits = Limits { batch: head.batch, changes: None, segment_bytes: 0 };
        let by = UpdateContext::Caller;
        let mut run = UpdateRun {
            flow,
            writers,
            writing,
            limits,
            by,
            recalling: None,
            part: None,
            generation,
            takes_over: false,
            lost_keys: Rc::default(),
        };
        run.some(source, &mut keys, part, &mut done.counts, &mut done.present)?;
    }
    if !same || invalidation::invalidation_count() != generation && logic_is_another(flow, logic)? {
        return Err(crate::update::run::check_flow_unchanged(flow));
    }
    Ok(done)
}
