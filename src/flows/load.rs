//! Loads a flow from the catalog: its sources, lookups and targets, with their current columns.

use crate::capture::captured_columns;
use crate::catalog::flow_rows::{FlowIdentity, check_rights, identify_flow, missing};
use crate::catalog::model::{
    self, BoundView, CHANGED, Expressions, External, FillOrder, Flow, KeyExpressions, Lookup,
    Source, Target,
};
use crate::catalog::{
    expectation_rows, followed_names, internal_tables, locks, relation_locks, target_table,
};
use crate::flows::{group_states, schedules};
use crate::memo::{called_functions, rewrite_calls};
use crate::pg::acting_role::{RoleGuard, SavedGucs};
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::query::{bound_query, planner_hook, used_columns, view_tree};

/// Loads a flow for its owner, and checks that it can run. Fails if an object that its queries read
/// was dropped.
pub fn load_flow(name: &str) -> Result<Flow> {
    let mut flow = load_for_update(name)?;
    let broken = |what: String| {
        Error::new(pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, what).hint(
            "Give the target a matching query with coco.set_query, or drop the flow with coco.drop_flow.",
        )
    };
    for target in &flow.targets {
        if target.bound.is_none() {
            return Err(broken(format!(
                "the query of target {} of flow \"{name}\" reads an object that was dropped",
                target.shown()
            )));
        }
        if let Some(lost) = target.expectations.iter().find(|e| e.bound.is_none()) {
            return Err(broken(format!(
                "expectation \"{}\" of target {} of flow \"{name}\" uses an object that was dropped",
                lost.name,
                target.shown()
            ))
            .hint("Declare the expectation again with coco.expect, or drop it with coco.drop_expectation."));
        }
    }
    let views: Vec<_> = flow.targets.iter().filter_map(Target::query_view).collect();
    for source in &flow.sources {
        let declared = source.ordinal.is_some() || source.fingerprint.is_some();
        if declared && source.expressions.is_none() {
            return Err(broken(format!(
                "the ordinal or fingerprint of source \"{}\" of flow \"{name}\" reads an object that was dropped",
                source.name
            ))
            .hint("Specify the expression again with coco.alter_flow, or drop the flow with coco.drop_flow."));
        }
    }
    let renamed = used_columns::refresh_used_columns(&mut flow)?;
    used_columns::refresh_not_null(&mut flow)?;
    // Without the flow's lock, the rows could be locked in another order than by a session that
    // changes the flow.
    if locks::is_flow_locked_here(flow.id)? && !spi::is_read_only() {
        for renamed in renamed {
            followed_names::store_used_columns(renamed.source, &renamed.used)?;
        }
        followed_names::store_table_names(&flow.name)?;
    } else {
        flow.has_new_names =
            !renamed.is_empty() || !followed_names::renamed_targets(&flow.name)?.is_empty();
    }
    for relation in flow.followed().filter(|s| !s.grouped && !s.promised) {
        check_unique(&flow, relation)?;
    }
    for target in &flow.targets {
        target_table::check_fits(&flow.name, target)?;
    }
    if flow.keeps_groups && !flow.targets.is_empty() {
        group_states::load_group_state(&mut flow)?;
        for source in &flow.sources {
            check_unique(&flow, &source.by_rows())?;
        }
    }
    flow.memoized = called_functions::called_functions(&views)?;
    flow.reads = relation_locks::relations_of(&flow)?;
    internal_tables::grant_again(&flow.name, flow.owner)?;
    if !flow.memoized.is_empty() {
        planner_hook::install(rewrite_calls::recall);
    }
    Ok(flow)
}

