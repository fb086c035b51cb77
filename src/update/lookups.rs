//! Lookups: determines the items that coco must evaluate again because a relation that the query
//! reads in addition to its source has changed.

use pgrx::pg_sys;

use crate::catalog::model::{BoundView, Flow, Lookup, Source};
use crate::pg::columns::{all_known, numbered};
use crate::pg::error::Result;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::{Action, Batch, Item};
use crate::query::place_items;
use crate::update::cursor_cache::CursorUpdate;
use crate::update::detect::{self, Scan};
use crate::update::limits::Limits;
use crate::update::source_plan::{self, ForcedKeys, PlannedSource, ReadMode, SourcePlan};
use crate::update::target_writer::{self, WriteOptions};
use crate::update::tracking_rows::{self, ItemRows};
use coco_core::decision::Mode;
use coco_core::source_work::ForcedItems;
use coco_core::version::{LogicId, ProcessOrdinal};

/// A lookup has no logic: coco tracks only its content.
const NO_LOGIC: LogicId = LogicId(0);

/// The result of following the lookups of a source.
pub struct LookupChanges {
    /// The items of the source that the changes affect.
    pub forced: ForcedKeys,
    pub followed: FollowedLookups,
}

/// What following the lookups leaves to the rest of the update, and to later updates.
pub struct FollowedLookups {
    /// Whether a lookup has changed, even if the change does not affect an item now.
    pub changed: bool,
    pub kept: Vec<CursorUpdate>,
    pub more: bool,
    pub uncaptured: bool,
    /// The captures by whose logs the lookups were followed; `None` if one was read otherwise.
    pub logs: Option<Vec<i32>>,
    pub again: Option<std::time::Duration>,
}

impl FollowedLookups {
    /// Returns the result for a source that has no lookups.
    fn none() -> FollowedLookups {
        FollowedLookups {
            changed: false,
            kept: vec![],
            more: false,
            uncaptured: false,
            logs: Some(vec![]),
            again: None,
        }
    }
}

/// Returns the columns of forced keys: `k1…`.
fn forced_columns(source: &Source) -> Vec<RowColumn> {
    rows::typed("k", &source.key)
}

/// Follows all lookups of a source, and finds the items that their changes affect. Uses the active
/// snapshot, under which the caller also reads the source. The caller acts as the flow's owner.
pub fn follow_all(
    flow: &Flow,
    source: &Source,
    limits: Limits,
    how: ReadMode,
) -> Result<LookupChanges> {
    let mut changes = LookupChanges {
        forced: ForcedKeys::Keys(TupleStore::new(&forced_columns(source))?),
        followed: FollowedLookups::none(),
    };
    for lookup in of_source(flow, source) {
        follow_one(lookup, source, limits, how, &mut changes)?;
    }
    Ok(changes)
}

fn of_source<'a>(flow: &'a Flow, source: &Source) -> impl Iterator<Item = &'a Lookup> {
    let id = source.id;
    flow.lookups.iter().filter(move |lookup| lookup.of == id)
}

/// Reports whether a source has lookups.
pub fn has_any(flow: &Flow, source: &Source) -> bool {
    of_source(flow, source).next().is_some()
}

fn follow_one(
    lookup: &Lookup,
    source: &Source,
    limits: Limits,
    how: ReadMode,
    changes: &mut LookupChanges,
) -> Result<()> {
    let relation = &lookup.relation;
    let statements = SpiSession::connect()?;
    let mode = Mode::Normal;
    let PlannedSource { looking, cursor } =
        source_plan::plan_source(&statements, relation, ReadMode { logic: NO_LOGIC, mode, ..how })?;
    let mut changed = match &looking {
        // The rows of a lookup form no groups.
        SourcePlan::Nothing | SourcePlan::Rows { .. } => None,
        SourcePlan::Keys(keys) if keys.len() == 0 => None,
        SourcePlan::Keys(keys) => Some(detect::lookup_candidates(relation, keys, false)?),
        SourcePlan::All { .. } => {
            Some(detect::scan(&statements, relation, Scan { mode, logic: NO_LOGIC }, None)?)
        }
    };
    if let SourcePlan::All { forced } = &looking
        && forced.kind() != ForcedItems::None
    {
        // A row may have appeared and disappeared, or have changed and changed back.
        changes.followed.changed = true;
        changes.forced = ForcedKeys::All;
    }
    let mut batch = Batch::new(relation, false)?;
    while let Some(found) = changed.as_mut().and_then(|c| c.next().map(|item| (c.key(), item))) {
        let (key, item) = found;
        if key.iter().any(Option::is_none) {
            // Such a row equals no row of another relation.
            if relation.ignores_null_keys {
                continue;
            }
            return Err(target_writer::null_key(relation));
        }
        let same = match (&item.incoming, &item.stored) {
            // The content of a row that cannot be read is unknown.
            (Some(now), Some(before)) => now.content.is_some() && now.content == before.content,
            (None, None) => true,
            _ => false,
        };
        if same && !item.forced {
            continue;
        }
        changes.followed.changed = true;
        let action = if item.incoming.is_some() { Action::Evaluate } else { Action::Remove };
        batch.push(
            &key,
            &[],
            Item {
                action,
                tracked: item.stored.is_some(),
                incoming: item.incoming,
                process_ordinal: ProcessOrdinal::next(item.process_ordinal, 0),
                attempts: 0,
                along: false,
            },
        );
        if batch.len() >= limits.batch {
            store_lookup_items(lookup, source, &batch, &mut changes.forced)?;
            batch = Batch::new(relation, false)?;
        }
    }
    if batch.len() > 0 {
        store_lookup_items(lookup, source, &batch, &mut changes.forced)?;
    }
    let followed = &mut changes.followed;
    followed.more |= cursor.more;
    followed.uncaptured |= cursor.uncaptured;
    match (&mut followed.logs, cursor.log()) {
        (Some(logs), Some(log)) => logs.push(log),
        (logs, _) => *logs = None,
    }
    followed.again = [followed.again, cursor.again].into_iter().flatten().min();
    followed.kept.extend(cursor.store(relation, how.live, limits.segment_bytes)?);
    Ok(())
}

