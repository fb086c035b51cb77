//! Declaring, altering and dropping flows. Every check of a declaration is here, before anything
//! runs. Callers: `sql_api`; `workers` for drops and missing triggers; `inspect` for warnings.

pub mod add_lookup;
pub mod add_source;
pub mod add_target;
pub mod allow;
pub mod alter_flow;
pub mod alter_settings;
pub mod alter_source;
pub mod alter_target;
pub mod check_query;
pub mod clear_memo;
pub mod compare;
pub mod condition_views;
pub mod create_flow;
pub mod create_search;
pub mod declaration;
pub mod derive_lookups;
pub mod derived_affects;
pub mod difference;
pub mod drop_lookup;
pub mod expect;
pub mod fill_order;
pub mod find_source;
pub mod flow_settings;
pub mod gapless;
pub mod keep_groups;
pub mod key_expressions;
pub mod key_ownership;
pub mod labelled_logic;
pub mod lineage_index;
pub mod live;
pub mod names;
pub mod rename_flow;
pub mod replace;
pub mod rows;
pub mod source_capture;
pub mod source_expressions;
pub mod source_key;
pub mod when_exists;

use pgrx::prelude::*;

use crate::capture::triggers;
use crate::catalog::{
    flow_rows, internal_tables, locks, made_targets, objects, restored, search_rows, version_rows,
};
use crate::declare::names::check_name;
use crate::memo::kept;
use crate::pg::acting_role::{RoleGuard, SavedGucs};
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};

/// Creates an empty flow. Returns `false`, and changes nothing, if a flow has this name already.
pub fn insert_flow(name: &str, owner: pg_sys::Oid, settings: &SavedGucs) -> Result<bool> {
    check_name("flow", name)?;
    restored::prepare()?;
    let _as = RoleGuard::extension_owner()?;
    let made = spi::returning(
        "insert into coco_internal.flow (flow, owner, search_path, settings) values ($1, $2, $3, $4)
         on conflict do nothing returning id",
        &[arg(name), arg(owner), arg(settings.search_path()), arg(settings.to_json())],
        |r| spi::required::<i32>(r, 1),
    )?;
    let Some(id) = made.first() else { return Ok(false) };
    rows::delete_all(name, *id)?;
    kept::drop_expired(None)?;
    restored::begin_with(*id)?;
    Ok(true)
}

/// Drops a flow with its versions, even an incomplete one: whatever still exists is dropped. Always
/// drops the tables that coco created for a version. The results of its memoized functions may be
/// [kept] for a while. For `announce`, see
/// [`locks::lock_flow_ending_transaction`].
pub fn drop_flow(name: &str, keep_targets: bool, announce: fn()) -> Result<()> {
    let mut id = flow_rows::identify_flow(name)?.id;
    let (owner, _now) = loop {
        // Cancels a worker's transaction for the flow before any row of the catalog is locked.
        locks::lock_flow_ending_transaction(id, announce)?;
        // The flow may have changed while this session waited for the lock: another session may
        // have dropped it and declared it again.
        let now = PinnedSnapshot::take();
        let found = flow_rows::identify_flow(name)?;
        if found.id == id {
            break (found.owner, now);
        }
        id = found.id;
    };
    for version in version_rows::versions_of(id)? {
        drop_flow(&version.name, keep_targets, announce)?;
    }
    // Nobody declared the tables of a version, so nobody keeps them.
    let keep_targets = keep_targets && version_rows::as_version(id)?.is_none();
    let acting = RoleGuard::extension_owner()?;
    let names = |query: &str| spi::select(query, &[arg(name)], |r| spi::required::<String>(r, 1));
    let views = internal_tables::views(name)?;
    let mut tracking = names(
        "select c.oid::regclass::text from coco_internal.source s join pg_class c on c.oid = s.tracking
          where s.flow = $1",
    )?;
    let keeping = spi::select(
        "select s.id from coco_internal.source s where s.flow = $1 and s.row_key is not null",
        &[arg(name)],
        |r| spi::required::<i32>(r, 1),
    )?;
    tracking.extend(keeping.into_iter().flat_map(internal_tables::group_tables));
    let made = names(
        "select c.oid::regclass::text from coco_internal.target t join pg_class c on c.oid = t.relation
          where t.flow = $1 and t.managed and t.server is null",
    )?;
    let kept_of_others = names(
        "select c.oid::regclass::text from coco_internal.target t
           join pg_class c on c.oid in (t.relation, t.outbox)
          where t.flow = $1 and t.server is not null",
    )?;
    let search = search_rows::function_of(id)?;
    let memo = kept::keep_results(name)?;
    if keep_targets {
        made_targets::record_made_targets(name, owner)?;
    }
    rows::delete_all(name, id)?;
    spi::execute("delete from coco_internal.flow where flow = $1", &[arg(name)])?;
    invalidation::note_change()?;
    drop(acting);
    objects::drop_all(&views, &[tracking, kept_of_others].concat())?;
    kept::drop_expired(memo)?;
    triggers::end_unneeded(owner)?;
    if let Some(function) = search {
        let _as = RoleGuard::flow_owner(owner, &SavedGucs::qualifying())?;
        search_rows::drop_function(function)?;
    }
    if !keep_targets {
        let _as = RoleGuard::flow_owner(owner, &SavedGucs::qualifying())?;
        for table in made {
            spi::execute(&format!("drop table {table}"), &[])?;
        }
    }
    restored::end_with_last()
}