/// Checks that the key of a source or lookup is still unique, as it was when the flow was declared.
fn check_unique(flow: &Flow, source: &Source) -> Result<()> {
    if target_table::has_unique_index(source.relation, &source.key)? {
        return Ok(());
    }
    let key = source.key.iter().map(Column::quoted).collect::<Vec<_>>().join(", ");
    let (why, mend) = match target_table::has_children(source.relation)? {
        true => (
            "{} has gained child tables since the flow was declared, and no unique index spans them.",
            "Detach the child tables with ALTER TABLE … NO INHERIT.",
        ),
        false => (
            "{} no longer has a unique index on exactly these columns.",
            "Create a unique index on these columns again.",
        ),
    };
    Err(Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "the key ({key}) of source \"{}\" of flow \"{}\" is no longer unique",
            source.name, flow.name
        ),
    )
    .detail(why.replace("{}", &source.relation_name))
    .hint(format!("{mend} If several rows form one item, or the rows have another key, drop the flow with coco.drop_flow, keeping its targets, and declare it again.")))
}

/// Loads a flow for its owner. The flow's query may be broken.
pub fn load_for_update(name: &str) -> Result<Flow> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select id, owner::oid, settings,
                exists (select from pg_catalog.pg_roles r where r.oid = owner), live,
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = memo_table),
                paused, batch_size, max_rows, max_cost, lookups = 'derive', refresh,
                fill_order, aggregate = 'delta'
           from coco_internal.flow where flow = $1",
        &[arg(name)],
        |r| {
            let flow = Flow {
                name: name.to_owned(),
                id: spi::required(r, 1)?,
                owner: spi::required(r, 2)?,
                settings: SavedGucs::from_json(&spi::required(r, 3)?)?,
                live: spi::required(r, 5)?,
                paused: spi::required(r, 7)?,
                batch_size: r.get(8)?,
                max_rows: r.get(9)?,
                max_cost: r.get(10)?,
                derives_lookups: spi::required(r, 11)?,
                has_schedule: schedules::is_schedule(r.get::<String>(12)?.as_deref()),
                fill_order: r.get::<String>(13)?.as_deref().and_then(FillOrder::from_name),
                keeps_groups: spi::required(r, 14)?,
                sources: vec![],
                lookups: vec![],
                reads: vec![],
                targets: vec![],
                memoized: vec![],
                has_new_names: false,
                memo: r.get(6)?,
            };
            Ok((flow, spi::required::<bool>(r, 4)?))
        },
    )?;
    let Some((mut flow, owner_exists)) = found.into_iter().next() else {
        return Err(missing(name));
    };
    drop(_as);
    check_owner(&flow)?;
    if !owner_exists {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("the owner of flow \"{name}\" no longer exists"),
        )
        .hint(
            "As a superuser, give the flow an owner with coco.alter_flow, or drop it with coco.drop_flow.",
        ));
    }
    let _as = RoleGuard::extension_owner()?;
    (flow.sources, flow.lookups) = sources(name)?;
    flow.targets = targets(name)?;
    if flow.sources.iter().any(Source::has_nullable_key) {
        for target in &mut flow.targets {
            allow_null_keys(target)?;
        }
    }
    Ok(flow)
}

/// Makes NULL a value like any other in those columns of a target's key that can be NULL. Only a
/// flow with a nullable source key has such a target.
fn allow_null_keys(target: &mut Target) -> Result<()> {
    let nullable: Vec<String> = match (target.relation, target.query_view()) {
        (Some(relation), _) => {
            let attributes = columns::of_relation(relation)?.into_iter();
            attributes.filter(|a| !a.not_null).map(|a| a.column.name).collect()
        }
        // coco creates the table again.
        (None, Some(view)) if target.external.is_none() => {
            used_columns::columns_with_null(view_tree::read_bound_query(view)?, &target.columns)?
        }
        _ => return Ok(()),
    };
    let is_nullable = |k: &&mut Column| nullable.contains(&k.name) && k.compares_null();
    for column in target.key.iter_mut().filter(is_nullable) {
        column.allow_null()?;
    }
    Ok(())
}

/// Fails if the current role does not have the rights of the flow's owner.
pub fn check_owner(flow: &Flow) -> Result<()> {
    check_rights(&flow.name, flow.owner)
}

