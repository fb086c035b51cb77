//! Reading and writing declared flows.

use pgrx::JsonB;
use pgrx::pg_sys;

use super::columns;
use super::error::{Error, Result};
use super::model::{Column, Flow, Source, Target};
use super::role::{self, ActingAs, Settings};
use super::sql::{self, arg};

/// Loads a flow for its owner, whole: with a query that reads what is there.
pub fn load(name: &str) -> Result<Flow> {
    let flow = load_to_change(name)?;
    let broken = |what: String| {
        Error::new(pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, what).hint(
            "Give the target a query that fits with coco.set_query, or drop the flow with coco.drop_flow.",
        )
    };
    for source in &flow.sources {
        if let Some(missing) = source.missing.first() {
            return Err(broken(format!(
                "column \"{missing}\" of source \"{}\", which flow \"{name}\" uses, does not exist any more",
                source.name
            )));
        }
    }
    for target in &flow.targets {
        if target.query_view.is_none() {
            return Err(broken(format!(
                "something that the query of target {} of flow \"{name}\" reads was dropped",
                target.relation_name()
            )));
        }
    }
    Ok(flow)
}

/// Loads a flow for its owner. Its query may be broken.
pub fn load_to_change(name: &str) -> Result<Flow> {
    let _as = ActingAs::extension_owner()?;
    let found = sql::select(
        "select id, owner::oid, settings, pg_catalog.to_regrole(owner::text) is not null
           from coco.flow where flow = $1",
        &[arg(name)],
        |r| {
            let flow = Flow {
                name: name.to_owned(),
                id: sql::required(r, 1)?,
                owner: sql::required(r, 2)?,
                settings: Settings::from_json(&sql::required(r, 3)?),
                sources: vec![],
                targets: vec![],
            };
            Ok((flow, sql::required::<bool>(r, 4)?))
        },
    )?;
    let Some((mut flow, owner_exists)) = found.into_iter().next() else {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("flow \"{name}\" does not exist"),
        )
        .hint("The view coco.flows lists your flows."));
    };
    drop(_as);
    if !role::has_rights_of(flow.owner) {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be owner of flow \"{name}\""),
        ));
    }
    if !owner_exists {
        return Err(Error::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("the role that owned flow \"{name}\" does not exist any more"),
        )
        .hint("Drop the flow as a superuser with coco.drop_flow and declare it again."));
    }
    let _as = ActingAs::extension_owner()?;
    flow.sources = sources(name)?;
    flow.targets = targets(name)?;
    Ok(flow)
}

fn sources(flow: &str) -> Result<Vec<Source>> {
    type Raw = (Source, Vec<String>, Vec<String>, Option<String>, String);
    let raw: Vec<Raw> = sql::select(
        "select s.id, s.name, s.relation::oid, s.grouped, s.ordinal_sql, s.fingerprint, s.key, s.used,
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = s.relation),
                (select pg_catalog.format('%I.%I', n.nspname, c.relname)
                   from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where c.oid = s.tracking),
                s.relation::text
           from coco.source s where s.flow = $1 order by s.id",
        &[arg(flow)],
        |r| {
            let source = Source {
                id: sql::required(r, 1)?,
                name: sql::required(r, 2)?,
                relation: sql::required(r, 3)?,
                relation_name: r.get::<String>(9)?.unwrap_or_default(),
                key: vec![],
                grouped: sql::required(r, 4)?,
                ordinal: r.get(5)?,
                fingerprint: r.get(6)?,
                used: vec![],
                missing: vec![],
                tracking: r.get::<String>(10)?.ok_or_else(|| {
                    Error::internal(format!("flow \"{flow}\" has lost its tracking table"))
                        .hint("Drop the flow and declare it again: rows that are the same will not be written.")
                })?,
            };
            Ok((
                source,
                sql::required(r, 7)?,
                sql::required(r, 8)?,
                r.get(9)?,
                sql::required(r, 11)?,
            ))
        },
    )?;
    raw.into_iter()
        .map(|(mut source, key, used, exists, shown)| {
            if exists.is_none() {
                return Err(Error::new(
                    pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                    format!("source \"{}\" of flow \"{flow}\" ({shown}) was dropped", source.name),
                )
                .hint("Drop the flow with coco.drop_flow and declare it over another source."));
            }
            let columns: Vec<Column> =
                columns::of_relation(source.relation)?.into_iter().map(|a| a.column).collect();
            let find = |name: &String| columns.iter().find(|c| c.name == *name).cloned();
            source.missing = used.iter().filter(|n| find(n).is_none()).cloned().collect();
            source.used = used.iter().filter_map(find).collect();
            source.key = key
                .iter()
                .map(|name| {
                    find(name).ok_or_else(|| {
                        Error::new(
                            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                            format!("key column \"{name}\" of source \"{}\" of flow \"{flow}\" does not exist any more", source.name),
                        )
                        .hint("Drop the flow with coco.drop_flow and declare it again.")
                    })
                })
                .collect::<Result<_>>()?;
            Ok(source)
        })
        .collect()
}

