//! The table of a flow's memoised results.
//!
//! An entry is found by its function and half of the fingerprint of its input, and holds the input
//! itself. It counts the items that use it, which list it in their tracking rows: when the last lets go
//! of it, it goes too. What was computed for an item that could not be written in the end is kept for
//! [`KEPT`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};

use super::evaluate;
use super::recalling::{Known, Recalling};
use crate::catalog::batch::{Action, Batch};
use crate::catalog::compose;
use crate::catalog::derived;
use crate::catalog::error::{Error, Result};
use crate::catalog::model::{Flow, Source, all_equal, numbered};
use crate::catalog::role::{ActingAs, Settings};
use crate::catalog::sql::{self, arg, ident, literal};
use crate::catalog::tuples::{RowColumn, Rows, Statements};
use crate::engine::memo::{Bytes, Entry, FunctionId, Place, State, Stats};

/// How long what no item uses yet is kept, as an interval.
const KEPT: &str = "7 days";

/// Entries that are looked for, or added, by one statement.
const AT_ONCE: usize = 5_000;

/// Makes the table of a flow's results, if it is not there.
pub fn make(flow: &Flow) -> Result<String> {
    if let Some(table) = &flow.memo {
        return Ok(table.clone());
    }
    let _as = ActingAs::extension_owner()?;
    let name = format!("coco.{}", ident(&derived::object_name("memo", flow.id, &flow.name)));
    sql::execute(
        &format!(
            "create table {name} (
               entry bigint primary key, function int not null, fingerprint bigint not null,
               input bytea not null, result bytea, uses int not null, made timestamptz not null,
               kept_until timestamptz) with (fillfactor = 90)"
        ),
        &[],
    )?;
    let index = |prefix: &str| ident(&derived::object_name(prefix, flow.id, &flow.name));
    for statement in [
        format!("create index {} on {name} (function, fingerprint)", index("memo_input")),
        format!(
            "create index {} on {name} (kept_until) where kept_until is not null",
            index("memo_kept")
        ),
        format!(
            "comment on table {name} is {}",
            literal(&format!("Results of the memoised functions of flow {}", flow.name))
        ),
        format!("alter table {name} owner to {}", derived::owner_name(flow.owner)?),
    ] {
        sql::execute(&statement, &[])?;
    }
    sql::execute(
        "update coco.flow set memo = $2::text::regclass where id = $1",
        &[arg(flow.id), arg(name.as_str())],
    )?;
    crate::catalog::generation::changed()?;
    Ok(name)
}

/// What results of a flow's functions are kept under, as far as any are; with `make` under what they
/// will be.
pub fn known(flow: &Flow, make: bool) -> Result<HashMap<pg_sys::Oid, Known>> {
    let _as = ActingAs::extension_owner()?;
    let mut all = HashMap::new();
    for function in &flow.memoised {
        let args =
            [arg(flow.name.as_str()), arg(function.name.as_str()), arg(function.fingerprint)];
        let mut id = sql::one::<i32>(
            "select id from coco.memo where flow = $1 and function = $2 and fingerprint = $3",
            &args,
        )?;
        if id.is_none() && make {
            id = sql::returning(
                "insert into coco.memo (flow, function, fingerprint) values ($1, $2, $3)
                 on conflict do nothing returning id",
                &args,
                |r| sql::required(r, 1),
            )?
            .pop();
        }
        let known = Known { function: Rc::clone(function), id: id.map(FunctionId) };
        all.insert(function.oid, known);
    }
    Ok(all)
}

/// `coco.recall`.
pub fn recall() -> Result<pg_sys::Oid> {
    sql::one::<pg_sys::Oid>("select 'coco.recall(internal)'::regprocedure::oid", &[])?
        .ok_or_else(|| Error::internal("coco.recall does not exist"))
}

fn acting(recalling: &Recalling) -> Result<ActingAs> {
    ActingAs::flow_owner(recalling.owner, &Settings::qualifying())
}

fn entry(r: &pgrx::spi::SpiHeapTupleData) -> Result<Entry> {
    let bytes = |n: usize| Ok::<_, Error>(r.get::<&[u8]>(n)?.map(Rc::<[u8]>::from));
    Ok(Entry {
        stored: Some(sql::required(r, 1)?),
        function: FunctionId(sql::required(r, 2)?),
        fingerprint: sql::required(r, 3)?,
        input: bytes(4)?.ok_or_else(|| Error::internal("a result without an input"))?,
        state: State::Known(bytes(5)?),
    })
}

