//! Compares the external targets of a flow with the ledger, for a session that calls `coco.verify`,
//! and queues the changes that mend them. Called by `update_worker`, after it has updated the flow
//! and delivered all changes.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::locks::DeliveryLock;
use crate::flows::cache;
use crate::inspect::mend_outside::{KeysToMend, queue_mending};
use crate::inspect::outside_rows::{OutsideRows, RowsInRanges};
use crate::outbox::delivery_state;
use crate::pg::error::Error;
use crate::pg::subtransaction;
use crate::workers::async_runtime::{self, TaskState};
use crate::workers::delivery::resolved_target::{
    ResolvedTarget, external_targets, find_external, resolve_target,
};
use crate::workers::process::{process_interrupts, wait};
use crate::workers::transaction::{TransactionError, transaction};
use crate::workers::wait_event::WaitEvent;
use coco_connectors::targets::{Target, Verification};
use coco_core::change::{DeliveryError, TargetSchema};
use coco_core::key_range::{HeldRow, KeyRange, PartDigests};
use coco_core::range_search::{RangeSearch, RowDifference, SearchStep, compare_rows};

/// The largest number of differences that coco returns and mends for a target in one call.
pub const MOST: usize = 10_000;

/// The largest number of rows that a target may return at once. A step reads fewer, unless somebody
/// adds rows meanwhile.
const MOST_ROWS: usize = 20_000;

/// Interval at which the worker checks whether another process has stopped delivering.
const LOOK: Duration = Duration::from_millis(100);

/// Whether to mend the differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mending {
    Mend,
    Report,
}

/// The differences of all external targets of a flow.
#[derive(Default)]
pub struct OutsideDifferences {
    /// A JSON array of objects with `target`, `difference`, and `key`: the text of a JSON object.
    differences: Vec<Value>,
    /// The targets with more differences than coco returns.
    cut: Vec<String>,
    /// How many changes coco has queued.
    pub queued: i64,
}

impl OutsideDifferences {
    /// Returns the differences in the form in which they pass to the session.
    pub fn into_json(self) -> Value {
        json!({ "differences": self.differences, "cut": self.cut })
    }

    fn add(&mut self, shown: &str, found: &TargetDifferences) {
        self.differences.extend(found.rows.iter().map(|(difference, key)| {
            json!({ "target": shown, "difference": difference.name(), "key": key })
        }));
        if found.is_cut {
            self.cut.push(shown.to_owned());
        }
    }
}

/// Compares each external target of a flow with its ledger.
pub fn verify_targets(
    flow: &str,
    mending: Mending,
) -> Result<OutsideDifferences, TransactionError> {
    let mut all = OutsideDifferences::default();
    for target in external_targets(flow)? {
        let compared = compare_target(flow, target, WantedRows::All, None)?;
        let Some(found) = compared else { continue };
        if let Some(error) = found.unreadable {
            return Err(TransactionError::from(error));
        }
        all.add(&found.shown, &found.differences);
        if mending == Mending::Mend {
            all.queued += mend(flow, target, found.differences.rows)?;
        }
    }
    Ok(all)
}

/// The differences that a comparison returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedRows {
    All,
    /// Rows that no item has.
    Extra,
}

/// The differences of one target.
#[derive(Default)]
pub struct TargetDifferences {
    /// The wanted ones, each with its key as the text of a JSON object.
    pub rows: Vec<(RowDifference, String)>,
    /// Whether the target has more of them.
    pub is_cut: bool,
    /// Whether the target has other differences.
    pub has_others: bool,
}

/// A target after a comparison.
pub struct VerifiedTarget {
    pub shown: String,
    /// Whether coco created the target.
    pub made: bool,
    pub differences: TargetDifferences,
    /// Why the target could not be compared, if its connector cannot read its rows.
    pub unreadable: Option<Error>,
}

/// What is needed to compare one target.
struct Comparison {
    to: ResolvedTarget,
    verification: Verification,
    ours: OutsideRows,
}

