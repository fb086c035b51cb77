//! `coco.estimate`: what the next update would cost, as things are now or with another query.

use crate::catalog::model::{BoundView, Flow, Target};
use crate::catalog::{objects, relation_locks};
use crate::declare::add_target::find_target;
use crate::declare::check_query::analyze_into;
use crate::flows::load;
use crate::memo::{called_functions, rewrite_calls};
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::{spi, subtransaction};
use crate::query::{logic_fingerprint, planner_hook};
use crate::update::context::{UpdateContext, UpdateSnapshot};
use crate::update::estimate::figures::Figure;
use crate::update::estimate::population::ChangedTarget;
use crate::update::estimate::{EstimateRequest, estimate_update};
use crate::update::limits::Limits;
use crate::update::target_writer::WriteOptions;
use coco_core::decision::Mode;

/// Another query for a target, as `coco.set_query` takes it.
pub struct NewQuery<'a> {
    pub target: Option<&'a str>,
    pub query: &'a str,
    pub item: Option<&'a str>,
}

/// Returns the figures of the next update in this mode: with another query if there is one, otherwise
/// with the flow as it is. Evaluates at most `sample` items of each source. Rolls everything back.
pub fn estimate(
    name: &str,
    new: Option<NewQuery>,
    mode: Mode,
    sample: u64,
    limits: Limits,
) -> Result<Vec<Figure>> {
    // Binding a query locks the relations in it, and creates a view.
    subtransaction::look(|| {
        let mut flow = load::load_to_read(name)?;
        if flow.targets.is_empty() {
            return Err(Error::new(
                pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("flow \"{}\" has no target yet", flow.name),
            )
            .hint("Call coco.add_target first."));
        }
        let changed = new.map(|new| change_query(&mut flow, &new)).transpose()?;
        let logic = {
            let _now = PinnedSnapshot::take();
            logic_fingerprint::known_logic(&flow)?
        };
        let request = EstimateRequest {
            flow: &flow,
            writing: WriteOptions { mode, logic },
            limits,
            context: UpdateContext::Session,
            snapshot: UpdateSnapshot::Own,
            sample,
            changed: changed.as_ref(),
        };
        Ok(estimate_update(&request)?.rows)
    })
}

/// Gives a target of a loaded flow another query, and creates a view that keeps it. Leaves the
/// catalog as it is.
fn change_query(flow: &mut Flow, new: &NewQuery) -> Result<ChangedTarget> {
    let place = find_target(flow, new.target)?;
    let before = flow.targets[place].clone();
    let mut after = before.clone();
    let key = after.key_names.clone();
    let bound = analyze_into(flow, &mut after, new.query, &key, new.item)?;
    // Number 0 belongs to no target, so the view has another name than those of the flow.
    let numbered = Target { id: 0, ..after.clone() };
    let view = objects::create_query_view(flow, &numbered, bound.tree)?;
    // Sees the view.
    let _now = PinnedSnapshot::take();
    let view_name = spi::relation_name(view)?.unwrap_or_default();
    after.bound = Some(BoundView { view, name: view_name, places: bound.places });
    flow.targets[place] = after;
    let views: Vec<_> = flow.targets.iter().filter_map(Target::query_view).collect();
    flow.memoized = called_functions::called_functions(&views)?;
    flow.reads = relation_locks::relations_of(flow)?;
    if !flow.memoized.is_empty() {
        planner_hook::install(rewrite_calls::recall);
    }
    Ok(ChangedTarget { place, before })
}
