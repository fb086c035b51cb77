//! `coco.flow_definition` and `coco.definitions`: SQL that declares flows as they are.

use crate::catalog::model::{Expectation, Flow, Lookup, Source, Target};
use crate::catalog::{flow_rows, version_rows};
use crate::declare::add_source;
use crate::declare::condition_views;
use crate::declare::derive_lookups::LookupMode;
use crate::declare::keep_groups::AggregateMode;
use crate::declare::key_expressions::{self, BoundKey, KeySource};
use crate::declare::source_capture::choose_capture;
use crate::declare::source_expressions::bind_expression;
use crate::declare::source_key;
use crate::flows::load;
use crate::inspect::declaration_sql::FunctionCall;
use crate::pg::acting_role::{DECLARED, RoleGuard, SavedGucs};
use crate::pg::columns::Column;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction;
use crate::query::bound_query::Bound;
use crate::query::declared_text::{self, DeclaredText, OutputNames};
use crate::query::expected_rows::CONDITION;
use crate::query::named_source::Named;
use crate::query::{same_query, used_columns, view_tree};
use coco_core::flow_order::FlowOrder;

/// SQL that declares a flow.
pub struct FlowDefinition {
    pub flow: String,
    pub definition: String,
}

/// Returns SQL that declares a flow.
pub fn flow_definition(name: &str) -> Result<String> {
    // Binding a query locks the relations in it.
    subtransaction::look(|| {
        let flow = load::load_for_update(name)?;
        let definition = Definer::of_flow(&flow)?.define()?;
        Ok(match version_rows::as_version(flow.id)? {
            None => definition,
            Some(_) => format!(
                "-- The flow is a version of another one: only coco.set_query declares it.\n{definition}"
            ),
        })
    })
}

/// Selects the caller's flows that are not versions of others.
const NOT_VERSIONS: &str = "
select f.flow from coco.flows as f
 where not exists (select from coco.versions as v where v.version operator(pg_catalog.=) f.flow)";

/// Returns SQL for each flow whose owner's rights the caller has: a flow that reads the target of
/// another flow after the other flow, otherwise the older flow first. Leaves out versions of flows.
/// For a flow that has lost a part, the SQL is a comment with the error.
pub fn definitions() -> Result<Vec<FlowDefinition>> {
    let all = spi::select(NOT_VERSIONS, &[], |r| spi::required::<String>(r, 1))?;
    let identified = all.into_iter().map(|flow| Ok((flow_rows::flow_id(&flow)?, flow)));
    let mut flows: Vec<(i32, String)> = identified.collect::<Result<_>>()?;
    flows.sort();
    let names: Vec<String> = flows.into_iter().map(|(_, flow)| flow).collect();
    let readers = spi::select(
        "select distinct r.flow, t.flow
           from (select s.flow, s.relation::pg_catalog.oid as relation from coco.sources as s
                  union all
                 select l.flow, l.relation::pg_catalog.oid from coco.lookups as l
                  union all
                 select q.flow, d.refobjid
                   from coco.targets as q
                   join pg_catalog.pg_rewrite as w on w.ev_class = q.query_view
                   join pg_catalog.pg_depend as d
                     on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
                    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) as r
           join coco.targets as t on t.relation::pg_catalog.oid = r.relation and t.flow <> r.flow",
        &[],
        |r| Ok((spi::required::<String>(r, 1)?, spi::required::<String>(r, 2)?)),
    )?;
    let define = |flow: String| {
        let definition = flow_definition(&flow).unwrap_or_else(|e| {
            format!("-- flow {}: {}\n", spi::ident(&flow), e.message.replace(['\n', '\r'], " "))
        });
        FlowDefinition { flow, definition }
    };
    let number = |name: &String| names.iter().position(|known| known == name);
    let feeds =
        readers.iter().filter_map(|(reader, writer)| Some((number(writer)?, number(reader)?)));
    let sorted = FlowOrder::new(names.len(), feeds).sorted(0..names.len());
    Ok(sorted.into_iter().map(|flow| define(names[flow].clone())).collect())
}