/// The entries of these functions and fingerprints: their inputs are still to be compared.
pub fn find(recalling: &Recalling, keys: &[(FunctionId, i64)]) -> Result<Vec<Entry>> {
    let Some(table) = &recalling.table else { return Ok(vec![]) };
    let _as = acting(recalling)?;
    let mut all = Vec::new();
    for keys in keys.chunks(AT_ONCE) {
        let (functions, fingerprints): (Vec<i32>, Vec<i64>) =
            keys.iter().map(|(f, p)| (f.0, *p)).unzip();
        all.extend(sql::select(
            &format!(
                "select m.entry, m.function, m.fingerprint, m.input, m.result
                   from unnest($1::int[], $2::bigint[]) as k(function, fingerprint)
                   join {table} as m on m.function = k.function and m.fingerprint = k.fingerprint
                  where m.made >= {} order by m.entry",
                since(recalling)
            ),
            &[arg(functions), arg(fingerprints)],
            entry,
        )?);
    }
    Ok(all)
}

fn since(recalling: &Recalling) -> String {
    match recalling.since {
        None => "'-infinity'::pg_catalog.timestamptz".to_owned(),
        Some(micros) => format!(
            "pg_catalog.to_timestamp({}.{:06})",
            micros.div_euclid(1_000_000),
            micros.rem_euclid(1_000_000)
        ),
    }
}

/// The entries that the items of a batch used when they were last evaluated: they are likely to be
/// used again.
pub fn used_by(recalling: &Recalling, source: &Source, batch: &Batch) -> Result<Vec<Entry>> {
    let Some(table) = &recalling.table else { return Ok(vec![]) };
    let mut rows = Rows::new(&[
        RowColumn::new("entry", pg_sys::INT8OID),
        RowColumn::new("function", pg_sys::INT4OID),
        RowColumn::new("fingerprint", pg_sys::INT8OID),
        RowColumn::new("input", pg_sys::BYTEAOID),
        RowColumn::new("result", pg_sys::BYTEAOID),
    ])?;
    let statements = Statements::connect()?;
    statements.name("coco_batch", batch.rows())?;
    statements.query_into(
        &format!(
            "select m.entry, m.function, m.fingerprint, m.input, m.result
               from (select distinct u.entry from coco_batch as b join {} as t on {}
                      cross join lateral pg_catalog.unnest(t.memo_refs) as u(entry)
                      where b.action operator(pg_catalog.=) 'e'::pg_catalog.\"char\") as u
               join {table} as m on m.entry operator(pg_catalog.=) u.entry
              where m.made operator(pg_catalog.>=) {}",
            source.tracking,
            same_item(source),
            since(recalling),
        ),
        &[],
        &mut rows,
    )?;
    let mut all = Vec::new();
    while rows.advance() {
        let bytes = |n: usize| rows.get::<&[u8]>(n).map(Rc::<[u8]>::from);
        let (Some(stored), Some(function), Some(fingerprint), Some(input)) =
            (rows.get(0), rows.get(1), rows.get(2), bytes(3))
        else {
            continue;
        };
        let state = State::Known(bytes(4));
        let stored = Some(stored);
        all.push(Entry { function: FunctionId(function), fingerprint, input, state, stored });
    }
    Ok(all)
}

fn same_item(source: &Source) -> String {
    let batch = numbered("b.k", source.key.len());
    all_equal(&source.key, &compose::tracking_keys(source, "t"), &batch)
}

/// What is added to the store.
struct New<'a> {
    place: Place,
    entry: &'a Entry,
    result: &'a Bytes,
    uses: i32,
}

