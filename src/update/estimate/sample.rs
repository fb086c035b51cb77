//! Evaluates a sample of items in groups, and counts what an update would write for them. Writes
//! nothing, and requests nothing from providers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use crate::catalog::model::{Source, Target};
use crate::memo::session::{CountedMisses, MemoSession};
use crate::pg::acting_role::RoleGuard;
use crate::pg::columns::{Column, all_equal, numbered};
use crate::pg::error::{Error, Result};
use crate::pg::subtransaction::{DataError, subtransaction};
use crate::pg::tuplestore::named_row::named_row;
use crate::pg::tuplestore::rows::{RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::batch::{Action, Batch, Item};
use crate::query::compose::{self, Items};
use crate::query::names::{self, KeyExprs};
use crate::update::detect;
use crate::update::differences;
use crate::update::estimate::population::{PlannedUpdate, Population};
use crate::update::stale_rows::{self, StaleRows};
use coco_core::bisect::{Attempt, bisect};
use coco_core::decision::{Decision, Mode};
use coco_core::memo_batch::FunctionId;
use coco_core::sampling::GROUPS;
use coco_core::version::ProcessOrdinal;

/// What an update would do with the items of a group.
#[derive(Clone, Debug, Default)]
pub struct GroupFigures {
    /// The number of items, also of those that the update leaves as they are.
    pub items: u64,
    pub evaluated: u64,
    pub failed: u64,
    /// The rows that the queries return.
    pub rows: u64,
    /// The bytes of these rows.
    pub bytes: u64,
    pub upserted: u64,
    pub deleted: u64,
    /// Calls of memoized functions with a stored result.
    pub hits: u64,
    /// Calls without one, by function.
    pub misses: BTreeMap<FunctionId, u64>,
    /// The time of the evaluation.
    pub seconds: f64,
}

impl GroupFigures {
    fn add(&mut self, more: GroupFigures) {
        self.failed += more.failed;
        self.rows += more.rows;
        self.bytes += more.bytes;
        self.upserted += more.upserted;
        self.deleted += more.deleted;
        self.hits += more.hits;
        for (function, calls) in more.misses {
            *self.misses.entry(function).or_default() += calls;
        }
        self.seconds += more.seconds;
    }
}

/// A sample of the items of a source.
pub struct SourceSample {
    /// The number of items that the update looks at.
    pub population: u64,
    pub groups: Vec<GroupFigures>,
}

/// Evaluates the sample of a population. Adds the inputs of calls without a result to `missed`.
pub fn evaluate_sample(
    planned: &PlannedUpdate,
    source: &Source,
    population: &Population,
    recalling: Option<&Rc<MemoSession>>,
    missed: &mut CountedMisses,
) -> Result<SourceSample> {
    let sampling = Sampling { planned, source, mode: population.mode, recalling };
    let (mut groups, mut batches) = sampling.decide(&population.sample)?;
    for (group, batch) in groups.iter_mut().zip(&mut batches) {
        sampling.evaluate_group(group, batch, missed)?;
    }
    Ok(SourceSample { population: population.items, groups })
}

/// The evaluation of the sample of a source.
struct Sampling<'a> {
    planned: &'a PlannedUpdate<'a>,
    source: &'a Source,
    mode: Mode,
    recalling: Option<&'a Rc<MemoSession>>,
}

/// Why the evaluation of a batch stopped: an error of an item, or an error of the flow.
enum Stop {
    Item(DataError),
    Flow(Error),
}

