//! Gets missing results, many at a time: from the store, from other flows, or by computing them.

use pgrx::pg_sys;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use crate::catalog::memo_function::{MemoFunction, MemoFunctionKind};
use crate::memo::batch_call::BatchCall;
use crate::memo::call_site::may_execute;
use crate::memo::session::MemoSession;
use crate::memo::settle::{MissedCalls, call_error, settle_results};
use crate::memo::{provider_resolve, reuse, store};
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::subtransaction::{DataError, subtransaction};
use coco_core::bisect::{Attempt, bisect};
use coco_core::memo_batch::{EntryIndex, FunctionId, MemoError, State, Stats};

/// Finds or computes all missing results. For a function that the query itself computes, only
/// checks that no store has a result.
pub fn resolve_misses(recalling: &MemoSession) -> Result<()> {
    let asked = std::mem::take(&mut *recalling.asked.borrow_mut());
    let keys: Vec<(FunctionId, i64)> = {
        let recall = recalling.recall.borrow();
        asked.keys().map(|p| recall.get(*p)).map(|e| (e.function, e.fingerprint)).collect()
    };
    let found = {
        // A new snapshot also sees results that earlier batches have stored.
        let _now = PinnedSnapshot::take();
        store::find(recalling, &keys)?
    };
    {
        let mut recall = recalling.recall.borrow_mut();
        found.into_iter().for_each(|entry| recall.load(entry));
    }
    let places: Vec<EntryIndex> = asked.keys().copied().collect();
    reuse::load_reusable(recalling, &places)?;
    let mut left: BTreeMap<FunctionId, MissedCalls> = BTreeMap::new();
    {
        let recall = recalling.recall.borrow();
        for (place, arguments) in asked {
            let entry = recall.get(place);
            if entry.state == State::Asked {
                left.entry(entry.function).or_default().push((place, arguments));
            }
        }
    }
    let mut provided = Vec::new();
    for (id, asked) in left {
        let function = recalling
            .function(id)
            .cloned()
            .ok_or_else(|| Error::internal("function is not memoized"))?;
        match function.kind {
            MemoFunctionKind::Plain => {
                let mut recall = recalling.recall.borrow_mut();
                asked.iter().for_each(|(place, _)| recall.set_state(*place, State::Absent));
            }
            MemoFunctionKind::Batch { function: batch, owner, size } => {
                let called = BatchCallResult { batch, owner, size: size.max(1) as usize };
                in_batches(recalling, id, &function, &called, &asked)?;
            }
            MemoFunctionKind::Embed | MemoFunctionKind::Generate | MemoFunctionKind::Post => {
                provided.push((id, function, asked))
            }
        }
    }
    if !provided.is_empty() {
        provider_resolve::ask_provider(recalling, provided)?;
    }
    recalling.answered();
    Ok(())
}

/// How coco calls a batch function.
struct BatchCallResult {
    batch: pg_sys::Oid,
    owner: pg_sys::Oid,
    size: usize,
}

fn in_batches(
    recalling: &MemoSession,
    id: FunctionId,
    function: &Rc<MemoFunction>,
    called: &BatchCallResult,
    asked: &MissedCalls,
) -> Result<()> {
    let batch = match BatchCall::of(function, called.batch, called.owner) {
        Ok(batch) => batch,
        Err(error) => {
            let fault = call_error(error);
            asked
                .iter()
                .for_each(|(place, _)| settle_results(recalling, *place, Err(fault.clone())));
            return Ok(());
        }
    };
    may_execute(called.batch)?;
    for asked in asked.chunks(called.size) {
        let began = Instant::now();
        let mut requests = 0;
        let mut attempt = |range: std::ops::Range<usize>| -> Result<Attempt<DataError>> {
            pgrx::check_for_interrupts!();
            requests += 1;
            let part = &asked[range];
            let work = || batch.call(function, part).map_err(CallError::Returned);
            match subtransaction(work, CallError::Raised) {
                Ok(results) => {
                    for ((place, _), result) in part.iter().zip(results) {
                        settle_results(recalling, *place, Ok(result));
                    }
                    Ok(Attempt::Done)
                }
                Err(CallError::Raised(raised)) => Ok(Attempt::Failed(raised)),
                // This error does not depend on the inputs, so a call with fewer inputs would not
                // help.
                Err(CallError::Returned(error)) => {
                    let fault = call_error(error);
                    part.iter().for_each(|(place, _)| {
                        settle_results(recalling, *place, Err(fault.clone()));
                    });
                    Ok(Attempt::Done)
                }
            }
        };
        bisect(0..asked.len(), &mut attempt, &mut |n, raised| {
            let fault = MemoError {
                sqlstate: raised.sqlstate,
                message: raised.message,
                detail: raised.detail,
                hint: raised.hint,
            };
            settle_results(recalling, asked[n].0, Err(fault));
            Ok(())
        })?;
        let micros = began.elapsed().as_micros() as i64;
        recalling.count(id, Stats { requests, micros, ..Stats::default() });
    }
    Ok(())
}

enum CallError {
    Raised(DataError),
    /// The function returned an array that does not match its inputs.
    Returned(Error),
}
