//! Reads the tracking tables and outboxes of all of the caller's flows, for the views. The
//! functions act as the extension's owner and wait for no lock: a locked flow does not prevent a
//! user from seeing the others.

use pgrx::datum::{Interval, TimestampWithTimeZone};
use std::collections::HashMap;

use crate::catalog::internal_tables;
use crate::catalog::memo_function::MemoFunction;
use crate::catalog::model::{Flow, Source, Target};
use crate::flows::load;
use crate::memo::called_functions;
use crate::outbox::{delivery_state, queue};
use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::error::Result;
use crate::pg::json::{Json, object_sql};
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction;
use crate::update::untracked_items;
use coco_core::memo_batch::Stats;

/// Returns the names of the flows whose owners' rights the caller has.
fn names() -> Result<Vec<String>> {
    let acting = RoleGuard::extension_owner()?;
    let all =
        spi::select("select flow, owner::oid from coco_internal.flow order by flow", &[], |r| {
            Ok((spi::required::<String>(r, 1)?, spi::required::<pgrx::pg_sys::Oid>(r, 2)?))
        })?;
    drop(acting);
    let mine = all.into_iter().filter(|(_, owner)| acting_role::has_rights_of(*owner));
    Ok(mine.map(|(flow, _)| flow).collect())
}

/// Returns the ids of the flows whose owners' rights the caller has.
pub fn visible_flows() -> Result<Vec<i32>> {
    let acting = RoleGuard::extension_owner()?;
    let all = spi::select("select id, owner::oid from coco_internal.flow", &[], |r| {
        Ok((spi::required::<i32>(r, 1)?, spi::required::<pgrx::pg_sys::Oid>(r, 2)?))
    })?;
    drop(acting);
    let mine = all.into_iter().filter(|(_, owner)| acting_role::has_rights_of(*owner));
    Ok(mine.map(|(flow, _)| flow).collect())
}

/// Returns the results of `look` for each flow whose owner's rights the caller has. Skips a flow
/// that has lost a part (its source, its owner, a column); coco.status reports it. Releases the
/// locks that `look` took.
pub fn of_each<T>(look: impl Fn(&Flow) -> Result<Vec<T>>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for name in names()? {
        let found = subtransaction::look(|| look(&load::load_for_update(&name)?));
        all.extend(found.into_iter().flatten());
    }
    Ok(all)
}

/// Reports whether one of coco's own tables can be read without waiting. Tables that a transaction
/// has locked to drop or change a flow are skipped.
pub fn is_readable(table: &str) -> Result<bool> {
    Ok(internal_tables::find(table)?.is_some_and(internal_tables::lock_to_read))
}

pub fn key_object(source: &Source) -> String {
    object_sql(
        source.key.iter().enumerate().map(|(n, k)| {
            (k.name.as_str(), internal_tables::for_json(k, &format!("t.k{}", n + 1)))
        }),
    )
}

/// One tracking row.
pub struct Tracked {
    pub flow: String,
    pub source: String,
    pub source_key: Json,
    pub source_ordinal: Option<i64>,
    pub content_fingerprint: Option<pgrx::Uuid>,
    pub logic_fingerprint: Option<pgrx::Uuid>,
    pub process_ordinal: Option<i64>,
    pub process_time: Option<TimestampWithTimeZone>,
    pub target_keys: Option<Json>,
}

