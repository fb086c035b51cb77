//! Declaring flows: everything is checked here, before anything runs.

use std::collections::BTreeSet;

use pgrx::prelude::*;

use super::analysis::{self, Analysis, Shadow};
use super::columns;
use super::derived;
use super::error::{Error, Result};
use super::model::{Column, Flow, Target};
use super::ownership;
use super::registry;
use super::role::{self, ActingAs, Settings};
use super::sql::{self, arg, ident};
use super::target_table::{self, Altered};

/// What `add_source` takes.
#[derive(Default)]
pub struct SourceOptions {
    pub name: Option<String>,
    pub key: Option<Vec<String>>,
    pub ordinal: Option<String>,
    pub fingerprint: Option<String>,
}

pub fn create_flow(name: &str, search_path: &str) -> Result<()> {
    check_name("flow", name)?;
    let owner = role::current();
    let settings = Settings::of_caller(search_path)?.to_json();
    let _as = ActingAs::extension_owner()?;
    let made = sql::returning(
        "insert into coco.flow (flow, owner, search_path, settings) values ($1, $2, $3, $4)
         on conflict do nothing returning id",
        &[arg(name), arg(owner), arg(search_path), arg(settings)],
        |r| sql::required::<i32>(r, 1),
    )?;
    if made.is_empty() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("flow \"{name}\" already exists"),
        )
        .hint("Choose another name, change the flow with coco.set_query, or drop it with coco.drop_flow."));
    }
    Ok(())
}

fn check_name(argument: &str, name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::invalid(format!("argument \"{argument}\" is empty")));
    }
    if name.len() > 63 {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_NAME_TOO_LONG,
            format!(
                "argument \"{argument}\": \"{name}\" is {} bytes, at most 63 can be",
                name.len()
            ),
        ));
    }
    Ok(())
}

pub fn add_source(flow: &str, relation: pg_sys::Oid, options: SourceOptions) -> Result<()> {
    let flow = registry::load(flow)?;
    registry::lock(&flow)?;
    if !flow.targets.is_empty() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" already has a target", flow.name),
        )
        .detail("A query is checked against the sources it reads.")
        .hint("Declare the sources first, then the targets."));
    }
    let described = sql::select(
        "select c.relkind::text, n.nspname::text, c.relname::text,
                pg_catalog.has_table_privilege($2, c.oid, 'select')
                or pg_catalog.has_any_column_privilege($2, c.oid, 'select')
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1",
        &[arg(relation), arg(flow.owner)],
        |r| {
            let row: (String, String, String, bool) = (
                sql::required(r, 1)?,
                sql::required(r, 2)?,
                sql::required(r, 3)?,
                sql::required(r, 4)?,
            );
            Ok(row)
        },
    )?;
    let Some((kind, schema, table, readable)) = described.into_iter().next() else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("argument \"source\": relation {} does not exist", relation.to_u32()),
        ));
    };
    let shown = sql::qualified(&schema, &table);
    if temporary(relation)? {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("argument \"source\": {shown} is temporary"),
        )
        .hint("A flow outlives the session; a temporary table does not. Use a permanent one."));
    }
    if !matches!(kind.as_str(), "r" | "p" | "v" | "m" | "f") {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!(
                "argument \"source\": {shown} is not a table, view, foreign table or materialized view"
            ),
        ));
    }
    if !readable {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for source {shown}"),
        )
        .hint(format!("GRANT SELECT ON {shown} to the flow's owner.")));
    }
    let name = options.name.unwrap_or(table);
    check_name("name", &name)?;
    if flow.sources.iter().any(|s| s.name == name) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("flow \"{}\" already has a source named \"{name}\"", flow.name),
        )
        .hint(
            "Give it another name with the argument \"name\"; the query reads it under that name.",
        ));
    }
    let key = source_key(relation, &shown, &kind, options.key)?;
    let grouped = !target_table::has_unique_index(relation, &key)?;

    let ordinal = match &options.ordinal {
        None => None,
        Some(_) if grouped => {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "argument \"ordinal\" is for items that are rows",
            )
            .detail("Several rows share the source key. A row that leaves its group does not show in the ordinals of those that stay.")
            .hint("Leave it out: groups are compared by their content."));
        }
        Some(text) => {
            let _as = ActingAs::flow_owner(flow.owner, &flow.settings)?;
            Some(ordinal_sql(text, &name, &shown)?)
        }
    };
    if let Some(expression) = &options.fingerprint {
        analysis::one_expression("fingerprint", expression)?;
        let _as = ActingAs::flow_owner(flow.owner, &flow.settings)?;
        let (_, volatile) = analysis::expression_type("fingerprint", expression, &name, &shown)?;
        if volatile {
            return Err(Error::invalid("argument \"fingerprint\" calls a volatile function")
                .detail("The same content would never have the same fingerprint."));
        }
    }
    let _as = ActingAs::extension_owner()?;
    let keys: Vec<String> = key.iter().map(|k| k.name.clone()).collect();
    let id = sql::returning(
        "insert into coco.source (flow, name, relation, key, grouped, ordinal, ordinal_sql, fingerprint, tracking)
         values ($1, $2, $3::oid::regclass, $4, $5, $6, $7, $8, 0::oid::regclass) returning id",
        &[
            arg(flow.name.as_str()),
            arg(name.as_str()),
            arg(relation),
            arg(keys),
            arg(grouped),
            arg(options.ordinal),
            arg(ordinal),
            arg(options.fingerprint),
        ],
        |r| sql::required::<i32>(r, 1),
    )?
    .pop()
    .ok_or_else(|| Error::internal("no id came back for a new source"))?;
    let tracking = derived::make_tracking(&flow.name, flow.owner, id, &name, &key)?;
    sql::execute(
        "update coco.source set tracking = $2::text::regclass where id = $1",
        &[arg(id), arg(tracking)],
    )?;
    Ok(())
}

