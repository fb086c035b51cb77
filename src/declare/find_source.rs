//! Finds the source, its key and the target key of a query that is declared without them.
//!
//! Caller: `declaration`, for `coco.create_flow` and `coco.plan`.

use pgrx::pg_sys;
use std::collections::BTreeSet;

use crate::catalog::flow_rows;
use crate::declare::flow_settings::changed_settings;
use crate::pg::acting_role::{self, RoleGuard, SavedGucs};
use crate::pg::columns;
use crate::pg::error::{Error, Result};
use crate::pg::relations;
use crate::pg::spi;
use crate::pg::subtransaction;
use crate::query::bound_query::{self, Bound};
use crate::query::join_paths::PrimaryKeys;
use crate::query::named_source::Named;
use crate::query::query_shape::{self, GroupedBy, OutputColumn, QueryShape, ReadColumn};
use crate::query::syntax;
use crate::query::used_columns;

/// What a declaration says of a source and a target.
pub struct PartialParts<'a> {
    pub flow: &'a str,
    pub search_path: &'a str,
    pub settings: Option<&'a serde_json::Value>,
    pub query: &'a str,
    pub source: Option<pg_sys::Oid>,
    pub name: Option<&'a str>,
    pub source_key: Option<&'a [String]>,
    pub key: Option<&'a [String]>,
    pub item: Option<&'a str>,
}

/// The source and the keys of a query.
pub struct FoundParts {
    pub relation: pg_sys::Oid,
    /// The columns that identify an item; `None` for the primary key.
    pub source_key: Option<Vec<String>>,
    /// The alias of the item, if the query reads the relation several times.
    pub item: Option<String>,
    pub key: Vec<String>,
}

/// Finds what a declaration does not say. Keeps no locks.
pub fn find_parts(given: &PartialParts) -> Result<FoundParts> {
    // Binding a query locks the relations in it.
    subtransaction::look(|| find(given))
}

fn find(given: &PartialParts) -> Result<FoundParts> {
    let owner = match flow_rows::is_flow(given.flow)? {
        true => flow_rows::identify_flow(given.flow).map(|flow| flow.owner).ok(),
        false => None,
    };
    let owner = owner.unwrap_or_else(acting_role::current);
    let settings = SavedGucs::of_caller(given.search_path)?;
    let settings = changed_settings(&settings, owner, None, given.settings)?;
    let text = syntax::one_select(given.query)?;
    let named: Vec<Named> = match (given.source, given.name) {
        (None, _) => vec![],
        (Some(relation), Some(name)) => vec![used_columns::named(1, name, relation)?],
        (Some(relation), None) => {
            let (schema, table) = spi::relation_parts(relation)?;
            vec![Named { name: table.clone(), relation, id: 1, schema, table }]
        }
    };
    let acting = RoleGuard::flow_owner(owner, &settings)?;
    let item = given.item.filter(|_| given.source.is_some());
    let bound = bound_query::bind_query("query", &text, &named, item)?;
    let without_items = Bound { tree: bound.tree, places: [].into() };
    let shape = query_shape::describe_query(&without_items)?;
    drop(acting);
    let mut keys = PrimaryKeys::new();
    for reading in &shape.joins.readings {
        let key = relations::primary_key_numbers(reading.relation)?;
        keys.insert(reading.relation.to_u32(), key);
    }
    let finder = Finder { given, shape: &shape, keys: &keys };
    let chosen = finder.choose()?;
    let relation = match (&chosen, given.source) {
        (_, Some(relation)) => relation,
        (Some(chosen), None) => shape.relation(chosen.reading),
        (None, None) => return Err(no_source()),
    };
    let key = match (given.key, &chosen) {
        (Some(key), _) => key.to_vec(),
        (None, Some(chosen)) => finder.target_key(chosen)?.ok_or_else(no_key)?,
        (None, None) => return Err(no_key()),
    };
    let places = bound_query::count_places(bound.tree, relation);
    let alias = chosen.as_ref().map(|chosen| finder.alias(chosen.reading));
    let item = match (given.item, given.source) {
        (Some(item), _) => Some(item.to_owned()),
        (None, None) if places > 1 => alias,
        _ => None,
    };
    let of_groups = chosen.and_then(|chosen| chosen.group);
    let source_key = match (given.source_key, of_groups) {
        (Some(key), _) => Some(key.to_vec()),
        (None, Some(group)) => Some(key_texts(relation, &group)?),
        (None, None) => None,
    };
    Ok(FoundParts { relation, source_key, item, key })
}

