//! Cursors: up to which snapshot coco has followed a source's changes, and whether the cursor is
//! still valid.
//!
//! Callers: `update`, `inspect`.

use pgrx::pg_sys;
use std::ffi::CStr;
use std::time::Duration;

use crate::capture::Capture;
use crate::catalog::model::Source;
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};
use crate::pg::tuplestore::statements::SpiSession;
use coco_core::snapshot::Snapshot;
use coco_core::version::LogicId;

/// The state up to which an update has followed a source: everything that the snapshot sees, with
/// this logic, while the table and its triggers had this signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub snapshot: Snapshot,
    pub logic: LogicId,
    pub signature: [u8; 16],
    /// Whether coco followed lookups, or evaluated items, as of a later time than the snapshot.
    /// Entries that the log recorded since then count as changed, even if their content is the
    /// same.
    pub behind: bool,
    /// A time before the snapshot was taken, in microseconds since 1970.
    pub read_at: i64,
    /// Entries of the update's own transaction, which the snapshot does not see, and which the
    /// update has followed all the same.
    pub own: Option<OwnEntries>,
}

/// The entries that a transaction had written to a change log when an update in this transaction
/// read the log. If the transaction has written no more entries by its end, they are all followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnEntries {
    pub xid: u64,
    pub count: i64,
}

/// The state of a table and its capture. If the signature differs, changes may have bypassed the
/// triggers: a partition was attached, detached or truncated, a trigger was disabled for some time,
/// or a segment of the log was lost. Rewriting a table also changes the signature, and costs a
/// scan.
const SIGNATURE: &str = "
with recursive tree as (
  select $1::oid as relid
   union
  select i.inhrelid from tree t join pg_catalog.pg_inherits i
    on i.inhparent = t.relid and not i.inhdetachpending
), members as (
  select c.oid, c.relkind, c.relpersistence, c.relispartition, c.relfilenode, c.xmin as version, g.*,
         exists (select from pg_catalog.pg_inherits i where i.inhrelid = c.oid) as part
    from tree t join pg_catalog.pg_class c on c.oid = t.relid
    cross join lateral (
      select coalesce(bit_or(g.tgtype::int) filter (where g.tgtype & 1 = 1), 0) as row_events,
             coalesce(bit_or(g.tgtype::int) filter (where g.tgtype & 1 = 0), 0) as statement_events,
             string_agg(concat_ws(':', g.oid, g.tgenabled, g.xmin, g.ctid), ',' order by g.oid) as triggers
        from pg_catalog.pg_trigger g
       where g.tgrelid = c.oid and g.tgfoid = 'coco_internal.capture()'::regprocedure
         and g.tgargs = convert_to($2::int::text, 'SQL_ASCII') || '\\x00'::bytea
         and (g.tgenabled = 'A' or g.tgenabled = 'O' and not $3::bool)
    ) as g
)
select concat_ws(' ',
         md5(concat_ws('|', $2, $4::text,
               string_agg(concat_ws(':', oid, relfilenode, part, triggers), '|' order by oid))),
         coalesce(bool_and(relkind in ('r', 'p') and relpersistence = 'p'
                  and (row_events & 28 = 28
                       or oid = $1 and not part and (select count(*) from members) = 1
                          and statement_events & 28 = 28))
         and bool_or(oid = $1 and statement_events & 32 = 32), false),
         string_agg(version::text, ' ') filter (where oid <> $1))
  from members";

/// Returns the signature of a captured table, as the active snapshot sees the catalog, and whether
/// the table's triggers record every possible change.
pub fn signature(
    statements: &SpiSession,
    relation: pg_sys::Oid,
    capture: &Capture,
) -> Result<([u8; 16], bool)> {
    let _as = RoleGuard::extension_owner()?;
    let segments: Vec<pg_sys::Oid> = capture.segments.iter().map(|(_, oid)| *oid).collect();
    let args = [arg(relation), arg(capture.id), arg(capture.always), arg(segments)];
    let text = statements.read_text(SIGNATURE, &args)?.unwrap_or_default();
    let mut words = text.split(' ');
    let signature = words.next().and_then(|hex| u128::from_str_radix(hex, 16).ok());
    let adequate = words.next() == Some("t");
    // If this transaction has truncated a part, it can truncate the part again without a change of
    // the file.
    let ours = words.any(spi::is_ours);
    Ok((signature.unwrap_or(0).to_be_bytes(), adequate && !ours))
}

