//! Random statements that change data. `{salt}` makes what is picked a matter of the seed.

use fastrand::Rng;

use super::shapes::Table;

pub(super) fn insert(table: &Table, rng: &mut Rng, rows: usize) -> String {
    let columns: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
    let rows: Vec<String> = (0..rows)
        .map(|_| {
            let values: Vec<String> = table.columns.iter().map(|(_, value)| value(rng)).collect();
            format!("({})", values.join(", "))
        })
        .collect();
    let columns = columns.join(", ");
    format!(
        "insert into {} ({columns}) values {} on conflict do nothing",
        table.name,
        rows.join(", ")
    )
}

pub(super) fn upsert(table: &Table, rng: &mut Rng) -> String {
    let sets: Vec<String> =
        table.columns.iter().map(|(c, _)| format!("{c} = excluded.{c}")).collect();
    insert(table, rng, 1).replace(
        "do nothing",
        &format!("({}) do update set {}", table.key.join(", "), sets.join(", ")),
    )
}

/// Sets a column that is not of the key, to another value or to the one it has.
pub(super) fn set(table: &Table, rng: &mut Rng, same: bool, condition: &str) -> String {
    let others: Vec<_> = table.columns.iter().filter(|(c, _)| !table.key.contains(c)).collect();
    let (column, value) = others[rng.usize(0..others.len())];
    let value = if same { (*column).to_owned() } else { value(rng) };
    format!("update {} set {column} = {value} where {condition}", table.name)
}

/// Gives a row another key, if that is free.
pub(super) fn change_key(table: &Table, rng: &mut Rng) -> String {
    let column = table.key[rng.usize(0..table.key.len())];
    let (_, value) = table.columns.iter().find(|(c, _)| *c == column).expect("a key column");
    let value = value(rng);
    let taken: Vec<String> = table
        .key
        .iter()
        .map(|k| match *k == column {
            true => format!("u.{k} = {value}"),
            false => format!("u.{k} = {}.{k}", table.name),
        })
        .collect();
    format!(
        "update {t} set {column} = {value} where {one} and not exists (select from {t} u where {taken})",
        t = table.name,
        one = one(table),
        taken = taken.join(" and ")
    )
}

/// A condition that one row meets.
pub(super) fn one(table: &Table) -> String {
    let key = table.key.join(", ");
    format!(
        "({key}) = (select {key} from {} order by md5(row({key})::text || '{{salt}}') limit 1)",
        table.name
    )
}

/// A condition that about a third of the rows meet.
pub(super) fn some(table: &Table) -> String {
    format!("hashtext(row({})::text || '{{salt}}') % 3 = 0", table.key.join(", "))
}

pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
