//! One transaction of a worker for live flows that feed each other, so that readers see the targets
//! of all of them as of the same moment.
//!
//! If the transaction fails, nobody knows which flow is the cause. The flows then run in
//! transactions of their own, which record the failure, and share a transaction again later.

use std::time::{Duration, Instant};

use crate::flows::live_rows::{self, LiveFlow};
use crate::flows::schedules;
use crate::memo::settle;
use crate::pg::error::Result;
use crate::pg::{backend, clock};
use crate::update::chain::{self, ChainOutcome, LiveChainFlow};
use crate::update::limits::Limits;
use crate::workers::followed_flow::{self, FinishedTurn, FollowedFlow};
use crate::workers::transaction::transaction;
use crate::workers::{crash_notes, shared_memory, stand_in, turn_limit};
use coco_core::backoff;

/// How long the flows of a chain wait for a session that has locked one of them, or what they use.
/// After this time, the other flows run by themselves.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);

/// The longest time for which flows run by themselves after a shared transaction has failed.
const LONGEST_APART: Duration = Duration::from_secs(60);

/// The largest number of flows that share a transaction, which holds locks for all of them. The last
/// flows of a longer chain run by themselves.
pub const MOST_TOGETHER: usize = 50;

/// What a worker remembers of a chain between two transactions.
#[derive(Default)]
pub struct ChainState {
    /// The number of shared transactions in a row that have failed.
    failures: u32,
    /// Until when the flows run by themselves.
    apart_until: Option<Instant>,
    /// Since when a session has locked one of the flows, or a relation or a row of them.
    busy_since: Option<Instant>,
}

impl ChainState {
    /// Reports whether the flows may share a transaction.
    pub fn may_share(&self) -> bool {
        self.apart_until.is_none_or(|until| Instant::now() >= until)
    }

    fn note_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let apart = backoff::retry_delay(self.failures).min(LONGEST_APART);
        self.apart_until = Some(Instant::now() + apart);
    }

    /// Records that one of the flows, or what it uses, is locked. Returns whether to wait for it.
    fn note_busy(&mut self, flows: &[&LiveFlow]) -> bool {
        let since = match is_worked_on(flows) {
            // Another worker has the chain, and soon leaves it.
            true => None,
            false => Some(self.busy_since.unwrap_or_else(Instant::now)),
        };
        self.busy_since = since;
        since.is_none_or(|since| since.elapsed() < BUSY_PATIENCE)
    }
}

/// Reports whether the same transaction may succeed soon: another session has locked a relation or a
/// row, or has changed what the flows depend on.
fn is_transient(sqlstate: &str) -> bool {
    live_rows::is_lock_error(sqlstate) || sqlstate == "40001"
}

/// Reports whether another worker of this database works on one of these flows.
fn is_worked_on(flows: &[&LiveFlow]) -> bool {
    let (here, database) = (backend::process_id(), backend::database().to_u32());
    shared_memory::workers()
        .iter()
        .filter(|slot| slot.pid != here && slot.database == database)
        .any(|slot| flows.iter().any(|flow| flow.id == slot.flow))
}

/// A flow of a chain, with what the worker remembers of it.
pub struct ChainMember<'a> {
    pub flow: &'a LiveFlow,
    pub state: FollowedFlow,
}

/// The result of a shared transaction.
pub enum SharedTurn {
    /// The flows wait for another process.
    NotTaken,
    /// A session canceled the transaction in order to change a flow.
    Yielded,
    /// The flows must run by themselves.
    Apart,
    /// The flow at this position must run by itself; the others can share a transaction.
    RunsAlone(usize),
    /// Each flow has had its turn.
    Done(Vec<FinishedTurn>),
}

/// Updates the flows, unless the schedule of one of them names a later time. Records the updates of
/// those that have a schedule.
fn update_by_schedule(
    flows: &[&LiveFlow],
    lives: &[LiveChainFlow],
    limits: Limits,
    begin: impl Fn(usize),
) -> Result<ChainOutcome> {
    for flow in flows.iter().filter(|flow| flow.next_update.is_some()) {
        if !schedules::lock_if_due(flow.id)? {
            return Ok(ChainOutcome::Busy);
        }
    }
    let outcome = chain::update_live_chain(lives, limits, begin)?;
    if let ChainOutcome::Done(outcomes) = &outcome {
        for (flow, done) in lives.iter().zip(outcomes) {
            if flow.live.is_scheduled && !done.more {
                schedules::note_update(flow.id, flow.live.pending.began)?;
            }
        }
    }
    Ok(outcome)
}

/// Runs one transaction of all of these flows, in this order.
pub fn take_shared_turn(chain: &mut ChainState, members: &mut [ChainMember]) -> SharedTurn {
    let started = clock::now_micros();
    let flows: Vec<&LiveFlow> = members.iter().map(|member| member.flow).collect();
    let lives: Vec<LiveChainFlow> = members
        .iter_mut()
        .map(|member| LiveChainFlow {
            name: &member.flow.name,
            id: member.flow.id,
            live: member.state.shared_update(member.flow),
        })
        .collect();
    let begin = |at: usize| {
        crash_notes::note(flows[at].id);
        followed_flow::report_flow(flows[at]);
    };
    if let Some(first) = flows.first() {
        followed_flow::report_flow(first);
    }
    let limits = followed_flow::shared_limits();
    let work = || transaction(|| update_by_schedule(&flows, &lives, limits, begin));
    let result = turn_limit::turn(|| stand_in::turn_among_others(work));
    crash_notes::note(0);
    drop(lives);
    match result {
        Ok(ChainOutcome::Done(outcomes)) => {
            settle::committed();
            *chain = ChainState::default();
            let finish = |(member, outcome): (&mut ChainMember, _)| {
                member.state.finish_shared(member.flow, started, outcome)
            };
            SharedTurn::Done(members.iter_mut().zip(outcomes).map(finish).collect())
        }
        Ok(ChainOutcome::Busy) => {
            let waits = chain.note_busy(&flows);
            members.iter_mut().for_each(|member| member.state.end_pending());
            if waits { SharedTurn::NotTaken } else { SharedTurn::Apart }
        }
        Ok(ChainOutcome::RunsAlone(at)) => {
            members.iter_mut().for_each(|member| member.state.end_pending());
            members[at].state.run_alone();
            SharedTurn::RunsAlone(at)
        }
        Err(failed) => {
            let yields = turn_limit::is_canceled(&failed) && shared_memory::cancel_was_announced();
            for member in members.iter_mut() {
                match yields {
                    true => member.state.yield_to_session(),
                    false => member.state.roll_back(),
                }
            }
            if yields {
                return SharedTurn::Yielded;
            }
            if is_transient(&failed.sqlstate) && chain.note_busy(&flows) {
                return SharedTurn::NotTaken;
            }
            chain.note_failure();
            tracing::debug!(
                sqlstate = failed.sqlstate,
                flows = flows.len(),
                "flows that feed each other run by themselves: {}",
                failed.error.message
            );
            SharedTurn::Apart
        }
    }
}
