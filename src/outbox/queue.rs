//! The outbox of an external target: the undelivered changes, and the rejected ones.
//!
//! Updates of one flow append entries one after the other, because each of them holds the flow's
//! lock until it commits. An entry that becomes visible therefore has a higher position than all
//! entries that were visible before.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ops::Range;

use crate::catalog::model::{External, Flow, Target};
use crate::catalog::{internal_tables, locks};
use crate::outbox::change_batch::{self, BatchReader, BatchSize, ChangeBatch, select_sql};
use crate::outbox::tables::outbox_key;
use crate::pg::acting_role::RoleGuard;
use crate::pg::clock;
use crate::pg::columns::{all_equal, stored};
use crate::pg::error::{Error, Result};
use crate::pg::json::{Json, object_sql};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, Arg, arg};
use crate::pg::subtransaction::{DataError, subtransaction};
use crate::pg::tuplestore::statements::SpiSession;
use coco_core::backoff;
use coco_core::bisect::{Attempt, bisect, bisect_failed};
use coco_core::change::{Encoding, RejectedChange};

/// The result of reading an outbox.
#[derive(Default)]
pub struct QueueRead {
    /// `None` if there is no entry to send.
    pub batch: Option<ChangeBatch>,
    /// How many entries coco has marked as rejected because they have no form in which coco could
    /// send them. An example is a row whose JSON text exceeds 1 GB.
    pub refused: i64,
}

/// Which entries of an outbox to read.
#[derive(Clone, Copy)]
pub struct ReadRequest {
    /// Read the entries after this position: the newest entry of each key.
    pub after: i64,
    /// Read first the rejected entries whose retry time has come. Set this only if no batch is in
    /// flight.
    pub refused: bool,
    pub encoding: Encoding,
    pub size: BatchSize,
}

/// Reads entries. Marks an entry that cannot be encoded as rejected, and reads the others without
/// it.
pub fn read_next(
    flow: &Flow,
    target: &Target,
    external: &External,
    wanted: ReadRequest,
) -> Result<QueueRead> {
    let mut all = QueueRead::default();
    loop {
        let read = Cell::new(0);
        let batch = subtransaction(
            || read_batch(flow, target, external, wanted, &read).map_err(Stop::Error),
            Stop::Raised,
        );
        match batch {
            Ok(batch) => all.batch = batch,
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::Raised(raised)) => {
                let unfit = unfit(flow, target, external, wanted, read.get(), raised.clone())?;
                // Each entry can be read by itself, but not all together.
                if unfit.is_empty() {
                    return Err(Error::new(raised.code, raised.message));
                }
                for (position, raised) in unfit {
                    refuse(external, position, &raised.sqlstate, &raised.message)?;
                    all.refused += 1;
                }
                continue;
            }
        }
        if all.batch.is_none() && wanted.refused {
            pass_refused(target, external, wanted.after)?;
        }
        return Ok(all);
    }
}

enum Stop {
    Raised(DataError),
    Error(Error),
}

/// Reads a batch. Counts the entries that it reads in `read`.
fn read_batch(
    flow: &Flow,
    target: &Target,
    external: &External,
    wanted: ReadRequest,
    read: &Cell<usize>,
) -> Result<Option<ChangeBatch>> {
    let _as = reading_in_order(flow)?;
    let _snapshot = PinnedSnapshot::take();
    let statements = SpiSession::connect()?;
    let mut reading = BatchReader::new(target, wanted.encoding, wanted.size, wanted.after)?;
    let from = select_sql(target, wanted.encoding, &external.outbox_view);
    for (condition, args) in conditions(wanted) {
        reading.add_all(&statements, &limited(&from, &condition, wanted.size), &args, read)?;
    }
    Ok(reading.done())
}

/// Acts as the flow's owner, and makes the planner read in the order of the index. coco then reads
/// only the entries that it takes. The statistics do not lead to such a plan, because an outbox is
/// rarely analyzed.
fn reading_in_order(flow: &Flow) -> Result<RoleGuard> {
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    for way in ["enable_seqscan", "enable_bitmapscan", "enable_sort"] {
        acting.set(way, "off")?;
    }
    Ok(acting)
}

