//! `coco.alter_flow`: changes a flow without declaring it again. The changes of sources, settings and
//! external targets are in files of their own.

use pgrx::prelude::*;
use serde_json::{Map, Value};

use crate::catalog::flow_rows::{self, FlowIdentity};
use crate::catalog::internal_tables;
use crate::catalog::model::Flow;
use crate::catalog::object_names::owner_name;
use crate::catalog::version_rows;
use crate::declare::alter_source::{self, SourceChanges};
use crate::declare::alter_target::{self, OptionsCheck};
use crate::declare::{alter_settings, fill_order, lineage_index};
use crate::flows::{load, schedules};
use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::{clock, invalidation};
use crate::update::limits;

/// The properties to change; `None` leaves a property unchanged.
#[derive(Default)]
pub struct Changes {
    pub owner: Option<pg_sys::Oid>,
    /// An empty text removes the label.
    pub label: Option<String>,
    /// Number of items; 0 restores the setting `coco.batch_size`.
    pub batch_size: Option<i32>,
    pub paused: Option<bool>,
    /// Whether an index finds listed target keys.
    pub lineage_index: Option<bool>,
    /// The name of the source or lookup that the next four properties belong to; `None` means the
    /// only source.
    pub source: Option<String>,
    /// An empty text removes the ordinal.
    pub ordinal: Option<String>,
    /// An empty text removes the fingerprint.
    pub fingerprint: Option<String>,
    /// `auto`, or the name of a [`crate::catalog::model::CaptureMode`].
    pub capture: Option<String>,
    pub refresh_interval: Option<Interval>,
    pub search_path: Option<String>,
    /// A JSON object of settings and their values. Other settings stay unchanged.
    pub settings: Option<Value>,
    /// The external target that `options` belong to; `None` means the only external target.
    pub target: Option<String>,
    /// The options of the connector, which replace all previous ones.
    pub options: Option<Map<String, Value>>,
    /// Time after which a worker verifies the targets again; 0 means never.
    pub verify_interval: Option<Interval>,
    /// The number of target rows that one update may write and delete; 0 removes the limit.
    pub max_rows: Option<i64>,
    /// What one update may spend; 0 removes the limit.
    pub max_cost: Option<f64>,
    /// When workers update the flow: see [`schedules::parse_refresh`].
    pub refresh: Option<String>,
    /// See [`fill_order::parse_fill_order`].
    pub fill_order: Option<String>,
}

impl Changes {
    /// Reports whether later updates find or evaluate items, or deliver rows, in another way.
    fn affect_updates(&self) -> bool {
        self.ordinal.is_some()
            || self.fingerprint.is_some()
            || self.capture.is_some()
            || self.refresh_interval.is_some()
            || self.search_path.is_some()
            || self.settings.is_some()
            || self.options.is_some()
    }

    /// Returns the changes of a source or lookup; `None` if there are none.
    fn of_source(&self) -> Result<Option<SourceChanges<'_>>> {
        let changes = SourceChanges {
            source: self.source.as_deref(),
            ordinal: self.ordinal.as_deref(),
            fingerprint: self.fingerprint.as_deref(),
            capture: self.capture.as_deref(),
            refresh_interval: self.refresh_interval,
        };
        match (changes.any(), changes.source) {
            (true, _) => Ok(Some(changes)),
            (false, None) => Ok(None),
            (false, Some(_)) => Err(Error::invalid(
                "argument \"source\" names a source, and no argument changes it",
            )
            .hint("Specify ordinal, fingerprint, capture or refresh_interval, too.")),
        }
    }
}

/// The result of `alter_flow`.
pub struct AlteredFlow {
    /// The flow is live and not paused, and a worker must notice the change.
    pub wants_worker: bool,
}