/// A place in FROM that can be the item.
#[derive(Clone, Debug)]
struct Candidate {
    reading: usize,
    /// What the query groups by, if the items are groups.
    group: Option<Vec<GroupedBy>>,
}

struct Finder<'a> {
    given: &'a PartialParts<'a>,
    shape: &'a QueryShape,
    keys: &'a PrimaryKeys,
}

impl Finder<'_> {
    fn primary_key(&self, reading: usize) -> &[i16] {
        self.keys.get(&self.shape.relation(reading).to_u32()).map_or(&[], Vec::as_slice)
    }

    fn alias(&self, reading: usize) -> String {
        let item = self.shape.from.iter().find(|item| item.reading == Some(reading));
        item.map(|item| item.alias.clone()).unwrap_or_default()
    }

    /// Returns the readings in FROM that an outer join does not replace by NULL: the query's result
    /// for all rows is the union of its results for each of them.
    fn kept_readings(&self) -> Vec<usize> {
        self.shape.from.iter().filter(|f| !f.is_nullable).filter_map(|f| f.reading).collect()
    }

    /// Chooses the item; `None` if the query does not tell it.
    fn choose(&self) -> Result<Option<Candidate>> {
        let mut all = self.candidates();
        if let Some(relation) = self.given.source {
            let is_source = |reading: usize| self.shape.relation(reading) == relation;
            all.retain(|candidate| is_source(candidate.reading));
            if all.is_empty() {
                let place = self.kept_readings().into_iter().find(|r| is_source(*r));
                return Ok(place.map(|reading| Candidate { reading, group: None }));
            }
        }
        if let Some(alias) = self.given.item {
            all.retain(|candidate| self.alias(candidate.reading) == alias);
        }
        match all.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            [first, ..] if self.given.source.is_some() => Ok(Some(first.clone())),
            several => {
                let mut shown = Vec::new();
                for candidate in several {
                    let relation = self.shape.relation(candidate.reading);
                    let name = spi::relation_name(relation)?.unwrap_or_default();
                    shown.push(format!("{name} AS {}", spi::ident(&self.alias(candidate.reading))));
                }
                Err(several_sources(self.given.flow, &shown))
            }
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let kept = self.kept_readings();
        let row = |reading: usize| Candidate { reading, group: None };
        let Some(groups) = &self.shape.groups else {
            let has_key = |reading: &usize| {
                let key = self.primary_key(*reading);
                !key.is_empty() && self.shape.outputs_of(*reading, key).is_some()
            };
            let all: Vec<usize> = kept.into_iter().filter(has_key).collect();
            let decides_all = |reading: usize| {
                self.shape.has_only(&self.shape.determined_by(&[reading], self.keys))
            };
            return preferred(all, decides_all).into_iter().map(row).collect();
        };
        if groups.contains(&GroupedBy::Other) {
            return vec![];
        }
        let groups_by_row = |reading: &usize| {
            let key = self.primary_key(*reading);
            let is_grouped = |column: &i16| {
                let column = ReadColumn { reading: *reading, column: *column };
                groups.contains(&GroupedBy::Column(column))
            };
            !key.is_empty() && key.iter().all(is_grouped)
        };
        let rows: Vec<usize> = kept.iter().copied().filter(groups_by_row).collect();
        if !rows.is_empty() {
            let decides_all = |reading: usize| self.decides(reading, groups);
            return preferred(rows, decides_all).into_iter().map(row).collect();
        }
        let readings: BTreeSet<usize> = groups.iter().filter_map(GroupedBy::reading).collect();
        let one = match readings.into_iter().collect::<Vec<_>>().as_slice() {
            [one] if kept.contains(one) => *one,
            _ => return vec![],
        };
        let mut group: Vec<GroupedBy> = Vec::new();
        for part in groups {
            if !group.contains(part) {
                group.push(part.clone());
            }
        }
        vec![Candidate { reading: one, group: Some(group) }]
    }

    /// Reports whether a row of a reading decides the values that the query groups by.
    fn decides(&self, reading: usize, groups: &[GroupedBy]) -> bool {
        let determined = self.shape.determined_by(&[reading], self.keys);
        let is_decided = |of: usize| determined.contains(&of);
        groups.iter().all(|group| group.reading().is_some_and(is_decided))
    }

    /// Returns the columns of the query that identify one row of its result, if they are known.
    fn target_key(&self, chosen: &Candidate) -> Result<Option<Vec<String>>> {
        let reading = chosen.reading;
        let primary = self.primary_key(reading).to_vec();
        let items = match (self.given.source_key, &chosen.group) {
            (Some(names), _) => column_numbers(self.shape.relation(reading), names)?,
            (None, Some(_)) => vec![],
            (None, None) => primary.clone(),
        };
        if let Some(groups) = &self.shape.groups {
            if chosen.group.is_none() && items == primary && self.decides(reading, groups) {
                return Ok(self.shape.outputs_of(reading, &items));
            }
            let output = |group: &GroupedBy| match group {
                GroupedBy::Column(column) => {
                    let is_it = |o: &&OutputColumn| o.is_grouped && o.origin == Some(*column);
                    self.shape.outputs.iter().find(is_it).map(|o| o.name.clone())
                }
                GroupedBy::Expression { output, .. } => output.clone(),
                GroupedBy::Other => None,
            };
            let names: Option<Vec<String>> = groups.iter().map(output).collect();
            return Ok(names.map(without_repetition).filter(|names| !names.is_empty()));
        }
        if self.shape.from.is_empty() || primary.is_empty() {
            return Ok(None);
        }
        let mut known = vec![];
        let mut names = vec![];
        if items == primary {
            let Some(own) = self.shape.outputs_of(reading, &primary) else { return Ok(None) };
            (known, names) = (vec![reading], own);
        }
        loop {
            let determined = self.shape.determined_by(&known, self.keys);
            if self.shape.has_only(&determined) {
                return Ok(Some(without_repetition(names)));
            }
            let next = self.kept_readings().into_iter().find_map(|other| {
                let key = self.primary_key(other);
                let is_open = !determined.contains(&other) && !key.is_empty();
                let outputs = self.shape.outputs_of(other, key).filter(|_| is_open)?;
                Some((other, outputs))
            });
            let Some((other, outputs)) = next else { return Ok(None) };
            known.push(other);
            names.extend(outputs);
        }
    }
}

