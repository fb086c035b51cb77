//! The results that coco keeps of dropped flows, for `coco.memo_retention`: `drop_flow` leaves the
//! table of results where it is, and records it in `coco_internal.kept_memo`. Other flows of the same owner
//! [reuse](super::reuse) the results, in particular a flow that is dropped and declared again.
//!
//! Expired tables are dropped when somebody creates or drops a flow, and by workers. Nobody waits
//! for the locks that this takes: a table that is in use stays until the next time.

use pgrx::guc::GucSetting;
use pgrx::pg_sys;

use crate::catalog::internal_tables;
use crate::memo::result_table::IS_RESULT_TABLE;
use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::backend;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// `coco.memo_retention`, in minutes: how long coco keeps the results of a dropped flow; 0 drops
/// them with the flow.
pub static RETENTION: GucSetting<i32> = GucSetting::<i32>::new(7 * 24 * 60);

/// The number of expired tables that one call drops, at most.
const DROPPED: i64 = 10;

/// Records the table of results of a flow that is being dropped, before the flow's rows are
/// deleted; those of a version under the name of its flow. Returns the id of the record, or `None`
/// if the flow has no table of results. The caller acts as the extension's owner, and calls [`drop_expired`] afterwards.
pub fn keep_results(flow: &str) -> Result<Option<i32>> {
    let table = spi::select(
        &format!(
            "select format('%I.%I', n.nspname, c.relname), {IS_RESULT_TABLE}
               from coco_internal.flow f
               join pg_class c on c.oid = f.memo_table
               join pg_namespace n on n.oid = c.relnamespace
              where f.flow = $1"
        ),
        &[arg(flow)],
        |r| Ok((spi::required::<String>(r, 1)?, spi::required::<bool>(r, 2)?)),
    )?;
    let Some((table, is_readable)) = table.into_iter().next() else { return Ok(None) };
    let kept = spi::returning(
        "insert into coco_internal.kept_memo (flow, owner, settings, memo_table, dropped, kept_until)
         select coalesce(m.flow, f.flow), f.owner, f.settings, f.memo_table, t.now,
                t.now + $2 * interval '1 minute'
           from coco_internal.flow f cross join (select clock_timestamp() as now offset 0) as t
           left join coco_internal.version v on v.flow = f.id left join coco_internal.flow m on m.id = v.of
          where f.flow = $1
         returning id",
        &[arg(flow), arg(f64::from(RETENTION.get()))],
        |r| spi::required::<i32>(r, 1),
    )?
    .pop();
    if is_readable && RETENTION.get() > 0 {
        spi::execute(
            &format!(
                "insert into coco_internal.kept_memo_function
                        (kept_memo, function_id, function, fingerprint, function_owner, entries)
                 select $2, s.id, s.function, s.fingerprint, s.function_owner, m.entries
                   from coco_internal.memo_stats s
                   join (select function, count(*) as entries from {table} group by function) as m
                        on m.function = s.id
                  where s.flow = $1"
            ),
            &[arg(flow), arg(kept)],
        )?;
    }
    expire_superseded(kept)?;
    Ok(kept)
}

/// Ends the retention of results that were just recorded if there are none, and of older results of
/// the same flow if the new record has at least as many of each function: a flow that is declared
/// again and again would otherwise leave a copy each time.
fn expire_superseded(kept: Option<i32>) -> Result<()> {
    // With a fixed snapshot, a row that another transaction has deleted since would be an error.
    let only_new = backend::keeps_its_snapshot();
    spi::execute(
        "update coco_internal.kept_memo m set kept_until = clock_timestamp()
          where m.id in (
            select o.id
              from coco_internal.kept_memo o
              join coco_internal.kept_memo k on k.owner = o.owner and k.flow = o.flow and k.settings = o.settings
             where k.id = $1 and o.kept_until > clock_timestamp()
               and case when o.id = k.id
                        then not exists (select from coco_internal.kept_memo_function a where a.kept_memo = o.id)
                        else not $2 and o.id < k.id
                             and exists (select from coco_internal.kept_memo_function b where b.kept_memo = k.id)
                             and not exists (
                               select from coco_internal.kept_memo_function a
                                where a.kept_memo = o.id
                                  and not exists (
                                    select from coco_internal.kept_memo_function b
                                     where b.kept_memo = k.id and b.function = a.function
                                       and b.fingerprint = a.fingerprint and b.entries >= a.entries
                                       and b.function_owner is not distinct from a.function_owner)) end
               for update of o skip locked)",
        &[arg(kept), arg(only_new)],
    )?;
    Ok(())
}

/// A table of results that is kept.
struct KeptTable {
    id: i32,
    /// The table and its name, quoted and qualified; `None` if it no longer exists.
    table: Option<(pg_sys::Oid, String)>,
}