fn temporary(relation: pg_sys::Oid) -> Result<bool> {
    let sql = "select relpersistence = 't' from pg_catalog.pg_class where oid = $1";
    Ok(sql::one(sql, &[arg(relation)])?.unwrap_or(false))
}

/// The key given, or the primary key; checked to be there, ordered and not null.
fn source_key(
    relation: pg_sys::Oid,
    shown: &str,
    kind: &str,
    given: Option<Vec<String>>,
) -> Result<Vec<Column>> {
    let attributes = columns::of_relation(relation)?;
    let names = match given {
        Some(names) if !names.is_empty() => names,
        _ => sql::one::<Vec<String>>(
            "select pg_catalog.array_agg(a.attname::text order by k.n)
               from pg_catalog.pg_index i,
                    pg_catalog.unnest(i.indkey) with ordinality as k(attnum, n)
               join pg_catalog.pg_attribute a on a.attnum = k.attnum
              where i.indrelid = $1 and i.indisprimary and a.attrelid = i.indrelid
                and k.n <= i.indnkeyatts",
            &[arg(relation)],
        )?
        .ok_or_else(|| {
            Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION,
                format!("source {shown} has no primary key, and no key is given"),
            )
            .hint("Give the columns that name an item, for example source_key => '{id}' (or key => '{id}' of coco.add_source). Rows that share the key are one item.")
        })?,
    };
    let distinct: BTreeSet<&String> = names.iter().collect();
    if distinct.len() != names.len() {
        return Err(Error::invalid(format!("the source key of {shown} names a column twice")));
    }
    names
        .into_iter()
        .map(|name| {
            let found = attributes.iter().find(|a| a.column.name == name);
            let Some(a) = found else {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("key column \"{name}\" does not exist in source {shown}"),
                ));
            };
            if a.column.equals.is_none() {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!("key column \"{name}\" of source {shown} has type {}, which has no order", a.column.type_name),
                )
                .detail("A key's type needs a default btree operator class."));
            }
            // Views, materialized views and foreign tables cannot promise; an update checks.
            if matches!(kind, "r" | "p") && !a.not_null {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION,
                    format!("key column \"{name}\" of source {shown} is nullable"),
                )
                .hint(format!("ALTER TABLE {shown} ALTER COLUMN {} SET NOT NULL; or take as source a view that leaves such rows out.", ident(&name))));
            }
            Ok(a.column.clone())
        })
        .collect()
}

