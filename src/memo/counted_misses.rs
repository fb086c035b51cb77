//! Counts the calls without a result, for an estimate that computes none.

use crate::memo::provider_resolve;
use crate::memo::session::{CallArguments, CountedMiss, CountedMisses, MemoSession};
use coco_core::memo_batch::FunctionId;
use coco_core::provider::estimate_tokens;

/// Counts a call without a result. `key` is the function and the fingerprint of the input.
pub fn count_miss(
    recalling: &MemoSession,
    key: (FunctionId, i64),
    input_bytes: usize,
    arguments: &CallArguments,
) {
    let mut counted = recalling.counted.borrow_mut();
    if let Some(known) = counted.calls.get_mut(&key) {
        known.calls += 1;
        return;
    }
    let kind = recalling.function(key.0).map(|function| function.kind);
    let provided = kind.filter(|kind| kind.is_provided());
    // A call with an invalid argument fails without a request.
    let requested = provided.and_then(|k| provider_resolve::provider_request(k, arguments).ok());
    let (request, tokens) = match requested {
        Some((request, input)) => {
            let known = counted.requests.iter().position(|other| *other == request);
            let place = known.unwrap_or_else(|| {
                counted.requests.push(request);
                counted.requests.len() - 1
            });
            (Some(place), estimate_tokens(&input))
        }
        None => (None, 0),
    };
    let miss = CountedMiss { calls: 1, input_bytes: input_bytes as u64, request, tokens };
    counted.calls.insert(key, miss);
}

impl CountedMisses {
    /// Adds the calls that another part of the items has made.
    pub fn merge(&mut self, other: CountedMisses) {
        let places: Vec<usize> = other
            .requests
            .into_iter()
            .map(|request| {
                let known = self.requests.iter().position(|known| *known == request);
                known.unwrap_or_else(|| {
                    self.requests.push(request);
                    self.requests.len() - 1
                })
            })
            .collect();
        for (key, miss) in other.calls {
            let request = miss.request.and_then(|place| places.get(place).copied());
            self.calls
                .entry(key)
                .and_modify(|known| known.calls += miss.calls)
                .or_insert(CountedMiss { request, ..miss });
        }
    }
}
