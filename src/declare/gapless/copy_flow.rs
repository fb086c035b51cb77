//! Declares a new version of a flow: another flow with copies of its sources and lookups, the new
//! query, and tables of its own.

use pgrx::prelude::*;
use std::collections::BTreeMap;

use crate::catalog::model::{BoundView, Flow, Source, Target};
use crate::catalog::version_rows::{self, NewVersion, VersionRole};
use crate::catalog::{object_comments, object_names, objects};
use crate::declare::add_lookup;
use crate::declare::add_target::{find_target, store_target};
use crate::declare::check_query::analyze_into;
use crate::declare::condition_views;
use crate::declare::gapless::partitions::{self, PartitionCopy};
use crate::declare::gapless::{dependents, version_table};
use crate::declare::labelled_logic::record_labelled_logic;
use crate::declare::{keep_groups, lineage_index, names, rows};
use crate::flows::load;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::{columns, invalidation};
use crate::query::bound_query::Bound;
use crate::query::{used_columns, view_tree};

/// The arguments of `coco.set_query` that concern the new version only.
pub struct VersionOptions {
    /// The target key; `None` keeps the present one.
    pub key: Option<Vec<String>>,
    /// `auto` or `manual`.
    pub swap: String,
    pub keep_old: Interval,
}

impl VersionOptions {
    fn swaps_by_itself(&self) -> Result<bool> {
        match self.swap.as_str() {
            "auto" => Ok(true),
            "manual" => Ok(false),
            other => Err(Error::invalid(format!(
                "unrecognized value for argument \"swap\": \"{other}\""
            ))
            .hint("Valid values are auto and manual.")),
        }
    }

    /// Fails if an argument was given that has no effect without `gapless`.
    pub fn check_unused(&self) -> Result<()> {
        let given = match (self.key.is_some(), self.swaps_by_itself()?) {
            (true, _) => Some("key"),
            (_, false) => Some("swap"),
            _ => (self.keep_old.as_micros() != 0).then_some("keep_old"),
        };
        match given {
            None => Ok(()),
            Some(argument) => Err(Error::invalid(format!(
                "argument \"{argument}\" requires argument \"gapless\""
            ))
            .hint("Call coco.set_query with gapless => true.")),
        }
    }
}

/// Declares a new version of a flow, in which a target has another query.
pub fn declare_version(
    name: &str,
    target: Option<&str>,
    query: &str,
    item: Option<&str>,
    options: &VersionOptions,
) -> Result<()> {
    let swaps_by_itself = options.swaps_by_itself()?;
    if options.keep_old.as_micros() < 0 {
        return Err(Error::invalid("argument \"keep_old\" is negative"));
    }
    let main = load::lock_and_load(name)?;
    let _now = PinnedSnapshot::take();
    check_may_have_version(&main)?;
    let changed = find_target(&main, target)?;
    let version = names::version_name(name, VersionRole::New)?;
    let id = insert_flow(&main, &version)?;
    let sources = copy_sources(&main, &version)?;
    let mut flow = load::load_for_update(&version)?;
    for (n, target) in main.targets.iter().enumerate() {
        let mut new = Target {
            id: 0,
            name: names::version_table_name(&target.name, VersionRole::New),
            relation: None,
            made: true,
            epoch: 1,
            nullable_again: vec![],
            bound: None,
            expectations: vec![],
            ..target.clone()
        };
        let bound = if n == changed {
            new.key_names = options.key.clone().unwrap_or_else(|| target.key_names.clone());
            let key = new.key_names.clone();
            let bound = analyze_into(&mut flow, &mut new, query, &key, item)?;
            if !target.made {
                // An adopted table keeps the constraints that its owner declared.
                new.not_null = vec![];
            }
            bound
        } else {
            copied_query(target, &sources)?
        };
        dependents::check_replaceable(&main, target, &new.columns)?;
        let table = version_table::create(&main, target, &new)?;
        if let Some(main_table) = target.relation {
            partitions::copy_missing(&PartitionCopy {
                owner: main.owner,
                main: target,
                version: &new,
                main_table,
                version_table: table,
                role: VersionRole::New,
            })?;
        }
        new.relation = Some(table);
        store_target(&mut flow, new, bound)?;
        if let Some(copy) = flow.targets.last() {
            condition_views::copy_expectations(target, &flow, copy)?;
        }
    }
    store_used(&mut flow)?;
    let stored = NewVersion { id, of: main.id, swaps_by_itself, keep_old: options.keep_old };
    version_rows::insert_new(&stored)?;
    let acting = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.flow as f set live = m.live, paused = m.paused
           from coco_internal.flow as m where f.id = $1 and m.id = $2",
        &[arg(id), arg(main.id)],
    )?;
    drop(acting);
    invalidation::note_change()?;
    record_labelled_logic(&version)
}

/// Fails if a flow cannot get a new version.
fn check_may_have_version(main: &Flow) -> Result<()> {
    if let Some(version) = version_rows::as_version(main.id)? {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" is itself a version of flow \"{}\"", main.name, version.of_name),
        )
        .hint("Change the version without gapless, or discard it with coco.discard."));
    }
    version_rows::check_no_new_version(main.id, &main.name)?;
    keep_groups::check_may_have(main, "a second version")?;
    if main.targets.is_empty() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" has no target yet", main.name),
        )
        .hint("Call coco.add_target first."));
    }
    if let Some(target) = main.targets.iter().find(|t| t.external.is_some()) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("target {} cannot be changed without a gap", target.shown()),
        )
        .detail("coco can exchange tables of this database only.")
        .hint(
            "Call coco.set_query without gapless, or declare another flow with another target.",
        ));
    }
    Ok(())
}

