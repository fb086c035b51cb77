//! Compares a flow with a declaration. Writes nothing.
//!
//! A query, an ordinal or a fingerprint is bound, and compared as a tree: its text does not count.
//!
//! Callers: `replace`, and `inspect` for `coco.plan`.

use pgrx::prelude::*;
use std::collections::BTreeSet;

use crate::catalog::flow_rows;
use crate::catalog::model::{CaptureMode, FillOrder, Flow, KeyExpressions, Source, Target};
use crate::catalog::target_table;
use crate::declare::add_source::{self, SourceColumns};
use crate::declare::declaration::{Declaration, FlowParts};
use crate::declare::difference::{FlowDifference, Property, must_declare_again};
use crate::declare::fill_order;
use crate::declare::flow_settings::changed_settings;
use crate::declare::keep_groups::AggregateMode;
use crate::declare::key_expressions::{BoundKey, KeySource};
use crate::declare::source_capture::choose_capture;
use crate::declare::source_expressions::bind_expression;
use crate::declare::source_key::{self, SourceKey};
use crate::flows::{load, schedules};
use crate::pg::acting_role::{DECLARED, RoleGuard, SavedGucs};
use crate::pg::columns::Column;
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::spi::{self, arg};
use crate::query::bound_query::{self, Bound};
use crate::query::named_source::Named;
use crate::query::{same_query, syntax, used_columns, view_tree};
use coco_core::schedule::Schedule;

/// Returns the differences between a flow and a declaration under its name.
///
/// # Errors
/// 42501 if the caller does not have the rights of the flow's owner. 0A000 if the declaration has
/// one source and one target, and the flow has other parts that it would lose.
pub fn find_differences(new: &Declaration) -> Result<Vec<FlowDifference>> {
    let refresh = new.refresh.as_deref().map(schedules::parse_refresh).transpose()?;
    let order = new.fill_order.as_deref().map(fill_order::parse_fill_order).transpose()?;
    if !flow_rows::is_flow(&new.flow)? {
        return Ok(vec![FlowDifference::new(Property::Existence, "flow", &new.flow, "is created")]);
    }
    let (stored, settings) = declared_settings(new)?;
    let mut found = Vec::new();
    if let Some(parts) = &new.parts {
        let has = PartCounts::of_flow(&new.flow)?;
        found = differences_of_parts(&new.flow, parts, &settings, &has)?;
        found.extend(difference_of_aggregate(new)?);
        if must_declare_again(&found) {
            return match has.lookups {
                0 => Ok(found),
                _ => Err(has.cannot_replace(&new.flow)),
            };
        }
    }
    found.extend(differences_of_settings(&new.flow, &stored, &settings));
    found.extend(difference_of_lookups(new)?);
    if let Some(refresh) = refresh {
        found.extend(difference_of_refresh(new, refresh)?);
    }
    if let Some(order) = order {
        found.extend(difference_of_fill_order(new, order)?);
    }
    Ok(found)
}

/// Returns the settings that an existing flow runs under, and those of its declaration. Settings
/// that the declaration does not name stay as they are. Fails if the caller does not have the rights
/// of the flow's owner.
pub fn declared_settings(new: &Declaration) -> Result<(SavedGucs, SavedGucs)> {
    let owner = flow_rows::identify_flow(&new.flow)?.owner;
    let stored = stored_settings(&new.flow)?;
    let declared = changed_settings(&stored, owner, Some(&new.search_path), new.settings.as_ref())?;
    Ok((stored, declared))
}

/// Returns the settings that a flow runs under.
fn stored_settings(flow: &str) -> Result<SavedGucs> {
    let stored = spi::scalar::<Json>(
        "select f.settings from coco.flows as f where f.flow operator(pg_catalog.=) $1",
        &[arg(flow)],
    )?;
    SavedGucs::from_json(&stored.ok_or_else(|| flow_rows::missing(flow))?)
}

/// The number of a flow's parts.
struct PartCounts {
    sources: i64,
    lookups: i64,
    targets: i64,
}

