//! The initial load: fills the empty targets of a flow from all items of a source.
//!
//! coco need not find changes, compare or decide. One statement over the whole source writes each
//! table, or the ledger and the outbox of a target together, and coco builds the indexes
//! afterwards. If the load fails, or an expectation makes an item fail, coco undoes the load and
//! leaves it to an update by batches, which finds the items that cause the error. Rows that an
//! expectation parks are set aside by the same statement.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::catalog::locks::DeliveryLock;
use crate::catalog::model::{Flow, Source, Target};
use crate::catalog::target_table;
use crate::outbox::initial_load_buffer::{BufferedTarget, InitialLoadBuffer};
use crate::outbox::ledger::{self, Added};
use crate::pg::acting_role::RoleGuard;
use crate::pg::bulk_insert;
use crate::pg::bulk_insert::spec::{
    BulkTarget, FillingRows, IndexMaintenance, InsertRights, TakenRows,
};
use crate::pg::columns::numbered;
use crate::pg::deferred_indexes::{self, Written};
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, Arg, arg};
use crate::pg::subtransaction::subtransaction;
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::compose::{self, Items};
use crate::query::expected_rows;
use crate::query::one_row_per_item;
use crate::update::candidate_sql;
use crate::update::set_aside::{self, SetAside};
use crate::update::target_writer::TargetWriter;
use coco_core::change::RowSink;
use coco_core::counts::Counts;
use coco_core::expectation::RowTally;
use coco_core::version::{LogicId, ProcessOrdinal};

/// The largest source, in bytes, of which this process delivers the rows itself. A larger load
/// takes too long to keep its rows only in memory, so they go into the outbox.
const MAX_BUFFERED_BYTES: i64 = 1 << 30;

/// Sinks that take the rows of external targets, by the targets' ids, while coco evaluates others.
pub type RowSinks = RefCell<HashMap<i32, Box<dyn RowSink>>>;

/// The result of an initial load.
pub struct InitialLoadOutcome {
    pub counts: Counts,
    /// The rows that this process delivers.
    pub held: Vec<InitialLoadBuffer>,
    /// The rows that were checked against expectations.
    pub tally: RowTally,
}

/// Why an initial load has written nothing.
enum LoadError {
    Flow(Error),
    /// The data caused an error, or writing to a table does more than write rows and index entries.
    Undone,
}

impl From<Error> for LoadError {
    fn from(error: Error) -> LoadError {
        LoadError::Flow(error)
    }
}

type LoadResult<T> = std::result::Result<T, LoadError>;

/// An initial load of all targets of a flow from one source, of which coco tracks no item.
pub struct InitialLoad<'a> {
    pub flow: &'a Flow,
    pub source: &'a Source,
    pub writers: &'a [TargetWriter<'a>],
    pub logic: LogicId,
    pub at: ProcessOrdinal,
    /// The sinks of targets to which this process delivers rows itself.
    pub sends: Option<&'a RowSinks>,
}

/// Reports progress after each statement of an initial load.
struct LoadProgress<'a> {
    report: &'a dyn Fn(i64, i64),
    done: i64,
    steps: i64,
}

impl LoadProgress<'_> {
    /// Reports that one more statement is done. The number of items is not known at first.
    fn step(&mut self, items: Option<i64>) {
        self.done += 1;
        if let Some(items) = items {
            (self.report)(items * self.done / self.steps, items);
        }
    }
}

