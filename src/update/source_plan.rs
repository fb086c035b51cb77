//! Following a source: which of its items an update looks at, and up to where it has looked then.
//!
//! A captured source is followed by its change log: an update looks at the keys noted since the
//! cursor. Where the cursor means nothing (there is none yet, the logic changed, changes may have
//! passed the triggers by), and for every other source, it looks at all.

use pgrx::pg_sys;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::capture::cursor::{self, Cursor};
use crate::capture::state::{self, CaptureState};
use crate::capture::{self, Capture, change_log, triggers};
use crate::catalog::model::{CaptureMode, Source};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{all_equal, numbered};
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::pg::{clock, invalidation};
use crate::query::compose;
use coco_core::decide::Mode;
use coco_core::version::LogicId;

/// How often a live flow reads all of a source, where nothing else is declared.
const REFRESH: Duration = Duration::from_secs(60);

/// A live flow's cursor is stored no more often than this: each time leaves a row version behind,
/// which a long transaction keeps from being cleaned up.
const STORE_EVERY: Duration = Duration::from_millis(50);

/// What an update looks at.
pub enum SourcePlan {
    /// All items, in the source and tracked.
    All,
    /// The items of these keys: `k1…`, and whether they are evaluated whatever their content.
    Keys(TupleStore),
    /// Nothing yet: a live flow reads all of the source only now and then.
    Nothing,
}

/// Items of a source that are evaluated whatever their content.
pub enum LookupEffect {
    /// `k1…` first.
    Keys(TupleStore),
    All,
}

/// How a source is followed.
#[derive(Clone, Copy)]
pub struct ReadMode<'a> {
    pub logic: LogicId,
    pub mode: Mode,
    /// About so many changes of the log are taken, and the rest is left.
    pub limit: Option<usize>,
    /// What a worker remembers.
    pub live: Option<&'a CursorCache>,
    /// The generation of the system catalogs before the active snapshot was taken.
    pub generation: u64,
    /// It has lookups, or is one.
    pub lookups: bool,
    /// Something of its lookups has changed: they are followed together.
    pub looked_up: bool,
    /// If it is to be read as a whole, that is done only when it is due.
    pub when_due: bool,
}

/// Cursors that a worker has in mind, newer than those stored. One that was lost with its worker
/// costs nothing but looking again.
#[derive(Default)]
pub struct CursorCache(HashMap<i32, CachedCursors>);

struct CachedCursors {
    cursor: Cursor,
    stored_at: Instant,
    unsaved: bool,
}

/// What a turn leaves for a worker to remember of a source.
pub struct CursorUpdate {
    pub source: i32,
    cursor: Cursor,
    stored: bool,
}

impl CursorUpdate {
    /// A cursor that was stored.
    pub fn stored(source: &Source, cursor: Cursor) -> CursorUpdate {
        CursorUpdate { source: source.id, cursor, stored: true }
    }
}

impl CursorCache {
    /// Takes over what a turn brought, once it is committed.
    pub fn keep(&mut self, kept: Vec<CursorUpdate>) {
        for k in kept {
            let before = self.0.get(&k.source).map(|m| m.stored_at);
            let stored_at = match k.stored {
                true => Instant::now(),
                false => before.unwrap_or_else(Instant::now),
            };
            let memory = CachedCursors { cursor: k.cursor, stored_at, unsaved: !k.stored };
            self.0.insert(k.source, memory);
        }
    }

    /// How long until what is not stored yet should be; `None` where all is.
    pub fn unsaved_for(&self) -> Option<Duration> {
        let unsaved = self.0.values().filter(|m| m.unsaved);
        unsaved.map(|m| STORE_EVERY.saturating_sub(m.stored_at.elapsed())).min()
    }
}

/// How far a source is followed by one update.
pub struct SourceRead {
    pub looking: SourcePlan,
    /// If all is looked at: what counts as changed, since the cursor was behind.
    pub forced: LookupEffect,
    capture: Option<Capture>,
    next: Cursor,
    before: Option<Cursor>,
    /// Some changes are left for the next update.
    pub more: bool,
    /// Triggers are missing: changes pass the log by.
    pub uncaptured: bool,
    /// When a live flow is to look at all of the source again.
    pub again: Option<Duration>,
    /// Failed items that are not looked at, since their next retry is not due.
    pub waiting: i64,
}

