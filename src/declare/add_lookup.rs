//! Declares a lookup: a relation that the query reads in addition to its source, and whose changes
//! cause coco to evaluate items again.

use pgrx::prelude::*;

use crate::capture::triggers;
use crate::catalog::model::{self, Flow, Source};
use crate::catalog::{object_comments, object_names, objects, version_rows};
use crate::declare::add_source::{SourceColumns, check_interval, describe, name_of};
use crate::declare::names::check_name;
use crate::declare::source_capture::capture_mode;
use crate::declare::source_key::{self, primary_key};
use crate::declare::when_exists::WhenExists;
use crate::declare::{drop_lookup, keep_groups};
use crate::flows::{load, upstream};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column, StoredType};
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::notice::notice;
use crate::pg::spi::{self, arg};
use crate::query::bound_query::{self, Bound};
use crate::query::named_source::Shadow;
use crate::query::{analyze, syntax, used_columns};

/// The optional arguments of `add_lookup`.
#[derive(Default)]
pub struct LookupOptions {
    pub name: Option<String>,
    pub affects: Option<String>,
    pub source: Option<String>,
    pub key: Option<Vec<String>>,
    pub capture: Option<String>,
    pub refresh_interval: Option<Interval>,
}

/// Declares a lookup of a flow that has a source.
pub fn add_lookup(
    flow: &str,
    relation: pg_sys::Oid,
    options: LookupOptions,
    when_exists: WhenExists,
) -> Result<()> {
    if when_exists == WhenExists::Skip {
        let lookups = load::load_for_update(flow)?.lookups;
        let name = options.name.clone().map_or_else(|| name_of(relation), Ok)?;
        if lookups.iter().any(|l| l.relation.name == name && !l.is_derived) {
            notice(format!("lookup \"{name}\" of flow \"{flow}\" already exists, skipping"));
            return Ok(());
        }
    }
    let flow = load::lock_and_load(flow)?;
    version_rows::check_no_new_version(flow.id, &flow.name)?;
    keep_groups::check_may_have(&flow, "a lookup")?;
    let affected = affected(&flow, options.source.as_deref())?;
    let described = describe(relation, flow.owner, "lookup")?;
    let name = options.name.unwrap_or(described.name.clone());
    check_name("name", &name)?;
    let is_taken = flow.sources.iter().any(|s| s.name == name)
        || flow
            .lookups
            .iter()
            .any(|l| l.relation.name == name && !(l.is_derived && l.relation.relation == relation));
    if is_taken {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("flow \"{}\" already has a source or a lookup named \"{name}\"", flow.name),
        )
        .hint(
            "Specify another name with the argument \"name\", and use that name in \"affects\".",
        ));
    }
    let key = source_key::lookup_key(relation, &described.shown, &described.kind, options.key)?;
    let affects = match &options.affects {
        None => None,
        Some(text) => {
            let places = OtherPlaces::Refused;
            Some(check_affects(&flow, affected, text, shadow(relation, &name, &key)?, places)?)
        }
    };
    check_interval(options.refresh_interval)?;
    let capture = options.capture.as_deref().unwrap_or("auto");
    let of = affected.clone();
    // A declared lookup replaces what coco derived for the relation.
    for derived in flow.lookups.iter().filter(|l| l.is_derived && l.relation.relation == relation) {
        drop_lookup::drop_lookup(derived)?;
    }
    let new = NewLookup {
        name,
        relation,
        described,
        key,
        affects,
        capture,
        refresh_interval: options.refresh_interval,
        is_derived: false,
    };
    insert_lookup(&flow, &of, new)?;
    if flow.lookups.iter().any(|l| l.is_derived) {
        triggers::end_unneeded(flow.owner)?;
    }
    let flow = load::load_for_update(&flow.name)?;
    store_used(&flow)?;
    invalidation::note_change()?;
    upstream::check_no_cycle(&flow.name)
}

/// A lookup to insert, whose parts are checked.
pub struct NewLookup<'a> {
    pub name: String,
    pub relation: pg_sys::Oid,
    pub described: SourceColumns,
    pub key: Vec<Column>,
    /// The text of `affects`, and the bound query.
    pub affects: Option<(String, Bound)>,
    pub capture: &'a str,
    pub refresh_interval: Option<Interval>,
    pub is_derived: bool,
}

