//! Finds changed items by a scan: compares a source with its tracking table, under one snapshot.
//!
//! One statement leaves out each item whose logic, and whose ordinal or content, equal the
//! committed ones. For every other item, it returns what `coco_core::decide` needs. If the source
//! has an ordinal, this statement does not read content; a second statement reads it for the
//! remaining items.
//!
//! A statement can fail because of the data of an item: in a user's expression, in a virtual
//! column, or because a group is too large. coco then halves the keys repeatedly until it knows the
//! unreadable items ([`unreadable_items`]).

use pgrx::pg_sys;

use crate::catalog::item_failure;
use crate::catalog::model::Source;
use crate::pg::acting_role::RoleGuard;
use crate::pg::clock;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{Arg, arg, ident};
use crate::pg::subtransaction::DataError;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::{compose, names};
use crate::update::{source_plan, unreadable_items};
use coco_core::decide::{Decision, Mode, decide};
use coco_core::version::{
    Failure, Fingerprint, Incoming, LogicId, Ordinal, ProcessOrdinal, Stored,
};

/// Which items a scan returns.
#[derive(Clone, Copy)]
pub struct Scan {
    pub mode: Mode,
    pub logic: LogicId,
}

/// The candidates that a scan or a lookup by key found, in the order in which it found them.
pub struct Candidates {
    rows: TupleStore,
    keys: usize,
    /// The number of columns before the carried ones.
    head: usize,
    columns: usize,
    /// Whether the candidates carry the columns that the query uses of their items:
    /// [`compose::carried`].
    pub carry: bool,
    read: usize,
    /// The number of candidates after which [`Candidates::next`] pauses.
    until: usize,
}

/// What coco knows about one candidate.
pub struct Candidate {
    pub incoming: Option<Incoming>,
    pub stored: Option<Stored>,
    pub failure: Option<Failure>,
    pub process_ordinal: Option<ProcessOrdinal>,
    pub attempts: i32,
    /// The target key that the item claims.
    pub claims: Option<String>,
    /// Whether a lookup changed that the item's result depends on.
    pub forced: bool,
    /// Why coco could not read the item. Only its tracking row is known then.
    pub unread: Option<item_failure::ItemFailure>,
}

/// Returns the columns of candidates, with `carry` also the carried ones.
fn candidate_columns(source: &Source, carry: bool) -> Vec<RowColumn> {
    let mut columns = rows::typed("k", &source.key);
    let rest = [
        ("present", pg_sys::BOOLOID),
        ("ordinal", pg_sys::INT8OID),
        ("fingerprint", pg_sys::UUIDOID),
        ("tracked", pg_sys::BOOLOID),
        ("source_ordinal", pg_sys::INT8OID),
        ("content_fingerprint", pg_sys::UUIDOID),
        ("logic_id", pg_sys::INT4OID),
        ("process_ordinal", pg_sys::INT8OID),
        ("failed", pg_sys::BOOLOID),
        ("failed_fingerprint", pg_sys::UUIDOID),
        ("failed_logic", pg_sys::INT4OID),
        ("due", pg_sys::BOOLOID),
        ("attempts", pg_sys::INT4OID),
        ("claims", pg_sys::TEXTOID),
        ("forced", pg_sys::BOOLOID),
        ("rows", pg_sys::INT8OID),
        ("unread", pg_sys::TEXTOID),
    ];
    columns.extend(rest.map(|(name, oid)| RowColumn::new(name, oid)));
    if carry {
        columns.extend(compose::carried(source).into_iter().map(|(column, _)| column));
    }
    columns
}

/// Returns the carried columns of the items, for the target list of a SELECT over the source.
fn carried(source: &Source, carry: bool) -> String {
    let columns = compose::carried(source).into_iter().filter(|_| carry);
    columns.map(|(column, value)| format!(", {value} as {}", column.name)).collect()
}

/// Returns the key columns of a row of the source, qualified with the source's name.
fn keys_of(source: &Source) -> Vec<String> {
    source.key_of(&ident(&source.name))
}

/// Returns the key columns with the aliases `k1…`, and without aliases.
fn key_numbers(source: &Source) -> (Vec<String>, Vec<String>) {
    let keys = keys_of(source);
    let named =
        keys.iter().zip(numbered("k", keys.len())).map(|(k, n)| format!("{k} as {n}")).collect();
    (named, keys)
}