/// Returns the active snapshot, with this transaction counted as running, because it may continue
/// to write.
pub fn current_position() -> Result<Snapshot> {
    // SAFETY: calls functions of the server with the arguments that they expect.
    let text = unsafe {
        let snapshot = pgrx::direct_function_call_as_datum(pg_sys::pg_current_snapshot, &[]);
        pgrx::direct_function_call::<&CStr>(pg_sys::pg_snapshot_out, &[snapshot])
    };
    let text = text.map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
    let mut snapshot = Snapshot::parse(&text)
        .ok_or_else(|| Error::internal("could not parse the result of pg_current_snapshot"))?;
    if let Some(own) = own_transaction() {
        snapshot.mark_in_progress(own);
    }
    Ok(snapshot)
}

/// Returns the id of this transaction, if it has one.
pub fn own_transaction() -> Option<u64> {
    // SAFETY: reads the backend's own state; assigns no transaction id.
    let own = unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value;
    (own != 0).then_some(own)
}

/// The signature of a source that coco cannot follow: the next update scans it.
pub const NOWHERE: [u8; 16] = [0; 16];

/// Returns a time before any snapshot of this transaction, in microseconds since 1970.
pub fn before_now() -> i64 {
    /// The difference between 1970 and PostgreSQL's epoch, 2000.
    const EPOCH: i64 = 946_684_800 * 1_000_000;
    // SAFETY: reads the backend's own state.
    let began = unsafe { pg_sys::GetCurrentTransactionStartTimestamp() };
    began.saturating_add(EPOCH)
}

/// A source's stored cursor, and the time since coco read the source.
pub struct Stored {
    pub cursor: Cursor,
    pub age: Duration,
}

pub fn load_cursor(source: &Source) -> Result<Option<Stored>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(
        "select snapshot::text, logic, signature, behind,
                extract(epoch from clock_timestamp() - followed_at)::float8,
                (extract(epoch from followed_at) * 1000000)::int8,
                own_xid::text, own_entries
           from coco_internal.cursor where source = $1",
        &[arg(source.id)],
        |r| {
            let text: String = spi::required(r, 1)?;
            let signature: pgrx::Uuid = spi::required(r, 3)?;
            let logic = LogicId(spi::required(r, 2)?);
            let behind = spi::required(r, 4)?;
            // A time in the future was stored while a clock was ahead: the age is unknown.
            let age = match spi::required::<f64>(r, 5)? {
                seconds if seconds < -1.0 => Duration::MAX,
                seconds => Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX),
            };
            let read_at = spi::required(r, 6)?;
            let own_xid = r.get::<String>(7)?.and_then(|xid| xid.parse().ok());
            let own = own_xid.zip(r.get::<i64>(8)?).map(|(xid, count)| OwnEntries { xid, count });
            Ok(Snapshot::parse(&text).map(|snapshot| Stored {
                cursor: Cursor {
                    snapshot,
                    logic,
                    signature: *signature.as_bytes(),
                    behind,
                    read_at,
                    own,
                },
                age,
            }))
        },
    )?;
    Ok(found.into_iter().next().flatten())
}

/// Makes the next update of a source or lookup look at all of its items, whatever a process keeps in
/// memory. The caller acts as the extension's owner, and holds the flow's lock.
pub fn discard_cursor(source: i32) -> Result<()> {
    // Cursors and pending keys in the memory of a worker belong to an older revision.
    spi::execute(
        "update coco_internal.source set revision = revision + 1 where id = $1",
        &[arg(source)],
    )?;
    // Entries since a cursor that is behind count as changed. Without a usable signature, the next
    // update treats all items as changed.
    spi::execute(
        "update coco_internal.cursor set logic = -1, signature = $2 where source = $1 and behind",
        &[arg(source), arg(pgrx::Uuid::from_bytes(NOWHERE))],
    )?;
    spi::execute(
        "delete from coco_internal.cursor where source = $1 and not behind",
        &[arg(source)],
    )?;
    Ok(())
}

/// Stores a source's cursor. If the update did not follow all changes (`all` is false), the time of
/// the last complete update stays the same.
pub fn store_cursor(source: &Source, cursor: &Cursor, all: bool) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "insert into coco_internal.cursor as c
                (source, snapshot, logic, signature, behind, followed_at, own_xid, own_entries)
         values ($1, $2::text::pg_snapshot, $3, $4, $6, to_timestamp($7 / 1000000.0),
                 $8::text::xid8, $9)
         on conflict (source) do update
            set snapshot = excluded.snapshot, logic = excluded.logic,
                signature = excluded.signature, behind = excluded.behind,
                own_xid = excluded.own_xid, own_entries = excluded.own_entries,
                followed_at = case when $5 then excluded.followed_at else c.followed_at end",
        &[
            arg(source.id),
            arg(cursor.snapshot.to_string()),
            arg(cursor.logic.0),
            arg(pgrx::Uuid::from_bytes(cursor.signature)),
            arg(all),
            arg(cursor.behind),
            arg(cursor.read_at),
            arg(cursor.own.map(|own| own.xid.to_string())),
            arg(cursor.own.map(|own| own.count)),
        ],
    )?;
    Ok(())
}
