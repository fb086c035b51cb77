//! The outbox of a target outside this database: what is to be sent, and what became of it.
//!
//! Entries are written in the order of the updates of one flow, each of which holds the flow's lock
//! until it is committed: so an entry that becomes visible has a higher position than all that were
//! visible before.

use pgrx::pg_sys;

use super::batch::{Batch, Reading, Size, select};
use super::tables::outbox_key;
use crate::catalog::error::{Error, Result};
use crate::catalog::failure;
use crate::catalog::internal;
use crate::catalog::json::Json;
use crate::catalog::locks;
use crate::catalog::model::{External, Flow, Target, all_equal, stored};
use crate::catalog::role::ActingAs;
use crate::catalog::sql::{self, arg};
use crate::catalog::tuples::{OneSnapshot, Statements};
use crate::engine::backoff;
use crate::engine::delivery::{Encoding, Refused};

/// Reads what comes after a position: of each key the newest entry. With `refused`, first what was
/// refused before and is due again. `None` where there is nothing.
pub fn read(
    flow: &Flow,
    target: &Target,
    external: &External,
    after: i64,
    refused: bool,
    encoding: Encoding,
    size: Size,
) -> Result<Option<Batch>> {
    let acting = ActingAs::flow_owner(flow.owner, &flow.settings)?;
    // In the order of the index, so that no more is read than is taken: an outbox is rarely analysed.
    for way in ["enable_seqscan", "enable_bitmapscan", "enable_sort"] {
        acting.set(way, "off")?;
    }
    let from = select(target, encoding, &external.outbox_view);
    let limited = |condition: &str| {
        format!("{from} where {condition} order by o.position limit {}", size.changes)
    };
    let fresh = limited("o.position operator(pg_catalog.>) $1 and o.refused is null");
    let is_due = failure::is_due("o.refused", "pg_catalog.clock_timestamp()");
    let due = limited(&format!("o.refused is not null and {is_due}"));
    let _snapshot = OneSnapshot::take();
    let statements = Statements::connect()?;
    let mut reading = Reading::new(target, encoding, size, after)?;
    if refused {
        reading.add_all(&statements, &due, &[])?;
    }
    reading.add_all(&statements, &fresh, &[arg(after)])?;
    Ok(reading.done())
}

/// An outbox that is larger than that is emptied when all of it is sent: bytes.
const LARGE: i64 = 1024 * 1024;

/// Of one that is never sent all, what is sent is deleted then: bytes.
const HUGE: i64 = 64 * LARGE;

/// Notes that a batch has arrived, but for what was refused.
pub fn settle(
    target: &Target,
    external: &External,
    batch: &Batch,
    refused: &[Refused],
) -> Result<()> {
    let outbox = &external.outbox;
    let acting = ActingAs::extension_owner()?;
    // By their own index: an outbox is never analysed before it is large.
    acting.set("enable_seqscan", "off")?;
    let any_refused = format!("select true from {outbox} where refused is not null limit 1");
    if sql::one::<bool>(&any_refused, &[])?.is_some() {
        let bad: Vec<i64> =
            refused.iter().filter_map(|r| batch.positions.get(r.change).copied()).collect();
        let key = outbox_key(target);
        let of = |alias: &str| key.iter().map(|k| format!("{alias}.{k}")).collect::<Vec<_>>();
        // Also what a newer change of the same key has overtaken.
        sql::execute(
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
        let attempts: i32 = sql::one(
            &format!("select coalesce((refused->>'attempts')::int, 0) + 1 from {outbox} where position = $1"),
            &[arg(*position)],
        )?
        .unwrap_or(1);
        sql::execute(
            &format!(
                "update {outbox} set refused = jsonb_build_object(
                    'sqlstate', $2::text, 'message', $3::text, 'attempts', $4::int,
                    'failed_at', clock.now,
                    'next_retry', clock.now + make_interval(secs => $5::float8))
                   from (select clock_timestamp() as now) as clock
                  where position = $1"
            ),
            &[
                arg(*position),
                arg(r.sqlstate.as_str()),
                arg(r.message.as_str()),
                arg(attempts),
                arg(backoff::delay(attempts.max(1) as u32).as_secs_f64()),
            ],
        )?;
    }
    drop(acting);
    super::delivery::sent(target.id, batch.upto)
}

