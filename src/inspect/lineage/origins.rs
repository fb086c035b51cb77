//! `coco.lineage`: the items that a target row comes from.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::{PgSqlErrorCode, pg_sys};
use serde_json::{Value, json};
use std::collections::HashMap;

use crate::catalog::model::{Flow, Source, Target};
use crate::declare::lineage_index::is_indexed;
use crate::flows::cache;
use crate::inspect::lineage::{by_indexes, check_key, lookup_rows, object, of_typed, typed};
use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::columns::all_equal;
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use crate::pg::spi::{self, arg, ident, literal};
use crate::query::compose::tracking_keys;
use crate::query::logic_description::{self, Described};
use crate::query::names::key_text;
use crate::update::orphans;

/// An item that a target row comes from, or that claims the row's key.
pub struct OriginItem {
    pub flow: String,
    pub source: String,
    pub relation: pg_sys::Oid,
    pub source_key: Json,
    pub state: &'static str,
    pub ordinal: Option<i64>,
    pub content: Option<pgrx::Uuid>,
    pub logic: Option<Described>,
    pub query: Option<String>,
    pub label: Option<String>,
    pub process_ordinal: Option<i64>,
    pub process_time: Option<TimestampWithTimeZone>,
    pub memo: Json,
    /// The byte range in the source's text: the first byte, and the byte after the last.
    pub bytes: Option<(i64, i64)>,
    pub failure: Option<Json>,
    /// The columns of the source that the flow's queries use.
    pub source_columns: Vec<String>,
    pub lookups: Json,
}

/// The tracking row of an item.
struct Tracked {
    source_key: Json,
    ordinal: Option<i64>,
    content: Option<pgrx::Uuid>,
    /// For an item that was never evaluated successfully: the logic of its failed evaluation.
    logic: Option<i32>,
    process_ordinal: Option<i64>,
    process_time: Option<TimestampWithTimeZone>,
    failure: Option<Json>,
    memo_refs: Vec<i64>,
    claims: bool,
}

/// A target row, which may not exist.
struct Row {
    /// The row's key as a list of texts. If the row does not exist, the requested key.
    key: String,
    present: bool,
    bytes: Option<(i64, i64)>,
}

/// Returns the items that the row with this key comes from, and the items that claim the key.
pub fn lineage(target: &str, key: Json, flow: Option<&str>) -> Result<Vec<OriginItem>> {
    let (flow, id) = find(target, flow)?;
    let ready = cache::runnable_flow(&flow)?;
    let flow = &ready.flow;
    let Some(target) = flow.targets.iter().find(|t| t.id == id) else {
        return Err(Error::internal("a target is gone"));
    };
    let view = match (target.relation, target.query_view()) {
        (Some(_), Some(view)) => view,
        _ => return Err(orphans::dropped_rows_sql(flow, target)),
    };
    check_key("key", &key, &format!("target {}", target.shown()), &target.key)?;
    let row = read_row(flow, target, view, &key)?;
    let mut items = Vec::new();
    for source in &flow.sources {
        if target.covered.is_none() && !is_indexed(source)? {
            unindexed(&flow.name);
        }
        for tracked in tracked(flow, target, source, view, &key, &row)? {
            // With a covered key, the item is known even if it has not produced the row.
            if row.present || tracked.failure.is_some() || target.covered.is_none() {
                items.push(item(flow, target, source, tracked, &row)?);
            }
        }
    }
    Ok(items)
}

/// Raises a NOTICE that no index finds the flow's listed target keys.
fn unindexed(flow: &str) {
    pgrx::ereport!(
        pgrx::PgLogLevel::NOTICE,
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!(
            "flow \"{flow}\" has no index on its listed target keys, so all tracking rows are read"
        ),
        format!(
            "To create one, run SELECT coco.alter_flow({}, lineage_index => true).",
            literal(flow)
        )
    );
}

