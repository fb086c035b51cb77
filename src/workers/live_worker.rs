//! A worker: keeps the live flows of one database up to date, one flow after the other, or flows
//! that feed each other in one transaction.

use pgrx::bgworkers::DynamicBackgroundWorker;
use pgrx::prelude::*;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::catalog::installed::{self, InstalledExtension};
use crate::catalog::locks;
use crate::flows::live_rows::{self, LeaveOutcome, LiveFlow};
use crate::memo::settle;
use crate::pg::{acting_role, backend, clock, invalidation};
use crate::workers::chain_turn::{self, ChainMember, ChainState, SharedTurn};
use crate::workers::delivery::dispatcher::DeliveryDispatcher;
use crate::workers::delivery::target_store::EmptyOutbox;
use crate::workers::followed_flow::{FinishedTurn, FollowedFlow, Turn};
use crate::workers::parallel_helper::Helpers;
use crate::workers::process::{
    MAX_SEATS, attach_to_database, launch_worker, process_interrupts, wait, wait_shortly,
};
use crate::workers::round::Round;
use crate::workers::shared_memory::{self, WorkerEnd};
use crate::workers::transaction::{log_failure, transaction};
use crate::workers::turn_limit::YIELD;
use crate::workers::upkeep::{self, Upkeep};
use crate::workers::verification_starter::VerificationStarter;
use crate::workers::wait_event::WaitEvent;
use crate::workers::{change_counts, crash_notes, progress, stand_in};

/// Polling interval with shared memory, where writers wake the worker, and without.
const POLL_WOKEN: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(100);

/// Interval at which a worker reads which flows are live, unless an invalidation tells it sooner.
const READ_CATALOG_EVERY: Duration = Duration::from_secs(1);

/// How long a worker looks for changes by polling after it has seen a prepared transaction. It looks
/// for prepared transactions more often than that.
const POLL_AFTER_PREPARED: Duration = Duration::from_secs(3);

/// How long a worker stays after the last flow was stopped, because another flow may be started. A
/// worker that has never found a live flow exits at once.
const EXIT_WHEN_IDLE_FOR: Duration = Duration::from_secs(5);

/// How long a stand-in stays after it was last needed, because it may be needed again.
const EXIT_WHEN_NOT_NEEDED_FOR: Duration = Duration::from_secs(5);

/// How long a worker stays while other databases wait for its process: if it has nothing to do, and
/// in any case.
const STAY: Duration = Duration::from_millis(500);

const STAY_BUSY: Duration = Duration::from_secs(5);

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_worker_main(argument: pg_sys::Datum) {
    let database = pg_sys::Oid::from(argument.value() as u32);
    let seat = (argument.value() >> 32) as u16;
    let note = |how| {
        if seat == 1 {
            shared_memory::note_ended(database, how);
        }
    };
    attach_to_database(database, c"coco worker");
    note(WorkerEnd::Looking);
    wait_shortly();
    let begun = transaction(|| match installed::installed_extension()? {
        Some(installed) if !installed.fits => Ok(Some(installed)),
        Some(installed) if locks::worker_slot(seat)? => Ok(Some(installed)),
        _ => Ok(None),
    });
    let installed = match begun {
        Ok(Some(installed)) if !installed.fits => return note(leave_other_version(database)),
        Ok(Some(installed)) => installed,
        // coco is not installed, or another process is this worker.
        Ok(None) => return note(WorkerEnd::Idle),
        Err(failed) => {
            log_failure("could not start the worker", &failed);
            return note(WorkerEnd::Failed);
        }
    };
    shared_memory::note_version(database, false);
    shared_memory::enter(database, seat);
    crash_notes::enter(database);
    upkeep::set_aside(database);
    progress::tell();
    settle::watch();
    let mut worker = LiveWorker {
        seat,
        installed,
        database,
        started: Instant::now(),
        last_needed: Instant::now(),
        flows: HashMap::new(),
        live_flows: vec![],
        chains: vec![],
        ordered_at: None,
        chain_states: HashMap::new(),
        polls_until: None,
        catalog_read: None,
        first: 0,
        other_workers: HashMap::new(),
        dispatcher: DeliveryDispatcher::new(EmptyOutbox::AtOnce),
        helpers: Helpers::default(),
        upkeep: Upkeep::default(),
        verifications: VerificationStarter::default(),
    };
    let how = worker.work();
    worker.verifications.leave(how);
    note(match how {
        WorkerEnd::OtherVersion => leave_other_version(database),
        how => how,
    });
}

