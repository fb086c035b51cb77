//! Estimates what an update would cost: evaluates a sample of the items, and multiplies.
//!
//! - `population` determines the items that the update looks at, and a sample of them.
//! - `sample` evaluates the sample, and counts what the update would write for it.
//! - `figures` computes the figures of all items, with their bounds.
//! - `provider_cost` computes what missing results of memoized functions cost.
//!
//! Everything is rolled back. Callers: `coco.estimate`, and `limited`, which stops an update that
//! would pass a limit of its flow.

pub mod figures;
pub mod population;
pub mod provider_cost;
pub mod sample;

use crate::catalog::model::Flow;
use crate::memo;
use crate::memo::session::CountedMisses;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::subtransaction;
use crate::update::context::{UpdateContext, UpdateSnapshot};
use crate::update::estimate::figures::Figures;
use crate::update::estimate::population::{ChangedTarget, PlannedUpdate};
use crate::update::limits::Limits;
use crate::update::target_writer::WriteOptions;
use coco_core::decision::Mode;

/// The update to estimate, and how.
#[derive(Clone, Copy)]
pub struct EstimateRequest<'a> {
    pub flow: &'a Flow,
    pub writing: WriteOptions,
    pub limits: Limits,
    pub context: UpdateContext<'a>,
    pub snapshot: UpdateSnapshot,
    /// The number of items to evaluate for each source, at most.
    pub sample: u64,
    /// The target whose query the flow does not have yet.
    pub changed: Option<&'a ChangedTarget>,
}

/// Returns the figures of an update. The caller holds the locks with which an update reads the
/// flow's relations.
pub fn estimate_update(request: &EstimateRequest) -> Result<Figures> {
    let generation = request.snapshot.generation();
    // Following a lookup writes the tracking rows of the lookup, and locks change logs.
    subtransaction::look(|| {
        let EstimateRequest { flow, writing, limits, context, snapshot, sample, changed } =
            *request;
        let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
        // A query that the flow does not have yet has no states of groups.
        let by_states = (flow.keeps_groups && changed.is_none()).then(|| flow.by_states());
        let flow = by_states.as_ref().unwrap_or(flow);
        let _snapshot = snapshot.pin();
        let is_shared = snapshot.is_shared();
        let limits = limits.of(flow);
        let planned = PlannedUpdate {
            flow,
            writing,
            limits,
            context,
            is_shared,
            generation,
            sample,
            changed,
        };
        // A full reprocess uses only memoized results that it has computed itself.
        let since = (writing.mode == Mode::FullReprocess).then(|| context.began());
        let recalling = memo::session_of_estimate(flow, since)?;
        let mut missed = CountedMisses::default();
        let mut samples = Vec::with_capacity(flow.sources.len());
        for source in &flow.sources {
            let Some(population) = population::plan_population(&planned, source)? else {
                continue;
            };
            let _with_states = PinnedSnapshot::again();
            samples.push(sample::evaluate_sample(
                &planned,
                source,
                &population,
                recalling.as_ref(),
                &mut missed,
            )?);
        }
        figures::compute_figures(&planned, recalling.as_deref(), &samples, &missed)
    })
}
