//! Reads a change log, and empties the segments that every cursor has passed.
//!
//! Callers: `update`, `inspect`.

use pgrx::pg_sys;

use crate::capture::cursor::{self, Cursor, OwnEntries};
use crate::capture::{Capture, segment_name};
use crate::catalog::locks;
use crate::catalog::model::Source;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::numbered;
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, Arg, arg};
use crate::pg::subtransaction::look;
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use coco_core::snapshot::Snapshot;

/// Conditions on log rows `l` that the snapshot does not see. The arguments `$1` and `$2` come from
/// [`of`]. Each condition matches an index, and no row satisfies both.
const NEW: [&str; 2] = [
    "l.xid operator(pg_catalog.>=) $1::pg_catalog.text::pg_catalog.xid8",
    "l.xid operator(pg_catalog.=) any ($2::pg_catalog.text[]::pg_catalog.xid8[])",
];

/// Returns one SELECT of the new rows of all segments.
fn each(segments: &[String], select: &str, more: &str) -> String {
    let each: Vec<String> = segments
        .iter()
        .flat_map(|segment| {
            NEW.map(|new| format!("(select {select} from {segment} as l where {new}{more})"))
        })
        .collect();
    each.join(" union all ")
}

/// Returns a snapshot as arguments: its end, and the transactions that were running.
fn of<'a>(snapshot: &Snapshot) -> Vec<Arg<'a>> {
    let running: Vec<String> = snapshot.running.iter().map(u64::to_string).collect();
    vec![arg(snapshot.xmax.to_string()), arg(running)]
}

/// Returns the segments after locking them for reading.
///
/// Leaves out a segment that a transaction has emptied and that is still locked, because every
/// stored cursor has passed it. A transaction may also lock a segment only to examine whether to
/// empty it. Such a segment may still be needed, and is soon free.
fn readable(capture: &Capture) -> Result<Vec<String>> {
    for _ in 0..LOOKS {
        if let Some(names) = readable_now(capture)? {
            return Ok(names);
        }
        pgrx::check_for_interrupts!();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // Another session holds the lock: wait as for any lock, so that the server detects a deadlock.
    for (n, segment) in &capture.segments {
        if !locks::is_segment_truncated(capture.id, *n)? {
            // SAFETY: takes a heavyweight lock, which the transaction's end releases.
            unsafe { pg_sys::LockRelationOid(*segment, pg_sys::AccessShareLock as i32) };
        }
    }
    match readable_now(capture)? {
        Some(names) => Ok(names),
        None => Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            format!("could not obtain locks on the change log of capture {}", capture.id),
        )
        .hint("Try again.")),
    }
}

/// The time in milliseconds during which coco retries to lock a segment, because another session
/// may only be examining whether to empty it.
const LOOKS: u32 = 100;

/// Does the same without waiting; `None` if a segment is locked that may still be needed.
fn readable_now(capture: &Capture) -> Result<Option<Vec<String>>> {
    let lock = pg_sys::AccessShareLock as i32;
    let mut names = Vec::new();
    for (n, segment) in &capture.segments {
        // SAFETY: takes a heavyweight lock, which the transaction's end releases.
        if unsafe { pg_sys::ConditionalLockRelationOid(*segment, lock) } {
            names.push(segment_name(capture.id, *n));
        } else if !locks::is_segment_truncated(capture.id, *n)? {
            return Ok(None);
        }
    }
    Ok(Some(names))
}

/// The result of reading a log.
pub enum LogRead {
    /// The keys are complete up to the given transaction id; `None` if they are complete without a
    /// limit.
    Keys(Option<u64>),
    /// An entry says that any row may have changed.
    Anything,
}

/// Reads each key that changed since a cursor, once, into `keys`: as `k1…`, and whether the key
/// counts as changed whatever its content, because the cursor is behind.
///
/// Sees what the active snapshot sees. With a `limit`, reads approximately that many entries, and
/// always all entries of a transaction.
pub fn changed(
    statements: &SpiSession,
    capture: &Capture,
    source: &Source,
    columns: &[String],
    since: &Cursor,
    limit: Option<usize>,
    keys: &mut TupleStore,
) -> Result<LogRead> {
    let segments = readable(capture)?;
    if segments.is_empty() {
        return Ok(LogRead::Keys(None));
    }
    let more = match source.ignores_null_keys {
        true => known_or_anything(capture, columns),
        false => String::new(),
    };
    let log = Log { segments, columns, since: &since.snapshot, forced: since.behind, more };
    if source.has_nullable_key() && log.has_unknown(statements, capture)? {
        return Ok(LogRead::Anything);
    }
    let mut end = None;
    let mut entries = TupleStore::new(&entry_columns(source))?;
    if let Some(limit) = limit {
        log.first(statements, limit + 1, &mut entries)?;
        if entries.len() > limit {
            // The entries of the last transaction are incomplete.
            while entries.advance() {
                end = entries.get::<i64>(0).map(|xid| xid as u64 + 1).or(end);
            }
        }
    }
    match limit.is_some() && end.is_none() {
        true => log.keys_of(&entries, keys)?,
        false => log.keys(statements, end, keys)?,
    }
    keys.rewind();
    while keys.advance() {
        let key: Vec<_> = (0..columns.len()).map(|n| keys.datum(n)).collect();
        if source.lacks_key(&key) {
            return Ok(LogRead::Anything);
        }
    }
    keys.rewind();
    Ok(LogRead::Keys(end))
}

