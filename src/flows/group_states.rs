//! Loads how coco keeps the groups of a flow by deltas, from the view of the query and the view of its
//! row part.

use std::rc::Rc;

use crate::catalog::group_tables;
use crate::catalog::internal_tables::{InternalTable, contributions_table};
use crate::catalog::model::{BoundView, Flow, GroupState, Source};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};
use crate::query::{group_parts, key_rows, used_columns, view_tree};

/// Sets how coco keeps the groups of a flow's source.
pub fn load_group_state(flow: &mut Flow) -> Result<()> {
    let name = flow.name.clone();
    let damaged = || {
        Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "the tables of groups of flow \"{name}\" are missing or do not match its query"
            ),
        )
        .hint("Set the query again with coco.set_query. coco then makes the tables again.")
    };
    let view = flow.targets.first().and_then(|target| target.query_view());
    let (Some(view), [source]) = (view, flow.sources.as_mut_slice()) else { return Ok(()) };
    let tree = view_tree::read_bound_query(view)?;
    // SAFETY: the tree was just read, and no other code refers to it.
    let parts = unsafe { group_parts::take_apart(tree, source.relation)? };
    let shape = parts.shape()?.shape;
    let (Some(rows), Some(groups_view)) = (rows_view(source)?, groups_view(source)?) else {
        return Err(damaged());
    };
    if !group_tables::has_tables(source, &source.key, &shape)? {
        return Err(damaged());
    }
    let attributes = columns::of_relation(source.relation)?;
    let all: Vec<Column> = attributes.into_iter().map(|a| a.column).collect();
    let shadows = [used_columns::shadow(source)?];
    let used =
        used_columns::analyze_view(&rows, &shadows)?.used.pop().flatten().unwrap_or_default();
    let key_places = parts.places_of_key(&shadows[0]).ok_or_else(damaged)?;
    let computed = match &source.key_expressions {
        Some(key) => columns::of_relation(key.bound.view)?,
        None => vec![],
    };
    let computed: Vec<Column> = computed.into_iter().map(|a| a.column).collect();
    let declared = |(n, k): (usize, &Column)| {
        let of = if source.is_expression(n) { &computed } else { &all };
        of.iter().find(|c| c.name == k.name).cloned()
    };
    source.groups = Some(Rc::new(GroupState {
        columns: group_tables::state_columns(&source.key, &shape)?,
        shape,
        rows,
        used: all.iter().filter(|c| used.contains(&c.name)).cloned().collect(),
        relation: source.relation_name.clone(),
        key: source.key.iter().enumerate().filter_map(declared).collect(),
        key_places,
        rows_with_key: key_rows::rows_relation(source).into_owned(),
        key_of_row: source.key_of("s"),
        contributions: contributions_table(source.id),
        groups: InternalTable::Groups.name(source.id),
        groups_view,
    }));
    Ok(())
}

/// A view that the catalog row of a source names.
const VIEW: &str = "
select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
  from coco_internal.source s
  join pg_catalog.pg_class c on c.oid = case when $2 then s.rows_view else s.groups_view end
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where s.id = $1";

fn rows_view(source: &Source) -> Result<Option<BoundView>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(VIEW, &[arg(source.id), arg(true)], |r| {
        Ok(BoundView {
            view: spi::required(r, 1)?,
            name: spi::required(r, 2)?,
            places: vec![source.id].into(),
        })
    })?;
    Ok(found.into_iter().next())
}

fn groups_view(source: &Source) -> Result<Option<String>> {
    let _as = RoleGuard::extension_owner()?;
    let found =
        spi::select(VIEW, &[arg(source.id), arg(false)], |r| spi::required::<String>(r, 2))?;
    Ok(found.into_iter().next())
}
