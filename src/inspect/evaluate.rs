//! `coco.evaluate`: the rows that the queries of a flow return for one item now. Nothing stays
//! written: neither targets nor tracking rows nor results of memoized functions, nor anything that
//! functions of a query write.

use pgrx::{PgSqlErrorCode, pg_sys};
use std::rc::Rc;

use crate::catalog::model::{Flow, Source, Target};
use crate::catalog::relation_locks;
use crate::flows::load;
use crate::inspect::lineage::{fitting_sources, object, typed_alias, typed_key_sql};
use crate::memo;
use crate::memo::session::MemoSession;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg, ident};
use crate::pg::subtransaction;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::{Action, Batch, Item};
use crate::query::compose::{self, Items};
use crate::query::names::{self, KeyExprs};
use coco_core::version::ProcessOrdinal;

/// What to evaluate, and how.
pub struct EvaluateRequest<'a> {
    pub source_key: Json,
    /// The name of the source; `None`: each source with such a key.
    pub source: Option<&'a str>,
    /// The content of the item, instead of its content in the source.
    pub item: Option<Json>,
    /// Whether memoized functions use stored results.
    pub uses_memo: bool,
    /// Whether the result is the plan of each query, with the measured times, instead of its rows.
    pub explains: bool,
}

/// A row that a query returns for the item, or the plan of a query.
pub struct EvaluatedRow {
    pub source: String,
    pub target: String,
    pub key: Option<Json>,
    pub output: Option<Json>,
    pub plan: Option<String>,
}

/// Evaluates one item of a flow of the caller's. An item that its source does not have has no rows.
pub fn evaluate_item(name: &str, request: &EvaluateRequest) -> Result<Vec<EvaluatedRow>> {
    let flow = load::load_to_read(name)?;
    let sources = fitting_sources(&flow, &request.source_key, request.source)?;
    let _as = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    if let Some(item) = &request.item {
        sources.iter().try_for_each(|source| check_item(source, item))?;
    }
    let _snapshot = PinnedSnapshot::take();
    relation_locks::check_not_rewritten(&flow)?;
    let mut all = Vec::new();
    for source in sources {
        all.extend(subtransaction::undone(|| of_source(&flow, source, request))?);
    }
    Ok(all)
}

fn of_source(flow: &Flow, source: &Source, request: &EvaluateRequest) -> Result<Vec<EvaluatedRow>> {
    let batch = batch_of(source, request)?;
    let items = if batch.carries { Items::Carried } else { Items::Batch };
    let recalling = match request.uses_memo {
        true => memo::session_of_look(flow)?,
        false => None,
    };
    let mut all = Vec::new();
    for target in &flow.targets {
        pgrx::check_for_interrupts!();
        let shown = match &target.external {
            Some(external) => external.name.clone(),
            None => target.relation_name(),
        };
        let row = |key, output, plan| EvaluatedRow {
            source: source.name.clone(),
            target: shown.clone(),
            key,
            output,
            plan,
        };
        let sql = compose::evaluate(flow, source, target, items)?;
        match request.explains {
            true => all.push(row(None, None, Some(explained(&recalling, &batch, &sql)?))),
            false => {
                let mut found = output(&recalling, flow, source, target, &batch, &sql)?;
                while found.advance() {
                    all.push(row(found.get(0), found.get(1), None));
                }
            }
        }
    }
    Ok(all)
}

/// Connects for a composed statement over a batch. The statement is planned each time, because a
/// kept plan may call memoized functions in the other way.
fn connect_for(batch: &Batch) -> Result<SpiSession> {
    let statements = SpiSession::connect()?;
    statements.name("coco_batch", batch.rows())?;
    statements.reads_many();
    Ok(statements)
}

/// Runs a composed statement, and returns its plan with the measured times.
fn explained(recalling: &Option<Rc<MemoSession>>, batch: &Batch, sql: &str) -> Result<String> {
    let _running = recalling.as_ref().map(|r| r.begin());
    let plan = connect_for(batch)?.texts(&format!("explain (analyze) {sql}"))?;
    Ok(plan.join("\n"))
}

/// Runs a composed statement, and returns its rows as their target keys and their columns.
fn output(
    recalling: &Option<Rc<MemoSession>>,
    flow: &Flow,
    source: &Source,
    target: &Target,
    batch: &Batch,
    sql: &str,
) -> Result<TupleStore> {
    let mut columns = names::output_columns(source, target);
    if !flow.memoized.is_empty() {
        columns.push(RowColumn::new(compose::ITEM_NUMBER, pg_sys::INT4OID));
    }
    let mut output = TupleStore::new(&columns)?;
    {
        let _running = recalling.as_ref().map(|r| r.begin());
        connect_for(batch)?.select_into(sql, &[], &mut output)?;
    }
    let mut found = TupleStore::new(&[
        RowColumn::new("key", pg_sys::JSONBOID),
        RowColumn::new("output", pg_sys::JSONBOID),
    ])?;
    let statements = SpiSession::connect()?;
    statements.name("coco_output", &output)?;
    let key = object(&target.key, &KeyExprs::new(source, target).new_key);
    let row = object(&target.columns, &columns::numbered("n.c", target.columns.len()));
    let sql = format!("select {key}, {row} from coco_output as n");
    statements.select_into(&sql, &[], &mut found)?;
    Ok(found)
}

