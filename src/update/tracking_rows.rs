//! Writes the tracking rows of a batch. The flow's owner computes the items' target keys, and the
//! extension's owner writes the rows.

use pgrx::pg_sys;

use crate::catalog::model::{Source, Target};
use crate::memo::result_uses;
use crate::pg::acting_role::RoleGuard;
use crate::pg::bulk_insert;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::{Action, Batch, Item};
use crate::query::compose;
use crate::query::names::{KeyExprs, key_text};
use crate::update::target_writer::{TargetWriter, WriteOptions};

/// What tracking rows keep of an item's rows, by the ids of the targets.
#[derive(Default)]
pub struct ItemRows {
    /// The output at targets that are owned by list.
    pub listed: Vec<(i32, TupleStore)>,
    /// The rows that expectations keep out of a target: the items' keys `i1…`, and `parked`.
    pub parked: Vec<(i32, TupleStore)>,
}

/// Writes the tracking rows of a batch whose target rows are written.
pub fn write_tracking_rows(
    source: &Source,
    writers: &[TargetWriter],
    output: &ItemRows,
    items: &Batch,
    writing: WriteOptions,
    used: Option<&result_uses::ResultUses>,
) -> Result<()> {
    // Run as the flow's owner, because converting a target key to text can run a user's code.
    let mut lists = Vec::new();
    for (id, rows) in &output.listed {
        if let Some(writer) = writers.iter().find(|w| w.target.id == *id) {
            lists.push((*id, listed_keys(source, writer.target, rows)?));
        }
    }
    let _as = RoleGuard::extension_owner()?;
    let _by_key = RoleGuard::finding_by_key()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", items.rows())?;
    let tracking = &source.tracking;
    let batch = numbered("b.k", source.key.len());
    let tracked = compose::tracking_keys(source, "t");
    let own = all_equal(&source.key, &tracked, &batch);
    let mut joined = String::new();
    let mut parts = Vec::new();
    for (id, rows) in &lists {
        let relation = format!("coco_listed_{id}");
        statements.name(&relation, rows)?;
        let on = all_equal(&source.key, &numbered(&format!("l{id}.i"), source.key.len()), &batch);
        joined.push_str(&format!(" left join {relation} as l{id} on {on}"));
        parts.push(format!(
            "case when l{id}.keys is null then '{{}}'::pg_catalog.jsonb
                  else pg_catalog.jsonb_build_object('{id}', l{id}.keys) end"
        ));
    }
    let keys = match parts.is_empty() {
        true => "null::pg_catalog.jsonb".to_owned(),
        false => parts.join(" operator(pg_catalog.||) "),
    };
    let mut parts = Vec::new();
    for (id, rows) in &output.parked {
        let relation = format!("coco_parked_{id}");
        statements.name(&relation, rows)?;
        let on = all_equal(&source.key, &numbered(&format!("p{id}.i"), source.key.len()), &batch);
        joined.push_str(&format!(" left join {relation} as p{id} on {on}"));
        parts.push(format!("coalesce(p{id}.parked, '[]'::pg_catalog.jsonb)"));
    }
    let parked = match parts.is_empty() {
        true => "null::pg_catalog.jsonb".to_owned(),
        false => {
            format!("nullif({}, '[]'::pg_catalog.jsonb)", parts.join(" operator(pg_catalog.||) "))
        }
    };
    let refs = match used {
        Some(used) => {
            statements.name("coco_refs", &used.refs)?;
            joined.push_str(" left join coco_refs as r on r.no operator(pg_catalog.=) b.no");
            "r.refs"
        }
        None => "null::pg_catalog.int8[]",
    };
    let (is_advance, is_removed) = (Action::Advance.is_sql(), Action::Remove.is_sql());
    let any = |takes: fn(&Item) -> bool| items.items.iter().any(takes);
    if any(|i| i.tracked && i.action != Action::Remove) {
        statements.execute(
            &format!(
                "update {tracking} as t
                    set source_ordinal = b.ordinal, content_fingerprint = b.fingerprint,
                        logic_id = $1, process_ordinal = b.process_ordinal,
                        target_keys = case when {is_advance}
                                           then t.target_keys else {keys} end,
                        memo_refs = case when {is_advance}
                                         then t.memo_refs else {refs} end,
                        parked = case when {is_advance} then t.parked else {parked} end,
                        failure = null
                   from coco_batch as b{joined}
                  where {own} and b.tracked and {is_not_removed}",
                is_not_removed = Action::Remove.is_not_sql(),
            ),
            &[arg(writing.logic.0)],
        )?;
    }
    if any(|i| !i.tracked && i.action == Action::Evaluate) {
        let mut columns: Vec<(String, String)> =
            numbered("k", source.key.len()).into_iter().zip(batch).collect();
        let rest = [
            ("source_ordinal", "b.ordinal"),
            ("process_ordinal", "b.process_ordinal"),
            ("content_fingerprint", "b.fingerprint"),
            ("logic_id", "$1"),
            ("target_keys", &keys),
            ("memo_refs", refs),
        ];
        columns.extend(rest.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if !output.parked.is_empty() {
            columns.push(("parked".to_owned(), parked));
        }
        let from = format!(
            "coco_batch as b{joined}
              where not b.tracked and {}",
            Action::Evaluate.is_sql()
        );
        bulk_insert::insert(&statements, tracking, &columns, &from, &[arg(writing.logic.0)])?;
    }
    if any(|i| i.action == Action::Remove) {
        statements.execute(
            &format!(
                "delete from {tracking} as t using coco_batch as b
                  where {own} and {is_removed}"
            ),
            &[],
        )?;
    }
    Ok(())
}

/// Makes tracked items count as never committed. The next update that looks at them evaluates them,
/// whatever their content.
pub fn forget_content(source: &Source, keys: &TupleStore) -> Result<()> {
    if keys.len() == 0 {
        return Ok(());
    }
    let _as = RoleGuard::extension_owner()?;
    let _by_key = RoleGuard::finding_by_key()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_unsettled", keys)?;
    let same = all_equal(
        &source.key,
        &compose::tracking_keys(source, "t"),
        &numbered("u.k", source.key.len()),
    );
    let tracking = &source.tracking;
    let sql =
        format!("update {tracking} as t set logic_id = null from coco_unsettled as u where {same}");
    statements.execute(&sql, &[])?;
    Ok(())
}

/// Makes items with parked rows count as never committed: coco evaluates them again when an update
/// looks at them.
pub fn forget_parked(source: &Source) -> Result<()> {
    let acting = RoleGuard::extension_owner()?;
    // Use the index on parked rows even before the table is analyzed for the first time.
    acting.set("enable_seqscan", "off")?;
    let tracking = &source.tracking;
    let sql = format!("update {tracking} as t set logic_id = null where t.parked is not null");
    spi::execute(&sql, &[])?;
    Ok(())
}

/// Returns the target keys in the output of each item of a batch: the item's key `i1…`, and `keys`.
/// The caller acts as the flow's owner.
fn listed_keys(source: &Source, target: &Target, output: &TupleStore) -> Result<TupleStore> {
    let names = KeyExprs::new(source, target);
    let mut columns = rows::typed("i", &source.key);
    columns.push(RowColumn::new("keys", pg_sys::JSONBOID));
    let mut listed = TupleStore::new(&columns)?;
    let statements = SpiSession::connect()?;
    statements.name("coco_output", output)?;
    statements.query_into(
        &format!(
            "select {group}, pg_catalog.jsonb_object_agg({key}::pg_catalog.text, null::pg_catalog.text)
               from coco_output as n group by {group}",
            group = names.item.join(", "),
            key = key_text(&names.new_key),
        ),
        &[],
        &mut listed,
    )?;
    Ok(listed)
}