/// Returns a SELECT of a source's items: `k1…`, `ordinal`, `fingerprint`, `present`, and the number
/// of `rows` with the key. With `carry`, also the carried columns. If the source has an ordinal, it
/// leaves the fingerprint to [`fingerprints_sql`]. `filter` selects rows before Postgres computes
/// anything for them.
fn items_sql(source: &Source, filter: &str, carry: bool) -> String {
    let (named, keys) = key_numbers(source);
    let (named, keys) = (named.join(", "), keys.join(", "));
    let carried = carried(source, carry);
    let expressions = compose::expressions(source);
    let from = format!("{} as {}{expressions}", source.relation_name, ident(&source.name));
    let fingerprint = compose::fingerprint_of_row(source);
    match compose::ordinal_of_row(source) {
        // Rows have no order within their group, so their fingerprints are sorted.
        None if source.grouped => format!(
            "select {named}, null::pg_catalog.int8 as ordinal,
                    coco.fingerprint(pg_catalog.array_agg({fingerprint} order by {fingerprint})) as fingerprint,
                    true as present, 1::pg_catalog.int8 as rows{carried}
               from {from}{filter} group by {keys}"
        ),
        None => format!(
            "select {named}, null::pg_catalog.int8 as ordinal, {fingerprint} as fingerprint,
                    true as present, 1::pg_catalog.int8 as rows{carried}
               from {from}{filter}"
        ),
        Some(ordinal) if source.promised => format!(
            "select {named}, pg_catalog.max({ordinal}) as ordinal,
                    null::pg_catalog.uuid as fingerprint,
                    true as present, pg_catalog.count(*) as rows
               from {from}{filter} group by {keys}"
        ),
        Some(ordinal) => format!(
            "select {named}, {ordinal} as ordinal, null::pg_catalog.uuid as fingerprint,
                    true as present, 1::pg_catalog.int8 as rows{carried}
               from {from}"
        ),
    }
}

/// Returns a SELECT of all items of a source, each with its fingerprint: `k1…`, `ordinal`,
/// `fingerprint`.
pub fn all_items_sql(source: &Source) -> String {
    let Some(ordinal) = compose::ordinal_of_row(source) else {
        return items_sql(source, "", false);
    };
    let (named, _) = key_numbers(source);
    format!(
        "select {named}, {ordinal} as ordinal, {fingerprint} as fingerprint from {relation} as {name}{expressions}",
        named = named.join(", "),
        fingerprint = compose::fingerprint_of_row(source),
        relation = source.relation_name,
        name = ident(&source.name),
        expressions = compose::expressions(source),
    )
}

/// Returns a SELECT of the candidates in `coco_candidate` with their fingerprints. Under an outer
/// join, Postgres would compute a fingerprint where it reads the source, for every row. This
/// statement uses an inner join. A candidate stays as it is if the source has no such item (any
/// more), or if its key is NULL.
fn fingerprints_sql(source: &Source) -> String {
    let (named, _) = key_numbers(source);
    let (ours, theirs) = (numbered("c.k", named.len()), numbered("s.k", named.len()));
    let columns = |fingerprint: &str| {
        let columns = candidate_columns(source, false);
        let columns = columns.iter().map(|c| match c.name.as_str() {
            "fingerprint" => fingerprint.to_owned(),
            name => format!("c.{name}"),
        });
        columns.collect::<Vec<_>>().join(", ")
    };
    let known: Vec<String> = ours.iter().map(|k| format!("{k} is not null")).collect();
    format!(
        "select {with} from coco_candidate as c
           join (select {named}, {fingerprint} as fingerprint from {relation} as {name}{expressions}) as s on {same}
          where c.present and c.unread is null
         union all
         select {without} from coco_candidate as c
          where not (c.present and c.unread is null and {known})",
        with = columns("s.fingerprint"),
        named = named.join(", "),
        fingerprint = compose::fingerprint_of_row(source),
        relation = source.relation_name,
        name = ident(&source.name),
        expressions = compose::expressions(source),
        same = all_equal(&source.key, &ours, &theirs),
        without = columns("c.fingerprint"),
        known = known.join(" and "),
    )
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
    let brought = is_brought(source, scan);
    let columns = candidate_columns(source, false);
    let rows = match unreadable_items::attempt(&columns, |rows| {
        scan_all(statements, source, &brought, forced, rows)
    })? {
        Ok(rows) => rows,
        Err(raised) => {
            let keys = every_key(source, forced)?;
            let changed = |forced: &str| format!("({brought} or {forced})");
            let read = |keys: &TupleStore, rows: &mut TupleStore| {
                candidates_by_key(source, keys, false, changed, rows)
            };
            read_by_halves(source, &keys, &columns, raised, read)?
        }
    };
    with_contents(source, rows, false)
}

