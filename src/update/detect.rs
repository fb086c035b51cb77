//! Finds changed items: by a scan, which compares a source with its tracking table under one
//! snapshot, or by their keys.
//!
//! One statement leaves out each item whose logic, and whose ordinal or content, equal the
//! committed ones. For every other item, it returns what `coco_core::decision::decide` needs. If the source
//! has an ordinal, this statement does not read content; a second statement reads it for the
//! remaining items.
//!
//! A statement can fail because of the data of an item: in a user's expression, in a virtual
//! column, or because a group is too large. coco then halves the keys repeatedly until it knows the
//! unreadable items ([`unreadable_items`]).
//!
//! [`crate::update::candidate_sql`] builds the statements, and
//! [`crate::update::candidate_rows`] defines their result.

use crate::catalog::item_failure::ItemFailure;
use crate::catalog::model::{FillOrder, Source};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::spi::arg;
use crate::pg::subtransaction::DataError;
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::compose;
use crate::update::candidate_rows::{Candidates, candidate_columns, key_columns};
use crate::update::candidate_sql::{self, CandidateSource, candidates_sql, unread_sql};
use crate::update::unreadable_items;
use coco_core::decision::Mode;
use coco_core::version::LogicId;

/// Which items a scan returns.
#[derive(Clone, Copy)]
pub struct Scan {
    pub mode: Mode,
    pub logic: LogicId,
}

/// Scans a source for changed items, and for forced ones (`k1…`). The caller acts as the flow's
/// owner.
pub fn scan(
    statements: &SpiSession,
    source: &Source,
    scan: Scan,
    forced: Option<&TupleStore>,
) -> Result<Candidates> {
    let forced = forced.filter(|keys| keys.len() > 0);
    let is_changed = candidate_sql::is_changed_sql(source, scan.mode, scan.logic);
    let columns = candidate_columns(source, false);
    let rows = match unreadable_items::attempt(&columns, |rows| {
        scan_all(statements, source, &is_changed, forced, rows)
    })? {
        Ok(rows) => rows,
        Err(raised) => {
            let keys = every_key(source, forced)?;
            let condition = |forced: &str| format!("({is_changed} or {forced})");
            let read = |keys: &TupleStore, rows: &mut TupleStore| {
                read_by_key(source, keys, false, condition, rows)
            };
            read_by_halves(source, &keys, &columns, raised, read)?
        }
    };
    with_fingerprints(source, rows, false)
}

/// Returns candidates of a scan sorted by their ordinals.
pub fn in_order(source: &Source, found: &Candidates, order: FillOrder) -> Result<Candidates> {
    let mut rows = TupleStore::new(&candidate_columns(source, false))?;
    let statements = SpiSession::connect()?;
    statements.name("coco_candidate", found.rows())?;
    statements.select_into(&candidate_sql::sorted_sql(source, order), &[], &mut rows)?;
    Ok(Candidates::new(source, rows, false))
}

/// Reads a whole source with one statement.
fn scan_all(
    statements: &SpiSession,
    source: &Source,
    condition: &str,
    forced: Option<&TupleStore>,
    rows: &mut TupleStore,
) -> Result<()> {
    let relations = candidate_sql::scanned_relations(source);
    let all = CandidateSource {
        relations,
        forced: "false",
        keyed: "s",
        carry: false,
        unread: unread_sql(source),
    };
    let _as = RoleGuard::sharing_rows()?;
    let Some(keys) = forced else {
        statements.reads_many();
        statements.select_into(&candidates_sql(source, &all, condition), &[], rows)?;
        return Ok(());
    };
    let statements = SpiSession::connect()?;
    statements.name("coco_forced", keys)?;
    statements.reads_many();
    let forced = candidate_sql::is_forced_sql(source, "s");
    let from = CandidateSource { forced: &forced, ..all };
    let condition = format!("({condition} or {forced})");
    statements.select_into(&candidates_sql(source, &from, &condition), &[], rows)?;
    Ok(())
}

