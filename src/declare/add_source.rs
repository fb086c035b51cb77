//! Declares a source: its key, ordinal, fingerprint and capture mode, and its tracking table.

use pgrx::prelude::*;

use crate::capture::captured_columns::column_never_null;
use crate::capture::triggers;
use crate::catalog::{model, objects};
use crate::declare::key_expressions::{self, KeySource};
use crate::declare::names::check_name;
use crate::declare::source_capture::capture_mode;
use crate::declare::source_expressions::{DeclaredExpressions, ExpressionSource};
use crate::declare::source_key::{self, SourceKey};
use crate::declare::when_exists::WhenExists;
use crate::declare::{keep_groups, lineage_index};
use crate::flows::load;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::Column;
use crate::pg::error::{Error, Result};
use crate::pg::notice::{notice, notice_with_detail};
use crate::pg::spi::{self, arg};

/// The optional arguments of `add_source`.
#[derive(Clone, Default)]
pub struct SourceOptions {
    pub name: Option<String>,
    pub key: Option<Vec<String>>,
    pub ordinal: Option<String>,
    pub fingerprint: Option<String>,
    /// `auto`, or the name of a [`model::CaptureMode`].
    pub capture: Option<String>,
    pub refresh_interval: Option<Interval>,
}

impl SourceOptions {
    /// Reports whether no option is given.
    pub fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.key.is_none()
            && self.ordinal.is_none()
            && self.fingerprint.is_none()
            && self.capture.is_none()
            && self.refresh_interval.is_none()
    }
}

/// Declares a source of a flow that has no target yet.
pub fn add_source(
    flow: &str,
    relation: pg_sys::Oid,
    options: SourceOptions,
    when_exists: WhenExists,
) -> Result<()> {
    if when_exists == WhenExists::Skip {
        let sources = load::load_for_update(flow)?.sources;
        let name = options.name.clone().map_or_else(|| name_of(relation), Ok)?;
        if sources.iter().any(|s| s.name == name) {
            notice(format!("source \"{name}\" of flow \"{flow}\" already exists, skipping"));
            return Ok(());
        }
    }
    let flow = load::lock_and_load(flow)?;
    if !flow.targets.is_empty() {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" already has a target", flow.name),
        )
        .detail("coco checks a query against the sources that it reads.")
        .hint("Declare the sources first, then the targets."));
    }
    if !flow.sources.is_empty() {
        keep_groups::check_may_have(&flow, "several sources")?;
    }
    if flow.derives_lookups && !flow.sources.is_empty() {
        return Err(cannot_derive(&flow.name));
    }
    let SourceColumns { kind, shown, name: table } = describe(relation, flow.owner, "source")?;
    let name = options.name.unwrap_or(table);
    check_name("name", &name)?;
    if flow.followed().any(|s| s.name == name) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("flow \"{}\" already has a source or a lookup named \"{name}\"", flow.name),
        )
        .hint("Specify another name with the argument \"name\", and use that name in the query."));
    }
    let keyed = KeySource {
        relation,
        kind: &kind,
        shown: &shown,
        name: &name,
        owner: flow.owner,
        settings: &flow.settings,
    };
    let source_key = source_key::source_key(&keyed, options.key)?;
    let grouped = source_key::has_groups(relation, &kind, &source_key, options.ordinal.is_some())?;
    let SourceKey { columns: key, captured, expressions: key_expressions } = source_key;

    let declaring = ExpressionSource { flow: &flow, relation, name: &name, shown: &shown };
    let expressions = DeclaredExpressions {
        ordinal: options
            .ordinal
            .as_deref()
            .map(|o| declaring.check_ordinal(o, grouped))
            .transpose()?,
        fingerprint: options.fingerprint.clone(),
    };
    declaring.check_expressions(&expressions)?;
    check_interval(options.refresh_interval)?;
    let capture = capture_mode(
        relation,
        &shown,
        &kind,
        &captured,
        flow.owner,
        options.capture.as_deref().unwrap_or("auto"),
    )?;
    let _as = RoleGuard::extension_owner()?;
    let keys: Vec<String> = key.iter().map(|k| k.name.clone()).collect();
    let id = spi::returning(
        "insert into coco_internal.source (flow, name, relation, key, grouped, ordinal, fingerprint, capture, refresh_interval, tracking, tracking_view)
         values ($1, $2, $3::oid::regclass, $4, $5, $6, $7, $8, $9, 0::oid::regclass, 0::oid::regclass) returning id",
        &[
            arg(flow.name.as_str()),
            arg(name.as_str()),
            arg(relation),
            arg(keys),
            arg(grouped),
            arg(options.ordinal.clone()),
            arg(options.fingerprint.clone()),
            arg(capture.name()),
            arg(options.refresh_interval),
        ],
        |r| spi::required::<i32>(r, 1),
    )?
    .pop()
    .ok_or_else(|| Error::internal("INSERT returned no id for a new source"))?;
    let tracking = objects::create_tracking(&flow.name, flow.owner, id, &name, &key)?;
    spi::execute(
        "update coco_internal.source
            set tracking = $2::text::regclass, tracking_view = $3::text::regclass where id = $1",
        &[arg(id), arg(tracking.table), arg(tracking.view)],
    )?;
    if let Some(key) = &key_expressions {
        key_expressions::store_view(&flow.name, flow.owner, &name, id, key)?;
    }
    declaring.store_view(id, &expressions, None)?;
    lineage_index::index_as_declared(&flow.name)?;
    if capture != model::CaptureMode::Scan {
        triggers::ensure(relation, &captured, capture == model::CaptureMode::Always, true)?;
        say_cost_of_null(relation, &shown, &captured)?;
    }
    Ok(())
}

