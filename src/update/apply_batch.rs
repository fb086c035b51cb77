//! Writing a batch to its targets, and its tracking rows, all in one transaction. For a target
//! outside this database that is its ledger and its outbox.
//!
//! The steps for each target, every one a single statement over the whole batch: evaluate into
//! `coco_output`; delete what an item no longer produces; refuse keys that are another item's;
//! update the rows that came out different; insert the new ones. Then the tracking rows.

use pgrx::pg_sys;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::catalog::model::{Column, Flow, Kept, Source, Target, all_equal, numbered};
use crate::catalog::target_table;
use crate::memo::session::Recalling;
use crate::memo::{evaluate_batch, result_uses};
use crate::outbox::ledger;
use crate::pg::acting_role::ActingAs;
use crate::pg::bulk_insert;
use crate::pg::error::{Error, Result};
use crate::pg::spi::literal;
use crate::pg::subtransaction::Raised;
use crate::pg::tuplestore::rows::{self, RowColumn, Rows};
use crate::pg::tuplestore::statements::Statements;
use crate::query::batch::{Action, Batch};
use crate::query::compose::{self, Items};
use crate::update::failure_rows::Refused;
use crate::update::{constraint_swaps, key_conflicts, tracking_rows};
use coco_core::counts::Counts;
use coco_core::decide::Mode;
use coco_core::memo::{FunctionId, Place};
use coco_core::version::LogicId;

/// How a batch is written.
#[derive(Clone, Copy)]
pub struct Writing {
    pub mode: Mode,
    pub logic: LogicId,
}

/// How rows that differ from those there come to be as they are produced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// They are updated where they are.
    InPlace,
    /// Those that change what another unique or exclusion constraint of the target tells apart are deleted first and
    /// inserted last: so rows can swap such a value.
    Displacing,
}

/// What becomes of a row that no item has, and one produces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unowned {
    /// The item is refused its key, as if it were another's.
    Refused,
    /// It is the item's from now on. To know that no item has it, all that is tracked is read.
    TakenOver,
}

/// How a batch is attempted.
#[derive(Clone, Copy)]
pub struct How<'a> {
    pub order: Order,
    pub unowned: Unowned,
    /// Set where items have target keys of which it cannot be told any more which rows they were.
    pub lost_keys: &'a Cell<bool>,
}

/// A target as the statements of one update see it.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    pub target: &'a Target,
    /// It was empty when the update began: nothing of an untracked item can be there, so that
    /// looking for it can be saved, where rows are found by the source key.
    pub fresh: bool,
}

/// Columns of `coco_output`: the item's key `i1…` and the query's `c1…`.
pub fn output_columns(source: &Source, target: &Target) -> Vec<RowColumn> {
    [rows::typed("i", &source.key), rows::typed("c", &target.columns)].concat()
}

/// The names that the composed statements use.
pub struct Names {
    /// Item key in the batch, in the output and in the tracking table.
    pub batch: Vec<String>,
    pub item: Vec<String>,
    pub tracking: Vec<String>,
    /// Target key in the output (`n.c2`), in the target (`x.id`) and among the old keys (`o.t1`).
    pub new_key: Vec<String>,
    pub target_key: Vec<String>,
    pub old_key: Vec<String>,
}

impl Names {
    pub fn new(source: &Source, target: &Target) -> Names {
        let output = |c: &Column| {
            let at = target.columns.iter().position(|t| t.name == c.name).unwrap_or(0);
            format!("n.c{}", at + 1)
        };
        Names {
            batch: numbered("b.k", source.key.len()),
            item: numbered("n.i", source.key.len()),
            tracking: compose::tracking_keys(source, "t"),
            new_key: target.key.iter().map(output).collect(),
            target_key: target.key.iter().map(|k| format!("x.{}", k.quoted())).collect(),
            old_key: numbered("o.t", target.key.len()),
        }
    }
}

/// A key as a list of texts: how target keys are kept in a tracking row.
pub fn key_text(names: &[String]) -> String {
    let texts: Vec<String> = names.iter().map(|n| format!("{n}::pg_catalog.text")).collect();
    format!("pg_catalog.jsonb_build_array({})", texts.join(", "))
}

