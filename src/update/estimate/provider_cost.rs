//! What the missing results of memoized functions cost: requests, tokens, money and time.

use std::collections::BTreeMap;

use crate::catalog::model::Flow;
use crate::memo::call_history::{self, AverageCall};
use crate::memo::provider_resolve;
use crate::memo::session::{CountedMiss, CountedMisses, MemoSession};
use crate::pg::error::Result;
use coco_core::memo_batch::FunctionId;
use coco_core::sampling::{Bounds, SampledValues, distinct};

/// The cost of all missing results.
#[derive(Clone, Debug, Default)]
pub struct MissCost {
    /// The number of results to compute.
    pub misses: Bounds,
    pub requests: Bounds,
    pub tokens_in: Bounds,
    pub tokens_out: Bounds,
    /// In the unit of the servers' prices.
    pub cost: Bounds,
    /// The time of earlier computations of the same functions.
    pub seconds: f64,
    /// Whether a provider computes results of which the flow has computed none yet.
    pub lacks_history: bool,
    /// The servers of the requests.
    pub servers: Vec<String>,
}

/// The requests of one kind that a sample would need for one function.
#[derive(Default)]
struct SampledRequests {
    inputs: u64,
    tokens: u64,
    input_bytes: u64,
}

/// Computes the cost of missing results from those that a sample lacks. `calls` are the calls
/// without a result that all items make, by function.
pub fn miss_cost(
    flow: &Flow,
    recalling: &MemoSession,
    calls: &BTreeMap<FunctionId, Bounds>,
    missed: &CountedMisses,
) -> Result<MissCost> {
    let mut all = MissCost::default();
    let mut requests: BTreeMap<usize, Bounds> = BTreeMap::new();
    for (function, calls) in calls {
        let of_function: Vec<&CountedMiss> = missed
            .calls
            .iter()
            .filter(|((id, _), _)| id == function)
            .map(|(_, miss)| miss)
            .collect();
        let sampled = SampledValues {
            seen: of_function.iter().map(|miss| miss.calls).sum(),
            distinct: of_function.len() as u64,
            once: of_function.iter().filter(|miss| miss.calls == 1).count() as u64,
        };
        if sampled.distinct == 0 {
            all.misses += *calls;
            continue;
        }
        let misses = distinct(*calls, sampled);
        all.misses += misses;
        // The number of results for each result that the sample lacks.
        let factor = misses.scaled(1.0 / sampled.distinct as f64);
        let name = recalling.function(*function).map(|f| f.name.clone()).unwrap_or_default();
        let average = call_history::average_call(flow, &name)?;
        all.seconds += average.map_or(0.0, |average| average.seconds) * misses.estimate;
        let mut kinds: BTreeMap<usize, SampledRequests> = BTreeMap::new();
        for miss in of_function {
            let Some(request) = miss.request else { continue };
            let kind = kinds.entry(request).or_default();
            kind.inputs += 1;
            kind.tokens += miss.tokens;
            kind.input_bytes += miss.input_bytes;
        }
        for (place, kind) in kinds {
            all.lacks_history |= average.is_none();
            *requests.entry(place).or_default() += factor.scaled(kind.inputs as f64);
            add_tokens(flow, missed, place, &kind, factor, average, &mut all)?;
        }
    }
    for (place, inputs) in requests {
        let Some(request) = missed.requests.get(place) else { continue };
        let (server, terms) = provider_resolve::terms_of(request, flow.owner)?;
        let each = terms.inputs_per_request.max(1) as f64;
        all.requests += inputs.map(|inputs| (inputs / each).ceil());
        if !all.servers.contains(&server) {
            all.servers.push(server);
        }
    }
    Ok(all)
}

/// Adds the tokens and the price of requests of one kind.
fn add_tokens(
    flow: &Flow,
    missed: &CountedMisses,
    place: usize,
    kind: &SampledRequests,
    factor: Bounds,
    average: Option<AverageCall>,
    all: &mut MissCost,
) -> Result<()> {
    let Some(request) = missed.requests.get(place) else { return Ok(()) };
    let (_, terms) = provider_resolve::terms_of(request, flow.owner)?;
    let is_generated = matches!(request.task, coco_core::provider::Task::Generate { .. });
    let has_tokens = !matches!(request.task, coco_core::provider::Task::Post { .. });
    let counted = average.filter(|average| average.tokens_in > 0.0);
    let by_byte = counted.and_then(|average| {
        let bytes = average.input_bytes.filter(|bytes| *bytes > 0.0)?;
        Some(average.tokens_in / bytes)
    });
    let tokens_in = match (has_tokens, by_byte) {
        (false, _) => 0.0,
        (true, Some(by_byte)) => kind.input_bytes as f64 * by_byte,
        (true, None) => kind.tokens as f64,
    };
    let tokens_out = match (is_generated, average, terms.answer_tokens) {
        (false, ..) => 0.0,
        (true, Some(average), _) => average.tokens_out * kind.inputs as f64,
        (true, None, Some(answer)) => answer as f64 * kind.inputs as f64,
        // As coco reserves money for an answer of unknown length.
        (true, None, None) => tokens_in,
    };
    all.tokens_in += factor.scaled(tokens_in);
    all.tokens_out += factor.scaled(tokens_out);
    let price = (tokens_in * terms.price_in + tokens_out * terms.price_out) / 1e6;
    all.cost += factor.scaled(price);
    Ok(())
}
