//! Finds missing results in the tables of other flows of the same owner, and in the tables that
//! coco [keeps](super::kept) of the owner's dropped flows. An item that uses such a result causes a
//! copy in the flow's own table.
//!
//! A result is reused only if the function has the same name, owner, code and version. A function
//! that no provider computes may also depend on the settings of the flow, which must then be equal.
//! coco checks the result as it checks a result of the own table.
//!
//! coco reads another table only if it gets all locks at once, and releases them immediately
//! afterwards. No flow therefore waits for another one.

use pgrx::pg_sys;
use std::collections::HashMap;
use std::rc::Rc;

use crate::catalog::internal_tables;
use crate::memo::result_table::IS_RESULT_TABLE;
use crate::memo::session::{MemoSession, OtherFunction, OtherTable};
use crate::memo::store::{self, AT_ONCE};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction;
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use coco_core::memo_batch::{EntryIndex, FunctionId, MemoEntry, ReusableSeal, Seal, State};

/// The number of tables in which coco looks for the results of one function, at most.
const TABLES: i64 = 16;

/// Completes those of these entries that are still requested, as far as other tables have their
/// results.
pub fn load_reusable(recalling: &MemoSession, places: &[EntryIndex]) -> Result<()> {
    // A full reprocess uses only results that it has computed itself.
    if recalling.since.is_some() {
        return Ok(());
    }
    if missing(recalling, places).is_empty() {
        return Ok(());
    }
    for table in other_tables(recalling)?.iter() {
        pgrx::check_for_interrupts!();
        let keys = keys_in(recalling, table, places);
        if keys.is_empty() {
            continue;
        }
        // Rolled back, which releases the locks.
        let found = subtransaction::look(|| read(table, &keys))?;
        let mut recall = recalling.recall.borrow_mut();
        found.into_iter().for_each(|entry| recall.load_reusable(entry));
    }
    Ok(())
}

/// Returns the functions and fingerprints of the entries that are still requested.
fn missing(recalling: &MemoSession, places: &[EntryIndex]) -> Vec<(FunctionId, i64)> {
    let recall = recalling.recall.borrow();
    let entries = places.iter().map(|place| recall.get(*place));
    let requested = entries.filter(|entry| entry.state == State::Asked);
    requested.map(|entry| (entry.function, entry.fingerprint)).collect()
}

/// Returns the keys of the requested entries whose function a table has results of.
fn keys_in(
    recalling: &MemoSession,
    table: &OtherTable,
    places: &[EntryIndex],
) -> Vec<(OtherFunction, i64)> {
    let functions: HashMap<FunctionId, OtherFunction> =
        table.functions.iter().map(|function| (function.own, *function)).collect();
    let missing = missing(recalling, places).into_iter();
    missing.filter_map(|(own, hash)| Some((*functions.get(&own)?, hash))).collect()
}

/// Reads the results of these functions and fingerprints. Returns none if another transaction has
/// locked the table. The caller must compare the inputs.
fn read(table: &OtherTable, keys: &[(OtherFunction, i64)]) -> Result<Vec<MemoEntry>> {
    if !internal_tables::lock_to_read(table.relation) {
        return Ok(vec![]);
    }
    let acting = RoleGuard::extension_owner()?;
    // The index finds each key. The statistics of a table that grows or was never analyzed could
    // suggest to read all of it for each batch.
    for way in ["enable_seqscan", "enable_hashjoin", "enable_mergejoin"] {
        acting.set(way, "off")?;
    }
    let _now = PinnedSnapshot::take();
    let own: HashMap<i32, OtherFunction> = keys.iter().map(|(f, _)| (f.other.0, *f)).collect();
    let mut all = Vec::new();
    for keys in keys.chunks(AT_ONCE) {
        pgrx::check_for_interrupts!();
        let (functions, fingerprints): (Vec<i32>, Vec<i64>) =
            keys.iter().map(|(function, hash)| (function.other.0, *hash)).unzip();
        let mut columns = store::entry_columns().to_vec();
        columns.push(RowColumn::new("made", pg_sys::INT8OID));
        let mut rows = TupleStore::new(&columns)?;
        let statements = SpiSession::connect()?;
        statements.select_into(
            &format!(
                "select {}, (extract(epoch from m.made) * 1000000)::bigint
                   from unnest($1::int[], $2::bigint[]) as k(function, fingerprint)
                   join {} as m on m.function = k.function and m.fingerprint = k.fingerprint
                  where isfinite(m.made)",
                store::ENTRY,
                table.name,
            ),
            &[arg(functions), arg(fingerprints)],
            &mut rows,
        )?;
        drop(statements);
        all.extend(entries(&mut rows, &own));
    }
    Ok(all)
}