/// The columns of a target's key, out of such a text. NULL where a value of that text there is none any more: labels of
/// enums, attributes of composites and names of objects may have changed since.
pub fn key_values(target: &Target, text: &str) -> Vec<String> {
    let value = |(n, k): (usize, &Column)| {
        let value = format!("(({text})::pg_catalog.jsonb operator(pg_catalog.->>) {n})");
        let (type_oid, type_name) = key_type(k);
        match is_lasting(type_oid) {
            true => format!("{value}::{type_name}"),
            false => format!(
                "case when pg_catalog.pg_input_is_valid({value}, {}) then {value}::{type_name} end",
                literal(type_name)
            ),
        }
    };
    target.key.iter().enumerate().map(value).collect()
}

/// A condition on such a text: all of its values are some still.
fn keys_are_valid(target: &Target, text: &str) -> String {
    let each = target.key.iter().enumerate().filter_map(|(n, k)| {
        let (type_oid, type_name) = key_type(k);
        let value = format!("(({text})::pg_catalog.jsonb operator(pg_catalog.->>) {n})");
        let name = literal(type_name);
        (!is_lasting(type_oid))
            .then(|| format!("pg_catalog.pg_input_is_valid({value}, {name}) and "))
    });
    each.collect()
}

/// The type that a text of a key is read as: what is there already need not fit what a domain demands now.
fn key_type(column: &Column) -> (pg_sys::Oid, &str) {
    match &column.kept {
        Kept::Base { type_oid, type_name } => (*type_oid, type_name),
        Kept::Same | Kept::Json => (column.type_oid, &column.type_name),
    }
}

/// Whether a text of the type stays one, whatever changes in the catalogs.
fn is_lasting(type_oid: pg_sys::Oid) -> bool {
    // PostgreSQL 15 cannot tell: there, such a text is an error.
    if cfg!(feature = "pg15") {
        return true;
    }
    let names_objects = [
        pg_sys::REGCLASSOID,
        pg_sys::REGPROCOID,
        pg_sys::REGPROCEDUREOID,
        pg_sys::REGOPEROID,
        pg_sys::REGOPERATOROID,
        pg_sys::REGTYPEOID,
        pg_sys::REGROLEOID,
        pg_sys::REGNAMESPACEOID,
        pg_sys::REGCOLLATIONOID,
        pg_sys::REGCONFIGOID,
        pg_sys::REGDICTIONARYOID,
    ];
    // SAFETY: a look-up of the system catalogs in a transaction.
    let element = unsafe { pg_sys::get_base_element_type(type_oid) };
    let parts = [type_oid, element];
    !parts.iter().any(|t| t.to_u32() >= pg_sys::FirstNormalObjectId || names_objects.contains(t))
}

/// Whether texts of a target's keys may have lost their values.
pub fn loses_keys(target: &Target) -> bool {
    target.covered.is_none() && target.key.iter().any(|k| !is_lasting(key_type(k).0))
}

/// Columns of `coco_old`: the item's key and the target keys it has there.
pub fn old_columns(source: &Source, target: &Target) -> Vec<RowColumn> {
    [rows::typed("i", &source.key), rows::typed("t", &target.key)].concat()
}

/// The target keys that the items of the batch have now, out of their tracking rows.
pub fn old_keys(source: &Source, target: &Target, names: &Names) -> String {
    let typed = key_values(target, "e.key");
    format!(
        "select {keys}, {typed}
           from coco_batch as b join {tracking} as t on {on}
          cross join lateral pg_catalog.jsonb_object_keys(t.target_keys operator(pg_catalog.->) '{id}'::pg_catalog.text) as e(key)
          where b.action operator(pg_catalog.<>) 'a'::pg_catalog.\"char\"",
        keys = names.batch.join(", "),
        typed = typed.join(", "),
        tracking = source.tracking_view,
        on = all_equal(&source.key, &names.tracking, &names.batch),
        id = target.id,
    )
}