/// What the catalog holds of a flow, in addition to its model.
struct FlowProperties {
    live: bool,
    label: Option<String>,
    batch_size: Option<i32>,
    paused: bool,
    lineage_index: bool,
    max_rows: Option<i64>,
    max_cost: Option<f64>,
    refresh: Option<String>,
}

impl FlowProperties {
    fn of_flow(flow: &str) -> Result<FlowProperties> {
        let found = spi::select(
            "select f.live, f.label, f.batch_size, f.paused, f.lineage_index, f.max_rows, f.max_cost,
                    f.refresh
               from coco.flows as f where f.flow = $1",
            &[arg(flow)],
            |r| {
                Ok(FlowProperties {
                    live: spi::required(r, 1)?,
                    label: r.get(2)?,
                    batch_size: r.get(3)?,
                    paused: spi::required(r, 4)?,
                    lineage_index: spi::required(r, 5)?,
                    max_rows: r.get(6)?,
                    max_cost: r.get(7)?,
                    refresh: r.get(8)?,
                })
            },
        )?;
        found.into_iter().next().ok_or_else(|| flow_rows::missing(flow))
    }
}

/// Composes the definition of a flow.
struct Definer<'a> {
    flow: &'a Flow,
    properties: FlowProperties,
    statements: String,
}