/// Logs once that the extension has another version than the library.
fn leave_other_version(database: pg_sys::Oid) -> WorkerEnd {
    if !shared_memory::note_version(database, true)
        && let Err(failed) = transaction(acting_role::check_version)
    {
        log_failure("cannot follow flows", &failed);
    }
    WorkerEnd::OtherVersion
}

struct LiveWorker {
    seat: u16,
    database: pg_sys::Oid,
    /// The extension that the worker serves. An extension that was created again has other worker
    /// slots.
    installed: InstalledExtension,
    started: Instant,
    /// When it last ran transactions of flows. A stand-in does so only while it is needed.
    last_needed: Instant,
    /// What the worker remembers of each live flow, and of a stopped one until its history is
    /// stored.
    flows: HashMap<i32, FollowedFlow>,
    /// The live flows, as the worker last read them from the catalog.
    live_flows: Vec<LiveFlow>,
    /// Their ids in the order of the turns. Flows of one owner that feed each other are in one
    /// chain, each after those that feed it.
    chains: Vec<Vec<i32>>,
    /// The invalidation count from before it determined this order.
    ordered_at: Option<u64>,
    /// What the worker remembers of chains, by the id of the first flow.
    chain_states: HashMap<i32, ChainState>,
    /// Until when it looks for changes that no writer counts, because they were prepared.
    polls_until: Option<Instant>,
    /// When it read them, and the invalidation count then.
    catalog_read: Option<(Instant, u64)>,
    /// Index of the chain with which the next round begins.
    first: usize,
    /// The workers that the first one has started, by number.
    other_workers: HashMap<u16, DynamicBackgroundWorker>,
    dispatcher: DeliveryDispatcher,
    helpers: Helpers,
    upkeep: Upkeep,
    verifications: VerificationStarter,
}

/// The result of reading which flows are live.
enum LiveFlows {
    Flows {
        flows: Vec<LiveFlow>,
        /// Their ids in the order of the turns: see [`LiveWorker::chains`].
        chains: Vec<Vec<i32>>,
        /// Whether prepared transactions exist.
        has_prepared: bool,
    },
    /// The extension has another version than the library by now.
    OtherVersion,
    /// The extension was dropped, or another session needs the database exclusively.
    Leave,
}

impl LiveWorker {
    /// Works until the process should end. Returns the reason.
    fn work(&mut self) -> WorkerEnd {
        let mut useful = None;
        loop {
            process_interrupts();
            let is_needed = self.seat <= stand_in::max_workers()
                || self.last_needed.elapsed() < EXIT_WHEN_NOT_NEEDED_FOR;
            if !is_needed && self.has_nothing_set_aside() {
                return WorkerEnd::Idle;
            }
            if !self.catalog_is_current() {
                let generation = invalidation::invalidation_count();
                let order = Some(&self.chains).filter(|_| self.ordered_at == Some(generation));
                match transaction(|| find_live_flows(self.installed, order)) {
                    Ok(LiveFlows::Leave) => return WorkerEnd::Left,
                    Ok(LiveFlows::OtherVersion) => return WorkerEnd::OtherVersion,
                    Ok(LiveFlows::Flows { flows, chains, has_prepared }) => {
                        if has_prepared {
                            self.polls_until = Some(Instant::now() + POLL_AFTER_PREPARED);
                        }
                        for (id, state) in &mut self.flows {
                            match flows.iter().find(|f| f.id == *id) {
                                Some(flow) => {
                                    if self.ordered_at != Some(generation) {
                                        state.catalog_changed();
                                    }
                                    state.note_schedule(flow);
                                }
                                None => state.stopped(),
                            }
                        }
                        self.dispatcher.follow_names(|old| {
                            let id = self.live_flows.iter().find(|f| f.name == old)?.id;
                            let now = flows.iter().find(|f| f.id == id)?;
                            Some(now.name.clone()).filter(|name| name != old)
                        });
                        let names: HashSet<&str> = flows.iter().map(|f| f.name.as_str()).collect();
                        if let Err(failed) =
                            self.dispatcher.close_unused(|flow| names.contains(flow))
                        {
                            log_failure("could not close targets", &failed);
                        }
                        shared_memory::report(|slot| slot.live_flows = flows.len() as u32);
                        self.live_flows = flows;
                        self.chain_states
                            .retain(|id, _| chains.iter().flatten().any(|live| live == id));
                        self.chains = chains;
                        self.ordered_at = Some(generation);
                        self.catalog_read = Some((Instant::now(), generation));
                    }
                    Err(failed) => {
                        log_failure("could not read coco's catalog", &failed);
                        wait(Duration::from_secs(5), WaitEvent::Changes);
                        continue;
                    }
                }
            }
            if !self.live_flows.is_empty() {
                if useful.is_none() && self.seat == 1 {
                    shared_memory::note_ended(self.database, WorkerEnd::Following);
                }
                useful = Some(Instant::now());
            } else if useful.is_none_or(|at: Instant| at.elapsed() > EXIT_WHEN_IDLE_FOR)
                || shared_memory::is_crowded()
            {
                if self.seat == 1 {
                    self.upkeep.sweep_at_last();
                }
                match transaction(|| live_rows::leave_if_idle(self.seat)) {
                    Ok(LeaveOutcome::Yes) => return WorkerEnd::Idle,
                    Ok(LeaveOutcome::Restoring) => return WorkerEnd::Restoring,
                    // A session is just starting a flow.
                    Ok(LeaveOutcome::No) => {
                        wait(POLL, WaitEvent::Changes);
                        continue;
                    }
                    Err(failed) => {
                        log_failure("could not end the idle worker", &failed);
                        return WorkerEnd::Failed;
                    }
                }
            }
            let pause = self.round();
            self.store_history();
            if self.seat == 1 {
                self.upkeep.sweep();
                self.verifications.start_due(&self.live_flows);
            }
            // Publishes the worker's statistics, which tell autovacuum what to do. The server
            // limits how often it really does so.
            // SAFETY: called outside a transaction.
            unsafe { pg_sys::pgstat_report_stat(false) };
            if self.gives_way(pause.is_none()) {
                return WorkerEnd::GaveWay;
            }
            if let Some(pause) = pause {
                report_idle();
                let delivery = self.dispatcher.is_in_flight();
                wait(pause, if delivery { WaitEvent::Delivery } else { WaitEvent::Changes });
            }
        }
    }