/// SQL for a bigint out of the ordinal given: a number as it is, a time in microseconds, with
/// infinity beyond them all.
fn ordinal_sql(text: &str, name: &str, relation: &str) -> Result<String> {
    analysis::one_expression("ordinal", text)?;
    let (column, volatile) = analysis::expression_type("ordinal", text, name, relation)?;
    if volatile {
        return Err(Error::invalid("argument \"ordinal\" calls a volatile function"));
    }
    match column.type_oid {
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID => {
            Ok(format!("(\n{text}\n)::pg_catalog.int8"))
        }
        pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID | pg_sys::DATEOID => Ok(format!(
            "greatest(-9.2e18, least(9.2e18, pg_catalog.date_part('epoch', (\n{text}\n)) operator(pg_catalog.*) 1000000))::pg_catalog.int8"
        )),
        _ => Err(Error::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("argument \"ordinal\" has type {}", column.type_name),
        )
        .hint("An ordinal is a smallint, integer, bigint, date, timestamp or timestamptz that grows with each version.")),
    }
}

pub fn add_target(flow: &str, target: &str, query: &str, key: &[String]) -> Result<()> {
    let mut flow = registry::load(flow)?;
    registry::lock(&flow)?;
    if flow.sources.is_empty() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" has no source yet", flow.name),
        )
        .hint("Call coco.add_source first."));
    }
    let acting = ActingAs::flow_owner(flow.owner, &flow.settings)?;
    let (schema, name) = target_table::resolve_name(target)?;
    drop(acting);
    let mut new = Target {
        id: 0,
        schema,
        name,
        relation: None,
        query: query.to_owned(),
        columns: vec![],
        key: vec![],
        key_names: key.to_vec(),
        covered: None,
        made: true,
        incarnation: 1,
        query_view: None,
    };
    check_not_taken(&new)?;
    analyse_into(&mut flow, &mut new, query, key)?;

    let existing = target_table::find(&new.schema, &new.name)?;
    if flow.sources.iter().any(|s| Some(s.relation) == existing) {
        return Err(Error::invalid(format!(
            "target {} is a source of the same flow",
            new.relation_name()
        )));
    }
    let acting = ActingAs::flow_owner(flow.owner, &flow.settings)?;
    let relation = match existing {
        Some(relation) => {
            if temporary(relation)? {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("target {} is temporary", new.relation_name()),
                )
                .hint(
                    "A flow outlives the session; a temporary table does not. Use a permanent one.",
                ));
            }
            target_table::check_adoptable(&new, relation, flow.owner)?;
            new.made = false;
            if !target_table::is_empty(&new)? {
                notice(format!(
                    "table {} has rows already; those that the query does not return stay, until coco.verify(flow, repair => true)",
                    new.relation_name()
                ));
            }
            relation
        }
        None => target_table::make(&new)?,
    };
    drop(acting);
    new.relation = Some(relation);
    store_target(&mut flow, new)
}

