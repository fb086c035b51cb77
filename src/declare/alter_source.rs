//! Changes a source or lookup of a flow: its ordinal, fingerprint, capture mode and refresh
//! interval. [`crate::declare::alter_flow`] calls it.
//!
//! What each change invalidates:
//!
//! - A new fingerprint is a new logic, so the next update evaluates every item. Results of memoized
//!   functions stay.
//! - Stored ordinals of another expression cannot be compared with new ones, so they are deleted. The
//!   next update compares the content of every item.
//! - After a change of the capture mode, the next update looks at every item once, because changes
//!   may have passed the triggers by.

use pgrx::prelude::*;

use crate::capture::{cursor, triggers};
use crate::catalog::model::{CaptureMode, Flow, Source};
use crate::catalog::{objects, target_table};
use crate::declare::add_source::{check_interval, describe};
use crate::declare::keep_groups;
use crate::declare::source_capture::capture_mode;
use crate::declare::source_expressions::{
    DeclaredExpressions, ExpressionSource, FINGERPRINT, KeptExpression, ORDINAL,
};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};

/// The changes of one source or lookup; `None` leaves a property unchanged.
pub struct SourceChanges<'a> {
    /// The name of the source or lookup; `None` means the only source.
    pub source: Option<&'a str>,
    /// An empty text removes the ordinal.
    pub ordinal: Option<&'a str>,
    /// An empty text removes the fingerprint.
    pub fingerprint: Option<&'a str>,
    pub capture: Option<&'a str>,
    pub refresh_interval: Option<Interval>,
}

impl SourceChanges<'_> {
    /// Reports whether a property changes.
    pub fn any(&self) -> bool {
        self.ordinal.is_some()
            || self.fingerprint.is_some()
            || self.capture.is_some()
            || self.refresh_interval.is_some()
    }
}

/// Changes a source or lookup. The caller holds the flow's lock.
pub fn alter_source(flow: &Flow, changes: &SourceChanges) -> Result<()> {
    let source = find_source(flow, changes.source)?;
    check_interval(changes.refresh_interval)?;
    alter_expressions(flow, source, changes)?;
    if let Some(given) = changes.capture {
        alter_capture(flow, source, given)?;
    }
    if let Some(interval) = changes.refresh_interval {
        let _as = RoleGuard::extension_owner()?;
        spi::execute(
            "update coco_internal.source set refresh_interval = $2 where id = $1",
            &[arg(source.id), arg(interval)],
        )?;
    }
    Ok(())
}

/// Finds a source or lookup by the given name, or the flow's only source if no name is given.
fn find_source<'a>(flow: &'a Flow, name: Option<&str>) -> Result<&'a Source> {
    let has = || flow.followed().map(|s| s.name.clone()).collect::<Vec<_>>().join(", ");
    match (name, flow.sources.as_slice()) {
        (None, [one]) => Ok(one),
        (None, []) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("flow \"{}\" has no source yet", flow.name),
        )
        .hint("Call coco.add_source first.")),
        (None, _) => Err(Error::invalid("argument \"source\" is missing")
            .detail(format!("The flow has several sources: {}.", has()))
            .hint("Specify the source or lookup to change.")),
        (Some(name), _) => flow.followed().find(|s| s.name == name).ok_or_else(|| {
            Error::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("flow \"{}\" has no source or lookup named \"{name}\"", flow.name),
            )
            .detail(format!("The flow's sources and lookups are {}.", has()))
        }),
    }
}

/// What becomes of an expression.
enum ExpressionChange<'a> {
    Keep,
    Remove,
    Set(&'a str),
}

impl<'a> ExpressionChange<'a> {
    /// Compares an argument with the declared expression. The same text is no change, unless an
    /// object that the expression reads was dropped.
    fn of(given: Option<&'a str>, declared: Option<&String>, source: &Source) -> Self {
        match (given, declared) {
            (None, _) | (Some(""), None) => ExpressionChange::Keep,
            (Some(""), Some(_)) => ExpressionChange::Remove,
            (Some(text), Some(declared)) if text == declared && source.expressions.is_some() => {
                ExpressionChange::Keep
            }
            (Some(text), _) => ExpressionChange::Set(text),
        }
    }

    fn is_change(&self) -> bool {
        !matches!(self, ExpressionChange::Keep)
    }

    /// Returns the text to store.
    fn text(&self, declared: &Option<String>) -> Option<String> {
        match self {
            ExpressionChange::Keep => declared.clone(),
            ExpressionChange::Remove => None,
            ExpressionChange::Set(text) => Some((*text).to_owned()),
        }
    }
}