/// Changes a flow. The flow may be incomplete, unless a change concerns a source, its settings or a
/// target.
pub fn alter_flow(name: &str, changes: Changes, check: OptionsCheck) -> Result<AlteredFlow> {
    flow_rows::identify_flow(name)?;
    check_verify_interval(changes.verify_interval)?;
    if let Some(size) = changes.batch_size
        && !(0..=limits::LARGEST_BATCH).contains(&size)
    {
        return Err(Error::invalid(format!(
            "argument \"batch_size\" ({size}) must be between 0 and {}",
            limits::LARGEST_BATCH
        ))
        .hint("Use 0 to restore the setting coco.batch_size."));
    }
    check_limits(&changes)?;
    changes.refresh.as_deref().map(schedules::parse_refresh).transpose()?;
    let of_source = changes.of_source()?;
    if changes.target.is_some() && changes.options.is_none() {
        return Err(Error::invalid(
            "argument \"target\" names a target, and no argument changes it",
        )
        .hint("Specify \"options\", too. To change the query of a target, use coco.set_query."));
    }
    // Another session may have changed or dropped the flow while this session waited for the lock.
    let FlowIdentity { id, owner } = load::lock_identified(name)?;
    let _now = PinnedSnapshot::take();
    if changes.affect_updates() || changes.lineage_index.is_some() {
        version_rows::check_no_new_version(id, name)?;
    }
    if let Some(new) = changes.owner
        && new != owner
    {
        give_to(name, owner, new)?;
    }
    // The settings come first, because expressions are bound under them.
    if changes.search_path.is_some() || changes.settings.is_some() {
        let flow = load_now(name)?;
        let path = changes.search_path.as_deref();
        alter_settings::alter_settings(&flow, path, changes.settings.as_ref())?;
    }
    if let Some(of_source) = of_source {
        alter_source::alter_source(&load_now(name)?, &of_source)?;
    }
    if let Some(options) = &changes.options {
        let flow = load_now(name)?;
        alter_target::alter_options(&flow, changes.target.as_deref(), options.clone(), check)?;
    }
    if let Some(refresh) = &changes.refresh {
        schedules::store_refresh(name, refresh)?;
    }
    if let Some(order) = &changes.fill_order {
        fill_order::store_fill_order(name, order)?;
    }
    let _as = RoleGuard::extension_owner()?;
    if let Some(label) = &changes.label {
        let label = Some(label.as_str()).filter(|label| !label.is_empty());
        spi::execute(
            "update coco_internal.flow set label = $2 where id = $1",
            &[arg(id), arg(label)],
        )?;
        // Every later evaluation gets this label, because evaluations hold the flow's lock.
        spi::execute(
            "insert into coco_internal.flow_label (flow, since, label) values ($1, $2, $3)
             on conflict (flow, since) do update set label = excluded.label",
            &[arg(id), arg(clock::now_micros()), arg(label)],
        )?;
    }
    if let Some(size) = changes.batch_size {
        let size = Some(size).filter(|size| *size > 0);
        spi::execute(
            "update coco_internal.flow set batch_size = $2 where id = $1",
            &[arg(id), arg(size)],
        )?;
    }
    if let Some(rows) = changes.max_rows {
        let rows = Some(rows).filter(|rows| *rows > 0);
        spi::execute(
            "update coco_internal.flow set max_rows = $2 where id = $1",
            &[arg(id), arg(rows)],
        )?;
    }
    if let Some(cost) = changes.max_cost {
        let cost = Some(cost).filter(|cost| *cost > 0.0);
        spi::execute(
            "update coco_internal.flow set max_cost = $2 where id = $1",
            &[arg(id), arg(cost)],
        )?;
    }
    if let Some(interval) = changes.verify_interval {
        let interval = Some(interval).filter(|interval| interval.as_micros() != 0);
        crate::flows::verification::set_interval(id, interval)?;
    }
    if let Some(paused) = changes.paused {
        spi::execute(
            "update coco_internal.flow set paused = $2 where id = $1",
            &[arg(id), arg(paused)],
        )?;
    }
    if let Some(wanted) = changes.lineage_index {
        spi::execute(
            "update coco_internal.flow set lineage_index = $2 where id = $1",
            &[arg(id), arg(wanted)],
        )?;
        lineage_index::index(name, wanted)?;
    }
    let live = spi::scalar::<bool>(
        "select live and not paused from coco_internal.flow where id = $1",
        &[arg(id)],
    )?;
    invalidation::note_change()?;
    let has_limits = changes.max_rows.is_some() || changes.max_cost.is_some();
    let is_noticed = changes.paused == Some(false)
        || changes.affect_updates()
        || changes.refresh.is_some()
        || has_limits;
    Ok(AlteredFlow { wants_worker: is_noticed && live == Some(true) })
}