/// `x` rows that belong to items of the batch and are no longer produced: `from … where …`.
pub fn obsolete(source: &Source, target: &Target, names: &Names) -> (String, String) {
    let kept = all_equal(&target.key, &names.new_key, &names.target_key);
    match &target.covered {
        Some(covered) => {
            let (from, own) = owned(source, covered, names);
            let left = format!(
                "{own} and b.action operator(pg_catalog.<>) 'a'::pg_catalog.\"char\"
                 and not exists (select from coco_output as n where {kept})"
            );
            (from, left)
        }
        None => {
            let on = all_equal(&target.key, &names.target_key, &names.old_key);
            // A row that passes to another item of the batch is updated, so that what refers to it stays.
            (
                "coco_old as o".to_owned(),
                format!("{on} and not exists (select from coco_output as n where {kept})"),
            )
        }
    }
}

/// The same, where all rows of the items that were evaluated are still produced.
fn removed(source: &Source, covered: &[String], names: &Names) -> (String, String) {
    let (from, own) = owned(source, covered, names);
    (from, format!("{own} and b.action operator(pg_catalog.=) 'r'::pg_catalog.\"char\""))
}

/// `x` rows that belong to items of the batch, where rows are found by the source key.
fn owned(source: &Source, covered: &[String], names: &Names) -> (String, String) {
    let columns: Vec<String> =
        covered.iter().map(|c| format!("x.{}", crate::pg::spi::ident(c))).collect();
    ("coco_batch as b".to_owned(), all_equal(&source.key, &columns, &names.batch))
}

/// Why a batch was not written: then nothing of it may be kept.
pub enum Stop {
    /// An item's data is at fault; which, is to be found.
    Raised(Raised),
    /// These items are refused a target key.
    Refused(Vec<Refused>),
    /// Rows of these items meet others under a constraint of a target, also where those that change are displaced.
    Conflicting(BTreeSet<usize>),
    /// It is to be written in parts.
    TooLarge,
    /// All went well, and was not to be kept.
    Undone,
    Flow(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Flow(error)
    }
}

/// What came of a batch.
pub struct Written {
    pub counts: Counts,
    /// What it added to the store of memoised results.
    pub stored: Vec<(Place, i64)>,
    /// Memoised results that its items rest on.
    pub calls: BTreeMap<FunctionId, i64>,
}