/// Returns a condition that leaves out entries of rows with a NULL in the key. An entry without any
/// value says that any row may have changed, and stays.
fn known_or_anything(capture: &Capture, columns: &[String]) -> String {
    let known: Vec<String> = columns.iter().map(|c| format!("l.{c} is not null")).collect();
    format!(" and ({} or {})", known.join(" and "), is_unknown(capture))
}

/// Returns a condition on an entry: it has no value, and says that any row may have changed.
fn is_unknown(capture: &Capture) -> String {
    let all = numbered("l.k", capture.columns.len());
    let nothing: Vec<String> = all.iter().map(|c| format!("{c} is null")).collect();
    nothing.join(" and ")
}

/// Returns the columns of a log's entries: the transaction, and the key as `k1…`.
fn entry_columns(source: &Source) -> Vec<RowColumn> {
    let mut columns = vec![RowColumn::new("xid", pg_sys::INT8OID)];
    columns.extend(rows::typed("k", &source.key));
    columns
}

/// The entries of a log that are new since a snapshot.
struct Log<'a> {
    segments: Vec<String>,
    columns: &'a [String],
    since: &'a Snapshot,
    forced: bool,
    /// A further condition on entries.
    more: String,
}

impl Log<'_> {
    /// Reports whether a new entry says that any row may have changed. A row whose columns in the
    /// log are all NULL has such an entry, too.
    fn has_unknown(&self, statements: &SpiSession, capture: &Capture) -> Result<bool> {
        let acting = RoleGuard::extension_owner()?;
        acting.set("enable_seqscan", "off")?;
        let more = format!(" and {} limit 1", is_unknown(capture));
        let any = format!("{} limit 1", each(&self.segments, "true", &more));
        Ok(statements.read_text(&any, &of(self.since))?.is_some())
    }

    /// Reads the first entries, in the order of their transactions.
    fn first(&self, statements: &SpiSession, count: usize, entries: &mut TupleStore) -> Result<()> {
        let acting = RoleGuard::extension_owner()?;
        // A log is never analyzed. Its index finds the new entries, however many old ones exist.
        acting.set("enable_seqscan", "off")?;
        let named = self.named().join(", ");
        let limit = format!(" order by l.xid limit {count}");
        let more = format!("{}{limit}", self.more);
        let all = each(&self.segments, &format!("l.xid, {named}"), &more);
        statements.select_into(
            &format!(
                "select l.xid::pg_catalog.text::pg_catalog.int8, {named} from ({all}) as l{limit}"
            ),
            &of(self.since),
            entries,
        )?;
        Ok(())
    }

    /// Reads the keys of these entries, each once, sorted. The next step finds each key by an
    /// index: if a table is larger than the cache, sorted keys read each page once and not once per
    /// key.
    fn keys_of(&self, entries: &TupleStore, keys: &mut TupleStore) -> Result<()> {
        if entries.len() == 0 {
            return Ok(());
        }
        let _as = RoleGuard::extension_owner()?;
        let inner = SpiSession::connect()?;
        inner.name("coco_log", entries)?;
        let names = numbered("k", self.columns.len()).join(", ");
        let forced = self.forced;
        let sql = format!("select distinct {names}, {forced} from coco_log order by {names}");
        inner.select_into(&sql, &[], keys)?;
        Ok(())
    }

    /// Reads the keys of all entries of transactions before `end`, each once, sorted.
    fn keys(&self, statements: &SpiSession, end: Option<u64>, keys: &mut TupleStore) -> Result<()> {
        let acting = RoleGuard::extension_owner()?;
        acting.set("enable_seqscan", "off")?;
        let mut before = self.more.clone();
        let mut args = of(self.since);
        if let Some(end) = end {
            before
                .push_str(" and l.xid operator(pg_catalog.<) $3::pg_catalog.text::pg_catalog.xid8");
            args.push(arg(end.to_string()));
        }
        let named = self.named().join(", ");
        let all = each(&self.segments, &named, &before);
        let forced = self.forced;
        let sql = format!("select distinct {named}, {forced} from ({all}) as l order by {named}");
        statements.select_into(&sql, &args, keys)?;
        Ok(())
    }

    fn named(&self) -> Vec<String> {
        self.columns.iter().map(|c| format!("l.{c}")).collect()
    }
}

