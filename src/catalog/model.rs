//! A declared flow, as the catalog holds it.

use pgrx::pg_sys;
use std::rc::Rc;

use crate::capture;
use crate::memo::called_functions::Function;
use crate::pg::acting_role::Settings;
use crate::pg::spi;
use crate::query::bound_query::Places;

#[derive(Clone, Debug)]
pub struct Flow {
    pub name: String,
    pub id: i32,
    pub owner: pg_sys::Oid,
    /// What it was declared under, and always runs under.
    pub settings: Settings,
    /// Workers keep its targets up to date.
    pub live: bool,
    /// Nothing is updated or sent.
    pub paused: bool,
    /// Items evaluated and written as one batch; `None`: what the setting says.
    pub batch_size: Option<i32>,
    pub sources: Vec<Source>,
    pub lookups: Vec<Lookup>,
    pub targets: Vec<Target>,
    /// All relations that it reads; known where the flow is loaded to be run.
    pub reads: Vec<pg_sys::Oid>,
    /// The memoised functions that its queries call; known where the flow is loaded to be run.
    pub memoised: Vec<Rc<Function>>,
    /// The table of their results, quoted and schema-qualified, once there is one.
    pub memo: Option<String>,
}

impl Flow {
    /// Whether any of its targets is outside this database.
    pub fn is_external(&self) -> bool {
        self.targets.iter().any(|t| t.external.is_some())
    }

    /// Whether its queries call functions that ask a provider over the network.
    pub fn asks_providers(&self) -> bool {
        self.memoised.iter().any(|f| f.kind.is_provided())
    }

    /// All relations that are followed: sources and lookups.
    pub fn followed(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().chain(self.lookups.iter().map(|l| &l.relation))
    }
}

/// A relation that the query reads besides its sources, and whose changes are followed.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// How it is read: as a source is, with a tracking table of what was seen.
    pub relation: Source,
    /// The id of the source whose items its changes affect.
    pub of: i32,
    /// The query from its changed keys to keys of the source; `None`: every item is affected.
    pub affects: Option<BoundView>,
}

/// A query that was bound when it was declared: the view that keeps its tree.
#[derive(Clone, Debug)]
pub struct BoundView {
    pub view: pg_sys::Oid,
    /// Quoted and schema-qualified.
    pub name: String,
    /// Where it reads items.
    pub places: Places,
}

/// The expressions over a source's columns that were declared with it, bound.
#[derive(Clone, Debug)]
pub struct Expressions {
    /// Its columns are `ordinal` and `fingerprint`.
    pub bound: BoundView,
    /// The columns that they use.
    pub used: Vec<Column>,
}

#[derive(Clone, Debug)]
pub struct Source {
    pub id: i32,
    /// What the query calls it.
    pub name: String,
    pub relation: pg_sys::Oid,
    /// Quoted and schema-qualified.
    pub relation_name: String,
    pub key: Vec<Column>,
    /// Whether an item is the group of the rows that share the key.
    pub grouped: bool,
    /// Items are rows because an ordinal was declared. No index holds the key unique: scans check it.
    pub promised: bool,
    /// What grows with each version of an item, as it was declared.
    pub ordinal: Option<String>,
    /// What replaces the used columns in the content fingerprint, as it was declared.
    pub fingerprint: Option<String>,
    /// Both, as they are evaluated.
    pub expressions: Option<Expressions>,
    /// The columns the flow's queries read, in the relation's order.
    pub used: Vec<Column>,
    pub capture: capture::Mode,
    /// How often a live flow reads a source that is not captured; `None`: the default.
    pub refresh: Option<std::time::Duration>,
    /// The tracking table, quoted and schema-qualified: for statements as the extension's owner.
    pub tracking: String,
    /// The view of it, for statements as the flow's owner.
    pub tracking_view: String,
}

impl Source {
    /// The columns of its key in a relation of this alias, of the types of the tracking table.
    pub fn key_of(&self, alias: &str) -> Vec<String> {
        self.key.iter().map(|k| k.as_stored(&format!("{alias}.{}", k.quoted()))).collect()
    }
}

