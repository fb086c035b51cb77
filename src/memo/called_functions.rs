//! Finds the memoized functions that a flow's queries call.

use pgrx::pg_sys;
use std::rc::Rc;

use crate::catalog::memo_function::{MemoFunction, MemoFunctionKind, MemoTtl};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};
use crate::query::logic_fingerprint;

/// Selects the functions that these views, and the views that they read, call. Calls inside a
/// function's body do not count.
pub const CALLED: &str = "
with recursive reached(oid) as (
  select v.oid from pg_catalog.unnest($1::oid[]) as v(oid)
  union
  select d.refobjid
    from reached v
    join pg_catalog.pg_rewrite r on r.ev_class = v.oid
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
     and d.refclassid = 'pg_catalog.pg_class'::regclass
    join pg_catalog.pg_class c on c.oid = d.refobjid and c.relkind = 'v'
), called as (
  select distinct d.refobjid as oid
    from reached v
    join pg_catalog.pg_rewrite r on r.ev_class = v.oid
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
     and d.refclassid = 'pg_catalog.pg_proc'::regclass
)";

/// Selects the memoized functions among them. A function that has another owner than when it was
/// memoized does not count.
pub const MEMOIZED: &str = "
select p.oid, p.oid::regprocedure::text, m.version,
       case when m.batch is not null then coalesce(to_regprocedure(m.batch)::oid, 0) end,
       m.batch_owner::oid, m.batch_size,
       case when p.pronamespace = 'coco'::regnamespace and p.proname in ('embed', 'generate', 'http_post')
            then p.proname::text end,
       p.proowner,
       case when m.ttl is not null then least(extract(epoch from m.ttl) * 1000000, 3e15)::bigint end,
       m.ttl::text
  from called c
  join pg_catalog.pg_proc p on p.oid = c.oid
  left join coco_internal.memo_function m on m.function = p.oid::regprocedure::text and m.owner = p.proowner
 where m.function is not null
    or p.pronamespace = 'coco'::regnamespace and p.proname in ('embed', 'generate', 'http_post')
 order by 2";

struct MemoFunctionRow {
    oid: pg_sys::Oid,
    name: String,
    version: Option<String>,
    batch: Option<MemoFunctionKind>,
    provided: Option<String>,
    owner: pg_sys::Oid,
    ttl: Option<MemoTtl>,
}

/// Returns the memoized functions that the queries of these views call.
pub fn called_functions(views: &[pg_sys::Oid]) -> Result<Vec<Rc<MemoFunction>>> {
    let _as = RoleGuard::extension_owner()?;
    let found = spi::select(&format!("{CALLED}{MEMOIZED}"), &[arg(views.to_vec())], |r| {
        let batch = match (r.get::<pg_sys::Oid>(4)?, r.get::<i32>(6)?) {
            (Some(function), Some(size)) => {
                let owner = r.get::<pg_sys::Oid>(5)?.unwrap_or(pg_sys::InvalidOid);
                Some(MemoFunctionKind::Batch { function, owner, size })
            }
            _ => None,
        };
        Ok(MemoFunctionRow {
            oid: spi::required(r, 1)?,
            name: spi::required(r, 2)?,
            version: r.get(3)?,
            batch,
            provided: r.get(7)?,
            owner: spi::required(r, 8)?,
            ttl: r.get(9)?.zip(r.get(10)?).map(|(micros, shown)| MemoTtl { micros, shown }),
        })
    })?;
    found.into_iter().map(|found| memo_function_of(found).map(Rc::new)).collect()
}

/// Returns the functions that these views call and that had another owner when they were memoized.
/// Such functions no longer count as memoized.
pub fn of_another_owner(views: &[pg_sys::Oid]) -> Result<Vec<String>> {
    let _as = RoleGuard::extension_owner()?;
    let another = "
select m.function
  from called c
  join pg_catalog.pg_proc p on p.oid = c.oid
  join coco_internal.memo_function m on m.function = p.oid::regprocedure::text and m.owner <> p.proowner
 order by 1";
    spi::select(&format!("{CALLED}{another}"), &[arg(views.to_vec())], |r| spi::required(r, 1))
}

/// Returns the names of the functions among `all` that are not memoized in flows.
pub fn not_memoized(all: Vec<pg_sys::Oid>) -> Result<Vec<String>> {
    let _as = RoleGuard::extension_owner()?;
    spi::select(
        "select distinct p.proname::text
           from pg_catalog.pg_proc p
           left join coco_internal.memo_function m on m.function = p.oid::regprocedure::text and m.owner = p.proowner
          where p.oid = any ($1) and m.function is null
            and not (p.pronamespace = 'coco'::regnamespace and p.proname in ('embed', 'generate', 'http_post'))
          order by 1",
        &[arg(all)],
        |r| spi::required(r, 1),
    )
}

fn memo_function_of(found: MemoFunctionRow) -> Result<MemoFunction> {
    let kind = match (found.provided.as_deref(), found.batch) {
        (Some("embed"), _) => MemoFunctionKind::Embed,
        (Some("generate"), _) => MemoFunctionKind::Generate,
        (Some(_), _) => MemoFunctionKind::Post,
        (None, Some(batch)) => batch,
        (None, None) => MemoFunctionKind::Plain,
    };
    // The result of a provider does not depend on coco's version.
    let mut of = vec![];
    if !kind.is_provided() {
        of.push(found.oid);
        if let MemoFunctionKind::Batch { function, .. } = kind {
            of.push(function);
        }
    }
    let fingerprint = logic_fingerprint::of_functions(&of, &found.name, found.version.as_deref())?;
    Ok(MemoFunction {
        oid: found.oid,
        name: found.name,
        owner: found.owner,
        kind,
        fingerprint,
        ttl: found.ttl,
    })
}
