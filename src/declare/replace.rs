//! `coco.create_flow(…, or_replace => true)`: changes an existing flow to what is declared, and does
//! only what the differences need.

use pgrx::prelude::*;
use serde_json::Value;

use crate::catalog::{flow_rows, locks};
use crate::declare::alter_flow::{self, Changes};
use crate::declare::compare::{declared_settings, find_differences};
use crate::declare::declaration::{Declaration, declare_flow};
use crate::declare::difference::{
    FlowDifference, Property, Remedy, describe_differences, must_declare_again,
};
use crate::declare::when_exists::WhenExists;
use crate::declare::{add_target, derive_lookups, drop_flow, live};
use crate::flows::verification;
use crate::pg::acting_role::{DECLARED, SavedGucs};
use crate::pg::error::{Error, Result};
use crate::pg::notice::notice_with_detail;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};

/// The result of a declaration over an existing flow.
pub struct ReplacedFlow {
    /// The flow is live and was declared again, so it needs a worker.
    pub wants_worker: bool,
}

/// Changes a flow to what is declared, and says in a NOTICE what changes. For `announce`, see
/// [`drop_flow`].
pub fn replace_flow(new: &Declaration, announce: fn()) -> Result<ReplacedFlow> {
    // A declaration that changes nothing does not wait for a worker.
    if find_differences(new)?.is_empty() {
        return Ok(ReplacedFlow { wants_worker: false });
    }
    locks::lock_flow(flow_rows::flow_id(&new.flow)?)?;
    let differences = {
        // Another session may have changed the flow while this session waited for the lock.
        let _now = PinnedSnapshot::take();
        find_differences(new)?
    };
    if differences.is_empty() {
        return Ok(ReplacedFlow { wants_worker: false });
    }
    notice_with_detail(
        format!("changing flow \"{}\"", new.flow),
        describe_differences(&differences),
    );
    let (_, settings) = declared_settings(new)?;
    if must_declare_again(&differences) {
        return declare_again(new, &settings, announce);
    }
    let needs = |remedy| differences.iter().any(|d| d.remedy() == remedy);
    let mut wants_worker = false;
    if needs(Remedy::Alter) {
        let changes = changes(new, &settings, &differences);
        wants_worker = alter_flow::alter_flow(&new.flow, changes, new.check_altered)?.wants_worker;
    }
    if let (true, Some(mode)) = (needs(Remedy::FollowOther), new.lookups) {
        derive_lookups::change_mode(&new.flow, mode)?;
    }
    if let (true, Some(parts)) = (needs(Remedy::SetQuery), &new.parts) {
        let item = parts.item.as_deref();
        add_target::set_query(&new.flow, None, &parts.query, item, new.check)?;
    }
    Ok(ReplacedFlow { wants_worker })
}

/// Returns the changes of `coco.alter_flow` that remove the differences.
fn changes(new: &Declaration, settings: &SavedGucs, differences: &[FlowDifference]) -> Changes {
    let differs = |property| differences.iter().any(|d| d.property == property);
    let mut changes = Changes::default();
    if differs(Property::SearchPath) {
        changes.search_path = Some(new.search_path.clone());
    }
    if differs(Property::Settings) {
        let value = |name: &str| Value::from(settings.value(name).unwrap_or_default());
        let all = DECLARED.iter().map(|name| ((*name).to_owned(), value(name)));
        changes.settings = Some(Value::Object(all.collect()));
    }
    if differs(Property::Refresh) {
        changes.refresh = new.refresh.clone();
    }
    if differs(Property::FillOrder) {
        changes.fill_order = new.fill_order.clone();
    }
    let Some(parts) = &new.parts else { return changes };
    let source = &parts.source;
    // An empty text removes the expression.
    if differs(Property::Ordinal) {
        changes.ordinal = Some(source.ordinal.clone().unwrap_or_default());
    }
    if differs(Property::Fingerprint) {
        changes.fingerprint = Some(source.fingerprint.clone().unwrap_or_default());
    }
    if differs(Property::Capture) {
        changes.capture = Some(source.capture.clone().unwrap_or_else(|| "auto".to_owned()));
    }
    if differs(Property::RefreshInterval) {
        let default = Interval::from_minutes(1);
        changes.refresh_interval = Some(source.refresh_interval.unwrap_or(default));
    }
    if let (true, Some(elsewhere)) = (differs(Property::Options), &parts.elsewhere) {
        changes.options = Some(elsewhere.options.clone());
    }
    changes
}

/// What a flow keeps when coco declares it again.
struct KeptProperties {
    owner: pg_sys::Oid,
    live: bool,
    label: Option<String>,
    batch_size: Option<i32>,
    paused: bool,
    lineage_index: bool,
    max_rows: Option<i64>,
    max_cost: Option<f64>,
    refresh: Option<String>,
    fill_order: Option<String>,
}

impl KeptProperties {
    fn of_flow(flow: &str) -> Result<KeptProperties> {
        let found = spi::select(
            "select f.owner::pg_catalog.oid, f.live, f.label, f.batch_size, f.paused, f.lineage_index,
                    f.max_rows, f.max_cost, f.refresh, f.fill_order
               from coco.flows as f where f.flow = $1",
            &[arg(flow)],
            |r| {
                Ok(KeptProperties {
                    owner: spi::required(r, 1)?,
                    live: spi::required(r, 2)?,
                    label: r.get(3)?,
                    batch_size: r.get(4)?,
                    paused: spi::required(r, 5)?,
                    lineage_index: spi::required(r, 6)?,
                    max_rows: r.get(7)?,
                    max_cost: r.get(8)?,
                    refresh: r.get(9)?,
                    fill_order: r.get(10)?,
                })
            },
        )?;
        found.into_iter().next().ok_or_else(|| flow_rows::missing(flow))
    }
}

/// Drops a flow without its target, and declares it again. Its target stays managed if coco made it.
fn declare_again(new: &Declaration, settings: &SavedGucs, announce: fn()) -> Result<ReplacedFlow> {
    let kept = KeptProperties::of_flow(&new.flow)?;
    let verify_interval = verification::interval_of(&new.flow)?;
    drop_flow(&new.flow, true, announce)?;
    if !declare_flow(new, kept.owner, settings, WhenExists::Replace)? {
        return Err(Error::internal(format!("flow \"{}\" was dropped and exists", new.flow)));
    }
    // Without an ordinal, items have no order.
    let has_ordinal = new.parts.as_ref().is_none_or(|parts| parts.source.ordinal.is_some());
    let kept_order = kept.fill_order.filter(|_| new.fill_order.is_none() && has_ordinal);
    let changes = Changes {
        label: kept.label,
        batch_size: kept.batch_size,
        paused: kept.paused.then_some(true),
        lineage_index: kept.lineage_index.then_some(true),
        verify_interval,
        max_rows: kept.max_rows,
        max_cost: kept.max_cost,
        refresh: kept.refresh.filter(|_| new.refresh.is_none()),
        fill_order: kept_order,
        ..Changes::default()
    };
    alter_flow::alter_flow(&new.flow, changes, new.check_altered)?;
    if kept.live {
        live::start_flow(&new.flow)?;
    }
    Ok(ReplacedFlow { wants_worker: kept.live && !kept.paused })
}
