//! Declares a target, and changes a target's query.

use pgrx::prelude::*;

use crate::catalog::model::{BoundView, External, Flow, Target};
use crate::catalog::target_table::{self, Altered};
use crate::catalog::{locks, made_targets, objects, version_rows};
use crate::declare::add_source::temporary;
use crate::declare::check_query::analyze_into;
use crate::declare::when_exists::WhenExists;
use crate::declare::{condition_views, derive_lookups};
use crate::declare::{keep_groups, key_ownership};
use crate::flows::{load, upstream};
use crate::outbox::{foreign_server, tables};
use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::notice::notice;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::{invalidation, relations};
use crate::query::bound_query::Bound;
use coco_core::change::{Encoding, TargetSchema};

/// Checks that a connector accepts a target, and returns how coco encodes values for it. The
/// arguments are the name of the connector's foreign data wrapper, and the target.
pub type QueryCheck<'a> = &'a dyn Fn(&str, &TargetSchema) -> Result<Encoding>;

/// The location of an external target.
#[derive(Clone)]
pub struct ExternalLocation<'a> {
    pub server: String,
    pub options: serde_json::Map<String, serde_json::Value>,
    pub check: QueryCheck<'a>,
}

/// Declares a target of a flow: a table in this database, or an external target at `elsewhere`.
/// [`WhenExists::Replace`] allows coco to alter a table that it made for a dropped flow.
pub fn add_target(
    flow: &str,
    target: &str,
    query: &str,
    key: &[String],
    item: Option<&str>,
    elsewhere: Option<ExternalLocation>,
    when_exists: WhenExists,
) -> Result<()> {
    if when_exists == WhenExists::Skip
        && has_target(&load::load_for_update(flow)?, target, elsewhere.as_ref())?
    {
        notice(format!("target {target} of flow \"{flow}\" already exists, skipping"));
        return Ok(());
    }
    let mut flow = load::lock_and_load(flow)?;
    if !flow.targets.is_empty() {
        keep_groups::check_may_have(&flow, "several targets")?;
    }
    if flow.sources.is_empty() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" has no source yet", flow.name),
        )
        .hint("Call coco.add_source first."));
    }
    if let Some(elsewhere) = elsewhere {
        return add_external(flow, target, query, key, item, elsewhere);
    }
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let (schema, name) = target_table::resolve_name(target)?;
    drop(acting);
    let mut new = Target {
        external: None,
        id: 0,
        schema,
        name,
        relation: None,
        query: query.to_owned(),
        columns: vec![],
        key: vec![],
        key_names: key.to_vec(),
        not_null: vec![],
        nullable_again: vec![],
        covered: None,
        made: true,
        epoch: 1,
        bound: None,
        expectations: vec![],
    };
    check_not_taken(&new)?;
    let bound = analyze_into(&mut flow, &mut new, query, key, item)?;

    let existing = relations::find_relation(&new.schema, &new.name)?;
    if let Some(relation) = existing {
        locks::lock_target_table(relation)?;
        // Another session may have declared the table while this session waited.
        let _now = PinnedSnapshot::take();
        check_not_taken(&new)?;
    }
    if flow.sources.iter().any(|s| Some(s.relation) == existing) {
        return Err(Error::invalid(format!(
            "target {} is a source of the same flow",
            new.relation_name()
        )));
    }
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let relation = match existing {
        Some(relation) => {
            if temporary(relation)? {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("target {} is temporary", new.relation_name()),
                )
                .hint(
                    "Use a permanent table: a flow outlives the session, and a temporary table does not.",
                ));
            }
            new.made = made_targets::take_made_target(relation, flow.owner)?;
            new.not_null = match (new.made, when_exists) {
                (false, _) => vec![],
                (true, WhenExists::Replace) => {
                    made_targets::fit_made_target(&mut new, relation)?;
                    new.not_null
                }
                (true, _) => made_targets::declared_not_null(&new, relation)?,
            };
            target_table::check_adoptable(&new, relation, flow.owner)?;
            if !target_table::is_empty(&new)? {
                notice(format!(
                    "table {} already contains rows; rows that the query does not return remain until coco.verify(flow, repair => true)",
                    new.relation_name()
                ));
            }
            relation
        }
        None => target_table::create_target_table(&new)?,
    };
    drop(acting);
    new.relation = Some(relation);
    store_target(&mut flow, new, bound)
}