/// Empties the outbox of a target, if it has one, of which all is sent, where it is large, and nobody is in the way.
pub fn empty(flow: &Flow, target: &Target) -> Result<()> {
    let Some(external) = target.external.as_ref().filter(|_| target.relation.is_some()) else {
        return Ok(());
    };
    let Some(super::delivery::State { sent, .. }) = super::delivery::state(target.id)? else {
        return Ok(());
    };
    let outbox = &external.outbox;
    let acting = ActingAs::extension_owner()?;
    acting.set("enable_seqscan", "off")?;
    let large = sql::one::<bool>(
        "select pg_relation_size($1::text::regclass) > $2",
        &[arg(outbox.as_str()), arg(LARGE)],
    )?;
    if large != Some(true) || !locks::flow_if_free(flow.id)? {
        return Ok(());
    }
    // With the flow's lock nothing is added.
    let _now = OneSnapshot::latest();
    let left = |condition: &str| {
        sql::one::<bool>(
            &format!("select true from {outbox} where {condition} limit 1"),
            &[arg(sent)],
        )
    };
    if left("position > $1")?.is_some() {
        // Behind all the time: then what is sent is deleted, and vacuumed.
        let huge = sql::one::<bool>(
            "select pg_relation_size($1::text::regclass) > $2",
            &[arg(outbox.as_str()), arg(HUGE)],
        )?;
        if huge == Some(true) {
            sql::execute(
                &format!("delete from {outbox} where refused is null and position <= $1"),
                &[arg(sent)],
            )?;
        }
        return Ok(());
    }
    if left("refused is not null and $1 is not null")?.is_some() {
        sql::execute(
            &format!("delete from {outbox} where refused is null and position <= $1"),
            &[arg(sent)],
        )?;
        return Ok(());
    }
    let oid = sql::one::<pg_sys::Oid>("select $1::text::regclass::oid", &[arg(outbox.as_str())])?;
    let lock = pg_sys::AccessExclusiveLock as i32;
    if let Some(oid) = oid
        // SAFETY: a heavyweight lock, until the transaction ends.
        && unsafe { pg_sys::ConditionalLockRelationOid(oid, lock) }
    {
        sql::execute(&format!("truncate {outbox}"), &[])?;
    }
    drop(acting);
    Ok(())
}

/// Lets everything that was refused be tried again at once.
pub fn retry(flow: &Flow) -> Result<()> {
    let _as = ActingAs::extension_owner()?;
    for external in flow.targets.iter().filter_map(|t| t.external.as_ref()) {
        sql::execute(
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
pub struct Waiting {
    /// Entries that are to be sent; counted up to [`COUNTED`].
    pub unsent: i64,
    /// Entries that the target has refused.
    pub refused: i64,
}

/// Entries that are counted, at most.
pub const COUNTED: i64 = 100_000;

/// The caller has seen to it that the outbox can be read.
pub fn waiting(external: &External, sent: i64) -> Result<Waiting> {
    let _as = ActingAs::extension_owner()?;
    let outbox = &external.outbox;
    let found = sql::select(
        &format!(
            "select (select count(*) from (select from {outbox} where position > $1 and refused is null
                       limit {COUNTED}) as u),
                    (select count(*) from {outbox} where refused is not null)"
        ),
        &[arg(sent)],
        |r| {
            Ok(Waiting {
                unsent: sql::required(r, 1)?,
                refused: sql::required(r, 2)?,
            })
        },
    )?;
    found.into_iter().next().ok_or_else(|| Error::internal("a count returned no row"))
}

/// Whether nothing is in an outbox, sent or not.
pub fn is_empty(external: &External) -> Result<bool> {
    let _as = ActingAs::extension_owner()?;
    let any: Option<bool> =
        sql::one(&format!("select true from {} limit 1", external.outbox), &[])?;
    Ok(any.is_none())
}

/// The position of the next entry, which is given out with that. Who holds the flow's lock may then give out those
/// that follow.
pub fn next_position(external: &External) -> Result<i64> {
    let _as = ActingAs::extension_owner()?;
    sql::one(
        "select nextval(pg_get_serial_sequence($1, 'position')::regclass)",
        &[arg(external.outbox.as_str())],
    )?
    .ok_or_else(|| Error::internal("an outbox has lost its sequence"))
}

/// All positions up to this one are given out.
pub fn given_out(external: &External, last: i64) -> Result<()> {
    let _as = ActingAs::extension_owner()?;
    sql::execute(
        "select setval(pg_get_serial_sequence($1, 'position')::regclass, $2)",
        &[arg(external.outbox.as_str()), arg(last)],
    )?;
    Ok(())
}

/// The position of the last entry; 0 where there is none.
pub fn last(external: &External) -> Result<i64> {
    let _as = ActingAs::extension_owner()?;
    Ok(sql::one(&format!("select max(position) from {}", external.outbox), &[])?.unwrap_or(0))
}

/// A row that a target has refused.
pub struct Failed {
    pub key: Json,
    pub sqlstate: String,
    pub message: String,
    pub attempts: i32,
    pub failed_at: Option<pgrx::datum::TimestampWithTimeZone>,
    pub next_retry: Option<pgrx::datum::TimestampWithTimeZone>,
}

/// The rows that a target has refused. The caller has seen to it that the outbox can be read.
pub fn refused(target: &Target, external: &External) -> Result<Vec<Failed>> {
    let _as = ActingAs::extension_owner()?;
    let pairs: Vec<String> = target
        .key
        .iter()
        .zip(outbox_key(target))
        .map(|(k, c)| {
            let value = internal::for_json(k, &format!("o.{c}"));
            format!("{}, {value}", sql::literal(&k.name))
        })
        .collect();
    sql::select(
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
            Ok(Failed {
                key: sql::required(r, 1)?,
                sqlstate: r.get::<String>(2)?.unwrap_or_default(),
                message: r.get::<String>(3)?.unwrap_or_default(),
                attempts: r.get::<i32>(4)?.unwrap_or(0),
                failed_at: r.get(5)?,
                next_retry: r.get(6)?,
            })
        },
    )
}