/// Returns the readings that decide everything, or all of them if there is none.
fn preferred(all: Vec<usize>, decides_all: impl Fn(usize) -> bool) -> Vec<usize> {
    let best: Vec<usize> = all.iter().copied().filter(|r| decides_all(*r)).collect();
    if best.is_empty() { all } else { best }
}

fn without_repetition(names: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

/// Returns a source key that consists of what a query groups by.
fn key_texts(relation: pg_sys::Oid, group: &[GroupedBy]) -> Result<Vec<String>> {
    let all = columns::numbers(relation)?;
    let text = |part: &GroupedBy| match part {
        GroupedBy::Column(of) => {
            all.iter().find(|(n, _)| *n == of.column).map(|(_, name)| name.clone())
        }
        GroupedBy::Expression { text, output: Some(output), .. } => {
            Some(format!("{text} AS {}", spi::ident(output)))
        }
        GroupedBy::Expression { text, output: None, .. } => Some(text.clone()),
        GroupedBy::Other => None,
    };
    Ok(group.iter().filter_map(text).collect())
}

/// Returns the numbers of these columns. Leaves out names that do not exist: `add_source` raises the
/// error.
fn column_numbers(relation: pg_sys::Oid, wanted: &[String]) -> Result<Vec<i16>> {
    let all = columns::numbers(relation)?;
    let number = |name: &String| all.iter().find(|(_, n)| n == name).map(|(number, _)| *number);
    Ok(wanted.iter().filter_map(number).collect())
}

fn no_source() -> Error {
    Error::invalid("argument \"source\" is missing")
        .detail("coco finds the source if the query's columns contain the primary key of a table in its FROM clause, or if the query groups by columns of one relation.")
        .hint("Add the key to the query's columns, or name the source with the argument \"source\".")
}

fn no_key() -> Error {
    Error::invalid("argument \"key\" is missing")
        .detail("The query's columns do not contain primary keys that identify each row of its result.")
        .hint("Specify the columns of the query that identify one row of the target, for example key => '{id}'.")
}

fn several_sources(flow: &str, shown: &[String]) -> Error {
    Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_AMBIGUOUS_ALIAS,
        format!("the query of flow \"{flow}\" has several possible sources"),
    )
    .detail(format!("Its columns contain the keys of: {}.", shown.join(", ")))
    .hint("Name the relation whose rows are the items with the argument \"source\".")
}
