//! The first fill: the targets of a flow out of all items of a source, where nothing is there yet.
//!
//! Nothing is to be found, compared, or decided about then. Each table is written by one statement over
//! the whole source, ledger and outbox of a target together, and its indexes are built afterwards. What fails is
//! undone, and left to an update that goes batch by batch: that finds out which items are at fault.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::catalog::model::{Flow, Source, Target};
use crate::catalog::{locks, target_table};
use crate::outbox::initial_load_buffer::{BufferedTarget, InitialLoadBuffer};
use crate::outbox::ledger::{self, Added};
use crate::pg::acting_role::RoleGuard;
use crate::pg::bulk_insert;
use crate::pg::bulk_insert::spec::{BulkTarget, IndexMaintenance, InsertRights};
use crate::pg::columns::numbered;
use crate::pg::deferred_indexes::{self, Written};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction::subtransaction;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::compose::{self, Items};
use crate::query::one_row_per_item;
use crate::update::candidate_sql;
use crate::update::target_writer::TargetWriter;
use coco_core::counts::Counts;
use coco_core::delivery::Ahead;
use coco_core::version::{LogicId, ProcessOrdinal};

/// Of a source of more bytes than that what is to be sent goes into the outbox: it would not be kept for long
/// enough.
const MAX_BUFFERED_BYTES: i64 = 1 << 30;

/// What takes rows of targets, by the targets' numbers, while others are evaluated.
pub type RowSinks = RefCell<HashMap<i32, Box<dyn Ahead>>>;

/// What was filled.
pub struct InitialLoadOutcome {
    pub counts: Counts,
    /// What this process is to send.
    pub held: Vec<InitialLoadBuffer>,
}

/// Why nothing was filled.
enum LoadError {
    Flow(Error),
    /// The data is at fault, or a table wants more than rows and index entries.
    Undone,
}

impl From<Error> for LoadError {
    fn from(error: Error) -> LoadError {
        LoadError::Flow(error)
    }
}