/// Returns a batch of the requested item. The batch carries the item's content if the caller gave
/// it.
fn batch_of(source: &Source, request: &EvaluateRequest) -> Result<Batch> {
    let carries = request.item.is_some();
    let mut batch = Batch::new(source, carries)?;
    let mut columns = rows::typed("k", &source.key);
    if carries {
        columns.extend(compose::carried(source).into_iter().map(|(column, _)| column));
    }
    let mut items = TupleStore::new(&columns)?;
    let statements = SpiSession::connect()?;
    let key = arg(request.source_key.clone());
    match &request.item {
        None => statements.select_into(&typed_key_sql(source)?, &[key], &mut items)?,
        Some(item) => {
            let args = [key, arg(item.clone())];
            statements.select_into(&content_sql(source)?, &args, &mut items)?
        }
    };
    drop(statements);
    let keys = source.key.len();
    while items.advance() {
        let values = |range: std::ops::Range<usize>| -> Vec<Option<pg_sys::Datum>> {
            range.map(|column| items.datum(column)).collect()
        };
        let item = Item {
            action: Action::Evaluate,
            tracked: false,
            incoming: None,
            process_ordinal: ProcessOrdinal(0),
            attempts: 0,
            along: false,
        };
        batch.push(&values(0..keys), &values(keys..columns.len()), item);
    }
    Ok(batch)
}

/// Returns a SELECT of an item with the columns that the queries use: its key is the object `$1`, and
/// its content `$2` is an object, or for a group a list of objects.
fn content_sql(source: &Source) -> Result<String> {
    let name = ident(&source.name);
    // A column of the key may be stored in another form than that in which the query reads it.
    let mut columns: Vec<&Column> = source.used.iter().collect();
    for key in &source.key {
        if columns.iter().all(|used| used.name != key.name) {
            columns.push(key);
        }
    }
    let keys = source.named_key_of(&name);
    let values: Vec<String> =
        compose::carried(source).into_iter().map(|(_, value)| value).collect();
    let selected = [keys.clone(), values].concat().join(", ");
    let typed = typed_alias(&name, &columns)?;
    Ok(match source.grouped {
        false => format!(
            "select {selected}
               from pg_catalog.jsonb_to_record($2 operator(pg_catalog.||) $1) as {typed}"
        ),
        true => format!(
            "select {selected}
               from pg_catalog.jsonb_array_elements($2) as e(value)
              cross join lateral pg_catalog.jsonb_to_record(e.value operator(pg_catalog.||) $1) as {typed}
              group by {}",
            keys.join(", ")
        ),
    })
}

/// Checks that the content of an item is an object, or for a group a list of objects, with columns
/// that the source has.
fn check_item(source: &Source, item: &Json) -> Result<()> {
    let _names = RoleGuard::qualifying_names()?;
    let (kind, hint) = match source.grouped {
        true => (
            "array",
            format!(
                "An item of source \"{}\" is a group: pass a JSON array with an object for each of its rows.",
                source.name
            ),
        ),
        false => ("object", "Pass a JSON object with the columns of the item.".to_owned()),
    };
    let fits = spi::scalar::<bool>(
        "select jsonb_typeof($1) = $2
            and not exists (select from jsonb_path_query($1, '$[*]') as e(value)
                             where jsonb_typeof(e.value) <> 'object')",
        &[arg(item.clone()), arg(kind)],
    )?;
    if fits != Some(true) {
        let what = match source.grouped {
            true => "argument \"item\" is not a JSON array of objects",
            false => "argument \"item\" is not a JSON object",
        };
        return Err(Error::invalid(what).hint(hint));
    }
    let unknown = spi::scalar::<String>(
        "select k.name
           from jsonb_path_query($1, '$[*]') as e(value)
          cross join lateral jsonb_object_keys(e.value) as k(name)
          where not exists (select from pg_attribute a
                             where a.attrelid = $2 and a.attname::text = k.name
                               and a.attnum > 0 and not a.attisdropped)
          order by 1 limit 1",
        &[arg(item.clone()), arg(source.relation)],
    )?;
    match unknown {
        None => Ok(()),
        Some(name) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("argument \"item\": source \"{}\" has no column \"{name}\"", source.name),
        )
        .hint(hint)),
    }
}
