//! Updating a flow whose targets are in this database, in the caller's transaction.

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::apply::{self, Writer, Writing};
use super::batch::{Action, Batch, Item};
use super::declare;
use super::detect::{self, Candidate, Candidates, Scan};
use super::error::{Error, Result};
use super::failure::{self, Failure, Refused};
use super::logic;
use super::model::{Flow, Source};
use super::registry;
use super::role::ActingAs;
use super::subtransaction::{Raised, subtransaction};
use super::target_table;
use super::tuples::{OneSnapshot, Statements};
use crate::engine::backoff;
use crate::engine::counts::Counts;
use crate::engine::decide::{Decision, Mode};
use crate::engine::isolate::{Attempt, halve};
use crate::engine::version::ProcessOrdinal;

/// The counts of one source.
pub struct SourceCounts {
    pub source: String,
    pub counts: Counts,
    pub elapsed: std::time::Duration,
}

/// Brings all targets of a flow up to date; a row per source.
pub fn update(name: &str, mode: Mode, batch_size: usize) -> Result<Vec<SourceCounts>> {
    let mut flow = registry::locked(name)?;
    if flow.targets.is_empty() {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{name}\" has no target yet"),
        )
        .hint("Call coco.add_target first."));
    }
    declare::restore_targets(&mut flow)?;
    let logic = logic::current(&flow)?;
    let flow = flow;
    let _as = ActingAs::flow_owner(flow.owner, &flow.settings)?;
    let writers = flow
        .targets
        .iter()
        .map(|target| Ok(Writer { target, fresh: target_table::is_empty(target)? }))
        .collect::<Result<Vec<_>>>()?;
    let run = Run { flow: &flow, writers: &writers, writing: Writing { mode, logic }, batch_size };
    let mut all = Vec::new();
    for source in &flow.sources {
        let began = Instant::now();
        let counts = run.source(source)?;
        all.push(SourceCounts { source: source.name.clone(), counts, elapsed: began.elapsed() });
    }
    run.take_over(&mut all)?;
    Ok(all)
}

struct Run<'a> {
    flow: &'a Flow,
    writers: &'a [Writer<'a>],
    writing: Writing,
    batch_size: usize,
}

