//! A declared flow, as the catalog holds it.

use pgrx::pg_sys;
use std::rc::Rc;

use crate::catalog::memo_function::MemoFunction;
use crate::pg::acting_role::SavedGucs;
use crate::pg::columns::Column;
use crate::pg::spi;

#[derive(Clone, Debug)]
pub struct Flow {
    pub name: String,
    pub id: i32,
    pub owner: pg_sys::Oid,
    /// What it was declared under, and always runs under.
    pub settings: SavedGucs,
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
    pub memoised: Vec<Rc<MemoFunction>>,
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
    pub capture: CaptureMode,
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
    pub epoch: i32,
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

/// For each place in which a query reads the relation of a source, in the order of [`occurrences`]: the id of the
/// source whose item it is, or 0 where it reads the whole relation.
pub type Places = Rc<[i32]>;

/// How the changes of a source are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    /// By comparing all of it with what is tracked.
    Scan,
    /// Triggers note each change.
    Trigger,
    /// The same, also for changes applied by logical replication or with session_replication_role
    /// set to replica.
    Always,
}

impl CaptureMode {
    pub fn from_name(name: &str) -> Option<CaptureMode> {
        match name {
            "scan" => Some(CaptureMode::Scan),
            "trigger" => Some(CaptureMode::Trigger),
            "always" => Some(CaptureMode::Always),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            CaptureMode::Scan => "scan",
            CaptureMode::Trigger => "trigger",
            CaptureMode::Always => "always",
        }
    }
}