/// Drops some of the expired tables, `first` before all others. A table without an owner is
/// expired, too. Never waits for a lock.
pub fn drop_expired(first: Option<i32>) -> Result<()> {
    // With a fixed snapshot, a row that another transaction has deleted since would be an error.
    let only_first = backend::keeps_its_snapshot();
    if spi::is_read_only() || only_first && first.is_none() {
        return Ok(());
    }
    let _as = RoleGuard::extension_owner()?;
    let expired = spi::returning(
        "select m.id, c.oid, case when c.oid is not null then format('%I.%I', n.nspname, c.relname) end
           from coco_internal.kept_memo m
           left join pg_class c on c.oid = m.memo_table
           left join pg_namespace n on n.oid = c.relnamespace
          where (m.kept_until <= clock_timestamp() or c.oid is null
                 or not exists (select from pg_roles r where r.oid = m.owner))
            and (not $3 or m.id = $1)
          order by (m.id is not distinct from $1) desc, m.kept_until
          limit $2
            for update of m skip locked",
        &[arg(first), arg(DROPPED), arg(only_first)],
        |r| {
            let table = r.get::<pg_sys::Oid>(2)?.zip(r.get::<String>(3)?);
            Ok(KeptTable { id: spi::required(r, 1)?, table })
        },
    )?;
    for KeptTable { id, table } in expired {
        pgrx::check_for_interrupts!();
        if let Some((table, name)) = table {
            if !internal_tables::lock_to_drop(table) {
                continue;
            }
            spi::execute(&format!("drop table if exists {name}"), &[])?;
        }
        spi::execute(
            "delete from coco_internal.kept_memo_function where kept_memo = $1",
            &[arg(id)],
        )?;
        spi::execute("delete from coco_internal.kept_memo where id = $1", &[arg(id)])?;
    }
    Ok(())
}

/// Which kept results to clear.
pub struct KeptResults<'a> {
    /// The name that the flow had; `None`: of all flows.
    pub flow: Option<&'a str>,
    /// The role that owned the flow; `None`: each role whose rights the caller has.
    pub owner: Option<pg_sys::Oid>,
    /// The name of the function; `None`: of all functions.
    pub function: Option<&'a str>,
}

/// Drops all tables of results of dropped flows, expired or not, because they would prevent DROP
/// EXTENSION.
pub fn drop_all() -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    let tables = spi::returning(
        &format!(
            "delete from coco_internal.kept_memo m using pg_class c, pg_namespace n
              where c.oid = m.memo_table and n.oid = c.relnamespace and {IS_RESULT_TABLE}
             returning format('%I.%I', n.nspname, c.relname)"
        ),
        &[],
        |r| spi::required::<String>(r, 1),
    )?;
    for table in tables {
        pgrx::check_for_interrupts!();
        spi::execute(&format!("drop table {table}"), &[])?;
    }
    Ok(())
}

/// Deletes results that coco keeps of dropped flows. Returns how many, or `None` if it keeps none.
/// A table that another transaction is dropping counts as dropped.
pub fn clear_kept(of: &KeptResults) -> Result<Option<i64>> {
    let caller = acting_role::current();
    let acting = RoleGuard::extension_owner()?;
    let kept = spi::returning(
        "select m.id, c.oid, format('%I.%I', n.nspname, c.relname)
           from coco_internal.kept_memo m
           join pg_class c on c.oid = m.memo_table
           join pg_namespace n on n.oid = c.relnamespace
          where m.kept_until > clock_timestamp() and ($1::text is null or m.flow = $1)
            and case when $2::oid is null then pg_has_role($3::oid, m.owner::oid, 'usage') else m.owner = $2 end
          order by m.id
            for update of m skip locked",
        &[arg(of.flow), arg(of.owner), arg(caller)],
        |r| {
            let table = r.get::<pg_sys::Oid>(2)?.zip(r.get::<String>(3)?);
            Ok(KeptTable { id: spi::required(r, 1)?, table })
        },
    )?;
    let any = !kept.is_empty();
    let mut deleted = 0;
    for KeptTable { id, table } in kept {
        pgrx::check_for_interrupts!();
        let Some((_, name)) = table else { continue };
        let ids = spi::returning(
            "delete from coco_internal.kept_memo_function
              where kept_memo = $1 and ($2::text is null or function = $2)
             returning function_id",
            &[arg(id), arg(of.function)],
            |r| spi::required::<i32>(r, 1),
        )?;
        deleted +=
            spi::execute(&format!("delete from {name} where function = any ($1)"), &[arg(ids)])?;
        spi::execute(
            "update coco_internal.kept_memo m set kept_until = clock_timestamp()
              where m.id = $1
                and not exists (select from coco_internal.kept_memo_function k where k.kept_memo = m.id)",
            &[arg(id)],
        )?;
    }
    drop(acting);
    drop_expired(None)?;
    Ok(any.then_some(deleted))
}