/// Finds a target of the caller's flows by name. Returns the flow and the target's id.
fn find(target: &str, flow: Option<&str>) -> Result<(String, i32)> {
    let acting = RoleGuard::extension_owner()?;
    let found = spi::select(
        // A table that was renamed has the name that it has now.
        "select t.id, t.flow, f.owner::oid, t.shown = $1
           from (select o.id, o.flow, o.server, o.relation, coalesce(c.relname::text, o.name) as name,
                        coalesce(o.external, case when c.oid is not null
                                                  then format('%I.%I', n.nspname, c.relname)
                                                  else format('%I.%I', o.schema, o.name) end) as shown
                   from coco_internal.target o left join pg_class c on c.oid = o.relation and o.server is null
                   left join pg_namespace n on n.oid = c.relnamespace) as t
           join coco_internal.flow f using (flow)
          where (t.shown = $1
                 or t.server is null and ($1 in (t.name, quote_ident(t.name)) or t.relation = to_regclass($1)))
            and ($2::text is null or t.flow = $2)
          order by t.flow, t.id",
        &[arg(target), arg(flow)],
        |r| {
            let found = (spi::required::<String>(r, 2)?, spi::required::<i32>(r, 1)?);
            Ok((found, spi::required::<pg_sys::Oid>(r, 3)?, spi::required::<bool>(r, 4)?))
        },
    )?;
    drop(acting);
    let mut mine: Vec<_> =
        found.into_iter().filter(|(_, owner, _)| acting_role::has_rights_of(*owner)).collect();
    if mine.iter().any(|(_, _, shown)| *shown) {
        mine.retain(|(_, _, shown)| *shown);
    }
    match mine.as_slice() {
        [] => Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("target \"{target}\" does not exist"),
        )
        .hint("See the view coco.targets for your targets.")),
        [((flow, id), ..)] => Ok((flow.clone(), *id)),
        several => {
            let flows: Vec<&str> = several.iter().map(|((flow, _), ..)| flow.as_str()).collect();
            Err(Error::invalid(format!("target name \"{target}\" is ambiguous"))
                .detail(format!("These flows have such a target: {}.", flows.join(", ")))
                .hint("Specify the name as coco.targets shows it, or specify the flow: flow_name => '…'."))
        }
    }
}

/// Reads the row with a key from the target, or from the ledger of an external target.
fn read_row(flow: &Flow, target: &Target, view: pg_sys::Oid, key: &Json) -> Result<Row> {
    let given: Vec<String> = target.key.iter().map(of_typed).collect();
    let there: Vec<String> = target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
    let text = |names: &[String]| format!("{}::pg_catalog.text", key_text(names));
    let whole = |name: &str| {
        let column = target.columns.iter().find(|c| c.name == name)?;
        let is_there = target.external.is_none() || target.key_names.iter().any(|k| k == name);
        let types = [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID];
        (is_there && types.contains(&column.type_oid))
            .then(|| format!("x.{}::pg_catalog.int8", column.quoted()))
    };
    // The column names that split_text returns.
    let (start, end) = match (whole("byte_start"), whole("byte_end")) {
        (Some(start), Some(end)) => (start, end),
        _ => ("null::pg_catalog.int8".to_owned(), "null::pg_catalog.int8".to_owned()),
    };
    let is_there = match target.key.iter().position(|k| k.nullable.is_none()) {
        Some(place) => format!("{} is not null", there[place]),
        // Only a table has such a key.
        None => "x.tableoid is not null".to_owned(),
    };
    let sql = format!(
        "select {given}, case when {is_there} then {there} end, {start}, {end}
           from {typed} left join {relation} as x on {on}",
        typed = typed(view)?,
        on = all_equal(&target.key, &there, &given),
        given = text(&given),
        is_there = is_there,
        there = text(&there),
        relation = target.relation_name(),
    );
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    by_indexes(&acting)?;
    let found = spi::select(&sql, &[arg(key.clone())], |r| {
        let there: Option<String> = r.get(2)?;
        Ok(Row {
            present: there.is_some(),
            key: there.map_or_else(|| spi::required(r, 1), Ok)?,
            bytes: r.get::<i64>(3)?.zip(r.get::<i64>(4)?),
        })
    })?;
    found.into_iter().next().ok_or_else(|| Error::internal("a key has no row"))
}