/// Returns every tracking row of the caller's flows.
pub fn tracking() -> Result<Vec<Tracked>> {
    of_each(|flow| {
        let mut rows = Vec::new();
        let _as = RoleGuard::extension_owner()?;
        let logic = spi::select(
            "select id, fingerprint from coco_internal.logic where flow = $1",
            &[arg(flow.name.as_str())],
            |r| Ok((spi::required::<i32>(r, 1)?, spi::required::<pgrx::Uuid>(r, 2)?)),
        )?;
        for source in &flow.sources {
            if !is_readable(&source.tracking)? {
                continue;
            }
            let sql = format!(
                "select {}, t.source_ordinal, t.content_fingerprint, t.logic_id, t.process_ordinal,
                        pg_catalog.to_timestamp(t.process_ordinal / 1000000.0), t.target_keys
                   from {} as t order by {}",
                key_object(source),
                source.tracking,
                crate::query::compose::tracking_keys(source, "t").join(", ")
            );
            rows.extend(spi::select(&sql, &[], |r| {
                let id: Option<i32> = r.get(4)?;
                let fingerprint = logic.iter().find(|(l, _)| Some(*l) == id).map(|(_, f)| *f);
                Ok(Tracked {
                    flow: flow.name.clone(),
                    source: source.name.clone(),
                    source_key: spi::required(r, 1)?,
                    source_ordinal: r.get(2)?,
                    content_fingerprint: r.get(3)?,
                    logic_fingerprint: fingerprint,
                    process_ordinal: r.get(5)?,
                    process_time: r.get(6)?,
                    target_keys: r.get(7)?,
                })
            })?);
        }
        Ok(rows)
    })
}

/// An item whose last evaluation failed, without the error.
pub struct Failing {
    pub source: String,
    pub source_key: Json,
    /// Time of the first of its failures in a row.
    pub since: Option<TimestampWithTimeZone>,
}

/// Returns the items of a flow whose last evaluation failed.
pub fn failing(flow: &Flow) -> Result<Vec<Failing>> {
    let _as = RoleGuard::extension_owner()?;
    let mut rows = Vec::new();
    for source in &flow.sources {
        let sql = format!(
            "select {}, (coalesce(t.failure->>'since', t.failure->>'failed_at'))::timestamptz
               from {} as t where t.failure is not null order by {}",
            key_object(source),
            source.tracking,
            crate::query::compose::tracking_keys(source, "t").join(", ")
        );
        rows.extend(spi::select(&sql, &[], |r| {
            Ok(Failing {
                source: source.name.clone(),
                source_key: spi::required(r, 1)?,
                since: r.get(2)?,
            })
        })?);
        let without_key = untracked_items::of(source)?.into_iter().filter(|item| item.has_no_key());
        rows.extend(without_key.map(|item| Failing {
            source: source.name.clone(),
            source_key: item.source_key,
            since: Some(item.failed_at),
        }));
    }
    Ok(rows)
}

/// The delivery state of an external target: its number of undelivered changes, and its error, if
/// any.
pub struct Delivery {
    pub flow: String,
    pub target: String,
    pub server: String,
    pub unsent: i64,
    pub refused: i64,
    pub state: delivery_state::DeliveryState,
}

/// Returns the delivery state of each external target of the caller's flows.
pub fn deliveries() -> Result<Vec<Delivery>> {
    of_each(|flow| {
        let mut rows = Vec::new();
        for target in &flow.targets {
            let Some(external) = target.external.as_ref().filter(|_| target.relation.is_some())
            else {
                continue;
            };
            let Some(state) = delivery_state::delivery_state(target.id)? else { continue };
            let acting = RoleGuard::extension_owner()?;
            if !is_readable(&external.outbox)? {
                continue;
            }
            drop(acting);
            let waiting = queue::pending_changes(external, state.sent)?;
            rows.push(Delivery {
                flow: flow.name.clone(),
                target: external.name.clone(),
                server: external.server.clone(),
                unsent: waiting.unsent + state.filling.map_or(0, |last| (last - state.sent).max(0)),
                refused: waiting.refused,
                state,
            });
        }
        Ok(rows)
    })
}

/// A memoized function of one of the caller's flows.
pub struct Memoized {
    pub flow: String,
    pub function: String,
    pub fingerprint: pgrx::Uuid,
    /// Whether the flow's queries call the function, and its current code has this fingerprint.
    pub current: bool,
    pub stats: Stats,
    pub entries: i64,
    pub entry_bytes: i64,
    /// How old a result may be when an item uses it, if the function is current.
    pub ttl: Option<Interval>,
    /// The number of entries that are older.
    pub expired: i64,
}