/// Returns the conditions on entries `o`, in the order in which coco reads them, each with its
/// arguments.
fn conditions<'a>(wanted: ReadRequest) -> Vec<(String, Vec<Arg<'a>>)> {
    let is_due = clock::is_due_sql("o.refused", "pg_catalog.clock_timestamp()");
    let due = (format!("o.refused is not null and {is_due}"), vec![]);
    let fresh = "o.position operator(pg_catalog.>) $1 and o.refused is null".to_owned();
    let fresh = (fresh, vec![arg(wanted.after)]);
    if wanted.refused { vec![due, fresh] } else { vec![fresh] }
}

fn limited(from: &str, condition: &str, size: BatchSize) -> String {
    format!("{from} where {condition} order by o.position limit {}", size.changes)
}

/// Returns the positions of the entries that cannot be encoded, with the reasons. `read` is how
/// many entries were encoded before the error was raised, so coco tries the entry after these
/// first.
fn unfit(
    flow: &Flow,
    target: &Target,
    external: &External,
    wanted: ReadRequest,
    read: usize,
    raised: DataError,
) -> Result<Vec<(i64, DataError)>> {
    let _as = reading_in_order(flow)?;
    let mut positions = Vec::new();
    for (condition, args) in conditions(wanted) {
        let from = format!("select o.position from {} as o", external.outbox_view);
        let sql = limited(&from, &condition, wanted.size);
        positions.extend(spi::select(&sql, &args, |r| spi::required::<i64>(r, 1))?);
    }
    let mut unfit = Vec::new();
    let from = select_sql(target, wanted.encoding, &external.outbox_view);
    let sql = format!("{from} where o.position operator(pg_catalog.=) any ($1)");
    let mut attempt = |range: Range<usize>| -> Result<Attempt<DataError>> {
        pgrx::check_for_interrupts!();
        let some = arg(positions.get(range).unwrap_or_default().to_vec());
        let encoded = subtransaction(
            || {
                let statements = SpiSession::connect().map_err(Stop::Error)?;
                change_batch::encode_each(target, wanted.encoding, &statements, &sql, &[some])
                    .map_err(Stop::Error)
            },
            Stop::Raised,
        );
        match encoded {
            Ok(()) => Ok(Attempt::Done),
            Err(Stop::Raised(raised)) => Ok(Attempt::Failed(raised)),
            Err(Stop::Error(error)) => Err(error),
        }
    };
    let mut report = |n: usize, raised: DataError| {
        unfit.extend(positions.get(n).map(|position| (*position, raised)));
        Ok(())
    };
    if read < positions.len() {
        bisect(read..read + 1, &mut attempt, &mut report)?;
    }
    if unfit.is_empty() && !positions.is_empty() {
        let mut report = |n: usize, raised: DataError| {
            unfit.extend(positions.get(n).map(|position| (*position, raised)));
            Ok(())
        };
        bisect_failed(0..positions.len(), raised, &mut attempt, &mut report)?;
    }
    Ok(unfit)
}

/// Marks an entry as rejected. The delay before the next attempt depends on how often the entry was
/// rejected.
fn refuse(external: &External, position: i64, sqlstate: &str, message: &str) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let outbox = &external.outbox;
    let attempts: i32 = spi::scalar(
        &format!(
            "select coalesce((refused->>'attempts')::int, 0) + 1 from {outbox} where position = $1"
        ),
        &[arg(position)],
    )?
    .unwrap_or(1);
    spi::execute(
        &format!(
            "update {outbox} set refused = jsonb_build_object(
                'sqlstate', $2::text, 'message', $3::text, 'attempts', $4::int,
                'failed_at', clock.now,
                'next_retry', clock.now + make_interval(secs => $5::float8))
               from (select clock_timestamp() as now) as clock
              where position = $1"
        ),
        &[
            arg(position),
            arg(sqlstate),
            arg(message),
            arg(attempts),
            arg(backoff::retry_delay(attempts.max(1) as u32).as_secs_f64()),
        ],
    )?;
    Ok(())
}

/// Records that all entries up to the last rejected one are delivered or rejected. Call this only
/// if no other entry follows the delivered ones, and no batch is in flight.
fn pass_refused(target: &Target, external: &External, after: i64) -> Result<()> {
    let acting = RoleGuard::extension_owner()?;
    acting.set("enable_seqscan", "off")?;
    let last = spi::scalar::<i64>(
        &format!(
            "select max(position) from {} where refused is not null and position > $1",
            external.outbox
        ),
        &[arg(after)],
    )?;
    match last {
        Some(last) => crate::outbox::delivery_state::note_sent(target.id, last),
        None => Ok(()),
    }
}

