//! A declared flow, as loaded from the catalog. `flows` loads it; all rooms above read it.

use pgrx::pg_sys;
use std::rc::Rc;

use crate::catalog::group_state::GroupShape;
use crate::catalog::memo_function::MemoFunction;
use crate::pg::acting_role::SavedGucs;
use crate::pg::columns::Column;
use crate::pg::spi;
use coco_core::expectation::UnmetAction;

#[derive(Clone, Debug)]
pub struct Flow {
    pub name: String,
    pub id: i32,
    pub owner: pg_sys::Oid,
    /// The settings of its declaration, under which it always runs.
    pub settings: SavedGucs,
    /// Whether workers keep its targets up to date.
    pub live: bool,
    /// Whether coco neither updates nor delivers it.
    pub paused: bool,
    /// Whether workers update it by a schedule, and not after each commit.
    pub has_schedule: bool,
    /// The number of items that one batch evaluates and writes; `None` means the setting's value.
    pub batch_size: Option<i32>,
    /// The number of target rows that one update may write and delete; `None` means no limit.
    pub max_rows: Option<i64>,
    /// What one update may spend, in the unit of the servers' prices; `None` means no limit.
    pub max_cost: Option<f64>,
    /// The order in which an update that looks at all items of a source evaluates them; `None` means
    /// any order.
    pub fill_order: Option<FillOrder>,
    /// Whether coco derives lookups from its queries.
    pub derives_lookups: bool,
    /// Whether coco keeps the groups of its source by deltas.
    pub keeps_groups: bool,
    pub sources: Vec<Source>,
    pub lookups: Vec<Lookup>,
    pub targets: Vec<Target>,
    /// All relations that it reads; only set when the flow is loaded for execution.
    pub reads: Vec<pg_sys::Oid>,
    /// The memoized functions that its queries call; only set when the flow is loaded for
    /// execution.
    pub memoized: Vec<Rc<MemoFunction>>,
    /// Whether tables or columns that it uses have other names than the catalog has stored.
    pub has_new_names: bool,
    /// The table of the functions' results, quoted and schema-qualified, if it exists.
    pub memo: Option<String>,
}

impl Flow {
    /// Reports whether a target is outside this database.
    pub fn is_external(&self) -> bool {
        self.targets.iter().any(|t| t.external.is_some())
    }

    /// Returns the flow as an update reads it: see [`Source::by_states`].
    pub fn by_states(&self) -> Flow {
        Flow { sources: self.sources.iter().map(Source::by_states).collect(), ..self.clone() }
    }

    /// Reports whether its queries call functions whose results come from a provider.
    pub fn asks_providers(&self) -> bool {
        self.memoized.iter().any(|f| f.kind.is_provided())
    }

    /// Returns all relations whose changes coco follows: sources and lookups.
    pub fn followed(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().chain(self.lookups.iter().map(|l| &l.relation))
    }
}

/// A relation that the query reads in addition to its sources, and whose changes coco follows.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The relation, read like a source, with a tracking table of the keys seen.
    pub relation: Source,
    /// The id of the source whose items the lookup's changes affect.
    pub of: i32,
    /// The query from the lookup's changed keys to keys of the source; `None` if a change affects
    /// every item.
    pub affects: Option<BoundView>,
    /// Whether coco derived it from the flow's queries.
    pub is_derived: bool,
}

/// The alias of the changed keys in a query `affects` that coco derived.
pub const CHANGED: &str = "changed";

/// A query bound at declaration: the view that keeps its tree.
#[derive(Clone, Debug)]
pub struct BoundView {
    pub view: pg_sys::Oid,
    /// The view's name, quoted and schema-qualified.
    pub name: String,
    /// The places at which the query reads items.
    pub places: Places,
}

/// The bound expressions over a source's columns that were declared with the source.
#[derive(Clone, Debug)]
pub struct Expressions {
    /// The bound view, with the columns `ordinal` and `fingerprint`.
    pub bound: BoundView,
    /// The columns that the expressions use.
    pub used: Vec<Column>,
}

/// The expressions among the columns of a source key.
#[derive(Clone, Debug)]
pub struct KeyExpressions {
    /// The text of each, as declared, by its place in the key; `None` for a column.
    pub texts: Vec<Option<String>>,
    /// The view that keeps the expressions, with their names in the key as the names of its columns.
    pub bound: BoundView,
    /// The columns that the expressions use.
    pub used: Vec<Column>,
    /// The columns that the key depends on, as a change log stores them.
    pub captured: Vec<Column>,
}

/// How coco keeps the groups of a source by deltas.
#[derive(Clone, Debug)]
pub struct GroupState {
    pub shape: GroupShape,
    /// The view that keeps the row part of the query: the row's key, the group, and the expressions.
    pub rows: BoundView,
    /// The columns of the source that the view uses.
    pub used: Vec<Column>,
    /// The source's relation, quoted and schema-qualified.
    pub relation: String,
    /// The source key as the query declares it, and the place of each column of it among what the
    /// query groups by.
    pub key: Vec<Column>,
    pub key_places: Vec<usize>,
    /// A FROM item with the rows of the source and the columns `key_of_row`, and these columns of a row
    /// `s`: the group that the row belongs to.
    pub rows_with_key: String,
    pub key_of_row: Vec<String>,
    /// The columns of the table of groups from `k1` on that items have: the key, the counts of rows, and
    /// the parts.
    pub columns: Vec<Column>,
    /// Both tables, quoted and schema-qualified, for statements that run as the extension's owner.
    pub contributions: String,
    pub groups: String,
    /// The view of the table of groups, for statements that run as the flow's owner.
    pub groups_view: String,
}

