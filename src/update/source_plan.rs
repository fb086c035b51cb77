//! The plan of a source: the items that an update looks at, and the cursor that it stores
//! afterwards. The same plan follows a lookup.
//!
//! A captured source is followed by its change log: an update looks at the keys recorded since the
//! cursor. An update looks at all items if the source is not captured, or if its cursor is not
//! usable: no cursor exists yet, the logic has changed, or changes may have passed the triggers by.

use pgrx::pg_sys;
use std::borrow::Cow;
use std::time::Duration;

use crate::capture::cursor::{self, Cursor};
use crate::capture::state::{self, CaptureState};
use crate::capture::{self, Capture, change_log, triggers};
use crate::catalog::model::{CaptureMode, Source};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};
use crate::pg::tuplestore::rows::TupleStore;
use crate::pg::tuplestore::statements::SpiSession;
use crate::update::candidate_rows::key_columns;
use crate::update::cursor_cache::{CursorCache, CursorUpdate};
use crate::update::{logged_keys, retry_due};
use coco_core::decision::Mode;
use coco_core::source_work::{ForcedItems, PlannedRead};
use coco_core::version::LogicId;

/// How often the worker of a live flow scans a source for which no refresh interval is declared.
const REFRESH: Duration = Duration::from_secs(60);

/// Items that coco evaluates whatever their content.
pub enum ForcedKeys {
    /// The items of these keys: `k1…` first.
    Keys(TupleStore),
    All,
}

impl ForcedKeys {
    /// Summarizes the keys for a decision.
    pub fn kind(&self) -> ForcedItems {
        match self {
            ForcedKeys::Keys(keys) if keys.len() == 0 => ForcedItems::None,
            ForcedKeys::Keys(_) => ForcedItems::Some,
            ForcedKeys::All => ForcedItems::All,
        }
    }
}

/// What an update looks at.
pub enum SourcePlan {
    /// All items, in the source and tracked. `forced` are those that count as changed because the
    /// cursor was behind.
    All { forced: ForcedKeys },
    /// The items of these keys: `k1…`, and whether coco forces them.
    Keys(TupleStore),
    /// The groups of changed rows, whose states coco keeps: the keys of the rows, and those of the failed
    /// groups to retry. [`group_rows`](crate::update::group_rows) finds the groups.
    Rows { rows: TupleStore, due: TupleStore },
    /// Nothing: a live flow's worker scans a source only when its refresh interval has passed.
    Nothing,
}

impl SourcePlan {
    /// Summarizes the plan for a decision.
    pub fn kind(&self) -> PlannedRead {
        match self {
            SourcePlan::All { forced } => PlannedRead::All { forced: forced.kind() },
            SourcePlan::Keys(_) | SourcePlan::Rows { .. } => PlannedRead::Keys,
            SourcePlan::Nothing => PlannedRead::Nothing,
        }
    }
}

/// How an update reads a source or a lookup.
#[derive(Clone, Copy)]
pub struct ReadMode<'a> {
    pub logic: LogicId,
    pub mode: Mode,
    /// About how many changes to take from the log; `None`: all.
    pub limit: Option<usize>,
    /// The cursors that the worker of a live flow keeps in memory.
    pub live: Option<&'a CursorCache>,
    /// The invalidation count from before the active snapshot was taken.
    pub generation: u64,
    /// Whether the source has lookups, or is one.
    pub lookups: bool,
    /// Whether a lookup of the source has changed. coco then reads the source under the same
    /// snapshot.
    pub looked_up: bool,
    /// Whether to scan the source only when its refresh interval has passed.
    pub when_due: bool,
    /// Whether the transaction updates several flows, so that the log has entries of its own.
    pub shared: bool,
}

/// The plan of a source, and its cursor.
pub struct PlannedSource {
    pub looking: SourcePlan,
    pub cursor: PlannedCursor,
}

/// The cursor of a source during an update, and what the plan leaves to later updates.
pub struct PlannedCursor {
    capture: Option<Capture>,
    next: Cursor,
    before: Option<Cursor>,
    found: Found,
    /// Whether changes are left for the next update.
    pub more: bool,
    /// Whether triggers are missing, so that changes pass the log by.
    pub uncaptured: bool,
    /// The time until a live flow's worker must scan the source again.
    pub again: Option<Duration>,
    /// The number of failed items that the plan leaves out because their retry time has not come.
    pub waiting: i64,
    /// Whether the plan comes from the change log.
    by_log: bool,
}

/// What the plan found, as far as the cursor depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    NotRead,
    NoKeys,
    Items,
}

