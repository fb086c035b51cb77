//! Connectors: each folder writes rows to one kind of external target.
//!
//! A connector uses no PostgreSQL server code: no pgrx, and no SPI. It is async, and runs on
//! threads that are separate from the backend it serves.

mod guard;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "neo4j")]
pub mod neo4j;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod pre_commit_stream;
#[cfg(feature = "qdrant")]
pub mod qdrant;

use async_trait::async_trait;

use guard::Guarded;
use pre_commit_stream::RowStream;

// Re-exported here for the connectors; providers have options, too.
use coco_core::change::{Change, DeliveryError, Encoding, RejectedChange, TargetSchema};
use coco_core::key_range::{ChangeDigests, HeldRow, KeyRange, PartDigests};
use coco_core::masking::Masker;
pub use coco_core::options;
use options::{Access, OptionSpec};

/// A kind of external target. In SQL, it is a foreign data wrapper.
pub struct Connector {
    /// The name of its foreign data wrapper.
    pub name: &'static str,
    /// The options of its servers, user mappings and targets.
    pub options: &'static [OptionSpec],
    /// Checks combinations of target options and columns when a target is declared, before any
    /// connection. The message says what is wrong and how to fix it.
    pub check: fn(&TargetSchema) -> Result<(), String>,
    /// The encoding of rows.
    pub encoding: Encoding,
    /// The limits of one batch.
    pub batch: Limits,
    /// How coco compares a target with the ledger; `None` if coco cannot read such a target.
    pub verification: Option<Verification>,
    /// Creates a target without connecting. Only [`Connector::connect`] calls it.
    open: fn(Access) -> Result<Box<dyn Target>, DeliveryError>,
}

impl Connector {
    /// Returns a target of a server. Its errors contain no secret of the user mapping.
    pub fn connect(&self, access: Access) -> Result<Box<dyn Target>, DeliveryError> {
        let masker = Masker::for_access(&access, self.options);
        match (self.open)(access) {
            Ok(target) => Ok(Box::new(Guarded { target, masker })),
            Err(error) => Err(masker.mask_error(error)),
        }
    }
}

/// How to compare the rows of a target with those that it should hold.
#[derive(Clone, Copy)]
pub struct Verification {
    /// Returns the digests that [`Target::part_digests`] and [`Target::held_rows`] compute from a row
    /// if the target holds it as it was sent. Fails if the values do not have the connector's encoding.
    pub digests: fn(&TargetSchema, &Change) -> Result<ChangeDigests, String>,
    /// The largest number of parts in one comparison. More parts need fewer passes over the target.
    pub parts: usize,
    /// How much the second half of a row's digest may differ, as a number: see
    /// [`Digest::is_within`](coco_core::key_range::Digest::is_within).
    pub tolerance: u64,
    /// The option that a server must set to true, because not every server can be compared.
    pub option: Option<&'static str>,
}

/// The result of [`Target::prepare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// The target did not exist, and was created.
    Made,
    /// The target existed, and fits.
    Found,
}

/// The limits of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub changes: usize,
    pub bytes: usize,
}

/// One target of a server, and the connection to it. After an error, coco drops it and opens
/// another for the next attempt.
#[async_trait]
pub trait Target: Send {
    /// Reports whether the target exists, as far as that can be known. If it does not, coco records
    /// that it creates the target, and then calls [`Target::prepare`]. Whatever happens after that,
    /// coco will call [`Target::remove`] for it.
    async fn exists(&mut self, schema: &TargetSchema) -> Result<bool, DeliveryError>;

    /// Creates missing objects on the server (a table, a collection, a constraint, a topic), and
    /// checks existing ones. Called once per connection, before any changes. Returns whether it
    /// created the target itself: coco must not remove a target that it found.
    async fn prepare(&mut self, schema: &TargetSchema) -> Result<Prepared, DeliveryError>;

    /// Applies a batch of changes. Each key occurs at most once. coco may pass the same changes
    /// again, and the result must then be the same. Returns the changes that are rejected for a
    /// reason in the row. When this returns, all other changes are delivered and durable.
    async fn apply(
        &mut self,
        schema: &TargetSchema,
        changes: &[Change],
    ) -> Result<Vec<RejectedChange>, DeliveryError>;

    /// Writes rows to the target as they arrive, if none of their keys exists there. The rows
    /// become visible after the local commit; if there is none, they never do. Returns `false` if
    /// nothing was written: coco then passes the rows to [`Target::apply`].
    async fn load_stream(
        &mut self,
        _shape: &TargetSchema,
        _rows: &mut RowStream,
    ) -> Result<bool, DeliveryError> {
        Ok(false)
    }

    /// Returns the digests of the parts of these ranges, each with this many digits, as the target
    /// holds them now. The ranges have the same number of digits. Called only if the connector has
    /// a [`Verification`], after [`Target::prepare`].
    async fn part_digests(
        &mut self,
        _schema: &TargetSchema,
        _ranges: &[KeyRange],
        _digits: u32,
    ) -> Result<PartDigests, DeliveryError> {
        Err(unverifiable())
    }

    /// Returns the rows of these ranges, in any order. Fails if they are more than `most`. Called
    /// under the same conditions.
    async fn held_rows(
        &mut self,
        _schema: &TargetSchema,
        _ranges: &[KeyRange],
        _most: usize,
    ) -> Result<Vec<HeldRow>, DeliveryError> {
        Err(unverifiable())
    }

    /// Removes the objects that [`Target::prepare`] reported as created, with their content. It is
    /// not an error if they do not exist.
    async fn remove(&mut self, schema: &TargetSchema) -> Result<(), DeliveryError>;
}

/// Returns the error of a connector that cannot read its targets.
fn unverifiable() -> DeliveryError {
    DeliveryError::target("0A000", "coco cannot read the rows of a target of this kind")
}

/// Returns the error of [`Target::held_rows`] if a range has more rows than a moment ago.
fn changed_meanwhile() -> DeliveryError {
    DeliveryError::target("40001", "the target changed while coco compared it with the ledger")
        .hint("Repeat the call, while nobody else writes to the target.")
}

/// All connectors of this build.
pub static ALL: &[&Connector] = &[
    #[cfg(feature = "http")]
    &http::CONNECTOR,
    #[cfg(feature = "kafka")]
    &kafka::CONNECTOR,
    #[cfg(feature = "neo4j")]
    &neo4j::CONNECTOR,
    #[cfg(feature = "postgres")]
    &postgres::CONNECTOR,
    #[cfg(feature = "qdrant")]
    &qdrant::CONNECTOR,
];

/// Returns the connector of a foreign data wrapper.
pub fn connector(name: &str) -> Option<&'static Connector> {
    ALL.iter().copied().find(|c| c.name == name)
}