    /// Reports whether to leave the process to a database that waits for one. The worker first
    /// finishes work that exists only in its memory.
    fn gives_way(&self, busy: bool) -> bool {
        let stay = if busy { STAY_BUSY } else { STAY };
        self.started.elapsed() > stay && shared_memory::is_crowded() && self.has_nothing_set_aside()
    }

    /// Reports whether the worker can end without another process having to repeat its work.
    fn has_nothing_set_aside(&self) -> bool {
        !self.dispatcher.is_in_flight() && !self.flows.values().any(FollowedFlow::has_unfinished)
    }

    /// Reports whether the last look at the catalog is still valid. Starting or stopping a flow
    /// changes the invalidation count, which this process notices at its next transaction.
    fn catalog_is_current(&self) -> bool {
        self.catalog_read.is_some_and(|(at, generation)| {
            at.elapsed() < READ_CATALOG_EVERY
                && generation == invalidation::invalidation_count()
                && !self.live_flows.is_empty()
        })
    }

    /// Runs one transaction for each flow, or for several that feed each other. Returns how long to
    /// wait afterwards, `None` if there is more to do.
    fn round(&mut self) -> Option<Duration> {
        let flows = std::mem::take(&mut self.live_flows);
        self.call_others(flows.len());
        self.helpers.allow(stand_in::max_workers().into(), flows.len());
        let takes_turns = stand_in::takes_turns(self.database, self.seat);
        if !takes_turns {
            self.flows.values_mut().for_each(FollowedFlow::discard_unfinished);
        }
        let poll = if shared_memory::available() { POLL_WOKEN } else { POLL };
        let is_alone = flows.len() == 1;
        let polls_all = self.polls_until.is_some_and(|until| until > Instant::now())
            || change_counts::is_prepared_recently();
        let mut round =
            Round { pause: Some(poll), takes_turns, polls_all, is_alone, is_over: false };
        let by_id: HashMap<i32, &LiveFlow> = flows.iter().map(|flow| (flow.id, flow)).collect();
        let count = self.chains.len();
        self.first = if count == 0 { 0 } else { (self.first + 1) % count };
        let chains: Vec<Vec<&LiveFlow>> = (0..count)
            .map(|n| &self.chains[(self.first + n) % count])
            .map(|chain| chain.iter().filter_map(|id| by_id.get(id).copied()).collect())
            .collect();
        self.take_all_turns(&chains, &mut round);
        self.live_flows = flows;
        if takes_turns {
            self.last_needed = Instant::now();
        }
        round.pause
    }

