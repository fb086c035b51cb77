//! `aggregate`: whether coco keeps the groups of a flow by deltas. Checks that it can, and creates the
//! tables and views.

use pgrx::PgSqlErrorCode;

use crate::capture::{cursor, triggers};
use crate::catalog::group_tables::{self, NewGroups};
use crate::catalog::internal_tables;
use crate::catalog::model::{CaptureMode, Flow, Source};
use crate::memo::called_functions;
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{self, Column};
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::relations;
use crate::pg::spi::{self, arg};
use crate::query::group_parts::{self, GroupParts};
use crate::query::group_rules::{self, ShapedGroups, cannot_keep};
use crate::query::{used_columns, view_tree};

/// How coco computes the groups of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateMode {
    /// It evaluates a changed group as a whole.
    Group,
    /// It keeps what each row contributes, and adds differences to the state of the group.
    Delta,
}

impl AggregateMode {
    /// Reads the argument `aggregate`.
    pub fn from_argument(text: &str) -> Result<AggregateMode> {
        match text {
            "group" => Ok(AggregateMode::Group),
            "delta" => Ok(AggregateMode::Delta),
            _ => Err(Error::invalid(format!(
                "unrecognized value for argument \"aggregate\": \"{text}\""
            ))
            .hint("Valid values are delta and group.")),
        }
    }

    pub fn of_flow(flow: &Flow) -> AggregateMode {
        if flow.keeps_groups { AggregateMode::Delta } else { AggregateMode::Group }
    }

    pub fn name(self) -> &'static str {
        match self {
            AggregateMode::Group => "group",
            AggregateMode::Delta => "delta",
        }
    }
}

/// Stores how coco computes the groups of a flow that has no source yet.
pub fn store_aggregate(flow: &str, mode: AggregateMode) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.flow set aggregate = $2 where flow = $1",
        &[arg(flow), arg(mode.name())],
    )?;
    Ok(())
}

/// Fails if a flow keeps groups by deltas, because a change would give it a part that it cannot have.
pub fn check_may_have(flow: &Flow, what: &str) -> Result<()> {
    match flow.keeps_groups {
        true => Err(cannot_keep(format!("flow \"{}\" would have {what}", flow.name))),
        false => Ok(()),
    }
}

/// Returns why coco cannot keep the groups of a flow by deltas; `None` if it can.
pub fn reason_against(flow: &Flow) -> Result<Option<String>> {
    match check_groups(flow) {
        Ok(_) => Ok(None),
        Err(error) if error.code == PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED => {
            let message = error.message.strip_prefix(group_rules::CANNOT_KEEP).map(str::to_owned);
            Ok(Some(message.unwrap_or(error.message)))
        }
        Err(error) => Err(error),
    }
}

/// The groups of a flow that coco can keep by deltas.
struct CheckedGroups<'a> {
    source: &'a Source,
    row_key: Vec<Column>,
    row_key_numbers: Vec<i16>,
    key_places: Vec<usize>,
    parts: GroupParts,
    shaped: ShapedGroups,
}

/// Fails (0A000) if coco cannot keep the groups of a flow by deltas.
fn check_groups(flow: &Flow) -> Result<CheckedGroups<'_>> {
    let ([source], [], [target]) =
        (flow.sources.as_slice(), flow.lookups.as_slice(), flow.targets.as_slice())
    else {
        return Err(cannot_keep("the flow has several sources or targets, or a lookup"));
    };
    let view =
        target.query_view().ok_or_else(|| Error::internal("the query of a target is not bound"))?;
    check_source(source)?;
    if !called_functions::called_functions(&[view])?.is_empty() {
        return Err(cannot_keep("the query calls a memoized function"));
    }
    let row_key = row_key(source)?;
    let numbers = columns::numbers(source.relation)?;
    let numbers_of = |columns: &[Column]| -> Vec<i16> {
        let number = |k: &Column| numbers.iter().find(|(_, name)| *name == k.name).map(|(n, _)| *n);
        columns.iter().filter_map(number).collect()
    };
    let tree = view_tree::copy_for_view(view)?;
    // SAFETY: the tree is a copy that nobody else refers to.
    let parts = unsafe { group_parts::take_apart(tree, source.relation)? };
    let key_places = parts.places_of_key(&used_columns::shadow(source)?).ok_or_else(|| {
        cannot_keep("the query does not group by exactly the columns of the source key")
    })?;
    let differs = |k: &&Column| !group_rules::has_one_form(k.type_oid, k.typmod, k.collation);
    if let Some(k) = source.key.iter().find(differs) {
        return Err(cannot_keep(format!(
            "the query groups by {}, and equal values of type {} can differ",
            k.quoted(),
            k.type_name
        )));
    }
    let shaped = parts.shape()?;
    let row_key_numbers = numbers_of(&row_key);
    Ok(CheckedGroups { source, row_key, row_key_numbers, key_places, parts, shaped })
}

/// Creates the tables and views of the groups of a flow whose only target has just got its query. The
/// caller holds the flow's lock.
pub fn make_groups(flow: &Flow) -> Result<()> {
    let CheckedGroups { source, row_key, row_key_numbers, key_places, parts, shaped } =
        check_groups(flow)?;
    let shape = shaped.shape.clone();
    // SAFETY: the numbers are those of columns of the source.
    let rows = unsafe { parts.row_part(shaped, &row_key_numbers, &key_places)? };
    group_tables::create_groups(&NewGroups {
        flow: &flow.name,
        owner: flow.owner,
        source,
        row_key: &row_key,
        shape: &shape,
        rows: rows.tree,
        columns: &rows.columns,
    })?;
    let captured = Source { row_key, ..source.clone() }.captured_key();
    triggers::ensure(source.relation, &captured, source.capture == CaptureMode::Always, true)?;
    let _as = RoleGuard::extension_owner()?;
    // The tables are empty: the next update reads the whole source.
    cursor::discard_cursor(source.id)?;
    invalidation::note_change()
}

/// Fails if coco cannot follow the rows of a source.
fn check_source(source: &Source) -> Result<()> {
    if source.capture == CaptureMode::Scan {
        return Err(cannot_keep(format!("changes of {} are not captured", source.relation_name))
            .hint("Declare the source with capture => 'trigger', or the flow without aggregate => 'delta'."));
    }
    if source.fingerprint.is_some() {
        return Err(cannot_keep("the source has a fingerprint"));
    }
    match source.grouped {
        true => Ok(()),
        false => Err(cannot_keep("an item of the source is a row, and not a group")),
    }
}

/// Returns the columns that identify a row of a source, as coco stores them.
fn row_key(source: &Source) -> Result<Vec<Column>> {
    let shown = &source.relation_name;
    let primary = relations::primary_key_numbers(source.relation)?;
    if primary.is_empty() {
        return Err(cannot_keep(format!("{shown} has no primary key")).hint(format!(
            "Run ALTER TABLE {shown} ADD PRIMARY KEY (…), or declare the flow without aggregate => 'delta'."
        )));
    }
    let numbers = columns::numbers(source.relation)?;
    let attributes = columns::of_relation(source.relation)?;
    let column = |number: &i16| {
        let (_, name) = numbers.iter().find(|(n, _)| n == number)?;
        attributes.iter().map(|a| &a.column).find(|c| c.name == *name).cloned()
    };
    let key: Vec<Column> = primary.iter().filter_map(column).collect();
    internal_tables::check_source_key(shown, &key)?;
    Ok(columns::stored(&key))
}
