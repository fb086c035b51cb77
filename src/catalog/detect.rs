//! Finding what changed by scanning: a source beside its tracking table, in one statement and one
//! snapshot.
//!
//! The statement leaves out items of which ordinal or content, and logic, are as committed; for
//! every other it brings what `engine::decide` wants to know.

use pgrx::pg_sys;

use super::compose;
use super::error::{Error, Result};
use super::model::{Source, all_equal, numbered};
use super::sql::ident;
use super::tuples::{self, RowColumn, Rows, Statements};
use crate::engine::decide::{Decision, Mode, decide};
use crate::engine::version::{
    Failure, Fingerprint, Incoming, LogicId, Ordinal, ProcessOrdinal, Stored,
};

/// Which items a scan brings besides those that changed.
#[derive(Clone, Copy)]
pub struct Scan {
    pub mode: Mode,
    pub logic: LogicId,
}

/// Items to decide about, in the order the scan met them.
pub struct Candidates {
    rows: Rows,
    keys: usize,
}

/// What a scan knows of one item.
pub struct Candidate {
    pub incoming: Option<Incoming>,
    pub stored: Option<Stored>,
    pub failure: Option<Failure>,
    pub process_ordinal: Option<ProcessOrdinal>,
    pub attempts: i32,
    /// The target key it was refused.
    pub claims: Option<String>,
}

fn candidate_columns(source: &Source) -> Vec<RowColumn> {
    let mut columns = tuples::typed("k", &source.key);
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
    ];
    columns.extend(rest.map(|(name, oid)| RowColumn::new(name, oid)));
    columns
}

/// The SELECT of a source's items as they are: `k1…`, `ordinal`, and the fingerprint, or what it
/// is computed from.
fn items(source: &Source, fingerprint: &str) -> String {
    let name = ident(&source.name);
    let keys: Vec<String> = source.key.iter().map(|k| format!("{name}.{}", k.quoted())).collect();
    let named: Vec<String> =
        keys.iter().zip(numbered("k", keys.len())).map(|(k, n)| format!("{k} as {n}")).collect();
    let ordinal = source.ordinal.as_deref().unwrap_or("null::pg_catalog.int8");
    let relation = &source.relation_name;
    if source.grouped {
        // Rows have no order within their group: their fingerprints are put in one.
        return format!(
            "select {}, {ordinal} as ordinal,
                    coco.fingerprint(pg_catalog.array_agg({fingerprint} order by {fingerprint})) as fingerprint,
                    true as present
               from {relation} as {name} group by {}",
            named.join(", "),
            keys.join(", ")
        );
    }
    format!(
        "select {}, {ordinal} as ordinal, {fingerprint} as fingerprint, true as present
           from {relation} as {name}",
        named.join(", ")
    )
}

/// Scans a source for what changed. The caller acts as the flow's owner.
pub fn scan(statements: &Statements, source: &Source, scan: Scan) -> Result<Candidates> {
    let same_logic = format!("t.logic_id operator(pg_catalog.=) {}", scan.logic.0);
    let same_content = "t.content_fingerprint operator(pg_catalog.=) s.fingerprint";
    // With an ordinal, an item whose version is committed is left out before its content is read:
    // the condition does not name the fingerprint, which is then computed for what remains.
    let settled = match (&source.ordinal, scan.mode.evaluates_all()) {
        (_, true) => "false".to_owned(),
        (Some(_), false) => format!(
            "{same_logic} and t.source_ordinal operator(pg_catalog.>=) s.ordinal and t.failure is null"
        ),
        (None, false) => format!("{same_logic} and {same_content} and t.failure is null"),
    };
    select(statements, source, "full join", &format!("not coalesce({settled}, false)"))
}

/// Whether any failed item meets a condition on its tracking row `t`. Reads the failing rows alone,
/// by their own index, where [`waiting`] may read the whole source.
pub fn any_waiting(statements: &Statements, source: &Source, condition: &str) -> Result<bool> {
    let sql = format!(
        "select true from {} as t where t.failure is not null and {condition} limit 1",
        source.tracking
    );
    Ok(statements.first_text(&sql, &[])?.is_some())
}

/// Failed items that meet a condition on their tracking rows `t`, with what the source has of them.
pub fn waiting(statements: &Statements, source: &Source, condition: &str) -> Result<Candidates> {
    select(statements, source, "right join", condition)
}

fn select(
    statements: &Statements,
    source: &Source,
    join: &str,
    condition: &str,
) -> Result<Candidates> {
    let mut rows = Rows::new(&candidate_columns(source))?;
    let ours = numbered("s.k", source.key.len());
    let tracked = compose::tracking_keys(source, "t");
    let keys: Vec<String> =
        ours.iter().zip(&tracked).map(|(s, t)| format!("coalesce({s}, {t})")).collect();
    let sql = format!(
        "select {keys}, coalesce(s.present, false), s.ordinal, s.fingerprint,
                t.k1 is not null, t.source_ordinal, t.content_fingerprint, t.logic_id,
                t.process_ordinal, t.failure is not null,
                (t.failure operator(pg_catalog.->>) 'content_fingerprint')::pg_catalog.uuid,
                (t.failure operator(pg_catalog.->>) 'logic_id')::pg_catalog.int4,
                (t.failure operator(pg_catalog.->>) 'next_retry')::pg_catalog.timestamptz
                  operator(pg_catalog.<=) pg_catalog.clock_timestamp(),
                (t.failure operator(pg_catalog.->>) 'attempts')::pg_catalog.int4,
                t.failure operator(pg_catalog.->>) 'claims'
           from ({items}) as s {join} {tracking} as t on {on}
          where {condition}",
        keys = keys.join(", "),
        items = items(source, &compose::fingerprint_of_row(source)),
        tracking = source.tracking,
        on = all_equal(&source.key, &ours, &tracked),
    );
    statements.select_into(&sql, &[], &mut rows)?;
    Ok(Candidates { rows, keys: source.key.len() })
}

/// How many items are tracked.
pub fn tracked(statements: &Statements, source: &Source) -> Result<i64> {
    let text = statements
        .first_text(&format!("select pg_catalog.count(*) from {}", source.tracking), &[])?;
    text.and_then(|t| t.parse().ok()).ok_or_else(|| Error::internal("no count came back"))
}

impl Candidate {
    pub fn decide(&self, logic: LogicId, mode: Mode) -> Decision {
        // An item that was never committed has only its failure in its tracking row.
        let gone = self.incoming.is_none();
        let committed = self.stored.as_ref().filter(|s| s.logic.is_some() || gone);
        decide(committed, self.incoming.as_ref(), self.failure.as_ref(), logic, mode)
    }
}

impl Candidates {
    /// Moves to the next item; `None` at the end.
    pub fn next(&mut self) -> Option<Candidate> {
        if !self.rows.advance() {
            return None;
        }
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
        })
    }

    /// The key of the item just read.
    pub fn key(&self) -> Vec<Option<pg_sys::Datum>> {
        (0..self.keys).map(|k| self.rows.datum(k)).collect()
    }
}
