//! Tables that coco made for targets whose flows were dropped: the rows of `coco_internal.made_target`.
//!
//! A flow that is declared over such a table manages it again. A row counts only for the owner of
//! the dropped flow, and only while this role owns the table.
//!
//! Caller: `declare`.

use pgrx::pg_sys;

use crate::catalog::model::Target;
use crate::catalog::target_table;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg, ident};

/// Records the tables that coco made for a flow, which its caller drops without them. Forgets
/// tables that no longer exist. The caller acts as the extension's owner.
pub fn record_made_targets(flow: &str, owner: pg_sys::Oid) -> Result<()> {
    spi::execute(
        "delete from coco_internal.made_target m
          where not exists (select from pg_class c where c.oid = m.relation)",
        &[],
    )?;
    spi::execute(
        "insert into coco_internal.made_target (relation, owner)
         select c.oid::regclass, c.relowner::regrole
           from coco_internal.target t join pg_class c on c.oid = t.relation
          where t.flow = $1 and t.managed and t.server is null and c.relowner = $2
         on conflict (relation) do update set owner = excluded.owner",
        &[arg(flow), arg(owner)],
    )?;
    Ok(())
}

/// Reports whether coco made a table for a flow of this role that was dropped, and forgets it.
pub fn take_made_target(relation: pg_sys::Oid, owner: pg_sys::Oid) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::returning(
        "delete from coco_internal.made_target m using pg_class c
          where m.relation = $1 and m.owner = $2 and c.oid = m.relation
         returning c.relowner = $2",
        &[arg(relation), arg(owner)],
        |r| spi::required::<bool>(r, 1),
    )?;
    Ok(found.contains(&true))
}

/// Returns the columns of a target that its table declares NOT NULL, other than those of the key.
pub fn declared_not_null(target: &Target, relation: pg_sys::Oid) -> Result<Vec<String>> {
    let is_key = |name: &String| target.key.iter().any(|k| k.name == *name);
    let has = |name: &String| target.columns.iter().any(|column| column.name == *name);
    let declared = columns::of_relation(relation)?.into_iter().filter(|a| a.not_null);
    Ok(declared.map(|a| a.column.name).filter(|name| has(name) && !is_key(name)).collect())
}

/// Alters a table that coco made, so that it can be the table of a target. Empties the table if it
/// gets another key. The caller acts as the flow's owner.
pub fn fit_made_target(target: &mut Target, relation: pg_sys::Oid) -> Result<()> {
    let before = primary_key(relation)?;
    let mut not_null = declared_not_null(target, relation)?;
    not_null.retain(|name| before.iter().all(|k| k.column != *name));
    target_table::alter_to_fit(target, &not_null, relation)?;
    let is_key = |name: &String| target.key.iter().any(|k| k.name == *name);
    let has_key = before.len() == target.key.len() && before.iter().all(|k| is_key(&k.column));
    let has_nulls = target_table::has_nulls_of_key(target, &columns::of_relation(relation)?);
    if has_key && has_nulls && target_table::has_unique_index(relation, &target.key)? {
        return Ok(());
    }
    // Columns of the old key may be NULL from now on.
    let nullable = before
        .iter()
        .map(|k| &k.column)
        .filter(|name| !is_key(name) && target.columns.iter().any(|column| column.name == **name));
    let mut changes: Vec<String> =
        nullable.map(|name| format!("alter column {} drop not null", ident(name))).collect();
    // A key of which a column was dropped is gone.
    if let Some(old) = primary_key(relation)?.first() {
        changes.insert(0, format!("drop constraint {}", ident(&old.constraint)));
    }
    let loosened = target.key.iter().filter(|k| k.nullable.is_some());
    changes.extend(loosened.map(|k| format!("alter column {} drop not null", k.quoted())));
    changes.push(format!("add {}", target_table::key_constraint_sql(target)));
    let name = target.relation_name();
    spi::execute(&format!("truncate {name}"), &[])?;
    spi::execute(&format!("alter table {name} {}", changes.join(", ")), &[])?;
    Ok(())
}

/// A column of a primary key, or of a unique constraint that treats NULL as a value.
struct KeyColumn {
    constraint: String,
    column: String,
}

fn primary_key(relation: pg_sys::Oid) -> Result<Vec<KeyColumn>> {
    spi::select(
        "select k.conname::pg_catalog.text, a.attname::pg_catalog.text
           from pg_catalog.pg_constraint k
           join pg_catalog.pg_attribute a
             on a.attrelid operator(pg_catalog.=) k.conrelid
            and a.attnum operator(pg_catalog.=) any (k.conkey)
          where k.conrelid operator(pg_catalog.=) $1
            and (k.contype operator(pg_catalog.=) 'p'::pg_catalog.\"char\"
                 or k.contype operator(pg_catalog.=) 'u'::pg_catalog.\"char\"
                 and exists (select from pg_catalog.pg_index i
                              where i.indexrelid operator(pg_catalog.=) k.conindid
                                and i.indnullsnotdistinct)
                 and not exists (select from pg_catalog.pg_constraint p
                                  where p.conrelid operator(pg_catalog.=) k.conrelid
                                    and p.contype operator(pg_catalog.=) 'p'::pg_catalog.\"char\"))",
        &[arg(relation)],
        |r| Ok(KeyColumn { constraint: spi::required(r, 1)?, column: spi::required(r, 2)? }),
    )
}