/// The stored results of one function.
#[derive(Clone, Copy, Default)]
struct EntryCounts {
    entries: i64,
    bytes: i64,
    expired: i64,
}

/// Reports whether a row is that of a memoized function with its current code and version.
fn is_same(function: &MemoFunction, row: &Memoized) -> bool {
    function.name == row.function && function.fingerprint == row.fingerprint
}

/// Returns the memoized functions of the caller's flows, with the statistics of their calls.
pub fn functions() -> Result<Vec<Memoized>> {
    of_each(|flow| {
        let acting = RoleGuard::extension_owner()?;
        let views: Vec<_> = flow.targets.iter().filter_map(Target::query_view).collect();
        let now = called_functions::called_functions(&views)?;
        let rows = spi::select(
            "select id, function, fingerprint, calls, misses, errors, requests, tokens_in, tokens_out,
                    cost, bytes, (extract(epoch from elapsed) * 1000000)::bigint, reused,
                    (select m.ttl from coco_internal.memo_function m where m.function = s.function)
               from coco_internal.memo_stats s where flow = $1 order by id",
            &[arg(flow.name.as_str())],
            |r| {
                let row = Memoized {
                    flow: flow.name.clone(),
                    function: spi::required(r, 2)?,
                    fingerprint: spi::required(r, 3)?,
                    current: false,
                    stats: Stats {
                        calls: spi::required(r, 4)?,
                        misses: spi::required(r, 5)?,
                        errors: spi::required(r, 6)?,
                        requests: spi::required(r, 7)?,
                        tokens_in: spi::required(r, 8)?,
                        tokens_out: spi::required(r, 9)?,
                        cost: spi::required(r, 10)?,
                        bytes: spi::required(r, 11)?,
                        micros: spi::required(r, 12)?,
                        reused: spi::required(r, 13)?,
                    },
                    entries: 0,
                    entry_bytes: 0,
                    ttl: r.get(14)?,
                    expired: 0,
                };
                Ok((spi::required::<i32>(r, 1)?, row))
            },
        )?;
        drop(acting);
        let mut kept = HashMap::new();
        if let Some(table) = &flow.memo {
            let _as = RoleGuard::extension_owner()?;
            if !is_readable(table)? {
                return Ok(Vec::new());
            }
            let ttl_of = |row: &Memoized| {
                let known = now.iter().find(|f| is_same(f, row));
                known.and_then(|f| f.ttl.as_ref()).map(|ttl| ttl.micros)
            };
            let expiring = rows.iter().filter_map(|(id, row)| Some((*id, ttl_of(row)?)));
            let (ids, ttls): (Vec<i32>, Vec<i64>) = expiring.unzip();
            let counted = spi::select(
                &format!(
                    "select m.function, count(*),
                            coalesce(sum(octet_length(m.input) + coalesce(octet_length(m.result), 0)), 0)::bigint,
                            count(*) filter (where m.made < clock_timestamp() - f.ttl::float8 * interval '1 microsecond')
                       from {table} as m
                       left join unnest($1::int[], $2::bigint[]) as f(function, ttl) on f.function = m.function
                      group by m.function"
                ),
                &[arg(ids), arg(ttls)],
                |r| {
                    let counts = EntryCounts {
                        entries: spi::required(r, 2)?,
                        bytes: spi::required(r, 3)?,
                        expired: spi::required(r, 4)?,
                    };
                    Ok((spi::required::<i32>(r, 1)?, counts))
                },
            )?;
            kept.extend(counted);
        }
        let complete = |(id, mut row): (i32, Memoized)| {
            let counts: EntryCounts = kept.get(&id).copied().unwrap_or_default();
            (row.entries, row.entry_bytes) = (counts.entries, counts.bytes);
            row.expired = counts.expired;
            row.current = now.iter().any(|f| is_same(f, &row));
            row.ttl = row.ttl.filter(|_| row.current);
            row
        };
        Ok(rows.into_iter().map(complete).collect())
    })
}
