//! The two tables of a target outside this database: made, and altered with its query.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;

use crate::catalog::columns;
use crate::catalog::derived::{object_name, owner_name};
use crate::catalog::error::{Error, Result};
use crate::catalog::model::{Column, External, Target, all_equal, numbered};
use crate::catalog::role::{ActingAs, Settings};
use crate::catalog::sql::{self, arg, ident, literal};
use crate::catalog::target_table;

/// The column of the ledger with the fingerprint of a row's value.
pub const FINGERPRINT: &str = "coco_fingerprint";

/// The columns of the outbox that hold the target key.
pub fn outbox_key(target: &Target) -> Vec<String> {
    let place = |k: &Column| target.columns.iter().position(|c| c.name == k.name).unwrap_or(0);
    target.key.iter().map(|k| format!("c{}", place(k) + 1)).collect()
}

/// Makes ledger and outbox; fills in what the target says of them.
pub fn make(flow: &str, owner: pg_sys::Oid, target: &mut Target) -> Result<()> {
    if target.key.iter().any(|k| k.name == FINGERPRINT) {
        return Err(Error::invalid(format!(
            "key column \"{FINGERPRINT}\": the name is coco's own"
        ))
        .hint("Give the column another name: expression AS name."));
    }
    target.schema = "coco".to_owned();
    target.name = object_name("sent", target.id, flow);
    let shown = target.shown();
    let ledger = target.relation_name();
    let outbox = format!("coco.{}", ident(&object_name("outbox", target.id, flow)));
    let _as = ActingAs::extension_owner()?;
    let defined: Vec<String> = target.key.iter().map(definition).collect::<Result<_>>()?;
    // The columns that equal the source key come first in the index: an item's rows are found by it.
    let covered = target.covered.clone().unwrap_or_default();
    let mut key: Vec<&Column> = target.key.iter().collect();
    key.sort_by_key(|k| !covered.contains(&k.name));
    let key: Vec<String> = key.iter().map(|k| k.quoted()).collect();
    // Room on each page lets a key's next version stay there, without touching the index.
    sql::execute(
        &format!(
            "create table {ledger} ({} not null, {FINGERPRINT} uuid, primary key ({})) with (fillfactor = 90)",
            defined.join(" not null, "),
            key.join(", ")
        ),
        &[],
    )?;
    make_outbox(&outbox, target)?;
    let owner = owner_name(owner)?;
    for (table, what) in
        [(&ledger, "Ledger: the keys in"), (&outbox, "Outbox: what is to be sent to")]
    {
        let comment = literal(&format!("{what} target {shown} of flow {flow}"));
        sql::execute(&format!("comment on table {table} is {comment}"), &[])?;
        sql::execute(&format!("alter table {table} owner to {owner}"), &[])?;
    }
    if let Some(external) = &mut target.external {
        external.outbox = outbox;
        external.columns = target.columns.iter().map(|c| c.name.clone()).collect();
    }
    target.relation = target_table::find(&target.schema, &target.name)?;
    Ok(())
}

fn definition(column: &Column) -> Result<String> {
    let collate = columns::collate(column.collation)?;
    Ok(format!("{} {}{collate}", column.quoted(), column.type_name))
}

/// `position` orders the entries; of an entry that deletes only the key is there; `refused` is why the
/// target did not take it, and when it is tried again.
fn make_outbox(outbox: &str, target: &Target) -> Result<()> {
    let mut values = String::new();
    for (column, name) in target.columns.iter().zip(numbered("c", target.columns.len())) {
        values.push_str(&format!(
            ", {name} {}{}",
            column.type_name,
            columns::collate(column.collation)?
        ));
    }
    sql::execute(
        &format!(
            "create table {outbox} (
               position bigint generated always as identity primary key,
               version bigint not null, upsert boolean not null, refused jsonb{values})"
        ),
        &[],
    )?;
    sql::execute(&format!("create index on {outbox} (position) where refused is not null"), &[])?;
    Ok(())
}

