//! Lookups: which items are evaluated again because something else that the query reads changed.

use pgrx::pg_sys;

use super::apply::{self, Writing};
use super::batch::{Action, Batch, Item};
use super::detect::{self, Scan};
use super::error::Result;
use super::follow::{self, Kept, Looking, Remembered};
use super::generation;
use super::model::{BoundView, Flow, Lookup, Source, numbered};
use super::placing;
use super::track;
use super::tuples::{self, OneSnapshot, RowColumn, Rows, Statements};
use super::update::Limits;
use crate::engine::decide::Mode;
use crate::engine::version::{LogicId, ProcessOrdinal};

/// Lookups know no logic: what is tracked of them is their content.
const NO_LOGIC: LogicId = LogicId(0);

/// The items of a source that are evaluated whatever their content.
pub enum Forced {
    Keys(Rows),
    All,
}

/// What following the lookups of a source brought.
pub struct Followed {
    pub forced: Forced,
    pub kept: Vec<Kept>,
    pub more: bool,
    pub uncaptured: bool,
    pub again: Option<std::time::Duration>,
}

/// Columns of forced keys: `k1…`.
fn forced_columns(source: &Source) -> Vec<RowColumn> {
    tuples::typed("k", &source.key)
}

/// Follows all lookups of a source, and finds the items that what changed in them affects. The caller
/// acts as the flow's owner.
pub fn follow_all(
    flow: &Flow,
    source: &Source,
    limits: Limits,
    live: Option<&Remembered>,
) -> Result<Followed> {
    let mut followed = Followed {
        forced: Forced::Keys(Rows::new(&forced_columns(source))?),
        kept: vec![],
        more: false,
        uncaptured: false,
        again: None,
    };
    for lookup in flow.lookups.iter().filter(|l| l.of == source.id) {
        follow_one(lookup, source, limits, live, &mut followed)?;
    }
    Ok(followed)
}

fn follow_one(
    lookup: &Lookup,
    source: &Source,
    limits: Limits,
    live: Option<&Remembered>,
    followed: &mut Followed,
) -> Result<()> {
    let relation = &lookup.relation;
    let generation = generation::now();
    let _snapshot = OneSnapshot::take();
    let statements = Statements::connect()?;
    let mode = Mode::Normal;
    let following =
        follow::begin(&statements, relation, NO_LOGIC, mode, limits.changes, live, generation)?;
    let mut changed = match &following.looking {
        Looking::Nothing => None,
        Looking::Keys(keys) if keys.len() == 0 => None,
        Looking::Keys(keys) => Some(detect::among(relation, keys, false)?),
        Looking::All => {
            Some(detect::scan(&statements, relation, Scan { mode, logic: NO_LOGIC }, None)?)
        }
    };
    let mut batch = Batch::new(relation, false)?;
    while let Some(found) = changed.as_mut().and_then(|c| c.next().map(|item| (c.key(), item))) {
        let (key, item) = found;
        if key.iter().any(Option::is_none) {
            return Err(apply::null_key(relation));
        }
        let same = match (&item.incoming, &item.stored) {
            (Some(now), Some(before)) => now.content == before.content,
            (None, None) => true,
            _ => false,
        };
        if same {
            continue;
        }
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
            settle(lookup, source, &batch, followed)?;
            batch = Batch::new(relation, false)?;
        }
    }
    if batch.len() > 0 {
        settle(lookup, source, &batch, followed)?;
    }
    followed.more |= following.more;
    followed.uncaptured |= following.uncaptured;
    followed.again = [followed.again, following.again].into_iter().flatten().min();
    followed.kept.extend(following.done(relation, live, limits.segment_bytes)?);
    Ok(())
}

/// Finds the items that a batch of changed lookup rows affects, and tracks the rows as they are now.
fn settle(lookup: &Lookup, source: &Source, batch: &Batch, followed: &mut Followed) -> Result<()> {
    let statements = Statements::connect()?;
    statements.name("coco_batch", batch.rows())?;
    match (&lookup.affects, &mut followed.forced) {
        (_, Forced::All) => {}
        (None, forced) => *forced = Forced::All,
        (Some(affects), Forced::Keys(keys)) => {
            statements.select_into(&affected(lookup, source, affects), &[], keys)?;
        }
    }
    let writing = Writing { mode: Mode::Normal, logic: NO_LOGIC };
    drop(statements);
    track::track(&lookup.relation, &[], &[], batch, writing, None)
}

/// The statement by which the source's keys are found that changed rows of a lookup affect; `None`
/// where it is all of them.
pub fn affected_by(lookup: &Lookup, source: &Source) -> Option<String> {
    lookup.affects.as_ref().map(|affects| affected(lookup, source, affects))
}

/// The SELECT of the source's keys that changed rows of a lookup affect, each once. The user's query
/// stands as in `compose`.
fn affected(lookup: &Lookup, source: &Source, affects: &BoundView) -> String {
    placing::know(affects.view, vec![lookup.relation.relation], affects.places.clone());
    let keys: Vec<String> = lookup
        .relation
        .key
        .iter()
        .zip(numbered("b.k", lookup.relation.key.len()))
        .map(|(k, b)| format!("{b} as {}", k.quoted()))
        .collect();
    let names = numbered("k", source.key.len());
    let known: Vec<String> = names.iter().map(|k| format!("t.{k} is not null")).collect();
    let values: Vec<String> =
        source.key.iter().zip(&names).map(|(k, n)| k.as_stored(&format!("t.{n}"))).collect();
    format!(
        "/* coco lookup {id} {view} */ select distinct {values} from (\n\
         with {shadow} as (select {keys} from coco_batch as b)\n\
         select q.* from {affects} as q) as t ({names}) where {known}",
        id = lookup.relation.id,
        view = affects.view.to_u32(),
        shadow = placing::shadow_name(lookup.relation.id),
        affects = affects.name,
        keys = keys.join(", "),
        values = values.join(", "),
        names = names.join(", "),
        known = known.join(" and "),
    )
}

/// Adds forced keys to those that are looked at: `k1…` and whether they are forced.
pub fn with_forced(source: &Source, keys: Option<&Rows>, forced: &Rows) -> Result<Rows> {
    let mut columns = forced_columns(source);
    columns.push(RowColumn::new("forced", pg_sys::BOOLOID));
    let mut all = Rows::new(&columns)?;
    let statements = Statements::connect()?;
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