/// Decides which items to look at, under the active snapshot. The caller acts as the flow's owner.
pub fn plan_source(
    statements: &SpiSession,
    source: &Source,
    how: ReadMode,
) -> Result<PlannedSource> {
    let before = cached_cursor(source, how)?;
    let mut cursor = PlannedCursor {
        capture: None,
        next: Cursor {
            snapshot: cursor::current_position()?,
            logic: how.logic,
            signature: cursor::NOWHERE,
            behind: false,
            read_at: cursor::before_now(),
            own: None,
        },
        before,
        found: Found::Items,
        more: false,
        uncaptured: false,
        again: None,
        waiting: 0,
        by_log: false,
    };
    let mut looking = cursor.follow_log(statements, source, how)?;
    if cursor.uncaptured {
        pgrx::ereport!(
            pgrx::PgLogLevel::NOTICE,
            pgrx::PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("not every change of {} is captured: all of it is read", source.relation_name),
            "A trigger of coco's is missing or disabled, or the table was made part of another. \
             coco.start puts triggers back."
        );
    }
    let scans = matches!(looking, SourcePlan::All { .. });
    if scans && how.when_due && !how.mode.evaluates_all() && !cursor.is_scan_due(source, how)? {
        looking = SourcePlan::Nothing;
    }
    cursor.by_log = matches!(looking, SourcePlan::Keys(_) | SourcePlan::Rows { .. });
    cursor.found = match &looking {
        SourcePlan::Nothing => Found::NotRead,
        SourcePlan::Keys(keys) if keys.len() == 0 => Found::NoKeys,
        SourcePlan::Rows { rows, due } if rows.len() + due.len() == 0 => Found::NoKeys,
        SourcePlan::Keys(_) | SourcePlan::Rows { .. } | SourcePlan::All { .. } => Found::Items,
    };
    Ok(PlannedSource { looking, cursor })
}

/// Returns the cursor up to which coco has followed a source.
fn cached_cursor(source: &Source, how: ReadMode) -> Result<Option<Cursor>> {
    let cached = how.live.and_then(|cursors| cursors.get(source)).cloned();
    if cached.is_some() && !how.lookups {
        return Ok(cached);
    }
    // Another process may have left keys unprocessed since this process followed the source.
    let stored = cursor::load_cursor(source)?.map(|s| s.cursor);
    let unfinished = stored.as_ref().is_some_and(|s| s.behind || s.logic != how.logic);
    Ok(match unfinished {
        true => stored,
        false => cached.or(stored),
    })
}

/// A change log that can be followed from now on.
struct OpenLog {
    signature: [u8; 16],
    /// The log's columns for the key of the source.
    columns: Vec<String>,
}

impl PlannedCursor {
    /// Takes the changed keys from the change log, if coco can follow it. Otherwise plans to look
    /// at all items.
    fn follow_log(
        &mut self,
        statements: &SpiSession,
        source: &Source,
        how: ReadMode,
    ) -> Result<SourcePlan> {
        let forced = match self.before.as_ref().is_some_and(|cursor| cursor.behind) {
            true => ForcedKeys::All,
            false => ForcedKeys::Keys(TupleStore::new(&key_columns(source))?),
        };
        let Some(log) = self.open_log(statements, source, how)? else {
            return Ok(SourcePlan::All { forced });
        };
        if let (true, Some(capture)) = (how.shared, &self.capture) {
            self.next.own = change_log::own_entries(statements, capture)?;
        }
        if let Some(since) = self.usable_cursor(source, how, &log)? {
            let read = self.read_changed_keys(statements, source, how, &log, &since)?;
            return Ok(read.unwrap_or(SourcePlan::All { forced }));
        }
        let keys = self.read_forced_keys(statements, source, &log)?;
        Ok(SourcePlan::All { forced: keys.map_or(forced, ForcedKeys::Keys) })
    }