/// Writes a batch.
pub fn write(
    flow: &Flow,
    source: &Source,
    writers: &[Writer],
    batch: &mut Batch,
    writing: Writing,
    how: How,
    recalling: Option<&Rc<Recalling>>,
) -> std::result::Result<Written, Stop> {
    let statements = Statements::connect()?;
    statements.name("coco_batch", batch.rows())?;
    let mut counts = Counts::default();
    let mut listed: Vec<(i32, Rows)> = Vec::new();
    let any_evaluated = batch.items.iter().any(|i| i.action == Action::Evaluate);
    let any_tracked = batch.items.iter().any(|i| i.tracked);
    let version = batch.items.iter().map(|i| i.process_ordinal.0).max().unwrap_or(0);
    let items = if batch.carries { Items::Carried } else { Items::Batch };
    for (place, writer) in writers.iter().enumerate() {
        let target = writer.target;
        let names = Names::new(source, target);
        let mut columns = output_columns(source, target);
        let sql = compose::evaluate(flow, source, target, items)?;
        let output = match recalling {
            Some(recalling) if any_evaluated && !flow.memoised.is_empty() => {
                columns.push(RowColumn::new(compose::NUMBER, pg_sys::INT4OID));
                evaluate_batch::evaluate(recalling, &sql, &columns, batch, place)?
            }
            _ => {
                let mut output = Rows::new(&columns)?;
                if any_evaluated {
                    statements.select_into(&sql, &[], &mut output)?;
                }
                output
            }
        };
        let mut old = Rows::new(&old_columns(source, target))?;
        if target.covered.is_none() && any_tracked {
            statements.select_into(&old_keys(source, target, &names), &[], &mut old)?;
            if loses_keys(target) && has_nulls(&mut old, source.key.len(), target.key.len()) {
                how.lost_keys.set(true);
            }
        }
        let _by_key = ActingAs::finding_by_key()?;
        let inner = Statements::connect()?;
        inner.name("coco_batch", batch.rows())?;
        inner.name("coco_output", &output)?;
        if target.covered.is_none() {
            inner.name("coco_old", &old)?;
        }
        let first_time = writer.fresh && target.covered.is_some() && !any_tracked;
        // One row an item, and each has one: what is left over is of items that are gone.
        let evaluated = batch.items.iter().filter(|i| i.action == Action::Evaluate).count();
        let one_each = target.covered.is_some()
            && target.key.len() == source.key.len()
            && output.len() == evaluated;
        let nothing_left = one_each && !batch.items.iter().any(|i| i.action == Action::Remove);
        if !first_time && !nothing_left {
            let (using, condition) = match (one_each, &target.covered) {
                (true, Some(covered)) => removed(source, covered, &names),
                _ => obsolete(source, target, &names),
            };
            counts.deleted += match &target.external {
                Some(external) => {
                    ledger::delete(&inner, target, external, &using, &condition, version)?
                }
                None => inner.execute(
                    &format!(
                        "delete from {} as x using {using} where {condition}",
                        target.relation_name()
                    ),
                    &[],
                )?,
            };
        }
        if output.len() > 0 {
            let refused =
                key_conflicts::refused(&inner, flow, source, target, &names, how.unowned)?;
            if !refused.is_empty() {
                return Err(Stop::Refused(refused));
            }
            counts.upserted += match &target.external {
                Some(external) => {
                    let mode = writing.mode;
                    ledger::upsert(&inner, target, external, &names, mode, version)?
                }
                None if how.order == Order::Displacing => {
                    let displaced = constraint_swaps::upsert(
                        &inner,
                        source,
                        target,
                        &names,
                        &output,
                        writing.mode,
                    )?;
                    if !displaced.conflicting.is_empty() {
                        return Err(Stop::Conflicting(displaced.conflicting));
                    }
                    displaced.written
                }
                None => upsert(&inner, target, &names, &output, first_time, writing.mode)?,
            };
        }
        drop(inner);
        if target.covered.is_none() {
            listed.push((target.id, output));
        }
    }
    let used = match recalling {
        Some(recalling) => Some(result_uses::note_uses(recalling, source, batch, writers.len())?),
        None => None,
    };
    drop(statements);
    tracking_rows::track(source, writers, &listed, batch, writing, used.as_ref())?;
    counts.evaluated = batch.items.iter().filter(|i| i.action == Action::Evaluate).count() as i64;
    counts.unchanged = batch.items.iter().filter(|i| i.action == Action::Advance).count() as i64;
    let (stored, calls) = used.map(|used| (used.stored, used.calls)).unwrap_or_default();
    Ok(Written { counts, stored, calls })
}

/// Whether any value of so many columns from one on is NULL.
fn has_nulls(rows: &mut Rows, from: usize, many: usize) -> bool {
    let mut found = false;
    while !found && rows.advance() {
        found = (from..from + many).any(|c| rows.datum(c).is_none());
    }
    rows.rewind();
    found
}