/// Inserts a lookup, creates its tracking table, and starts to capture its changes.
pub fn insert_lookup(flow: &Flow, affected: &Source, new: NewLookup) -> Result<()> {
    let NewLookup { name, relation, described, key, affects, .. } = new;
    let names: Vec<String> = key.iter().map(|k| k.name.clone()).collect();
    let grouped = !crate::catalog::target_table::has_unique_index(relation, &key)?;
    let (affects, bound) = affects.unzip();
    let capture =
        capture_mode(relation, &described.shown, &described.kind, &key, flow.owner, new.capture)?;
    let acting = RoleGuard::extension_owner()?;
    let id = spi::returning(
        "insert into coco_internal.source (flow, name, relation, key, grouped, capture, refresh_interval, lookup_of, affects, derived, tracking, tracking_view)
         values ($1, $2, $3::oid::regclass, $4, $5, $6, $7, $8, $9, $10, 0::oid::regclass, 0::oid::regclass) returning id",
        &[
            arg(flow.name.as_str()),
            arg(name.as_str()),
            arg(relation),
            arg(names),
            arg(grouped),
            arg(capture.name()),
            arg(new.refresh_interval),
            arg(affected.id),
            arg(affects),
            arg(new.is_derived),
        ],
        |r| spi::required::<i32>(r, 1),
    )?
    .pop()
    .ok_or_else(|| Error::internal("INSERT returned no id for a new lookup"))?;
    let tracking = objects::create_tracking(&flow.name, flow.owner, id, &name, &key)?;
    spi::execute(
        "update coco_internal.source
            set tracking = $2::text::regclass, tracking_view = $3::text::regclass where id = $1",
        &[arg(id), arg(tracking.table), arg(tracking.view)],
    )?;
    if let Some(Bound { tree, .. }) = bound {
        let view = objects::create_bound_view(
            &object_names::object_name("affects", id, &flow.name),
            flow.owner,
            &numbered_names(&affected.key),
            tree,
            &object_comments::affects_comment(&flow.name, &name),
        )?;
        spi::execute(
            "update coco_internal.source set affects_view = $2::oid::regclass where id = $1",
            &[arg(id), arg(view)],
        )?;
    }
    drop(acting);
    if capture != model::CaptureMode::Scan {
        let mut captured = key;
        if new.is_derived {
            captured.extend(other_key_columns(relation, &captured)?);
        }
        triggers::ensure(relation, &captured, capture == model::CaptureMode::Always, true)?;
    }
    Ok(())
}

/// Returns the columns of a relation's primary key that are not among these, if one of these can be
/// NULL. The change log then tells the change of a row with a NULL from a change of any row.
fn other_key_columns(relation: pg_sys::Oid, key: &[Column]) -> Result<Vec<Column>> {
    let attributes = columns::of_relation(relation)?;
    let is_key = |name: &String| key.iter().any(|k| k.name == *name);
    if attributes.iter().all(|a| a.not_null || !is_key(&a.column.name)) {
        return Ok(vec![]);
    }
    let primary = primary_key(relation)?.unwrap_or_default();
    let others = attributes.into_iter().map(|a| a.column);
    let others = others.filter(|c| primary.contains(&c.name) && !is_key(&c.name));
    let others: Vec<Column> = others.filter(|c| c.kept != StoredType::Json).collect();
    Ok(columns::stored(&others))
}

/// Returns a new lookup as its query `affects` refers to it.
pub fn shadow(relation: pg_sys::Oid, name: &str, key: &[Column]) -> Result<Shadow> {
    Ok(Shadow {
        named: used_columns::named(LOOKUP, name, relation)?,
        columns: columns::numbers(relation)?,
        key: key.iter().map(|k| k.name.clone()).collect(),
        key_expressions: vec![],
    })
}

/// Stands for the id of the lookup until the catalog assigns one.
const LOOKUP: i32 = -1;

/// Returns the same columns, named `k1…`: the columns of a query may have equal names, or none.
fn numbered_names(key: &[Column]) -> Vec<Column> {
    let named = |(n, c): (usize, &Column)| Column { name: format!("k{}", n + 1), ..c.clone() };
    key.iter().enumerate().map(named).collect()
}

/// Stores which columns of its lookups a flow's queries read.
pub fn store_used(flow: &Flow) -> Result<()> {
    let analyses = used_columns::analyze_queries(flow, &used_columns::shadows(flow)?)?;
    let analyses: Vec<&analyze::Analysis> = analyses.iter().collect();
    for (lookup, used) in
        flow.lookups.iter().zip(used_columns::columns_of_lookups(flow, &analyses)?)
    {
        let _as = RoleGuard::extension_owner()?;
        spi::execute(
            "update coco_internal.source set used = $2 where id = $1 and used is distinct from $2",
            &[arg(lookup.relation.id), arg(used)],
        )?;
    }
    Ok(())
}

