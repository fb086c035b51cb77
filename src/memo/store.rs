//! Reads and writes the table of a flow's memoized results.
//!
//! coco finds an entry by its function and half of the fingerprint of its input, and compares the
//! stored input. The entry counts the items that use it, and their tracking rows list it. When the
//! last item stops using an entry, coco deletes it. A result that was computed for an item that
//! could not be written is kept for [`KEPT`].

use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::catalog::model::Flow;
use crate::memo::session::{KnownFunction, MemoSession};
use crate::pg::acting_role::RoleGuard;
use crate::pg::bulk_insert;
use crate::pg::clock;
use crate::pg::error::{Error, Result};
use crate::pg::internal_objects;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use coco_core::memo_batch::{EntryIndex, FunctionId, MemoEntry, Seal, State, Stats};

/// How long coco keeps a result that no item uses yet; an interval.
pub const KEPT: &str = "7 days";

/// How many entries one statement reads or adds.
pub const AT_ONCE: usize = 5_000;

/// Returns the memoized functions of a flow, with the ids of their results in the store. With
/// `make`, assigns missing ids in the store; otherwise the missing ids are negative.
pub fn known(flow: &Flow, make: bool) -> Result<HashMap<pg_sys::Oid, KnownFunction>> {
    let _as = RoleGuard::extension_owner()?;
    let mut all = HashMap::new();
    // A result expires at the same moment for the whole session, whose own results do not expire.
    let now = clock::now_micros();
    for (n, function) in flow.memoized.iter().enumerate() {
        let args =
            [arg(flow.name.as_str()), arg(function.name.as_str()), arg(function.fingerprint)];
        let row = spi::select(
            "select id, function_owner::oid from coco_internal.memo_stats
              where flow = $1 and function = $2 and fingerprint = $3",
            &args,
            |r| Ok((spi::required::<i32>(r, 1)?, r.get::<pg_sys::Oid>(2)?)),
        )?
        .pop();
        let id = match row {
            None if make => spi::returning(
                "insert into coco_internal.memo_stats (flow, function, fingerprint, function_owner)
                 values ($1, $2, $3, $4) on conflict do nothing returning id",
                &[
                    arg(flow.name.as_str()),
                    arg(function.name.as_str()),
                    arg(function.fingerprint),
                    arg(function.owner),
                ],
                |r| spi::required(r, 1),
            )?
            .pop(),
            None => i32::try_from(n).ok().map(|n| -1 - n),
            Some((id, owner)) => {
                // From now on, the store may have results of both owners, and no other flow may
                // reuse them.
                let same = function.kind.is_provided() || owner == Some(function.owner);
                if make && owner.is_some() && !same {
                    spi::execute(
                        "update coco_internal.memo_stats set function_owner = null where id = $1",
                        &[arg(id)],
                    )?;
                }
                Some(id)
            }
        };
        let known = KnownFunction {
            function: Rc::clone(function),
            id: id.map(FunctionId),
            since: function.ttl.as_ref().map(|ttl| now.saturating_sub(ttl.micros)),
        };
        all.insert(function.oid, known);
    }
    Ok(all)
}

/// Returns the OID of `coco_internal.memo_call`.
pub fn recall() -> Result<pg_sys::Oid> {
    internal_objects::function(c"memo_call")
}

/// Returns the entries that a statement has returned. The statement must have written them to a
/// tuplestore: values read from SPI's own results stay in memory until the transaction ends.
fn entries(rows: &mut TupleStore) -> Vec<MemoEntry> {
    let mut all = Vec::with_capacity(rows.len());
    while rows.advance() {
        let bytes = |n: usize| rows.get::<&[u8]>(n).map(Rc::<[u8]>::from);
        let (Some(stored), Some(function), Some(fingerprint), Some(input)) =
            (rows.get(0), rows.get(1), rows.get(2), bytes(3))
        else {
            continue;
        };
        let seal = rows.get(5).map_or(Seal::Open, Seal::Stored);
        let (function, state) = (FunctionId(function), State::Known(bytes(4)));
        let stored = Some(stored);
        all.push(MemoEntry { function, fingerprint, input, state, seal, stored, made: None });
    }
    all
}

/// The columns that coco reads of an entry `m`.
pub const ENTRY: &str = "m.entry, m.function, m.fingerprint, m.input, m.result, m.seal";

pub fn entry_columns() -> [RowColumn; 6] {
    [
        RowColumn::new("entry", pg_sys::INT8OID),
        RowColumn::new("function", pg_sys::INT4OID),
        RowColumn::new("fingerprint", pg_sys::INT8OID),
        RowColumn::new("input", pg_sys::BYTEAOID),
        RowColumn::new("result", pg_sys::BYTEAOID),
        RowColumn::new("seal", pg_sys::INT8OID),
    ]
}