impl InitialLoad<'_> {
    /// Fills the targets. Returns `None` if the load is left to an update by batches. Reads under
    /// the active snapshot; the caller acts as the flow's owner. `report` receives the number of
    /// processed items, and of all items.
    pub fn run(&self, report: impl Fn(i64, i64)) -> Result<Option<InitialLoadOutcome>> {
        if !self.flow.memoized.is_empty() {
            return Ok(None);
        }
        let Some(bytes) = stored_bytes(self.source)? else { return Ok(None) };
        for writer in self.writers {
            if !writer.fresh || !fits_initial_load(writer.target)? {
                return Ok(None);
            }
        }
        let _as = RoleGuard::sharing_rows()?;
        let locks_pass = deferred_indexes::in_autocommit();
        let loaded = subtransaction(
            || self.load_all(bytes, locks_pass, &report),
            // The update by batches raises the error again, and records it for its items.
            |_| LoadError::Undone,
        );
        match loaded {
            Ok(loaded) => Ok(Some(loaded)),
            Err(LoadError::Undone) => Ok(None),
            Err(LoadError::Flow(error)) => Err(error),
        }
    }

    /// Writes all rows, then all index entries.
    fn load_all(
        &self,
        bytes: i64,
        locks_pass: bool,
        report: &dyn Fn(i64, i64),
    ) -> LoadResult<InitialLoadOutcome> {
        let single_pass = self.single_pass_target()?;
        let steps = self.writers.len() as i64 + i64::from(single_pass.is_none());
        let mut progress = LoadProgress { report, done: 0, steps };
        let (mut to_index, mut held) = (vec![], vec![]);
        let mut counts = Counts::default();
        let mut items = None;
        let mut tally = RowTally::new();
        let mut aside = vec![];
        // Tracking rows list the parked rows of their items, so they come after these are known.
        let tracks_last = single_pass.is_none()
            && self.writers.iter().any(|writer| set_aside::parks_rows(writer.target));
        if single_pass.is_none() && !tracks_last {
            let tracked = self.load_tracking(&[])?;
            items = Some(tracked.rows);
            progress.step(items);
            to_index.push(tracked);
        }
        for (n, writer) in self.writers.iter().enumerate() {
            let target = writer.target;
            let buffer = self.buffer_of(target, bytes)?;
            let with_tracking = single_pass.as_ref().filter(|first| first.place == n);
            let writing = match with_tracking {
                Some(first) => {
                    let mut columns = tracking(self.source, "n.i", "n.ordinal", "n.content");
                    let parked = set_aside::parked_of_row_sql(self.source, target);
                    columns.extend(parked.map(|parked| ("parked".to_owned(), parked)));
                    LoadStatements { evaluated: first.evaluated.clone(), tracking: Some(columns) }
                }
                None => LoadStatements { evaluated: self.evaluated_sql(target)?, tracking: None },
            };
            let mut set = SetAside::new(self.source, target, &item_key(self.source, target))?;
            let added = self.load_target(target, writing, set.as_mut(), buffer)?;
            if with_tracking.is_some() {
                items = Some(added.rows.all);
            }
            progress.step(items);
            for expectation in &target.expectations {
                tally.entry(expectation.id).or_default().checked += added.rows.all;
            }
            if let Some(set) = &mut set {
                set.count(added.rows.all, &mut tally)?;
            }
            counts.upserted += added.rows.kept;
            to_index.extend(added.written);
            held.extend(added.held);
            aside.extend(set);
        }
        if tracks_last {
            let tracked = self.load_tracking(&aside)?;
            items = Some(tracked.rows);
            progress.step(items);
            to_index.push(tracked);
        }
        counts.seen = items.unwrap_or(0);
        counts.evaluated = counts.seen;
        add_index_entries(&to_index, &mut held, locks_pass)?;
        let held = self.queue_finished(held)?;
        Ok(InitialLoadOutcome { counts, held, tally })
    }

    /// Returns the buffer of a target to which this process delivers rows itself. Locks such a
    /// target; with the buffer, the lock outlives the transaction.
    fn buffer_of(&self, target: &Target, bytes: i64) -> Result<Option<BufferedTarget>> {
        let fits = target.external.is_some() && bytes <= MAX_BUFFERED_BYTES;
        let Some(sends) = self.sends.filter(|_| fits) else { return Ok(None) };
        let lock = DeliveryLock::acquire_if_free(target.id)?;
        Ok(lock.map(|lock| {
            let ahead = sends.borrow_mut().remove(&target.id);
            BufferedTarget { lock, ahead }
        }))
    }

    /// Puts the rows of buffers that took too long into the outbox, so that they are not lost with
    /// this process. Returns the other buffers.
    fn queue_finished(&self, held: Vec<InitialLoadBuffer>) -> Result<Vec<InitialLoadBuffer>> {
        let (over, held): (Vec<InitialLoadBuffer>, _) =
            held.into_iter().partition(InitialLoadBuffer::is_over);
        for buffer in over {
            let target = self.flow.targets.iter().find(|target| target.id == buffer.target);
            if let Some((target, external)) = target.and_then(|t| Some((t, t.external.as_ref()?))) {
                buffer.queue(self.flow, target, external, None)?;
            }
        }
        Ok(held)
    }

    /// Returns the first target that gets one row for each item. One statement can write this
    /// target and the tracking rows, so that coco reads the source once. The tracking rows then list
    /// no parked rows of other targets.
    fn single_pass_target(&self) -> Result<Option<SinglePassTarget>> {
        for (place, writer) in self.writers.iter().enumerate() {
            let mut others = self.writers.iter().enumerate().filter(|(n, _)| *n != place);
            if others.any(|(_, other)| set_aside::parks_rows(other.target)) {
                continue;
            }
            let Some(query) = &writer.target.bound else { continue };
            if one_row_per_item::of_each(query, self.source)? {
                let evaluated = compose::evaluate_tracked(self.flow, self.source, writer.target)?;
                let evaluated = expected_rows::evaluate_at_once(writer.target, evaluated)?;
                return Ok(Some(SinglePassTarget { place, evaluated }));
            }
        }
        Ok(None)
    }

    /// Returns the values of `$1` and `$2` in the statements: the process ordinal and the logic.
    fn args(&self) -> [Arg<'static>; 2] {
        [arg(self.at.0), arg(self.logic.0)]
    }

    /// Writes the tracking rows of all items, with the parked rows among those set aside.
    fn load_tracking(&self, aside: &[SetAside]) -> LoadResult<Written> {
        let statements = statements()?;
        let mut columns = tracking(self.source, "s.k", "s.ordinal", "s.fingerprint");
        let mut from = format!("({}) as s", candidate_sql::all_items_sql(self.source));
        if let Some(lists) = set_aside::join_parked(&statements, self.source, aside)? {
            from.push_str(&lists.joins);
            columns.push(("parked".to_owned(), lists.parked));
        }
        let filling = BulkTarget::of_own(&self.source.tracking, &columns);
        let rows = FillingRows { from: &from, args: &self.args(), aside: None };
        let rows = bulk_insert::fill(&statements, &[filling], None, rows)?;
        Ok(Written::new(&filling, rows.ok_or(LoadError::Undone)?.all))
    }

    /// Returns a SELECT of the target's rows of all items.
    fn evaluated_sql(&self, target: &Target) -> Result<String> {
        let (flow, source) = (self.flow, self.source);
        let evaluated = match compose::single_pass_sql(flow, source, target)? {
            Some(at_once) => at_once,
            None => compose::evaluate(flow, source, target, Items::All)?,
        };
        expected_rows::evaluate_at_once(target, evaluated)
    }

    /// Evaluates all items, and writes the rows of a target, and the tracking rows with them. Rows
    /// that do not satisfy an expectation go to `set`.
    fn load_target(
        &self,
        target: &Target,
        writing: LoadStatements,
        set: Option<&mut SetAside>,
        buffer: Option<BufferedTarget>,
    ) -> LoadResult<Added> {
        let LoadStatements { evaluated, tracking } = writing;
        let statements = statements()?;
        let args = self.args();
        let aside = set.map(SetAside::receiver);
        let tracking = tracking.as_ref().map(|columns| BulkTarget {
            takes: TakenRows::All,
            ..BulkTarget::of_own(&self.source.tracking, columns)
        });
        let mut added = match &target.external {
            Some(external) => {
                let rows = FillingRows { from: &evaluated, args: &args, aside };
                ledger::add_all(&statements, self.flow, target, external, rows, tracking, buffer)?
            }
            None => {
                let (table, columns) = (target.relation_name(), columns(target));
                let filling = BulkTarget {
                    entries: index_maintenance(target),
                    ..BulkTarget::new(&table, &columns)
                };
                let tables: Vec<BulkTarget> =
                    [Some(filling), tracking].into_iter().flatten().collect();
                let from = format!("({evaluated}) as n");
                let rows = FillingRows { from: &from, args: &args, aside };
                bulk_insert::fill(&statements, &tables, None, rows)?.map(|rows| {
                    let later = filling.entries == IndexMaintenance::Later;
                    let written = later.then(|| Written::new(&filling, rows.kept));
                    Added { rows, written: written.into_iter().collect(), held: None }
                })
            }
        }
        .ok_or(LoadError::Undone)?;
        let all = added.rows.all;
        added.written.extend(tracking.map(|filling| Written::new(&filling, all)));
        Ok(added)
    }
}