impl PartCounts {
    fn of_flow(flow: &str) -> Result<PartCounts> {
        let counted = spi::select(
            "select (select pg_catalog.count(*) from coco.sources as s where s.flow = $1),
                    (select pg_catalog.count(*) from coco.lookups as l where l.flow = $1 and not l.derived),
                    (select pg_catalog.count(*) from coco.targets as t where t.flow = $1)",
            &[arg(flow)],
            |r| {
                Ok(PartCounts {
                    sources: spi::required(r, 1)?,
                    lookups: spi::required(r, 2)?,
                    targets: spi::required(r, 3)?,
                })
            },
        )?;
        counted.into_iter().next().ok_or_else(|| Error::internal("SELECT returned no counts"))
    }

    fn cannot_replace(&self, flow: &str) -> Error {
        Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("cannot replace flow \"{flow}\" by a declaration of one source and one target"),
        )
        .detail(format!(
            "The flow has {} sources, {} lookups and {} targets, and would lose some of them.",
            self.sources, self.lookups, self.targets
        ))
        .hint("Change its parts with coco.set_query and coco.alter_flow. Or drop the flow with coco.drop_flow, and declare it again with coco.add_source, coco.add_lookup and coco.add_target.")
    }
}

fn differences_of_parts(
    name: &str,
    parts: &FlowParts,
    settings: &SavedGucs,
    has: &PartCounts,
) -> Result<Vec<FlowDifference>> {
    let incomplete =
        |change: &str| Ok(vec![FlowDifference::new(Property::Completeness, "flow", name, change)]);
    match (has.sources, has.targets) {
        (1, 1) => {}
        (0 | 1, 0) => return incomplete("has no target yet"),
        _ => return Err(has.cannot_replace(name)),
    }
    let flow = match load::load_for_update(name) {
        Ok(flow) => flow,
        Err(e) if is_loss(e.code) => return incomplete(&format!("cannot run: {}", e.message)),
        Err(e) => return Err(e),
    };
    let ([source], [target]) = (flow.sources.as_slice(), flow.targets.as_slice()) else {
        return Err(Error::internal(format!("flow \"{name}\" changed while it was compared")));
    };
    let columns = add_source::describe(parts.relation, flow.owner, "source")?;
    let compared = Compared { flow: &flow, source, target, parts, settings, columns: &columns };
    let structure = compared.structure()?;
    if !structure.is_empty() {
        return Ok(structure);
    }
    let mut found = compared.expressions()?;
    found.extend(compared.capture()?);
    found.extend(compared.refresh_interval()?);
    found.extend(compared.options());
    found.extend(compared.query()?);
    Ok(found)
}

/// Reports whether an error means that a flow has lost something that a new declaration provides.
fn is_loss(code: PgSqlErrorCode) -> bool {
    matches!(
        code,
        PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE
            | PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN
            | PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH
            | PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
    )
}

/// A flow of one source and one target, and its declaration.
struct Compared<'a> {
    flow: &'a Flow,
    source: &'a Source,
    target: &'a Target,
    parts: &'a FlowParts<'a>,
    settings: &'a SavedGucs,
    /// The source of the declaration.
    columns: &'a SourceColumns,
}