/// Returns the number of entries that are new since a snapshot, counting at most `limit`. With
/// `until`, counts only entries that this snapshot sees. Returns `None` if a count would have to
/// wait for a transaction that changes the log.
pub fn pending(
    statements: &SpiSession,
    capture: &Capture,
    since: &Snapshot,
    until: Option<&Snapshot>,
    limit: i64,
) -> Result<Option<i64>> {
    look(|| count(statements, capture, since, until, limit))
}

fn count(
    statements: &SpiSession,
    capture: &Capture,
    since: &Snapshot,
    until: Option<&Snapshot>,
    limit: i64,
) -> Result<Option<i64>> {
    let acting = RoleGuard::extension_owner()?;
    acting.set("enable_seqscan", "off")?;
    let mut more = String::new();
    let mut args = of(since);
    if let Some(until) = until {
        more.push_str(" and pg_catalog.pg_visible_in_snapshot(l.xid, $3::text::pg_snapshot)");
        args.push(arg(until.to_string()));
    }
    more.push_str(&format!(" limit {limit}"));
    let Some(segments) = readable_now(capture)? else { return Ok(None) };
    if segments.is_empty() {
        return Ok(Some(0));
    }
    let all = each(&segments, "1", &more);
    let count = statements
        .read_text(&format!("select pg_catalog.count(*)::text from ({all}) as l"), &args)?;
    Ok(Some(count.and_then(|c| c.parse().ok()).unwrap_or(0)))
}

/// Returns the entries that this transaction has written to the log, as the active snapshot sees
/// them.
pub fn own_entries(statements: &SpiSession, capture: &Capture) -> Result<Option<OwnEntries>> {
    let Some(xid) = cursor::own_transaction() else { return Ok(None) };
    let count = entries_of(statements, capture, xid)?.unwrap_or(0);
    Ok((count > 0).then_some(OwnEntries { xid, count }))
}

/// Returns the snapshot up to which a cursor has followed the log, as the active snapshot sees the
/// log. It sees the transaction that stored the cursor, if the update has followed all of its
/// entries.
pub fn followed_until(
    statements: &SpiSession,
    capture: &Capture,
    cursor: &Cursor,
) -> Result<Snapshot> {
    let mut snapshot = cursor.snapshot.clone();
    if let Some(own) = cursor.own
        && entries_of(statements, capture, own.xid)? == Some(own.count)
    {
        snapshot.mark_ended(own.xid);
    }
    Ok(snapshot)
}

/// Returns the number of entries of one transaction; `None` if the count would have to wait for a
/// transaction that changes the log.
fn entries_of(statements: &SpiSession, capture: &Capture, xid: u64) -> Result<Option<i64>> {
    let Some(segments) = readable_now(capture)? else { return Ok(None) };
    if segments.is_empty() {
        return Ok(Some(0));
    }
    let acting = RoleGuard::extension_owner()?;
    acting.set("enable_seqscan", "off")?;
    let each: Vec<String> = segments
        .iter()
        .map(|segment| {
            format!(
                "select 1 from {segment} as l
                  where l.xid operator(pg_catalog.=) $1::pg_catalog.text::pg_catalog.xid8"
            )
        })
        .collect();
    let sql = format!(
        "select pg_catalog.count(*)::pg_catalog.text from ({}) as l",
        each.join(" union all ")
    );
    let count = statements.read_text(&sql, &[arg(xid.to_string())])?;
    Ok(count.and_then(|count| count.parse().ok()))
}

/// Locks the entries that are new since the active snapshot against being emptied, until the
/// transaction ends. Other sessions then see the cursor that it stores. Returns `false` if a
/// segment may already have been emptied.
pub fn keep(statements: &SpiSession, capture: &Capture) -> Result<bool> {
    if readable(capture)?.len() < capture.segments.len() {
        return Ok(false);
    }
    let _as = RoleGuard::extension_owner()?;
    // TRUNCATE gives a relation another file.
    const FILES: &str =
        "select pg_catalog.string_agg(c.relfilenode::pg_catalog.text, ',' order by c.oid)
           from pg_catalog.pg_class c where c.oid = any ($1)";
    let segments = || arg(capture.segments.iter().map(|(_, oid)| *oid).collect::<Vec<_>>());
    let as_read = statements.read_text(FILES, &[segments()])?;
    let _now = PinnedSnapshot::latest();
    Ok(SpiSession::connect()?.read_text(FILES, &[segments()])? == as_read)
}