/// Returns an SQL condition: a scan returns an item (`s`, `t`) that is not forced. If the source
/// has an ordinal, an item whose version is committed is left out unread. A key with several rows
/// never is.
fn is_brought(source: &Source, scan: Scan) -> String {
    let same_logic = format!("t.logic_id operator(pg_catalog.=) {}", scan.logic.0);
    let same_content = "t.content_fingerprint operator(pg_catalog.=) s.fingerprint";
    let settled = match (&source.ordinal, scan.mode.evaluates_all()) {
        (_, true) => "false".to_owned(),
        (Some(_), false) => format!(
            "{same_logic} and t.source_ordinal operator(pg_catalog.>=) s.ordinal and t.failure is null
             and s.rows operator(pg_catalog.=) 1"
        ),
        (None, false) => format!("{same_logic} and {same_content} and t.failure is null"),
    };
    format!("not coalesce({settled}, false)")
}

/// Reads a whole source with one statement.
fn scan_all(
    statements: &SpiSession,
    source: &Source,
    condition: &str,
    forced: Option<&TupleStore>,
    rows: &mut TupleStore,
) -> Result<()> {
    let relations =
        format!("({}) as s full join {} as t", items_sql(source, "", false), source.tracking_view);
    let _as = RoleGuard::sharing_rows()?;
    let Some(keys) = forced else {
        statements.reads_many();
        let from = CandidateSource { relations, forced: "false", keyed: "s", carry: false };
        return candidates(statements, source, from, condition, rows);
    };
    let statements = SpiSession::connect()?;
    statements.name("coco_forced", keys)?;
    statements.reads_many();
    let forced = is_forced(source, "s");
    let from = CandidateSource { relations, forced: &forced, keyed: "s", carry: false };
    candidates(&statements, source, from, &format!("({condition} or {forced})"), rows)
}

/// Returns an SQL condition: `coco_forced` has the key of `of`.
fn is_forced(source: &Source, of: &str) -> String {
    let keys = source.key.len();
    let same = all_equal(&source.key, &numbered(&format!("{of}.k"), keys), &numbered("f.k", keys));
    format!("exists (select from coco_forced as f where {same})")
}

/// Returns the keys of all items of a source and of all tracked items, and whether they are forced.
/// Reads nothing else of the items.
fn every_key(source: &Source, forced: Option<&TupleStore>) -> Result<TupleStore> {
    let _as = RoleGuard::sharing_rows()?;
    let statements = SpiSession::connect()?;
    statements.reads_many();
    if let Some(keys) = forced {
        statements.name("coco_forced", keys)?;
    }
    let (named, own) = key_numbers(source);
    let grouped = match source.grouped || source.promised {
        true => format!(" group by {}", own.join(", ")),
        false => String::new(),
    };
    let tracked = compose::tracking_keys(source, "t");
    let (ours, names) = (numbered("s.k", own.len()), numbered("k", own.len()));
    let all = ours.iter().zip(&tracked).zip(&names);
    let all: Vec<String> =
        all.map(|((s, t), name)| format!("coalesce({s}, {t}) as {name}")).collect();
    let sql = format!(
        "select {names}, {forced}
           from (select {all}
                   from (select {named} from {relation} as {name}{grouped}) as s
                   full join {tracking} as t on {same}) as c",
        names = numbered("c.k", own.len()).join(", "),
        forced = forced.map_or("false".to_owned(), |_| is_forced(source, "c")),
        all = all.join(", "),
        named = named.join(", "),
        relation = source.relation_name,
        name = ident(&source.name),
        tracking = source.tracking_view,
        same = all_equal(&source.key, &ours, &tracked),
    );
    let mut keys = TupleStore::new(&source_plan::key_columns(source))?;
    statements.select_into(&sql, &[], &mut keys)?;
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
        candidates_by_key(source, keys, carry, |_: &str| "true".to_owned(), rows)
    };
    let rows = match unreadable_items::attempt(&columns, |rows| read(keys, rows))? {
        Ok(rows) => rows,
        Err(raised) => read_by_halves(source, keys, &columns, raised, read)?,
    };
    with_contents(source, rows, carry)
}