/// Returns the entries with these functions and fingerprints. The caller must compare their inputs.
pub fn find(recalling: &MemoSession, keys: &[(FunctionId, i64)]) -> Result<Vec<MemoEntry>> {
    let Some(table) = &recalling.table else { return Ok(vec![]) };
    let _as = RoleGuard::extension_owner()?;
    let mut all = Vec::new();
    let some = spi::scalar::<bool>(&format!("select true from {table} limit 1"), &[])?;
    if some.is_none() {
        return Ok(all);
    }
    let (expiring, times) = recalling.expiring();
    for keys in keys.chunks(AT_ONCE) {
        let (functions, fingerprints): (Vec<i32>, Vec<i64>) =
            keys.iter().map(|(f, p)| (f.0, *p)).unzip();
        let mut rows = TupleStore::new(&entry_columns())?;
        let statements = SpiSession::connect()?;
        statements.select_into(
            &format!(
                "select {ENTRY}
                   from unnest($1::int[], $2::bigint[]) as k(function, fingerprint)
                   join {table} as m on m.function = k.function and m.fingerprint = k.fingerprint
                  where m.made >= {} and {} order by m.entry",
                since(recalling),
                is_fresh("$3", "$4"),
            ),
            &[arg(functions), arg(fingerprints), arg(expiring.clone()), arg(times.clone())],
            &mut rows,
        )?;
        all.extend(entries(&mut rows));
    }
    Ok(all)
}

fn since(recalling: &MemoSession) -> String {
    match recalling.since {
        None => "'-infinity'::pg_catalog.timestamptz".to_owned(),
        Some(micros) => format!(
            "pg_catalog.to_timestamp({}.{:06})",
            micros.div_euclid(1_000_000),
            micros.rem_euclid(1_000_000)
        ),
    }
}

/// Returns an SQL condition: entry `m` has not expired. The parameters are the functions whose
/// results can expire, and the times from which results count.
fn is_fresh(functions: &str, times: &str) -> String {
    format!(
        "not exists (select from unnest({functions}::int[], {times}::bigint[]) as f(function, since)
                      where f.function = m.function
                        and m.made < 'epoch'::timestamptz + f.since::float8 * interval '1 microsecond')"
    )
}

/// Returns the entries with these numbers.
pub fn read(recalling: &MemoSession, numbers: &TupleStore) -> Result<Vec<MemoEntry>> {
    let Some(table) = &recalling.table else { return Ok(vec![]) };
    let _as = RoleGuard::extension_owner()?;
    let mut rows = TupleStore::new(&entry_columns())?;
    let (expiring, times) = recalling.expiring();
    let statements = SpiSession::connect()?;
    statements.name("coco_entries", numbers)?;
    statements.query_into(
        &format!(
            "select {ENTRY} from coco_entries as u join {table} as m on m.entry = u.entry
              where m.made >= {} and {}",
            since(recalling),
            is_fresh("$1", "$2"),
        ),
        &[arg(expiring), arg(times)],
        &mut rows,
    )?;
    Ok(entries(&mut rows))
}

/// A new entry of the store.
pub struct New<'a> {
    pub place: EntryIndex,
    pub entry: &'a MemoEntry,
    pub uses: i32,
}

/// How long an entry is kept.
#[derive(Clone, Copy)]
pub enum Until {
    /// Until no item uses it any more.
    Unused,
    /// For [`KEPT`], because no item uses it yet.
    Over,
}

fn rows_of(new: &[New], ids: &[i64]) -> Result<TupleStore> {
    let mut columns = entry_columns().to_vec();
    columns.push(RowColumn::new("uses", pg_sys::INT4OID));
    columns.push(RowColumn::new("made", pg_sys::INT8OID));
    let mut rows = TupleStore::new(&columns)?;
    let mut values = pgrx::PgMemoryContexts::new("coco memo rows");
    for (new, id) in new.iter().zip(ids) {
        let Some((result, seal)) = new.entry.sealed() else {
            return Err(Error::internal("cannot store an unknown result"));
        };
        // SAFETY: the row is copied before the context is reset.
        unsafe {
            values.switch_to(|_| {
                rows.push(&[
                    id.into_datum(),
                    new.entry.function.0.into_datum(),
                    new.entry.fingerprint.into_datum(),
                    (*new.entry.input).into_datum(),
                    result.as_deref().and_then(IntoDatum::into_datum),
                    seal.into_datum(),
                    new.uses.into_datum(),
                    new.entry.made.and_then(IntoDatum::into_datum),
                ]);
            });
            values.reset();
        }
    }
    Ok(rows)
}