/// Decides what to look at, under the active snapshot. The caller acts as the flow's owner.
pub fn plan_source(statements: &SpiSession, source: &Source, how: ReadMode) -> Result<SourceRead> {
    let ReadMode { logic, mode, .. } = how;
    let before = cached_cursor(source, how)?;
    let behind = before.as_ref().is_some_and(|cursor| cursor.behind);
    let snapshot = cursor::current_position()?;
    let mut following = SourceRead {
        looking: SourcePlan::All,
        forced: match behind {
            true => LookupEffect::All,
            false => LookupEffect::Keys(TupleStore::new(&key_columns(source))?),
        },
        capture: None,
        next: Cursor {
            snapshot,
            logic,
            signature: cursor::NOWHERE,
            behind: false,
            read_at: cursor::before_now(),
        },
        before,
        more: false,
        uncaptured: false,
        again: None,
        waiting: 0,
    };
    following.by_log(statements, source, how)?;
    if following.uncaptured {
        pgrx::ereport!(
            pgrx::PgLogLevel::NOTICE,
            pgrx::PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("not every change of {} is captured: all of it is read", source.relation_name),
            "A trigger of coco's is missing or disabled, or the table was made part of another. \
             coco.start puts triggers back."
        );
    }
    if how.when_due && !mode.evaluates_all() && matches!(following.looking, SourcePlan::All) {
        let rest = source.refresh.unwrap_or(REFRESH);
        let stored = cursor::load_cursor(source)?;
        let since = stored.filter(|s| s.cursor.logic == logic).map(|s| s.age);
        // A log that can be followed from now on is worth a look at all.
        let wait = since.map_or(Duration::ZERO, |age| rest.saturating_sub(age));
        if following.next.signature == cursor::NOWHERE && !wait.is_zero() && !how.looked_up {
            following.looking = SourcePlan::Nothing;
            following.again = Some(wait);
        } else if following.next.signature == cursor::NOWHERE {
            following.again = Some(rest);
        }
    }
    Ok(following)
}

/// Up to where a source was followed before.
fn cached_cursor(source: &Source, how: ReadMode) -> Result<Option<Cursor>> {
    let remembered = how.live.and_then(|r| r.0.get(&source.id)).map(|m| m.cursor.clone());
    if remembered.is_some() && !how.lookups {
        return Ok(remembered);
    }
    // Another process may have left something undone since this one has followed the source.
    let stored = cursor::load_cursor(source)?.map(|s| s.cursor);
    let undone = stored.as_ref().is_some_and(|s| s.behind || s.logic != how.logic);
    Ok(match undone {
        true => stored,
        false => remembered.or(stored),
    })
}

impl SourceRead {
    /// Takes the log where it can be followed.
    fn by_log(&mut self, statements: &SpiSession, source: &Source, how: ReadMode) -> Result<()> {
        let mode = how.mode;
        if source.capture == CaptureMode::Scan {
            return Ok(());
        }
        let Some(state) = state::capture_state(statements, source.relation, how.generation)? else {
            self.uncaptured = true;
            return Ok(());
        };
        let CaptureState { capture, signature, adequate } = state;
        let whole = capture.is_whole();
        let columns = capture.key_columns(source);
        if whole && columns.is_none() {
            self.uncaptured = true;
            return Ok(());
        }
        let mut since = capture.since;
        if !whole || since.is_none() {
            since = restore(source.relation, &capture)?;
        }
        // A log that was made without holding off writers: all that began before must have ended.
        // And what a transaction reads that began before it made the log itself is older than that.
        let complete = since.is_some_and(|since| self.next.snapshot.xmin >= since)
            && !(capture.ours && reads_as_of_earlier());
        self.capture = Some(capture.clone());
        self.uncaptured = !adequate;
        if !adequate || !complete || !whole {
            return Ok(());
        }
        // Nothing but a cursor that others see keeps the log from being emptied.
        if self.before.is_some() || change_log::keep(statements, &capture)? {
            self.next.signature = signature;
        }
        let fits = |c: &Cursor| {
            c.signature == signature && c.logic == self.next.logic && !mode.evaluates_all()
        };
        let mut since = self.before.clone().filter(fits);
        if since.is_none() && self.before.is_some() {
            // What a worker remembers may be older than what another has stored.
            since = cursor::load_cursor(source)?.map(|s| s.cursor).filter(fits);
        }
        let (Some(capture), Some(columns)) = (&self.capture, columns) else {
            return Ok(());
        };
        let mut keys = TupleStore::new(&key_columns(source))?;
        let Some(since) = since else {
            // All is looked at; of some it may show only here that it is to be evaluated.
            let behind = self.before.as_ref().filter(|c| c.behind && c.signature == signature);
            if let Some(since) = behind
                && let change_log::LogRead::Keys(_) = change_log::changed(
                    statements, capture, source, &columns, since, None, &mut keys,
                )?
            {
                self.forced = LookupEffect::Keys(keys);
            }
            return Ok(());
        };
        if let change_log::LogRead::Keys(end) = change_log::changed(
            statements, capture, source, &columns, &since, how.limit, &mut keys,
        )? {
            if let Some(end) = end {
                self.next.snapshot.cut(end);
                self.next.behind = how.lookups;
                self.more = true;
            }
            self.waiting = add_failed(statements, source, mode, &mut keys)?;
            self.looking = SourcePlan::Keys(keys);
        }
        Ok(())
    }

    /// Whether the cursor says, or said, that it is behind. That is stored at once.
    fn is_or_was_behind(&self) -> bool {
        self.next.behind || self.before.as_ref().is_some_and(|cursor| cursor.behind)
    }