/// The catalog row of a source or lookup, before its columns are looked up.
struct SourceRow {
    source: Source,
    key: Vec<String>,
    used: Vec<String>,
    exists: bool,
    shown: String,
    of: Option<i32>,
    /// Views, each with its OID and name.
    affects: Option<(pgrx::pg_sys::Oid, String)>,
    expressions: Option<(pgrx::pg_sys::Oid, String)>,
    /// Whether the lookup was declared with `affects`.
    wants_affects: bool,
    is_derived: bool,
    /// The types of the key columns in the tracking table, and whether they can be NULL.
    tracked: Vec<pgrx::pg_sys::Oid>,
    nullable: Vec<bool>,
    /// The columns that identify a row, if coco keeps the groups by deltas.
    row_key: Vec<String>,
    /// The expressions of the key by their places in it, and the view that keeps them.
    key_texts: Option<Vec<Option<String>>>,
    key_view: Option<(pgrx::pg_sys::Oid, String)>,
}

fn lost(flow: &str) -> Error {
    Error::internal(format!("tracking table of flow \"{flow}\" is missing or damaged"))
        .hint("Drop the flow and declare it again. coco will not write unchanged rows.")
}

fn sources(flow: &str) -> Result<(Vec<Source>, Vec<Lookup>)> {
    let raw: Vec<SourceRow> = spi::select(
        "select s.id, s.name, s.relation::oid, s.grouped, s.ordinal, s.fingerprint, s.key, s.used,
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = s.relation),
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = s.tracking),
                s.relation::text, s.capture,
                extract(epoch from s.refresh_interval)::float8,
                s.ordinal is not null and not s.grouped and exists (
                  select from pg_catalog.pg_class c
                   where c.oid = s.relation
                     and (c.relkind in ('v', 'm', 'f')
                          or c.relkind = 'r' and exists (select from pg_catalog.pg_inherits h
                                                          where h.inhparent = c.oid))),
                s.lookup_of,
                (select c.oid from pg_catalog.pg_class c where c.oid = s.affects_view),
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = s.affects_view),
                (select c.oid from pg_catalog.pg_class c where c.oid = s.expressions),
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = s.expressions),
                s.affects is not null,
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = s.tracking_view),
                array(select a.atttypid from pg_catalog.pg_attribute a
                       where a.attrelid = s.tracking and a.attnum between 1 and cardinality(s.key)
                       order by a.attnum),
                s.revision, s.derived,
                array(select not a.attnotnull from pg_catalog.pg_attribute a
                       where a.attrelid = s.tracking and a.attnum between 1 and cardinality(s.key)
                       order by a.attnum),
                coalesce(s.row_key, '{}'), s.key_expressions,
                (select c.oid from pg_catalog.pg_class c where c.oid = s.key_view),
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = s.key_view)
           from coco_internal.source s where s.flow = $1 order by s.id",
        &[arg(flow)],
        |r| {
            let source = Source {
                id: spi::required(r, 1)?,
                name: spi::required(r, 2)?,
                relation: spi::required(r, 3)?,
                relation_name: r.get::<String>(9)?.unwrap_or_default(),
                key: vec![],
                key_expressions: None,
                grouped: spi::required(r, 4)?,
                promised: spi::required(r, 14)?,
                ordinal: r.get(5)?,
                fingerprint: r.get(6)?,
                expressions: None,
                used: vec![],
                capture: model::CaptureMode::from_name(&spi::required::<String>(r, 12)?)
                    .unwrap_or(model::CaptureMode::Scan),
                // An infinite interval never ends.
                refresh: r.get::<f64>(13)?.map(|s| {
                    std::time::Duration::try_from_secs_f64(s)
                        .unwrap_or(std::time::Duration::from_secs(u32::MAX.into()))
                }),
                tracking: r.get::<String>(10)?.ok_or_else(|| lost(flow))?,
                tracking_view: r.get::<String>(21)?.ok_or_else(|| lost(flow))?,
                revision: spi::required(r, 23)?,
                ignores_null_keys: false,
                row_key: vec![],
                groups: None,
                reads_states: false,
            };
            Ok(SourceRow {
                source,
                key: spi::required(r, 7)?,
                used: spi::required(r, 8)?,
                exists: r.get::<String>(9)?.is_some(),
                shown: spi::required(r, 11)?,
                of: r.get(15)?,
                affects: r.get::<pgrx::pg_sys::Oid>(16)?.zip(r.get::<String>(17)?),
                expressions: r.get::<pgrx::pg_sys::Oid>(18)?.zip(r.get::<String>(19)?),
                wants_affects: spi::required(r, 20)?,
                tracked: spi::required(r, 22)?,
                is_derived: spi::required(r, 24)?,
                nullable: spi::required(r, 25)?,
                row_key: spi::required(r, 26)?,
                key_texts: r.get::<Vec<Option<String>>>(27)?,
                key_view: r.get::<pgrx::pg_sys::Oid>(28)?.zip(r.get::<String>(29)?),
            })
        },
    )?;
    let (mut sources, mut lookups) = (vec![], vec![]);
    for raw in raw {
        let (of, affects, wants_affects) = (raw.of, raw.affects.clone(), raw.wants_affects);
        let is_derived = raw.is_derived;
        let mut relation = with_columns(flow, raw)?;
        relation.ignores_null_keys = is_derived && wants_affects;
        let Some(of) = of else {
            sources.push(relation);
            continue;
        };
        if wants_affects && affects.is_none() {
            return Err(Error::new(
                pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "argument \"affects\" of lookup \"{}\" of flow \"{flow}\" reads an object that was dropped",
                    relation.name
                ),
            )
            .hint("Drop the flow with coco.drop_flow and declare it again."));
        }
        let bind = |view| match is_derived {
            true => changed_rows(view, &relation),
            false => only_items(view, &relation),
        };
        let affects = affects.map(bind).transpose()?;
        lookups.push(Lookup { relation, of, affects, is_derived });
    }
    Ok((sources, lookups))
}

