//! The SQL functions `coco.lineage` (the items that a target row comes from) and `coco.outputs`
//! (the target rows of an item).

use pgrx::Uuid;
use pgrx::datum::{Range, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::inspect::lineage::{origins, outputs};
use crate::pg::json::Json;
use crate::sql_api::arguments::required_argument;

#[pg_extern(sql = false)]
fn lineage(
    target: Option<&str>,
    key: Option<Json>,
    of_flow: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(flow, String),
            name!(source, String),
            name!(source_relation, pg_sys::Oid),
            name!(source_key, Json),
            name!(state, String),
            name!(ordinal, Option<i64>),
            name!(content_fingerprint, Option<Uuid>),
            name!(logic_fingerprint, Option<Uuid>),
            name!(query, Option<String>),
            name!(functions, Option<Json>),
            name!(label, Option<String>),
            name!(process_ordinal, Option<i64>),
            name!(process_time, Option<TimestampWithTimeZone>),
            name!(memo, Json),
            name!(byte_range, Option<Range<i64>>),
            name!(failure, Option<Json>),
            name!(source_columns, Vec<String>),
            name!(lookups, Json),
        ),
    >,
    ErrorReport,
> {
    let target = required_argument(target, "target")?;
    let key = required_argument(key, "key")?;
    let rows = origins::lineage(target, key, of_flow)?.into_iter().map(|i| {
        let (logic, functions) = i.logic.map(|l| (l.fingerprint, l.functions)).unzip();
        (
            i.flow,
            i.source,
            i.relation,
            i.source_key,
            i.state.to_owned(),
            i.ordinal,
            i.content,
            logic,
            i.query,
            functions,
            i.label,
            i.process_ordinal,
            i.process_time,
            i.memo,
            i.bytes.map(|(start, end)| Range::from(start..end)),
            i.failure,
            i.source_columns,
            i.lookups,
        )
    });
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

#[pg_extern(sql = false)]
fn outputs(
    flow: Option<&str>,
    source_key: Option<Json>,
    of_source: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(source, String),
            name!(target, String),
            name!(key, Json),
            name!(owned_by_list, bool),
        ),
    >,
    ErrorReport,
> {
    let flow = required_argument(flow, "flow")?;
    let source_key = required_argument(source_key, "source_key")?;
    let rows = outputs::outputs(flow, source_key, of_source)?;
    Ok(TableIterator::new(rows.into_iter().map(|o| (o.source, o.target, o.key, o.listed))))
}