/// Writes the rows of `coco_output` that are not there, or not as they are: those that differ, then those
/// that are missing, which are looked for only among those that the first step has not written.
fn upsert(
    statements: &Statements,
    target: &Target,
    names: &Names,
    output: &Rows,
    first_time: bool,
    mode: Mode,
) -> Result<i64> {
    let relation = target.relation_name();
    let values = numbered("n.c", target.columns.len());
    let insert: Vec<_> =
        target.columns.iter().map(|c| c.name.clone()).zip(values.iter().cloned()).collect();
    if first_time {
        return bulk_insert::insert(statements, &relation, &insert, "coco_output as n", &[]);
    }
    let same = all_equal(&target.key, &names.target_key, &names.new_key);
    let update = update_differing(target, names, mode);
    let missing = format!("not exists (select from {relation} as x where {same})");
    // A rule may do something else instead, of which nothing is returned.
    if target_table::has_rules(target) {
        let written = statements.execute(&update, &[])?;
        let from = format!("coco_output as n where {missing}");
        return Ok(written + bulk_insert::insert(statements, &relation, &insert, &from, &[])?);
    }
    let mut updated = Rows::new(&rows::typed("t", &target.key))?;
    let returning = format!("{update} returning {}", names.new_key.join(", "));
    let written = statements.query_into(&returning, &[], &mut updated)?;
    if updated.len() == output.len() {
        return Ok(written);
    }
    let inner = Statements::connect()?;
    inner.name("coco_output", output)?;
    inner.name("coco_updated", &updated)?;
    let known = all_equal(&target.key, &numbered("w.t", target.key.len()), &names.new_key);
    let from = format!(
        "coco_output as n
          where not exists (select from coco_updated as w where {known}) and {missing}"
    );
    Ok(written + bulk_insert::insert(&inner, &relation, &insert, &from, &[])?)
}

/// The UPDATE of target rows `x` that differ from those of `coco_output`.
pub fn update_differing(target: &Target, names: &Names, mode: Mode) -> String {
    let differs = match mode.carries_over() {
        true => format!(" and {}", differs(target)),
        false => String::new(),
    };
    let values = numbered("n.c", target.columns.len());
    let sets: Vec<String> =
        target.columns.iter().zip(&values).map(|(c, v)| format!("{} = {v}", c.quoted())).collect();
    format!(
        "update {} as x set {} from coco_output as n where {}{differs}",
        target.relation_name(),
        sets.join(", "),
        all_equal(&target.key, &names.target_key, &names.new_key),
    )
}

/// Whether `x` and `n` differ, byte for byte: also where a type has no equality (json), or where
/// equal values look different (1.0 and 1.00).
pub fn differs(target: &Target) -> String {
    if target.external.is_some() {
        return ledger::differs(&ledger::fingerprint(target, "n.c"));
    }
    differs_in(target, |_| true)
}

/// The same of some of the target's columns.
pub fn differs_in(target: &Target, takes: impl Fn(&Column) -> bool) -> String {
    let (old, new): (Vec<String>, Vec<String>) = target
        .columns
        .iter()
        .zip(numbered("n.c", target.columns.len()))
        .filter(|(column, _)| takes(column))
        .map(|(column, new)| (format!("x.{}", column.quoted()), new))
        .unzip();
    format!(
        "row({})::record operator(pg_catalog.*<>) row({})::record",
        old.join(", "),
        new.join(", ")
    )
}

/// For each target whose keys are listed: which failed items of the source wait for a key that is
/// free now, as the condition of a scan over their tracking rows `t`.
pub fn free_claims(writers: &[Writer]) -> Option<String> {
    let conditions: Vec<String> = writers
        .iter()
        .filter(|w| w.target.covered.is_none())
        .map(|w| {
            let claims = "t.failure operator(pg_catalog.->>) 'claims'";
            let typed = key_values(w.target, claims);
            let keys: Vec<String> =
                w.target.key.iter().map(|k| format!("x.{}", k.quoted())).collect();
            format!(
                "((t.failure operator(pg_catalog.->>) 'target') operator(pg_catalog.=) '{}'
                  and {}not exists (select from {} as x where {}))",
                w.target.id,
                // Of what is no key it is not known whether it is free: the item waits for its retry.
                keys_are_valid(w.target, claims),
                w.target.relation_name(),
                all_equal(&w.target.key, &keys, &typed),
            )
        })
        .collect();
    (!conditions.is_empty()).then(|| {
        format!(
            "(t.failure operator(pg_catalog.->>) 'claims') is not null and ({})",
            conditions.join(" or ")
        )
    })
}

/// What a NULL in the key of a lookup leads to: which items it affects is not known.
pub fn null_key(lookup: &Source) -> crate::pg::error::Error {
    crate::pg::error::Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        format!("lookup \"{}\" has a row whose key is NULL", lookup.name),
    )
    .hint(crate::update::failure_rows::NULL_KEY_HINT)
}
