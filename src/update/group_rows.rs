//! Keeps the groups of a source by deltas: brings the table of contributions and the table of groups
//! to the state of the source that the update reads, before the update looks at the groups.
//!
//! For changed rows, these steps follow each other:
//!
//! 1. The flow's owner evaluates the row part of the query for the rows (`coco_came`).
//! 2. The extension's owner reads what the rows contributed before (`coco_went`), writes the new
//!    contributions, and adds the differences to the states of their groups.
//! 3. The update evaluates the groups whose state has changed, like any other items.
//!
//! A contribution replaces the earlier one of the same row, so it does no harm to look at a row again.
//! The contributions, the states, the rows of the target and the cursor change in one transaction.
//!
//! If the query raises an error for a row, the contribution keeps the error, and the group of the row
//! counts as an item that cannot be read. When the time to retry the group has come, coco evaluates its
//! failing rows again.

use pgrx::pg_sys;

use crate::catalog::group_state::{GroupPart, RowValue};
use crate::catalog::internal_tables;
use crate::catalog::item_failure::ItemFailure;
use crate::catalog::model::{GroupState, Source};
use crate::pg::acting_role::RoleGuard;
use crate::pg::bulk_insert;
use crate::pg::bulk_insert::spec::{BulkTarget, FillingRows};
use crate::pg::columns::{Column, all_equal, equal_by_nulls, numbered};
use crate::pg::deferred_indexes::{self, Written};
use crate::pg::error::{Error, Result};
use crate::pg::snapshot::PinnedSnapshot;
use crate::pg::spi::{self, arg};
use crate::pg::subtransaction::{DataError, subtransaction};
use crate::pg::tuplestore::rows::{self, RowColumn, TupleStore};
use crate::pg::tuplestore::statements::SpiSession;
use crate::query::compose::{self, RowsOf};
use crate::update::candidate_rows::key_columns;
use crate::update::retry_due;
use crate::update::run::interrupt;
use crate::update::source_plan::{PlannedSource, SourcePlan};
use crate::update::unreadable_items::{self, Halves};
use coco_core::decision::Mode;

/// The number of rows that coco looks at together, if it cannot look at all of them.
const ROWS_AT_ONCE: usize = 10_000;

/// Brings the states of a source's groups up to date with what the plan of the source has found. Returns
/// the plan for the groups. The caller acts as the flow's owner, and has pinned the snapshot that it
/// reads the source with; the new states are visible to the next snapshot.
pub fn follow_rows(source: &Source, mode: Mode, planned: PlannedSource) -> Result<PlannedSource> {
    let Some(groups) = source.groups.as_ref().filter(|_| source.reads_states) else {
        return Ok(planned);
    };
    let kept = KeptGroups { source, rows: source.by_rows(), groups };
    let PlannedSource { looking, mut cursor } = planned;
    let looking = match looking {
        SourcePlan::Rows { rows, due } => {
            let rows = kept.with_failing_rows(rows, &due)?;
            let mut changed = match rows.len() {
                0 => TupleStore::new(&key_columns(source))?,
                _ => kept.apply(&rows)?,
            };
            let statements = SpiSession::connect()?;
            cursor.waiting = retry_due::add_due_failures(&statements, source, mode, &mut changed)?;
            SourcePlan::Keys(changed)
        }
        SourcePlan::All { forced } => {
            kept.build()?;
            SourcePlan::All { forced }
        }
        other => other,
    };
    Ok(PlannedSource { looking, cursor })
}

/// Reports whether the query raises an error for a row of any group.
pub fn has_failing_groups(source: &Source) -> Result<bool> {
    let Some(groups) = source.groups.as_ref().filter(|_| source.reads_states) else {
        return Ok(false);
    };
    let _now = PinnedSnapshot::again();
    let sql = format!(
        "select true from {} as s where s.failing operator(pg_catalog.>) 0 limit 1",
        groups.groups_view
    );
    Ok(SpiSession::connect()?.read_text(&sql, &[])?.is_some())
}

/// The groups of one source, whose states an update changes.
struct KeptGroups<'a> {
    /// The source by its states.
    source: &'a Source,
    /// The source by its rows.
    rows: Source,
    groups: &'a GroupState,
}

/// The names of the columns of contributions.
struct ContributionNames {
    row: Vec<String>,
    group: Vec<String>,
    values: Vec<String>,
}