    /// Returns the change log if it has all changes from now on. Repairs a log that a restored dump
    /// has left incomplete.
    fn open_log(
        &mut self,
        statements: &SpiSession,
        source: &Source,
        how: ReadMode,
    ) -> Result<Option<OpenLog>> {
        if source.capture == CaptureMode::Scan {
            return Ok(None);
        }
        let Some(state) = state::capture_state(statements, source.relation, how.generation)? else {
            self.uncaptured = true;
            return Ok(None);
        };
        let CaptureState { capture, signature, adequate } = state;
        let whole = capture.is_whole();
        let columns = capture.key_columns(&logged(source));
        if whole && columns.is_none() {
            self.uncaptured = true;
            return Ok(None);
        }
        let mut since = capture.since;
        if !whole || since.is_none() {
            since = restore(source.relation, &capture)?;
        }
        // If coco created the log without locking out writers, all transactions that began before
        // must have ended. A transaction that created the log itself may read an older state.
        let complete = since.is_some_and(|since| self.next.snapshot.xmin >= since)
            && !(capture.ours && reads_as_of_earlier());
        self.uncaptured = !adequate;
        let usable = adequate && complete && whole;
        // Only a stored cursor that others see keeps the log from being emptied.
        if usable && (self.before.is_some() || change_log::keep(statements, &capture)?) {
            self.next.signature = signature;
        }
        self.capture = Some(capture);
        Ok(columns.filter(|_| usable).map(|columns| OpenLog { signature, columns }))
    }

    /// Returns the cursor from which the log can be read, if there is one.
    fn usable_cursor(
        &self,
        source: &Source,
        how: ReadMode,
        log: &OpenLog,
    ) -> Result<Option<Cursor>> {
        let fits = |c: &Cursor| {
            c.signature == log.signature && c.logic == self.next.logic && !how.mode.evaluates_all()
        };
        let since = self.before.clone().filter(fits);
        if since.is_none() && self.before.is_some() {
            // The cached cursor may be older than one that another process has stored.
            return Ok(cursor::load_cursor(source)?.map(|s| s.cursor).filter(fits));
        }
        Ok(since)
    }

    /// Plans the keys in the log since a cursor, and the failed items whose retry time has come.
    /// Returns `None` if the log does not have the keys.
    fn read_changed_keys(
        &mut self,
        statements: &SpiSession,
        source: &Source,
        how: ReadMode,
        log: &OpenLog,
        since: &Cursor,
    ) -> Result<Option<SourcePlan>> {
        let Some(capture) = &self.capture else { return Ok(None) };
        let snapshot = change_log::followed_until(statements, capture, since)?;
        let since = Cursor { snapshot, ..since.clone() };
        let logged = logged(source);
        // The state of a group must never have one part of a transaction's changes.
        let limit = how.limit.filter(|_| !source.reads_states);
        let mut keys = TupleStore::new(&key_columns(&logged))?;
        let change_log::LogRead::Keys(end) = change_log::changed(
            statements,
            capture,
            &logged,
            &log.columns,
            &since,
            limit,
            &mut keys,
        )?
        else {
            return Ok(None);
        };
        if let Some(end) = end {
            self.next.snapshot.truncate_at(end);
            self.next.own = None;
            self.next.behind = how.lookups;
            self.more = true;
        }
        if source.reads_states {
            // `group_rows` counts the groups that wait, when it knows the groups of the changed rows.
            let mut due = TupleStore::new(&key_columns(source))?;
            retry_due::add_due_failures(statements, source, how.mode, &mut due)?;
            return Ok(Some(SourcePlan::Rows { rows: keys, due }));
        }
        if let Some(key) = &source.key_expressions {
            match logged_keys::keys_of_logged(source, key, &keys)? {
                Some(of_items) => keys = of_items,
                None => return Ok(None),
            }
        }
        self.waiting = retry_due::add_due_failures(statements, source, how.mode, &mut keys)?;
        Ok(Some(SourcePlan::Keys(keys)))
    }

    /// Returns the keys in the log since a cursor that is behind. An update that looks at all items
    /// must evaluate these: their content may not show that they have changed.
    fn read_forced_keys(
        &self,
        statements: &SpiSession,
        source: &Source,
        log: &OpenLog,
    ) -> Result<Option<TupleStore>> {
        // Only lookups leave a cursor behind, and a source whose groups coco keeps has none.
        if source.reads_states {
            return Ok(None);
        }
        let logged = logged(source);
        let mut keys = TupleStore::new(&key_columns(&logged))?;
        let behind = self.before.as_ref().filter(|c| c.behind && c.signature == log.signature);
        let (Some(since), Some(capture)) = (behind, &self.capture) else { return Ok(None) };
        let columns = &log.columns;
        let read =
            change_log::changed(statements, capture, &logged, columns, since, None, &mut keys)?;
        match (read, &source.key_expressions) {
            (change_log::LogRead::Anything, _) => Ok(None),
            (change_log::LogRead::Keys(_), None) => Ok(Some(keys)),
            (change_log::LogRead::Keys(_), Some(key)) => {
                logged_keys::keys_of_logged(source, key, &keys)
            }
        }
    }

