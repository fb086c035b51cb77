//! Writes a batch for an external target: the keys that the target should hold to the ledger, and
//! the resulting changes to the outbox.

use pgrx::pg_sys;

use crate::catalog::model::{External, Flow, Target};
use crate::outbox::initial_load_buffer::{BufferedTarget, InitialLoadBuffer};
use crate::outbox::tables::{self, FINGERPRINT};
use crate::outbox::{delivery_state, queue};
use crate::pg::acting_role::RoleGuard;
use crate::pg::bulk_insert;
use crate::pg::bulk_insert::spec::{BulkTarget, FilledRows, FillingRows, InsertRights};
use crate::pg::columns::{Column, all_equal, numbered, stored};
use crate::pg::deferred_indexes::Written;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg, literal};
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::names::KeyExprs;
use coco_core::decision::Mode;
use coco_core::fingerprint::Hasher;

/// Returns an SQL expression for the fingerprint of a row's value, over the columns `prefix1…`. The
/// fingerprint covers the columns' names and types: a row of another schema is another row.
pub fn fingerprint(target: &Target, prefix: &str) -> String {
    let mut shape = Hasher::new();
    for column in &target.columns {
        shape.part(column.name.as_bytes()).part(column.type_name.as_bytes());
    }
    let shape: String = shape.finish().0.iter().map(|b| format!("{b:02x}")).collect();
    let values = numbered(prefix, target.columns.len()).join(", ");
    format!("coco.fingerprint({}::pg_catalog.text, {values})", literal(&shape))
}

/// Returns an SQL condition: the ledger has another value of key `x` than the one with this
/// fingerprint.
pub fn ledger_differs(fingerprint: &str) -> String {
    format!("not coalesce(x.{FINGERPRINT} operator(pg_catalog.=) {fingerprint}, false)")
}

/// Deletes the keys `x` that `from … where …` selects from the ledger, and queues their deletes.
/// The caller acts as the flow's owner, who selects the keys; the extension's owner deletes them.
pub fn delete_ledger(
    statements: &SpiSession,
    target: &Target,
    external: &External,
    using: &str,
    condition: &str,
    version: i64,
) -> Result<i64> {
    spi::commit_durably();
    let x: Vec<String> = target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
    let keys = x.join(", ");
    let using = if using.is_empty() { String::new() } else { format!(", {using}") };
    let key = stored(&target.key);
    let mut gone = TupleStore::new(&rows::typed("t", &key))?;
    let sql =
        format!("select {keys} from {} as x{using} where {condition}", target.relation_name());
    statements.query_into(&sql, &[], &mut gone)?;
    if gone.len() == 0 {
        return Ok(0);
    }
    let _as = RoleGuard::extension_owner()?;
    let _by_key = RoleGuard::finding_by_key()?;
    let writing = SpiSession::connect()?;
    writing.name("coco_gone", &gone)?;
    writing.execute(
        &format!(
            "with gone as (delete from {} as x using coco_gone as g where {} returning {keys})
             insert into {} (version, upsert, {}) select $1, false, g.* from gone as g",
            external.ledger,
            all_equal(&key, &x, &numbered("g.t", key.len())),
            external.outbox,
            tables::outbox_key(target).join(", "),
        ),
        &[arg(version)],
    )
}

/// Writes the rows of `coco_output` whose value the ledger does not have yet, and queues their
/// upserts. The caller acts as the flow's owner, who evaluates the rows; the extension's owner
/// writes them.
pub fn upsert_ledger(
    statements: &SpiSession,
    target: &Target,
    external: &External,
    names: &KeyExprs,
    mode: Mode,
    version: i64,
) -> Result<i64> {
    let outgoing = outgoing(statements, target, names, mode)?;
    if outgoing.len() == 0 {
        return Ok(0);
    }
    let _as = RoleGuard::extension_owner()?;
    let _by_key = RoleGuard::finding_by_key()?;
    let writing = SpiSession::connect()?;
    writing.name("coco_outgoing", &outgoing)?;
    let ledger = &external.ledger;
    let same = all_equal(&stored(&target.key), &names.target_key, &names.new_key);
    let keys: Vec<String> = target.key.iter().map(|k| k.quoted()).collect();
    writing.execute(
        &format!(
            "insert into {} (version, upsert, {}) select $1, false, {}
               from {ledger} as x join coco_outgoing as n on {same} where n.moved",
            external.outbox,
            tables::outbox_key(target).join(", "),
            names.target_key.join(", "),
        ),
        &[arg(version)],
    )?;
    let sets: Vec<String> =
        keys.iter().zip(&names.new_key).map(|(k, n)| format!("{k} = {n}")).collect();
    writing.execute(
        &format!(
            "update {ledger} as x set {FINGERPRINT} = n.fingerprint
               from coco_outgoing as n where n.known and not n.moved and {same} and {}",
            ledger_differs("n.fingerprint")
        ),
        &[],
    )?;
    writing.execute(
        &format!(
            "update {ledger} as x set {FINGERPRINT} = n.fingerprint, {}
               from coco_outgoing as n where n.moved and {same}",
            sets.join(", ")
        ),
        &[],
    )?;
    let from = "coco_outgoing as n where not n.known";
    bulk_insert::insert(
        &writing,
        ledger,
        &in_ledger(target, "n.fingerprint", as_they_are),
        from,
        &[],
    )?;
    let columns = in_outbox(target, as_they_are);
    bulk_insert::insert(&writing, &external.outbox, &columns, "coco_outgoing as n", &[arg(version)])
}