    /// The logic with which the source was followed before.
    pub fn logic_before(&self) -> Option<LogicId> {
        self.before.as_ref().map(|cursor| cursor.logic)
    }

    /// The cursor that is stored when what was found is written.
    pub fn next(&self) -> &Cursor {
        &self.next
    }

    /// Stores up to where the source was followed, when what was found is written. For a live flow
    /// what is to be remembered comes back.
    pub fn done(
        self,
        source: &Source,
        remembered: Option<&CursorCache>,
        segment_bytes: i64,
    ) -> Result<Option<CursorUpdate>> {
        let keep = |cursor, stored| Some(CursorUpdate { source: source.id, cursor, stored });
        if let Some(remembered) = remembered {
            let known = remembered.0.get(&source.id);
            let at_once = self.is_or_was_behind();
            let nothing = match &self.looking {
                SourcePlan::Nothing => true,
                SourcePlan::Keys(keys) => {
                    keys.len() == 0 && !at_once && !known.is_some_and(|m| m.unsaved)
                }
                SourcePlan::All => false,
            };
            if nothing {
                return Ok(None);
            }
            if !at_once && known.is_some_and(|m| m.stored_at.elapsed() < STORE_EVERY) {
                return Ok(keep(self.next, false));
            }
        }
        // Also where nothing changed: a reader of an old snapshot must not get away with it.
        cursor::store_cursor(source, &self.next, !self.more)?;
        if let Some(capture) = self.capture.filter(Capture::is_whole) {
            change_log::rotate(&capture, segment_bytes)?;
        }
        Ok(keep(self.next, true))
    }
}

/// Whether each statement of this transaction reads as of its first one.
fn reads_as_of_earlier() -> bool {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

pub fn key_columns(source: &Source) -> Vec<RowColumn> {
    let mut columns = rows::typed("k", &source.key);
    columns.push(RowColumn::new("forced", pg_sys::BOOLOID));
    columns
}

/// Adds the items that are to be tried again: no change in the source brings them. Returns how many
/// others wait.
fn add_failed(
    statements: &SpiSession,
    source: &Source,
    mode: Mode,
    keys: &mut TupleStore,
) -> Result<i64> {
    let acting = RoleGuard::qualifying_names()?;
    // By their own index, also before the table is first analysed.
    acting.set("enable_seqscan", "off")?;
    let failed = format!("from {} as t where t.failure is not null", source.tracking_view);
    if statements.read_text(&format!("select true {failed} limit 1"), &[])?.is_none() {
        return Ok(0);
    }
    // One moment for both: an item is tried again, or it waits.
    let now = statements
        .read_text("select pg_catalog.clock_timestamp()::pg_catalog.text", &[])?
        .unwrap_or_default();
    let due = match mode {
        Mode::Retry => "true".to_owned(),
        _ => clock::is_due_sql("t.failure", "$1::pg_catalog.text::pg_catalog.timestamptz"),
    };
    let waiting;
    let mut more = TupleStore::new(&key_columns(source))?;
    {
        let inner = SpiSession::connect()?;
        inner.name("coco_changed", keys)?;
        let tracked = compose::tracking_keys(source, "t");
        let known = numbered("c.k", source.key.len());
        let failed = format!(
            "{failed} and not exists (select from coco_changed as c where {})",
            all_equal(&source.key, &known, &tracked),
        );
        inner.select_into(
            &format!("select {}, false {failed} and {due}", tracked.join(", ")),
            &[arg(now.as_str())],
            &mut more,
        )?;
        let others = format!("select pg_catalog.count(*) {failed} and not coalesce({due}, false)");
        let count = inner.read_text(&others, &[arg(now.as_str())])?;
        waiting = count.and_then(|n| n.parse().ok()).unwrap_or(0);
    }
    keys.append(&mut more)?;
    Ok(waiting)
}

/// Makes the log of a table again, as after a dump was restored; or, when all see it, notes and
/// returns up to which transaction there may be some that knew nothing of it.
fn restore(relation: pg_sys::Oid, capture: &Capture) -> Result<Option<u64>> {
    let _as = RoleGuard::extension_owner()?;
    if capture.is_whole() {
        if capture.ours {
            return Ok(None);
        }
        // Whoever wrote before has its id by now. It may be beyond the end of every snapshot: that is
        // the last transaction that has ended.
        // SAFETY: reads shared state.
        let next = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
        spi::execute(
            "update coco.capture set complete_from_xid = $2::text::xid8 where id = $1 and complete_from_xid is null",
            &[arg(capture.id), arg(next.to_string())],
        )?;
        invalidation::note_change()?;
        return Ok(Some(next));
    }
    // Also holds off others who find it missing.
    spi::execute(
        "update coco.capture set complete_from_xid = null, segment = 0 where id = $1",
        &[arg(capture.id)],
    )?;
    let Some(capture) = capture::find_capture(relation)? else {
        return Ok(None);
    };
    triggers::make_segments(relation, &capture)?;
    // SAFETY: tells writers, when this commits, to look for the log again.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
    Ok(None)
}