fn targets(flow: &str) -> Result<Vec<Target>> {
    let raw: Vec<Target> = sql::select(
        "select t.id, t.schema, t.name,
                (select c.oid from pg_catalog.pg_class c where c.oid = t.relation),
                t.query, t.covered, t.made, t.incarnation,
                (select c.oid from pg_catalog.pg_class c where c.oid = t.query_view), t.key,
                (select n.nspname::text from pg_catalog.pg_class c
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = t.relation),
                (select c.relname::text from pg_catalog.pg_class c where c.oid = t.relation)
           from coco.target t where t.flow = $1 order by t.id",
        &[arg(flow)],
        |r| {
            // A table that was renamed or moved is still the target.
            let schema = r.get::<String>(11)?.map_or_else(|| sql::required(r, 2), Ok)?;
            let name = r.get::<String>(12)?.map_or_else(|| sql::required(r, 3), Ok)?;
            let target = Target {
                id: sql::required(r, 1)?,
                schema,
                name,
                relation: r.get(4)?,
                query: sql::required(r, 5)?,
                columns: vec![],
                key: vec![],
                key_names: sql::required(r, 10)?,
                covered: r.get(6)?,
                made: sql::required(r, 7)?,
                incarnation: sql::required(r, 8)?,
                query_view: r.get(9)?,
            };
            Ok(target)
        },
    )?;
    raw.into_iter()
        .map(|mut target| {
            if let Some(view) = target.query_view {
                target.columns =
                    columns::of_relation(view)?.into_iter().map(|a| a.column).collect();
                target.key = key_columns(&target.columns, &target.key_names)?;
            }
            Ok(target)
        })
        .collect()
}

fn key_columns(columns: &[Column], key: &[String]) -> Result<Vec<Column>> {
    key.iter()
        .map(|k| {
            let found = columns.iter().find(|c| c.name == *k).cloned();
            found.ok_or_else(|| Error::internal(format!("key column \"{k}\" is not in the view")))
        })
        .collect()
}

/// Loads a flow as [`load`] does, and holds off other updates and changes of it.
pub fn locked(name: &str) -> Result<Flow> {
    lock(&load_to_change(name)?)?;
    // Again: what was read before the lock may have changed while it was waited for.
    load(name)
}

/// Loads a flow as [`load_to_change`] does, and holds off other updates and changes of it.
pub fn locked_to_change(name: &str) -> Result<Flow> {
    lock(&load_to_change(name)?)?;
    load_to_change(name)
}

/// Holds off others until the transaction ends. Shows in pg_locks
/// as an object of class coco.flow.
fn lock(flow: &Flow) -> Result<()> {
    let class =
        sql::one::<pg_sys::Oid>("select 'coco.flow'::pg_catalog.regclass::pg_catalog.oid", &[])?
            .ok_or_else(|| Error::internal("table coco.flow does not exist"))?;
    // SAFETY: a lock of the heavyweight lock manager, released at the transaction's end.
    unsafe {
        pg_sys::LockDatabaseObject(
            class,
            pg_sys::Oid::from(flow.id as u32),
            0,
            pg_sys::ShareUpdateExclusiveLock as i32,
        )
    };
    Ok(())
}

/// The id under which this logic is kept, if it is.
pub fn known_logic_id(flow: &str, fingerprint: pgrx::Uuid) -> Result<Option<i32>> {
    let _as = ActingAs::extension_owner()?;
    sql::one(
        "select id from coco.logic where flow = $1 and fingerprint = $2",
        &[arg(flow), arg(fingerprint)],
    )
}

/// The id under which this logic is kept; recorded if it is new.
pub fn logic_id(flow: &str, fingerprint: pgrx::Uuid, parts: serde_json::Value) -> Result<i32> {
    if let Some(id) = known_logic_id(flow, fingerprint)? {
        return Ok(id);
    }
    let _as = ActingAs::extension_owner()?;
    sql::returning(
        "insert into coco.logic (flow, fingerprint, parts) values ($1, $2, $3) returning id",
        &[arg(flow), arg(fingerprint), arg(JsonB(parts))],
        |r| sql::required(r, 1),
    )?
    .pop()
    .ok_or_else(|| Error::internal("no id came back for a new logic"))
}
