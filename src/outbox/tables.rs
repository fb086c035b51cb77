//! Creates the two tables of an external target, and alters them when the target's query changes.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::catalog::internal_tables::{self, InternalTable};
use crate::catalog::model::{External, Target};
use crate::catalog::object_comments;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column, StoredType, all_equal, numbered, stored};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg, literal};
use coco_core::change::Encoding;

/// The ledger's column for the fingerprint of a row's value.
pub const FINGERPRINT: &str = "coco_fingerprint";

/// Returns the columns of the outbox that hold the target key.
pub fn outbox_key(target: &Target) -> Vec<String> {
    let place = |k: &Column| target.columns.iter().position(|c| c.name == k.name).unwrap_or(0);
    target.key.iter().map(|k| format!("c{}", place(k) + 1)).collect()
}

/// Fails if the target has a column whose values coco cannot store for its connector.
pub fn check_kept(target: &Target, encoding: Encoding) -> Result<()> {
    for column in target.columns.iter().filter(|c| c.kept == StoredType::Json) {
        let is_key = target.key.iter().any(|k| k.name == column.name);
        if is_key || encoding == Encoding::Binary {
            let what = if is_key { "key column" } else { "column" };
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "{what} \"{}\" of target {} has type {}, which cannot be sent",
                    column.name,
                    target.shown(),
                    column.type_name
                ),
            )
            .hint("Return the fields of the value as columns, or cast it to text."));
        }
    }
    Ok(())
}

/// Creates the ledger and the outbox with their views, and enters their names in `target`.
pub fn create_tables(flow: &str, owner: pg_sys::Oid, target: &mut Target) -> Result<()> {
    if target.key.iter().any(|k| k.name == FINGERPRINT) {
        return Err(Error::invalid(format!("key column name \"{FINGERPRINT}\" is reserved"))
            .hint("Give the column another name: expression AS name."));
    }
    let shown = target.shown();
    let ledger = InternalTable::Ledger.name(target.id);
    let _as = RoleGuard::extension_owner()?;
    let defined: Vec<String> = target.key.iter().map(definition).collect::<Result<_>>()?;
    // The columns that equal the source key come first in the index, because coco finds an item's
    // rows by them.
    let covered = target.covered.clone().unwrap_or_default();
    let mut key: Vec<&Column> = target.key.iter().collect();
    key.sort_by_key(|k| !covered.contains(&k.name));
    let key: Vec<String> = key.iter().map(|k| k.quoted()).collect();
    // With free space on each page, a new version of a row stays on its page and needs no index
    // entry.
    spi::execute(
        &format!(
            "create table {ledger} ({} not null, {FINGERPRINT} uuid, primary key ({})) with (fillfactor = 90)",
            defined.join(" not null, "),
            key.join(", ")
        ),
        &[],
    )?;
    let what = object_comments::ledger_comment(flow, &shown);
    spi::execute(&format!("comment on table {ledger} is {}", literal(&what)), &[])?;
    internal_tables::make_view(InternalTable::Ledger, target.id, flow, owner, &what)?;
    let outbox_view = make_outbox(flow, owner, target)?;
    target.schema = "coco".to_owned();
    target.name = InternalTable::Ledger.view(target.id, flow);
    if let Some(external) = &mut target.external {
        external.outbox = InternalTable::Outbox.name(target.id);
        external.outbox_view = outbox_view;
        external.columns = target.columns.iter().map(|c| c.name.clone()).collect();
        target.relation = spi::scalar(
            "select $1::pg_catalog.text::pg_catalog.regclass::pg_catalog.oid",
            &[arg(ledger.as_str())],
        )?;
        external.ledger = ledger;
    }
    Ok(())
}

fn definition(column: &Column) -> Result<String> {
    let column = column.stored();
    let collate = columns::collate(column.collation)?;
    Ok(format!("{} {}{collate}", column.quoted(), column.type_name))
}

/// Creates the outbox, and returns the name of its view. `position` orders the entries. An entry
/// for a delete has only the key. `refused` says why the target rejected the entry, and when coco
/// tries it again.
fn make_outbox(flow: &str, owner: pg_sys::Oid, target: &Target) -> Result<String> {
    let outbox = InternalTable::Outbox.name(target.id);
    let mut values = String::new();
    let columns = stored(&target.columns);
    for (column, name) in columns.iter().zip(numbered("c", columns.len())) {
        values.push_str(&format!(
            ", {name} {}{}",
            column.type_name,
            columns::collate(column.collation)?
        ));
    }
    spi::execute(
        &format!(
            "create table {outbox} (
               position bigint generated always as identity primary key,
               version bigint not null, upsert boolean not null, refused jsonb{values})"
        ),
        &[],
    )?;
    spi::execute(&format!("create index on {outbox} (position) where refused is not null"), &[])?;
    let what = object_comments::outbox_comment(flow, &target.shown());
    spi::execute(&format!("comment on table {outbox} is {}", literal(&what)), &[])?;
    internal_tables::make_view(InternalTable::Outbox, target.id, flow, owner, &what)
}

