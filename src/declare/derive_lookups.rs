//! Derives the lookups of a flow from its queries, and keeps them as the queries need them.
//!
//! Callers: `add_target`, `replace`, `inspect`.

use pgrx::pg_sys;
use std::collections::BTreeSet;

use crate::capture::triggers;
use crate::catalog::model::{Flow, Lookup, Source};
use crate::declare::add_lookup::{self, NewLookup, OtherPlaces};
use crate::declare::add_source::{self, SourceColumns};
use crate::declare::derived_affects::{self, Affected};
use crate::declare::{check_query, drop_lookup, source_key};
use crate::flows::{load, upstream};
use crate::pg::acting_role::{RoleGuard, SEARCH_PATH, SavedGucs};
use crate::pg::columns::{self, Column, StoredType};
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::notice::notice_with_detail;
use crate::pg::spi::{self, arg};

/// Whether coco derives the lookups of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupMode {
    Derive,
    None,
}

impl LookupMode {
    /// Returns the mode that a value of the argument `lookups` stands for.
    pub fn from_argument(value: &str) -> Result<LookupMode> {
        match value {
            "derive" => Ok(LookupMode::Derive),
            "none" => Ok(LookupMode::None),
            other => Err(Error::invalid(format!(
                "unrecognized value for argument \"lookups\": \"{other}\""
            ))
            .hint("Valid values are derive and none.")),
        }
    }

    pub fn of_flow(flow: &Flow) -> LookupMode {
        if flow.derives_lookups { LookupMode::Derive } else { LookupMode::None }
    }

    pub fn name(self) -> &'static str {
        match self {
            LookupMode::Derive => "derive",
            LookupMode::None => "none",
        }
    }
}

/// Stores whether coco derives the lookups of a flow. The caller holds the flow's lock.
pub fn store_mode(flow: &str, mode: LookupMode) -> Result<()> {
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "update coco_internal.flow set lookups = $2 where flow = $1",
        &[arg(flow), arg(mode.name())],
    )?;
    Ok(())
}

/// Changes whether coco derives the lookups of a flow, and drops or derives them.
pub fn change_mode(flow: &str, mode: LookupMode) -> Result<()> {
    store_mode(flow, mode)?;
    derive_again(flow)
}

/// A lookup that the queries of a flow need.
struct WantedLookup {
    name: String,
    relation: pg_sys::Oid,
    described: SourceColumns,
    key: Vec<Column>,
    /// The text of `affects`; `None`: a change affects every item.
    affects: Option<String>,
    /// The columns of the key that can be NULL, if the relation has no primary key.
    nullable: Vec<String>,
}

impl WantedLookup {
    /// Reports whether an existing lookup is the same.
    fn is(&self, lookup: &Lookup, affects: Option<&String>) -> bool {
        let relation = &lookup.relation;
        let key = relation.key.iter().map(|k| &k.name);
        relation.name == self.name
            && relation.relation == self.relation
            && key.eq(self.key.iter().map(|k| &k.name))
            && affects == self.affects.as_ref()
    }
}

/// Makes the derived lookups of a flow those that its queries need: drops others, and adds missing
/// ones. Lookups that were declared stay. The caller holds the flow's lock.
pub fn derive_again(flow: &str) -> Result<()> {
    let flow = load::load_for_update(flow)?;
    let wanted = match (flow.derives_lookups, flow.targets.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => wanted_lookups(&flow)?,
        (false, _) => vec![],
    };
    let texts = affects_texts(&flow)?;
    let text = |lookup: &Lookup| {
        texts.iter().find(|(id, _)| *id == lookup.relation.id).map(|(_, text)| text)
    };
    let is_wanted = |lookup: &&Lookup| wanted.iter().any(|w| w.is(lookup, text(lookup)));
    let derived: Vec<&Lookup> = flow.lookups.iter().filter(|l| l.is_derived).collect();
    let (kept, stale): (Vec<&Lookup>, Vec<&Lookup>) = derived.into_iter().partition(is_wanted);
    for lookup in &stale {
        drop_lookup::drop_lookup(lookup)?;
    }
    let is_there = |w: &&WantedLookup| kept.iter().any(|lookup| w.is(lookup, text(lookup)));
    let missing: Vec<&WantedLookup> = wanted.iter().filter(|w| !is_there(w)).collect();
    let source = flow.sources.first();
    for (new, source) in missing.iter().zip(std::iter::repeat(source).flatten()) {
        add(&flow, source, new)?;
        say_cost(&flow, new);
    }
    if !stale.is_empty() {
        triggers::end_unneeded(flow.owner)?;
    }
    let changed = !stale.is_empty() || !missing.is_empty();
    if changed {
        invalidation::note_change()?;
        upstream::check_no_cycle(&flow.name)?;
    }
    let flow = load::load_for_update(&flow.name)?;
    add_lookup::store_used(&flow)?;
    if flow.derives_lookups { check_query::warn_unfollowed(&flow) } else { Ok(()) }
}

