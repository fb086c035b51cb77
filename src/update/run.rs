//! One update of one flow: prepares the run, brings each source up to date in the order of
//! declaration, and finishes. The steps for one source are in [`crate::update::source_pass`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::catalog::model::Flow;
use crate::catalog::{logic_rows, relation_locks};
use crate::flows::cache::RunnableFlow;
use crate::flows::paused::check_not_paused;
use crate::memo::session::MemoSession;
use crate::memo::{self, store};
use crate::outbox::delivery_state;
use crate::outbox::initial_load_buffer::InitialLoadBuffer;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::{invalidation, spi};
use crate::query::logic_fingerprint;
use crate::update::backlog::ScanProgress;
use crate::update::context::{UpdateContext, UpdateSnapshot};
use crate::update::cursor_cache::CursorUpdate;
use crate::update::limits::Limits;
use crate::update::target_writer::{TargetWriter, WriteOptions};
use crate::update::{expectations, nullable_columns, orphans, restore_targets, tracking_rows};
use coco_core::counts::Counts;
use coco_core::decision::Mode;
use coco_core::expectation::RowTally;
use coco_core::memo_batch::Stats;
use coco_core::run_history::Reason;
use coco_core::version::LogicId;

/// The counts of one source.
pub struct SourceCounts {
    pub source: String,
    pub counts: Counts,
    pub elapsed: Duration,
    /// The calls of memoized functions, by the names of the functions.
    pub memo: BTreeMap<String, Stats>,
}

impl SourceCounts {
    /// Adds calls of memoized functions.
    pub fn add_memo(&mut self, more: BTreeMap<String, Stats>) {
        for (function, stats) in more {
            *self.memo.entry(function).or_default() += stats;
        }
    }
}

/// The result of one transaction of an update.
pub struct UpdateOutcome {
    pub sources: Vec<SourceCounts>,
    /// Why the update looked at its items; `None` if it only processed pending keys.
    pub reason: Option<Reason>,
    /// The number of failed items that the update left out, because they wait for a retry.
    pub waiting: i64,
    /// Cursors that a live flow's worker keeps once the transaction has committed.
    pub kept: Vec<CursorUpdate>,
    /// Whether changes are left for another transaction.
    pub more: bool,
    /// Whether changes of a source or a lookup pass the triggers by.
    pub uncaptured: bool,
    /// The captures whose change logs show all later changes; `None` if changes can come from
    /// elsewhere.
    pub logs: Option<Vec<i32>>,
    /// The time until a live flow's worker must scan again, if nothing else happens.
    pub again: Option<Duration>,
    /// Whether the flow has external targets, to which a worker delivers afterwards.
    pub external: bool,
    /// Initial-load buffers that this process delivers once the transaction has committed.
    pub held: Vec<InitialLoadBuffer>,
}

impl UpdateOutcome {
    /// Adds the log by which a source or a lookup was followed; `None` if it was read otherwise.
    pub fn add_logs(&mut self, logs: Option<Vec<i32>>) {
        match (&mut self.logs, logs) {
            (Some(all), Some(more)) => all.extend(more),
            _ => self.logs = None,
        }
    }

    /// Returns the sum of the counts of all sources.
    pub fn counts(&self) -> Counts {
        let mut all = Counts::default();
        self.sources.iter().for_each(|source| all += source.counts);
        all
    }
}

/// Updates a flow that the caller has locked, in the current transaction.
pub fn run_update(
    ready: &RunnableFlow,
    mode: Mode,
    limits: Limits,
    context: UpdateContext,
    snapshot: UpdateSnapshot,
) -> Result<UpdateOutcome> {
    // The caller's statement took its snapshot before it waited for the flow's lock.
    let _now = snapshot.pin();
    let restored;
    let mut flow = &ready.flow;
    check_not_paused(flow)?;
    let limits = limits.of(flow);
    if flow.targets.is_empty() {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" has no target yet", flow.name),
        )
        .hint("Call coco.add_target first."));
    }
    if flow.targets.iter().any(|t| t.relation.is_none()) {
        let mut with_targets = flow.clone();
        restore_targets::restore_targets(&mut with_targets)?;
        restored = with_targets;
        flow = &restored;
    }
    nullable_columns::allow_nulls(flow)?;
    let logic = match ready.logic {
        Some(logic) => logic,
        None => logic_fingerprint::current_logic(flow)?,
    };
    logic_rows::label_logic(logic.0)?;
    if flow.is_external() {
        spi::commit_durably();
    }
    let began = invalidation::invalidation_count();
    let outcome = update_sources(flow, WriteOptions { mode, logic }, limits, context, snapshot)?;
    if mode == Mode::Reexport && !outcome.more && outcome.held.is_empty() {
        // The outboxes now have all rows that a process which has ended kept in memory.
        for target in flow.targets.iter().filter(|t| t.external.is_some()) {
            delivery_state::note_initial_load_sent(target.id)?;
        }
    }
    // If the query changed after coco computed its fingerprint, the results belong to another
    // logic.
    if invalidation::invalidation_count() != began && logic_is_another(flow, logic)? {
        return Err(logic_changed_error(flow));
    }
    Ok(outcome)
}

/// Returns the error of an update during which the logic of its flow changed.
pub fn logic_changed_error(flow: &Flow) -> Error {
    Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!("the logic of flow \"{}\" changed while it was being updated", flow.name),
    )
    .hint("Try again.")
}

