//! Capture: change logs, the triggers that fill them, and the cursors that read them.
//!
//! A captured table has one change log, which all flows on it share: tables
//! `coco_internal.log_<id>_<n>`, to one of which, the current segment, triggers append the keys of changed rows. Nothing in a log is
//! ever updated or deleted; a segment that every cursor has passed is emptied as a whole.

pub mod change_log;
pub mod cursor;
pub mod drop_extension;
pub mod trigger_append;
pub mod triggers;

use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;

use crate::catalog::internal_tables::SCHEMA;
use crate::catalog::model::Source;
use crate::pg::acting_role::ActingAs;
use crate::pg::error::Result;
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};
use crate::pg::tuplestore::statements::Statements;

/// Segments of a log: one is current, one is being emptied, and one is to spare for while a long
/// transaction holds another.
pub const SEGMENTS: i32 = 3;

/// How the changes of a source are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By comparing all of it with what is tracked.
    Scan,
    /// Triggers note each change.
    Trigger,
    /// The same, also for changes applied by logical replication or with session_replication_role
    /// set to replica.
    Always,
}

impl Mode {
    pub fn from_name(name: &str) -> Option<Mode> {
        match name {
            "scan" => Some(Mode::Scan),
            "trigger" => Some(Mode::Trigger),
            "always" => Some(Mode::Always),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Mode::Scan => "scan",
            Mode::Trigger => "trigger",
            Mode::Always => "always",
        }
    }
}

/// The change log of a captured table.
#[derive(Clone, Debug)]
pub struct Capture {
    pub id: i32,
    /// The table's columns that the log keeps, as `k1`, `k2`, …
    pub columns: Vec<String>,
    pub always: bool,
    /// The number of the current segment.
    pub segment: i32,
    /// Changes of transactions from this one on are all in the log. `None` until a log that was made
    /// without holding off writers has outlived those that knew nothing of it.
    pub since: Option<u64>,
    /// The segments that are there: their number and relation.
    pub segments: Vec<(i32, pg_sys::Oid)>,
    /// The types of the log's columns `k1…`.
    pub types: Vec<pg_sys::Oid>,
    /// Changed by this transaction: nobody else knows yet what it says.
    pub ours: bool,
}

impl Capture {
    /// The log's columns that hold a source's key, in the key's order; `None` where one is missing, or has another
    /// type.
    pub fn key_columns(&self, source: &Source) -> Option<Vec<String>> {
        let place = |k: &crate::catalog::model::Column| {
            let at = self.columns.iter().position(|c| *c == k.name)?;
            self.types.get(at).filter(|there| **there == k.type_oid)?;
            Some(format!("k{}", at + 1))
        };
        source.key.iter().map(place).collect()
    }

    /// Whether the log keeps values of this column, as its values are stored.
    pub fn has(&self, column: &crate::catalog::model::Column) -> bool {
        let at = self.columns.iter().position(|c| *c == column.name);
        at.and_then(|at| self.types.get(at)) == Some(&column.stored().type_oid)
    }

    /// Whether every segment is there.
    pub fn is_whole(&self) -> bool {
        self.segments.len() == SEGMENTS as usize
    }
}

pub fn segment_name(id: i32, segment: i32) -> String {
    format!("{SCHEMA}.log_{id}_{segment}")
}

/// The capture of a table, if it has one.
pub fn find(relation: pg_sys::Oid) -> Result<Option<Capture>> {
    let _as = ActingAs::extension_owner()?;
    let found = spi::select(
        "select c.id, c.columns, c.always, c.segment, c.since::text,
                l.numbers, l.oids, c.xmin::text,
                array(select case when min(a.atttypid) = max(a.atttypid) then min(a.atttypid) else 0 end
                        from pg_catalog.pg_attribute a
                       where a.attrelid = any (l.oids) and a.attnum > 1
                       group by a.attnum order by a.attnum)
           from coco.capture c
          -- Under the snapshot that reads the rest: what it says of a log that was made again since
          -- is not held for true of the new one.
          cross join lateral (
            select coalesce(pg_catalog.array_agg(n.n order by n.n), '{}') as numbers,
                   coalesce(pg_catalog.array_agg(s.oid order by n.n), '{}') as oids
              from pg_catalog.generate_series(0, $2 - 1) as n(n)
              join pg_catalog.pg_class s
                on s.relname = pg_catalog.format('log_%s_%s', c.id, n.n)::name
               and s.relnamespace = 'coco_internal'::regnamespace and s.relkind = 'r'
          ) as l
          where c.relation = $1::oid::regclass",
        &[arg(relation), arg(SEGMENTS)],
        |r| {
            let since: Option<String> = r.get(5)?;
            let numbers: Vec<i32> = spi::required(r, 6)?;
            let oids: Vec<pg_sys::Oid> = spi::required(r, 7)?;
            let version: String = spi::required(r, 8)?;
            Ok(Capture {
                id: spi::required(r, 1)?,
                columns: spi::required(r, 2)?,
                always: spi::required(r, 3)?,
                segment: spi::required(r, 4)?,
                since: since.and_then(|s| s.parse().ok()),
                segments: numbers.into_iter().zip(oids).collect(),
                types: spi::required(r, 9)?,
                ours: spi::is_ours(&version),
            })
        },
    )?;
    Ok(found.into_iter().next())
}

/// A capture as the active snapshot sees it.
#[derive(Clone)]
pub struct State {
    pub capture: Capture,
    pub signature: [u8; 16],
    /// Its triggers note every change there can be.
    pub adequate: bool,
}

thread_local! {
    static STATES: RefCell<HashMap<u32, (u64, State)>> = RefCell::new(HashMap::new());
}

/// The capture of a table, if it has one, and its signature. Kept while the generation of the system
/// catalogs stays what it was before the active snapshot was taken: then nothing that this snapshot
/// does not see can be in it, and nothing that it sees is missing for longer than one update.
pub fn state(
    statements: &Statements,
    relation: pg_sys::Oid,
    generation: u64,
) -> Result<Option<State>> {
    // SAFETY: reads the backend's own state.
    let moves = unsafe { pg_sys::XactIsoLevel } < pg_sys::XACT_REPEATABLE_READ as i32;
    let unchanged = || moves && invalidation::now() == generation;
    let known = STATES.with(|s| s.borrow().get(&relation.to_u32()).cloned());
    if let Some((_, state)) = known.filter(|(g, _)| *g == generation && unchanged()) {
        return Ok(Some(state));
    }
    let Some(capture) = find(relation)? else {
        return Ok(None);
    };
    let (signature, adequate) = cursor::signature(statements, relation, &capture)?;
    let state = State { capture, signature, adequate };
    let settled = state.capture.is_whole() && state.capture.since.is_some() && !state.capture.ours;
    if adequate && settled && unchanged() {
        let kept = (generation, state.clone());
        STATES.with(|s| s.borrow_mut().insert(relation.to_u32(), kept));
    }
    Ok(Some(state))
}