fn add(recalling: &Recalling, table: &str, new: &[New], kept: bool) -> Result<Vec<(Place, i64)>> {
    let _as = acting(recalling)?;
    let mut numbers = Vec::with_capacity(new.len());
    // One writer at a time has the flow's lock: nobody else numbers entries.
    let mut last = sql::one::<i64>(&format!("select max(entry) from {table}"), &[])?.unwrap_or(0);
    let until = match kept {
        true => format!("clock_timestamp() + interval '{KEPT}'"),
        false => "null::timestamptz".to_owned(),
    };
    for new in new.chunks(AT_ONCE) {
        let first = last;
        let ids: Vec<i64> = new.iter().zip(first + 1..).map(|(_, id)| id).collect();
        last += new.len() as i64;
        numbers.extend(new.iter().map(|n| n.place).zip(ids.iter().copied()));
        let bytes = |b: &Rc<[u8]>| b.to_vec();
        sql::execute(
            &format!(
                "insert into {table} (entry, function, fingerprint, input, result, uses, made, kept_until)
                 select n.*, clock_timestamp(), {until}
                   from unnest($1::bigint[], $2::int[], $3::bigint[], $4::bytea[], $5::bytea[], $6::int[]) as n"
            ),
            &[
                arg(ids),
                arg(new.iter().map(|n| n.entry.function.0).collect::<Vec<_>>()),
                arg(new.iter().map(|n| n.entry.fingerprint).collect::<Vec<_>>()),
                arg(new.iter().map(|n| bytes(&n.entry.input)).collect::<Vec<_>>()),
                arg(new.iter().map(|n| n.result.as_ref().map(bytes)).collect::<Vec<_>>()),
                arg(new.iter().map(|n| n.uses).collect::<Vec<_>>()),
            ],
        )?;
    }
    Ok(numbers)
}

/// What a batch that is being written has done to the store.
pub struct Used {
    /// `no`, and `refs`: the entries that an item uses.
    pub refs: Rows,
    /// New entries and their numbers, if the batch is kept.
    pub stored: Vec<(Place, i64)>,
    /// Results that its items rest on.
    pub calls: BTreeMap<FunctionId, i64>,
}

/// Stores the results that the items of a batch use, before their tracking rows are written: adds
/// those that are new, and lets go of those that are used no more.
pub fn note_uses(
    recalling: &Recalling,
    source: &Source,
    batch: &Batch,
    targets: usize,
) -> Result<Used> {
    let table = recalling.table.as_deref().ok_or_else(|| Error::internal("no memo was made"))?;
    let recall = recalling.recall.borrow();
    let mut uses: Vec<(usize, BTreeSet<Place>)> = Vec::new();
    let mut counts: BTreeMap<Place, i32> = BTreeMap::new();
    let mut calls: BTreeMap<FunctionId, i64> = BTreeMap::new();
    for (n, item) in batch.items.iter().enumerate() {
        if item.action != Action::Evaluate {
            continue;
        }
        let of = |target| recall.uses().get(&evaluate::item(batch, target, n));
        let places: BTreeSet<Place> = (0..targets).filter_map(of).flatten().copied().collect();
        for place in &places {
            *counts.entry(*place).or_default() += 1;
            *calls.entry(recall.get(*place).function).or_default() += 1;
        }
        uses.push((n, places));
    }
    let mut new = Vec::new();
    for (place, uses) in &counts {
        let entry = recall.get(*place);
        if let (State::Known(result), None) = (&entry.state, entry.stored) {
            new.push(New { place: *place, entry, result, uses: *uses });
        }
    }
    let stored = add(recalling, table, &new, false)?;
    let numbers: HashMap<Place, i64> = stored.iter().copied().collect();
    let number = |place: &Place| recall.get(*place).stored.or_else(|| numbers.get(place).copied());

    let mut refs = Rows::new(&[
        RowColumn::new("no", pg_sys::INT4OID),
        RowColumn::new("refs", pg_sys::INT8ARRAYOID),
    ])?;
    let mut held = false;
    for (n, places) in uses.iter().filter(|(_, places)| !places.is_empty()) {
        let list: Vec<i64> = places.iter().filter_map(number).collect();
        held |= places.iter().any(|p| recall.get(*p).stored.is_some());
        refs.push(&[(*n as i32).into_datum(), list.into_datum()]);
    }
    if held || batch.items.iter().any(|i| i.tracked && i.action != Action::Advance) {
        let first_new = stored.iter().map(|(_, id)| *id).min().unwrap_or(i64::MAX);
        balance(table, source, batch, &refs, first_new)?;
    }
    Ok(Used { refs, stored, calls })
}