/// Returns the keys of all items of a source and of all tracked items, and whether they are forced.
fn every_key(source: &Source, forced: Option<&TupleStore>) -> Result<TupleStore> {
    let _as = RoleGuard::sharing_rows()?;
    let statements = SpiSession::connect()?;
    statements.reads_many();
    if let Some(keys) = forced {
        statements.name("coco_forced", keys)?;
    }
    let forced =
        forced.map_or_else(|| "false".to_owned(), |_| candidate_sql::is_forced_sql(source, "c"));
    let mut keys = TupleStore::new(&key_columns(source))?;
    statements.select_into(&candidate_sql::every_key_sql(source, &forced), &[], &mut keys)?;
    Ok(keys)
}

/// From this number of keys on, one join replaces a lookup of each key.
const MANY: usize = 1000;

/// Returns the items of some keys (`k1…`, `forced`), from the source and the tracking table. With
/// `carry`, also returns the columns that the query uses, if the statement reads them anyway.
pub fn lookup_candidates(source: &Source, keys: &TupleStore, carry: bool) -> Result<Candidates> {
    let carry = carry && compose::carries(source);
    let columns = candidate_columns(source, carry);
    let read = |keys: &TupleStore, rows: &mut TupleStore| {
        read_by_key(source, keys, carry, |_: &str| "true".to_owned(), rows)
    };
    let rows = match unreadable_items::attempt(&columns, |rows| read(keys, rows))? {
        Ok(rows) => rows,
        Err(raised) => read_by_halves(source, keys, &columns, raised, read)?,
    };
    with_fingerprints(source, rows, carry)
}

/// Reads the items of some keys (`coco_changed`: `k1…`, `forced`) that meet a condition.
/// `condition` receives the name of the column `forced`.
fn read_by_key(
    source: &Source,
    keys: &TupleStore,
    carry: bool,
    condition: impl Fn(&str) -> String,
    rows: &mut TupleStore,
) -> Result<()> {
    let acting = RoleGuard::finding_by_key()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_changed", keys)?;
    // A group has one row in the table of groups, and its key can be NULL.
    let has_groups = source.grouped || source.promised || source.reads_states;
    let (relations, forced, keyed) = match !has_groups && keys.len() > MANY {
        true => (candidate_sql::joined_relations(source, carry), "s.forced", "s"),
        false => (candidate_sql::looked_up_relations(source, carry), "c.forced", "c"),
    };
    // Reads a group's rows in the same order as an evaluation of that group alone, because sums of
    // floating-point numbers depend on the order.
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    if source.grouped {
        acting.set("enable_presorted_aggregate", "off")?;
    }
    let from = CandidateSource { relations, forced, keyed, carry, unread: unread_sql(source) };
    statements.select_into(&candidates_sql(source, &from, &condition(forced)), &[], rows)?;
    drop(statements);
    drop(acting);
    Ok(())
}

/// Reads the items of some keys (`k1…`, `forced`) by halving, after a statement over all of them
/// failed.
fn read_by_halves(
    source: &Source,
    keys: &TupleStore,
    columns: &[RowColumn],
    raised: DataError,
    read: impl Fn(&TupleStore, &mut TupleStore) -> Result<()>,
) -> Result<TupleStore> {
    let unread = |key: &TupleStore, raised: DataError, rows: &mut TupleStore| {
        add_unread_item(source, key, &ItemFailure::from(raised), columns.len(), rows)
    };
    let halves = unreadable_items::Halves { all: keys, of: &key_columns(source), columns };
    halves.read(raised, read, unread)
}

