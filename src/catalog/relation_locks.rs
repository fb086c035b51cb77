//! Locks the relations that a flow reads before it takes a snapshot, so that no relation is
//! rewritten afterwards.
//!
//! If ALTER TABLE or TRUNCATE gives a table another file, an older snapshot sees the table as
//! empty.

use pgrx::pg_sys;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::catalog::model::{Flow, Target};
use crate::pg::acting_role::RoleGuard;
use crate::pg::backend;
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction;
use crate::pg::tuplestore::statements::SpiSession;

/// How long a worker waits for a lock on a relation that a flow reads or writes.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// The time between two attempts.
const AGAIN: Duration = Duration::from_millis(5);

/// What a relation is locked for.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

impl Access {
    /// Returns the lock mode that statements use for it.
    fn mode(self) -> i32 {
        match self {
            Access::Read => pg_sys::AccessShareLock as i32,
            Access::Write => pg_sys::RowExclusiveLock as i32,
        }
    }

    /// Returns what a session that is in the way has done.
    fn obstacle(self) -> &'static str {
        match self {
            Access::Read => {
                "Another transaction has locked the relation against reading, or waits for such a lock."
            }
            Access::Write => {
                "Another transaction has locked the relation against writing, or waits for such a lock."
            }
        }
    }
}

/// Returns all relations that a flow's sources, lookups and queries read, with the relations below
/// them: those of a view, and the partitions or children of a table. Relations that are read only
/// in the bodies of functions are not known. The result includes the flow's target tables, so that
/// no target is altered between the check of its columns and the writes.
pub fn relations_of(flow: &Flow) -> Result<Vec<pg_sys::Oid>> {
    let followed = flow.followed().map(|source| source.relation);
    let expressions =
        flow.sources.iter().filter_map(|s| s.expressions.as_ref()).map(|e| e.bound.view);
    let keys = flow.sources.iter().filter_map(|s| s.key_expressions.as_ref()).map(|k| k.bound.view);
    let affects = flow.lookups.iter().filter_map(|l| l.affects.as_ref()).map(|a| a.view);
    let queries = flow.targets.iter().filter_map(Target::query_view);
    let conditions = flow.targets.iter().flat_map(|t| &t.expectations);
    let conditions = conditions.filter_map(|e| e.bound.as_ref()).map(|bound| bound.view);
    let targets = flow.targets.iter().filter(|t| t.external.is_none()).filter_map(|t| t.relation);
    let first: Vec<pg_sys::Oid> = followed
        .chain(expressions)
        .chain(keys)
        .chain(affects)
        .chain(queries)
        .chain(conditions)
        .chain(targets)
        .collect();
    spi::select(
        "with recursive read(relation) as (
           select pg_catalog.unnest($1)
            union
           select below.relation
             from read cross join lateral (
               select d.refobjid
                 from pg_catalog.pg_class c
                 join pg_catalog.pg_rewrite w on w.ev_class operator(pg_catalog.=) c.oid
                 join pg_catalog.pg_depend d
                   on d.classid operator(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                  and d.objid operator(pg_catalog.=) w.oid
                  and d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                where c.oid operator(pg_catalog.=) read.relation
                  and c.relkind operator(pg_catalog.=) 'v'::pg_catalog.\"char\"
                union all
               select i.inhrelid from pg_catalog.pg_inherits i
                where i.inhparent operator(pg_catalog.=) read.relation) as below(relation)
         )
         select c.oid from read join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) read.relation
          where c.oid operator(pg_catalog.>=) $2
            and c.relkind operator(pg_catalog.=) any ('{r,p,m,f,v}'::pg_catalog.\"char\"[])
          order by 1",
        &[arg(first), arg(pg_sys::Oid::from(pg_sys::FirstNormalObjectId))],
        |r| spi::required(r, 1),
    )
}

/// Loads a flow, and locks all relations that it reads until the transaction ends. Waits as
/// `lock_timeout` says, or no longer than `patience`.
pub fn hold_relations<T>(
    patience: Option<Duration>,
    load: impl Fn() -> Result<T>,
    flow: impl Fn(&T) -> &Flow,
) -> Result<T> {
    loop {
        let loaded = load()?;
        let generation = invalidation::invalidation_count();
        for relation in &flow(&loaded).reads {
            lock(*relation, Access::Read, patience)?;
        }
        // A lock that had to wait also delivers the invalidation messages of changes made
        // meanwhile.
        if invalidation::invalidation_count() == generation {
            return Ok(loaded);
        }
        pgrx::check_for_interrupts!();
    }
}

/// Locks a flow's target tables for writing until the transaction ends. Waits no longer than
/// `patience`.
///
/// The transaction has locked the tables for reading already. If it queued for the stronger lock, it
/// would be in a deadlock with a session that has created an index and now wants to drop it.
pub fn hold_targets(flow: &Flow, patience: Duration) -> Result<()> {
    for target in flow.targets.iter().filter(|t| t.external.is_none()) {
        if let Some(relation) = target.relation {
            lock(relation, Access::Write, Some(patience))?;
        }
    }
    Ok(())
}

