//! coco's own tables of a flow: their schema, the types of their columns, and the views through
//! which owners of flows read them.
//!
//! The tables (tracking tables, change logs, ledgers, outboxes, results of memoized functions) are
//! in schema `coco_internal`. They belong to the extension's owner, and only that role may use the
//! schema. This module separates two kinds of statements:
//!
//! - Code that a user wrote (a query, an expression, a cast, a domain's check, a type's output
//!   function) runs as the flow's owner. It reads the tables through views in schema `coco`, and
//!   passes its results on as [`TupleStore`]s.
//! - Statements that write the tables run as the extension's owner. They read only the tables
//!   themselves and such [`TupleStore`]s, and only columns whose type [`Column::stored`] has chosen.
//!   Comparing, copying or altering these columns runs no user's code.
//!
//! [`TupleStore`]: crate::pg::tuplestore::rows::TupleStore

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::catalog::object_names::{object_name, owner_name};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{Column, StoredType};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg, ident, literal};

/// The schema of the tables.
pub const SCHEMA: &str = "coco_internal";

/// A SELECT of the OIDs and names of the views of a flow, `$1`, that its owner may read. The views
/// belong to the extension's owner. They are the views of coco's own tables, and the views that
/// keep bound queries.
pub const VIEWS: &str = "
select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
  from (select pg_catalog.unnest(array[query_view, ledger_view, outbox_view]) as view
          from coco_internal.target where flow operator(pg_catalog.=) $1
         union all
        select pg_catalog.unnest(array[key_view, expressions, affects_view, tracking_view, rows_view, groups_view])
          from coco_internal.source where flow operator(pg_catalog.=) $1
         union all
        select x.condition_view
          from coco_internal.expectation as x join coco_internal.target as t on t.id operator(pg_catalog.=) x.target
         where t.flow operator(pg_catalog.=) $1
         union all
        select memo_view from coco_internal.flow where flow operator(pg_catalog.=) $1) as v
  join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) v.view
  join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace";

/// A table of a flow that its owner reads through a view.
#[derive(Clone, Copy)]
pub enum InternalTable {
    Tracking,
    Ledger,
    Outbox,
    /// The states of groups that coco keeps by deltas.
    Groups,
}

impl InternalTable {
    /// Returns the table's name, quoted and schema-qualified. `id` is the id of the source or
    /// target.
    pub fn name(self, id: i32) -> String {
        let kind = match self {
            InternalTable::Tracking => "tracking",
            InternalTable::Ledger => "ledger",
            InternalTable::Outbox => "outbox",
            InternalTable::Groups => "groups",
        };
        format!("{SCHEMA}.{kind}_{id}")
    }

    /// Returns the name of the view in schema `coco`, unquoted.
    pub fn view(self, id: i32, flow: &str) -> String {
        let kind = match self {
            InternalTable::Tracking => "tracking",
            InternalTable::Ledger => "ledger",
            InternalTable::Outbox => "outbox",
            InternalTable::Groups => "groups",
        };
        object_name(kind, id, flow)
    }

    /// Returns the same name, quoted and schema-qualified.
    pub fn view_name(self, id: i32, flow: &str) -> String {
        format!("coco.{}", ident(&self.view(id, flow)))
    }
}

/// Returns the name of the table of what the rows of a source contribute to their groups, quoted and
/// schema-qualified. Only the extension's owner reads it.
pub fn contributions_table(source: i32) -> String {
    format!("{SCHEMA}.contributions_{source}")
}

/// Returns the names of both tables in which coco keeps the groups of a source by deltas.
pub fn group_tables(source: i32) -> [String; 2] {
    [contributions_table(source), InternalTable::Groups.name(source)]
}

/// Returns an expression that converts a table's column for use in JSON without running a user's
/// cast. The owner of an enum type may have created a cast to json, which a JSON function would
/// call.
pub fn for_json(column: &Column, value: &str) -> String {
    let column = column.stored();
    // SAFETY: lookups in the system catalogs, within a transaction.
    let (is_enum, of_enums) = unsafe {
        (pg_sys::type_is_enum(column.type_oid), pg_sys::get_element_type(column.type_oid))
    };
    if is_enum {
        return format!("pg_catalog.textin(pg_catalog.enum_out({value}))");
    }
    // SAFETY: as above; the OID of a type is never 0.
    if of_enums != pg_sys::InvalidOid && unsafe { pg_sys::type_is_enum(of_enums) } {
        return format!("pg_catalog.textin(pg_catalog.array_out({value}))::pg_catalog.text[]");
    }
    value.to_owned()
}

