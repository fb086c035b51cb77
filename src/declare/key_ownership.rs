//! Keeps track of which item owns which target rows when a query changes how coco finds them.
//!
//! If the target key contains the source key ("owned by key"), coco finds an item's rows by the
//! source key. Otherwise a list in the tracking row contains their keys ("owned by list"). The next
//! update evaluates every item. For it, each existing row must be found by the item that produced
//! it, or be deleted.

use pgrx::pg_sys;

use crate::catalog::model::{Source, Target};
use crate::outbox::ledger;
use crate::pg::acting_role::RoleGuard;
use crate::pg::clock::now_micros;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::Result;
use crate::pg::spi::{self, ident};
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::compose::tracking_keys;
use crate::query::names::key_text;

/// Changes from how `before` finds its rows to how `after` does. The caller must act as the flow's
/// owner.
pub fn carry_over(source: &Source, before: &Target, after: &Target) -> Result<()> {
    let relation = after.relation_name();
    let tracking = &source.tracking_view;
    let owned = |columns: &[String]| {
        let columns: Vec<String> = columns.iter().map(|c| format!("x.{}", ident(c))).collect();
        all_equal(&source.key, &tracking_keys(source, "t"), &columns)
    };
    if let Some(columns) = &after.covered {
        // Deletes the rows whose key belongs to no item, because coco would never find them again.
        // All other rows now belong to the item with their key.
        let nobodys = format!("not exists (select from {tracking} as t where {})", owned(columns));
        match &after.external {
            Some(external) => {
                let statements = SpiSession::connect()?;
                ledger::delete_ledger(&statements, after, external, "", &nobodys, now_micros())?;
            }
            None => {
                spi::execute(&format!("delete from {relation} as x where {nobodys}"), &[])?;
            }
        }
    } else if let Some(columns) = &before.covered {
        let listed = listed_keys(source, after, &owned(columns))?;
        list(source, after.id, &listed)?;
    }
    Ok(())
}

/// Returns, for each item that has rows in the target, the item's key as `i1…` and its rows' keys
/// as `keys`. The caller must act as the flow's owner.
fn listed_keys(source: &Source, target: &Target, owned: &str) -> Result<TupleStore> {
    let key: Vec<String> = target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
    let item = tracking_keys(source, "t").join(", ");
    let mut columns = rows::typed("i", &source.key);
    columns.push(RowColumn::new("keys", pg_sys::JSONBOID));
    let mut listed = TupleStore::new(&columns)?;
    let statements = SpiSession::connect()?;
    statements.reads_many();
    statements.query_into(
        &format!(
            "select {item}, pg_catalog.jsonb_object_agg({key}::pg_catalog.text, null::pg_catalog.text)
               from {tracking} as t join {relation} as x on {owned} group by {item}",
            key = key_text(&key),
            tracking = source.tracking_view,
            relation = target.relation_name(),
        ),
        &[],
        &mut listed,
    )?;
    Ok(listed)
}

/// Adds keys of a target to the lists in their items' tracking rows.
fn list(source: &Source, target: i32, listed: &TupleStore) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_listed", listed)?;
    let item = numbered("l.i", source.key.len());
    statements.execute(
        &format!(
            "update {} as t
                set target_keys = coalesce(t.target_keys, '{{}}') operator(pg_catalog.||)
                      pg_catalog.jsonb_build_object('{target}', l.keys)
               from coco_listed as l where {}",
            source.tracking,
            all_equal(&source.key, &tracking_keys(source, "t"), &item),
        ),
        &[],
    )?;
    Ok(())
}
