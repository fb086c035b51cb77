//! The SQL statements that write a batch of changes.
//!
//! Rows, and the keys of rows to delete, are copied into temporary tables, with their indexes in
//! the batch. Two statements then write any range of the changes to the target.

use std::collections::BTreeSet;
use std::ops::Range;

use super::table::{self, Table};

/// The changes that a temporary table receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// New rows, with all columns.
    Rows,
    /// Keys of rows to delete.
    Gone,
}

impl Staged {
    fn table(self) -> &'static str {
        match self {
            Staged::Rows => "coco_rows",
            Staged::Gone => "coco_gone",
        }
    }

    /// Returns the target columns that the temporary table has after its own column `n`.
    pub fn columns(self, table: &Table) -> Vec<&str> {
        match self {
            Staged::Rows => table.columns.iter().map(String::as_str).collect(),
            Staged::Gone => table.key.iter().map(|k| k.name.as_str()).collect(),
        }
    }
}

/// Returns `c1`, `c2`, …: these names cannot clash with `n`.
fn numbered(count: usize) -> impl Iterator<Item = String> {
    (1..=count).map(|n| format!("c{n}"))
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// Begins a transaction and locks the definition of the table. Returns the current signature, to
/// compare with [`Table::signature`].
pub fn begin(table: &Table) -> String {
    // A constraint that is only checked at commit would reject all changes, and name none.
    format!(
        "begin isolation level read committed;
         lock table only {} in row exclusive mode;
         set constraints all immediate;
         {}",
        table.name,
        table::signature(table.oid)
    )
}

/// Copies rows directly into the table.
pub fn copy_directly(table: &Table) -> String {
    format!("copy {} ({}) from stdin (format binary)", table.name, table.columns.join(", "))
}

/// Creates a temporary table with the target's types and collations. It is empty after each
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

/// Copies numbered rows into a temporary table.
pub fn copy(staged: Staged) -> String {
    format!("copy pg_temp.{} from stdin (format binary)", staged.table())
}

/// Creates an index, so that a range of a temporary table is found without reading all of it.
pub fn index(staged: Staged) -> String {
    let temporary = staged.table();
    format!("create index if not exists {temporary}_n on pg_temp.{temporary} (n)")
}

/// Writes a range of the staged changes, except those in `left_out`. Deletes come first: they free
/// values of unique columns other than the key.
pub fn write(
    table: &Table,
    staged: &[Staged],
    range: &Range<usize>,
    left_out: &BTreeSet<usize>,
) -> String {
    let within = within(range, left_out);
    let statements = [Staged::Gone, Staged::Rows].into_iter().filter(|s| staged.contains(s));
    list_of(statements.map(|s| match s {
        Staged::Gone => delete(table, &within),
        Staged::Rows => upsert(table, &within),
    }))
}

/// Deletes the existing rows that are to change one of these columns, except those in `left_out`.
/// They are then inserted again, so they can swap such values.
pub fn displace(table: &Table, columns: &[String], left_out: &BTreeSet<usize>) -> String {
    let changed = table.columns.iter().zip(numbered(table.columns.len()));
    let changed: Vec<_> = changed.filter(|(column, _)| columns.contains(column)).collect();
    let same = table.columns.iter().zip(numbered(table.columns.len())).filter_map(|(c, staged)| {
        let key = table.key.iter().find(|k| k.name == *c)?;
        Some(format!("t.{c} {} s.{staged}", key.equals))
    });
    format!(
        "delete from {} as t using pg_temp.coco_rows as s
          where {} and row({})::record operator(pg_catalog.*<>) row({})::record{}",
        table.name,
        same.collect::<Vec<_>>().join(" and "),
        list(changed.iter().map(|(c, _)| format!("t.{c}"))),
        list(changed.iter().map(|(_, staged)| format!("s.{staged}"))),
        but_for(left_out),
    )
}

/// The columns, quoted, of a table's unique indexes and exclusion constraints, except an index on
/// the key alone. Includes columns in their expressions and predicates.
pub const CONSTRAINED: &str = "
with constrained as (
  select i.indexrelid, a.attname::text as name
    from pg_index i
    join pg_attribute a on a.attrelid = i.indrelid
     and (a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
          or exists (select from pg_depend d
                      where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
                        and d.refclassid = 'pg_class'::regclass and d.refobjid = i.indrelid
                        and d.refobjsubid = a.attnum))
   where i.indrelid = $1::oid and a.attnum > 0 and (i.indisunique or i.indisexclusion))
select distinct name from constrained c
 where exists (select from constrained other
                where other.indexrelid = c.indexrelid and quote_ident(other.name) <> all ($2::text[]))";

fn list_of(statements: impl Iterator<Item = String>) -> String {
    statements.collect::<Vec<_>>().join("; ")
}

fn delete(table: &Table, within: &str) -> String {
    let same = table.key.iter().zip(numbered(table.key.len()));
    let same: Vec<String> =
        same.map(|(k, name)| format!("t.{} {} s.{name}", k.name, k.equals)).collect();
    format!(
        "delete from {} as t using pg_temp.coco_gone as s where {within} and {}",
        table.name,
        same.join(" and ")
    )
}

/// Writes the rows that differ from the existing ones. Returns how many rows were new. That is
/// unknown if the table is partitioned.
fn upsert(table: &Table, within: &str) -> String {
    let row = |of: &str| list(table.columns.iter().map(|c| format!("{of}.{c}")));
    // `*<>` compares the binary images of rows. It works for every type, including those without
    // equality (json), and distinguishes values that are equal but not identical (1.0 and 1.00).
    let insert = format!(
        "insert into {name} as t ({columns})
         select {staged} from pg_temp.coco_rows as s where {within}
         on conflict ({key}) do update set {set}
          where row({old})::record operator(pg_catalog.*<>) row({new})::record",
        name = table.name,
        columns = table.columns.join(", "),
        staged = list(numbered(table.columns.len()).map(|name| format!("s.{name}"))),
        key = list(table.key.iter().map(|k| k.name.clone())),
        set = list(table.columns.iter().map(|c| format!("{c} = excluded.{c}"))),
        old = row("t"),
        new = row("excluded"),
    );
    match table.is_partitioned {
        // A row that was routed to a partition has no system columns to return.
        true => insert,
        // Only a new row has no xmax.
        false => format!(
            "with written as ({insert} returning xmax = 0 as new)
             select count(*) filter (where new) from written"
        ),
    }
}

fn within(range: &Range<usize>, left_out: &BTreeSet<usize>) -> String {
    format!("s.n >= {} and s.n < {}{}", range.start, range.end, but_for(left_out))
}

fn but_for(left_out: &BTreeSet<usize>) -> String {
    if left_out.is_empty() {
        return String::new();
    }
    format!(
        " and s.n <> all ('{{{}}}'::pg_catalog.int4[])",
        list(left_out.iter().map(usize::to_string))
    )
}
