//! The shapes: tables, functions over them, and flows with the queries their targets may get.
//! Names stand as SQL writes them, quoted where they must be.

mod groups;
mod keys;
mod rows;
mod values;

use fastrand::Rng;

pub struct Shape {
    pub name: &'static str,
    pub setup: &'static str,
    pub tables: &'static [Table],
    /// Each a list of statements that make it; the first is how it begins.
    pub functions: &'static [&'static [&'static str]],
    pub flows: &'static [Flow],
}

pub struct Table {
    pub name: &'static str,
    /// The primary key.
    pub key: &'static [&'static str],
    pub columns: &'static [(&'static str, Value)],
    /// A column that may come and go while no query uses it.
    pub spare: Option<&'static str>,
    /// Further statements; `{a}` and `{b}` are numbers of the key space.
    pub more: &'static [&'static str],
}

/// A random value, as SQL.
pub type Value = fn(&mut Rng) -> String;

pub struct Flow {
    pub name: &'static str,
    pub sources: &'static [Source],
    pub targets: &'static [Target],
    /// Items may claim the same target key. Queries then give the item's `id`, an int.
    pub contested: bool,
}

pub struct Source {
    pub name: &'static str,
    pub table: usize,
    pub key: &'static [&'static str],
    pub grouped: bool,
}

pub struct Target {
    pub name: &'static str,
    pub key: &'static [&'static str],
    pub queries: &'static [Query],
}

pub struct Query {
    pub sql: &'static str,
    /// The columns it uses of each source.
    pub used: &'static [&'static [&'static str]],
    /// Functions it reaches, by their numbers.
    pub calls: &'static [usize],
    pub whole_row: bool,
}

const fn query(sql: &'static str, used: &'static [&'static [&'static str]]) -> Query {
    Query { sql, used, calls: &[], whole_row: false }
}

const fn calling(
    calls: &'static [usize],
    sql: &'static str,
    used: &'static [&'static [&'static str]],
) -> Query {
    Query { sql, used, calls, whole_row: false }
}

pub const SHAPES: &[Shape] = &[
    rows::ONE_ROW_AN_ITEM,
    rows::MANY_ROWS_AN_ITEM,
    groups::ONE_ITEM_A_GROUP,
    groups::TWO_SOURCES,
    keys::COMPUTED_KEYS,
    keys::KEYS_THAT_LOOK_DIFFERENT,
    keys::CONTESTED_KEYS,
];