fn alter_expressions(flow: &Flow, source: &Source, changes: &SourceChanges) -> Result<()> {
    let ordinal = ExpressionChange::of(changes.ordinal, source.ordinal.as_ref(), source);
    let fingerprint =
        ExpressionChange::of(changes.fingerprint, source.fingerprint.as_ref(), source);
    if !ordinal.is_change() && !fingerprint.is_change() {
        return Ok(());
    }
    keep_groups::check_may_have(flow, "an ordinal or a fingerprint")?;
    if flow.lookups.iter().any(|l| l.relation.id == source.id) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("lookup \"{}\" cannot have an ordinal or a fingerprint", source.name),
        )
        .detail("coco compares the columns of a lookup that the flow's queries read."));
    }
    if matches!(ordinal, ExpressionChange::Remove)
        && !source.grouped
        && !target_table::has_unique_index(source.relation, &source.key)?
    {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("cannot remove the ordinal of source \"{}\"", source.name),
        )
        .detail(format!(
            "No unique index guarantees that each key of {} identifies one row. The ordinal declares it.",
            source.relation_name
        ))
        .hint("Specify another ordinal. If several rows form one item, drop the flow with coco.drop_flow, keeping its targets, and declare it again."));
    }
    let declaring = ExpressionSource {
        flow,
        relation: source.relation,
        name: &source.name,
        shown: &source.relation_name,
    };
    let mut expressions = DeclaredExpressions::default();
    if let ExpressionChange::Set(text) = ordinal {
        expressions.ordinal = Some(declaring.check_ordinal(text, source.grouped)?);
    }
    if let ExpressionChange::Set(text) = fingerprint {
        expressions.fingerprint = Some(text.to_owned());
    }
    declaring.check_expressions(&expressions)?;
    // At most one expression stays, because at least one changes. It keeps the objects to which it
    // was bound.
    let kept = match (&source.ordinal, &source.fingerprint) {
        (Some(_), _) if !ordinal.is_change() => Some(ORDINAL),
        (_, Some(_)) if !fingerprint.is_change() => Some(FINGERPRINT),
        _ => None,
    };
    let kept = kept.map(|name| kept_expression(flow, source, name)).transpose()?;
    declaring.store_view(source.id, &expressions, kept)?;
    let acting = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.source set ordinal = $2, fingerprint = $3 where id = $1",
        &[
            arg(source.id),
            arg(ordinal.text(&source.ordinal)),
            arg(fingerprint.text(&source.fingerprint)),
        ],
    )?;
    drop(acting);
    match ordinal.is_change() {
        true => compare_all(source),
        false => Ok(()),
    }
}

/// Returns an expression that stays as it was bound.
fn kept_expression(flow: &Flow, source: &Source, name: &'static str) -> Result<KeptExpression> {
    match &source.expressions {
        Some(expressions) => Ok(KeptExpression { view: expressions.bound.view, name }),
        None => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "the ordinal or fingerprint of source \"{}\" of flow \"{}\" reads an object that was dropped",
                source.name, flow.name
            ),
        )
        .hint(format!("Specify the argument \"{name}\", too."))),
    }
}

/// Deletes the ordinals of a source's items. The next update then compares the content of all items.
/// The caller holds the flow's lock.
pub fn compare_all(source: &Source) -> Result<()> {
    objects::forget_ordinals(source)?;
    let _as = RoleGuard::extension_owner()?;
    cursor::discard_cursor(source.id)
}

fn alter_capture(flow: &Flow, source: &Source, given: &str) -> Result<()> {
    let described = describe(source.relation, flow.owner, "source")?;
    let (shown, kind) = (&described.shown, &described.kind);
    let mode =
        capture_mode(source.relation, shown, kind, &source.by_captured().key, flow.owner, given)?;
    if mode == source.capture {
        return Ok(());
    }
    if mode == CaptureMode::Scan {
        keep_groups::check_may_have(flow, "a source whose changes are not captured")?;
    }
    let acting = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.source set capture = $2 where id = $1",
        &[arg(source.id), arg(mode.name())],
    )?;
    cursor::discard_cursor(source.id)?;
    drop(acting);
    match mode {
        CaptureMode::Scan => triggers::end_unneeded(flow.owner),
        // Blocks writers until the transaction ends, so the next update sees every change that the
        // log does not have.
        CaptureMode::Trigger | CaptureMode::Always => {
            let always = mode == CaptureMode::Always;
            triggers::ensure(source.relation, &source.captured_key(), always, true).map(drop)
        }
    }
}