/// Says in a NOTICE that a change of a row whose key is NULL costs more than its group, if the change
/// log has no column that is never NULL.
fn say_cost_of_null(relation: pg_sys::Oid, shown: &str, key: &[Column]) -> Result<()> {
    let has_value = key.iter().any(|k| k.nullable.is_none());
    if has_value || column_never_null(relation)?.is_some() {
        return Ok(());
    }
    let names: Vec<&str> = key.iter().map(|k| k.name.as_str()).collect();
    notice_with_detail(
        format!("a change of a row with NULL in ({}) reads {shown} as a whole", names.join(", ")),
        "The change log does not tell its change from a change of any row. Declare a primary key, or declare a column NOT NULL.".to_owned(),
    );
    Ok(())
}

/// Returns the error for a flow with several sources that should derive its lookups.
pub fn cannot_derive(flow: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("cannot derive the lookups of flow \"{flow}\", which has several sources"),
    )
    .hint("Declare the flow with lookups => 'none', and its lookups with coco.add_lookup.")
}

/// Returns the name of a relation without its schema.
pub fn name_of(relation: pg_sys::Oid) -> Result<String> {
    Ok(spi::relation_parts(relation)?.1)
}

/// A relation that coco can follow, with its kind and names.
pub struct SourceColumns {
    pub kind: String,
    /// Quoted and schema-qualified.
    pub shown: String,
    pub name: String,
}

/// Checks that coco can follow a relation and that the owner may read it.
pub fn describe(
    relation: pg_sys::Oid,
    owner: pg_sys::Oid,
    argument: &str,
) -> Result<SourceColumns> {
    let described = spi::select(
        "select c.relkind::text, n.nspname::text, c.relname::text,
                pg_catalog.has_table_privilege($2, c.oid, 'select')
                or pg_catalog.has_any_column_privilege($2, c.oid, 'select')
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1",
        &[arg(relation), arg(owner)],
        |r| {
            let row: (String, String, String, bool) = (
                spi::required(r, 1)?,
                spi::required(r, 2)?,
                spi::required(r, 3)?,
                spi::required(r, 4)?,
            );
            Ok(row)
        },
    )?;
    let Some((kind, schema, table, readable)) = described.into_iter().next() else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("argument \"{argument}\": relation {} does not exist", relation.to_u32()),
        ));
    };
    let shown = spi::qualified(&schema, &table);
    if temporary(relation)? {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("argument \"{argument}\": {shown} is temporary"),
        )
        .hint(
            "Use a permanent table: a flow outlives the session, and a temporary table does not.",
        ));
    }
    if !matches!(kind.as_str(), "r" | "p" | "v" | "m" | "f") {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!(
                "argument \"{argument}\": {shown} is not a table, view, foreign table or materialized view"
            ),
        ));
    }
    if !readable {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for {argument} {shown}"),
        )
        .hint(format!("Run GRANT SELECT ON {shown} TO the flow's owner.")));
    }
    Ok(SourceColumns { kind, shown, name: table })
}

/// Checks that a refresh interval is not negative.
pub fn check_interval(interval: Option<Interval>) -> Result<()> {
    match interval.is_some_and(|i| i.as_micros() < 0) {
        true => Err(Error::invalid("argument \"refresh_interval\" is negative")),
        false => Ok(()),
    }
}

/// Reports whether a relation is temporary.
pub fn temporary(relation: pg_sys::Oid) -> Result<bool> {
    let sql = "select relpersistence = 't' from pg_catalog.pg_class where oid = $1";
    Ok(spi::scalar(sql, &[arg(relation)])?.unwrap_or(false))
}