impl Compared<'_> {
    fn of_source(&self, property: Property, change: String) -> FlowDifference {
        FlowDifference::new(property, "source", &self.source.name, change)
    }

    fn of_target(&self, property: Property, change: String) -> FlowDifference {
        FlowDifference::new(property, "target", self.target.shown(), change)
    }

    /// Returns the differences for which the flow has to be declared again.
    fn structure(&self) -> Result<Vec<FlowDifference>> {
        let mut found = self.structure_of_source()?;
        found.extend(self.location()?);
        if !is_same_set(&self.target.key_names, &self.parts.key) {
            let change = becomes("key", &list(&self.target.key_names), &list(&self.parts.key));
            found.push(self.of_target(Property::TargetKey, change));
        }
        Ok(found)
    }

    fn structure_of_source(&self) -> Result<Vec<FlowDifference>> {
        let (source, given) = (self.source, &self.parts.source);
        if self.parts.relation != source.relation {
            let change = becomes("relation", &source.relation_name, &self.columns.shown);
            return Ok(vec![self.of_source(Property::SourceRelation, change)]);
        }
        let mut found = Vec::new();
        // Without the argument, a source keeps its name if somebody renames its relation.
        if let Some(name) = given.name.as_ref().filter(|name| **name != source.name) {
            let change = becomes("name", &source.name, name);
            found.push(self.of_source(Property::SourceName, change));
        }
        let SourceColumns { kind, shown, .. } = self.columns;
        let keyed = KeySource {
            relation: source.relation,
            kind,
            shown,
            name: self.name_in_texts(),
            owner: self.flow.owner,
            settings: self.settings,
        };
        let source_key = source_key::source_key(&keyed, given.key.clone())?;
        let (before, after) = (names(&source.key), names(&source_key.columns));
        let are_same_expressions = match (&source.key_expressions, &source_key.expressions) {
            (None, None) => true,
            (Some(before), Some(after)) => are_same_expressions(before, after)?,
            _ => false,
        };
        if !is_same_set(&before, &after) || !are_same_expressions {
            let texts = source.key_expressions.as_ref().map(|key| &key.texts);
            let before = shown_key(before, texts);
            let after = shown_key(after, source_key.expressions.as_ref().map(|key| &key.texts));
            let change = becomes("key", &list(&before), &list(&after));
            found.push(self.of_source(Property::SourceKey, change));
            return Ok(found);
        }
        // A key that was declared nullable stays so.
        let is_known = |k: &&Column| k.nullable.is_none() || is_nullable(&source.key, &k.name);
        if let Some(column) = source_key.columns.iter().find(|k| !is_known(k)) {
            let change = format!("key column {} becomes nullable", column.name);
            found.push(self.of_source(Property::SourceKey, change));
            return Ok(found);
        }
        let has_groups = source_key::has_groups(
            source.relation,
            kind,
            &SourceKey { columns: source.key.clone(), ..source_key },
            given.ordinal.is_some(),
        )?;
        if has_groups != source.grouped {
            let item = |groups: bool| if groups { "groups" } else { "rows" };
            let change = format!("items were {}, are {}", item(source.grouped), item(has_groups));
            found.push(self.of_source(Property::Items, change));
        }
        Ok(found)
    }

    /// Compares the location of the target: its table, or its server and name.
    fn location(&self) -> Result<Option<FlowDifference>> {
        let here = "this database";
        let (before, after) = match (&self.target.external, &self.parts.elsewhere) {
            (Some(before), Some(after)) if before.server != after.server => {
                (before.server.as_str(), after.server.as_str())
            }
            (Some(before), Some(_)) => {
                let change = becomes("name", &before.name, &self.parts.target);
                let is_same = before.name == self.parts.target;
                return Ok((!is_same).then(|| self.of_target(Property::Target, change)));
            }
            (Some(before), None) => (before.server.as_str(), here),
            (None, Some(after)) => (here, after.server.as_str()),
            (None, None) => return self.table(),
        };
        Ok(Some(self.of_target(Property::Server, becomes("server", before, after))))
    }

    fn table(&self) -> Result<Option<FlowDifference>> {
        let acting = RoleGuard::flow_owner(self.flow.owner, self.settings)?;
        let (schema, name) = target_table::resolve_name(&self.parts.target)?;
        drop(acting);
        let (before, after) = (self.target.relation_name(), spi::qualified(&schema, &name));
        let is_same = schema == self.target.schema && name == self.target.name;
        let change =
            format!("{}, and {before} is no longer a target", becomes("table", &before, &after));
        Ok((!is_same).then(|| self.of_target(Property::Target, change)))
    }

    /// Returns the name of the source in the texts of the declaration.
    fn name_in_texts(&self) -> &str {
        self.parts.source.name.as_deref().unwrap_or(&self.columns.name)
    }

    fn expressions(&self) -> Result<Vec<FlowDifference>> {
        let (before, after) = (self.source, &self.parts.source);
        let all = [
            (Property::Ordinal, "ordinal", &before.ordinal, &after.ordinal),
            (Property::Fingerprint, "fingerprint", &before.fingerprint, &after.fingerprint),
        ];
        let mut found = Vec::new();
        for (property, argument, before, after) in all {
            let change = match (before, after) {
                (None, None) => continue,
                (None, Some(after)) => format!("{argument} {after} is added"),
                (Some(before), None) => format!("{argument} {before} is removed"),
                (Some(before), Some(after)) => {
                    if self.is_same_expression(argument, after)? {
                        continue;
                    }
                    becomes(argument, before, after)
                }
            };
            found.push(self.of_source(property, change));
        }
        Ok(found)
    }

    fn is_same_expression(&self, argument: &str, text: &str) -> Result<bool> {
        let _as = RoleGuard::flow_owner(self.flow.owner, self.settings)?;
        let name = self.name_in_texts();
        let fresh = bind_expression(argument, text, name, self.source.relation)?;
        let Some(expressions) = &self.source.expressions else { return Ok(false) };
        let stored = Bound {
            tree: view_tree::read_bound_query(expressions.bound.view)?,
            places: expressions.bound.places.clone(),
        };
        Ok(same_query::is_same_column(&fresh, &stored, argument))
    }

    fn capture(&self) -> Result<Option<FlowDifference>> {
        let SourceColumns { kind, shown, .. } = self.columns;
        let given = self.parts.source.capture.as_deref().unwrap_or("auto");
        let (source, owner) = (self.source, self.flow.owner);
        let mode =
            choose_capture(source.relation, shown, kind, &source.by_captured().key, owner, given)?
                .mode;
        // Triggers that exist need no right to create them.
        let has_triggers = given == "auto" && source.capture == CaptureMode::Trigger;
        let change = becomes("capture", source.capture.name(), mode.name());
        let is_same = mode == source.capture || has_triggers;
        Ok((!is_same).then(|| self.of_source(Property::Capture, change)))
    }

    fn refresh_interval(&self) -> Result<Option<FlowDifference>> {
        let given = self.parts.source.refresh_interval;
        add_source::check_interval(given)?;
        // Without an interval, coco reads a source every minute.
        let changes = spi::select(
            "with compared as (
               select coalesce(s.refresh_interval, '1 minute') as old_value,
                      coalesce($3, '1 minute'::pg_catalog.interval) as new_value
                 from coco.sources as s where s.flow = $1 and s.source = $2)
             select c.old_value::pg_catalog.text, c.new_value::pg_catalog.text
               from compared as c where c.old_value <> c.new_value",
            &[arg(self.flow.name.as_str()), arg(self.source.name.as_str()), arg(given)],
            |r| {
                let (before, after): (String, String) =
                    (spi::required(r, 1)?, spi::required(r, 2)?);
                Ok(becomes("refresh interval", &before, &after))
            },
        )?;
        let change = changes.into_iter().next();
        Ok(change.map(|change| self.of_source(Property::RefreshInterval, change)))
    }

    fn options(&self) -> Option<FlowDifference> {
        let (before, after) = (self.target.external.as_ref()?, self.parts.elsewhere.as_ref()?);
        let text = |options: &serde_json::Map<String, serde_json::Value>| {
            serde_json::Value::Object(options.clone()).to_string()
        };
        let change = becomes("options", &text(&before.options), &text(&after.options));
        let is_same = before.options == after.options;
        (!is_same).then(|| self.of_target(Property::Options, change))
    }

    fn query(&self) -> Result<Option<FlowDifference>> {
        let text = syntax::one_select(&self.parts.query)?;
        let (source, name) = (self.source, self.name_in_texts());
        let named: Vec<Named> = vec![used_columns::named(source.id, name, source.relation)?];
        let acting = RoleGuard::flow_owner(self.flow.owner, self.settings)?;
        let fresh = bound_query::bind_query("query", &text, &named, self.parts.item.as_deref())?;
        drop(acting);
        let change = match &self.target.bound {
            None => "query reads an object that was dropped, and is replaced",
            Some(view) => {
                let tree = view_tree::read_bound_query(view.view)?;
                let stored = Bound { tree, places: view.places.clone() };
                if same_query::is_same_query(&fresh, &stored) {
                    return Ok(None);
                }
                "query changes"
            }
        };
        Ok(Some(self.of_target(Property::Query, change.to_owned())))
    }
}

