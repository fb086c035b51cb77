//! `coco.rename_flow`: gives a flow another name. Everything that coco keeps under the flow's name
//! follows: catalog rows, and the names and comments of the objects that coco has created.

use pgrx::prelude::*;

use crate::catalog::internal_tables::{self, InternalTable};
use crate::catalog::object_comments::{
    affects_comment, condition_comment, contributions_comment, expressions_comment, groups_comment,
    key_comment, ledger_comment, memo_comment, outbox_comment, query_comment, rows_comment,
    tracking_comment,
};
use crate::catalog::object_names::object_name;
use crate::catalog::{flow_rows, locks, version_rows};
use crate::declare::names::{check_name, version_name};
use crate::declare::rows;
use crate::flows::load;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg, ident, literal};
use crate::pg::subtransaction::subtransaction;

/// Renames a flow of the caller's, and its versions. The flow may be incomplete or broken.
pub fn rename_flow(name: &str, new_name: &str) -> Result<()> {
    check_name("new_name", new_name)?;
    let id = load::lock_identified(name)?.id;
    let _now = PinnedSnapshot::take();
    locks::block_update_requests(id, name)?;
    if let Some(version) = version_rows::as_version(id)? {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{name}\" is itself a version of flow \"{}\"", version.of_name),
        )
        .hint("Rename that flow: its versions follow."));
    }
    let mut names = vec![(name.to_owned(), new_name.to_owned())];
    for version in version_rows::versions_of(id)? {
        locks::lock_flow(version.id)?;
        locks::block_update_requests(version.id, &version.name)?;
        names.push((version.name, version_name(new_name, version.role)?));
    }
    let taken = || {
        Error::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("flow \"{new_name}\" already exists"),
        )
        .hint("Choose another name.")
    };
    let _as = RoleGuard::extension_owner()?;
    let exists = spi::scalar::<bool>(
        "select true from coco_internal.flow where flow = $1",
        &[arg(new_name)],
    )?;
    if exists == Some(true) {
        return Err(taken());
    }
    // Another session may be declaring a flow of this name. The statement then waits for that
    // session, and fails if it commits.
    let renamed = subtransaction(
        || names.iter().try_for_each(|(old, new)| rename_rows(old, new)).map_err(Some),
        |raised| match raised.is_conflict() {
            true => None,
            false => {
                let mut error = Error::new(raised.code, raised.message);
                (error.detail, error.hint) = (raised.detail, raised.hint);
                Some(error)
            }
        },
    );
    renamed.map_err(|error| error.unwrap_or_else(taken))
}

/// A view that contains the flow's name in its own name.
struct NamedView {
    /// The beginning of the view's name.
    kind: String,
    /// The id of the target, source, expectation or flow that the view belongs to.
    id: i32,
    /// The view's name, quoted and schema-qualified.
    view: String,
    /// The target, source, lookup or expectation as the comment calls it.
    subject: String,
    /// The columns of the source key.
    key: Vec<String>,
}

/// Selects the views of flow `$1` that exist.
const NAMED_VIEWS: &str = "
select v.kind, v.id, pg_catalog.format('%I.%I', n.nspname, c.relname), v.subject, v.key
  from (select w.kind, t.id, w.view,
               case when t.server is null then pg_catalog.format('%I.%I', t.schema, t.name)
                    else pg_catalog.format('\"%s\" on server %s', t.external, t.server) end as subject,
               '{}'::text[] as key
          from coco_internal.target t
         cross join lateral (values ('query', t.query_view), ('ledger', t.ledger_view),
                                    ('outbox', t.outbox_view)) as w (kind, view)
         where t.flow = $1
         union all
        select w.kind, s.id, w.view, s.name, s.key
          from coco_internal.source s
         cross join lateral (values ('tracking', s.tracking_view), ('source', s.expressions), ('key', s.key_view),
                                    ('affects', s.affects_view), ('rows', s.rows_view),
                                    ('groups', s.groups_view)) as w (kind, view)
         where s.flow = $1
         union all
        select 'expect', x.id, x.condition_view, x.name, '{}'
          from coco_internal.expectation x join coco_internal.target t on t.id = x.target where t.flow = $1
         union all
        select 'memo', f.id, f.memo_view, '', '{}' from coco_internal.flow f where f.flow = $1) as v
  join pg_catalog.pg_class c on c.oid = v.view
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace";