/// Fills the targets out of a source of which nothing is tracked; `None` where that is left to an update
/// by batches. Under the snapshot that is active; the caller acts as the flow's owner. `sends`: where this
/// process sends what is to be sent. `tell` hears of the items that are done, and how many there are.
pub fn initial_load(
    flow: &Flow,
    source: &Source,
    writers: &[TargetWriter],
    logic: LogicId,
    at: ProcessOrdinal,
    sends: Option<&RowSinks>,
    tell: impl Fn(i64, i64),
) -> Result<Option<InitialLoadOutcome>> {
    if !flow.memoised.is_empty() {
        return Ok(None);
    }
    let Some(bytes) = stored_bytes(source)? else { return Ok(None) };

    for writer in writers {
        if !writer.fresh || !fits_initial_load(writer.target)? {
            return Ok(None);
        }
    }
    let _as = RoleGuard::sharing_rows()?;
    let locks_pass = deferred_indexes::in_autocommit();
    let locked = RefCell::new(vec![]);
    let filled = subtransaction(
        || {
            let together = single_pass_target(flow, source, writers)?;
            let (mut to_index, mut held) = (vec![], vec![]);
            let mut items = None;
            let (mut done, steps) = (0, writers.len() as i64 + i64::from(together.is_none()));
            let mut tell = |items: Option<i64>| {
                done += 1;
                if let Some(items) = items {
                    tell(items * done / steps, items);
                }
            };
            if together.is_none() {
                let tracked = load_tracking(source, logic, at)?;
                items = Some(tracked.rows);
                tell(items);
                to_index.push(tracked);
            }
            let mut counts = Counts::default();
            for (n, writer) in writers.iter().enumerate() {
                // The lock outlives the transaction, with what is kept.
                let id = writer.target.id;
                let outlets = sends
                    .filter(|_| writer.target.external.is_some() && bytes <= MAX_BUFFERED_BYTES);
                let hold = match outlets {
                    Some(outlets) if locks::lock_target(id)? => {
                        locked.borrow_mut().push(id);
                        Some(BufferedTarget { ahead: outlets.borrow_mut().remove(&id) })
                    }
                    _ => None,
                };
                let tracked = together.as_ref().filter(|(first, _)| *first == n);
                let writing = match tracked {
                    Some((_, evaluated)) => LoadStatements {
                        evaluated: evaluated.clone(),
                        tracking: Some(tracking(source, "n.i", "n.ordinal", "n.content")),
                    },
                    None => LoadStatements {
                        evaluated: evaluated_sql(flow, source, writer.target)?,
                        tracking: None,
                    },
                };
                let added = load_target(flow, source, writer.target, writing, (at, logic), hold)?;
                if tracked.is_some() {
                    items = Some(added.rows);
                }
                tell(items);
                counts.upserted += added.rows;
                to_index.extend(added.written);
                held.extend(added.held);
            }
            let items = items.unwrap_or(0);
            (counts.seen, counts.evaluated) = (items, items);
            // Last of all: it can keep others from reading.
            for written in &to_index {
                held.iter_mut().for_each(InitialLoadBuffer::feed);
                if !deferred_indexes::add_entries(written, locks_pass)? {
                    return Err(LoadError::Undone);
                }
            }
            held.iter_mut().for_each(InitialLoadBuffer::end_feed);
            // What took long is not to be lost with this process.
            let (over, held): (Vec<InitialLoadBuffer>, _) =
                held.into_iter().partition(InitialLoadBuffer::is_over);
            for held in over {
                let target = flow.targets.iter().find(|target| target.id == held.target);
                if let Some((target, external)) =
                    target.and_then(|t| Some((t, t.external.as_ref()?)))
                {
                    held.queue(flow, target, external, None)?;
                }
            }
            Ok(InitialLoadOutcome { counts, held })
        },
        // Whatever it is, it is found again, and recorded for the items that it is about.
        |_| LoadError::Undone,
    );
    let kept = filled.as_ref().map_or(&[][..], |filled| &filled.held);
    for target in locked.into_inner() {
        if kept.iter().all(|held| held.target != target) {
            locks::unlock_target(target)?;
        }
    }
    match filled {
        Ok(filled) => Ok(Some(filled)),
        Err(LoadError::Undone) => Ok(None),
        Err(LoadError::Flow(error)) => Err(error),
    }
}

/// The size of a source in bytes, where all of it is read as of the snapshot, however often: a view may compute its
/// rows, and a foreign table's are elsewhere. What is tracked would not be what was evaluated.
fn stored_bytes(source: &Source) -> Result<Option<i64>> {
    let _as = RoleGuard::qualifying_names()?;
    spi::scalar::<i64>(
        "with recursive part(relation) as (
           select $1::oid
           union all
           select i.inhrelid from part join pg_catalog.pg_inherits i on i.inhparent = relation)
         select sum(pg_table_size(relation))::int8
           from part join pg_catalog.pg_class c on c.oid = relation
         having bool_and(c.relkind in ('r', 'p', 'm'))",
        &[arg(source.relation)],
    )
}

/// Whether a target takes rows as they come: those of two items cannot meet there, and those of one not
/// unnoticed.
fn fits_initial_load(target: &Target) -> Result<bool> {
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
        && bulk_insert::supports_bulk_insert(
            &target.relation_name(),
            &columns(target),
            InsertRights::Caller,
        )?)
}

/// A target's columns, and where their values are.
fn columns(target: &Target) -> Vec<(String, String)> {
    let values = numbered("n.c", target.columns.len());
    target.columns.iter().map(|c| c.name.clone()).zip(values).collect()
}

/// What coco did not make is not to be locked.
fn index_maintenance(target: &Target) -> IndexMaintenance {
    match target.made {
        true => IndexMaintenance::Later,
        false => IndexMaintenance::AtOnce,
    }
}