fn check_not_taken(target: &Target) -> Result<()> {
    let _as = ActingAs::extension_owner()?;
    let other: Option<String> = sql::one(
        "select t.flow from coco.target t
          where t.relation = (select c.oid from pg_catalog.pg_class c
                                join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                               where n.nspname = $1::text and c.relname = $2::text)
             or (t.schema = $1 and t.name = $2)",
        &[arg(target.schema.as_str()), arg(target.name.as_str())],
    )?;
    match other {
        None => Ok(()),
        Some(other) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("target {} already belongs to flow \"{other}\"", target.relation_name()),
        )
        .detail("Each target table belongs to one flow.")
        .hint("Name another table. Several sources can fill one target within a flow: UNION ALL in its query.")),
    }
}

fn store_target(flow: &mut Flow, mut new: Target) -> Result<()> {
    let acting = ActingAs::extension_owner()?;
    let keys: Vec<String> = new.key.iter().map(|k| k.name.clone()).collect();
    new.id = sql::returning(
        "insert into coco.target (flow, schema, name, relation, query, key, covered, made)
         values ($1, $2, $3, $4::oid::regclass, $5, $6, $7, $8) returning id",
        &[
            arg(flow.name.as_str()),
            arg(new.schema.as_str()),
            arg(new.name.as_str()),
            arg(new.relation),
            arg(new.query.as_str()),
            arg(keys),
            arg(new.covered.clone()),
            arg(new.made),
        ],
        |r| sql::required(r, 1),
    )?
    .pop()
    .ok_or_else(|| Error::internal("no id came back for a new target"))?;
    drop(acting);
    flow.targets.push(new);
    settle(flow)
}

/// Stores what follows from a flow's queries: the columns its sources use, and its views.
fn settle(flow: &mut Flow) -> Result<()> {
    for source in &flow.sources {
        let _as = ActingAs::extension_owner()?;
        let used: Vec<String> = source.used.iter().map(|c| c.name.clone()).collect();
        sql::execute(
            "update coco.source set used = $2 where id = $1 and used is distinct from $2",
            &[arg(source.id), arg(used)],
        )?;
    }
    for target in &flow.targets {
        let view = derived::make_view(flow, target)?;
        let _as = ActingAs::extension_owner()?;
        sql::execute(
            "update coco.target set query_view = $2::oid::regclass where id = $1",
            &[arg(target.id), arg(view)],
        )?;
    }
    Ok(())
}

/// Checks a query and takes from it what the target and the sources need: columns, key, used
/// columns (over all targets of the flow). Warns of what is accepted and will not be followed.
fn analyse_into(flow: &mut Flow, target: &mut Target, query: &str, key: &[String]) -> Result<()> {
    let text = analysis::one_select(query)?;
    target.query = text;
    let mut shadows = Vec::new();
    let mut all_columns = Vec::new();
    for s in &flow.sources {
        let columns: Vec<Column> =
            columns::of_relation(s.relation)?.into_iter().map(|a| a.column).collect();
        shadows.push(Shadow {
            name: s.name.clone(),
            relation_name: s.relation_name.clone(),
            columns: columns.iter().map(|c| c.name.clone()).collect(),
            key: s.key.iter().map(|k| k.name.clone()).collect(),
        });
        all_columns.push(columns);
    }
    let mut used: Vec<BTreeSet<String>> = vec![BTreeSet::new(); shadows.len()];
    let mut read = vec![false; shadows.len()];
    let mut this = None;
    let acting = ActingAs::flow_owner(flow.owner, &flow.settings)?;
    let others: Vec<(String, bool)> = flow
        .targets
        .iter()
        .filter(|t| t.id != target.id)
        .map(|t| (t.query.clone(), false))
        .chain([(target.query.clone(), true)])
        .collect();
    for (query, ours) in others {
        let analysis = analysis::analyse(&query, &shadows)?;
        for (i, u) in analysis.used.iter().enumerate() {
            read[i] |= u.is_some();
            used[i].extend(u.iter().flatten().cloned());
        }
        if ours {
            this = Some(analysis);
        }
    }
    drop(acting);
    let analysis = this.ok_or_else(|| Error::internal("the query was not analysed"))?;
    check_columns(&analysis)?;
    check_sources_read(flow, &analysis, &read)?;
    target.columns = analysis.columns.clone();
    target.key = target_key(&target.columns, key)?;
    target.covered = covered(flow, &analysis, &target.key);
    for (i, source) in flow.sources.iter_mut().enumerate() {
        source.used =
            all_columns[i].iter().filter(|c| used[i].contains(&c.name)).cloned().collect();
    }
    warn(flow, &analysis)
}