/// Returns a bound query in which every reference to the relation is a reference to the current
/// item.
fn only_items((view, name): (pgrx::pg_sys::Oid, String), source: &Source) -> Result<BoundView> {
    // SAFETY: the query tree was just read.
    let count = unsafe {
        bound_query::occurrences(view_tree::read_bound_query(view)?, &[source.relation]).len()
    };
    Ok(BoundView { view, name, places: vec![source.id; count].into() })
}

/// Returns a derived query `affects`: it reads the changed keys under the alias that coco gave them,
/// and may read the whole relation at other places.
fn changed_rows((view, name): (pgrx::pg_sys::Oid, String), source: &Source) -> Result<BoundView> {
    let tree = view_tree::read_bound_query(view)?;
    let places = bound_query::places_by_alias(tree, source.relation, source.id, CHANGED);
    Ok(BoundView { view, name, places })
}

fn with_columns(flow: &str, raw: SourceRow) -> Result<Source> {
    let SourceRow {
        mut source,
        key,
        used,
        exists,
        shown,
        of: raw_of,
        expressions,
        tracked,
        nullable,
        row_key,
        key_texts,
        key_view,
        ..
    } = raw;
    if !exists {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("source \"{}\" of flow \"{flow}\" ({shown}) was dropped", source.name),
        )
        .hint("Drop the flow with coco.drop_flow and declare it over another source."));
    }
    let columns: Vec<Column> =
        columns::of_relation(source.relation)?.into_iter().map(|a| a.column).collect();
    let find = |name: &String| columns.iter().find(|c| c.name == *name).cloned();
    source.used = used.iter().filter_map(find).collect();
    if raw_of.is_some() && used.is_empty() {
        source.used = columns.clone();
    }
    let found = |names: &[String]| {
        names
                .iter()
                .map(|name| {
                    find(name).ok_or_else(|| {
                        Error::new(
                            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                            format!("key column \"{name}\" of source \"{}\" of flow \"{flow}\" no longer exists", source.name),
                        )
                        .hint("Drop the flow with coco.drop_flow and declare it again.")
                    })
                })
                .collect::<Result<Vec<_>>>()
    };
    source.row_key = columns::stored(&found(&row_key)?);
    let key = match (key_texts.as_ref(), key_view.as_ref()) {
        (None, _) => found(&key)?,
        (Some(_), None) => return Err(key_is_lost(flow, &source.name)),
        (Some(texts), Some((view, _))) => {
            let computed = columns::of_relation(*view)?;
            let mut all = Vec::with_capacity(key.len());
            for (name, text) in key.iter().zip(texts) {
                let expression = computed.iter().map(|a| &a.column).find(|c| c.name == *name);
                match (text, expression) {
                    (None, _) => all.extend(found(std::slice::from_ref(name))?),
                    (Some(_), Some(column)) => all.push(column.clone()),
                    (Some(_), None) => return Err(key_is_lost(flow, &source.name)),
                }
            }
            all
        }
    };
    source.key = columns::stored(&key);
    check_key_types(flow, &source, &tracked)?;
    // As when the source was declared: the columns of the relation may have changed since.
    for (column, _) in source.key.iter_mut().zip(nullable).filter(|(_, nullable)| *nullable) {
        column.allow_null()?;
    }
    let used_by = |bound: &BoundView, source: &Source| -> Result<Vec<Column>> {
        let shadows = [used_columns::shadow(source)?];
        let used =
            used_columns::analyze_view(bound, &shadows)?.used.pop().flatten().unwrap_or_default();
        Ok(columns.iter().filter(|c| used.contains(&c.name)).cloned().collect())
    };
    if let (Some(texts), Some(view)) = (key_texts, key_view) {
        let bound = only_items(view, &source)?;
        let used = used_by(&bound, &source)?;
        let captured = captured_columns::of_key(source.relation, &source.key, &texts, &used)?;
        source.key_expressions = Some(KeyExpressions { texts, bound, used, captured });
    }
    if let Some(view) = expressions {
        let bound = only_items(view, &source)?;
        let used = used_by(&bound, &source)?;
        source.expressions = Some(Expressions { bound, used });
    }
    Ok(source)
}