/// Reports whether a flow has the target of a declaration: a table in this database, or an external
/// target at `elsewhere`.
fn has_target(flow: &Flow, target: &str, elsewhere: Option<&ExternalLocation>) -> Result<bool> {
    if let Some(elsewhere) = elsewhere {
        let mut external = flow.targets.iter().filter_map(|t| t.external.as_ref());
        return Ok(external.any(|e| e.server == elsewhere.server && e.name == target));
    }
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let (schema, name) = target_table::resolve_name(target)?;
    let mut local = flow.targets.iter().filter(|t| t.external.is_none());
    Ok(local.any(|t| t.schema == schema && t.name == name))
}

/// Declares an external target. Nothing connects to the server yet; coco checks the remote object
/// when it delivers the first rows.
fn add_external(
    mut flow: Flow,
    name: &str,
    query: &str,
    key: &[String],
    item: Option<&str>,
    elsewhere: ExternalLocation,
) -> Result<()> {
    let ExternalLocation { server, options, check } = elsewhere;
    if name.trim().is_empty() {
        return Err(Error::invalid("argument \"target\" is empty"));
    }
    let connector = foreign_server::connector_for(&server, flow.owner)?;
    let acting = RoleGuard::extension_owner()?;
    let id = spi::scalar::<i32>(
        "select nextval(pg_get_serial_sequence('coco_internal.target', 'id'))::int",
        &[],
    )?
    .ok_or_else(|| Error::internal("nextval returned no id for a new target"))?;
    let other = flow_of(
        "select f.flow, f.owner::oid from coco_internal.target t join coco_internal.flow f on f.flow = t.flow
          where t.server = $1 and t.external = $2",
        &[arg(server.as_str()), arg(name)],
    )?;
    drop(acting);
    let external = External {
        name: name.to_owned(),
        server,
        options,
        ledger: String::new(),
        outbox: String::new(),
        outbox_view: String::new(),
        columns: vec![],
    };
    let mut new = Target {
        external: Some(external),
        id,
        schema: String::new(),
        name: String::new(),
        relation: None,
        query: query.to_owned(),
        columns: vec![],
        key: vec![],
        key_names: key.to_vec(),
        not_null: vec![],
        nullable_again: vec![],
        covered: None,
        made: false,
        epoch: 1,
        bound: None,
        expectations: vec![],
    };
    if let Some(other) = other {
        return Err(other.has(&new.shown())
        .hint("Choose another name for the target. To fill one target from several sources, combine them with UNION ALL in the query of one flow."));
    }
    let bound = analyze_into(&mut flow, &mut new, query, key, item)?;
    let encoding = check(&connector, &foreign_server::target_schema(&flow.name, &new)?)?;
    tables::check_kept(&new, encoding)?;
    tables::create_tables(&flow.name, flow.owner, &mut new)?;
    store_target(&mut flow, new, bound)
}

/// A flow that already has the target.
struct OtherFlow {
    flow: String,
    owner: pgrx::pg_sys::Oid,
}

fn flow_of(query: &str, args: &[spi::Arg]) -> Result<Option<OtherFlow>> {
    let found = spi::select(query, args, |r| {
        Ok(OtherFlow { flow: spi::required(r, 1)?, owner: spi::required(r, 2)? })
    })?;
    Ok(found.into_iter().next())
}

impl OtherFlow {
    /// The error that a target belongs to this flow. It contains the flow's name only if the
    /// current role has the rights of the flow's owner.
    fn has(&self, target: &str) -> Error {
        let flow = match acting_role::has_rights_of(self.owner) {
            true => format!("flow \"{}\"", self.flow),
            false => "another flow".to_owned(),
        };
        let message = format!("target {target} already belongs to {flow}");
        Error::new(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, message)
    }
}