impl Sampling<'_> {
    /// Decides about the items of the sample, and distributes them over groups.
    fn decide(&self, sample: &TupleStore) -> Result<(Vec<GroupFigures>, Vec<Batch>)> {
        let order = shuffled(sample.len());
        let count = GROUPS.min(sample.len());
        let mut groups = vec![GroupFigures::default(); count];
        let mut batches = Vec::with_capacity(count);
        if count == 0 {
            return Ok((groups, batches));
        }
        let mut candidates = detect::lookup_candidates(self.source, sample, true)?;
        for _ in 0..count {
            batches.push(Batch::new(self.source, candidates.carry)?);
        }
        let mut number = 0;
        while let Some(item) = candidates.next() {
            pgrx::check_for_interrupts!();
            let place = order.get(number).copied().unwrap_or(number) % count;
            number += 1;
            let group = &mut groups[place];
            group.items += 1;
            let key = candidates.key();
            if self.source.lacks_key(&key) {
                group.failed += 1;
                continue;
            }
            let action = match item.decide(self.planned.writing.logic, self.mode) {
                Decision::Evaluate => Action::Evaluate,
                Decision::Remove => Action::Remove,
                Decision::Skip | Decision::Advance | Decision::Wait => continue,
            };
            if item.unread.is_some() {
                group.failed += 1;
                continue;
            }
            group.evaluated += u64::from(action == Action::Evaluate);
            let item = Item {
                action,
                tracked: item.stored.is_some(),
                incoming: item.incoming,
                process_ordinal: ProcessOrdinal(0),
                attempts: 0,
                along: false,
            };
            batches[place].push(&key, &candidates.carried(), item);
        }
        Ok((groups, batches))
    }

    /// Evaluates the items of a group. Isolates the items that fail, as an update does.
    fn evaluate_group(
        &self,
        group: &mut GroupFigures,
        batch: &mut Batch,
        missed: &mut CountedMisses,
    ) -> Result<()> {
        let whole = 0..batch.len();
        let mut done = GroupFigures::default();
        let (lacks_result, failed) = (Cell::new(false), Cell::new(0));
        let mut attempt = |range: Range<usize>| -> Result<Attempt<DataError>> {
            pgrx::check_for_interrupts!();
            let part = batch.slice(range)?;
            let result =
                subtransaction(|| self.evaluate_part(&part).map_err(Stop::Flow), Stop::Item);
            let counted = self.take_counted();
            match result {
                Ok(mut found) => {
                    found.hits = counted.hits;
                    for ((function, _), miss) in &counted.missed.calls {
                        *found.misses.entry(*function).or_default() += miss.calls;
                    }
                    missed.merge(counted.missed);
                    done.add(found);
                    Ok(Attempt::Done)
                }
                Err(Stop::Item(raised)) => {
                    lacks_result.set(!counted.missed.calls.is_empty());
                    if lacks_result.get() && part.len() == 1 {
                        // The missing result, which is NULL here, may have caused the error.
                        for ((function, _), miss) in &counted.missed.calls {
                            *done.misses.entry(*function).or_default() += miss.calls;
                        }
                        missed.merge(counted.missed);
                    }
                    Ok(Attempt::Failed(raised))
                }
                Err(Stop::Flow(error)) => Err(error),
            }
        };
        bisect(whole, &mut attempt, &mut |_, _| {
            failed.set(failed.get() + u64::from(!lacks_result.get()));
            Ok(())
        })?;
        group.add(done);
        group.failed += failed.get();
        Ok(())
    }

    /// Returns what the calls of memoized functions have counted since the last call.
    fn take_counted(&self) -> CountedCalls {
        let Some(recalling) = self.recalling else { return CountedCalls::default() };
        let stats = recalling.stats.take();
        let hits = stats.values().map(|stats| stats.calls.max(0) as u64).sum();
        CountedCalls { hits, missed: recalling.counted.take() }
    }

    /// Evaluates a batch for each target, and compares the rows with the target.
    fn evaluate_part(&self, batch: &Batch) -> Result<GroupFigures> {
        let began = Instant::now();
        let mut found = GroupFigures::default();
        let _running = self.recalling.map(|recalling| recalling.begin());
        for (place, target) in self.planned.flow.targets.iter().enumerate() {
            let changed = self.planned.changed.filter(|changed| changed.place == place);
            let compared = ComparedTarget::new(target, changed.map(|changed| &changed.before));
            let counts = self.compare(batch, &compared)?;
            found.rows += counts.rows;
            found.bytes += counts.bytes;
            found.upserted += counts.upserted;
            found.deleted += counts.deleted;
        }
        found.seconds = began.elapsed().as_secs_f64();
        Ok(found)
    }

    fn compare(&self, batch: &Batch, compared: &ComparedTarget) -> Result<RowFigures> {
        let (flow, source) = (self.planned.flow, self.source);
        let target = &compared.target;
        let statements = SpiSession::connect()?;
        statements.name("coco_batch", batch.rows())?;
        let names = KeyExprs::new(source, target);
        let mut columns = names::output_columns(source, target);
        if self.recalling.is_some() {
            columns.push(RowColumn::new(compose::ITEM_NUMBER, pgrx::pg_sys::INT4OID));
        }
        let mut output = TupleStore::new(&columns)?;
        let items = if batch.carries { Items::Carried } else { Items::Batch };
        let sql = compose::evaluate(flow, source, target, items)?;
        statements.select_into(&sql, &[], &mut output)?;
        let mut old = TupleStore::new(&names::old_columns(source, target))?;
        if target.covered.is_none() && compared.known != KnownColumns::None {
            let sql = stale_rows::old_keys_sql(source, target, &names);
            statements.select_into(&sql, &[], &mut old)?;
        }
        let _by_key = RoleGuard::finding_by_key()?;
        let counting = SpiSession::connect()?;
        counting.name("coco_batch", batch.rows())?;
        counting.name("coco_output", &output)?;
        counting.name("coco_old", &old)?;
        let mut result = TupleStore::new(&CountsRow::columns())?;
        let sql = counts_sql(source, compared, &names, self.mode);
        counting.select_into(&sql, &[], &mut result)?;
        if !result.advance() {
            return Err(Error::internal("count returned no row"));
        }
        let row = CountsRow::read(result.row(), 0);
        let count = |value: Option<i64>| value.unwrap_or(0).max(0) as u64;
        Ok(RowFigures {
            rows: output.len() as u64,
            bytes: count(row.bytes),
            upserted: count(row.upserted),
            deleted: count(row.deleted),
        })
    }
}