/// Makes the outbox fit another query. What waits in it of the old shape is left out, and its keys
/// are marked in the ledger, so that the next update sends them in the new one; deletions stay.
pub fn refit(owner: pg_sys::Oid, after: &Target, external: &External) -> Result<bool> {
    type Shape = Vec<(String, pg_sys::Oid, i32, pg_sys::Oid)>;
    let shape = |c: &Column| (c.name.clone(), c.type_oid, c.typmod, c.collation);
    // As they are: the query of before may be broken.
    let of = |relation: Option<pg_sys::Oid>| -> Result<Vec<Column>> {
        let Some(relation) = relation else { return Ok(vec![]) };
        Ok(columns::of_relation(relation)?.into_iter().map(|a| a.column).collect())
    };
    let outbox = sql::one("select $1::text::regclass::oid", &[arg(external.outbox.as_str())])?;
    let values = of(outbox)?.into_iter().filter(|c| c.name.starts_with('c'));
    let before: Shape = values
        .zip(&external.columns)
        .map(|(c, name)| shape(&Column { name: name.clone(), ..c }))
        .collect();
    if before == after.columns.iter().map(shape).collect::<Shape>() {
        return Ok(false);
    }
    let ledger = of(after.relation)?;
    let there = |k: &Column| ledger.iter().any(|c| shape(c) == shape(k));
    if !after.key.iter().all(there) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("the key of target {} cannot change its type", after.shown()),
        )
        .detail("coco could not tell any more which rows there are which item's.")
        .hint("Cast the key to what it was; or drop the flow and declare it again."));
    }
    sql::commit_durably();
    let acting = ActingAs::flow_owner(owner, &Settings::qualifying())?;
    let (ledger, outbox) = (after.relation_name(), &external.outbox);
    let x: Vec<String> = after.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
    let place = |k: &Column| external.columns.iter().position(|c| *c == k.name).unwrap_or(0);
    let o: Vec<String> = after.key.iter().map(|k| format!("o.c{}", place(k) + 1)).collect();
    sql::execute(
        &format!(
            "update {ledger} as x set {FINGERPRINT} = null from {outbox} as o
              where o.upsert and {}",
            all_equal(&after.key, &x, &o)
        ),
        &[],
    )?;
    drop(acting);
    let _as = ActingAs::extension_owner()?;
    let old = format!("coco.{}", ident(&format!("outbox_before_{}", after.id)));
    let name = |qualified: &str| qualified.trim_start_matches("coco.").to_owned();
    sql::execute(&format!("alter table {outbox} rename to {}", name(&old)), &[])?;
    make_outbox(outbox, after)?;
    sql::execute(
        &format!(
            "insert into {outbox} (position, version, upsert, refused, {new}) overriding system value
             select o.position, o.version, false, o.refused, {keys} from {old} as o where not o.upsert",
            new = outbox_key(after).join(", "),
            keys = o.join(", "),
        ),
        &[],
    )?;
    sql::execute(
        &format!(
            "select setval(pg_get_serial_sequence({new}, 'position'), last, called)
               from (select last_value, is_called from {sequence}) as s (last, called)",
            new = literal(outbox),
            sequence = sequence(&old)?,
        ),
        &[],
    )?;
    sql::execute(&format!("drop table {old}"), &[])?;
    let comment = literal(&format!("Outbox: what is to be sent to target {}", after.shown()));
    sql::execute(&format!("comment on table {outbox} is {comment}"), &[])?;
    sql::execute(&format!("alter table {outbox} owner to {}", owner_name(owner)?), &[])?;
    sql::execute(
        "update coco.target set outbox = $2::text::regclass, columns = $3 where id = $1",
        &[
            arg(after.id),
            arg(outbox.as_str()),
            arg(after.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>()),
        ],
    )?;
    Ok(true)
}

fn sequence(table: &str) -> Result<String> {
    sql::one("select pg_get_serial_sequence($1, 'position')", &[arg(table)])?
        .ok_or_else(|| Error::internal(format!("{table} has lost its sequence")))
}

/// Drops what there is of both. The caller acts as the extension's owner.
pub fn drop_all(target: &Target) -> Result<()> {
    let outbox = target.external.as_ref().map(|e| e.outbox.clone()).filter(|o| !o.is_empty());
    let ledger = target.relation.map(|_| target.relation_name());
    for table in [outbox, ledger].into_iter().flatten() {
        sql::execute(&format!("drop table if exists {table}"), &[])?;
    }
    Ok(())
}