    /// Reports whether to scan a source that is scanned only now and then. Determines when to scan
    /// it again.
    fn is_scan_due(&mut self, source: &Source, how: ReadMode) -> Result<bool> {
        let interval = source.refresh.unwrap_or(REFRESH);
        let stored = cursor::load_cursor(source)?;
        let since = stored.filter(|s| s.cursor.logic == how.logic).map(|s| s.age);
        let wait = since.map_or(Duration::ZERO, |age| interval.saturating_sub(age));
        // A log that can be followed from now on is worth a scan.
        if self.next.signature != cursor::NOWHERE {
            return Ok(true);
        }
        let due = wait.is_zero() || how.looked_up;
        self.again = Some(if due { interval } else { wait });
        Ok(due)
    }

    /// Reports whether the cursor is behind, or was. coco stores such a cursor at once.
    fn is_or_was_behind(&self) -> bool {
        self.next.behind || self.before.as_ref().is_some_and(|cursor| cursor.behind)
    }

    /// Returns the capture by whose log alone the source is followed.
    pub fn log(&self) -> Option<i32> {
        self.capture.as_ref().filter(|_| self.by_log).map(|capture| capture.id)
    }

    /// Returns the logic with which the source was followed before.
    pub fn logic_before(&self) -> Option<LogicId> {
        self.before.as_ref().map(|cursor| cursor.logic)
    }

    /// Returns the cursor to store when everything that was found is written.
    pub fn next(&self) -> &Cursor {
        &self.next
    }

    /// Stores the cursor when everything that was found is written, and rotates the log. For a live
    /// flow, returns the cursor that the worker keeps.
    pub fn store(
        self,
        source: &Source,
        cached: Option<&CursorCache>,
        segment_bytes: i64,
    ) -> Result<Option<CursorUpdate>> {
        if let Some(cached) = cached {
            let at_once = self.is_or_was_behind();
            let nothing_new = match self.found {
                Found::NotRead => true,
                Found::NoKeys => {
                    let has_own = self.before.as_ref().is_some_and(|cursor| cursor.own.is_some());
                    !at_once && !has_own && !cached.is_unsaved(source)
                }
                Found::Items => false,
            };
            if nothing_new {
                return Ok(None);
            }
            if !at_once && cached.is_stored_recently(source) {
                return Ok(Some(CursorUpdate::unsaved(source, self.next)));
            }
        }
        // Also if nothing has changed: an update in an old snapshot must conflict with the newer
        // cursor that another update has stored.
        cursor::store_cursor(source, &self.next, !self.more)?;
        if let Some(capture) = self.capture.filter(Capture::is_whole) {
            change_log::rotate(&capture, segment_bytes)?;
        }
        Ok(Some(CursorUpdate::stored(source, self.next)))
    }
}

/// Returns the source as its change log sees it.
fn logged(source: &Source) -> Cow<'_, Source> {
    match (source.reads_states, &source.key_expressions) {
        (true, _) => Cow::Owned(source.by_rows()),
        (false, Some(_)) => Cow::Owned(source.by_captured()),
        (false, None) => Cow::Borrowed(source),
    }
}

/// Reports whether each statement of this transaction reads the state of its first one.
fn reads_as_of_earlier() -> bool {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Creates the change log of a table again, for example after a dump was restored. If all
/// transactions see the log, records and returns the first transaction id from which on the log is
/// complete.
fn restore(relation: pg_sys::Oid, capture: &Capture) -> Result<Option<u64>> {
    let _as = RoleGuard::extension_owner()?;
    if capture.is_whole() {
        if capture.ours {
            return Ok(None);
        }
        // Each transaction that wrote before now has an id below this one. It may be above the end
        // of every snapshot, because that is the last transaction that has ended. SAFETY: reads
        // shared state.
        let next = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
        spi::execute(
            "update coco_internal.capture set complete_from_xid = $2::text::xid8 where id = $1 and complete_from_xid is null",
            &[arg(capture.id), arg(next.to_string())],
        )?;
        invalidation::note_change()?;
        return Ok(Some(next));
    }
    // Also blocks other processes that find the log missing.
    spi::execute(
        "update coco_internal.capture set complete_from_xid = null, segment = 0 where id = $1",
        &[arg(capture.id)],
    )?;
    let Some(capture) = capture::find_capture(relation)? else {
        return Ok(None);
    };
    triggers::make_segments(relation, &capture)?;
    // SAFETY: an invalidation message; when this commits, it makes writers look for the log again.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
    Ok(None)
}
