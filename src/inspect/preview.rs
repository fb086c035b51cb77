//! `coco.preview`: the changes that an update would make, without making them.

use crate::catalog::item_failure::ItemFailure;
use crate::catalog::model::{Flow, Source, Target};
use crate::catalog::relation_locks;
use crate::flows::load;
use crate::memo;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::all_equal;
use crate::pg::error::{Error, Result};
use crate::pg::json::{Json, object_sql};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::subtransaction::{DataError, subtransaction};
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::{Action, Batch, Item};
use crate::query::compose::{self, Items};
use crate::query::expected_rows;
use crate::query::logic_fingerprint;
use crate::query::names::{self, KeyExprs};
use crate::update::detect::{self, Scan};
use crate::update::limits::Limits;
use crate::update::stale_rows::{self, StaleRows};
use crate::update::{differences, orphans};
use coco_core::bisect::{Attempt, bisect};
use coco_core::decision::{Decision, Mode};
use coco_core::version::ProcessOrdinal;

/// A change that an update would make to a target row, or an item that would fail.
pub struct Change {
    pub target: Option<String>,
    /// `insert`, `update`, `delete`, or `fail` for an item whose evaluation fails.
    pub change: String,
    pub key: Option<Json>,
    pub old: Option<Json>,
    pub new: Option<Json>,
}

/// Returns the changes that an update in this mode would make, at most `limit` of them.
pub fn preview(name: &str, mode: Mode, limits: Limits, limit: usize) -> Result<Vec<Change>> {
    let flow = load::load_to_read(name)?;
    if let Some(gone) = flow.targets.iter().find(|t| t.relation.is_none()) {
        return Err(orphans::dropped_rows_sql(&flow, gone));
    }
    let logic = logic_fingerprint::known_logic(&flow)?;
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let mut changes = Vec::new();
    let _snapshot = PinnedSnapshot::take();
    relation_locks::check_not_rewritten(&flow)?;
    for source in &flow.sources {
        let statements = SpiSession::connect()?;
        let mut candidates = detect::scan(&statements, source, Scan { mode, logic }, None)?;
        let mut batch = Batch::new(source, false)?;
        loop {
            let item = candidates.next();
            if let Some(item) = &item {
                let action = match item.decide(logic, mode) {
                    Decision::Evaluate => Some(Action::Evaluate),
                    Decision::Remove => Some(Action::Remove),
                    Decision::Skip | Decision::Advance | Decision::Wait => None,
                };
                let key = candidates.key();
                if source.lacks_key(&key) {
                    changes.push(failing(&ItemFailure::null_key(source)));
                } else if let (Some(_), Some(failure)) = (action, &item.unread) {
                    changes.push(failing(failure));
                } else if let Some(action) = action {
                    batch.push(
                        &key,
                        &[],
                        Item {
                            action,
                            tracked: item.stored.is_some(),
                            incoming: item.incoming,
                            process_ordinal: ProcessOrdinal(0),
                            attempts: 0,
                            along: false,
                        },
                    );
                }
            }
            if batch.len() >= limits.of(&flow).batch || item.is_none() {
                preview_batch(&flow, source, &mut batch, mode, &mut changes)?;
                batch = Batch::new(source, false)?;
            }
            if changes.len() >= limit {
                changes.truncate(limit);
                return Ok(changes);
            }
            if item.is_none() {
                break;
            }
        }
    }
    Ok(changes)
}

/// Adds the changes of a batch. Isolates the items that fail, as an update does.
fn preview_batch(
    flow: &Flow,
    source: &Source,
    batch: &mut Batch,
    mode: Mode,
    changes: &mut Vec<Change>,
) -> Result<()> {
    let mut failed: Vec<DataError> = Vec::new();
    let whole = 0..batch.len();
    let mut attempt = |range: std::ops::Range<usize>| -> Result<Attempt<DataError>> {
        pgrx::check_for_interrupts!();
        let part = batch.slice(range)?;
        let result =
            subtransaction(|| compare(flow, source, &part, mode).map_err(Stop::Flow), Stop::Item);
        match result {
            Ok(found) => {
                changes.extend(found);
                Ok(Attempt::Done)
            }
            Err(Stop::Item(raised)) => Ok(Attempt::Failed(raised)),
            Err(Stop::Flow(error)) => Err(error),
        }
    };
    bisect(whole, &mut attempt, &mut |_, raised| {
        failed.push(raised);
        Ok(())
    })?;
    changes.extend(failed.into_iter().map(|raised| failing(&ItemFailure::from(raised))));
    Ok(())
}