/// Returns the entries that a statement has returned, under the functions' own ids.
fn entries(rows: &mut TupleStore, own: &HashMap<i32, OtherFunction>) -> Vec<MemoEntry> {
    let mut all = Vec::with_capacity(rows.len());
    while rows.advance() {
        let bytes = |n: usize| rows.get::<&[u8]>(n).map(Rc::<[u8]>::from);
        let function = rows.get::<i32>(1).and_then(|id| own.get(&id));
        let (Some(entry), Some(function), Some(fingerprint), Some(input), Some(seal), Some(made)) =
            (rows.get(0), function, rows.get(2), bytes(3), rows.get(5), rows.get::<i64>(6))
        else {
            continue;
        };
        if function.since.is_some_and(|since| made <= since) {
            continue;
        }
        all.push(MemoEntry {
            function: function.own,
            fingerprint,
            input,
            state: State::Known(bytes(4)),
            seal: Seal::Reusable(ReusableSeal { function: function.other, entry, seal }),
            stored: None,
            made: Some(made),
        });
    }
    all
}

/// Selects the tables with results of functions of flow `$1`: the functions' ids `$2`, names,
/// fingerprints and owners, and whether a provider computes them. At most `$7` tables for each
/// function: first those of dropped flows of the same name, then the newest ones. For a version of
/// another flow, the name is that of the other flow, whose own table comes first, too.
const OTHERS: &str = "
with own as (
  select coalesce(m.flow, f.flow) as flow, f.owner, f.settings
    from coco_internal.flow f left join coco_internal.version v on v.flow = f.id left join coco_internal.flow m on m.id = v.of
   where f.id = $1
), wanted as (
  select w.id, w.function, w.fingerprint, w.owner, w.provided
    from unnest($2::int[], $3::text[], $4::uuid[], $5::oid[], $6::bool[])
         as w(id, function, fingerprint, owner, provided)
), known as (
  select s.function, s.fingerprint, s.function_owner, s.id, f.memo_table, f.flow, f.settings,
         s.recorded as since
    from coco_internal.memo_stats s join coco_internal.flow f on f.flow = s.flow join own o on f.owner = o.owner
   where f.id <> $1 and s.function = any ($3)
  union all
  select k.function, k.fingerprint, k.function_owner, k.function_id, m.memo_table, m.flow, m.settings,
         m.dropped
    from coco_internal.kept_memo m join coco_internal.kept_memo_function k on k.kept_memo = m.id
    join own o on m.owner = o.owner
   where m.kept_until > clock_timestamp() and k.function = any ($3)
), ranked as (
  select w.id as own_id, k.id as other_id, k.memo_table,
         (select (extract(epoch from s.cleared) * 1000000)::bigint from coco_internal.memo_stats s where s.id = w.id) as since,
         row_number() over (partition by w.id order by k.flow = o.flow desc, k.since desc, k.id desc) as place
    from wanted w cross join own o
    join known k on k.function = w.function and k.fingerprint = w.fingerprint
                and (w.provided or k.function_owner = w.owner and k.settings = o.settings)
)
select r.own_id, r.other_id, r.since, c.oid, format('%I.%I', n.nspname, c.relname)
  from ranked r
  join pg_class c on c.oid = r.memo_table
  join pg_namespace n on n.oid = c.relnamespace
 where r.place <= $7";

/// A function of a session in another table.
struct Other {
    function: OtherFunction,
    relation: pg_sys::Oid,
    name: String,
}

/// Returns the tables in which a session looks for missing results. Reads the catalog once per
/// session.
fn other_tables(recalling: &MemoSession) -> Result<Rc<[OtherTable]>> {
    if let Some(known) = recalling.others.borrow().as_ref() {
        return Ok(Rc::clone(known));
    }
    let mut ids = Vec::new();
    let mut names = Vec::new();
    let mut fingerprints = Vec::new();
    let mut owners = Vec::new();
    let mut provided = Vec::new();
    let mut expired = HashMap::new();
    for known in recalling.functions.values() {
        let Some(id) = known.id else { continue };
        ids.push(id.0);
        names.push(known.function.name.clone());
        fingerprints.push(known.function.fingerprint);
        owners.push(known.function.owner);
        provided.push(known.function.kind.is_provided());
        expired.insert(id.0, known.since);
    }
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        &format!("{OTHERS} and {IS_RESULT_TABLE} order by r.place, c.oid"),
        &[
            arg(recalling.flow),
            arg(ids),
            arg(names),
            arg(fingerprints),
            arg(owners),
            arg(provided),
            arg(TABLES),
        ],
        |r| {
            let own = spi::required::<i32>(r, 1)?;
            let cleared: Option<i64> = r.get(3)?;
            Ok(Other {
                function: OtherFunction {
                    own: FunctionId(own),
                    other: FunctionId(spi::required(r, 2)?),
                    since: cleared.max(expired.get(&own).copied().flatten()),
                },
                relation: spi::required(r, 4)?,
                name: spi::required(r, 5)?,
            })
        },
    )?;
    let mut order = Vec::new();
    let mut tables: HashMap<pg_sys::Oid, OtherTable> = HashMap::new();
    for Other { function, relation, name } in found {
        let table = tables.entry(relation).or_insert_with(|| {
            order.push(relation);
            OtherTable { relation, name, functions: vec![] }
        });
        table.functions.push(function);
    }
    let found: Rc<[OtherTable]> =
        order.iter().filter_map(|relation| tables.remove(relation)).collect();
    recalling.others.replace(Some(Rc::clone(&found)));
    Ok(found)
}