impl Run<'_> {
    fn source(&self, source: &Source) -> Result<Counts> {
        let _snapshot = OneSnapshot::take();
        let statements = Statements::connect()?;
        let tracked = detect::tracked(&statements, source)?;
        let scan = Scan { mode: self.writing.mode, logic: self.writing.logic };
        let mut candidates = detect::scan(&statements, source, scan)?;
        // Items in the source are those tracked, less the gone, and the new.
        let mut counts = Counts { seen: tracked, ..Default::default() };
        let mut present = 0;
        self.decide_and_write(source, &mut candidates, |_| true, &mut counts, &mut present)?;
        let left_out = counts.seen - present;
        match source.ordinal {
            Some(_) => counts.skipped += left_out,
            None => counts.unchanged += left_out,
        }
        Ok(counts)
    }

    fn decide_and_write(
        &self,
        source: &Source,
        candidates: &mut Candidates,
        mut takes: impl FnMut(&Candidate) -> bool,
        counts: &mut Counts,
        present: &mut i64,
    ) -> Result<()> {
        let mut batch = Batch::new(source)?;
        let mut deferred = Batch::new(source)?;
        while let Some(item) = candidates.next() {
            if !takes(&item) {
                continue;
            }
            let key = candidates.key();
            if key.iter().any(Option::is_none) {
                return Err(apply::null_key(source));
            }
            match (&item.incoming, &item.stored) {
                (Some(_), None) => counts.seen += 1,
                (None, Some(_)) => counts.seen -= 1,
                _ => {}
            }
            *present += i64::from(item.incoming.is_some());
            let action = match item.decide(self.writing.logic, self.writing.mode) {
                Decision::Skip => {
                    counts.skipped += i64::from(item.incoming.is_some());
                    continue;
                }
                Decision::Wait => {
                    counts.failed += 1;
                    continue;
                }
                Decision::Advance => Action::Advance,
                Decision::Evaluate => Action::Evaluate,
                Decision::Remove => Action::Remove,
            };
            batch.push(
                &key,
                Item {
                    action,
                    tracked: item.stored.is_some(),
                    incoming: item.incoming,
                    process_ordinal: ProcessOrdinal::next(item.process_ordinal, now_micros()),
                    attempts: match item.failure {
                        // Another content or another logic is another attempt.
                        Some(f)
                            if f.content == item.incoming.and_then(|i| i.content)
                                && f.logic == Some(self.writing.logic) =>
                        {
                            item.attempts
                        }
                        _ => 0,
                    },
                },
            );
            if batch.len() >= self.batch_size {
                self.write(source, &mut batch, counts, Some(&mut deferred))?;
                batch = Batch::new(source)?;
            }
        }
        self.write(source, &mut batch, counts, Some(&mut deferred))?;
        self.write(source, &mut deferred, counts, None)
    }

    /// Writes a batch; items whose data is at fault are found, recorded, and left as they were. A
    /// batch that wants a target key of an item outside goes to `deferred`, to be written when all
    /// others have let go of what they no longer produce: keys that merely change hands meet there.
    fn write(
        &self,
        source: &Source,
        batch: &mut Batch,
        counts: &mut Counts,
        deferred: Option<&mut Batch>,
    ) -> Result<()> {
        let mut rest;
        let mut this = batch;
        let mut deferred = deferred;
        while this.len() > 0 {
            let failed = match self.attempt(source, this, true) {
                Ok(more) => {
                    *counts += more;
                    return Ok(());
                }
                Err(Stop::Flow(error)) => return Err(error),
                Err(Stop::Undone) => return Err(Error::internal("a batch was not kept")),
                Err(Stop::Refused(refused)) => {
                    let waits = refused.iter().any(|r| r.failure.waits());
                    if let Some(deferred) = deferred.take().filter(|_| waits) {
                        return this.move_into(deferred);
                    }
                    refused.into_iter().map(|r| (r.item, r.failure)).collect()
                }
                Err(Stop::Raised(raised)) => self.find_failing(source, this, raised)?,
            };
            if failed.is_empty() {
                return self.write_halves(source, this, counts);
            }
            let numbers = failed.iter().map(|(n, _)| *n).collect();
            for (n, failure) in failed {
                self.record(source, &this.slice(n..n + 1)?, &failure, counts)?;
            }
            rest = this.without(&numbers)?;
            this = &mut rest;
        }
        Ok(())
    }

    /// The items that fail on their own. Nothing of these attempts is kept: the others are to be
    /// written together, since they may hand keys to each other.
    fn find_failing(
        &self,
        source: &Source,
        batch: &mut Batch,
        raised: Raised,
    ) -> Result<Vec<(usize, Failure)>> {
        let mut failed = Vec::new();
        let whole = 0..batch.len();
        let mut attempt = |range: std::ops::Range<usize>| -> Result<Attempt<Raised>> {
            match self.attempt(source, &batch.slice(range)?, false) {
                Ok(_) | Err(Stop::Undone | Stop::Refused(_)) => Ok(Attempt::Done),
                Err(Stop::Raised(raised)) => Ok(Attempt::Failed(raised)),
                Err(Stop::Flow(error)) => Err(error),
            }
        };
        halve(whole, raised, &mut attempt, &mut |n, raised| {
            failed.push((n, Failure::from(raised)));
            Ok(())
        })?;
        Ok(failed)
    }

    /// Writes in two parts a batch that fails as a whole and of which no item fails alone: two of
    /// its items together break a constraint of the target.
    fn write_halves(&self, source: &Source, batch: &mut Batch, counts: &mut Counts) -> Result<()> {
        let middle = batch.len() / 2;
        self.write(source, &mut batch.slice(0..middle)?, counts, None)?;
        self.write(source, &mut batch.slice(middle..batch.len())?, counts, None)
    }

    fn record(
        &self,
        source: &Source,
        one: &Batch,
        failure: &Failure,
        counts: &mut Counts,
    ) -> Result<()> {
        let attempts = one.items.first().map_or(0, |i| i.attempts) + 1;
        let delay = backoff::delay(attempts as u32);
        failure::record(source, one, failure, self.writing.logic, attempts, delay)?;
        counts.failed += 1;
        let evaluated = one.items.iter().any(|i| i.action == Action::Evaluate);
        counts.evaluated += i64::from(evaluated);
        Ok(())
    }

    /// Writes a batch in a subtransaction, which without `keep` is undone.
    fn attempt(
        &self,
        source: &Source,
        batch: &Batch,
        keep: bool,
    ) -> std::result::Result<Counts, Stop> {
        interrupt();
        subtransaction(
            || match apply::write(self.flow, source, self.writers, batch, self.writing) {
                Ok(Ok(counts)) if keep => Ok(counts),
                Ok(Ok(_)) => Err(Stop::Undone),
                Ok(Err(refused)) => Err(Stop::Refused(refused)),
                Err(error) => Err(Stop::Flow(error)),
            },
            Stop::Raised,
        )
    }

    /// Evaluates again the items that wait for a target key which is free now, until none is.
    fn take_over(&self, all: &mut [SourceCounts]) -> Result<()> {
        let Some(free) = apply::free_claims(self.writers) else {
            return Ok(());
        };
        loop {
            let mut found = false;
            for (source, result) in self.flow.sources.iter().zip(all.iter_mut()) {
                let _snapshot = OneSnapshot::take();
                let statements = Statements::connect()?;
                if !detect::any_waiting(&statements, source, &free)? {
                    continue;
                }
                let mut candidates = detect::waiting(&statements, source, &free)?;
                // Of several that claim one key the first is let in; the others go on waiting.
                let mut let_in = BTreeSet::new();
                let first = |c: &Candidate| let_in.insert(c.claims.clone());
                let mut counts = Counts::default();
                let retry = Run { writing: Writing { mode: Mode::Retry, ..self.writing }, ..*self };
                retry.decide_and_write(source, &mut candidates, first, &mut counts, &mut 0)?;
                let c = &mut result.counts;
                c.evaluated += counts.evaluated;
                c.upserted += counts.upserted;
                c.deleted += counts.deleted;
                c.failed += counts.failed + counts.skipped - let_in.len() as i64;
                found |= counts.evaluated > 0;
            }
            if !found {
                return Ok(());
            }
        }
    }
}

/// Why an attempt at a batch ended without a result.
enum Stop {
    /// An item's data is at fault; which, is to be found.
    Raised(Raised),
    /// These items are refused a target key.
    Refused(Vec<Refused>),
    /// All went well, and was not to be kept.
    Undone,
    Flow(Error),
}

fn interrupt() {
    pgrx::check_for_interrupts!();
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as i64
}
