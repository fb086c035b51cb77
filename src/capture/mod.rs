//! Capture: change logs, the triggers that fill them, and the cursors that read them.
//!
//! A captured table has one change log, which all flows on the table share: the tables
//! `coco_internal.log_<id>_<n>`, its segments. Triggers append the keys of changed rows to the
//! current segment. coco never updates or deletes an entry; it empties a segment as a whole when
//! every cursor has passed it.
//!
//! Callers: `update`, `declare`, `inspect`, `workers` and `sql_api`.

pub mod captured_columns;
pub mod change_log;
pub mod cursor;
pub mod drop_extension;
pub mod state;
pub mod trigger_append;
pub mod triggers;

use pgrx::pg_sys;

use crate::catalog::internal_tables::SCHEMA;
use crate::catalog::model::Source;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// The number of segments of a log: one is current, one is being emptied, and one is spare while a
/// long transaction holds another.
pub const SEGMENTS: i32 = 3;

/// The change log of a captured table.
#[derive(Clone, Debug)]
pub struct Capture {
    pub id: i32,
    /// The table's columns that the log stores, as `k1`, `k2`, …
    pub columns: Vec<String>,
    pub always: bool,
    /// The number of the current segment.
    pub segment: i32,
    /// The log contains all changes of transactions from this id on. For a log that was created
    /// without blocking writers, it is `None` until all transactions that did not know the log have
    /// ended.
    pub since: Option<u64>,
    /// The existing segments: number and relation.
    pub segments: Vec<(i32, pg_sys::Oid)>,
    /// The types of the log's columns `k1…`.
    pub types: Vec<pg_sys::Oid>,
    /// Whether this transaction has changed the capture, so that other sessions do not see the
    /// change yet.
    pub ours: bool,
}

impl Capture {
    /// Returns the log's columns that contain a source's key, in the key's order; `None` if a
    /// column is missing or has another type.
    pub fn key_columns(&self, source: &Source) -> Option<Vec<String>> {
        let place = |k: &crate::pg::columns::Column| {
            let at = self.columns.iter().position(|c| *c == k.name)?;
            self.types.get(at).filter(|there| **there == k.type_oid)?;
            Some(format!("k{}", at + 1))
        };
        source.key.iter().map(place).collect()
    }

    /// Reports whether the log stores values of this column, with the type that coco stores them
    /// as.
    pub fn has(&self, column: &crate::pg::columns::Column) -> bool {
        let at = self.columns.iter().position(|c| *c == column.name);
        at.and_then(|at| self.types.get(at)) == Some(&column.stored().type_oid)
    }

    /// Reports whether every segment exists.
    pub fn is_whole(&self) -> bool {
        self.segments.len() == SEGMENTS as usize
    }
}

pub fn segment_name(id: i32, segment: i32) -> String {
    format!("{SCHEMA}.log_{id}_{segment}")
}

/// Returns the capture of a table, if it has one.
pub fn find_capture(relation: pg_sys::Oid) -> Result<Option<Capture>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select c.id, c.columns, c.always, c.segment, c.complete_from_xid::text,
                l.numbers, l.oids, c.xmin::text,
                array(select case when min(a.atttypid) = max(a.atttypid) then min(a.atttypid) else 0 end
                        from pg_catalog.pg_attribute a
                       where a.attrelid = any (l.oids) and a.attnum > 1
                       group by a.attnum order by a.attnum)
           from coco_internal.capture c
          -- Found under the snapshot that reads the rest: if another session has recreated the log,
          -- the old state must not count as the new log's.
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