fn check_not_taken(target: &Target) -> Result<()> {
    let acting = RoleGuard::extension_owner()?;
    let other = flow_of(
        "select f.flow, f.owner::oid from coco_internal.target t join coco_internal.flow f on f.flow = t.flow
          where t.relation = (select c.oid from pg_catalog.pg_class c
                                join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                               where n.nspname = $1::text and c.relname = $2::text)
             or (t.schema = $1 and t.name = $2
                 -- the name of a table that was dropped is reserved
                 and not exists (select from pg_catalog.pg_class d where d.oid = t.relation))",
        &[arg(target.schema.as_str()), arg(target.name.as_str())],
    )?;
    drop(acting);
    match other {
        None => Ok(()),
        Some(other) => Err(other.has(&target.relation_name())
        .detail("Each target table belongs to one flow.")
        .hint("Choose another table. To fill one target from several sources, combine them with UNION ALL in the query of one flow.")),
    }
}

/// Stores a target whose table exists, with its bound query, and adds it to the flow.
pub fn store_target(flow: &mut Flow, mut new: Target, bound: Bound) -> Result<()> {
    let acting = RoleGuard::extension_owner()?;
    let keys: Vec<String> = new.key.iter().map(|k| k.name.clone()).collect();
    let external = new.external.as_ref();
    new.id = spi::returning(
        "insert into coco_internal.target (flow, schema, name, relation, query, key, item_key_columns, managed,
                                  id, server, external, options, outbox, columns, ledger_view, outbox_view, not_null)
         overriding system value
         values ($1, $2, $3, $4::oid::regclass, $5, $6, $7, $8,
                 coalesce(nullif($9, 0), nextval(pg_get_serial_sequence('coco_internal.target', 'id'))::int),
                 $10, $11, $12, $13::text::regclass, $14, $15::text::regclass, $16::text::regclass, $17)
         returning id",
        &[
            arg(flow.name.as_str()),
            arg(new.schema.as_str()),
            arg(new.name.as_str()),
            arg(new.relation),
            arg(new.query.as_str()),
            arg(keys),
            arg(new.covered.clone()),
            arg(new.made),
            arg(new.id),
            arg(external.map(|e| e.server.as_str())),
            arg(external.map(|e| e.name.as_str())),
            arg(external.map(|e| Json::from(serde_json::Value::Object(e.options.clone())))),
            arg(external.map(|e| e.outbox.as_str())),
            arg(external.map(|e| e.columns.clone())),
            arg(external.map(|_| new.relation_name())),
            arg(external.map(|e| e.outbox_view.as_str())),
            arg(new.not_null.clone()),
        ],
        |r| spi::required(r, 1),
    )?
    .pop()
    .ok_or_else(|| Error::internal("INSERT returned no id for a new target"))?;
    if external.is_some() {
        spi::execute(
            "insert into coco_internal.delivery_state (target) values ($1)",
            &[arg(new.id)],
        )?;
    }
    drop(acting);
    flow.targets.push(new);
    settle(flow, flow.targets.len() - 1, bound)?;
    upstream::check_no_cycle(&flow.name)?;
    follow_derived(flow)
}

/// Derives the lookups of a flow again, if coco derives them.
fn follow_derived(flow: &Flow) -> Result<()> {
    if flow.derives_lookups { derive_lookups::derive_again(&flow.name) } else { Ok(()) }
}

/// Stores the bound query of one of a flow's targets, and the columns of sources and lookups that
/// the flow's queries use.
fn settle(flow: &mut Flow, at: usize, bound: Bound) -> Result<()> {
    invalidation::note_change()?;
    let unbound = condition_views::unbind_expectations(flow, &flow.targets[at])?;
    let view = objects::create_query_view(flow, &flow.targets[at], bound.tree)?;
    let acting = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.target set query_view = $2::oid::regclass, places = $3 where id = $1",
        &[arg(flow.targets[at].id), arg(view), arg(bound.places.to_vec())],
    )?;
    drop(acting);
    let name = spi::relation_name(view)?.unwrap_or_default();
    flow.targets[at].bound = Some(BoundView { view, name, places: bound.places });
    condition_views::bind_again(flow, &flow.targets[at], &unbound)?;
    for source in &flow.sources {
        let _as = RoleGuard::extension_owner()?;
        let used: Vec<String> = source.used.iter().map(|c| c.name.clone()).collect();
        spi::execute(
            "update coco_internal.source set used = $2 where id = $1 and used is distinct from $2",
            &[arg(source.id), arg(used)],
        )?;
    }
    crate::declare::add_lookup::store_used(flow)?;
    if flow.keeps_groups { keep_groups::make_groups(flow) } else { Ok(()) }
}