/// Reads the items of some keys (`coco_changed`: `k1…`, `forced`) that meet a condition.
/// `condition` receives the name of the column `forced`.
fn candidates_by_key(
    source: &Source,
    keys: &TupleStore,
    carry: bool,
    condition: impl Fn(&str) -> String,
    rows: &mut TupleStore,
) -> Result<()> {
    let acting = RoleGuard::finding_by_key()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_changed", keys)?;
    if !source.grouped && !source.promised && keys.len() > MANY {
        let relations = format!(
            "({}) as s left join {} as t",
            bulk_items_sql(source, carry),
            source.tracking_view
        );
        let from = CandidateSource { relations, forced: "s.forced", keyed: "s", carry };
        return candidates(&statements, source, from, &condition("s.forced"), rows);
    }
    let changed = numbered("c.k", source.key.len());
    let own = keys_of(source);
    // Groups are selected before their rows are aggregated; otherwise Postgres would aggregate all
    // groups.
    let inside = match source.grouped || source.promised {
        true => {
            let same = all_equal(&source.key, &changed, &own);
            format!(" where exists (select from coco_changed as c where {same})")
        }
        false => String::new(),
    };
    // Reads a group's rows in the same order as an evaluation of that group alone, because sums of
    // floating-point numbers depend on the order.
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    if source.grouped {
        acting.set("enable_presorted_aggregate", "off")?;
    }
    let relations = format!(
        "coco_changed as c left join ({}) as s on {} left join {} as t",
        items_sql(source, &inside, carry),
        all_equal(&source.key, &changed, &numbered("s.k", source.key.len())),
        source.tracking_view
    );
    let from = CandidateSource { relations, forced: "c.forced", keyed: "c", carry };
    candidates(&statements, source, from, &condition("c.forced"), rows)?;
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
        unread_item(source, key, &item_failure::ItemFailure::from(raised), columns.len(), rows)
    };
    let halves =
        unreadable_items::Halves { all: keys, of: &source_plan::key_columns(source), columns };
    halves.read(raised, read, unread)
}

/// Adds an item that cannot be read, with its tracking row.
fn unread_item(
    source: &Source,
    key: &TupleStore,
    failure: &item_failure::ItemFailure,
    width: usize,
    rows: &mut TupleStore,
) -> Result<()> {
    let _as = RoleGuard::finding_by_key()?;
    let statements = SpiSession::connect()?;
    statements.name("coco_changed", key)?;
    let keys = numbered("c.k", source.key.len());
    let relations = format!(
        "(select {}, c.forced, true as present, null::pg_catalog.int8 as ordinal,
                 null::pg_catalog.uuid as fingerprint, 1::pg_catalog.int8 as rows
            from coco_changed as c) as s left join {} as t",
        keys.join(", "),
        source.tracking_view
    );
    let from = CandidateSource { relations, forced: "s.forced", keyed: "s", carry: false };
    let columns = candidate_columns(source, false);
    let mut one = TupleStore::new(&columns)?;
    let why = failure.to_text();
    candidates_sql(&statements, source, from, "true", ("$1", &[arg(why.as_str())]), &mut one)?;
    while one.advance() {
        let known = (0..columns.len()).map(|c| one.datum(c));
        let values: Vec<_> = known.chain(std::iter::repeat(None)).take(width).collect();
        rows.push(&values);
    }
    Ok(())
}