/// Returns the source whose items a lookup affects: the named one, or the flow's only one.
fn affected<'a>(flow: &'a Flow, name: Option<&str>) -> Result<&'a Source> {
    let has = || flow.sources.iter().map(|s| s.name.clone()).collect::<Vec<_>>().join(", ");
    match (flow.sources.as_slice(), name) {
        ([], _) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" has no source yet", flow.name),
        )
        .hint("Call coco.add_source first.")),
        ([one], None) => Ok(one),
        (_, None) => Err(Error::invalid("argument \"source\" is missing")
            .detail(format!("The flow has several sources: {}.", has()))
            .hint("Specify the source whose items a change of the lookup affects.")),
        (all, Some(name)) => all.iter().find(|s| s.name == name).ok_or_else(|| {
            Error::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("flow \"{}\" has no source named \"{name}\"", flow.name),
            )
            .detail(format!("The flow's sources are {}.", has()))
        }),
    }
}

/// Whether a query `affects` may also read the lookup's relation as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherPlaces {
    Allowed,
    Refused,
}

/// Checks and binds the query `affects`: it must read only the lookup's key and return the source's
/// key.
pub fn check_affects(
    flow: &Flow,
    source: &Source,
    text: &str,
    shadow: Shadow,
    other_places: OtherPlaces,
) -> Result<(String, Bound)> {
    let text = syntax::one_select(text).map_err(|e| renamed(e, "affects"))?;
    let name = shadow.named.name.clone();
    let key = shadow.key.clone();
    let acting = RoleGuard::flow_owner(flow.owner, &flow.settings)?;
    let bound =
        bound_query::bind_query("affects", &text, std::slice::from_ref(&shadow.named), None)
            .map_err(|e| renamed(e, "affects"))?;
    let analysis =
        analyze::analyze("affects", &bound, &[shadow]).map_err(|e| renamed(e, "affects"))?;
    drop(acting);
    let Some(used) = analysis.used.first().and_then(Option::as_ref) else {
        return Err(Error::invalid(format!("argument \"affects\" does not read \"{name}\""))
            .detail("In \"affects\", the lookup's name is a relation of the changed keys."));
    };
    let has_keys_alone = "In \"affects\", the lookup is a relation of its changed keys, because only the key of a deleted row is known.";
    if let Some(column) = used.iter().find(|c| !key.contains(c)) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("argument \"affects\" reads column \"{column}\" of \"{name}\", which is not in its key"),
        )
        .detail(has_keys_alone)
        .hint("Read the column from the source, or declare the lookup with a key that contains it (argument \"key\")."));
    }
    if other_places == OtherPlaces::Refused && bound.places.contains(&0) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("argument \"affects\" also reads \"{name}\" as a whole"),
        )
        .detail(has_keys_alone)
        .hint("Read the lookup in only one place."));
    }
    let wants: Vec<String> =
        source.key.iter().map(|k| format!("{} {}", k.name, k.type_name)).collect();
    let fits = analysis.columns.len() == source.key.len()
        && analysis.columns.iter().zip(&source.key).all(|(c, k)| {
            // coco stores a domain's values as values of its base type.
            let of_domain = matches!(k.kept, StoredType::Base { .. });
            c.type_oid == k.type_oid || of_domain && c.stored().type_oid == k.type_oid
        });
    if !fits {
        let gives: Vec<String> =
            analysis.columns.iter().map(|c| format!("{} {}", c.name, c.type_name)).collect();
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("argument \"affects\" must return the key of source \"{}\"", source.name),
        )
        .detail(format!(
            "The key is ({}); the query returns ({}).",
            wants.join(", "),
            gives.join(", ")
        )));
    }
    Ok((text, bound))
}

/// Replaces the argument's name in an error that was raised about a query.
fn renamed(mut error: Error, argument: &str) -> Error {
    let named = format!("argument \"{argument}\"");
    error.message = error.message.replace("argument \"query\"", &named);
    error.hint = error.hint.and(Some(
        "Use, for example, SELECT d.id FROM documents d JOIN authors a ON a.id = d.author."
            .to_owned(),
    ));
    error
}