#[derive(Clone, Debug)]
pub struct Source {
    pub id: i32,
    /// The name that the query uses.
    pub name: String,
    pub relation: pg_sys::Oid,
    /// The relation's name, quoted and schema-qualified.
    pub relation_name: String,
    pub key: Vec<Column>,
    /// Set if some columns of the key are expressions over the relation's columns.
    pub key_expressions: Option<KeyExpressions>,
    /// Whether an item is the group of rows that share the key.
    pub grouped: bool,
    /// Whether items are rows because an ordinal is declared. No index guarantees a unique key, so
    /// each scan checks it.
    pub promised: bool,
    /// The declared expression that grows with each version of an item.
    pub ordinal: Option<String>,
    /// The declared expression that replaces the used columns in the content fingerprint.
    pub fingerprint: Option<String>,
    /// Both expressions, bound for evaluation.
    pub expressions: Option<Expressions>,
    /// The columns that the flow's queries read, in the relation's order.
    pub used: Vec<Column>,
    pub capture: CaptureMode,
    /// How often a live flow reads a source that is not captured; `None` means the default.
    pub refresh: Option<std::time::Duration>,
    /// The tracking table, quoted and schema-qualified, for statements that run as the extension's
    /// owner.
    pub tracking: String,
    /// The view of the tracking table, for statements that run as the flow's owner.
    pub tracking_view: String,
    /// Grows when `coco.alter_flow` changes the source in such a way that earlier cursors and
    /// pending keys no longer count.
    pub revision: i32,
    /// Whether coco ignores rows with a NULL in the key: rows of a derived lookup, which equal no row
    /// of another relation.
    pub ignores_null_keys: bool,
    /// The columns that identify a row, if coco keeps the groups by deltas; otherwise empty.
    pub row_key: Vec<Column>,
    /// How coco keeps the groups by deltas; only set when the flow is loaded for execution.
    pub groups: Option<Rc<GroupState>>,
    /// Whether the items are the states of the groups, and not groups of the relation's rows: see
    /// [`Source::by_states`].
    pub reads_states: bool,
}

impl Source {
    /// Returns the source as an update reads it, if coco keeps the groups by deltas: an item is then a
    /// row of the table of groups, and its content is the state of the group.
    pub fn by_states(&self) -> Source {
        let Some(groups) = &self.groups else { return self.clone() };
        let name = |(n, column): (usize, &Column)| Column {
            name: format!("k{}", n + 1),
            ..column.clone()
        };
        Source {
            relation_name: groups.groups_view.clone(),
            key: self.key.iter().enumerate().map(name).collect(),
            key_expressions: None,
            grouped: false,
            used: groups.columns.clone(),
            reads_states: true,
            ..self.clone()
        }
    }

    /// Returns the source as its change log sees it, if coco keeps the groups by deltas: an item is a
    /// row.
    pub fn by_rows(&self) -> Source {
        let relation = self.groups.as_ref().map(|groups| groups.relation.clone());
        Source {
            relation_name: relation.unwrap_or_else(|| self.relation_name.clone()),
            key: self.row_key.clone(),
            key_expressions: None,
            grouped: false,
            reads_states: false,
            ..self.clone()
        }
    }

    /// Returns the source as its change log sees it, if the key has expressions: the key consists of
    /// the columns that it depends on.
    pub fn by_captured(&self) -> Source {
        let captured = self.key_expressions.as_ref().map(|key| key.captured.clone());
        Source {
            key: captured.unwrap_or_else(|| self.key.clone()),
            key_expressions: None,
            ..self.clone()
        }
    }

    /// Returns the columns that a change log keeps for the source.
    pub fn captured_key(&self) -> Vec<Column> {
        let key = self.by_captured().key;
        let is_new = |column: &&Column| !key.iter().any(|k| k.name == column.name);
        key.iter().chain(self.row_key.iter().filter(is_new)).cloned().collect()
    }

    /// Reports whether a column of the key is an expression.
    pub fn is_expression(&self, place: usize) -> bool {
        let text = self.key_expressions.as_ref().and_then(|key| key.texts.get(place));
        text.is_some_and(Option::is_some)
    }

    /// Returns the name of a column of the key, quoted, in the FROM item of the source's rows. The
    /// name of an expression there cannot be that of a column.
    pub fn key_column(&self, place: usize) -> String {
        match (self.is_expression(place), self.key.get(place)) {
            (false, Some(column)) => column.quoted(),
            _ => format!("coco_key_{}", place + 1),
        }
    }

