//! The objects that coco creates for a flow in addition to its targets: tracking tables, and the
//! views of its queries. The tables are [internal](internal_tables). The views are in schema
//! `coco`, belong to the extension's owner, and contain the flow's name.
//!
//! Callers: `declare`, `update`.

use pgrx::{PgList, pg_sys};
use std::ffi::CString;

use crate::catalog::internal_tables::{self, InternalTable};
use crate::catalog::model::{Flow, Source, Target};
use crate::catalog::object_comments;
use crate::catalog::object_names::{object_name, owner_name};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg, ident, literal};

unsafe extern "C-unwind" {
    // Declared in commands/view.h, the same from 15 to 18, and missing from pgrx's bindings.
    fn StoreViewQuery(view: pg_sys::Oid, query: *mut pg_sys::Query, replace: bool);
}

/// The tracking table of a source, and the view of the table.
pub struct Tracking {
    pub table: String,
    pub view: String,
}

/// Creates the tracking table of a source: one row per item, with key columns of the types that
/// coco stores the source key as.
pub fn create_tracking(
    flow: &str,
    owner: pg_sys::Oid,
    id: i32,
    source: &str,
    key: &[Column],
) -> Result<Tracking> {
    let _as = RoleGuard::extension_owner()?;
    let table = InternalTable::Tracking.name(id);
    let mut columns = String::new();
    for (n, k) in key.iter().map(Column::stored).enumerate() {
        let collation = columns::collate(k.collation)?;
        // Without type modifiers: the column may be made wider.
        let type_name = spi::type_name(k.type_oid, -1)?;
        let not_null = if k.nullable.is_some() { "" } else { " not null" };
        columns.push_str(&format!("k{} {type_name}{collation}{not_null}, ", n + 1));
    }
    let unique = match key.iter().any(|k| k.nullable.is_some()) {
        true => "unique nulls not distinct",
        false => "primary key",
    };
    let keys = crate::pg::columns::numbered("k", key.len()).join(", ");
    // Free space on each page allows an item's next row version to stay on the page, without an
    // index update.
    spi::execute(
        &format!(
            "create table {table} ({columns}
               source_ordinal bigint, process_ordinal bigint,
               content_fingerprint uuid, logic_id int,
               target_keys jsonb, memo_refs bigint[], failure jsonb, parked jsonb,
               {unique} ({keys})) with (fillfactor = 90)"
        ),
        &[],
    )?;
    spi::execute(
        &format!(
            "create index failing_{id} on {table} ({keys})
              where failure is not null or parked is not null"
        ),
        &[],
    )?;
    let names: Vec<String> = key.iter().map(|k| k.name.clone()).collect();
    let comment = object_comments::tracking_comment(flow, source, &names);
    spi::execute(&format!("comment on table {table} is {}", literal(&comment)), &[])?;
    let view = internal_tables::make_view(InternalTable::Tracking, id, flow, owner, &comment)?;
    Ok(Tracking { table, view })
}