/// Returns a SELECT of many items. The plan of the SELECT may read the whole source. Because of the
/// OFFSET, Postgres computes fingerprints after the join, only for the selected rows.
fn bulk_items_sql(source: &Source, carry: bool) -> String {
    let (keys, own) = (numbered("c.k", source.key.len()), keys_of(source));
    let there = format!("{} is not null", own[0]);
    let when_there = |value: &str| format!("case when {there} then {value} end");
    let (ordinal, fingerprint) = match compose::ordinal_of_row(source) {
        Some(ordinal) => (when_there(ordinal), "null::pg_catalog.uuid".to_owned()),
        None => {
            ("null::pg_catalog.int8".to_owned(), when_there(&compose::fingerprint_of_row(source)))
        }
    };
    format!(
        "select {keys}, c.forced, {there} as present, {ordinal} as ordinal,
                {fingerprint} as fingerprint, 1::pg_catalog.int8 as rows{carried}
           from coco_changed as c left join {relation} as {name} on {same}{expressions} offset 0",
        keys = keys.join(", "),
        carried = carried(source, carry),
        relation = source.relation_name,
        name = ident(&source.name),
        same = all_equal(&source.key, &keys, &own),
        expressions = compose::expressions(source),
    )
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
    let mut keys = TupleStore::new(&source_plan::key_columns(source))?;
    let sql = format!(
        "select {}, false from {} as t where t.failure is not null and {condition}",
        compose::tracking_keys(source, "t").join(", "),
        source.tracking_view
    );
    statements.query_into(&sql, &[], &mut keys)?;
    lookup_candidates(source, &keys, false)
}

/// The relations that candidates come from: `s` (the current items) and `t` (the tracking rows), to
/// be joined by key.
struct CandidateSource<'a> {
    relations: String,
    forced: &'a str,
    /// The relation that has the requested keys: `s`, or a relation that `s` is joined to.
    keyed: &'a str,
    /// Whether `s` has the carried columns.
    carry: bool,
}

/// Adds the candidates that meet a condition to `rows`.
fn candidates(
    statements: &SpiSession,
    source: &Source,
    from: CandidateSource,
    condition: &str,
    rows: &mut TupleStore,
) -> Result<()> {
    candidates_sql(statements, source, from, condition, ("null", &[]), rows)
}

/// Adds candidates as [`candidates`] does, with the reason why they are `unread`.
fn candidates_sql(
    statements: &SpiSession,
    source: &Source,
    from: CandidateSource,
    condition: &str,
    (unread, args): (&str, &[Arg]),
    rows: &mut TupleStore,
) -> Result<()> {
    let carried: String = match from.carry {
        true => compose::carried(source).iter().map(|(c, _)| format!(", s.{}", c.name)).collect(),
        false => String::new(),
    };
    let ours = numbered(&format!("{}.k", from.keyed), source.key.len());
    let tracked = compose::tracking_keys(source, "t");
    let keys: Vec<String> =
        ours.iter().zip(&tracked).map(|(s, t)| format!("coalesce({s}, {t})")).collect();
    let sql = format!(
        "select {keys}, coalesce(s.present, false), s.ordinal, s.fingerprint,
                t.k1 is not null, t.source_ordinal, t.content_fingerprint, t.logic_id,
                t.process_ordinal, t.failure is not null,
                (t.failure operator(pg_catalog.->>) 'content_fingerprint')::pg_catalog.uuid,
                (t.failure operator(pg_catalog.->>) 'logic_id')::pg_catalog.int4,
                {due},
                (t.failure operator(pg_catalog.->>) 'attempts')::pg_catalog.int4,
                t.failure operator(pg_catalog.->>) 'claims', {forced}, s.rows,
                {unread}::pg_catalog.text{carried}
           from {relations} on {on}
          where {condition}",
        keys = keys.join(", "),
        due = clock::is_due_sql("t.failure", "pg_catalog.clock_timestamp()"),
        forced = from.forced,
        relations = from.relations,
        on = all_equal(&source.key, &ours, &tracked),
    );
    statements.select_into(&sql, args, rows)?;
    Ok(())
}

/// Returns the rows as candidates. If the source has an ordinal, computes their fingerprints.
fn with_contents(source: &Source, mut rows: TupleStore, carry: bool) -> Result<Candidates> {
    if source.ordinal.is_some() && rows.len() > 0 {
        rows = read_contents(source, rows)?;
    }
    let head = candidate_columns(source, false).len();
    let columns = candidate_columns(source, carry).len();
    let keys = source.key.len();
    Ok(Candidates { rows, keys, head, columns, carry, read: 0, until: usize::MAX })
}

