//! How coco finds the changes of a source or a lookup: by triggers or by scans.

use pgrx::prelude::*;

use crate::catalog::model;
use crate::pg::columns::Column;
use crate::pg::error::{Error, Result};
use crate::pg::notice::notice;
use crate::pg::spi::{self, arg};

/// Returns how coco finds the changes of a source, as [`choose_capture`] does. Says so if it reads a
/// table as a whole although nobody requested it.
pub fn capture_mode(
    relation: pg_sys::Oid,
    shown: &str,
    kind: &str,
    key: &[Column],
    owner: pg_sys::Oid,
    given: &str,
) -> Result<model::CaptureMode> {
    let chosen = choose_capture(relation, shown, kind, key, owner, given)?;
    if let (Some(why), "r" | "p") = (chosen.why_scanned, kind) {
        notice(format!(
            "changes of {shown} are not captured, and each update reads the whole table: {why}"
        ));
    }
    Ok(chosen.mode)
}

/// How coco finds the changes of a source.
pub struct ChosenCapture {
    pub mode: model::CaptureMode,
    /// Why coco scans the source, if nobody requested it.
    why_scanned: Option<&'static str>,
}

/// Returns how coco finds the changes of a source: `given`, or for `auto` by triggers if the
/// relation allows it, otherwise by scans.
pub fn choose_capture(
    relation: pg_sys::Oid,
    shown: &str,
    kind: &str,
    key: &[Column],
    owner: pg_sys::Oid,
    given: &str,
) -> Result<ChosenCapture> {
    let mode = match given {
        "auto" => None,
        name => Some(model::CaptureMode::from_name(name).ok_or_else(|| {
            Error::invalid(format!("unrecognized value for argument \"capture\": \"{name}\""))
                .hint("Valid values are auto, trigger, always and scan.")
        })?),
    };
    let chosen = |mode| Ok(ChosenCapture { mode, why_scanned: None });
    if mode == Some(model::CaptureMode::Scan) {
        return chosen(model::CaptureMode::Scan);
    }
    let refused = match why_not_captured(relation, kind, key, owner)? {
        None => return chosen(mode.unwrap_or(model::CaptureMode::Trigger)),
        Some(why) => why,
    };
    if mode.is_some() {
        return Err(Error::new(refused.code, format!("cannot capture changes of {shown}"))
            .detail(refused.why)
            .hint("Use capture => 'scan'; each update then reads the whole relation."));
    }
    Ok(ChosenCapture { mode: model::CaptureMode::Scan, why_scanned: Some(refused.why) })
}

/// Why coco cannot capture the changes of a relation.
struct NotCaptured {
    code: PgSqlErrorCode,
    why: &'static str,
}

fn why_not_captured(
    relation: pg_sys::Oid,
    kind: &str,
    key: &[Column],
    owner: pg_sys::Oid,
) -> Result<Option<NotCaptured>> {
    let unsupported =
        |why| Some(NotCaptured { code: PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, why });
    if !matches!(kind, "r" | "p") {
        return Ok(unsupported("Only tables can have triggers that record each change."));
    }
    let (unlogged, allowed, foreign) = spi::select(
        "with recursive tree as (
           select $1::oid as relid
            union
           select i.inhrelid from tree t join pg_catalog.pg_inherits i on i.inhparent = t.relid
         )
         select pg_catalog.bool_or(c.relpersistence = 'u'),
                pg_catalog.has_table_privilege($2, $1, 'trigger'),
                pg_catalog.bool_or(c.relkind = 'f')
           from tree t join pg_catalog.pg_class c on c.oid = t.relid",
        &[arg(relation), arg(owner)],
        |r| {
            let row: (bool, bool, bool) =
                (spi::required(r, 1)?, spi::required(r, 2)?, spi::required(r, 3)?);
            Ok(row)
        },
    )?
    .pop()
    .ok_or_else(|| Error::internal("a relation vanished"))?;
    if unlogged {
        return Ok(unsupported("A crash empties an unlogged table without firing triggers."));
    }
    if foreign {
        return Ok(unsupported(
            "One of its partitions or children is a foreign table, whose changes on the other server fire no triggers.",
        ));
    }
    let names: Vec<String> = key.iter().map(|k| k.name.clone()).collect();
    let computed = spi::scalar::<bool>(
        "select pg_catalog.bool_or(attgenerated::text = 'v') from pg_catalog.pg_attribute
          where attrelid = $1 and attname::text = any ($2)",
        &[arg(relation), arg(names)],
    )?;
    if computed == Some(true) {
        return Ok(unsupported("Its key contains a virtual generated column."));
    }
    if !allowed {
        return Ok(Some(NotCaptured {
            code: PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            why: "The flow's owner lacks the TRIGGER privilege on it.",
        }));
    }
    Ok(None)
}