/// Creates the view that keeps a bound query. PostgreSQL records the flow's dependencies on the
/// view.
///
/// The view belongs to the extension's owner, so that nobody else can change it. A reader needs
/// privileges on the relations in the query, and only the flow's owner may read the view.
pub fn create_bound_view(
    name: &str,
    owner: pg_sys::Oid,
    columns: &[Column],
    tree: *mut pg_sys::Query,
    comment: &str,
) -> Result<pg_sys::Oid> {
    let _as = RoleGuard::extension_owner()?;
    let view = format!("coco.{}", ident(name));
    let named = columns;
    let columns: Vec<String> = columns
        .iter()
        .map(|c| {
            let collate = columns::collate(c.collation)?;
            Ok(format!("null::{}{collate} as {}", c.type_name, c.quoted()))
        })
        .collect::<Result<_>>()?;
    spi::execute(
        &format!(
            "create view {view} with (security_invoker = true) as select {}",
            columns.join(", ")
        ),
        &[],
    )?;
    let made = crate::pg::relations::find_relation("coco", name)?
        .ok_or_else(|| Error::internal("view of a flow's query was not created"))?;
    let names = named
        .iter()
        .map(|c| {
            CString::new(c.name.as_str()).map_err(|_| Error::internal("name contains a NUL byte"))
        })
        .collect::<Result<Vec<CString>>>()?;
    // SAFETY: the view was just created with the tree's columns. The view stores a copy of the
    // tree, in which the columns have the view's names.
    unsafe {
        let entries = PgList::<pg_sys::TargetEntry>::from_pg((*tree).targetList);
        for (entry, name) in entries.iter_ptr().filter(|e| !(**e).resjunk).zip(&names) {
            (*entry).resname = pg_sys::pstrdup(name.as_ptr());
        }
        pg_sys::CommandCounterIncrement();
        pg_sys::ffi::pg_guard_ffi_boundary(|| StoreViewQuery(made, tree, true));
        pg_sys::CommandCounterIncrement();
    }
    spi::execute(&format!("comment on view {view} is {}", literal(comment)), &[])?;
    spi::execute(&format!("revoke all on {view} from public"), &[])?;
    spi::execute(&format!("grant select on {view} to {}", owner_name(owner)?), &[])?;
    Ok(made)
}

/// Creates the view that keeps a target's query, after dropping an existing one.
pub fn create_query_view(
    flow: &Flow,
    target: &Target,
    tree: *mut pg_sys::Query,
) -> Result<pg_sys::Oid> {
    let name = object_name("query", target.id, &flow.name);
    if crate::pg::relations::find_relation("coco", &name)?.is_some() {
        let _as = RoleGuard::extension_owner()?;
        spi::execute(&format!("drop view coco.{}", ident(&name)), &[])?;
    }
    let comment = object_comments::query_comment(&flow.name, &target.shown());
    let view = create_bound_view(&name, flow.owner, &target.columns, tree, &comment)?;
    if let Some(external) = &target.external {
        let _as = RoleGuard::extension_owner()?;
        depend_on_server(view, &external.server)?;
    }
    Ok(view)
}

/// Records a dependency of a view on the server of its target, so that PostgreSQL drops neither
/// without notice.
fn depend_on_server(view: pg_sys::Oid, server: &str) -> Result<()> {
    let found = spi::scalar::<pg_sys::Oid>(
        "select oid from pg_catalog.pg_foreign_server where srvname = $1::text",
        &[arg(server)],
    )?;
    let Some(server) = found else { return Ok(()) };
    let address =
        |class, object| pg_sys::ObjectAddress { classId: class, objectId: object, objectSubId: 0 };
    let (view, server) = (
        address(pg_sys::RelationRelationId, view),
        address(pg_sys::ForeignServerRelationId, server),
    );
    // SAFETY: both objects exist, and the recorded addresses are plain values.
    unsafe {
        pg_sys::recordDependencyOn(&view, &server, pg_sys::DependencyType::DEPENDENCY_NORMAL)
    };
    Ok(())
}

/// Drops a flow's tracking tables and views.
pub fn drop_all(views: &[String], tracking: &[String]) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    if !views.is_empty() {
        // In one statement, because a view of an expectation reads the view of a query.
        spi::execute(&format!("drop view if exists {}", views.join(", ")), &[])?;
    }
    for table in tracking {
        spi::execute(&format!("drop table if exists {table}"), &[])?;
    }
    Ok(())
}

/// Deletes the list of the target keys of all items of a source at a target.
pub fn forget_target_keys(source: &Source, target: i32) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        &format!(
            "update {} set target_keys = target_keys operator(pg_catalog.-) $1::text
              where target_keys is not null",
            source.tracking
        ),
        &[arg(target.to_string())],
    )?;
    Ok(())
}

/// Deletes the stored ordinals of all items of a source. The next update compares their content.
pub fn forget_ordinals(source: &Source) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        &format!(
            "update {} set source_ordinal = null where source_ordinal is not null",
            source.tracking
        ),
        &[],
    )?;
    Ok(())
}