/// Inserts the row of the version, with the properties of the main flow.
fn insert_flow(main: &Flow, version: &str) -> Result<i32> {
    let _as = RoleGuard::extension_owner()?;
    let made = spi::returning(
        // The version gets no max_rows: its first update must write every row, which nobody reads yet. It
        // gets no schedule either, and follows each commit until it replaces the flow.
        "insert into coco_internal.flow (flow, owner, search_path, settings, label, batch_size, lineage_index,
                                max_cost, lookups, fill_order)
         select $2, owner, search_path, settings, label, batch_size, lineage_index, max_cost, lookups,
                fill_order
           from coco_internal.flow where id = $1
         on conflict do nothing returning id",
        &[arg(main.id), arg(version)],
        |r| spi::required::<i32>(r, 1),
    )?;
    let Some(id) = made.first() else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("flow \"{version}\" already exists"),
        )
        .hint("Drop it with coco.drop_flow."));
    };
    rows::delete_all(version, *id)?;
    Ok(*id)
}

/// Copies the sources and lookups of a flow. Returns the ids of the copies by the ids of the
/// sources.
fn copy_sources(main: &Flow, version: &str) -> Result<BTreeMap<i32, i32>> {
    let mut ids = BTreeMap::new();
    for source in &main.sources {
        let id = copy_source(main, source, None, version)?;
        if let Some(key) = &source.key_expressions {
            let comment = object_comments::key_comment(version, &source.name);
            let view = copy_view(main, &key.bound, "key", id, version, &comment)?;
            let _as = RoleGuard::extension_owner()?;
            spi::execute(
                "update coco_internal.source set key_view = $2::oid::regclass where id = $1",
                &[arg(id), arg(view)],
            )?;
        }
        if let Some(expressions) = &source.expressions {
            let comment = object_comments::expressions_comment(version, &source.name);
            let view = copy_view(main, &expressions.bound, "source", id, version, &comment)?;
            let _as = RoleGuard::extension_owner()?;
            spi::execute(
                "update coco_internal.source set expressions = $2::oid::regclass where id = $1",
                &[arg(id), arg(view)],
            )?;
        }
        ids.insert(source.id, id);
    }
    // Derived lookups are derived from the queries of the version.
    for lookup in main.lookups.iter().filter(|lookup| !lookup.is_derived) {
        let of = ids.get(&lookup.of).copied();
        let id = copy_source(main, &lookup.relation, of, version)?;
        if let Some(affects) = &lookup.affects {
            let comment = object_comments::affects_comment(version, &lookup.relation.name);
            let view = copy_view(main, affects, "affects", id, version, &comment)?;
            let _as = RoleGuard::extension_owner()?;
            spi::execute(
                "update coco_internal.source set affects_view = $2::oid::regclass where id = $1",
                &[arg(id), arg(view)],
            )?;
        }
        ids.insert(lookup.relation.id, id);
    }
    lineage_index::index_as_declared(version)?;
    Ok(ids)
}

fn copy_source(main: &Flow, source: &Source, of: Option<i32>, version: &str) -> Result<i32> {
    let _as = RoleGuard::extension_owner()?;
    let id = spi::returning(
        "insert into coco_internal.source (flow, name, relation, key, key_expressions, grouped, ordinal, fingerprint, used, capture,
                                  refresh_interval, lookup_of, affects, tracking, tracking_view)
         select $2, name, relation, key, key_expressions, grouped, ordinal, fingerprint, used, capture,
                refresh_interval, $3, affects, 0::oid::regclass, 0::oid::regclass
           from coco_internal.source where id = $1 returning id",
        &[arg(source.id), arg(version), arg(of)],
        |r| spi::required::<i32>(r, 1),
    )?
    .pop()
    .ok_or_else(|| Error::internal("INSERT returned no id for a copied source"))?;
    let tracking = objects::create_tracking(version, main.owner, id, &source.name, &source.key)?;
    spi::execute(
        "update coco_internal.source
            set tracking = $2::text::regclass, tracking_view = $3::text::regclass where id = $1",
        &[arg(id), arg(tracking.table), arg(tracking.view)],
    )?;
    Ok(id)
}

/// Creates a view that keeps the same bound query as another view.
fn copy_view(
    main: &Flow,
    bound: &BoundView,
    prefix: &str,
    id: i32,
    version: &str,
    comment: &str,
) -> Result<pg_sys::Oid> {
    let named: Vec<_> =
        columns::of_relation(bound.view)?.into_iter().map(|attribute| attribute.column).collect();
    let tree = view_tree::copy_for_view(bound.view)?;
    let name = object_names::object_name(prefix, id, version);
    objects::create_bound_view(&name, main.owner, &named, tree, comment)
}

/// Returns the bound query of a target, over the copied sources.
fn copied_query(target: &Target, sources: &BTreeMap<i32, i32>) -> Result<Bound> {
    let Some(bound) = &target.bound else {
        return Err(Error::internal("the query of a loaded target is not bound"));
    };
    let tree = view_tree::copy_for_view(bound.view)?;
    let place = |id: &i32| sources.get(id).copied().unwrap_or(0);
    Ok(Bound { tree, places: bound.places.iter().map(place).collect() })
}

/// Stores the columns of sources and lookups that the queries of the version use.
fn store_used(flow: &mut Flow) -> Result<()> {
    used_columns::refresh_used_columns(flow)?;
    let acting = RoleGuard::extension_owner()?;
    for source in &flow.sources {
        let used: Vec<String> = source.used.iter().map(|c| c.name.clone()).collect();
        spi::execute(
            "update coco_internal.source set used = $2 where id = $1",
            &[arg(source.id), arg(used)],
        )?;
    }
    drop(acting);
    add_lookup::store_used(flow)
}