/// Adds an item that cannot be read, with its tracking row.
fn add_unread_item(
    source: &Source,
    key: &TupleStore,
    failure: &ItemFailure,
    width: usize,
    rows: &mut TupleStore,
) -> Result<()> {
    let _as = RoleGuard::finding_by_key()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_changed", key)?;
    let relations = candidate_sql::unread_relations(source);
    let from =
        CandidateSource { relations, forced: "s.forced", keyed: "s", carry: false, unread: "$1" };
    let columns = candidate_columns(source, false);
    let mut one = TupleStore::new(&columns)?;
    let why = failure.to_text();
    statements.select_into(
        &candidates_sql(source, &from, "true"),
        &[arg(why.as_str())],
        &mut one,
    )?;
    while one.advance() {
        let known = (0..columns.len()).map(|c| one.datum(c));
        let values: Vec<_> = known.chain(std::iter::repeat(None)).take(width).collect();
        rows.push(&values);
    }
    Ok(())
}

/// Reports whether any failed item meets a condition on its tracking row `t`. Reads only failed
/// rows, by their own index, while [`waiting_candidates`] may read the whole source.
pub fn has_waiting(statements: &SpiSession, source: &Source, condition: &str) -> Result<bool> {
    let sql = format!(
        "select true from {} as t where t.failure is not null and {condition} limit 1",
        source.tracking_view
    );
    Ok(statements.first_text(&sql, &[])?.is_some())
}

/// Returns the failed items that meet a condition on their tracking rows `t`, with their current
/// state in the source.
pub fn waiting_candidates(
    statements: &SpiSession,
    source: &Source,
    condition: &str,
) -> Result<Candidates> {
    let mut keys = TupleStore::new(&key_columns(source))?;
    let sql = format!(
        "select {}, false from {} as t where t.failure is not null and {condition}",
        compose::tracking_keys(source, "t").join(", "),
        source.tracking_view
    );
    statements.query_into(&sql, &[], &mut keys)?;
    lookup_candidates(source, &keys, false)
}

/// Returns the rows as candidates. If the source has an ordinal, computes their fingerprints.
fn with_fingerprints(source: &Source, mut rows: TupleStore, carry: bool) -> Result<Candidates> {
    if source.ordinal.is_some() && rows.len() > 0 {
        rows = read_fingerprints(source, rows)?;
    }
    Ok(Candidates::new(source, rows, carry))
}

/// Returns the candidates with their fingerprints. A candidate whose content cannot be read stays
/// without a fingerprint: coco evaluates it, and it fails then.
fn read_fingerprints(source: &Source, candidates: TupleStore) -> Result<TupleStore> {
    let columns = candidate_columns(source, false);
    let read = |candidates: &TupleStore, rows: &mut TupleStore| -> Result<()> {
        let statements = SpiSession::connect()?;
        statements.name("coco_candidate", candidates)?;
        if source.promised {
            check_one_row_each(&statements, source)?;
        }
        statements.select_into(&candidate_sql::fingerprints_sql(source), &[], rows)?;
        Ok(())
    };
    match unreadable_items::attempt(&columns, |rows| read(&candidates, rows))? {
        Ok(rows) => Ok(rows),
        Err(raised) => {
            let halves =
                unreadable_items::Halves { all: &candidates, of: &columns, columns: &columns };
            halves.read(raised, read, |one, _, rows| unreadable_items::copy(one, rows))
        }
    }
}

/// Fails if several rows have the key of a candidate.
fn check_one_row_each(statements: &SpiSession, source: &Source) -> Result<()> {
    match statements.first_text(&candidate_sql::several_rows_sql(source), &[])? {
        None => Ok(()),
        Some(key) => Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_CARDINALITY_VIOLATION,
            format!("source \"{}\" has several rows with one key", source.name),
        )
        .detail(format!("Key {key} is not unique. A source with an ordinal must have one row for each key."))
        .hint("Leave the other rows out in the view, or declare the source with a key that distinguishes them. Without an ordinal, the rows that share a key form one item.")),
    }
}

/// Returns the number of tracked items.
pub fn count_tracked(statements: &SpiSession, source: &Source) -> Result<i64> {
    let text = statements
        .first_text(&format!("select pg_catalog.count(*) from {}", source.tracking_view), &[])?;
    text.and_then(|t| t.parse().ok()).ok_or_else(|| Error::internal("count returned no row"))
}