    /// Returns the columns of the key in the FROM item of the source's rows with this alias,
    /// converted to the types of the tracking table.
    pub fn key_of(&self, alias: &str) -> Vec<String> {
        let place =
            |(n, k): (usize, &Column)| k.as_stored(&format!("{alias}.{}", self.key_column(n)));
        self.key.iter().enumerate().map(place).collect()
    }

    /// Returns the same of a relation whose columns have the names of the key.
    pub fn named_key_of(&self, alias: &str) -> Vec<String> {
        self.key.iter().map(|k| k.as_stored(&format!("{alias}.{}", k.quoted()))).collect()
    }

    /// Reports whether NULL in a column of the key is a value like any other.
    pub fn has_nullable_key(&self) -> bool {
        self.key.iter().any(|k| k.nullable.is_some())
    }

    /// Reports whether a key identifies no item: a column is NULL that is not nullable.
    pub fn lacks_key<T>(&self, key: &[Option<T>]) -> bool {
        self.key.iter().zip(key).any(|(k, value)| value.is_none() && k.nullable.is_none())
    }
}

#[derive(Clone, Debug)]
pub struct Target {
    pub id: i32,
    pub schema: String,
    pub name: String,
    /// The table; `None` if it was dropped.
    pub relation: Option<pg_sys::Oid>,
    pub query: String,
    pub columns: Vec<Column>,
    pub key: Vec<Column>,
    pub key_names: Vec<String>,
    /// The columns, other than those of the key, that coco declared NOT NULL in the table because
    /// the query never returned NULL for them.
    pub not_null: Vec<String>,
    /// Those of them for which the query can return NULL by now; only set when the flow is loaded
    /// for execution.
    pub nullable_again: Vec<String>,
    /// For each column of the source key, the target key column that always equals it. If these
    /// columns are known, the rows of an item are those with its key, and coco stores no list of
    /// them.
    pub covered: Option<Vec<String>>,
    /// Whether coco created the table, and therefore alters and drops it, or adopted it.
    pub made: bool,
    pub epoch: i32,
    /// The bound query; `None` if an object that the query reads was dropped.
    pub bound: Option<BoundView>,
    /// The conditions that the target's rows should satisfy, in the order of declaration.
    pub expectations: Vec<Expectation>,
    /// The external target, if this target is outside this database. `relation` is then the
    /// target's ledger, and `schema` and `name` identify the ledger's view.
    pub external: Option<External>,
}

/// A condition that the rows of a target should satisfy.
#[derive(Clone, Debug)]
pub struct Expectation {
    pub id: i32,
    pub name: String,
    /// The condition, as declared.
    pub condition: String,
    /// What coco does with a row that does not satisfy the condition.
    pub action: UnmetAction,
    /// The share of an update's rows that may fail; `None` means any.
    pub max_share: Option<f64>,
    /// The bound condition: a query over one row of the view of the target's query. `None` if an
    /// object that the condition uses was dropped.
    pub bound: Option<BoundView>,
}

/// A target outside this database.
#[derive(Clone, Debug)]
pub struct External {
    /// The name of the object on the server.
    pub name: String,
    /// The name of the foreign server.
    pub server: String,
    pub options: serde_json::Map<String, serde_json::Value>,
    /// The tables of the target's keys and of its undelivered changes, quoted and schema-qualified,
    /// for statements that run as the extension's owner.
    pub ledger: String,
    pub outbox: String,
    /// The view of the outbox, for statements that run as the flow's owner.
    pub outbox_view: String,
    /// The names of the target's columns for the outbox columns `c1…`.
    pub columns: Vec<String>,
}

impl Target {
    /// Returns the view that keeps the target's query.
    pub fn query_view(&self) -> Option<pg_sys::Oid> {
        self.bound.as_ref().map(|bound| bound.view)
    }

    /// Returns the table that the target's statements write, quoted and schema-qualified. For an
    /// external target, this is the view of its ledger.
    pub fn relation_name(&self) -> String {
        spi::qualified(&self.schema, &self.name)
    }

    /// Returns the name that users know the target by.
    pub fn shown(&self) -> String {
        match &self.external {
            Some(external) => format!("\"{}\" on server {}", external.name, external.server),
            None => self.relation_name(),
        }
    }
}

/// For each place at which a query reads the relation of a source, in the order of [`occurrences`]:
/// the id of the source whose item it is, or 0 if the place reads the whole relation.
///
/// [`occurrences`]: crate::query::bound_query::occurrences
pub type Places = Rc<[i32]>;

/// An order of items: by their ordinals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillOrder {
    Newest,
    Oldest,
}

impl FillOrder {
    pub fn from_name(name: &str) -> Option<FillOrder> {
        match name {
            "newest" => Some(FillOrder::Newest),
            "oldest" => Some(FillOrder::Oldest),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            FillOrder::Newest => "newest",
            FillOrder::Oldest => "oldest",
        }
    }
}

/// The way in which coco finds changes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    /// A scan compares the whole source with the tracking table.
    Scan,
    /// Triggers record each change.
    Trigger,
    /// As `Trigger`, also for changes that logical replication applies, or that are made with
    /// session_replication_role set to replica.
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