/// Returns the texts of the derived queries `affects`, by the ids of the lookups.
fn affects_texts(flow: &Flow) -> Result<Vec<(i32, String)>> {
    let _as = RoleGuard::extension_owner()?;
    spi::select(
        "select id, affects from coco_internal.source where flow = $1 and derived and affects is not null",
        &[arg(flow.name.as_str())],
        |r| Ok((spi::required(r, 1)?, spi::required(r, 2)?)),
    )
}

/// Returns the lookups that the queries of a flow need, in addition to those that were declared.
fn wanted_lookups(flow: &Flow) -> Result<Vec<WantedLookup>> {
    let [source] = flow.sources.as_slice() else {
        return Err(add_source::cannot_derive(&flow.name));
    };
    let mut taken: BTreeSet<String> = flow.sources.iter().map(|s| s.name.clone()).collect();
    let declared: Vec<&Lookup> = flow.lookups.iter().filter(|l| !l.is_derived).collect();
    taken.extend(declared.iter().map(|l| l.relation.name.clone()));
    let source_key = derived_affects::key_of_source(source)?;
    let mut all = Vec::new();
    for (relation, affected) in derived_affects::find_affected(flow, source)? {
        let relation = pg_sys::Oid::from(relation);
        let is_declared = declared.iter().any(|l| l.relation.relation == relation);
        let is_target = flow.targets.iter().any(|t| t.relation == Some(relation));
        if is_declared || is_target || !can_be_lookup(relation)? {
            continue;
        }
        let described = || add_source::describe(relation, flow.owner, "lookup");
        let mut want = |key: Vec<Column>, nullable, affects: &dyn Fn(&str) -> Option<String>| {
            let described = described()?;
            let name = free_name(&described.name, &mut taken);
            let affects = affects(&name);
            all.push(WantedLookup { name, relation, described, key, affects, nullable });
            Ok::<(), Error>(())
        };
        match affected {
            Affected::Every => {
                if let Some(key) = key_of_every(relation, flow.owner)? {
                    want(key, vec![], &|_| None)?;
                }
            }
            Affected::Items(ways) => {
                for way in ways {
                    let (key, nullable) = key_of(relation, &way.columns)?;
                    want(key, nullable, &|name| Some(way.to_sql(source, &source_key, name)))?;
                }
            }
        }
    }
    Ok(all)
}

/// Reports whether a relation can be a lookup, and is not part of PostgreSQL.
fn can_be_lookup(relation: pg_sys::Oid) -> Result<bool> {
    if relation.to_u32() < pg_sys::FirstNormalObjectId {
        return Ok(false);
    }
    let found = spi::scalar::<bool>(
        "select relkind::pg_catalog.text operator(pg_catalog.=) any ('{r,p,v,m,f}')
           from pg_catalog.pg_class where oid operator(pg_catalog.=) $1",
        &[arg(relation)],
    )?;
    Ok(found == Some(true))
}

/// Returns a name for a lookup: the relation's name, with a number if the name is taken.
fn free_name(table: &str, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|n: u32| {
        let suffix = format!("_{n}");
        let mut end = table.len().min(LONGEST_NAME - suffix.len());
        while !table.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}{suffix}", &table[..end])
    });
    let mut names = std::iter::once(table.to_owned()).chain(numbered);
    let name = names.find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(name.clone());
    name
}

/// The largest number of bytes of a name.
const LONGEST_NAME: usize = 63;