/// Reports whether the flow now has another logic, as committed now.
pub fn logic_is_another(flow: &Flow, logic: LogicId) -> Result<bool> {
    let _now = PinnedSnapshot::latest();
    Ok(logic_fingerprint::known_logic(flow)? != logic)
}

/// Brings each source up to date, then hands keys over and deletes orphans.
fn update_sources(
    flow: &Flow,
    writing: WriteOptions,
    limits: Limits,
    context: UpdateContext,
    snapshot: UpdateSnapshot,
) -> Result<UpdateOutcome> {
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let by_states = flow.keeps_groups.then(|| flow.by_states());
    let flow = by_states.as_ref().unwrap_or(flow);
    let writers = flow.targets.iter().map(|target| TargetWriter { target, fresh: false }).collect();
    // A full reprocess uses only memoized results that it has computed itself.
    let since = (writing.mode == Mode::FullReprocess).then(|| context.began());
    let recalling = memo::session_of_update(flow, since)?;
    let generation = snapshot.generation();
    // The update reads lookups and sources under one snapshot, so that it evaluates items with the
    // state of the lookups that it has followed.
    let _snapshot = snapshot.pin();
    match snapshot.may_be_outdated() {
        true => relation_locks::check_same_files(flow)?,
        false => relation_locks::check_not_rewritten(flow)?,
    }
    let mut run = UpdateRun {
        flow,
        writers,
        writing,
        limits,
        context,
        snapshot,
        recalling,
        part: None,
        generation,
        takes_unowned_rows: writing.mode == Mode::Retry,
        lost_keys: Rc::default(),
        expected: Rc::default(),
    };
    let mut outcome = UpdateOutcome {
        sources: vec![],
        reason: None,
        waiting: 0,
        kept: vec![],
        more: false,
        uncaptured: false,
        logs: Some(vec![]),
        again: None,
        external: flow.is_external(),
        held: vec![],
    };
    if writing.mode == Mode::Retry && flow.targets.iter().any(|t| !t.expectations.is_empty()) {
        for source in &flow.sources {
            tracking_rows::forget_parked(source)?;
        }
    }
    for source in &flow.sources {
        let began = Instant::now();
        let counts = run.update_source(source, &mut outcome)?;
        let elapsed = began.elapsed();
        let memo = run.count_memo_calls()?;
        outcome.sources.push(SourceCounts { source: source.name.clone(), counts, elapsed, memo });
    }
    run.hand_over_keys(&mut outcome.sources)?;
    run.delete_orphans(outcome.more, &mut outcome.sources)?;
    expectations::settle(&run.flow.targets, &run.expected.take())?;
    let memo = run.count_memo_calls()?;
    if let Some(first) = outcome.sources.first_mut() {
        first.add_memo(memo);
    }
    if let (Some(recalling), false) = (&run.recalling, outcome.more) {
        store::expire(recalling)?;
    }
    Ok(outcome)
}

/// The state of one update of one flow. Its steps are methods in several files, in this order:
/// `source_pass` (one source), `process_keys` or `full_scan`, `decide_items`, `write_batch`,
/// `retry_together` (deferred items), `record_failure`, `handover`.
pub struct UpdateRun<'a> {
    pub flow: &'a Flow,
    pub writers: Vec<TargetWriter<'a>>,
    pub writing: WriteOptions,
    pub limits: Limits,
    pub context: UpdateContext<'a>,
    pub snapshot: UpdateSnapshot,
    /// The memoized results of the update, if the flow has memoized functions.
    pub recalling: Option<Rc<MemoSession>>,
    /// The progress of the scan or slice whose items the update processes in parts.
    pub part: Option<ScanProgress>,
    /// The invalidation count from before the snapshot was taken.
    pub generation: u64,
    /// Whether an item takes over a target row that no item owns, if it produces the row. This
    /// reads all tracking rows, so an update by keys leaves such rows to an update of all items.
    pub takes_unowned_rows: bool,
    /// Whether an item listed target keys whose text no longer names a value, so that coco does not
    /// know which rows the item had.
    pub lost_keys: Rc<Cell<bool>>,
    /// The rows that were checked against expectations and are not counted yet.
    pub expected: Rc<RefCell<RowTally>>,
}

impl UpdateRun<'_> {
    /// Returns the calls of memoized functions since the previous call of this method.
    pub fn count_memo_calls(&self) -> Result<BTreeMap<String, Stats>> {
        match &self.recalling {
            Some(recalling) => memo::count_calls(recalling),
            None => Ok(BTreeMap::new()),
        }
    }

    /// Deletes the rows of items whose listed target keys no longer name a value, when no change is
    /// left (`more` is false). By then, items that produce such rows have taken them over.
    pub fn delete_orphans(&self, more: bool, all: &mut [SourceCounts]) -> Result<()> {
        let pending = self.context.pending();
        let lost = self.lost_keys.get() || pending.is_some_and(|p| p.lost_keys.get());
        if let Some(pending) = pending {
            pending.lost_keys.set(lost && more);
        }
        if !lost || more {
            return Ok(());
        }
        let deleted = orphans::delete_orphans(self.flow)?;
        if let Some(first) = all.first_mut() {
            first.counts.deleted += deleted;
        }
        Ok(())
    }
}

/// Ends the update if its statement was canceled.
pub fn interrupt() {
    pgrx::check_for_interrupts!();
}