impl ContributionNames {
    /// Returns all columns, with an alias before each.
    fn all(&self, alias: &str) -> String {
        let names = self.row.iter().chain(&self.group).chain(&self.values);
        let named = names.map(|name| format!("{alias}{name}")).chain([format!("{alias}failure")]);
        named.collect::<Vec<_>>().join(", ")
    }

    /// Returns the columns after the row's key, as a record.
    fn content(&self, alias: &str) -> String {
        let names = self.group.iter().chain(&self.values);
        let named = names.map(|name| format!("{alias}{name}")).chain([format!("{alias}failure")]);
        format!("row({})::record", named.collect::<Vec<_>>().join(", "))
    }
}

fn with_alias(alias: &str, names: &[String]) -> Vec<String> {
    names.iter().map(|name| format!("{alias}.{name}")).collect()
}

impl KeptGroups<'_> {
    fn names(&self) -> ContributionNames {
        ContributionNames {
            row: numbered("r", self.rows.key.len()),
            group: numbered("g", self.source.key.len()),
            values: self.groups.shape.value_names(),
        }
    }

    /// Returns the columns of contributions in a tuplestore.
    fn columns(&self) -> Vec<RowColumn> {
        let values: Vec<Column> =
            self.groups.shape.values.iter().map(|value| value.column.clone()).collect();
        let mut columns = rows::typed("r", &self.rows.key);
        columns.extend(rows::typed("g", &self.source.key));
        columns.extend(rows::typed("v", &values));
        columns.push(RowColumn::new("failure", pg_sys::TEXTOID));
        columns
    }

    /// Returns a condition that two rows have the same key.
    fn same_row(&self, a: &str, b: &str) -> String {
        all_equal(
            &self.rows.key,
            &with_alias(a, &self.names().row),
            &with_alias(b, &self.names().row),
        )
    }

    /// Returns a condition that the row `a` (`k1…`) is that of the contribution `b`.
    fn is_row_of(&self, a: &str, b: &str) -> String {
        let keys = numbered(&format!("{a}.k"), self.rows.key.len());
        all_equal(&self.rows.key, &keys, &with_alias(b, &self.names().row))
    }

    /// Returns the rows with the failing rows of groups that coco retries.
    fn with_failing_rows(&self, rows: TupleStore, due: &TupleStore) -> Result<TupleStore> {
        if due.len() == 0 {
            return Ok(rows);
        }
        let _as = RoleGuard::extension_owner()?;
        let _by_key = RoleGuard::finding_by_key()?;
        let statements = SpiSession::connect()?;
        statements.name("coco_rows", &rows)?;
        statements.name("coco_due", due)?;
        let names = numbered("k", self.rows.key.len()).join(", ");
        let group = with_alias("c", &self.names().group);
        let wanted = numbered("d.k", self.source.key.len());
        let failing: Vec<String> = equal_by_nulls(&self.source.key, &group, &wanted)
            .into_iter()
            .map(|alike| {
                format!(
                    " union all select {}, false from coco_due as d join {} as c on {} and c.failure is not null",
                    with_alias("c", &self.names().row).join(", "),
                    self.groups.contributions,
                    alike.condition
                )
            })
            .collect();
        let mut all = TupleStore::new(&key_columns(&self.rows))?;
        statements.select_into(
            &format!(
                "select {names}, pg_catalog.bool_or(x.forced) from (select {names}, forced from coco_rows{}) as x
                  group by {names} order by {names}",
                failing.concat()
            ),
            &[],
            &mut all,
        )?;
        Ok(all)
    }

    /// Evaluates rows (`k1…`, `forced`), and adds what has changed to the states of their groups.
    /// Returns the keys of the groups: `k1…`, `forced`.
    fn apply(&self, rows: &TupleStore) -> Result<TupleStore> {
        let mut came = self.evaluate(rows)?;
        let _as = RoleGuard::extension_owner()?;
        let _by_key = RoleGuard::finding_by_key()?;
        let mut went = self.write_contributions(rows, &came)?;
        let mut changes = self.find_changes(&came, &went)?;
        let mut keys = TupleStore::new(&key_columns(self.source))?;
        if changes.len() > 0 {
            let failed = self.has_failure(&mut came) || self.has_failure(&mut went);
            let loses_rows = self.has_fewer_rows(&mut changes);
            self.merge(&changes, loses_rows, failed)?;
            let statements = SpiSession::connect()?;
            statements.name("coco_changes", &changes)?;
            let names = numbered("k", self.source.key.len()).join(", ");
            let sql = format!("select {names}, false from coco_changes order by {names}");
            statements.select_into(&sql, &[], &mut keys)?;
        }
        Ok(keys)
    }

    /// Returns what rows contribute now: nothing, if they do not exist or if WHERE leaves them out.
    fn evaluate(&self, rows: &TupleStore) -> Result<TupleStore> {
        let columns = self.columns();
        let read = |rows: &TupleStore, found: &mut TupleStore| -> Result<()> {
            let _by_key = RoleGuard::finding_by_key()?;
            let sql = compose::contributions_sql(&self.rows, self.groups, RowsOf::Keys);
            let statements = SpiSession::connect()?;
            statements.name("coco_rows", rows)?;
            statements.select_into(&sql, &[], found)?;
            Ok(())
        };
        match unreadable_items::attempt(&columns, |found| read(rows, found))? {
            Ok(found) => Ok(found),
            Err(raised) => {
                let unread = |row: &TupleStore, raised: DataError, found: &mut TupleStore| {
                    self.add_failing_row(row, &ItemFailure::from(raised), found)
                };
                let of = key_columns(&self.rows);
                Halves { all: rows, of: &of, columns: &columns }.read(raised, read, unread)
            }
        }
    }

    /// Adds a row for which the query raises an error: its key and its group.
    fn add_failing_row(
        &self,
        row: &TupleStore,
        failure: &ItemFailure,
        found: &mut TupleStore,
    ) -> Result<()> {
        let statements = SpiSession::connect()?;
        statements.name("coco_rows", row)?;
        let values: String = self
            .groups
            .shape
            .values
            .iter()
            .map(|value| format!(", null::{}", value.column.type_name))
            .collect();
        let keys = self.rows.key_of("s");
        let sql = format!(
            "select {row}, {group}{values}, $1::pg_catalog.text
               from coco_rows as b join {relation} as s on {same}",
            row = keys.join(", "),
            group = self.groups.key_of_row.join(", "),
            relation = self.groups.rows_with_key,
            same = all_equal(&self.rows.key, &numbered("b.k", keys.len()), &keys),
        );
        statements.select_into(&sql, &[arg(failure.to_text())], found)?;
        Ok(())
    }

    /// Replaces the contributions of rows by new ones. Returns the earlier ones.
    fn write_contributions(&self, rows: &TupleStore, came: &TupleStore) -> Result<TupleStore> {
        let names = self.names();
        let table = &self.groups.contributions;
        let statements = SpiSession::connect()?;
        statements.name("coco_rows", rows)?;
        statements.name("coco_came", came)?;
        let mut went = TupleStore::new(&self.columns())?;
        let sql = format!(
            "select {} from coco_rows as b join {table} as c on {}",
            names.all("c."),
            self.is_row_of("b", "c")
        );
        statements.query_into(&sql, &[], &mut went)?;
        if came.len() < rows.len() && went.len() > 0 {
            let sql = format!(
                "delete from {table} as c using coco_rows as b
                  where {} and not exists (select from coco_came as n where {})",
                self.is_row_of("b", "c"),
                self.same_row("n", "c")
            );
            statements.execute(&sql, &[])?;
        }
        if came.len() > 0 {
            let content = names.group.iter().chain(&names.values).map(String::as_str);
            let set: Vec<String> = content
                .chain(["failure"])
                .map(|name| format!("{name} = excluded.{name}"))
                .collect();
            let sql = format!(
                "insert into {table} as c ({columns}) select {values} from coco_came as n
                 on conflict ({row}) do update set {set} where {before} operator(pg_catalog.*<>) {after}",
                columns = names.all(""),
                values = names.all("n."),
                row = names.row.join(", "),
                set = set.join(", "),
                before = names.content("c."),
                after = names.content("excluded."),
            );
            statements.execute(&sql, &[])?;
        }
        Ok(went)
    }

    /// Returns the changes of the groups: their keys, the number of rows that they gain, the number of
    /// failing ones among them, and the changes of their parts. Contributions that stay are left out.
    fn find_changes(&self, came: &TupleStore, went: &TupleStore) -> Result<TupleStore> {
        let names = self.names();
        let mut columns = rows::typed("k", &self.source.key);
        columns.push(RowColumn::new("rows", pg_sys::INT8OID));
        columns.push(RowColumn::new("failing", pg_sys::INT8OID));
        let parts: Vec<Column> =
            self.groups.shape.parts.iter().map(|part| part.column.clone()).collect();
        columns.extend(rows::typed("p", &parts));
        let mut changes = TupleStore::new(&columns)?;
        let statements = SpiSession::connect()?;
        statements.name("coco_came", came)?;
        statements.name("coco_went", went)?;
        let one_side = |has: &str, lacks: &str, is_new: bool| {
            format!(
                "select {is_new} as came, {} from {has} as a
                  where not exists (select from {lacks} as o where {} and {} operator(pg_catalog.*=) {})",
                names.all("a."),
                self.same_row("o", "a"),
                names.content("o."),
                names.content("a."),
            )
        };
        let group = with_alias("d", &names.group).join(", ");
        let count = |what: &str| {
            format!(
                "pg_catalog.count(*) filter (where {what}d.came)
                   operator(pg_catalog.-) pg_catalog.count(*) filter (where {what}not d.came)"
            )
        };
        let mut selected = vec![group.clone(), count(""), count("d.failure is not null and ")];
        selected.extend(self.groups.shape.changes_sql(|value| {
            format!("coalesce(pg_catalog.max(x{}.change), 0)", value.column.name)
        }));
        let (distinct, joins): (Vec<String>, Vec<String>) =
            self.groups.shape.distinct_values().map(|value| self.change_of_distinct(value)).unzip();
        let both = format!(
            "{} union all {}",
            one_side("coco_came", "coco_went", true),
            one_side("coco_went", "coco_came", false),
        );
        let (with, from) = match distinct.is_empty() {
            true => (String::new(), format!("({both}) as d")),
            false => {
                let with = format!("with d as materialized ({both}){} ", distinct.concat());
                (with, format!("d{}", joins.concat()))
            }
        };
        let sql = format!("{with}select {} from {from} group by {group}", selected.join(", "));
        // The number of different values depends on what `write_contributions` has written.
        statements.query_into(&sql, &[], &mut changes)?;
        Ok(changes)
    }

    /// Returns a CTE with the change of the number of different values of groups, over the CTE `d` of
    /// contributions that came or went, and the join with it.
    ///
    /// Of a value that `came` and `went` so many times, the group has as many rows now as the table of
    /// contributions, which already has these changes, and had `went - came` more before. It is enough
    /// to read one row more than it gained.
    fn change_of_distinct(&self, value: &RowValue) -> (String, String) {
        let name = &value.column.name;
        let names = self.names();
        let (of_d, of_v, of_c) = (
            with_alias("d", &names.group),
            with_alias("v", &names.group),
            with_alias("c", &names.group),
        );
        let rows: Vec<String> = equal_by_nulls(&self.source.key, &of_c, &of_v)
            .into_iter()
            .map(|alike| {
                format!(
                    "(select from {} as c where {} and {} limit v.gained operator(pg_catalog.+) 1)",
                    self.groups.contributions,
                    alike.condition,
                    value.column.equality(&format!("c.{name}"), &format!("v.{name}"))
                )
            })
            .collect();
        let with = format!(
            ", x{name} as (
               select {of_v},
                      pg_catalog.sum((f.rows operator(pg_catalog.>) 0)::pg_catalog.int4 operator(pg_catalog.-)
                                     (f.rows operator(pg_catalog.>) v.more)::pg_catalog.int4)::pg_catalog.int8 as change
                 from (select d.*, greatest(d.more, 0) as gained
                         from (select {of_d}, d.{name},
                                      pg_catalog.count(*) filter (where d.came)
                                        operator(pg_catalog.-) pg_catalog.count(*) filter (where not d.came) as more
                                 from d where d.{name} is not null group by {of_d}, d.{name}) as d) as v
                cross join lateral (select pg_catalog.count(*) as rows from ({rows}) as f) as f
                group by {of_v})",
            of_v = of_v.join(", "),
            of_d = of_d.join(", "),
            rows = rows.join(" union all "),
        );
        let same =
            all_equal(&self.source.key, &with_alias(&format!("x{name}"), &names.group), &of_d);
        (with, format!(" left join x{name} on {same}"))
    }

    /// Reports whether a row among contributions is a failing one.
    fn has_failure(&self, contributions: &mut TupleStore) -> bool {
        let place = self.columns().len() - 1;
        contributions.rewind();
        let mut found = false;
        while !found && contributions.advance() {
            interrupt();
            found = contributions.datum(place).is_some();
        }
        contributions.rewind();
        found
    }

    /// Reports whether a group has fewer rows after changes.
    fn has_fewer_rows(&self, changes: &mut TupleStore) -> bool {
        let place = self.source.key.len();
        changes.rewind();
        let mut found = false;
        while !found && changes.advance() {
            interrupt();
            found = changes.get::<i64>(place).is_some_and(|rows| rows < 0);
        }
        changes.rewind();
        found
    }

    /// Adds changes to the states of groups. `loses_rows` says that groups may have become empty, and
    /// `failed` that they have, or had, failing rows.
    fn merge(&self, changes: &TupleStore, loses_rows: bool, failed: bool) -> Result<()> {
        let GroupState { groups: table, shape, .. } = self.groups;
        let statements = SpiSession::connect()?;
        statements.name("coco_changes", changes)?;
        let keys = numbered("k", self.source.key.len());
        let counts = ["rows".to_owned(), "failing".to_owned()];
        let adding = shape.parts.iter().filter(|p| p.part.adds_up()).map(|p| p.column.name.clone());
        let adding: Vec<String> = counts.into_iter().chain(adding).collect();
        let columns: Vec<String> = keys.iter().chain(&adding).cloned().collect();
        let add: Vec<String> = adding
            .iter()
            .map(|name| format!("{name} = s.{name} operator(pg_catalog.+) excluded.{name}"))
            .collect();
        let sql = format!(
            "insert into {table} as s ({columns}) select {columns} from coco_changes
             on conflict ({keys}) do update set {add}",
            columns = columns.join(", "),
            keys = keys.join(", "),
            add = add.join(", "),
        );
        statements.execute(&sql, &[])?;
        let same = all_equal(&self.source.key, &with_alias("d", &keys), &with_alias("s", &keys));
        if loses_rows {
            let sql = format!(
                "delete from {table} as s using coco_changes as d
                  where {same} and s.rows operator(pg_catalog.<=) 0"
            );
            statements.execute(&sql, &[])?;
        }
        let mut again = self.parts_again();
        if failed {
            again.push(format!("failure = {}", self.one_failure()));
        }
        if !again.is_empty() {
            let sql = format!(
                "update {table} as s set {} from coco_changes as d where {same}",
                again.join(", ")
            );
            statements.execute(&sql, &[])?;
        }
        Ok(())
    }

    /// Returns assignments that read parts of the group `s` again from its contributions. An index finds
    /// each.
    fn parts_again(&self) -> Vec<String> {
        let shape = &self.groups.shape;
        let assigned = shape.read_again().map(|(place, part, value)| {
            let indexed = part.indexed(value, "c.");
            let is_least = part == GroupPart::Least;
            let direction = if is_least { "" } else { " desc" };
            let known = format!("c.{} is not null", value.column.name);
            let found =
                self.first_of_group(&indexed, &known, &format!("{indexed}{direction}"), direction);
            format!("p{} = {found}", place + 1)
        });
        assigned.collect()
    }

    /// Returns the failure of a failing row of the group `s`.
    fn one_failure(&self) -> String {
        self.first_of_group("c.failure", "c.failure is not null", "", "")
    }

    /// Returns a scalar subquery: the first contribution of the group `s` that satisfies a condition, in
    /// an order within the group. Each combination of key columns that are NULL has a SELECT of its own,
    /// which reads an index in its order.
    fn first_of_group(&self, value: &str, condition: &str, order: &str, direction: &str) -> String {
        let group = with_alias("c", &self.names().group);
        let wanted = numbered("s.k", self.source.key.len());
        let mut by: Vec<String> = group.iter().map(|g| format!("{g}{direction}")).collect();
        by.extend((!order.is_empty()).then(|| order.to_owned()));
        let each: Vec<String> = equal_by_nulls(&self.source.key, &group, &wanted)
            .into_iter()
            .map(|alike| {
                format!(
                    "(select {value} as value from {} as c where {} and {condition} order by {} limit 1)",
                    self.groups.contributions,
                    alike.condition,
                    by.join(", ")
                )
            })
            .collect();
        // One of the SELECTs finds the group; the others find nothing.
        format!("(select f.value from ({}) as f limit 1)", each.join(" union all "))
    }

    /// Fills both tables from all rows of the source.
    fn build(&self) -> Result<()> {
        let locks_pass = deferred_indexes::in_autocommit();
        {
            let _as = RoleGuard::extension_owner()?;
            empty(&self.groups.contributions)?;
            empty(&self.groups.groups)?;
        }
        let filled = subtransaction(
            || self.fill_contributions(locks_pass),
            // The rows are then evaluated part by part, which finds those that raise an error.
            |_| Unfilled::Undone,
        );
        match filled {
            Ok(()) => self.fill_groups(),
            Err(Unfilled::Undone) => self.build_by_parts(),
            Err(Unfilled::Flow(error)) => Err(error),
        }
    }

    /// Writes the contributions of all rows with one statement, as COPY does.
    fn fill_contributions(&self, locks_pass: bool) -> std::result::Result<(), Unfilled> {
        let _sharing = RoleGuard::sharing_rows()?;
        let statements = SpiSession::connect()?;
        statements.reads_many();
        let names = self.names();
        let all: Vec<&String> = names.row.iter().chain(&names.group).chain(&names.values).collect();
        let columns: Vec<(String, String)> = all
            .iter()
            .zip(numbered("n.c", all.len()))
            .map(|(name, value)| ((*name).clone(), value))
            .collect();
        let sql = compose::contributions_sql(&self.rows, self.groups, RowsOf::All);
        let listed = numbered("c", all.len() + 1).join(", ");
        let filling = BulkTarget::of_own(&self.groups.contributions, &columns);
        let from = format!("({sql}) as n ({listed})");
        let rows = FillingRows { from: &from, args: &[], aside: None };
        let filled = bulk_insert::fill(&statements, &[filling], None, rows)?;
        drop(statements);
        let filled = filled.ok_or(Unfilled::Undone)?;
        match deferred_indexes::add_entries(&Written::new(&filling, filled.all), locks_pass)? {
            true => Ok(()),
            false => Err(Unfilled::Undone),
        }
    }

    /// Writes the states of all groups from the contributions, none of which is a failing row.
    fn fill_groups(&self) -> Result<()> {
        let _as = RoleGuard::extension_owner()?;
        let statements = SpiSession::connect()?;
        statements.reads_many();
        let group = with_alias("d", &self.names().group);
        let mut columns: Vec<(String, String)> =
            numbered("k", group.len()).into_iter().zip(group.iter().cloned()).collect();
        columns.push(("rows".to_owned(), "pg_catalog.count(*)".to_owned()));
        columns.push(("failing".to_owned(), "0::pg_catalog.int8".to_owned()));
        columns
            .extend(self.groups.shape.part_names().into_iter().zip(self.groups.shape.totals_sql()));
        let from = format!("{} as d group by {}", self.groups.contributions, group.join(", "));
        bulk_insert::insert(&statements, &self.groups.groups, &columns, &from, &[])?;
        Ok(())
    }

    /// Fills both tables part by part.
    fn build_by_parts(&self) -> Result<()> {
        let columns = key_columns(&self.rows);
        let mut keys = TupleStore::new(&columns)?;
        let statements = SpiSession::connect()?;
        statements.reads_many();
        let sql = format!(
            "select {}, false from {} as s",
            self.rows.key_of("s").join(", "),
            self.rows.relation_name
        );
        statements.select_into(&sql, &[], &mut keys)?;
        drop(statements);
        keys.rewind();
        loop {
            interrupt();
            let some = keys.take(&columns, ROWS_AT_ONCE)?;
            if some.len() == 0 {
                return Ok(());
            }
            self.apply(&some)?;
        }
    }
}

/// Why the contributions of all rows could not be written with one statement.
enum Unfilled {
    Flow(Error),
    Undone,
}

impl From<Error> for Unfilled {
    fn from(error: Error) -> Unfilled {
        Unfilled::Flow(error)
    }
}

/// Empties a table of coco's own. Does not wait for a reader, such as pg_dump. The caller acts as the
/// extension's owner.
fn empty(table: &str) -> Result<()> {
    let relation = internal_tables::find(table)?
        .ok_or_else(|| Error::internal(format!("table {table} does not exist")))?;
    match internal_tables::lock_to_drop(relation) {
        true => spi::execute(&format!("truncate {table}"), &[])?,
        false => spi::execute(&format!("delete from {table}"), &[])?,
    };
    Ok(())
}