/// What the calls of memoized functions have counted.
#[derive(Default)]
struct CountedCalls {
    hits: u64,
    missed: CountedMisses,
}

/// What an update would write to one target.
struct RowFigures {
    rows: u64,
    bytes: u64,
    upserted: u64,
    deleted: u64,
}

named_row! {
    /// The result of [`counts_sql`].
    struct CountsRow, CountsExprs {
        upserted: i64,
        deleted: i64,
        bytes: i64,
    }
}

/// The columns of a target's query that its table has already, so that their values can be compared.
#[derive(Clone, Copy, PartialEq)]
enum KnownColumns<'a> {
    All,
    /// Those that a table made for another query has.
    Of(&'a [Column]),
    /// None: the table does not exist, or would be emptied because the key changes.
    None,
}

/// A target, and how to compare rows with its table.
struct ComparedTarget<'a> {
    target: Target,
    known: KnownColumns<'a>,
}

impl<'a> ComparedTarget<'a> {
    fn new(target: &Target, before: Option<&'a Target>) -> ComparedTarget<'a> {
        let mut target = target.clone();
        let has = |columns: &[Column], column: &Column| {
            columns.iter().any(|c| c.name == column.name && c.type_oid == column.type_oid)
        };
        let known = match before {
            _ if target.relation.is_none() => KnownColumns::None,
            None => KnownColumns::All,
            Some(before) if !target.key.iter().all(|k| has(&before.key, k)) => KnownColumns::None,
            Some(before) => {
                // Until the query is set, coco finds the rows of an item as before.
                target.covered.clone_from(&before.covered);
                KnownColumns::Of(&before.columns)
            }
        };
        ComparedTarget { target, known }
    }

    /// Returns an SQL condition: an update changes the target row `x` to the row `n`.
    fn differs_sql(&self, mode: Mode) -> String {
        let target = &self.target;
        let columns = match self.known {
            _ if !mode.carries_over() => return "true".to_owned(),
            KnownColumns::Of(columns) if target.external.is_none() => columns,
            _ => return differences::differs(target),
        };
        let has = |column: &Column| {
            columns.iter().any(|c| c.name == column.name && c.type_oid == column.type_oid)
        };
        let values = target.columns.iter().zip(numbered("n.c", target.columns.len()));
        let added = values.filter(|(column, _)| !has(column));
        // coco adds the column to the table with NULL in each row.
        let added: String = added.map(|(_, value)| format!(" or {value} is not null")).collect();
        format!("({}{added})", differences::differs_in(target, has))
    }
}

/// Returns a SELECT of what an update would write for the rows in `coco_output`.
fn counts_sql(source: &Source, compared: &ComparedTarget, names: &KeyExprs, mode: Mode) -> String {
    let target = &compared.target;
    let values = numbered("n.c", target.columns.len()).join(", ");
    let bytes = format!(
        "(select coalesce(pg_catalog.sum(pg_catalog.pg_column_size(row({values}))), 0)
            from coco_output as n)"
    );
    if compared.known == KnownColumns::None {
        let exprs = CountsExprs {
            upserted: "(select pg_catalog.count(*) from coco_output as n)",
            deleted: "0::pg_catalog.int8",
            bytes: &bytes,
        };
        return format!("select {}", exprs.select_list());
    }
    let relation = target.relation_name();
    let same = all_equal(&target.key, &names.target_key, &names.new_key);
    let StaleRows { from, condition } = stale_rows::stale_rows_sql(source, target, names);
    let exprs = CountsExprs {
        upserted: &format!(
            "(select pg_catalog.count(*) from coco_output as n
               where not exists (select from {relation} as x where {same} and not coalesce({differs}, true)))",
            differs = compared.differs_sql(mode),
        ),
        deleted: &format!(
            "(select pg_catalog.count(*) from {relation} as x, {from} where {condition})"
        ),
        bytes: &bytes,
    };
    format!("select {}", exprs.select_list())
}

/// Returns the numbers below `count` in an order that does not depend on them, and that is the same
/// for each call. The generator is SplitMix64 (G. L. Steele and others, OOPSLA 2014).
fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 0_u64;
    for last in (1..count).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        order.swap(last, (mixed % (last as u64 + 1)) as usize);
    }
    order
}