fn key_is_lost(flow: &str, source: &str) -> Error {
    Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("an expression in the key of source \"{source}\" of flow \"{flow}\" uses an object that was dropped"),
    )
    .hint("Drop the flow with coco.drop_flow and declare it again.")
}

/// Fails if a key column has another type than when the flow was declared.
fn check_key_types(flow: &str, source: &Source, tracked: &[pgrx::pg_sys::Oid]) -> Result<()> {
    let changed = source.key.iter().zip(tracked).find(|(k, tracked)| k.type_oid != **tracked);
    if source.key.len() != tracked.len() {
        return Err(lost(flow));
    }
    let Some((column, before)) = changed else { return Ok(()) };
    let before = spi::scalar::<String>(
        "select pg_catalog.format_type(oid, null) from pg_catalog.pg_type where oid = $1",
        &[spi::arg(*before)],
    )?;
    Err(Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        format!(
            "key column \"{}\" of source \"{}\" of flow \"{flow}\" has type {}, but had type {} before",
            column.name,
            source.name,
            column.type_name,
            before.unwrap_or_else(|| "???".to_owned()),
        ),
    )
    .hint("Drop the flow with coco.drop_flow and declare it again."))
}

fn targets(flow: &str) -> Result<Vec<Target>> {
    let raw: Vec<Target> = spi::select(
        "select t.id, t.schema, t.name,
                (select c.oid from pg_catalog.pg_class c where c.oid = t.relation),
                t.query, t.item_key_columns, t.managed, t.epoch,
                (select c.oid from pg_catalog.pg_class c where c.oid = t.query_view), t.key,
                (select n.nspname::text from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = coalesce(t.ledger_view, t.relation)),
                (select c.relname::text from pg_catalog.pg_class c
                  where c.oid = coalesce(t.ledger_view, t.relation)),
                t.server, t.external, t.options, t.columns,
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = t.outbox),
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = t.query_view),
                t.places,
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = t.outbox_view),
                exists (select from pg_catalog.pg_class c where c.oid = t.ledger_view), t.not_null
           from coco_internal.target t where t.flow = $1 order by t.id",
        &[arg(flow)],
        |r| {
            // A table that was renamed or moved is still the target.
            let schema = r.get::<String>(11)?.map_or_else(|| spi::required(r, 2), Ok)?;
            let name = r.get::<String>(12)?.map_or_else(|| spi::required(r, 3), Ok)?;
            let external = match (r.get::<String>(13)?, r.get::<String>(14)?) {
                (Some(server), Some(name)) => Some(External {
                    name,
                    server,
                    options: match r.get::<Json>(15)?.map(|o| o.value("coco_internal.target")).transpose()? {
                        Some(serde_json::Value::Object(options)) => options,
                        _ => Default::default(),
                    },
                    columns: r.get::<Vec<String>>(16)?.unwrap_or_default(),
                    ledger: internal_tables::InternalTable::Ledger.name(spi::required(r, 1)?),
                    outbox: r.get::<String>(17)?.unwrap_or_default(),
                    outbox_view: r.get::<String>(20)?.unwrap_or_default(),
                }),
                _ => None,
            };
            let has_ledger = spi::required::<bool>(r, 21)?;
            let lost = external
                .as_ref()
                .is_some_and(|e| e.outbox.is_empty() || e.outbox_view.is_empty() || !has_ledger);
            let target = Target {
                external,
                id: spi::required(r, 1)?,
                schema,
                name,
                relation: r.get::<pgrx::pg_sys::Oid>(4)?.filter(|_| !lost),
                query: spi::required(r, 5)?,
                columns: vec![],
                key: vec![],
                key_names: spi::required(r, 10)?,
                not_null: spi::required(r, 22)?,
                nullable_again: vec![],
                covered: r.get(6)?,
                made: spi::required(r, 7)?,
                epoch: spi::required(r, 8)?,
                expectations: vec![],
                bound: match (r.get::<pgrx::pg_sys::Oid>(9)?, r.get::<String>(18)?) {
                    (Some(view), Some(name)) => {
                        Some(BoundView { view, name, places: spi::required::<Vec<i32>>(r, 19)?.into() })
                    }
                    _ => None,
                },
            };
            Ok(target)
        },
    )?;
    let mut expectations = expectation_rows::expectations_of(flow)?;
    raw.into_iter()
        .map(|mut target| {
            let own = expectations.extract_if(.., |e| e.target == target.id);
            target.expectations = own.map(|e| e.expectation).collect();
            if let Some(view) = target.query_view() {
                target.columns =
                    columns::of_relation(view)?.into_iter().map(|a| a.column).collect();
                target.key = key_columns(&target.columns, &target.key_names)?;
            }
            Ok(target)
        })
        .collect()
}

