//! The statements that write a batch of changes.
//!
//! Rows and the keys of rows that go are copied into temporary tables, numbered by their changes'
//! places in the batch; two statements bring them to the target, for any range of changes.

use std::ops::Range;

use super::table::{self, Table};

/// Which changes a temporary table takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// Rows as they are to be: all columns.
    Rows,
    /// Keys of rows that are to go.
    Gone,
}

impl Staged {
    fn table(self) -> &'static str {
        match self {
            Staged::Rows => "coco_rows",
            Staged::Gone => "coco_gone",
        }
    }

    /// The columns of the target that it has, after its own `n`.
    pub fn columns(self, table: &Table) -> Vec<&str> {
        match self {
            Staged::Rows => table.columns.iter().map(String::as_str).collect(),
            Staged::Gone => table.key.iter().map(|k| k.name.as_str()).collect(),
        }
    }
}

/// `c1`, `c2`, …: no name of a user's gets in the way of `n`.
fn numbered(count: usize) -> impl Iterator<Item = String> {
    (1..=count).map(|n| format!("c{n}"))
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// Begins a transaction in which the table stays as it is. Returns what it is, to be held against
/// [`Table::signature`].
pub fn begin(table: &Table) -> String {
    // Constraints that are checked at the end alone would refuse all changes, with none to blame.
    format!(
        "begin isolation level read committed;
         lock table only {} in row exclusive mode;
         set constraints all immediate;
         {}",
        table.name,
        table::signature(table.oid)
    )
}

/// Takes rows right into the table.
pub fn copy_directly(table: &Table) -> String {
    format!("copy {} ({}) from stdin (format binary)", table.name, table.columns.join(", "))
}

/// Makes a temporary table, with the target's types and collations. It is empty after each
/// transaction.
pub fn make(staged: Staged, table: &Table) -> String {
    let columns = staged.columns(table);
    let named = columns.iter().zip(numbered(columns.len()));
    format!(
        "drop table if exists pg_temp.{temporary};
         create temporary table {temporary} on commit delete rows as
         select 0 as n, {} from {} as t with no data",
        list(named.map(|(column, name)| format!("t.{column} as {name}"))),
        table.name,
        temporary = staged.table(),
    )
}

/// Takes numbered rows into a temporary table.
pub fn copy(staged: Staged) -> String {
    format!("copy pg_temp.{} from stdin (format binary)", staged.table())
}

/// Has ranges of a temporary table found without reading all of it.
pub fn index(staged: Staged) -> String {
    let temporary = staged.table();
    format!("create index if not exists {temporary}_n on pg_temp.{temporary} (n)")
}

/// Writes a range of the staged changes. What goes makes room before the rest comes, for unique
/// columns beside the key.
pub fn write(table: &Table, staged: &[Staged], range: &Range<usize>) -> String {
    let statements = [Staged::Gone, Staged::Rows].into_iter().filter(|s| staged.contains(s));
    list_of(statements.map(|s| match s {
        Staged::Gone => delete(table, range),
        Staged::Rows => upsert(table, range),
    }))
}

fn list_of(statements: impl Iterator<Item = String>) -> String {
    statements.collect::<Vec<_>>().join("; ")
}

fn delete(table: &Table, range: &Range<usize>) -> String {
    let same = table.key.iter().zip(numbered(table.key.len()));
    let same: Vec<String> =
        same.map(|(k, name)| format!("t.{} {} s.{name}", k.name, k.equals)).collect();
    format!(
        "delete from {} as t using pg_temp.coco_gone as s where {} and {}",
        table.name,
        within(range),
        same.join(" and ")
    )
}

/// Writes the rows that differ from those there. Returns how many had no row there, as far as that
/// is known: not of a table that is partitioned.
fn upsert(table: &Table, range: &Range<usize>) -> String {
    let row = |of: &str| list(table.columns.iter().map(|c| format!("{of}.{c}")));
    // `*<>` compares the images of rows: it knows every type, those without equality (json) too,
    // and tells apart what is equal and yet not the same (1.0 and 1.00).
    let insert = format!(
        "insert into {name} as t ({columns})
         select {staged} from pg_temp.coco_rows as s where {within}
         on conflict ({key}) do update set {set}
          where row({old})::record operator(pg_catalog.*<>) row({new})::record",
        name = table.name,
        columns = table.columns.join(", "),
        staged = list(numbered(table.columns.len()).map(|name| format!("s.{name}"))),
        within = within(range),
        key = list(table.key.iter().map(|k| k.name.clone())),
        set = list(table.columns.iter().map(|c| format!("{c} = excluded.{c}"))),
        old = row("t"),
        new = row("excluded"),
    );
    match table.is_partitioned {
        // A row that was routed to a partition has no system columns to return.
        true => insert,
        // Only a row that was not there before has no xmax.
        false => format!(
            "with written as ({insert} returning xmax = 0 as new)
             select count(*) filter (where new) from written"
        ),
    }
}

fn within(range: &Range<usize>) -> String {
    format!("s.n >= {} and s.n < {}", range.start, range.end)
}