/// Compares whether coco derives lookups, if the declaration says so.
fn difference_of_lookups(new: &Declaration) -> Result<Option<FlowDifference>> {
    let Some(mode) = new.lookups else { return Ok(None) };
    let stored = spi::scalar::<String>(
        "select f.lookups from coco.flows as f where f.flow operator(pg_catalog.=) $1",
        &[arg(new.flow.as_str())],
    )?;
    let stored = stored.ok_or_else(|| flow_rows::missing(&new.flow))?;
    let change = becomes("lookups", &stored, mode.name());
    let is_same = stored == mode.name();
    Ok((!is_same).then(|| FlowDifference::new(Property::Lookups, "flow", &new.flow, change)))
}

/// Compares how coco computes groups. A declaration that does not say so leaves it to coco, which
/// evaluates a changed group as a whole.
fn difference_of_aggregate(new: &Declaration) -> Result<Option<FlowDifference>> {
    let stored = spi::scalar::<String>(
        "select f.aggregate from coco.flows as f where f.flow operator(pg_catalog.=) $1",
        &[arg(new.flow.as_str())],
    )?;
    let before = stored.ok_or_else(|| flow_rows::missing(&new.flow))?;
    let after = new.aggregate.unwrap_or(AggregateMode::Group).name();
    let change = becomes("aggregate", &before, after);
    let is_same = before == after;
    Ok((!is_same).then(|| FlowDifference::new(Property::Aggregate, "flow", &new.flow, change)))
}