/// The first of the targets that gets a row for each item, with what is to be evaluated for that: it can be written
/// together with what is tracked of the items, so that all is read once.
fn single_pass_target(
    flow: &Flow,
    source: &Source,
    writers: &[TargetWriter],
) -> Result<Option<(usize, String)>> {
    for (n, writer) in writers.iter().enumerate() {
        let Some(query) = &writer.target.bound else { continue };
        if one_row_per_item::of_each(query, source)? {
            return Ok(Some((n, compose::evaluate_tracked(flow, source, writer.target)?)));
        }
    }
    Ok(None)
}

/// The columns of tracking rows, and where their values are; `$1` and `$2` are the process ordinal and the logic.
fn tracking(source: &Source, key: &str, ordinal: &str, content: &str) -> Vec<(String, String)> {
    let keys = numbered("k", source.key.len()).into_iter().zip(numbered(key, source.key.len()));
    let rest = [
        ("source_ordinal", ordinal),
        ("process_ordinal", "$1"),
        ("content_fingerprint", content),
        ("logic_id", "$2"),
    ];
    keys.chain(rest.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

/// Writes the tracking rows of all items.
fn load_tracking(
    source: &Source,
    logic: LogicId,
    at: ProcessOrdinal,
) -> std::result::Result<Written, LoadError> {
    let columns = tracking(source, "s.k", "s.ordinal", "s.fingerprint");
    let from = format!("({}) as s", candidate_sql::all_items_sql(source));
    let args = [arg(at.0), arg(logic.0)];
    let filling = BulkTarget::of_own(&source.tracking, &columns);
    let rows = bulk_insert::fill(&statements()?, &[filling], None, &from, &args)?
        .ok_or(LoadError::Undone)?;
    Ok(Written::new(&filling, rows))
}

/// The rows of a target of all items, as a SELECT.
fn evaluated_sql(flow: &Flow, source: &Source, target: &Target) -> Result<String> {
    match compose::single_pass_sql(flow, source, target)? {
        Some(at_once) => Ok(at_once),
        None => compose::evaluate(flow, source, target, Items::All),
    }
}

/// What is written of all items at once.
struct LoadStatements {
    /// The rows of a target, as a SELECT.
    evaluated: String,
    /// The columns of tracking rows, where it has them too.
    tracking: Option<Vec<(String, String)>>,
}

/// Evaluates all items, and writes the rows of a target, and what is tracked with them.
fn load_target(
    flow: &Flow,
    source: &Source,
    target: &Target,
    writing: LoadStatements,
    (at, logic): (ProcessOrdinal, LogicId),
    hold: Option<BufferedTarget>,
) -> std::result::Result<Added, LoadError> {
    let LoadStatements { evaluated, tracking } = writing;
    let statements = statements()?;
    let args = [arg(at.0), arg(logic.0)];
    let also = tracking.as_ref().map(|columns| BulkTarget::of_own(&source.tracking, columns));
    let mut added = match &target.external {
        Some(external) => {
            let from = (evaluated.as_str(), &args[..]);
            ledger::add_all(&statements, flow, target, external, from, also, hold)?
        }
        None => {
            let (table, columns) = (target.relation_name(), columns(target));
            let filling = BulkTarget {
                entries: index_maintenance(target),
                ..BulkTarget::new(&table, &columns)
            };
            let tables: Vec<BulkTarget> = [Some(filling), also].into_iter().flatten().collect();
            let from = format!("({evaluated}) as n");
            bulk_insert::fill(&statements, &tables, None, &from, &args)?.map(|rows| {
                let later = filling.entries == IndexMaintenance::Later;
                let written = later.then(|| Written::new(&filling, rows));
                Added { rows, written: written.into_iter().collect(), held: None }
            })
        }
    }
    .ok_or(LoadError::Undone)?;
    let rows = added.rows;
    added.written.extend(also.map(|filling| Written::new(&filling, rows)));
    Ok(added)
}

fn statements() -> Result<SpiSession> {
    let statements = SpiSession::connect()?;
    statements.reads_many();
    Ok(statements)
}
