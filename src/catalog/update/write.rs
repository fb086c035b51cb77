//! Writing a batch, and what is done about one that does not go through.

use super::{Run, interrupt};
use crate::catalog::apply::{self, Stop};
use crate::catalog::batch::{Action, Batch};
use crate::catalog::error::{Error, Result};
use crate::catalog::failure::{self, Failure};
use crate::catalog::memo;
use crate::catalog::model::Source;
use crate::catalog::subtransaction::{Raised, subtransaction};
use crate::engine::backoff;
use crate::engine::counts::Counts;
use crate::engine::isolate::{Attempt, halve};
use crate::engine::memo::Stats;

impl Run<'_> {
    /// Writes a batch, with what its items recall of memoised results.
    pub(super) fn write(
        &self,
        source: &Source,
        batch: &mut Batch,
        counts: &mut Counts,
        deferred: Option<&mut Batch>,
    ) -> Result<()> {
        let Some(recalling) = self.recalling.as_deref().filter(|_| batch.len() > 0) else {
            return self.write_parts(source, batch, counts, deferred);
        };
        memo::begin(recalling, source, batch)?;
        self.write_parts(source, batch, counts, deferred)?;
        memo::end(recalling)
    }

    /// Writes a batch; items whose data is at fault are found, recorded, and left as they were. A
    /// batch that wants a target key of an item outside goes to `deferred`, to be written when all
    /// others have let go of what they no longer produce: keys that merely change hands meet there.
    fn write_parts(
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
                Err(Stop::TooLarge) => return self.write_halves(source, this, counts),
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
            match self.attempt(source, &mut batch.slice(range)?, false) {
                Ok(_) | Err(Stop::Undone | Stop::Refused(_) | Stop::TooLarge) => Ok(Attempt::Done),
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
        batch: &mut Batch,
        keep: bool,
    ) -> std::result::Result<Counts, Stop> {
        interrupt();
        let recalling = self.recalling.as_ref();
        let written = subtransaction(
            || {
                let Run { flow, writers, writing, .. } = self;
                let written = apply::write(flow, source, writers, batch, *writing, recalling)?;
                if keep { Ok(written) } else { Err(Stop::Undone) }
            },
            Stop::Raised,
        )?;
        if let Some(recalling) = recalling {
            recalling.recall.borrow_mut().stored(&written.stored);
            for (function, calls) in written.calls {
                recalling.count(function, Stats { calls, ..Stats::default() });
            }
        }
        Ok(written.counts)
    }
}