/// Compares when workers update the flow.
fn difference_of_refresh(
    new: &Declaration,
    schedule: Option<Schedule>,
) -> Result<Option<FlowDifference>> {
    let stored = spi::scalar::<String>(
        "select f.refresh from coco.flows as f where f.flow operator(pg_catalog.=) $1",
        &[arg(new.flow.as_str())],
    )?;
    let before = stored.as_deref().map(schedules::parse_refresh).transpose()?.flatten();
    let after = new.refresh.as_deref().filter(|_| schedule.is_some()).map(str::trim);
    let change = becomes(
        "refresh",
        stored.as_deref().unwrap_or(schedules::AFTER_COMMITS),
        after.unwrap_or(schedules::AFTER_COMMITS),
    );
    let is_same = before == schedule;
    Ok((!is_same).then(|| FlowDifference::new(Property::Refresh, "flow", &new.flow, change)))
}

/// Compares the order in which an update of all items evaluates them.
fn difference_of_fill_order(
    new: &Declaration,
    order: Option<FillOrder>,
) -> Result<Option<FlowDifference>> {
    let stored = spi::scalar::<String>(
        "select f.fill_order from coco.flows as f where f.flow operator(pg_catalog.=) $1",
        &[arg(new.flow.as_str())],
    )?;
    let before = stored.as_deref().unwrap_or(fill_order::ANY);
    let after = order.map_or(fill_order::ANY, FillOrder::name);
    let change = becomes("fill order", before, after);
    let is_same = before == after;
    Ok((!is_same).then(|| FlowDifference::new(Property::FillOrder, "flow", &new.flow, change)))
}

fn differences_of_settings(flow: &str, stored: &SavedGucs, new: &SavedGucs) -> Vec<FlowDifference> {
    let names = std::iter::once("search_path").chain(DECLARED);
    let differs = names.filter(|name| stored.value(name) != new.value(name));
    let difference = |name: &'static str| {
        let property = match name {
            "search_path" => Property::SearchPath,
            _ => Property::Settings,
        };
        let value = |settings: &SavedGucs| settings.value(name).unwrap_or_default().to_owned();
        FlowDifference::new(property, "flow", flow, becomes(name, &value(stored), &value(new)))
    };
    differs.map(difference).collect()
}

fn names(key: &[Column]) -> Vec<String> {
    key.iter().map(|k| k.name.clone()).collect()
}

/// Returns the columns of a key as they were declared. `texts` contains the expressions.
fn shown_key(names: Vec<String>, texts: Option<&Vec<Option<String>>>) -> Vec<String> {
    let text = |n: usize| texts.and_then(|texts| texts.get(n).cloned().flatten());
    names.into_iter().enumerate().map(|(n, name)| text(n).unwrap_or(name)).collect()
}

/// Reports whether the expressions of two keys with the same names are the same.
fn are_same_expressions(stored: &KeyExpressions, fresh: &BoundKey) -> Result<bool> {
    let view = &stored.bound;
    let stored =
        Bound { tree: view_tree::read_bound_query(view.view)?, places: view.places.clone() };
    let is_same = |k: &Column| same_query::is_same_column(&fresh.bound, &stored, &k.name);
    Ok(fresh.columns.iter().all(is_same))
}

fn is_nullable(key: &[Column], name: &str) -> bool {
    key.iter().any(|k| k.name == name && k.nullable.is_some())
}

fn becomes(what: &str, before: &str, after: &str) -> String {
    format!("{what} {before} becomes {after}")
}

fn list(names: &[String]) -> String {
    format!("({})", names.join(", "))
}

fn is_same_set(a: &[String], b: &[String]) -> bool {
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<String>>();
    a.len() == b.len() && set(a) == set(b)
}