fn key_columns(columns: &[Column], key: &[String]) -> Result<Vec<Column>> {
    key.iter()
        .map(|k| {
            let found = columns.iter().find(|c| c.name == *k).cloned();
            found.ok_or_else(|| Error::internal(format!("query view has no key column \"{k}\"")))
        })
        .collect()
}

/// Locks a flow of the caller's against other updates and changes. The flow may be incomplete or
/// broken.
pub fn lock_identified(name: &str) -> Result<FlowIdentity> {
    let mut id = identify_flow(name)?.id;
    loop {
        locks::lock_flow(id)?;
        // Another flow may have the name after the wait for the lock. The snapshot of the caller's
        // statement may be as old as the start of that wait.
        let _now = PinnedSnapshot::take();
        let found = identify_flow(name)?;
        if found.id == id {
            return Ok(found);
        }
        id = found.id;
    }
}

/// Loads a flow as [`load_flow`] does, and locks it against other updates and changes.
pub fn lock_and_load(name: &str) -> Result<Flow> {
    lock_identified(name)?;
    let _now = PinnedSnapshot::take();
    load_flow(name)
}

/// Loads a flow as [`load_flow`] does, and locks the relations that it reads until the transaction
/// ends.
pub fn load_to_read(name: &str) -> Result<Flow> {
    // The snapshot of the caller's statement may be as old as the start of a wait for a lock.
    let load = || {
        let _now = PinnedSnapshot::take();
        load_flow(name)
    };
    relation_locks::hold_relations(None, load, |flow| flow)
}

/// Loads a flow as [`load_for_update`] does, and locks it against other updates and changes.
pub fn lock_for_update(name: &str) -> Result<Flow> {
    lock_identified(name)?;
    let _now = PinnedSnapshot::take();
    load_for_update(name)
}
