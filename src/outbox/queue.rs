//! The outbox of a target outside this database: what is to be sent, and what became of it.
//!
//! Entries are written in the order of the updates of one flow, each of which holds the flow's lock
//! until it is committed: so an entry that becomes visible has a higher position than all that were
//! visible before.

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
use crate::pg::json::Json;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, Arg, arg};
use crate::pg::subtransaction::{DataError, subtransaction};
use crate::pg::tuplestore::statements::SpiSession;
use coco_core::backoff;
use coco_core::delivery::{Encoding, Refused};
use coco_core::isolate::{Attempt, halve, isolate};

/// What was read of an outbox.
#[derive(Default)]
pub struct QueueRead {
    /// `None` where there is nothing.
    pub batch: Option<ChangeBatch>,
    /// How many entries have no form in which they could be sent, as a row whose JSON text is over 1 GB: they are
    /// refused.
    pub refused: i64,
}

/// What is read of an outbox.
#[derive(Clone, Copy)]
pub struct ReadRequest {
    /// What comes after this position: of each key the newest entry.
    pub after: i64,
    /// First what was refused before and is due again: nothing is on its way.
    pub refused: bool,
    pub encoding: Encoding,
    pub size: BatchSize,
}

/// Reads entries. One that cannot be encoded is marked as refused, and the others are read without it.
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
                // Each alone can be read, and all together cannot.
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

/// Reads a batch; counts the entries read.
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

/// Acts as the flow's owner, to read in the order of the index, so that no more is read than is taken: an outbox is rarely
/// analysed.
fn reading_in_order(flow: &Flow) -> Result<RoleGuard> {
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    for way in ["enable_seqscan", "enable_bitmapscan", "enable_sort"] {
        acting.set(way, "off")?;
    }
    Ok(acting)
}

/// The conditions on entries `o` that are read one after the other, each with its arguments.
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

/// The entries, by their positions, that cannot be encoded, and why. `read`: how many could be before an error was
/// raised: the next one is looked at first.
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
        isolate(read..read + 1, &mut attempt, &mut report)?;
    }
    if unfit.is_empty() && !positions.is_empty() {
        let mut report = |n: usize, raised: DataError| {
            unfit.extend(positions.get(n).map(|position| (*position, raised)));
            Ok(())
        };
        halve(0..positions.len(), raised, &mut attempt, &mut report)?;
    }
    Ok(unfit)
}

/// Marks an entry as refused; how often and when it is tried again goes by how often it was.
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
            arg(backoff::delay(attempts.max(1) as u32).as_secs_f64()),
        ],
    )?;
    Ok(())
}

/// Notes that all is sent up to the last refused entry: nothing else comes after what is sent, and nothing is on its way.
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

/// An outbox that is larger than that is emptied when all of it is sent: bytes.
const LARGE: i64 = 1024 * 1024;

/// Of one that is never sent all, what is sent is deleted then: bytes.
const HUGE: i64 = 64 * LARGE;

/// Notes that a batch has arrived, but for what was refused.
pub fn acknowledge(
    target: &Target,
    external: &External,
    batch: &ChangeBatch,
    refused: &[Refused],
) -> Result<()> {
    let outbox = &external.outbox;
    let acting = RoleGuard::extension_owner()?;
    // By their own index: an outbox is never analysed before it is large.
    acting.set("enable_seqscan", "off")?;
    let any_refused = format!("select true from {outbox} where refused is not null limit 1");
    if spi::scalar::<bool>(&any_refused, &[])?.is_some() {
        let bad: Vec<i64> =
            refused.iter().filter_map(|r| batch.positions.get(r.change).copied()).collect();
        let key = outbox_key(target);
        let of = |alias: &str| key.iter().map(|k| format!("{alias}.{k}")).collect::<Vec<_>>();
        // Also what a newer change of the same key has overtaken.
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

/// Empties the outbox of a target, if it has one, of which all is sent, where it is large, and nobody is in the way.
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
    // With the flow's lock nothing is added.
    let _now = PinnedSnapshot::latest();
    let left = |condition: &str| {
        spi::scalar::<bool>(
            &format!("select true from {outbox} where {condition} limit 1"),
            &[arg(sent)],
        )
    };
    if left("position > $1")?.is_some() {
        // Behind all the time: then what is sent is deleted, and vacuumed.
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
        // SAFETY: a heavyweight lock, until the transaction ends.
        && unsafe { pg_sys::ConditionalLockRelationOid(oid, lock) }
    {
        spi::execute(&format!("truncate {outbox}"), &[])?;
    }
    drop(acting);
    Ok(())
}

/// Lets everything that was refused be tried again at once.
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

/// What waits in an outbox.
pub struct PendingChanges {
    /// Entries that are to be sent; counted up to [`COUNTED`].
    pub unsent: i64,
    /// Entries that the target has refused.
    pub refused: i64,
}

/// Entries that are counted, at most.
pub const COUNTED: i64 = 100_000;

/// The caller has seen to it that the outbox can be read.
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
    found.into_iter().next().ok_or_else(|| Error::internal("a count returned no row"))
}

/// Whether nothing is in an outbox, sent or not.
pub fn is_empty(external: &External) -> Result<bool> {
    let _as = RoleGuard::extension_owner()?;
    let any: Option<bool> =
        spi::scalar(&format!("select true from {} limit 1", external.outbox), &[])?;
    Ok(any.is_none())
}

/// The position of the next entry, which is given out with that. Who holds the flow's lock may then give out those
/// that follow.
pub fn next_position(external: &External) -> Result<i64> {
    let _as = RoleGuard::extension_owner()?;
    spi::scalar(
        "select nextval(pg_get_serial_sequence($1, 'position')::regclass)",
        &[arg(external.outbox.as_str())],
    )?
    .ok_or_else(|| Error::internal("an outbox has lost its sequence"))
}

/// All positions up to this one are given out.
pub fn last_given_position(external: &External, last: i64) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "select setval(pg_get_serial_sequence($1, 'position')::regclass, $2)",
        &[arg(external.outbox.as_str()), arg(last)],
    )?;
    Ok(())
}

/// The position of the last entry; 0 where there is none.
pub fn last_position(external: &External) -> Result<i64> {
    let _as = RoleGuard::extension_owner()?;
    Ok(spi::scalar(&format!("select max(position) from {}", external.outbox), &[])?.unwrap_or(0))
}

/// A row that a target has refused.
pub struct RejectedEntry {
    pub key: Json,
    pub sqlstate: String,
    pub message: String,
    pub attempts: i32,
    pub failed_at: Option<pgrx::datum::TimestampWithTimeZone>,
    pub next_retry: Option<pgrx::datum::TimestampWithTimeZone>,
}

/// The rows that a target has refused. The caller has seen to it that the outbox can be read.
pub fn rejected_entries(target: &Target, external: &External) -> Result<Vec<RejectedEntry>> {
    let _as = RoleGuard::extension_owner()?;
    let pairs: Vec<String> = target
        .key
        .iter()
        .zip(outbox_key(target))
        .map(|(k, c)| {
            let value = internal_tables::for_json(k, &format!("o.{c}"));
            format!("{}, {value}", spi::literal(&k.name))
        })
        .collect();
    spi::select(
        &format!(
            "select jsonb_build_object({}), o.refused->>'sqlstate', o.refused->>'message',
                    (o.refused->>'attempts')::int, (o.refused->>'failed_at')::timestamptz,
                    (o.refused->>'next_retry')::timestamptz
               from {} as o where o.refused is not null order by o.position",
            pairs.join(", "),
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
