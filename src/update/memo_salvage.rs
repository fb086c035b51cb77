//! Stores results of memoized functions whose transaction was rolled back.

use std::collections::BTreeMap;

use crate::flows::{cache, live_rows};
use crate::memo::{end_batch, session_of_update, settle, spending};
use crate::pg::error::Result;
use coco_core::memo_batch::MemoEntry;

/// Stores the results that were computed in transactions that were rolled back, and their cost.
/// coco then does not compute them, and pay for them, again.
pub fn salvage_rolled_back() -> Result<()> {
    let rolled_back = settle::rolled_back();
    for (server, flow, usage) in rolled_back.spent {
        spending::note(&server, Some(flow), &usage)?;
    }
    let mut by_flow: BTreeMap<i32, Vec<settle::ResolvedMisses>> = BTreeMap::new();
    for computed in rolled_back.computed {
        by_flow.entry(computed.flow).or_default().push(computed);
    }
    for (flow, all) in by_flow {
        let Some(name) = live_rows::flow_name(flow)? else { continue };
        let flow = cache::lock_runnable_flow(&name)?;
        let Some(recalling) = session_of_update(&flow.flow, None)? else { continue };
        for computed in all {
            let known = recalling.functions.get(&computed.function.oid);
            let Some(known) =
                known.filter(|k| k.function.fingerprint == computed.function.fingerprint)
            else {
                continue;
            };
            if let Some(function) = known.id {
                recalling.recall.borrow_mut().load(MemoEntry {
                    function,
                    stored: None,
                    ..computed.entry
                });
            }
        }
        end_batch(&recalling)?;
    }
    Ok(())
}