/// The change reported for an item that fails.
fn failing(failure: &ItemFailure) -> Change {
    Change {
        target: None,
        change: "fail".to_owned(),
        key: None,
        old: None,
        new: Some(failure.shown()),
    }
}

/// Why the evaluation of a batch stopped: an error of an item, or an error of the flow.
enum Stop {
    Item(DataError),
    Flow(Error),
}

/// Evaluates a batch and compares the output with the targets.
fn compare(flow: &Flow, source: &Source, batch: &Batch, mode: Mode) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let recalling = memo::session_of_look(flow)?;
    let _running = recalling.as_ref().map(|r| r.begin());
    for target in &flow.targets {
        let statements = SpiSession::connect()?;
        statements.name("coco_batch", batch.rows())?;
        let names = KeyExprs::new(source, target);
        let mut columns = names::output_columns(source, target);
        if recalling.is_some() {
            columns.push(RowColumn::new(compose::ITEM_NUMBER, pgrx::pg_sys::INT4OID));
        }
        let mut output = TupleStore::new(&columns)?;
        let sql = expected_rows::evaluate_unparked(flow, source, target, Items::Batch)?;
        statements.select_into(&sql, &[], &mut output)?;
        let mut old = TupleStore::new(&names::old_columns(source, target))?;
        if target.covered.is_none() {
            statements.select_into(
                &stale_rows::old_keys_sql(source, target, &names),
                &[],
                &mut old,
            )?;
        }
        let compared = SpiSession::connect()?;
        compared.name("coco_batch", batch.rows())?;
        compared.name("coco_output", &output)?;
        compared.name("coco_old", &old)?;
        let mut result = TupleStore::new(&change_columns())?;
        compared.select_into(&comparison(source, target, &names, mode), &[], &mut result)?;
        while result.advance() {
            changes.push(Change {
                target: Some(target.shown()),
                change: result.get::<String>(0).unwrap_or_default(),
                key: result.get(1),
                old: result.get(2),
                new: result.get(3),
            });
        }
    }
    Ok(changes)
}

fn change_columns() -> Vec<crate::pg::tuplestore::rows::RowColumn> {
    use pgrx::pg_sys::JSONBOID;
    use pgrx::pg_sys::TEXTOID;
    [("change", TEXTOID), ("key", JSONBOID), ("old", JSONBOID), ("new", JSONBOID)]
        .map(|(name, oid)| crate::pg::tuplestore::rows::RowColumn::new(name, oid))
        .to_vec()
}

fn comparison(source: &Source, target: &Target, names: &KeyExprs, mode: Mode) -> String {
    let key = |values: &[String]| {
        object_sql(target.key.iter().map(|k| k.name.as_str()).zip(values.iter().cloned()))
    };
    // For a row of an external target, this database stores only the key.
    let old_row = match target.external {
        Some(_) => "null::pg_catalog.jsonb".to_owned(),
        None => object_sql(
            target.columns.iter().map(|c| (c.name.as_str(), format!("x.{}", c.quoted()))),
        ),
    };
    let new_row = object_sql(
        target.columns.iter().enumerate().map(|(n, c)| (c.name.as_str(), format!("n.c{}", n + 1))),
    );
    let relation = target.relation_name();
    let same = all_equal(&target.key, &names.target_key, &names.new_key);
    let differs = match mode.carries_over() {
        true => differences::differs(target),
        false => "true".to_owned(),
    };
    let StaleRows { from, condition } = stale_rows::stale_rows_sql(source, target, names);
    format!(
        "select 'delete'::pg_catalog.text, {old_key}, {old_row}, null::pg_catalog.jsonb
           from {relation} as x, {from} where {condition}
         union all
         select 'update', {new_key}, {old_row}, {new_row}
           from coco_output as n join {relation} as x on {same} where {differs}
         union all
         select 'insert', {new_key}, null, {new_row}
           from coco_output as n where not exists (select from {relation} as x where {same})",
        old_key = key(&names.target_key),
        new_key = key(&names.new_key),
    )
}