/// Fails if an interval between verifications is neither 0 nor in the range.
fn check_verify_interval(interval: Option<Interval>) -> Result<()> {
    const SECOND: i128 = 1_000_000;
    const LONGEST: i128 = 366 * 86_400 * SECOND;
    match interval.map(|interval| interval.as_micros()) {
        None | Some(0 | SECOND..=LONGEST) => Ok(()),
        Some(_) => {
            Err(Error::invalid("argument \"verify_interval\" must be between 1 second and 1 year")
                .hint("Use '0' if workers should verify nothing."))
        }
    }
}

/// Fails if a limit is negative, or not a number.
fn check_limits(changes: &Changes) -> Result<()> {
    let wrong = match (changes.max_rows, changes.max_cost) {
        (Some(rows), _) if rows < 0 => ("max_rows", rows.to_string()),
        (_, Some(cost)) if !cost.is_finite() || cost < 0.0 => ("max_cost", cost.to_string()),
        _ => return Ok(()),
    };
    let (name, value) = wrong;
    Err(Error::invalid(format!("argument \"{name}\" ({value}) must not be negative"))
        .hint("Use 0 to remove the limit."))
}

/// Loads the flow as this transaction has changed it so far. Its query may be broken.
fn load_now(name: &str) -> Result<Flow> {
    let _now = PinnedSnapshot::take();
    load::load_for_update(name)
}

/// Transfers a flow, and everything that coco created for it, to another role. The rows in coco's
/// own tables stay where they are: afterwards the new owner may read them, and the old owner may
/// not.
fn give_to(flow: &str, old: pg_sys::Oid, new: pg_sys::Oid) -> Result<()> {
    // Requires the same membership as ALTER … OWNER TO.
    // SAFETY: syscache lookups inside a transaction; they raise an error if the caller lacks the
    // right.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::check_is_member_of_role(acting_role::current(), new);
        #[cfg(not(feature = "pg15"))]
        pg_sys::check_can_set_role(acting_role::current(), new);
    }
    let owner = owner_name(new)?;
    let acting = RoleGuard::extension_owner()?;
    let names = |query: &str| spi::select(query, &[arg(flow)], |r| spi::required::<String>(r, 1));
    let views = internal_tables::views(flow)?;
    // A role that was dropped has no rights to revoke.
    let old = spi::scalar::<String>(
        "select pg_catalog.quote_ident(rolname) from pg_catalog.pg_roles where oid = $1",
        &[arg(old)],
    )?;
    for view in views {
        if let Some(old) = &old {
            spi::execute(&format!("revoke all on {view} from {old}"), &[])?;
        }
        spi::execute(&format!("grant select on {view} to {owner}"), &[])?;
    }
    let made = names(
        "select c.oid::regclass::text from coco_internal.target t join pg_class c on c.oid = t.relation
          where t.flow = $1 and t.managed and t.server is null",
    )?;
    spi::execute(
        "update coco_internal.flow set owner = $2 where flow = $1",
        &[arg(flow), arg(new)],
    )?;
    drop(acting);
    // The caller acts as itself here, so the server checks the rights that ALTER TABLE requires.
    for table in made {
        spi::execute(&format!("alter table {table} owner to {owner}"), &[])?;
    }
    Ok(())
}