/// Compares a target with its ledger, and records if no row differs. Returns `None` if the flow no
/// longer has the target. Fails if other processes deliver to the target for longer than
/// `patience`.
pub fn compare_target(
    flow: &str,
    target: i32,
    wanted: WantedRows,
    patience: Option<Duration>,
) -> Result<Option<VerifiedTarget>, TransactionError> {
    let began = Instant::now();
    // While this process holds the lock, no process delivers to the target.
    let lock = loop {
        if let Some(lock) = transaction(|| DeliveryLock::acquire_if_free(target))? {
            break lock;
        }
        if patience.is_some_and(|longest| began.elapsed() > longest) {
            return Err(TransactionError::from(Error::new(
                pgrx::PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                format!("another process delivers to a target of flow \"{flow}\""),
            )));
        }
        wait(LOOK, WaitEvent::Delivery);
    };
    let Some(begun) = transaction(|| begin_comparison(flow, target))? else { return Ok(None) };
    let BegunComparison { shown, made, comparison } = begun;
    let (differences, unreadable) = match comparison {
        Ok(comparison) => {
            let differences = find_differences(&shown, comparison, wanted)?;
            if differences.rows.is_empty() && !differences.has_others {
                transaction(|| delivery_state::note_verified(target))?;
            }
            (differences, None)
        }
        Err(error) => (TargetDifferences::default(), Some(error)),
    };
    // Other processes wait for this lock while they hold the flow's lock, which a repair takes
    // next.
    drop(lock);
    Ok(Some(VerifiedTarget { shown, made, differences, unreadable }))
}

/// Queues the changes that mend these differences, and returns their number.
pub fn mend(
    flow: &str,
    target: i32,
    rows: Vec<(RowDifference, String)>,
) -> Result<i64, TransactionError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let mut keys = KeysToMend::default();
    for (difference, key) in rows {
        match difference {
            RowDifference::Extra => keys.extra.push(key),
            RowDifference::Missing | RowDifference::Different => keys.rows.push(key),
        }
    }
    transaction(|| {
        let ready = cache::lock_runnable_to_read(flow)?;
        match find_external(&ready.flow, target) {
            Some((declared, external)) => queue_mending(&ready.flow, declared, external, &keys),
            None => Ok(0),
        }
    })
}

/// A comparison that has begun, or the reason why the target cannot be compared.
struct BegunComparison {
    shown: String,
    made: bool,
    comparison: Result<Comparison, Error>,
}

/// Reads what the target should hold; `None` if the flow no longer has it.
fn begin_comparison(flow: &str, target: i32) -> Result<Option<BegunComparison>, Error> {
    let ready = cache::runnable_to_read(flow, None)?;
    let Some((declared, external)) = find_external(&ready.flow, target) else { return Ok(None) };
    let to = resolve_target(&ready.flow, declared, external)?;
    let (shown, made) = (declared.shown(), declared.made);
    let is_enabled = |verification: &Verification| {
        verification.option.is_none_or(|option| to.access.server.get(option) == Some("true"))
    };
    let comparison = match to.connector.verification.filter(is_enabled) {
        Some(verification) => {
            let (encoding, digests) = (to.connector.encoding, verification.digests);
            let flow = &ready.flow;
            let ours = OutsideRows::read(flow, declared, external, &to.schema, encoding, digests)?;
            Ok(Comparison { to, verification, ours })
        }
        None => Err(unreadable(&shown, &to)),
    };
    Ok(Some(BegunComparison { shown, made, comparison }))
}

/// Returns the error for a target whose rows its connector cannot read.
fn unreadable(shown: &str, to: &ResolvedTarget) -> Error {
    Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("target {shown} cannot be verified"),
    )
    .detail(match to.connector.verification.and_then(|verification| verification.option) {
        Some(option) => {
            format!("The server's option \"{option}\" does not say that its targets can be compared.")
        }
        None => format!("The connector {} cannot read the rows of a target.", to.connector.name),
    })
    .hint("Call coco.verify without outside to compare the query with the ledger, or coco.update with mode reexport to send all rows again.")
}

/// Returns the differences of a target, at most [`MOST`] of those that are wanted.
fn find_differences(
    shown: &str,
    comparison: Comparison,
    wanted: WantedRows,
) -> Result<TargetDifferences, TransactionError> {
    let Comparison { to, verification, mut ours } = comparison;
    let mut found = TargetDifferences::default();
    let Some(mut theirs) = RemoteSide::open(shown, to)? else {
        // A target that nothing was sent to need not exist.
        return if ours.len() == 0 { Ok(found) } else { Err(missing_target(shown)) };
    };
    let tolerance = verification.tolerance;
    let mut search =
        RangeSearch::new(ours.len() as u64, verification.parts).with_tolerance(tolerance);
    loop {
        process_interrupts();
        match search.next_step() {
            SearchStep::Done => break,
            SearchStep::Compare { ranges, digits } => {
                let there = theirs.part_digests(&ranges, digits)?;
                let here = transaction(|| Ok(ours.part_digests(&ranges, digits)))?;
                search.compared(&here, &there);
            }
            SearchStep::Read { ranges } => {
                let there = theirs.held_rows(&ranges)?;
                let here = transaction(|| Ok(ours.in_ranges(&ranges)))?;
                for (difference, key) in named_differences(&here, &there, tolerance) {
                    if wanted == WantedRows::Extra && difference != RowDifference::Extra {
                        found.has_others = true;
                        continue;
                    }
                    if found.rows.len() == MOST {
                        found.is_cut = true;
                        return Ok(found);
                    }
                    found.rows.push((difference, key));
                }
            }
        }
    }
    Ok(found)
}