/// Returns the rows to write: their stored values `c1…`, their `fingerprint`, whether the ledger
/// has their key (`known`), and whether it has an equal key with other bytes (`moved`).
fn outgoing(
    statements: &SpiSession,
    target: &Target,
    names: &KeyExprs,
    mode: Mode,
) -> Result<TupleStore> {
    let fingerprint = fingerprint(target, "n.c");
    let mut columns = rows::typed("c", &stored(&target.columns));
    columns.push(RowColumn::new("fingerprint", pg_sys::UUIDOID));
    columns.push(RowColumn::new("known", pg_sys::BOOLOID));
    columns.push(RowColumn::new("moved", pg_sys::BOOLOID));
    let mut outgoing = TupleStore::new(&columns)?;
    let same = all_equal(&target.key, &names.target_key, &names.new_key);
    let there = format!("{} is not null", names.target_key[0]);
    let filter = match mode.carries_over() {
        true => format!(" where not {there} or {}", ledger_differs("n.fingerprint")),
        false => String::new(),
    };
    // Keys that are equal in Postgres can be different keys in the target: 1.0 and 1.00.
    let new_key: Vec<String> =
        target.key.iter().zip(&names.new_key).map(|(k, n)| k.as_stored(n)).collect();
    let moved = format!(
        "{there} and row({})::record operator(pg_catalog.*<>) row({})::record",
        names.target_key.join(", "),
        new_key.join(", ")
    );
    let values = target.columns.iter().zip(numbered("n.c", target.columns.len()));
    let values: Vec<String> = values.map(|(c, n)| c.as_stored(&n)).collect();
    // The OFFSET keeps the planner from pulling up the subquery, so that Postgres computes the
    // fingerprint once for each row.
    let sql = format!(
        "select {}, n.fingerprint, {there}, {moved}
           from (select n.*, {fingerprint} as fingerprint from coco_output as n offset 0) as n
           left join {ledger} as x on {same}{filter}",
        values.join(", "),
        ledger = target.relation_name(),
    );
    statements.query_into(&sql, &[], &mut outgoing)?;
    Ok(outgoing)
}

/// Queues upserts of rows that the ledger has already, because the target lacks them. `rows` has
/// their stored values `c1…`. The caller holds the flow's lock.
pub fn queue_upserts(
    target: &Target,
    external: &External,
    rows: &TupleStore,
    version: i64,
) -> Result<i64> {
    if rows.len() == 0 {
        return Ok(0);
    }
    let _as = RoleGuard::extension_owner()?;
    let writing = SpiSession::connect()?;
    writing.name("coco_outgoing", rows)?;
    let columns = in_outbox(target, as_they_are);
    bulk_insert::insert(&writing, &external.outbox, &columns, "coco_outgoing as n", &[arg(version)])
}

/// Queues deletes of keys that the target holds, except keys that the ledger has. `keys` has their
/// stored values `t1…`. The caller holds the flow's lock.
pub fn queue_deletes(
    target: &Target,
    external: &External,
    keys: &TupleStore,
    version: i64,
) -> Result<i64> {
    if keys.len() == 0 {
        return Ok(0);
    }
    let _as = RoleGuard::extension_owner()?;
    let _by_key = RoleGuard::finding_by_key()?;
    let writing = SpiSession::connect()?;
    writing.name("coco_gone", keys)?;
    let key = stored(&target.key);
    let x: Vec<String> = target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
    writing.execute(
        &format!(
            "insert into {} (version, upsert, {}) select $1, false, g.* from coco_gone as g
              where not exists (select from {} as x where {})",
            external.outbox,
            tables::outbox_key(target).join(", "),
            external.ledger,
            all_equal(&key, &x, &numbered("g.t", key.len())),
        ),
        &[arg(version)],
    )
}