/// Returns the tracking rows of a source's items that own a target key, or claim it.
fn tracked(
    flow: &Flow,
    target: &Target,
    source: &Source,
    view: pg_sys::Oid,
    key: &Json,
    row: &Row,
) -> Result<Vec<Tracked>> {
    let own = tracking_keys(source, "t");
    let columns = format!(
        "{key}, t.source_ordinal, t.content_fingerprint,
         coalesce(t.logic_id, (t.failure operator(pg_catalog.->>) 'logic_id')::pg_catalog.int4),
         t.process_ordinal,
         pg_catalog.to_timestamp(t.process_ordinal operator(pg_catalog./) 1000000.0),
         t.failure operator(pg_catalog.-)
           '{{content_fingerprint,logic_id,target,claims}}'::pg_catalog._text,
         t.memo_refs",
        key = object(&source.key, &own)
    );
    let tracking = &source.tracking_view;
    let id = target.id.to_string();
    let mut found = Vec::new();
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    by_indexes(&acting)?;
    let mut read = |sql: &str, args: &[spi::Arg], claims: bool| -> Result<()> {
        found.extend(spi::select(sql, args, |r| {
            Ok(Tracked {
                source_key: spi::required(r, 1)?,
                ordinal: r.get(2)?,
                content: r.get(3)?,
                logic: r.get(4)?,
                process_ordinal: r.get(5)?,
                process_time: r.get(6)?,
                failure: r.get(7)?,
                memo_refs: r.get::<Vec<i64>>(8)?.unwrap_or_default(),
                claims,
            })
        })?);
        Ok(())
    };
    if let Some(covered) = &target.covered {
        let given: Vec<String> = covered.iter().map(|c| format!("(q.r).{}", ident(c))).collect();
        let sql = format!(
            "select {columns} from {typed} join {tracking} as t on {on}",
            typed = typed(view)?,
            on = all_equal(&source.key, &own, &given),
        );
        read(&sql, &[arg(key.clone())], false)?;
        return Ok(found);
    }
    let listed = json!({ id.as_str(): { row.key.as_str(): null } });
    let sql = format!(
        "select {columns} from {tracking} as t
          where t.target_keys is not null and t.target_keys operator(pg_catalog.@>) $1"
    );
    read(&sql, &[arg(Json::from(listed))], false)?;
    let sql = format!(
        "select {columns} from {tracking} as t
          where t.failure is not null
            and (t.failure operator(pg_catalog.->>) 'target') operator(pg_catalog.=) $1
            and (t.failure operator(pg_catalog.->>) 'claims') operator(pg_catalog.=) $2"
    );
    read(&sql, &[arg(id.as_str()), arg(row.key.as_str())], true)?;
    Ok(found)
}

fn item(
    flow: &Flow,
    target: &Target,
    source: &Source,
    tracked: Tracked,
    row: &Row,
) -> Result<OriginItem> {
    let logic = match tracked.logic {
        Some(id) => logic_description::logic(id)?,
        None => None,
    };
    let lookups = lookup_rows::lookups_of(flow, source, &tracked.source_key)?;
    let query = logic.as_ref().and_then(|l| l.queries.get(&target.id.to_string()));
    let state = match (tracked.claims, &tracked.failure) {
        (true, _) => "waiting_for_key",
        (false, Some(_)) => "failing",
        (false, None) => "produced",
    };
    Ok(OriginItem {
        flow: flow.name.clone(),
        source: source.name.clone(),
        relation: source.relation,
        source_key: tracked.source_key,
        state,
        ordinal: tracked.ordinal,
        content: tracked.content,
        query: query.and_then(Value::as_str).map(str::to_owned),
        label: match tracked.process_ordinal {
            Some(process_ordinal) => label(flow, process_ordinal)?,
            None => None,
        }
        .or_else(|| logic.as_ref().and_then(|logic| logic.label.clone())),
        logic,
        process_ordinal: tracked.process_ordinal,
        process_time: tracked.process_time,
        memo: Json::from(memo(flow, tracked.memo_refs)?),
        bytes: row.bytes.filter(|_| !tracked.claims),
        failure: tracked.failure,
        source_columns: source.used.iter().map(|column| column.name.clone()).collect(),
        lookups,
    })
}

/// Returns the label that a flow had at that time.
fn label(flow: &Flow, process_ordinal: i64) -> Result<Option<String>> {
    let _as = RoleGuard::extension_owner()?;
    spi::scalar(
        "select label from coco_internal.flow_label where flow = $1 and since <= $2 order by since desc limit 1",
        &[arg(flow.id), arg(process_ordinal)],
    )
}

/// Returns the memoized results that an item depends on, as a list of objects.
fn memo(flow: &Flow, entries: Vec<i64>) -> Result<Value> {
    let Some(table) = flow.memo.as_ref().filter(|_| !entries.is_empty()) else {
        return Ok(json!([]));
    };
    let acting = RoleGuard::extension_owner()?;
    by_indexes(&acting)?;
    let used = spi::select(
        &format!(
            "select function, fingerprint, to_json(made)::text from {table}
              where entry = any ($1) order by entry"
        ),
        &[arg(entries)],
        |r| {
            let made: String = spi::required(r, 3)?;
            Ok((spi::required::<i32>(r, 1)?, spi::required::<i64>(r, 2)?, made))
        },
    )?;
    drop(acting);
    let _as = RoleGuard::extension_owner()?;
    let functions: HashMap<i32, (String, String)> = spi::select(
        "select id, function, fingerprint::text from coco_internal.memo_stats where flow = $1",
        &[arg(flow.name.as_str())],
        |r| Ok((spi::required(r, 1)?, (spi::required(r, 2)?, spi::required(r, 3)?))),
    )?
    .into_iter()
    .collect();
    Ok(used
        .into_iter()
        .map(|(function, input, made)| {
            let (name, code) = functions.get(&function).cloned().unzip();
            json!({
                "function": name, "fingerprint": code, "input": format!("{:016x}", input as u64),
                "made": made.trim_matches('"'),
            })
        })
        .collect())
}