/// Returns the candidates with their fingerprints. A candidate whose content cannot be read stays
/// without a fingerprint: coco evaluates it, and it fails there.
fn read_contents(source: &Source, candidates: TupleStore) -> Result<TupleStore> {
    let columns = candidate_columns(source, false);
    let read = |candidates: &TupleStore, rows: &mut TupleStore| -> Result<()> {
        let statements = SpiSession::connect()?;
        statements.name("coco_candidate", candidates)?;
        if source.promised {
            one_row_each(&statements, source)?;
        }
        statements.select_into(&fingerprints_sql(source), &[], rows)?;
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
fn one_row_each(statements: &SpiSession, source: &Source) -> Result<()> {
    let keys = numbered("c.k", source.key.len());
    let known: Vec<String> = keys.iter().map(|k| format!("{k} is not null")).collect();
    let sql = format!(
        "select {} from coco_candidate as c
          where c.rows operator(pg_catalog.>) 1 and {} limit 1",
        names::key_text(&keys),
        known.join(" and ")
    );
    match statements.first_text(&sql, &[])? {
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
pub fn tracked(statements: &SpiSession, source: &Source) -> Result<i64> {
    let text = statements
        .first_text(&format!("select pg_catalog.count(*) from {}", source.tracking_view), &[])?;
    text.and_then(|t| t.parse().ok()).ok_or_else(|| Error::internal("count returned no row"))
}

impl Candidate {
    /// Reports whether the item exists, with its committed content.
    pub fn is_as_committed(&self) -> bool {
        let contents = self.stored.zip(self.incoming).map(|(s, i)| (s.content, i.content));
        contents.is_some_and(|(before, now)| before.is_some() && before == now)
    }

    /// Decides what to do with the item. A forced item that exists is always evaluated.
    pub fn decide(&self, logic: LogicId, mode: Mode) -> Decision {
        if self.forced && self.incoming.is_some() {
            return Decision::Evaluate;
        }
        // The tracking row of an item that was never committed contains only its failure.
        let gone = self.incoming.is_none();
        let committed = self.stored.as_ref().filter(|s| s.logic.is_some() || gone);
        decide(committed, self.incoming.as_ref(), self.failure.as_ref(), logic, mode)
    }
}

impl Candidates {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Pauses after this many candidates; [`Candidates::rest`] continues.
    pub fn first(&mut self, many: usize) -> &mut Candidates {
        self.until = many;
        self
    }

    /// Continues after the pause of [`Candidates::first`], up to the end.
    pub fn rest(&mut self) -> &mut Candidates {
        self.until = usize::MAX;
        self
    }

    /// Moves to the next item; `None` at the end.
    pub fn next(&mut self) -> Option<Candidate> {
        if self.read == self.until || !self.rows.advance() {
            return None;
        }
        self.read += 1;
        let r = &self.rows;
        let at = |n: usize| self.keys + n;
        let fingerprint = |n| r.get::<pgrx::Uuid>(at(n)).map(|u| Fingerprint(*u.as_bytes()));
        let flag = |n| r.get::<bool>(at(n)).unwrap_or(false);
        let ordinal = |n| r.get::<i64>(at(n)).map(Ordinal);
        let incoming = flag(0).then(|| Incoming { ordinal: ordinal(1), content: fingerprint(2) });
        let stored = flag(3).then(|| Stored {
            ordinal: ordinal(4),
            content: fingerprint(5),
            logic: r.get::<i32>(at(6)).map(LogicId),
        });
        let failure = flag(8).then(|| Failure {
            content: fingerprint(9),
            logic: r.get::<i32>(at(10)).map(LogicId),
            due: flag(11),
        });
        Some(Candidate {
            incoming,
            stored,
            failure,
            process_ordinal: r.get::<i64>(at(7)).map(ProcessOrdinal),
            attempts: r.get::<i32>(at(12)).unwrap_or(0),
            claims: r.get(at(13)),
            forced: flag(14),
            unread: r.get::<String>(at(16)).map(|why| item_failure::ItemFailure::from_text(&why)),
        })
    }

    /// Returns the key of the item that was just read.
    pub fn key(&self) -> Vec<Option<pg_sys::Datum>> {
        (0..self.keys).map(|k| self.rows.datum(k)).collect()
    }

    /// Returns the carried columns of the item that was just read.
    pub fn carried(&self) -> Vec<Option<pg_sys::Datum>> {
        (self.head..self.columns).map(|c| self.rows.datum(c)).collect()
    }
}