/// Reports whether [`add_all`] is possible: both tables are empty, and unaltered since coco created
/// them.
pub fn takes_all(target: &Target, external: &External) -> Result<bool> {
    let keys = in_ledger(target, "n.fingerprint", Column::as_stored);
    let rows = in_outbox(target, Column::as_stored);
    Ok(bulk_insert::supports_bulk_insert(&external.ledger, &keys, InsertRights::Extension)?
        && bulk_insert::supports_bulk_insert(&external.outbox, &rows, InsertRights::Extension)?
        && queue::is_empty(external)?)
}

/// The result of [`add_all`].
pub struct Added {
    pub rows: FilledRows,
    /// The tables that lack index entries.
    pub written: Vec<Written>,
    /// The rows to deliver, if they are not in the outbox.
    pub held: Option<InitialLoadBuffer>,
}

/// Writes the rows of a SELECT to the ledger, and queues them: in a buffer of this process (`hold`)
/// or in the outbox. Rows that are withheld go to neither.
///
/// coco runs the SELECT (`rows.from`, a whole SELECT here) once, so the ledger matches the queued
/// rows. Both tables must be empty, and get no index entries. `also` is another table without index
/// entries that takes columns of the SELECT. `$1` is the version of the rows. Returns `None` in the
/// same case as [`bulk_insert::fill`].
pub fn add_all(
    statements: &SpiSession,
    flow: &Flow,
    target: &Target,
    external: &External,
    rows: FillingRows,
    also: Option<BulkTarget>,
    hold: Option<BufferedTarget>,
) -> Result<Option<Added>> {
    let FillingRows { from: select, args, aside } = rows;
    let keys = in_ledger(target, "n.fingerprint", Column::as_stored);
    let mut entries = in_outbox(target, Column::as_stored);
    entries.push(("position".to_owned(), "null::pg_catalog.int8".to_owned()));
    let first = queue::next_position(external)?;
    let mut held =
        hold.map(|hold| InitialLoadBuffer::new(flow, target, first, hold)).transpose()?;
    let noted = BulkTarget::of_own(&external.ledger, &keys);
    let mut tables = vec![noted];
    let sent = BulkTarget {
        counted: Some(("position", first)),
        ..BulkTarget::of_own(&external.outbox, &entries)
    };
    if held.is_none() {
        tables.push(sent);
    }
    tables.extend(also);
    let keeping = held.as_mut().map(InitialLoadBuffer::keeping);
    // Postgres does not pull up a subquery with a WITH clause, so it computes each column once for
    // each row.
    let from = format!(
        "(select n.*, {} as fingerprint from ({select}) as n) as n",
        fingerprint(target, "n.c")
    );
    let filling = FillingRows { from: &from, args, aside };
    let Some(rows) = bulk_insert::fill(statements, &tables, keeping, filling)? else {
        return Ok(None);
    };
    let count = rows.kept;
    let mut written = vec![Written::new(&noted, count)];
    if count > 0 {
        queue::last_given_position(external, first + count - 1)?;
    }
    match held {
        Some(_) if count > 0 => {
            delivery_state::note_initial_load(target.id, first, first + count - 1)?
        }
        Some(_) => held = None,
        None => written.push(Written::new(&sent, count)),
    }
    Ok(Some(Added { rows, written, held }))
}

/// Returns an SQL expression for the stored form of a column's value `n`.
type Stored = fn(&Column, &str) -> String;

/// For rows whose values have their stored form already.
fn as_they_are(_column: &Column, value: &str) -> String {
    value.to_owned()
}

/// Returns the columns of a ledger, and an expression for each value.
fn in_ledger(target: &Target, fingerprint: &str, stored: Stored) -> Vec<(String, String)> {
    let values = tables::outbox_key(target).into_iter().map(|c| format!("n.{c}"));
    let value = |(k, value): (&Column, String)| (k.name.clone(), stored(k, &value));
    let mut columns: Vec<(String, String)> = target.key.iter().zip(values).map(value).collect();
    columns.push((FINGERPRINT.to_owned(), fingerprint.to_owned()));
    columns
}

/// Returns the columns of an outbox except the position, and an expression for each value. `$1` is
/// the version.
fn in_outbox(target: &Target, stored: Stored) -> Vec<(String, String)> {
    let count = target.columns.len();
    let values = target.columns.iter().zip(numbered("n.c", count));
    let values = values.map(|(c, value)| stored(c, &value));
    let mut columns: Vec<(String, String)> = numbered("c", count).into_iter().zip(values).collect();
    columns.push(("version".to_owned(), "$1".to_owned()));
    columns.push(("upsert".to_owned(), "true".to_owned()));
    columns
}
