//! The first fill: the targets of a flow out of all items of a source, where nothing is there yet.
//!
//! Nothing is to be found, compared, or decided about then. Each table is written by one statement over
//! the whole source, ledger and outbox of a target together, and its indexes are built afterwards. What fails is
//! undone, and left to an update that goes batch by batch: that finds out which items are at fault.

use super::apply::Writer;
use super::bulk::{self, Entries, Filling};
use super::compose::{self, Items};
use super::detect;
use super::error::{Error, Result};
use super::external::ledger;
use super::indexes::{self, Written};
use super::model::{Flow, Source, Target, numbered};
use super::role::ActingAs;
use super::sql::{self, arg};
use super::subtransaction::subtransaction;
use super::target_table;
use super::tuples::Statements;
use crate::engine::counts::Counts;
use crate::engine::version::{LogicId, ProcessOrdinal};

/// Why nothing was filled.
enum Stop {
    Flow(Error),
    /// The data is at fault, or a table wants more than rows and index entries.
    Undone,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Flow(error)
    }
}

/// Fills the targets out of a source of which nothing is tracked; `None` where that is left to an update
/// by batches. Under the snapshot that is active; the caller acts as the flow's owner. `tell` hears
/// of the items that are done, and how many there are.
pub fn fill(
    flow: &Flow,
    source: &Source,
    writers: &[Writer],
    logic: LogicId,
    at: ProcessOrdinal,
    tell: impl Fn(i64, i64),
) -> Result<Option<Counts>> {
    if !flow.memoised.is_empty() || !is_stored(source)? {
        return Ok(None);
    }
    for writer in writers {
        if !writer.fresh || !fits(writer.target)? {
            return Ok(None);
        }
    }
    let locks_pass = indexes::locks_pass();
    let filled = subtransaction(
        || {
            let tracked = track(source, logic, at)?;
            let items = tracked.rows;
            let mut counts = Counts { seen: items, evaluated: items, ..Counts::default() };
            let steps = writers.len() as i64 + 1;
            tell(items / steps, items);
            let mut to_index = vec![tracked];
            for (n, writer) in writers.iter().enumerate() {
                let (rows, written) = write(flow, source, writer.target, at)?;
                counts.upserted += rows;
                to_index.extend(written);
                tell(items * (n as i64 + 2) / steps, items);
            }
            // Last of all: it can keep others from reading.
            for written in &to_index {
                if !indexes::add_entries(written, locks_pass)? {
                    return Err(Stop::Undone);
                }
            }
            Ok(counts)
        },
        // Whatever it is, it is found again, and recorded for the items that it is about.
        |_| Stop::Undone,
    );
    match filled {
        Ok(counts) => Ok(Some(counts)),
        Err(Stop::Undone) => Ok(None),
        Err(Stop::Flow(error)) => Err(error),
    }
}

/// Whether all of a source is read as of the snapshot, however often: a view may compute its rows, and a foreign
/// table's are elsewhere. What is tracked would not be what was evaluated.
fn is_stored(source: &Source) -> Result<bool> {
    let _as = ActingAs::qualifying_names()?;
    let stored = sql::one::<bool>(
        "with recursive part(relation) as (
           select $1::oid
           union all
           select i.inhrelid from part join pg_catalog.pg_inherits i on i.inhparent = relation)
         select bool_and(c.relkind in ('r', 'p', 'm'))
           from part join pg_catalog.pg_class c on c.oid = relation",
        &[arg(source.relation)],
    )?;
    Ok(stored == Some(true))
}

/// Whether a target takes rows as they come: those of two items cannot meet there, and those of one not
/// unnoticed.
fn fits(target: &Target) -> Result<bool> {
    let Some(relation) = target.relation.filter(|_| target.covered.is_some()) else {
        return Ok(false);
    };
    let takes_all = match &target.external {
        Some(external) => ledger::takes_all(target, external)?,
        None => takes_rows(target)?,
    };
    Ok(takes_all && target_table::refuses_keys_twice(relation, &target.key)?)
}

/// Whether to write to a target is to write rows and index entries, and each row is one item's from the start.
pub fn takes_rows(target: &Target) -> Result<bool> {
    Ok(target.relation.is_some()
        && target.covered.is_some()
        && target.external.is_none()
        && bulk::is_fit(&target.relation_name(), &columns(target))?)
}

/// A target's columns, and where their values are.
fn columns(target: &Target) -> Vec<(String, String)> {
    let values = numbered("n.c", target.columns.len());
    target.columns.iter().map(|c| c.name.clone()).zip(values).collect()
}

/// What coco did not make is not to be locked.
fn entries(target: &Target) -> Entries {
    match target.made {
        true => Entries::Later,
        false => Entries::AtOnce,
    }
}

/// Writes the tracking rows of all items.
fn track(
    source: &Source,
    logic: LogicId,
    at: ProcessOrdinal,
) -> std::result::Result<Written, Stop> {
    let keys = numbered("k", source.key.len());
    let mut columns: Vec<(String, String)> =
        keys.iter().map(|k| (k.clone(), format!("s.{k}"))).collect();
    let rest = [
        ("source_ordinal", "s.ordinal"),
        ("process_ordinal", "$1"),
        ("content_fingerprint", "s.fingerprint"),
        ("logic_id", "$2"),
    ];
    columns.extend(rest.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let from = format!("({}) as s", detect::all(source));
    let args = [arg(at.0), arg(logic.0)];
    let filling = Filling {
        table: &source.tracking,
        columns: &columns,
        entries: Entries::Later,
        counted: None,
    };
    let rows = bulk::fill(&statements()?, &[filling], &from, &args)?.ok_or(Stop::Undone)?;
    Ok(Written::new(source.tracking.clone(), rows, columns))
}

/// Evaluates all items, and writes the rows of a target; returns how many, and which tables lack index entries.
fn write(
    flow: &Flow,
    source: &Source,
    target: &Target,
    at: ProcessOrdinal,
) -> std::result::Result<(i64, Vec<Written>), Stop> {
    let evaluated = compose::evaluate(flow, source, target, Items::All);
    let statements = statements()?;
    if let Some(external) = &target.external {
        let written = ledger::add_all(&statements, target, external, &evaluated, at.0)?;
        let written = written.ok_or(Stop::Undone)?;
        return Ok((written[0].rows, written.into()));
    }
    let (table, columns, entries) = (target.relation_name(), columns(target), entries(target));
    let filling = Filling { table: &table, columns: &columns, entries, counted: None };
    let rows = bulk::fill(&statements, &[filling], &format!("({evaluated}) as n"), &[])?
        .ok_or(Stop::Undone)?;
    let later = (entries == Entries::Later).then(|| Written::new(table, rows, columns));
    Ok((rows, later.into_iter().collect()))
}

/// Rows are written while they are read: by functions of constraints and indexes, too, which need not be fit
/// for several processes.
fn statements() -> Result<Statements> {
    let statements = Statements::connect()?;
    statements.reads_many();
    statements.by_one_process();
    Ok(statements)
}