/// Rejects a source key with a column whose type coco would have to store in another form than its
/// values.
pub fn check_source_key(shown: &str, key: &[Column]) -> Result<()> {
    match key.iter().find(|k| k.kept == StoredType::Json) {
        None => Ok(()),
        Some(k) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("key column \"{}\" of source {shown} has unsupported type {}", k.name, k.type_name),
        )
        .detail("coco stores keys in its own tables. Comparing values of a composite type, of a user-defined range type, or of an array of these can run code of the type's owner.")
        .hint("Use key columns of other types: a view or a generated column can contain the fields of the value.")),
    }
}

/// Creates the view through which a flow's owner reads a table, and returns its name. The caller
/// acts as the extension's owner.
pub fn make_view(
    table: InternalTable,
    id: i32,
    flow: &str,
    owner: pg_sys::Oid,
    what: &str,
) -> Result<String> {
    let view = table.view_name(id, flow);
    spi::execute(&format!("create view {view} as select * from {}", table.name(id)), &[])?;
    spi::execute(&format!("comment on view {view} is {}", literal(what)), &[])?;
    grant(&view, owner)?;
    Ok(view)
}

/// Grants a flow's owner SELECT on a view. The caller acts as the extension's owner.
pub fn grant(view: &str, owner: pg_sys::Oid) -> Result<()> {
    spi::execute(&format!("grant select on {view} to {}", owner_name(owner)?), &[])?;
    Ok(())
}

/// Returns the names of the views that the owner of a flow may read. The caller acts as the
/// extension's owner.
pub fn views(flow: &str) -> Result<Vec<String>> {
    spi::select(VIEWS, &[arg(flow)], |r| spi::required::<String>(r, 2))
}

/// Grants the owner of a flow SELECT on its views again, if a restore or a REVOKE has removed the
/// privilege.
pub fn grant_again(flow: &str, owner: pg_sys::Oid) -> Result<()> {
    if spi::is_read_only() {
        return Ok(());
    }
    let _as = RoleGuard::extension_owner()?;
    let lacking = spi::select(
        &format!(
            "select v.name from ({VIEWS}) as v (oid, name)
              where not pg_catalog.has_table_privilege($2, v.oid, 'select')"
        ),
        &[arg(flow), arg(owner)],
        |r| spi::required::<String>(r, 1),
    )?;
    for view in lacking {
        grant(&view, owner)?;
    }
    Ok(())
}

/// Finds one of coco's own tables by name. The caller acts as the extension's owner.
pub fn find(table: &str) -> Result<Option<pg_sys::Oid>> {
    spi::scalar("select pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid", &[arg(table)])
}

/// Locks a table for DROP TABLE, and does not wait: `false` if another transaction uses it.
pub fn lock_to_drop(table: pg_sys::Oid) -> bool {
    // SAFETY: takes a heavyweight lock, which the transaction's end releases.
    unsafe { pg_sys::ConditionalLockRelationOid(table, pg_sys::AccessExclusiveLock as i32) }
}

/// Reports whether a table can be read now: it exists, and no other transaction has locked it or
/// one of its indexes. If so, the table stays readable until the transaction ends. The views over
/// all flows therefore never wait for a table.
pub fn lock_to_read(table: pg_sys::Oid) -> bool {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: takes heavyweight locks, which the transaction's end releases; the table is only
    // opened while it is locked.
    unsafe {
        if !pg_sys::ConditionalLockRelationOid(table, lock) {
            return false;
        }
        let relation = pg_sys::try_table_open(table, pg_sys::NoLock as i32);
        if relation.is_null() {
            return false;
        }
        let indexes = pgrx::PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(relation));
        let free = indexes.iter_oid().all(|index| pg_sys::ConditionalLockRelationOid(index, lock));
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        free
    }
}