fn check_columns(analysis: &Analysis) -> Result<()> {
    let mut names = BTreeSet::new();
    for column in &analysis.columns {
        if column.name == "?column?" {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_COLUMN_DEFINITION,
                "argument \"query\" has a column without a name",
            )
            .hint("Give it one: expression AS name."));
        }
        if !names.insert(&column.name) {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_DUPLICATE_COLUMN,
                format!("argument \"query\" has two columns named \"{}\"", column.name),
            )
            .hint("Give one of them another name: expression AS name."));
        }
        // SAFETY: a syscache look-up in a transaction.
        let pseudo = unsafe { pg_sys::get_typtype(column.type_oid) } == b'p' as std::ffi::c_char;
        if pseudo {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INVALID_COLUMN_DEFINITION,
                format!(
                    "column \"{}\" of the query has the pseudo-type {}",
                    column.name, column.type_name
                ),
            )
            .hint("Cast it to a type that a table's column can have."));
        }
    }
    match analysis.columns.is_empty() {
        true => Err(Error::invalid("argument \"query\" returns no column")),
        false => Ok(()),
    }
}

fn check_sources_read(flow: &Flow, analysis: &Analysis, read: &[bool]) -> Result<()> {
    let none_read = analysis.used.iter().all(Option::is_none);
    let unread = flow.sources.iter().zip(read).find(|(_, read)| !**read);
    if none_read || (flow.sources.len() == 1 && unread.is_some()) {
        let name = &flow.sources[0].name;
        return Err(Error::invalid(format!("argument \"query\" does not read source \"{name}\""))
            .detail("Inside the query a source's name, without a schema, is a relation that holds just the item.")
            .hint(format!("Read it as {}.", ident(name))));
    }
    if let Some((source, _)) = unread {
        notice(format!("source \"{}\" is not read by any query of the flow yet", source.name));
    }
    if analysis.joins_sources {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "argument \"query\" joins two sources",
        )
        .detail("For an item of one source the other sources are empty, so that a join of two never gives a row.")
        .hint("Make one of them the source; the query may read the other table in full by its schema-qualified name. Several sources are collected with UNION ALL."));
    }
    Ok(())
}

fn target_key(columns: &[Column], key: &[String]) -> Result<Vec<Column>> {
    if key.is_empty() {
        return Err(Error::invalid("argument \"key\" is empty")
            .hint("Name the columns of the query that name one row of the target, for example key => '{id}'."));
    }
    let distinct: BTreeSet<&String> = key.iter().collect();
    if distinct.len() != key.len() {
        return Err(Error::invalid("argument \"key\" names a column twice"));
    }
    key.iter()
        .map(|k| {
            let Some(column) = columns.iter().find(|c| c.name == *k) else {
                let has: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("key column \"{k}\" is not in the query's output"),
                )
                .detail(format!("The query gives: {}.", has.join(", ")))
                .hint("Add the column to the query, or choose another key."));
            };
            if column.equals.is_none() {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!("key column \"{k}\" has type {}, which has no order", column.type_name),
                )
                .detail("A key's type needs a default btree operator class."));
            }
            Ok(column.clone())
        })
        .collect()
}