    /// Runs the turns of all chains. Those without changes come last: after an invalidation, the worker
    /// looks at all of them once. If a commit comes meanwhile, the rest of them wait for the next
    /// round.
    fn take_all_turns(&mut self, chains: &[Vec<&LiveFlow>], round: &mut Round) {
        let mut looks = Vec::new();
        let mut seen: HashMap<i32, Option<u64>> = HashMap::new();
        for chain in chains {
            if round.takes_turns && !self.is_idle(chain) && self.has_no_changes(chain) {
                looks.push(chain);
                continue;
            }
            seen.extend(chain.iter().map(|flow| (flow.id, self.counted(flow))));
            self.take_turns(chain, round);
            if round.is_over {
                return;
            }
        }
        let mut is_interrupted = false;
        for chain in looks {
            if is_interrupted {
                // To ask the catalog about external targets would take as long as the looks.
                let external = |flow: &&&LiveFlow| {
                    self.flows.get(&flow.id).is_some_and(FollowedFlow::was_external)
                };
                let external: Vec<&&LiveFlow> = chain.iter().filter(external).collect();
                external.into_iter().for_each(|flow| self.deliver(flow, round));
                round.pause = None;
                continue;
            }
            self.take_turns(chain, round);
            if round.is_over {
                return;
            }
            is_interrupted = chains.iter().flatten().any(|flow| {
                let counted = self.counted(flow);
                counted.is_some() && seen.get(&flow.id) != Some(&counted)
            });
        }
    }

    /// Reports whether transactions of these flows would find no changes.
    fn has_no_changes(&self, chain: &[&LiveFlow]) -> bool {
        let has_none = |flow: &&LiveFlow| {
            self.flows.get(&flow.id).is_some_and(|state| state.has_no_changes(flow))
        };
        chain.iter().all(has_none)
    }

    /// Returns a number that changes with each commit that concerns a flow, if there was one since the
    /// flow's last transaction.
    fn counted(&self, flow: &LiveFlow) -> Option<u64> {
        self.flows.get(&flow.id)?.counted()
    }

    /// Runs the turns of a chain: flows of which each comes after those that feed it. Those that can
    /// share a transaction do so.
    fn take_turns(&mut self, chain: &[&LiveFlow], round: &mut Round) {
        if round.takes_turns && !round.polls_all && self.is_idle(chain) {
            chain.iter().for_each(|flow| self.deliver(flow, round));
            return;
        }
        let mut together: Vec<&LiveFlow> = Vec::new();
        if round.takes_turns && self.may_share(chain) {
            let can_share = |f: &&LiveFlow| self.flows.entry(f.id).or_default().can_share_turn(f);
            let some = chain.iter().copied().filter(can_share);
            together.extend(some.take(chain_turn::MOST_TOGETHER));
        }
        let mut shared: Option<Vec<i32>> = None;
        for flow in chain {
            if round.is_over {
                return;
            }
            process_interrupts();
            if shared.is_none() && together.iter().any(|other| other.id == flow.id) {
                let together = std::mem::take(&mut together);
                shared = Some(self.take_shared_turn(chain[0].id, together, round));
            }
            if !shared.as_ref().is_some_and(|shared| shared.contains(&flow.id)) {
                self.take_turn(flow, round);
            }
        }
    }

    /// Reports whether the flows of a chain may share a transaction.
    fn may_share(&self, chain: &[&LiveFlow]) -> bool {
        let [first, _, ..] = chain else { return false };
        self.chain_states.get(&first.id).is_none_or(ChainState::may_share)
    }

    /// Runs one transaction of several flows of a chain. Returns the flows that have had their turn;
    /// each of the others needs a transaction of its own.
    fn take_shared_turn(
        &mut self,
        chain: i32,
        mut flows: Vec<&LiveFlow>,
        round: &mut Round,
    ) -> Vec<i32> {
        while flows.len() > 1 {
            let mut members: Vec<ChainMember> = flows
                .iter()
                .map(|flow| {
                    let state = self.flows.remove(&flow.id).unwrap_or_default();
                    ChainMember { flow, state }
                })
                .collect();
            let state = self.chain_states.entry(chain).or_default();
            let turn = chain_turn::take_shared_turn(state, &mut members);
            self.flows.extend(members.into_iter().map(|member| (member.flow.id, member.state)));
            match turn {
                SharedTurn::Apart => break,
                SharedTurn::RunsAlone(at) => {
                    flows.remove(at);
                    continue;
                }
                SharedTurn::NotTaken => round.look_again_in(POLL),
                SharedTurn::Yielded => {
                    self.catalog_read = None;
                    round.look_again_in(YIELD);
                }
                SharedTurn::Done(all) => {
                    flows.iter().zip(&all).for_each(|(flow, done)| self.finish(flow, done, round));
                }
            }
            return flows.iter().map(|flow| flow.id).collect();
        }
        vec![]
    }