impl Definer<'_> {
    fn of_flow(flow: &Flow) -> Result<Definer<'_>> {
        let properties = FlowProperties::of_flow(&flow.name)?;
        Ok(Definer { flow, properties, statements: String::new() })
    }

    fn define(mut self) -> Result<String> {
        let flow = self.flow;
        let has_declared = flow.lookups.iter().any(|lookup| !lookup.is_derived);
        match (flow.sources.as_slice(), has_declared, flow.targets.as_slice()) {
            ([source], false, [target]) => self.define_together(source, target)?,
            _ => self.define_parts()?,
        }
        self.define_expectations()?;
        let mut alter = FunctionCall::new("alter_flow", &flow.name);
        let properties = &self.properties;
        if let Some(label) = &properties.label {
            alter.add_text("label", label);
        }
        if let Some(size) = properties.batch_size {
            alter.add_sql("batch_size", size.to_string());
        }
        for (argument, value) in
            [("paused", properties.paused), ("lineage_index", properties.lineage_index)]
        {
            if value {
                alter.add_sql(argument, "true");
            }
        }
        if let Some(interval) = self.verify_interval()? {
            alter.add_text("verify_interval", &interval);
        }
        if let Some(rows) = properties.max_rows {
            alter.add_sql("max_rows", rows.to_string());
        }
        if let Some(cost) = properties.max_cost {
            alter.add_sql("max_cost", cost.to_string());
        }
        // Without an ordinal, items have no order.
        let has_order = flow.sources.is_empty() || flow.sources.iter().any(|s| s.ordinal.is_some());
        if let Some(order) = flow.fill_order.filter(|_| has_order) {
            alter.add_text("fill_order", order.name());
        }
        if alter.has_arguments() {
            self.statements.push_str(&alter.to_sql());
        }
        if self.properties.live {
            self.statements.push_str(&FunctionCall::new("start", &flow.name).to_sql());
        }
        Ok(self.statements)
    }

    fn define_together(&mut self, source: &Source, target: &Target) -> Result<()> {
        let query = self.query(target)?;
        let mut create = FunctionCall::new("create_flow", &self.flow.name);
        create.add_text("source", &source.relation_name);
        create.add_query("query", &query.text);
        create.add_text("target", &target_name(target));
        create.add_names("key", &target.key_names);
        self.add_options_of(&mut create, source, "source_key")?;
        self.add_settings(&mut create)?;
        add_location(&mut create, target);
        if let Some(item) = &query.item {
            create.add_text("item", item);
        }
        self.push(&create, &query);
        Ok(())
    }

    fn define_parts(&mut self) -> Result<()> {
        let flow = self.flow;
        let mut create = FunctionCall::new("create_flow", &flow.name);
        self.add_settings(&mut create)?;
        self.statements.push_str(&create.to_sql());
        for source in &flow.sources {
            let mut add = FunctionCall::new("add_source", &flow.name);
            add.add_text("source", &source.relation_name);
            self.add_options_of(&mut add, source, "key")?;
            self.statements.push_str(&add.to_sql());
        }
        for lookup in flow.lookups.iter().filter(|lookup| !lookup.is_derived) {
            self.define_lookup(lookup)?;
        }
        for target in &flow.targets {
            let query = self.query(target)?;
            let mut add = FunctionCall::new("add_target", &flow.name);
            add.add_text("target", &target_name(target));
            add.add_query("query", &query.text);
            add.add_names("key", &target.key_names);
            add_location(&mut add, target);
            if let Some(item) = &query.item {
                add.add_text("item", item);
            }
            self.push(&add, &query);
        }
        Ok(())
    }

    fn define_expectations(&mut self) -> Result<()> {
        let flow = self.flow;
        for target in &flow.targets {
            for expectation in &target.expectations {
                let mut expect = FunctionCall::new("expect", &flow.name);
                expect.add_query("condition", &self.condition(target, expectation)?);
                expect.add_text("action", expectation.action.name());
                if let Some(share) = expectation.max_share {
                    expect.add_sql("max_share", share.to_string());
                }
                expect.add_text("name", &expectation.name);
                if flow.targets.len() > 1 {
                    expect.add_text("target", &target_name(target));
                }
                self.statements.push_str(&expect.to_sql());
            }
        }
        Ok(())
    }

    /// Returns a text that declares the condition of an expectation.
    fn condition(&self, target: &Target, expectation: &Expectation) -> Result<String> {
        let text = &expectation.condition;
        let Some(view) = &expectation.bound else { return Ok(text.clone()) };
        let stored =
            Bound { tree: view_tree::read_bound_query(view.view)?, places: view.places.clone() };
        let fresh = condition_views::bind_condition(self.flow, target, text);
        let is_same = |fresh| same_query::is_same_column(&fresh, &stored, CONDITION);
        match fresh.is_ok_and(is_same) {
            true => Ok(text.clone()),
            false => condition_views::condition_text(self.flow, target, expectation),
        }
    }

    fn define_lookup(&mut self, lookup: &Lookup) -> Result<()> {
        let flow = self.flow;
        let mut add = FunctionCall::new("add_lookup", &flow.name);
        add.add_text("lookup", &lookup.relation.relation_name);
        let affects = self.affects(lookup)?;
        if let Some(affects) = &affects {
            add.add_query("affects", &affects.text);
        }
        if flow.sources.len() > 1
            && let Some(source) = flow.sources.iter().find(|s| s.id == lookup.of)
        {
            add.add_text("source", &source.name);
        }
        self.add_options_of(&mut add, &lookup.relation, "key")?;
        match affects {
            Some(affects) => self.push(&add, &affects),
            None => self.statements.push_str(&add.to_sql()),
        }
        Ok(())
    }

    /// Adds a statement that contains a query.
    fn push(&mut self, call: &FunctionCall, query: &DeclaredText) {
        if !query.is_exact {
            self.statements.push_str(
                "-- coco cannot write a text that is known to declare the stored query: check this one.\n",
            );
        }
        self.statements.push_str(&call.to_sql());
    }

    /// Adds the options of a source or a lookup that differ from the defaults.
    fn add_options_of(
        &self,
        call: &mut FunctionCall,
        source: &Source,
        key_argument: &'static str,
    ) -> Result<()> {
        if source.name != add_source::name_of(source.relation)? {
            call.add_text("name", &source.name);
        }
        let key = self.key(source)?;
        if source_key::primary_key(source.relation)?.as_ref() != Some(&key) {
            call.add_names(key_argument, &key);
        }
        for (argument, text) in [("ordinal", &source.ordinal), ("fingerprint", &source.fingerprint)]
        {
            if let Some(text) = text {
                call.add_query(argument, &self.expression(source, argument, text)?);
            }
        }
        if !self.is_default_capture(source) {
            call.add_text("capture", source.capture.name());
        }
        if let Some(interval) = self.refresh_interval(source)? {
            call.add_text("refresh_interval", &interval);
        }
        Ok(())
    }

    /// Reports whether a declaration without the argument `capture` captures a source as now.
    fn is_default_capture(&self, source: &Source) -> bool {
        let owner = self.flow.owner;
        let chosen = add_source::describe(source.relation, owner, "source").and_then(|columns| {
            let key: &[Column] = &source.by_captured().key;
            choose_capture(source.relation, &columns.shown, &columns.kind, key, owner, "auto")
        });
        chosen.is_ok_and(|chosen| chosen.mode == source.capture)
    }

    /// Returns the interval between two verifications by workers.
    fn verify_interval(&self) -> Result<Option<String>> {
        let acting = RoleGuard::same();
        acting.set("intervalstyle", "postgres")?;
        spi::scalar(
            "select f.verify_interval::pg_catalog.text from coco.flows as f where f.flow = $1",
            &[arg(self.flow.name.as_str())],
        )
    }

    fn refresh_interval(&self, source: &Source) -> Result<Option<String>> {
        let acting = RoleGuard::same();
        acting.set("intervalstyle", "postgres")?;
        spi::scalar(
            "select a.refresh_interval::pg_catalog.text
               from (select s.flow, s.source as name, s.refresh_interval from coco.sources as s
                      union all
                     select l.flow, l.lookup, l.refresh_interval from coco.lookups as l) as a
              where a.flow = $1 and a.name = $2",
            &[arg(self.flow.name.as_str()), arg(source.name.as_str())],
        )
    }

    /// Returns the columns and the expressions that declare the key of a source or a lookup.
    fn key(&self, source: &Source) -> Result<Vec<String>> {
        let Some(key) = &source.key_expressions else {
            return Ok(source.key.iter().map(|k| k.name.clone()).collect());
        };
        let keyed = KeySource {
            relation: source.relation,
            kind: "",
            shown: &source.relation_name,
            name: &source.name,
            owner: self.flow.owner,
            settings: &self.flow.settings,
        };
        let view = &key.bound;
        let stored =
            Bound { tree: view_tree::read_bound_query(view.view)?, places: view.places.clone() };
        // An error means that the texts do not declare the key any more.
        let fresh = key_expressions::bind_key(&keyed, &key.texts).ok();
        let _as = RoleGuard::flow_owner(self.flow.owner, &self.flow.settings)?;
        let mut declared = Vec::with_capacity(source.key.len());
        for (k, text) in source.key.iter().zip(&key.texts) {
            let is_same = |fresh: &BoundKey| {
                let named = fresh.columns.iter().any(|column| column.name == k.name);
                named && same_query::is_same_column(&fresh.bound, &stored, &k.name)
            };
            let written = match text {
                None => Some(k.name.clone()),
                Some(text) if fresh.as_ref().is_some_and(is_same) => Some(text.clone()),
                Some(_) => {
                    let of = &source.name;
                    let text =
                        declared_text::column_text(view, &k.name, of, source.relation, false)?;
                    text.map(|text| format!("{text} AS {}", k.quoted()))
                }
            };
            declared.push(written.unwrap_or_else(|| k.name.clone()));
        }
        Ok(declared)
    }

    /// Returns a text that declares the ordinal or the fingerprint of a source.
    fn expression(&self, source: &Source, argument: &str, text: &str) -> Result<String> {
        let Some(expressions) = &source.expressions else { return Ok(text.to_owned()) };
        let view = &expressions.bound;
        let _as = RoleGuard::flow_owner(self.flow.owner, &self.flow.settings)?;
        let stored =
            Bound { tree: view_tree::read_bound_query(view.view)?, places: view.places.clone() };
        let fresh = bind_expression(argument, text, &source.name, source.relation);
        if fresh.is_ok_and(|fresh| same_query::is_same_column(&fresh, &stored, argument)) {
            return Ok(text.to_owned());
        }
        let written =
            declared_text::column_text(view, argument, &source.name, source.relation, false)?;
        Ok(written.unwrap_or_else(|| text.to_owned()))
    }

    /// Returns a text that declares the query of a target.
    fn query(&self, target: &Target) -> Result<DeclaredText> {
        let Some(view) = &target.bound else {
            return Ok(DeclaredText { text: target.query.clone(), item: None, is_exact: false });
        };
        let shadows = used_columns::shadows(self.flow)?;
        let named: Vec<Named> = shadows.into_iter().map(|s| s.named).collect();
        let _as = RoleGuard::flow_owner(self.flow.owner, &self.flow.settings)?;
        declared_text::query_text("query", &target.query, view, &named, OutputNames::Significant)
    }

    /// Returns a text that declares the query `affects` of a lookup.
    fn affects(&self, lookup: &Lookup) -> Result<Option<DeclaredText>> {
        let source = &lookup.relation;
        let text = spi::scalar::<String>(
            "select l.affects from coco.lookups as l where l.flow = $1 and l.lookup = $2",
            &[arg(self.flow.name.as_str()), arg(source.name.as_str())],
        )?;
        let Some(text) = text else { return Ok(None) };
        let Some(view) = &lookup.affects else {
            return Ok(Some(DeclaredText { text, item: None, is_exact: false }));
        };
        let named = [used_columns::named(source.id, &source.name, source.relation)?];
        let _as = RoleGuard::flow_owner(self.flow.owner, &self.flow.settings)?;
        let names = OutputNames::Insignificant;
        declared_text::query_text("affects", &text, view, &named, names).map(Some)
    }

    /// Adds the search path, the settings that differ from those of other sessions, whether coco
    /// derives lookups, and the schedule.
    fn add_settings(&self, call: &mut FunctionCall) -> Result<()> {
        let settings: &SavedGucs = &self.flow.settings;
        call.add_text("search_path", settings.search_path());
        let mut differing = serde_json::Map::new();
        for name in DECLARED {
            let value = settings.value(name).unwrap_or_default();
            if default_setting(name)?.as_deref() != Some(value) {
                differing.insert(name.to_owned(), value.into());
            }
        }
        if !differing.is_empty() {
            let settings = serde_json::Value::Object(differing).to_string();
            call.add_text("settings", &settings);
        }
        if self.flow.derives_lookups {
            call.add_text("lookups", LookupMode::of_flow(self.flow).name());
        }
        if self.flow.keeps_groups {
            call.add_text("aggregate", AggregateMode::of_flow(self.flow).name());
        }
        if let Some(refresh) = &self.properties.refresh {
            call.add_text("refresh", refresh);
        }
        Ok(())
    }
}

/// Returns the value of a setting in sessions that do not change it; `None` if this session's value
/// comes from its role or its client, so that other sessions may have another one.
fn default_setting(name: &str) -> Result<Option<String>> {
    spi::scalar(
        "select s.reset_val from pg_catalog.pg_settings as s
          where s.name = $1 and s.source in ('default', 'environment variable',
                'configuration file', 'command line', 'global', 'database', 'override')",
        &[arg(name)],
    )
}

/// Returns the name of a target as a declaration has it.
fn target_name(target: &Target) -> String {
    match &target.external {
        Some(external) => external.name.clone(),
        None => target.relation_name(),
    }
}

/// Adds the server and the options of an external target.
fn add_location(call: &mut FunctionCall, target: &Target) {
    let Some(external) = &target.external else { return };
    call.add_text("server", &external.server);
    if !external.options.is_empty() {
        let options = serde_json::Value::Object(external.options.clone()).to_string();
        call.add_text("options", &options);
    }
}