fn lock(relation: pg_sys::Oid, access: Access, patience: Option<Duration>) -> Result<()> {
    let Some(patience) = patience else {
        // SAFETY: takes a heavyweight lock, which the transaction's end releases.
        unsafe { pg_sys::LockRelationOid(relation, access.mode()) };
        return Ok(());
    };
    let began = Instant::now();
    // SAFETY: as above. The worker does not queue for the lock, so nobody waits behind a waiting
    // worker.
    while !unsafe { pg_sys::ConditionalLockRelationOid(relation, access.mode()) } {
        if began.elapsed() > patience {
            let name = spi::relation_name(relation)?.unwrap_or_default();
            return Err(Error::new(
                pgrx::PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                format!("could not obtain lock on relation {name}"),
            )
            .detail(access.obstacle())
            .hint(
                "Look for the transaction in pg_locks, or wait for it to end: coco soon retries the flow.",
            ));
        }
        pgrx::check_for_interrupts!();
        std::thread::sleep(AGAIN);
    }
    Ok(())
}

/// The milliseconds for which [`lock_exclusively`] queues for a lock. Other sessions that want the
/// relation wait behind it only this long.
const QUEUED_MS: u32 = 15;

/// The time between two of its attempts, in which other sessions continue.
const EXCLUSIVE_AGAIN: Duration = Duration::from_millis(100);

/// Locks relations against all other use, in this order, until the transaction ends. Returns
/// `false`, and locks none of them, if that does not succeed for as long as `patience`.
///
/// A session that waits for such a lock makes all later readers wait. The function therefore queues
/// only briefly, releases everything, and tries again. A relation that comes before others should be
/// the one through which they are read.
pub fn lock_exclusively(relations: &[pg_sys::Oid], patience: Duration) -> Result<bool> {
    let began = Instant::now();
    loop {
        let locked = subtransaction::locks_in_time(|| {
            let attempt = Instant::now();
            for relation in relations {
                // The time is that of all locks together: the first ones already block readers.
                let waited = attempt.elapsed().as_millis().min(QUEUED_MS.into()) as u32;
                let _waiting = RoleGuard::waiting_at_most((QUEUED_MS - waited).max(1))?;
                // SAFETY: takes a heavyweight lock, which the end of the (sub)transaction releases.
                unsafe {
                    pg_sys::LockRelationOid(*relation, pg_sys::AccessExclusiveLock as i32);
                }
            }
            Ok(())
        })?;
        if locked || began.elapsed() >= patience {
            return Ok(locked);
        }
        pgrx::check_for_interrupts!();
        std::thread::sleep(EXCLUSIVE_AGAIN);
    }
}

/// Receives the messages about revoked privileges. A lock that a statement takes does this, but
/// here the locks were taken before the statement.
pub fn hear_of_changes() {
    // SAFETY: called within a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Raises an error if a relation was rewritten after the active snapshot was taken and before it
/// was locked. This can only happen in a transaction whose snapshot is fixed.
pub fn check_not_rewritten(flow: &Flow) -> Result<()> {
    match backend::keeps_its_snapshot() {
        true => check_same_files(flow),
        false => Ok(()),
    }
}

/// Raises an error if a relation that the flow reads was created or rewritten after the active
/// snapshot was taken.
pub fn check_same_files(flow: &Flow) -> Result<()> {
    let seen = files(&flow.reads)?;
    let now = {
        let _now = PinnedSnapshot::latest();
        files(&flow.reads)?
    };
    let other = now.iter().find(|(relation, file)| seen.get(relation) != Some(file));
    let Some((relation, _)) = other else { return Ok(()) };
    let name = spi::relation_name(pg_sys::Oid::from(*relation))?.unwrap_or_default();
    Err(Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!("could not serialize access due to concurrent rewrite of relation {name}"),
    )
    .detail("The relation would look empty to this transaction's snapshot, which is older than the rewrite.")
    .hint("Try again in a new transaction."))
}

/// Returns the file of each relation, as the active snapshot sees the catalog.
fn files(relations: &[pg_sys::Oid]) -> Result<BTreeMap<u32, u32>> {
    const FILES: &str = "
        select pg_catalog.string_agg(pg_catalog.concat_ws(':', c.oid, c.relfilenode), ',')
          from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) any ($1)";
    let text = SpiSession::connect()?.read_text(FILES, &[arg(relations.to_vec())])?;
    let pair = |text: &str| {
        let (relation, file) = text.split_once(':')?;
        Some((relation.parse().ok()?, file.parse().ok()?))
    };
    Ok(text.unwrap_or_default().split(',').filter_map(pair).collect())
}
