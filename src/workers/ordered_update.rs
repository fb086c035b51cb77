//! Updates of several flows for a session, each flow after those that feed it: in the session's
//! transaction, or by workers.

use std::collections::BTreeSet;

use crate::catalog::flow_rows;
use crate::catalog::version_rows::{self, FlowVersion};
use crate::flows::upstream::{self, FlowChains};
use crate::flows::{cache, live_rows, paused};
use crate::pg::error::Error;
use crate::pg::notice::notice;
use crate::update::chain::{self, FlowCounts, FlowToUpdate};
use crate::update::limits::Limits;
use crate::workers::progress::Watched;
use crate::workers::update_client;
use coco_core::decision::Mode;
use coco_core::worker_request::WorkerCommand;

/// Updates a flow after the flows that feed it. The mode applies only to the flow itself.
pub fn update_with_upstream(
    flow: &str,
    mode: Mode,
    limits: Limits,
) -> Result<Vec<FlowCounts>, Error> {
    // Raises an error if the flow does not exist, or is not the caller's.
    flow_rows::identify_flow(flow)?;
    let chains = upstream::read_chains()?;
    let last = chains.find(flow).ok_or_else(|| flow_rows::missing(flow))?;
    let (mut flows, others): (Vec<usize>, Vec<usize>) =
        chains.feeding(last).into_iter().partition(|feeder| chains.flows[*feeder].is_usable());
    if !others.is_empty() {
        notice(format!("flows of other roles feed flow \"{flow}\", and are not updated"));
    }
    flows.push(last);
    let mode_of = |flow| if flow == last { mode } else { Mode::Normal };
    update_in_order(&chains, &flows, mode_of, limits)
}

/// Updates the named flows, each after those that feed it. Without names, updates all flows of the
/// caller, except flows that are paused or have no target, and versions of flows: the caller updates
/// these after their flows.
pub fn update_all(names: Option<Vec<String>>, limits: Limits) -> Result<Vec<FlowCounts>, Error> {
    let chains = upstream::read_chains()?;
    let flows: Vec<usize> = match names {
        None => (0..chains.flows.len())
            .filter(|flow| {
                let flow = &chains.flows[*flow];
                flow.has_target && !flow.is_paused && !flow.is_version && flow.is_usable()
            })
            .collect(),
        Some(names) => {
            names.into_iter().map(|name| find_named(&chains, name)).collect::<Result<_, Error>>()?
        }
    };
    update_in_order(&chains, &chains.order.sorted(flows), |_| Mode::Normal, limits)
}

/// Returns the flow of this name, for its owner.
fn find_named(chains: &FlowChains, name: String) -> Result<usize, Error> {
    flow_rows::identify_flow(&name)?;
    chains.find(&name).ok_or_else(|| flow_rows::missing(&name))
}

/// Reports whether a worker updates a version of this flow. A version that cannot run does not count.
fn has_version_for_worker(flow: i32) -> Result<bool, Error> {
    let asks = |version: &FlowVersion| {
        cache::runnable_flow(&version.name).is_ok_and(|ready| ready.flow.asks_providers())
    };
    Ok(version_rows::versions_of(flow)?.iter().any(asks))
}

/// Brings these flows up to date; `flows` contains each flow after those that feed it. `mode_of`
/// returns how to update a flow.
///
/// A worker updates a flow that has external targets or calls providers. A worker sees only
/// committed data, so it also updates the flows that feed such a flow. All other flows are updated
/// afterwards in the caller's transaction, under one snapshot.
fn update_in_order(
    chains: &FlowChains,
    flows: &[usize],
    mode_of: impl Fn(usize) -> Mode,
    limits: Limits,
) -> Result<Vec<FlowCounts>, Error> {
    let name = |flow: usize| chains.flows[flow].name.as_str();
    let mut by_worker = BTreeSet::new();
    for flow in flows.iter().copied() {
        let ready =
            cache::runnable_flow(name(flow)).map_err(|error| chain::of_flow(name(flow), error))?;
        paused::check_not_paused(&ready.flow)?;
        if ready.flow.is_external() || ready.flow.asks_providers() {
            by_worker.insert(flow);
            by_worker.extend(chains.order.upstream(flow));
        } else if has_version_for_worker(chains.flows[flow].id)? {
            by_worker.extend(chains.order.upstream(flow));
        }
    }
    let (first, here): (Vec<usize>, Vec<usize>) =
        flows.iter().copied().partition(|flow| by_worker.contains(flow));
    let mut all = Vec::with_capacity(flows.len());
    for flow in first {
        let (name, id) = (name(flow), chains.flows[flow].id);
        let _watched = Watched::begin(id, name, false);
        let command = WorkerCommand::Update(mode_of(flow));
        let sources = update_client::run_in_worker(name, command, limits)
            .map_err(|error| chain::of_flow(name, error))?;
        all.push(FlowCounts { flow: name.to_owned(), id, sources });
    }
    let of = |flow: &usize| FlowToUpdate {
        name: name(*flow),
        id: chains.flows[*flow].id,
        mode: mode_of(*flow),
    };
    let here: Vec<FlowToUpdate> = here.iter().map(of).collect();
    let begin = |flow: &FlowToUpdate| Watched::begin(flow.id, flow.name, true);
    all.extend(chain::update_together(&here, limits, begin)?);
    for flow in flows.iter().filter(|flow| mode_of(**flow) == Mode::Retry) {
        live_rows::lift_suspension(chains.flows[*flow].id)?;
    }
    Ok(all)
}