/// Finds the items that a batch of changed lookup rows affects, and writes the tracking rows of the
/// lookup.
fn store_lookup_items(
    lookup: &Lookup,
    source: &Source,
    batch: &Batch,
    forced: &mut ForcedKeys,
) -> Result<()> {
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    match (&lookup.affects, forced) {
        (_, ForcedKeys::All) => {}
        (None, forced) => *forced = ForcedKeys::All,
        (Some(affects), ForcedKeys::Keys(keys)) => {
            statements.select_into(&affected_keys(lookup, source, affects), &[], keys)?;
        }
    }
    let writing = WriteOptions { mode: Mode::Normal, logic: NO_LOGIC };
    drop(statements);
    tracking_rows::write_tracking_rows(
        &lookup.relation,
        &[],
        &ItemRows::default(),
        batch,
        writing,
        None,
    )
}

/// Returns the SELECT of the source keys that changed rows of a lookup affect; `None` if they
/// affect all items.
pub fn keys_affected_by(lookup: &Lookup, source: &Source) -> Option<String> {
    lookup.affects.as_ref().map(|affects| affected_keys(lookup, source, affects))
}

/// Returns the SELECT of the source keys that changed rows of a lookup affect, each key once. The
/// SELECT contains the user's query as the statements of `compose` do.
fn affected_keys(lookup: &Lookup, source: &Source, affects: &BoundView) -> String {
    place_items::know_shadows(affects.view, vec![lookup.relation.relation], affects.places.clone());
    let keys: Vec<String> = lookup
        .relation
        .key
        .iter()
        .zip(numbered("b.k", lookup.relation.key.len()))
        .map(|(k, b)| format!("{b} as {}", k.quoted()))
        .collect();
    let names = numbered("k", source.key.len());
    let known = all_known(&source.key, &numbered("t.k", source.key.len()));
    let values: Vec<String> =
        source.key.iter().zip(&names).map(|(k, n)| k.as_stored(&format!("t.{n}"))).collect();
    format!(
        "/* coco lookup {id} {view} */ select distinct {values} from (\n\
         with {shadow} as (select {keys} from coco_batch as b)\n\
         select q.* from {affects} as q) as t ({names}){known}",
        id = lookup.relation.id,
        view = affects.view.to_u32(),
        shadow = place_items::shadow_name(lookup.relation.id),
        affects = affects.name,
        keys = keys.join(", "),
        values = values.join(", "),
        names = names.join(", "),
        known = known.map_or(String::new(), |known| format!(" where {known}")),
    )
}

/// Merges forced keys into the keys of the candidates. Returns `k1…` and whether the item is
/// forced, each key once.
pub fn with_forced_keys(
    source: &Source,
    keys: Option<&TupleStore>,
    forced: &TupleStore,
) -> Result<TupleStore> {
    let mut columns = forced_columns(source);
    columns.push(RowColumn::new("forced", pg_sys::BOOLOID));
    let mut all = TupleStore::new(&columns)?;
    let statements = SpiSession::connect()?;
    statements.name("coco_forced", forced)?;
    let names = numbered("k", source.key.len()).join(", ");
    let mut sql = format!("select {names}, true as forced from coco_forced");
    if let Some(keys) = keys {
        statements.name("coco_changed", keys)?;
        sql.push_str(&format!(" union all select {names}, forced from coco_changed"));
    }
    statements.select_into(
        &format!(
            "select {names}, pg_catalog.bool_or(forced) from ({sql}) as f
              group by {names} order by {names}"
        ),
        &[],
        &mut all,
    )?;
    Ok(all)
}