/// Finds a flow's target by the given name, or its only target if no name is given.
pub fn find_target(flow: &Flow, given: Option<&str>) -> Result<usize> {
    let Some(given) = given else {
        return match flow.targets.len() {
            1 => Ok(0),
            n => Err(Error::invalid(format!("flow \"{}\" has {n} targets", flow.name))
                .hint("Specify one of them with the argument \"target\".")),
        };
    };
    let outside = |t: &Target| t.external.as_ref().is_some_and(|e| e.name == given);
    if let Some(at) = flow.targets.iter().position(outside) {
        return Ok(at);
    }
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let (schema, name) = target_table::resolve_name(given)?;
    drop(acting);
    let found = flow.targets.iter().position(|t| t.name == name && t.schema == schema);
    found.ok_or_else(|| {
        let has: Vec<String> = flow.targets.iter().map(Target::shown).collect();
        Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("flow \"{}\" has no target {given}", flow.name),
        )
        .detail(format!("The flow's targets are {}.", has.join(", ")))
    })
}

/// Changes the query of a flow's target, and adapts the target to it.
pub fn set_query(
    flow: &str,
    target: Option<&str>,
    query: &str,
    item: Option<&str>,
    check: QueryCheck,
) -> Result<()> {
    let mut flow = load::lock_for_update(flow)?;
    version_rows::check_no_new_version(flow.id, &flow.name)?;
    let at = find_target(&flow, target)?;
    let mut changed = flow.targets[at].clone();
    let before = changed.clone();
    let key = changed.key_names.clone();
    let bound = analyze_into(&mut flow, &mut changed, query, &key, item)?;
    let definition = definition(&before)?;
    let mut altered = Altered::Nothing;
    if let Some(external) = changed.external.clone() {
        let connector = foreign_server::connector_for(&external.server, flow.owner)?;
        let encoding = check(&connector, &foreign_server::target_schema(&flow.name, &changed)?)?;
        tables::check_kept(&changed, encoding)?;
        if changed.relation.is_some()
            && tables::refit_tables(&flow.name, flow.owner, &changed, &external)?
        {
            altered = Altered::Columns;
        }
    } else if let Some(relation) = changed.relation {
        if changed.made {
            let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
            altered = target_table::alter_to_fit(&mut changed, &before.not_null, relation)?;
            target_table::allow_null_keys(&changed, relation)?;
        } else {
            changed.not_null = vec![];
            target_table::check_adoptable(&changed, relation, flow.owner)?;
        }
    }
    match altered {
        Altered::Key => {
            for source in &flow.sources {
                objects::forget_target_keys(source, changed.id)?;
            }
        }
        _ if before.covered != changed.covered && changed.relation.is_some() => {
            let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
            for source in &flow.sources {
                key_ownership::carry_over(source, &before, &changed)?;
            }
        }
        _ => {}
    }
    // The epoch is part of the logic: if the old query is set again, the table is no longer the one
    // that it wrote to.
    let touched = altered != Altered::Nothing || before.covered != changed.covered;
    changed.epoch += i32::from(touched);
    let acting = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.target
            set query = $2, item_key_columns = $3, epoch = $4, not_null = $5, changed = pg_catalog.now()
          where id = $1",
        &[
            arg(changed.id),
            arg(changed.query.as_str()),
            arg(changed.covered.clone()),
            arg(changed.epoch),
            arg(changed.not_null.clone()),
        ],
    )?;
    drop(acting);
    flow.targets[at] = changed;
    settle(&mut flow, at, bound)?;
    // The same text may refer to other objects by now, so its rows may differ, too.
    let after = &flow.targets[at];
    if after.query == before.query && definition.is_some() && definition != self::definition(after)?
    {
        let _as = RoleGuard::extension_owner()?;
        spi::execute(
            "update coco_internal.target set epoch = epoch + 1 where id = $1",
            &[arg(after.id)],
        )?;
    }
    follow_derived(&flow)
}

/// Returns the query that a target's view stores, with all names qualified.
pub fn definition(target: &Target) -> Result<Option<String>> {
    let Some(view) = target.query_view() else { return Ok(None) };
    let _names = RoleGuard::qualifying_names()?;
    spi::scalar("select pg_catalog.pg_get_viewdef($1)", &[arg(view)])
}