/// Counts the uses of entries that were there before (below `first_new`) up and down, and deletes
/// those that are not used any more.
fn balance(table: &str, source: &Source, batch: &Batch, refs: &Rows, first_new: i64) -> Result<()> {
    let mut changes = Rows::new(&[
        RowColumn::new("entry", pg_sys::INT8OID),
        RowColumn::new("more", pg_sys::INT4OID),
    ])?;
    let statements = Statements::connect()?;
    statements.name("coco_batch", batch.rows())?;
    statements.name("coco_refs", refs)?;
    statements.query_into(
        &format!(
            "select x.entry, pg_catalog.sum(x.more)::pg_catalog.int4
               from (select u.entry, -1 as more
                       from coco_batch as b join {} as t on {}
                      cross join lateral pg_catalog.unnest(t.memo_refs) as u(entry)
                      where b.action operator(pg_catalog.<>) 'a'::pg_catalog.\"char\"
                     union all
                     select u.entry, 1
                       from coco_refs as r cross join lateral pg_catalog.unnest(r.refs) as u(entry)
                      where u.entry operator(pg_catalog.<) $1) as x
              group by x.entry
             having pg_catalog.sum(x.more) operator(pg_catalog.<>) 0",
            source.tracking,
            same_item(source),
        ),
        &[arg(first_new)],
        &mut changes,
    )?;
    if changes.len() == 0 {
        return Ok(());
    }
    let writing = Statements::connect()?;
    writing.name("coco_changes", &changes)?;
    writing.execute(
        &format!(
            "update {table} as m set uses = m.uses operator(pg_catalog.+) c.more, kept_until = null
               from coco_changes as c
              where m.entry operator(pg_catalog.=) c.entry
                and m.uses operator(pg_catalog.+) c.more operator(pg_catalog.>) 0"
        ),
        &[],
    )?;
    writing.execute(
        &format!(
            "delete from {table} as m using coco_changes as c
              where m.entry operator(pg_catalog.=) c.entry and c.more operator(pg_catalog.<) 0
                and m.uses operator(pg_catalog.+) c.more operator(pg_catalog.<=) 0"
        ),
        &[],
    )?;
    Ok(())
}

/// Keeps for a while what was computed and no item uses: an item failed for another reason, or what
/// it was computed for was rolled back.
pub fn keep_unused(recalling: &Recalling) -> Result<()> {
    let Some(table) = recalling.table.as_deref() else { return Ok(()) };
    let stored = {
        let recall = recalling.recall.borrow();
        let unstored = recall.unstored();
        let mut new = Vec::new();
        for place in &unstored {
            let entry = recall.get(*place);
            if let State::Known(result) = &entry.state {
                new.push(New { place: *place, entry, result, uses: 0 });
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        add(recalling, table, &new, true)?
    };
    recalling.recall.borrow_mut().stored(&stored);
    Ok(())
}

/// Deletes what was kept for long enough.
pub fn expire(recalling: &Recalling) -> Result<()> {
    let Some(table) = &recalling.table else { return Ok(()) };
    let _as = acting(recalling)?;
    sql::execute(
        &format!("delete from {table} where kept_until < clock_timestamp() and uses = 0"),
        &[],
    )?;
    Ok(())
}

/// Adds to what is known of the functions of a flow.
pub fn count(stats: &BTreeMap<FunctionId, Stats>) -> Result<()> {
    let _as = ActingAs::extension_owner()?;
    for (function, s) in stats {
        sql::execute(
            "update coco.memo
                set calls = calls + $2, misses = misses + $3, errors = errors + $4,
                    requests = requests + $5, tokens_in = tokens_in + $6, tokens_out = tokens_out + $7,
                    cost = cost + $8, bytes = bytes + $9,
                    elapsed = elapsed + $10 * interval '1 microsecond'
              where id = $1",
            &[
                arg(function.0),
                arg(s.calls),
                arg(s.misses),
                arg(s.errors),
                arg(s.requests),
                arg(s.tokens_in),
                arg(s.tokens_out),
                arg(s.cost),
                arg(s.bytes),
                arg(s.micros as f64),
            ],
        )?;
    }
    Ok(())
}

/// Forgets results of a flow: of one function, or of all. Returns how many.
pub fn forget(flow: &Flow, function: Option<pg_sys::Oid>) -> Result<i64> {
    let Some(table) = &flow.memo else { return Ok(0) };
    let name = match function {
        None => None,
        Some(oid) => {
            Some(sql::one::<String>("select $1::regprocedure::text", &[arg(oid)])?.ok_or_else(
                || Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION, "no such function"),
            )?)
        }
    };
    let ids: Vec<i32> = {
        let _as = ActingAs::extension_owner()?;
        sql::select(
            "select id from coco.memo where flow = $1 and ($2::text is null or function = $2)",
            &[arg(flow.name.as_str()), arg(name)],
            |r| sql::required(r, 1),
        )?
    };
    let _as = ActingAs::flow_owner(flow.owner, &Settings::qualifying())?;
    sql::execute(&format!("delete from {table} where function = any ($1)"), &[arg(ids)])
}