/// Bytes. coco truncates an outbox that is larger than this once all its entries are delivered.
const LARGE: i64 = 1024 * 1024;

/// Bytes. If an outbox is larger than this and never completely delivered, coco deletes the
/// delivered entries.
const HUGE: i64 = 64 * LARGE;

/// Records that the target has acknowledged a batch, except for the rejected changes.
pub fn acknowledge(
    target: &Target,
    external: &External,
    batch: &ChangeBatch,
    refused: &[RejectedChange],
) -> Result<()> {
    let outbox = &external.outbox;
    let acting = RoleGuard::extension_owner()?;
    // Use the index on rejected entries: an outbox is never analyzed before it is large.
    acting.set("enable_seqscan", "off")?;
    let any_refused = format!("select true from {outbox} where refused is not null limit 1");
    if spi::scalar::<bool>(&any_refused, &[])?.is_some() {
        let bad: Vec<i64> =
            refused.iter().filter_map(|r| batch.positions.get(r.change).copied()).collect();
        let key = outbox_key(target);
        let of = |alias: &str| key.iter().map(|k| format!("{alias}.{k}")).collect::<Vec<_>>();
        // Also deletes rejected entries that a newer change of their key has replaced.
        spi::execute(
            &format!(
                "delete from {outbox} as o using {outbox} as s
                  where o.refused is not null and s.position = any ($1) and s.position >= o.position
                    and {} and o.position <> all ($2)",
                all_equal(&stored(&target.key), &of("o"), &of("s"))
            ),
            &[arg(batch.positions.clone()), arg(bad)],
        )?;
    }
    for r in refused {
        let Some(position) = batch.positions.get(r.change) else { continue };
        refuse(external, *position, &r.sqlstate, &r.message)?;
    }
    drop(acting);
    crate::outbox::delivery_state::note_sent(target.id, batch.upto)
}

/// Empties the outbox of a target if the outbox is large and all its entries are delivered. Does
/// nothing if another session holds a lock on the flow or on the table.
pub fn empty_outbox(flow: &Flow, target: &Target) -> Result<()> {
    let Some(external) = target.external.as_ref().filter(|_| target.relation.is_some()) else {
        return Ok(());
    };
    let Some(crate::outbox::delivery_state::DeliveryStatus { sent, .. }) =
        crate::outbox::delivery_state::delivery_status(target.id)?
    else {
        return Ok(());
    };
    let outbox = &external.outbox;
    let acting = RoleGuard::extension_owner()?;
    acting.set("enable_seqscan", "off")?;
    let large = spi::scalar::<bool>(
        "select pg_relation_size($1::text::regclass) > $2",
        &[arg(outbox.as_str()), arg(LARGE)],
    )?;
    if large != Some(true) || !locks::lock_flow_if_free(flow.id)? {
        return Ok(());
    }
    // While this process holds the flow's lock, nobody adds an entry.
    let _now = PinnedSnapshot::latest();
    let left = |condition: &str| {
        spi::scalar::<bool>(
            &format!("select true from {outbox} where {condition} limit 1"),
            &[arg(sent)],
        )
    };
    if left("position > $1")?.is_some() {
        // Some entries are always undelivered. Delete the delivered ones; vacuum then frees their
        // space.
        let huge = spi::scalar::<bool>(
            "select pg_relation_size($1::text::regclass) > $2",
            &[arg(outbox.as_str()), arg(HUGE)],
        )?;
        if huge == Some(true) {
            spi::execute(
                &format!("delete from {outbox} where refused is null and position <= $1"),
                &[arg(sent)],
            )?;
        }
        return Ok(());
    }
    if left("refused is not null and $1 is not null")?.is_some() {
        spi::execute(
            &format!("delete from {outbox} where refused is null and position <= $1"),
            &[arg(sent)],
        )?;
        return Ok(());
    }
    let oid =
        spi::scalar::<pg_sys::Oid>("select $1::text::regclass::oid", &[arg(outbox.as_str())])?;
    let lock = pg_sys::AccessExclusiveLock as i32;
    if let Some(oid) = oid
        // SAFETY: a heavyweight lock, which Postgres holds until the transaction ends.
        && unsafe { pg_sys::ConditionalLockRelationOid(oid, lock) }
    {
        spi::execute(&format!("truncate {outbox}"), &[])?;
    }
    drop(acting);
    Ok(())
}