/// Makes the index entries of the rows written. This is the last step, because it can keep other
/// transactions from reading.
fn add_index_entries(
    written: &[Written],
    held: &mut [InitialLoadBuffer],
    locks_pass: bool,
) -> LoadResult<()> {
    for written in written {
        held.iter_mut().for_each(InitialLoadBuffer::feed);
        if !deferred_indexes::add_entries(written, locks_pass)? {
            return Err(LoadError::Undone);
        }
    }
    held.iter_mut().for_each(InitialLoadBuffer::end_feed);
    Ok(())
}

/// Returns the size of a source in bytes. Returns `None` if two statements under one snapshot may
/// read different rows: a view may compute its rows, and a foreign table stores them elsewhere. The
/// tracking rows would then not describe the evaluated items.
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

/// Reports whether coco can write all rows to a target without comparing them: rows of two items
/// cannot have one key, and an item that produces a key twice causes an error.
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

/// Reports whether writing to a target only writes rows and index entries, and each row belongs to
/// one item from the start.
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

/// Returns the columns of a target, with the expressions of their values.
fn columns(target: &Target) -> Vec<(String, String)> {
    let values = numbered("n.c", target.columns.len());
    target.columns.iter().map(|c| c.name.clone()).zip(values).collect()
}

/// Returns when coco makes the index entries of a target's table. It locks only a table that it
/// created.
fn index_maintenance(target: &Target) -> IndexMaintenance {
    match target.made {
        true => IndexMaintenance::Later,
        false => IndexMaintenance::AtOnce,
    }
}