/// The target key columns that always equal the source key, if the target key holds all of it.
fn covered(flow: &Flow, analysis: &Analysis, key: &[Column]) -> Option<Vec<String>> {
    let [source] = flow.sources.as_slice() else {
        return None;
    };
    source
        .key
        .iter()
        .map(|k| {
            let equal = analysis.columns.iter().zip(&analysis.origins).find(|(c, origin)| {
                let is_key = key.iter().any(|t| t.name == c.name);
                is_key
                    && c.type_oid == k.type_oid
                    && origin.as_ref().is_some_and(|(_, column)| *column == k.name)
            });
            equal.map(|(c, _)| c.name.clone())
        })
        .collect()
}

/// Says what is accepted and will not be followed.
fn warn(flow: &Flow, analysis: &Analysis) -> Result<()> {
    for relation in &analysis.relations {
        let relation = pg_sys::Oid::from(*relation);
        let name = sql::relation_name(relation)?.unwrap_or_default();
        if flow.sources.iter().any(|s| s.relation == relation) {
            warning(
                format!("the query reads {name} in full, by its qualified name, besides the item"),
                "Changes of other rows will not evaluate an item again.",
            );
        } else if !name.starts_with("pg_catalog.") {
            warning(
                format!("the query reads {name}, which is not a source of flow \"{}\"", flow.name),
                "Its changes will not be followed: they show when an item is evaluated for another reason, or with coco.update(flow, 'full_reprocess').",
            );
        }
    }
    for function in &analysis.volatile {
        warning(
            format!("the query calls the volatile function {function}"),
            "An item gets a new result only when it or the logic changes; coco.verify may show differences.",
        );
    }
    if !analysis.not_item_local.is_empty() {
        let what: Vec<&str> = analysis.not_item_local.iter().copied().collect();
        let hint = match flow.sources.iter().any(|s| s.grouped) {
            true => "Group by, or partition by, the whole source key.",
            false => {
                "To aggregate over several rows, make the group the item: source_key => '{column}' (key of coco.add_source) with the columns that the query groups by."
            }
        };
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_WARNING,
            format!(
                "the query's result for one item may differ from its result over all: {}",
                what.join(", ")
            ),
            format!("The query is evaluated once per source item. {hint}")
        );
    }
    Ok(())
}

fn warning(message: String, detail: &str) {
    ereport!(PgLogLevel::WARNING, PgSqlErrorCode::ERRCODE_WARNING, message, detail.to_owned());
}

fn notice(message: String) {
    ereport!(PgLogLevel::NOTICE, PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message);
}

/// Finds a flow's target by its name as given; the only one where none is given.
fn find_target(flow: &Flow, given: Option<&str>) -> Result<usize> {
    let Some(given) = given else {
        return match flow.targets.len() {
            1 => Ok(0),
            n => Err(Error::invalid(format!("flow \"{}\" has {n} targets", flow.name))
                .hint("Name one with the argument \"target\".")),
        };
    };
    let acting = ActingAs::flow_owner(flow.owner, &flow.settings)?;
    let (schema, name) = target_table::resolve_name(given)?;
    drop(acting);
    let found = flow.targets.iter().position(|t| t.name == name && t.schema == schema);
    found.ok_or_else(|| {
        let has: Vec<String> = flow.targets.iter().map(Target::relation_name).collect();
        Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("flow \"{}\" has no target {given}", flow.name),
        )
        .detail(format!("Its targets: {}.", has.join(", ")))
    })
}