/// Renames the catalog rows and the created objects of a flow, and nothing else. The caller acts as
/// the extension's owner, holds the flow's lock, and has checked the new name. No flow has the new
/// name; the rows that an incomplete restore has left under it are deleted.
pub fn rename_rows(old: &str, new: &str) -> Result<()> {
    const ROWS: [&str; 4] = [
        "update coco_internal.source set flow = $2 where flow = $1",
        "update coco_internal.target set flow = $2 where flow = $1",
        "update coco_internal.memo_stats set flow = $2 where flow = $1",
        "update coco_internal.logic set flow = $2 where flow = $1",
    ];
    // First, because this fails if the name is taken.
    let renamed = spi::execute(
        "update coco_internal.flow set flow = $2 where flow = $1",
        &[arg(old), arg(new)],
    )?;
    if renamed == 0 {
        return Err(flow_rows::missing(old));
    }
    rows::delete_named(new)?;
    for statement in ROWS {
        spi::execute(statement, &[arg(old), arg(new)])?;
    }
    rename_views(new)?;
    invalidation::note_change()
}

/// Gives the views of a flow the names and comments that belong to the flow's current name.
fn rename_views(flow: &str) -> Result<()> {
    let views = spi::select(NAMED_VIEWS, &[arg(flow)], |r| {
        Ok(NamedView {
            kind: spi::required(r, 1)?,
            id: spi::required(r, 2)?,
            view: spi::required(r, 3)?,
            subject: spi::required(r, 4)?,
            key: spi::required(r, 5)?,
        })
    })?;
    for NamedView { kind, id, view, subject, key } in views {
        let name = object_name(&kind, id, flow);
        let new_view = format!("coco.{}", ident(&name));
        if new_view != view {
            spi::execute(&format!("alter view {view} rename to {}", ident(&name)), &[])?;
        }
        let (comment, table) = match kind.as_str() {
            "query" => (query_comment(flow, &subject), None),
            "affects" => (affects_comment(flow, &subject), None),
            "source" => (expressions_comment(flow, &subject), None),
            "key" => (key_comment(flow, &subject), None),
            "expect" => (condition_comment(flow, &subject), None),
            "tracking" => {
                (tracking_comment(flow, &subject, &key), Some(InternalTable::Tracking.name(id)))
            }
            "rows" => (rows_comment(flow, &subject), None),
            "groups" => (groups_comment(flow, &subject), Some(InternalTable::Groups.name(id))),
            "ledger" => (ledger_comment(flow, &subject), Some(InternalTable::Ledger.name(id))),
            "outbox" => (outbox_comment(flow, &subject), Some(InternalTable::Outbox.name(id))),
            _ => (memo_comment(flow), Some(format!("{}.memo_{id}", internal_tables::SCHEMA))),
        };
        let comment = literal(&comment);
        spi::execute(&format!("comment on view {new_view} is {comment}"), &[])?;
        if kind == "groups" {
            let comment = literal(&contributions_comment(flow, &subject));
            let table = internal_tables::contributions_table(id);
            spi::execute(&format!("comment on table {table} is {comment}"), &[])?;
        }
        if let Some(table) = table
            && internal_tables::find(&table)?.is_some()
        {
            spi::execute(&format!("comment on table {table} is {comment}"), &[])?;
        }
    }
    // The catalog keeps the name of the ledger's view as the name of an external target.
    let external = spi::select(
        "select id from coco_internal.target where flow = $1 and server is not null",
        &[arg(flow)],
        |r| spi::required::<i32>(r, 1),
    )?;
    for id in external {
        spi::execute(
            "update coco_internal.target set name = $2 where id = $1",
            &[arg(id), arg(InternalTable::Ledger.view(id, flow))],
        )?;
    }
    Ok(())
}