fn missing_target(shown: &str) -> TransactionError {
    TransactionError::from(
        Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("target {shown} does not exist"),
        )
        .hint("Call coco.update with mode reexport to create and fill the target again."),
    )
}

/// Returns the differences between the rows of some ranges, with the keys as JSON texts.
fn named_differences(
    here: &RowsInRanges,
    there: &[HeldRow],
    tolerance: u64,
) -> Vec<(RowDifference, String)> {
    let held: HashMap<_, _> = there.iter().map(|held| (held.key, &held.json)).collect();
    let key_of =
        |digest| here.keys.get(&digest).or(held.get(&digest).copied()).cloned().unwrap_or_default();
    let found = compare_rows(&here.rows, there, tolerance);
    found.into_iter().map(|(key, difference)| (difference, key_of(key))).collect()
}

/// The rows that a target holds, and the connection to it.
struct RemoteSide {
    shown: String,
    schema: Arc<TargetSchema>,
    /// `None` while a job has it, and after an error.
    client: Option<Box<dyn Target>>,
}

impl RemoteSide {
    /// Connects to a target; `None` if the target does not exist.
    fn open(shown: &str, to: ResolvedTarget) -> Result<Option<RemoteSide>, TransactionError> {
        let ResolvedTarget { schema, connector, access, .. } = to;
        let schema = Arc::new(schema);
        let of = schema.clone();
        let mut side = RemoteSide { shown: shown.to_owned(), schema, client: None };
        let exists = side.run(async move {
            let mut client = connector.connect(access)?;
            let exists = client.exists(&of).await?;
            if exists {
                client.prepare(&of).await?;
            }
            Ok((client, exists))
        })?;
        Ok(exists.then_some(side))
    }

    fn part_digests(
        &mut self,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, TransactionError> {
        let (mut client, schema, ranges) = (self.take()?, self.schema.clone(), ranges.to_vec());
        self.run(async move {
            let parts = client.part_digests(&schema, &ranges, digits).await?;
            Ok((client, parts))
        })
    }

    fn held_rows(&mut self, ranges: &[KeyRange]) -> Result<Vec<HeldRow>, TransactionError> {
        let (mut client, schema, ranges) = (self.take()?, self.schema.clone(), ranges.to_vec());
        self.run(async move {
            let rows = client.held_rows(&schema, &ranges, MOST_ROWS).await?;
            Ok((client, rows))
        })
    }

    fn take(&mut self) -> Result<Box<dyn Target>, TransactionError> {
        let lost = || TransactionError::from(Error::internal("the connection was lost"));
        self.client.take().ok_or_else(lost)
    }

    /// Runs a job on the threads, and waits for its end.
    fn run<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = Result<(Box<dyn Target>, T), DeliveryError>> + Send + 'static,
    ) -> Result<T, TransactionError> {
        let task = async_runtime::spawn(work).map_err(|e| {
            TransactionError::from(Error::internal(format!("could not start a thread: {e}")))
        })?;
        let done = loop {
            match task.state() {
                TaskState::Running => wait(Duration::from_secs(1), WaitEvent::Delivery),
                TaskState::Done(done) => break done,
                TaskState::Lost => {
                    break Err(DeliveryError::target("XX000", "the connector has failed"));
                }
            }
        };
        match done {
            Ok((client, result)) => {
                self.client = Some(client);
                Ok(result)
            }
            Err(why) => Err(self.failed(why)),
        }
    }

    fn failed(&self, why: DeliveryError) -> TransactionError {
        let mut error = Error::new(
            subtransaction::sqlstate_code(&why.sqlstate),
            format!("could not verify target {}: {}", self.shown, why.message),
        );
        error.detail = why.detail;
        error.hint = why.hint;
        TransactionError { sqlstate: why.sqlstate, error }
    }
}

/// Closes the connection on the threads, to which it belongs.
impl Drop for RemoteSide {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            async_runtime::discard(client);
        }
    }
}