pub fn set_query(flow: &str, target: Option<&str>, query: &str) -> Result<()> {
    let mut flow = registry::load_to_change(flow)?;
    registry::lock(&flow)?;
    let at = find_target(&flow, target)?;
    let mut changed = flow.targets[at].clone();
    let before = changed.clone();
    let key = changed.key_names.clone();
    analyse_into(&mut flow, &mut changed, query, &key)?;
    let mut altered = Altered::Nothing;
    if let Some(relation) = changed.relation {
        if changed.made {
            let _as = ActingAs::flow_owner(flow.owner, &flow.settings)?;
            altered = target_table::alter_to_fit(&changed, relation)?;
        } else {
            target_table::check_adoptable(&changed, relation, flow.owner)?;
        }
    }
    match altered {
        Altered::Key => {
            for source in &flow.sources {
                derived::forget_target_keys(source, changed.id)?;
            }
        }
        _ if before.covered != changed.covered && changed.relation.is_some() => {
            let _as = ActingAs::flow_owner(flow.owner, &flow.settings)?;
            for source in &flow.sources {
                ownership::carry_over(source, &before, &changed)?;
            }
        }
        _ => {}
    }
    // Part of the logic: a query that comes back finds another table than it left.
    changed.incarnation += i32::from(altered != Altered::Nothing);
    let acting = ActingAs::extension_owner()?;
    sql::execute(
        "update coco.target set query = $2, covered = $3, incarnation = $4 where id = $1",
        &[
            arg(changed.id),
            arg(changed.query.as_str()),
            arg(changed.covered.clone()),
            arg(changed.incarnation),
        ],
    )?;
    drop(acting);
    flow.targets[at] = changed;
    settle(&mut flow)
}

/// Makes sure the flow's targets are there: one that somebody dropped is made again, or adopted
/// where another table has taken its name, and its rows are written anew.
pub fn restore_targets(flow: &mut Flow) -> Result<()> {
    let owner = flow.owner;
    let settings = flow.settings.clone();
    for at in 0..flow.targets.len() {
        let target = &mut flow.targets[at];
        if target.relation.is_some() {
            continue;
        }
        let acting = ActingAs::flow_owner(owner, &settings)?;
        let relation = match target_table::find(&target.schema, &target.name)? {
            Some(relation) => {
                target_table::check_adoptable(target, relation, owner)?;
                relation
            }
            None => {
                target.made = true;
                target_table::make(target)?
            }
        };
        drop(acting);
        target.relation = Some(relation);
        target.incarnation += 1;
        let _as = ActingAs::extension_owner()?;
        sql::execute(
            "update coco.target set relation = $2::oid::regclass, incarnation = $3, made = $4
              where id = $1",
            &[arg(target.id), arg(relation), arg(target.incarnation), arg(target.made)],
        )?;
        let (id, name) = (target.id, target.relation_name());
        for source in &flow.sources {
            derived::forget_target_keys(source, id)?;
        }
        notice(format!(
            "target {name} of flow \"{}\" was dropped; it is made and filled again",
            flow.name
        ));
    }
    Ok(())
}

/// Drops a flow. It need not be whole: what is still there goes.
pub fn drop_flow(name: &str, keep_targets: bool) -> Result<()> {
    let acting = ActingAs::extension_owner()?;
    let owner: Option<pg_sys::Oid> =
        sql::one("select owner::oid from coco.flow where flow = $1", &[arg(name)])?;
    drop(acting);
    let Some(owner) = owner else {
        registry::load(name)?;
        return Ok(());
    };
    if !role::has_rights_of(owner) {
        registry::load(name)?;
    }
    let acting = ActingAs::extension_owner()?;
    let names = |query: &str| sql::select(query, &[arg(name)], |r| sql::required::<String>(r, 1));
    let views = names(
        "select c.oid::regclass::text from coco.target t join pg_class c on c.oid = t.query_view
          where t.flow = $1",
    )?;
    let tracking = names(
        "select c.oid::regclass::text from coco.source s join pg_class c on c.oid = s.tracking
          where s.flow = $1",
    )?;
    let made = names(
        "select c.oid::regclass::text from coco.target t join pg_class c on c.oid = t.relation
          where t.flow = $1 and t.made",
    )?;
    sql::execute("delete from coco.flow where flow = $1", &[arg(name)])?;
    drop(acting);
    derived::drop_all(&views, &tracking)?;
    if !keep_targets {
        let _as = ActingAs::flow_owner(owner, &Settings::qualifying())?;
        for table in made {
            sql::execute(&format!("drop table {table}"), &[])?;
        }
    }
    Ok(())
}
