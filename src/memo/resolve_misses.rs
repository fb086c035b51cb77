//! Getting what is missing: out of the store, or computed, many results at a time.

use pgrx::pg_sys;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use crate::catalog::memo_function::{Function, Kind};
use crate::memo::batch_call::BatchCall;
use crate::memo::call_site::may_execute;
use crate::memo::session::Recalling;
use crate::memo::settle::{Asked, fault, settle};
use crate::memo::{provider_resolve, store};
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::OneSnapshot;
use crate::pg::subtransaction::{Raised, subtransaction};
use coco_core::isolate::{Attempt, isolate};
use coco_core::memo::{Fault, FunctionId, State, Stats};

/// Finds or computes all that was asked for. Of what the query itself computes it only makes sure
/// that it is not in the store.
pub fn resolve(recalling: &Recalling) -> Result<()> {
    let asked = std::mem::take(&mut *recalling.asked.borrow_mut());
    let keys: Vec<(FunctionId, i64)> = {
        let recall = recalling.recall.borrow();
        asked.keys().map(|p| recall.get(*p)).map(|e| (e.function, e.fingerprint)).collect()
    };
    let found = {
        // What earlier batches have stored is there too.
        let _now = OneSnapshot::take();
        store::find(recalling, &keys)?
    };
    let mut left: BTreeMap<FunctionId, Asked> = BTreeMap::new();
    {
        let mut recall = recalling.recall.borrow_mut();
        found.into_iter().for_each(|entry| recall.load(entry));
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
            .ok_or_else(|| Error::internal("a function that is not memoised was asked"))?;
        match function.kind {
            Kind::Plain => {
                let mut recall = recalling.recall.borrow_mut();
                asked.iter().for_each(|(place, _)| recall.settle(*place, State::Absent));
            }
            Kind::Batch { function: batch, owner, size } => {
                let called = Called { batch, owner, size: size.max(1) as usize };
                in_batches(recalling, id, &function, &called, &asked)?;
            }
            Kind::Embed | Kind::Generate | Kind::Post => provided.push((id, function, asked)),
        }
    }
    if !provided.is_empty() {
        provider_resolve::ask(recalling, provided)?;
    }
    recalling.answered();
    Ok(())
}

/// How a batch function is called.
struct Called {
    batch: pg_sys::Oid,
    owner: pg_sys::Oid,
    size: usize,
}

fn in_batches(
    recalling: &Recalling,
    id: FunctionId,
    function: &Rc<Function>,
    called: &Called,
    asked: &Asked,
) -> Result<()> {
    let batch = match BatchCall::of(function, called.batch, called.owner) {
        Ok(batch) => batch,
        Err(error) => {
            let fault = fault(error);
            asked.iter().for_each(|(place, _)| settle(recalling, *place, Err(fault.clone())));
            return Ok(());
        }
    };
    may_execute(called.batch)?;
    for asked in asked.chunks(called.size) {
        let began = Instant::now();
        let mut requests = 0;
        let mut attempt = |range: std::ops::Range<usize>| -> Result<Attempt<Raised>> {
            pgrx::check_for_interrupts!();
            requests += 1;
            let part = &asked[range];
            let work = || batch.call(function, part).map_err(Stop::Returned);
            match subtransaction(work, Stop::Raised) {
                Ok(results) => {
                    for ((place, _), result) in part.iter().zip(results) {
                        settle(recalling, *place, Ok(result));
                    }
                    Ok(Attempt::Done)
                }
                Err(Stop::Raised(raised)) => Ok(Attempt::Failed(raised)),
                // Whatever the inputs are: to call it for fewer of them is of no use.
                Err(Stop::Returned(error)) => {
                    let fault = fault(error);
                    part.iter().for_each(|(place, _)| {
                        settle(recalling, *place, Err(fault.clone()));
                    });
                    Ok(Attempt::Done)
                }
            }
        };
        isolate(0..asked.len(), &mut attempt, &mut |n, raised| {
            let fault = Fault {
                sqlstate: raised.sqlstate,
                message: raised.message,
                detail: raised.detail,
                hint: raised.hint,
            };
            settle(recalling, asked[n].0, Err(fault));
            Ok(())
        })?;
        let micros = began.elapsed().as_micros() as i64;
        recalling.count(id, Stats { requests, micros, ..Stats::default() });
    }
    Ok(())
}

enum Stop {
    Raised(Raised),
    /// What the function returned is not what it has to return.
    Returned(Error),
}