/// Moves writers to an empty segment if the current one has grown past `size` bytes, and empties
/// the segments that every cursor has passed. Never waits: a segment in use is left for a later
/// call.
pub fn rotate(capture: &Capture, size: i64) -> Result<()> {
    let acting = RoleGuard::extension_owner()?;
    // Use the index to check whether a cursor needs a segment, however large the segment is.
    acting.set("enable_seqscan", "off")?;
    for (n, segment) in &capture.segments {
        let Some(bytes) = size_if_free(*segment)? else {
            continue;
        };
        if *n == capture.segment {
            if bytes >= size {
                move_on(capture, *segment)?;
            }
        } else if bytes > 0
            && !is_needed(capture, *n)?
            && lock_to_empty(*segment)
            && !empty(capture, *n, *segment)?
        {
            // Do not keep the lock until the transaction ends: the segment may be, or become, the
            // current one.
            // SAFETY: releases the lock that `lock_to_empty` took.
            unsafe { pg_sys::UnlockRelationOid(*segment, pg_sys::AccessExclusiveLock as i32) };
        }
    }
    Ok(())
}

/// Empties a segment that the caller has locked against writers and readers. Returns `false` if the
/// segment is still needed.
fn empty(capture: &Capture, n: i32, segment: pg_sys::Oid) -> Result<bool> {
    {
        // Use the latest snapshot, also in a transaction that reads an older state: every entry of
        // the segment is visible, or was rolled back.
        let _now = PinnedSnapshot::latest();
        let statements = SpiSession::connect()?;
        let current = statements.read_text(
            "select segment::text from coco_internal.capture where id = $1",
            &[arg(capture.id)],
        )?;
        if current == Some(n.to_string()) || relation_size(segment)? == 0 {
            return Ok(false);
        }
    }
    if is_needed(capture, n)? {
        return Ok(false);
    }
    spi::execute(&format!("truncate {}", segment_name(capture.id, n)), &[])?;
    locks::segment_truncated(capture.id, n)?;
    Ok(true)
}

/// Returns the size of a relation in bytes; `None` if another session is emptying it, because that
/// session may take long to commit.
fn size_if_free(relation: pg_sys::Oid) -> Result<Option<i64>> {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: takes a heavyweight lock, which is released below; after an error, the transaction's
    // end releases it.
    if !unsafe { pg_sys::ConditionalLockRelationOid(relation, lock) } {
        return Ok(None);
    }
    let size = relation_size(relation)?;
    // SAFETY: releases the lock just taken.
    unsafe { pg_sys::UnlockRelationOid(relation, lock) };
    Ok(Some(size))
}

fn relation_size(relation: pg_sys::Oid) -> Result<i64> {
    Ok(spi::scalar::<i64>(
        "select pg_catalog.pg_relation_size($1::oid::regclass)",
        &[arg(relation)],
    )?
    .unwrap_or(0))
}

fn lock_to_empty(segment: pg_sys::Oid) -> bool {
    let lock = pg_sys::AccessExclusiveLock as i32;
    // SAFETY: takes a heavyweight lock, which the transaction's end releases.
    unsafe { pg_sys::ConditionalLockRelationOid(segment, lock) }
}

fn move_on(capture: &Capture, current: pg_sys::Oid) -> Result<()> {
    for (n, segment) in &capture.segments {
        if *n == capture.segment || size_if_free(*segment)? != Some(0) {
            continue;
        }
        let moved = spi::returning(
            "update coco_internal.capture c set segment = $2
              where c.id = (select k.id from coco_internal.capture k
                             where k.id = $1 and k.segment = $3 for update skip locked)
             returning c.id",
            &[arg(capture.id), arg(*n), arg(capture.segment)],
            |r| spi::required::<i32>(r, 1),
        )?;
        if !moved.is_empty() {
            // SAFETY: registers an invalidation. When it commits, every writer looks up the current
            // segment again.
            unsafe { pg_sys::CacheInvalidateRelcacheByRelid(current) };
        }
        return Ok(());
    }
    Ok(())
}

/// Reports whether a cursor has not passed all entries of a segment, as of now.
fn is_needed(capture: &Capture, n: i32) -> Result<bool> {
    let _now = PinnedSnapshot::latest();
    let sql = needed(&segment_name(capture.id, n));
    Ok(SpiSession::connect()?.read_text(&sql, &[arg(capture.id)])?.is_some())
}

/// Returns a SELECT that finds a row if a cursor has not passed all entries of a segment.
fn needed(segment: &str) -> String {
    format!(
        "select 'needed'
           from coco_internal.cursor k join coco_internal.source s on s.id = k.source
           join coco_internal.capture c on c.relation = s.relation
          where c.id = $1 and s.capture <> 'scan'
            and (exists (select from {segment} as l where l.xid >= pg_catalog.pg_snapshot_xmax(k.snapshot))
              or exists (select from pg_catalog.pg_snapshot_xip(k.snapshot) as x(xid)
                           join {segment} as l on l.xid = x.xid))
          limit 1"
    )
}