#[derive(Clone, Debug)]
pub struct Target {
    pub id: i32,
    pub schema: String,
    pub name: String,
    /// `None` where somebody dropped the table.
    pub relation: Option<pg_sys::Oid>,
    pub query: String,
    pub columns: Vec<Column>,
    pub key: Vec<Column>,
    pub key_names: Vec<String>,
    /// For each column of the source key, the target key column that always equals it; where this
    /// is known, the rows of an item are those with its key, and no list of them is kept.
    pub covered: Option<Vec<String>>,
    /// Made by coco (and altered and dropped by it), not adopted.
    pub made: bool,
    pub incarnation: i32,
    /// Its query as it was bound; `None` where something that it reads was dropped.
    pub bound: Option<BoundView>,
    /// Where it is outside this database: then relation is its ledger, and schema and name are those of the
    /// ledger's view.
    pub external: Option<External>,
}

/// A target outside this database.
#[derive(Clone, Debug)]
pub struct External {
    /// What it is called there.
    pub name: String,
    /// A foreign server, by its name.
    pub server: String,
    pub options: serde_json::Map<String, serde_json::Value>,
    /// The tables of its keys and of what is to be sent, quoted and schema-qualified: for statements as the
    /// extension's owner.
    pub ledger: String,
    pub outbox: String,
    /// The view of the outbox, for statements as the flow's owner.
    pub outbox_view: String,
    /// What its columns `c1…` are of the target's.
    pub columns: Vec<String>,
}

/// A column with what is needed to declare and compare it.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub type_oid: pg_sys::Oid,
    pub typmod: i32,
    pub collation: pg_sys::Oid,
    /// As SQL, with its modifiers.
    pub type_name: String,
    /// The equality operator of the type's default btree operator class, as
    /// `operator(schema.=)`. `None` where the type has no such class.
    pub equals: Option<String>,
    pub kept: Kept,
}

/// What values of a column are kept as in coco's own tables.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    Same,
    /// The column's type is a domain: this is its base type, without modifiers.
    Base {
        type_oid: pg_sys::Oid,
        type_name: String,
    },
    /// To handle values of the type can run a user's code: they are kept as text in JSON.
    Json,
}

impl Column {
    pub fn quoted(&self) -> String {
        spi::ident(&self.name)
    }

    /// The column that holds its values in a table of coco's own.
    pub fn stored(&self) -> Column {
        match &self.kept {
            Kept::Same => self.clone(),
            Kept::Base { type_oid, type_name } => Column {
                type_oid: *type_oid,
                typmod: -1,
                type_name: type_name.clone(),
                ..self.clone()
            },
            Kept::Json => Column {
                type_oid: pg_sys::JSONOID,
                typmod: -1,
                collation: pg_sys::InvalidOid,
                type_name: "pg_catalog.json".to_owned(),
                equals: None,
                ..self.clone()
            },
        }
    }

    /// A value of the column's as the value that is stored: evaluated as the flow's owner.
    pub fn as_stored(&self, value: &str) -> String {
        match &self.kept {
            Kept::Same => value.to_owned(),
            Kept::Base { type_name, .. } => format!("({value})::{type_name}"),
            Kept::Json => format!("pg_catalog.to_json({value})"),
        }
    }

    /// `a = b`, with the operator spelled out, so that no search path decides it.
    pub fn equality(&self, a: &str, b: &str) -> String {
        // Keys are checked to have one when they are declared.
        let equals = self.equals.as_deref().unwrap_or("operator(pg_catalog.=)");
        format!("{a} {equals} {b}")
    }
}

impl Target {
    /// The view that keeps its query.
    pub fn query_view(&self) -> Option<pg_sys::Oid> {
        self.bound.as_ref().map(|bound| bound.view)
    }

    /// The table that its statements write, quoted and schema-qualified; of a target outside this database the view
    /// of its ledger.
    pub fn relation_name(&self) -> String {
        spi::qualified(&self.schema, &self.name)
    }

    /// What users know it by.
    pub fn shown(&self) -> String {
        match &self.external {
            Some(external) => format!("\"{}\" on server {}", external.name, external.server),
            None => self.relation_name(),
        }
    }
}

/// The columns that hold the values of these in coco's own tables.
pub fn stored(columns: &[Column]) -> Vec<Column> {
    columns.iter().map(Column::stored).collect()
}

/// `prefix1, prefix2, …` for as many as there are.
pub fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|i| format!("{prefix}{i}")).collect()
}

/// Equality of two lists of expressions under the columns' own operators.
pub fn all_equal(columns: &[Column], a: &[String], b: &[String]) -> String {
    let each: Vec<String> =
        columns.iter().zip(a.iter().zip(b)).map(|(c, (a, b))| c.equality(a, b)).collect();
    each.join(" and ")
}