/// Returns these columns as a key. A row with a NULL in its key equals no row of another relation, so
/// it affects no item. Also returns the names of columns that can be NULL, if the relation has no
/// primary key.
fn key_of(relation: pg_sys::Oid, names: &[String]) -> Result<(Vec<Column>, Vec<String>)> {
    let attributes = columns::of_relation(relation)?;
    let (mut key, mut nullable) = (Vec::new(), Vec::new());
    for name in names {
        let Some(found) = attributes.iter().find(|a| a.column.name == *name) else {
            return Err(Error::internal("a column of a lookup does not exist"));
        };
        if !found.not_null {
            nullable.push(name.clone());
        }
        key.push(found.column.clone());
    }
    // The change log tells such rows by their primary key.
    if source_key::primary_key(relation)?.is_some() {
        nullable.clear();
    }
    Ok((columns::stored(&key), nullable))
}

/// Returns the key of a lookup of which each change affects every item: the primary key, or else a
/// column that is never NULL; `None` if there is no such column that the owner may read.
fn key_of_every(relation: pg_sys::Oid, owner: pg_sys::Oid) -> Result<Option<Vec<Column>>> {
    let readable = spi::select(
        "select attname::pg_catalog.text from pg_catalog.pg_attribute
          where attrelid operator(pg_catalog.=) $1 and attnum operator(pg_catalog.>) 0
            and not attisdropped
            and pg_catalog.has_column_privilege($2, attrelid, attnum, 'select')",
        &[arg(relation), arg(owner)],
        |r| spi::required::<String>(r, 1),
    )?;
    let attributes = columns::of_relation(relation)?;
    let usable = |name: &String| {
        attributes.iter().find(|a| {
            a.column.name == *name
                && a.not_null
                && a.column.equals.is_some()
                && a.column.kept != StoredType::Json
                && readable.contains(name)
        })
    };
    let primary: Option<Vec<Column>> = source_key::primary_key(relation)?
        .and_then(|key| key.iter().map(|name| usable(name).map(|a| a.column.clone())).collect());
    let key = primary.filter(|key| !key.is_empty()).or_else(|| {
        let first = attributes.iter().find_map(|a| usable(&a.column.name))?;
        Some(vec![first.column.clone()])
    });
    Ok(key.map(|key| columns::stored(&key)))
}

fn add(flow: &Flow, source: &Source, new: &WantedLookup) -> Result<()> {
    let WantedLookup { name, relation, key, .. } = new;
    let affects = match &new.affects {
        None => None,
        Some(text) => {
            let shadow = add_lookup::shadow(*relation, name, key)?;
            let places = OtherPlaces::Allowed;
            // All names in the text are qualified, except those of types of pg_catalog.
            let mut qualifying = flow.clone();
            let path = SavedGucs::qualifying();
            qualifying.settings.replace(SEARCH_PATH, path.search_path());
            Some(add_lookup::check_affects(&qualifying, source, text, shadow, places)?)
        }
    };
    let described = SourceColumns {
        kind: new.described.kind.clone(),
        shown: new.described.shown.clone(),
        name: new.described.name.clone(),
    };
    let lookup = NewLookup {
        name: name.clone(),
        relation: *relation,
        described,
        key: key.clone(),
        affects,
        capture: "auto",
        refresh_interval: None,
        is_derived: true,
    };
    add_lookup::insert_lookup(flow, source, lookup)
}

/// Says in a NOTICE what a derived lookup costs, if a change of it costs more than the items that it
/// affects.
fn say_cost(flow: &Flow, new: &WantedLookup) {
    let shown = &new.described.shown;
    if new.affects.is_none() {
        notice_with_detail(
            format!("each change of {shown} evaluates every item of flow \"{}\"", flow.name),
            "No equality between columns leads from it to the item at each place where the query reads it. To evaluate only the affected items, declare the lookup with coco.add_lookup and the argument \"affects\".".to_owned(),
        );
    }
    if matches!(new.described.kind.as_str(), "v" | "m" | "f") {
        notice_with_detail(
            format!("each update reads {shown} as a whole"),
            "Only tables can have triggers that record each change.".to_owned(),
        );
    } else if !new.nullable.is_empty() {
        notice_with_detail(
            format!(
                "a change of a row with NULL in ({}) reads {shown} as a whole",
                new.nullable.join(", ")
            ),
            "Such a row affects no item, but the change log does not tell its change from a change of any row. Declare a primary key, or declare the column NOT NULL.".to_owned(),
        );
    }
}