/// Makes all rejected entries of a flow due for a retry.
pub fn retry_rejected(flow: &Flow) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    for external in flow.targets.iter().filter_map(|t| t.external.as_ref()) {
        spi::execute(
            &format!(
                "update {} set refused = refused || jsonb_build_object('next_retry', clock_timestamp())
                  where refused is not null",
                external.outbox
            ),
            &[],
        )?;
    }
    Ok(())
}

/// How many changes an outbox holds.
pub struct PendingChanges {
    /// Undelivered entries, counted up to [`COUNTED`].
    pub unsent: i64,
    /// Entries that the target has rejected.
    pub refused: i64,
}

/// The largest number of undelivered entries that coco counts.
pub const COUNTED: i64 = 100_000;

/// Counts the entries of an outbox. The caller must have checked that the outbox can be read.
pub fn pending_changes(external: &External, sent: i64) -> Result<PendingChanges> {
    let _as = RoleGuard::extension_owner()?;
    let outbox = &external.outbox;
    let found = spi::select(
        &format!(
            "select (select count(*) from (select from {outbox} where position > $1 and refused is null
                       limit {COUNTED}) as u),
                    (select count(*) from {outbox} where refused is not null)"
        ),
        &[arg(sent)],
        |r| {
            Ok(PendingChanges {
                unsent: spi::required(r, 1)?,
                refused: spi::required(r, 2)?,
            })
        },
    )?;
    found.into_iter().next().ok_or_else(|| Error::internal("count returned no row"))
}

/// Reports whether an outbox has no entries at all, delivered or not.
pub fn is_empty(external: &External) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let any: Option<bool> =
        spi::scalar(&format!("select true from {} limit 1", external.outbox), &[])?;
    Ok(any.is_none())
}

/// Reserves the next position, and returns it. A caller that holds the flow's lock may then use the
/// positions after it, too, and records that with [`last_given_position`].
pub fn next_position(external: &External) -> Result<i64> {
    let _as = RoleGuard::extension_owner()?;
    spi::scalar(
        "select nextval(pg_get_serial_sequence($1, 'position')::regclass)",
        &[arg(external.outbox.as_str())],
    )?
    .ok_or_else(|| Error::internal("outbox has no sequence for its positions"))
}

/// Records that all positions up to `last` are used.
pub fn last_given_position(external: &External, last: i64) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "select setval(pg_get_serial_sequence($1, 'position')::regclass, $2)",
        &[arg(external.outbox.as_str()), arg(last)],
    )?;
    Ok(())
}

/// Returns the position of the last entry; 0 if there is none.
pub fn last_position(external: &External) -> Result<i64> {
    let _as = RoleGuard::extension_owner()?;
    Ok(spi::scalar(&format!("select max(position) from {}", external.outbox), &[])?.unwrap_or(0))
}

/// A row that a target has rejected.
pub struct RejectedEntry {
    pub key: Json,
    pub sqlstate: String,
    pub message: String,
    pub attempts: i32,
    pub failed_at: Option<pgrx::datum::TimestampWithTimeZone>,
    pub next_retry: Option<pgrx::datum::TimestampWithTimeZone>,
}

/// Returns the rows that a target has rejected. The caller must have checked that the outbox can be
/// read.
pub fn rejected_entries(target: &Target, external: &External) -> Result<Vec<RejectedEntry>> {
    let _as = RoleGuard::extension_owner()?;
    let pairs = target.key.iter().zip(outbox_key(target));
    let key = object_sql(
        pairs.map(|(k, c)| (k.name.as_str(), internal_tables::for_json(k, &format!("o.{c}")))),
    );
    spi::select(
        &format!(
            "select {key}, o.refused->>'sqlstate', o.refused->>'message',
                    (o.refused->>'attempts')::int, (o.refused->>'failed_at')::timestamptz,
                    (o.refused->>'next_retry')::timestamptz
               from {} as o where o.refused is not null order by o.position",
            external.outbox
        ),
        &[],
        |r| {
            Ok(RejectedEntry {
                key: spi::required(r, 1)?,
                sqlstate: r.get::<String>(2)?.unwrap_or_default(),
                message: r.get::<String>(3)?.unwrap_or_default(),
                attempts: r.get::<i32>(4)?.unwrap_or(0),
                failed_at: r.get(5)?,
                next_retry: r.get(6)?,
            })
        },
    )
}