/// Adapts the outbox to another query. Returns whether it had to change.
///
/// coco drops queued upserts of the old schema, and sets the fingerprints of their keys in the
/// ledger to NULL. The next update then sends these rows in the new schema. Deletes stay. coco
/// copies values only to columns of the same type.
pub fn refit_tables(
    flow: &str,
    owner: pg_sys::Oid,
    after: &Target,
    external: &External,
) -> Result<bool> {
    type Shape = Vec<(String, pg_sys::Oid, i32, pg_sys::Oid)>;
    let shape = |c: &Column| (c.name.clone(), c.type_oid, c.typmod, c.collation);
    let acting = RoleGuard::extension_owner()?;
    // Read from the catalog, because the previous query may be broken.
    let of = |relation: Option<pg_sys::Oid>| -> Result<Vec<Column>> {
        let Some(relation) = relation else { return Ok(vec![]) };
        Ok(columns::of_relation(relation)?.into_iter().map(|a| a.column).collect())
    };
    let outbox = spi::scalar("select $1::text::regclass::oid", &[arg(external.outbox.as_str())])?;
    let values = of(outbox)?.into_iter().filter(|c| c.name.starts_with('c'));
    let before: Shape = values
        .zip(&external.columns)
        .map(|(c, name)| shape(&Column { name: name.clone(), ..c }))
        .collect();
    let key = stored(&after.key);
    if before == stored(&after.columns).iter().map(shape).collect::<Shape>() {
        return Ok(false);
    }
    let ledger = of(after.relation)?;
    let there = |k: &Column| {
        ledger.iter().any(|c| shape(c) == shape(k)) && before.iter().any(|b| *b == shape(k))
    };
    if !key.iter().all(there) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("cannot change the type of the key of target {}", after.shown()),
        )
        .detail("coco could no longer match the target's existing rows to items.")
        .hint(
            "Cast the key columns to their previous types, or drop the flow and declare it again.",
        ));
    }
    spi::commit_durably();
    let outbox = &external.outbox;
    let x: Vec<String> = key.iter().map(|k| format!("x.{}", k.quoted())).collect();
    let place = |k: &Column| external.columns.iter().position(|c| *c == k.name).unwrap_or(0);
    let o: Vec<String> = key.iter().map(|k| format!("o.c{}", place(k) + 1)).collect();
    spi::execute(
        &format!(
            "update {} as x set {FINGERPRINT} = null from {outbox} as o
              where o.upsert and {}",
            external.ledger,
            all_equal(&key, &x, &o)
        ),
        &[],
    )?;
    let before = format!("outbox_before_{}", after.id);
    let old = format!("{}.{before}", internal_tables::SCHEMA);
    spi::execute(&format!("drop view if exists {}", external.outbox_view), &[])?;
    spi::execute(&format!("alter table {outbox} rename to {before}"), &[])?;
    let view = make_outbox(flow, owner, after)?;
    spi::execute(
        &format!(
            "insert into {outbox} (position, version, upsert, refused, {new}) overriding system value
             select o.position, o.version, false, o.refused, {keys} from {old} as o where not o.upsert",
            new = outbox_key(after).join(", "),
            keys = o.join(", "),
        ),
        &[],
    )?;
    spi::execute(
        &format!(
            "select setval(pg_get_serial_sequence({new}, 'position'), last, called)
               from (select last_value, is_called from {sequence}) as s (last, called)",
            new = literal(outbox),
            sequence = sequence(&old)?,
        ),
        &[],
    )?;
    spi::execute(&format!("drop table {old}"), &[])?;
    spi::execute(
        "update coco_internal.target
            set outbox = $2::text::regclass, outbox_view = $3::text::regclass, columns = $4
          where id = $1",
        &[
            arg(after.id),
            arg(outbox.as_str()),
            arg(view),
            arg(after.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>()),
        ],
    )?;
    drop(acting);
    Ok(true)
}

fn sequence(table: &str) -> Result<String> {
    spi::scalar("select pg_get_serial_sequence($1, 'position')", &[arg(table)])?
        .ok_or_else(|| Error::internal(format!("{table} has no sequence for its positions")))
}

/// Drops both tables and their views, if they exist. The caller acts as the extension's owner.
pub fn drop_all(flow: &str, target: &Target) -> Result<()> {
    for table in [InternalTable::Ledger, InternalTable::Outbox] {
        spi::execute(&format!("drop view if exists {}", table.view_name(target.id, flow)), &[])?;
        spi::execute(&format!("drop table if exists {}", table.name(target.id)), &[])?;
    }
    Ok(())
}