    /// Reports whether transactions of these flows would find nothing.
    fn is_idle(&self, chain: &[&LiveFlow]) -> bool {
        chain.iter().all(|flow| self.flows.get(&flow.id).is_some_and(|state| state.is_idle(flow)))
    }

    /// Delivers the changes of one flow.
    fn deliver(&mut self, flow: &LiveFlow, round: &mut Round) {
        let state = self.flows.entry(flow.id).or_default();
        if state.may_be_external() {
            round.look_again(state.deliver(flow, &mut self.dispatcher));
        }
    }

    /// Delivers the changes of one flow, and runs one transaction of it.
    fn take_turn(&mut self, flow: &LiveFlow, round: &mut Round) {
        self.deliver(flow, round);
        if !round.takes_turns {
            return;
        }
        let state = self.flows.entry(flow.id).or_default();
        let postponed = state.postponed_for(flow);
        if !postponed.is_zero() {
            round.look_again_in(postponed);
            return;
        }
        match state.take_turn(flow, round.is_alone, &self.helpers) {
            Turn::NotTaken => {}
            Turn::Yielded => {
                self.catalog_read = None;
                round.look_again_in(YIELD);
            }
            Turn::Failed => self.catalog_read = None,
            Turn::Done(done) => {
                // Delivers the changes while the next transaction runs.
                if done.is_external {
                    round.look_again(state.deliver(flow, &mut self.dispatcher));
                }
                self.finish(flow, &done, round);
            }
        }
        // The flow's error may be over; reads the catalog again.
        if flow.attempts > 0 {
            self.catalog_read = None;
        }
    }

    /// Takes the result of a flow's turn into account. A new version that has caught up may replace
    /// its flow.
    fn finish(&mut self, flow: &LiveFlow, done: &FinishedTurn, round: &mut Round) {
        round.note(done);
        if flow.next_update.is_some() {
            // Reads when the schedule lets the worker update the flow again.
            self.catalog_read = None;
        }
        if done.has_more || !flow.swaps || round.is_over {
            return;
        }
        let state = self.flows.entry(flow.id).or_default();
        if state.try_swap(flow) {
            // The flows have other names now.
            self.catalog_read = None;
            round.end();
        } else {
            round.look_again(state.swap_in(flow));
        }
    }

    /// Stores the history of flows when it is due.
    fn store_history(&mut self) {
        let now = Instant::now();
        let live: HashSet<i32> = self.live_flows.iter().map(|f| f.id).collect();
        self.flows.retain(|id, state| state.store_history(*id, now) || live.contains(id));
    }

    /// Starts other workers if this is the first one: one per live flow, at most
    /// `coco.max_workers`.
    fn call_others(&mut self, flows: usize) {
        if self.seat != 1 || shared_memory::is_crowded() {
            return;
        }
        let wanted = flows.min(stand_in::max_workers().into()) as u16;
        self.other_workers.retain(|_, worker| worker.pid().is_ok());
        for seat in 2..=wanted.min(MAX_SEATS) {
            // A worker that existed before this one is not in `other_workers`.
            let free = || Ok(!locks::is_worker_slot_taken(seat)?);
            if !self.other_workers.contains_key(&seat)
                && transaction(free).unwrap_or(false)
                && let Some(worker) = launch_worker(self.database, seat, None)
            {
                worker.wait_for_startup().ok();
                self.other_workers.insert(seat, worker);
            }
        }
    }
}

/// Reads which flows are live. `order` is their order, if it is known.
fn find_live_flows(
    known: InstalledExtension,
    order: Option<&Vec<Vec<i32>>>,
) -> Result<LiveFlows, crate::pg::error::Error> {
    if locks::database_being_dropped(backend::database()) {
        return Ok(LiveFlows::Leave);
    }
    match installed::installed_extension()? {
        Some(now) if now == known => {
            let flows = live_rows::live_flows()?;
            let chains = match order.filter(|order| live_rows::is_order_of(order, &flows)) {
                Some(order) => order.clone(),
                None => live_rows::in_order(&flows)?,
            };
            let has_prepared = live_rows::has_prepared_transactions()?;
            Ok(LiveFlows::Flows { flows, chains, has_prepared })
        }
        Some(now) if now.extension == known.extension => Ok(LiveFlows::OtherVersion),
        _ => Ok(LiveFlows::Leave),
    }
}

/// Shows that the worker is idle; called before it waits.
fn report_idle() {
    // SAFETY: changes the process's own state.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    shared_memory::report(|slot| {
        slot.flow = 0;
        slot.source = 0;
        slot.since = clock::timestamp_micros();
    });
}
