//! The items that an update would look at, and a sample of them.
//!
//! The sample consists of the items whose keys have the smallest fingerprints. It is therefore
//! random, the same for each call, and possible for any relation, also for a view. It reads the
//! keys of the source and of the tracking table, and the content of the sampled items only.

use crate::catalog::model::{Flow, Source, Target};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{all_known, numbered};
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::tuplestore::rows::TupleStore;
use crate::pg::tuplestore::statements::SpiSession;
use crate::update::candidate_rows::key_columns;
use crate::update::candidate_sql;
use crate::update::context::UpdateContext;
use crate::update::group_rows;
use crate::update::limits::Limits;
use crate::update::lookups::{self, LookupChanges};
use crate::update::source_plan::{self, PlannedSource, ReadMode};
use crate::update::source_work::{self, FullScan, SourceWork};
use crate::update::target_writer::WriteOptions;
use coco_core::decision::Mode;

/// The update to estimate.
#[derive(Clone, Copy)]
pub struct PlannedUpdate<'a> {
    pub flow: &'a Flow,
    pub writing: WriteOptions,
    pub limits: Limits,
    pub context: UpdateContext<'a>,
    /// Whether several updates share the active snapshot.
    pub is_shared: bool,
    /// The invalidation count from before the active snapshot was taken.
    pub generation: u64,
    /// The number of items to evaluate for each source, at most.
    pub sample: u64,
    /// The target whose query the flow does not have yet.
    pub changed: Option<&'a ChangedTarget>,
}

/// A target whose table was made for another query than the one to estimate.
pub struct ChangedTarget {
    /// The target's position in the flow.
    pub place: usize,
    /// The target with the query for which its table was made.
    pub before: Target,
}

/// The items of a source that an update looks at.
pub struct Population {
    /// The number of the items.
    pub items: u64,
    /// The keys of the sample: `k1…`, and whether the update forces the item.
    pub sample: TupleStore,
    /// The mode in which the update decides about the items.
    pub mode: Mode,
}

/// Determines the items of a source that an update looks at. Returns `None` if it looks at none.
/// Follows lookups, and therefore writes; the caller rolls this back.
pub fn plan_population(planned: &PlannedUpdate, source: &Source) -> Result<Option<Population>> {
    let PlannedUpdate { flow, writing, limits, context, .. } = *planned;
    let _snapshot = PinnedSnapshot::again();
    let reading = ReadMode {
        logic: writing.logic,
        mode: writing.mode,
        limit: None,
        live: context.cursors(),
        generation: planned.generation,
        lookups: lookups::has_any(flow, source),
        looked_up: false,
        when_due: context.scans_when_due(),
        shared: planned.is_shared,
    };
    let LookupChanges { forced, followed } = lookups::follow_all(flow, source, limits, reading)?;
    let reading = ReadMode { looked_up: followed.changed, ..reading };
    let statements = SpiSession::connect()?;
    let plan = source_plan::plan_source(&statements, source, reading)?;
    drop(statements);
    let PlannedSource { looking, .. } = group_rows::follow_rows(source, writing.mode, plan)?;
    let _with_states = PinnedSnapshot::again();
    match source_work::choose_source_work(writing, source, looking, forced)? {
        SourceWork::Nothing => Ok(None),
        SourceWork::Keys(keys) => of_keys(source, keys, planned).map(Some),
        SourceWork::FullScan(full) => of_scan(source, full, planned).map(Some),
    }
}

/// Returns the items of known keys.
fn of_keys(source: &Source, keys: TupleStore, planned: &PlannedUpdate) -> Result<Population> {
    let (items, mode) = (keys.len() as u64, planned.writing.mode);
    if items <= planned.sample {
        return Ok(Population { items, sample: keys, mode });
    }
    let statements = SpiSession::connect()?;
    statements.name("coco_changed", &keys)?;
    let names = numbered("k", source.key.len()).join(", ");
    let from = format!("select {names}, forced from coco_changed");
    let sample = read_sample(&statements, source, &from, planned.sample)?;
    Ok(Population { items, sample, mode })
}

/// Returns the items of a scan: those of the source, and the tracked ones.
fn of_scan(source: &Source, full: FullScan, planned: &PlannedUpdate) -> Result<Population> {
    let _as = RoleGuard::sharing_rows()?;
    let statements = SpiSession::connect()?;
    statements.reads_many();
    let forced = full.forced.filter(|keys| keys.len() > 0);
    let is_forced = match &forced {
        Some(keys) => {
            statements.name("coco_forced", keys)?;
            candidate_sql::is_forced_sql(source, "c")
        }
        None => "false".to_owned(),
    };
    let names = numbered("k", source.key.len());
    let known = all_known(&source.key, &numbered("c.k", names.len()));
    let names = names.join(", ");
    let all = format!(
        "select {names}, forced from ({every}) as c ({names}, forced){known}",
        every = candidate_sql::every_key_sql(source, &is_forced),
        known = known.map_or(String::new(), |known| format!(" where {known}")),
    );
    let count = format!("select pg_catalog.count(*) from ({all}) as c");
    let count = statements.read_text(&count, &[])?;
    let items = count
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| Error::internal("count returned no row"))?;
    let sample = read_sample(&statements, source, &all, planned.sample)?;
    Ok(Population { items, sample, mode: full.scan.mode })
}

/// Reads a sample of the keys that a SELECT returns: `k1…`, `forced`.
fn read_sample(
    statements: &SpiSession,
    source: &Source,
    from: &str,
    items: u64,
) -> Result<TupleStore> {
    let names = numbered("c.k", source.key.len()).join(", ");
    let sql = format!(
        "select {names}, c.forced from ({from}) as c
          order by coco.fingerprint({names}) limit {items}"
    );
    let mut sample = TupleStore::new(&key_columns(source))?;
    statements.select_into(&sql, &[], &mut sample)?;
    Ok(sample)
}