/// Returns the columns of tracking rows, with the expressions of their values. `$1` and `$2` are
/// the process ordinal and the logic.
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

/// Returns expressions for the key of the item of an output row `n`. The target key contains it: the
/// load is for such targets only.
fn item_key(source: &Source, target: &Target) -> Vec<String> {
    let covered = target.covered.iter().flatten();
    let places = covered.map(|name| target.columns.iter().position(|c| c.name == *name));
    let value = |place: usize| target.columns[place].as_stored(&format!("n.c{}", place + 1));
    let key: Option<Vec<String>> = places.map(|place| place.map(value)).collect();
    key.unwrap_or_else(|| numbered("n.i", source.key.len()))
}

/// A target that one statement can write together with the tracking rows.
struct SinglePassTarget {
    /// The target's position in the flow.
    place: usize,
    /// A SELECT of the target's rows, with the columns of the tracking rows.
    evaluated: String,
}

/// What to write for one target.
struct LoadStatements {
    /// A SELECT of the target's rows.
    evaluated: String,
    /// The columns of tracking rows, if the SELECT has them, too.
    tracking: Option<Vec<(String, String)>>,
}

/// Connects for statements that read whole relations.
fn statements() -> Result<SpiSession> {
    let statements = SpiSession::connect()?;
    statements.reads_many();
    Ok(statements)
}