/// Adds entries. Returns their numbers.
pub fn add(table: &str, new: &[New], until: Until) -> Result<Vec<(EntryIndex, i64)>> {
    let _as = RoleGuard::extension_owner()?;
    let _now = PinnedSnapshot::take();
    let mut numbers = Vec::with_capacity(new.len());
    let until = match until {
        Until::Unused => "null::timestamptz".to_owned(),
        Until::Over => format!("clock_timestamp() + interval '{KEPT}'"),
    };
    for new in new.chunks(AT_ONCE) {
        // The sequence never reuses a number, because an item may still list an old one.
        let statements = SpiSession::connect()?;
        let mut taken = TupleStore::new(&[RowColumn::new("entry", pg_sys::INT8OID)])?;
        statements.query_into(
            "select nextval(s.entries)
               from (select pg_get_serial_sequence($1, 'entry')::regclass as entries offset 0) as s,
                    generate_series(1, $2)",
            &[arg(table), arg(new.len() as i32)],
            &mut taken,
        )?;
        let mut ids = Vec::with_capacity(new.len());
        while taken.advance() {
            ids.extend(taken.get::<i64>(0));
        }
        if ids.len() != new.len() {
            return Err(Error::internal(format!("{table} has no sequence for its entries")));
        }
        let rows = rows_of(new, &ids)?;
        numbers.extend(new.iter().map(|n| n.place).zip(ids));
        statements.name("coco_new", &rows)?;
        let own = ["entry", "function", "fingerprint", "input", "result", "seal", "uses"];
        let mut columns: Vec<(String, String)> =
            own.iter().map(|name| ((*name).to_owned(), format!("n.{name}"))).collect();
        let made = "coalesce('epoch'::timestamptz + n.made::float8 * interval '1 microsecond',
                             clock_timestamp())";
        columns.push(("made".to_owned(), made.to_owned()));
        columns.push(("kept_until".to_owned(), until.clone()));
        bulk_insert::insert(&statements, table, &columns, "coco_new as n", &[])?;
    }
    Ok(numbers)
}

/// Stores results that no item uses, for a while. The item failed for another reason, or its
/// transaction was rolled back.
pub fn keep_unused(recalling: &MemoSession) -> Result<()> {
    let Some(table) = recalling.table.as_deref() else { return Ok(()) };
    let stored = {
        let recall = recalling.recall.borrow();
        let unstored = recall.unstored_entries();
        let mut new = Vec::new();
        for place in &unstored {
            let entry = recall.get(*place);
            new.push(New { place: *place, entry, uses: 0 });
        }
        if new.is_empty() {
            return Ok(());
        }
        add(table, &new, Until::Over)?
    };
    recalling.recall.borrow_mut().mark_stored(&stored);
    Ok(())
}

/// Deletes unused results whose time is over.
pub fn expire(recalling: &MemoSession) -> Result<()> {
    let Some(table) = &recalling.table else { return Ok(()) };
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        &format!("delete from {table} where kept_until < clock_timestamp() and uses = 0"),
        &[],
    )?;
    Ok(())
}

/// Adds to the statistics of a flow's functions.
pub fn count(stats: &BTreeMap<FunctionId, Stats>) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    for (function, s) in stats {
        spi::execute(
            "update coco_internal.memo_stats
                set calls = calls + $2, misses = misses + $3, errors = errors + $4,
                    requests = requests + $5, tokens_in = tokens_in + $6, tokens_out = tokens_out + $7,
                    cost = cost + $8, bytes = bytes + $9,
                    elapsed = elapsed + $10 * interval '1 microsecond', reused = reused + $11
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
                arg(s.reused),
            ],
        )?;
    }
    Ok(())
}

/// Returns the name under which coco stores results of a function, with schema and argument types.
pub fn function_name(function: pg_sys::Oid) -> Result<String> {
    let _as = RoleGuard::qualifying_names()?;
    spi::scalar::<String>(
        "select p.oid::regprocedure::text from pg_catalog.pg_proc p where p.oid = $1",
        &[arg(function)],
    )?
    .ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
            format!("function with OID {} does not exist", function.to_u32()),
        )
    })
}

/// Deletes stored results of a flow: of one function, or of all. Returns how many it deleted. The
/// flow does not reuse results of other flows that were computed before.
pub fn forget(flow: &Flow, function: Option<&str>) -> Result<i64> {
    let Some(table) = &flow.memo else { return Ok(0) };
    let _as = RoleGuard::extension_owner()?;
    let ids = spi::returning(
        "update coco_internal.memo_stats set cleared = clock_timestamp()
          where flow = $1 and ($2::text is null or function = $2)
         returning id",
        &[arg(flow.name.as_str()), arg(function)],
        |r| spi::required::<i32>(r, 1),
    )?;
    spi::execute(&format!("delete from {table} where function = any ($1)"), &[arg(ids)])
}
