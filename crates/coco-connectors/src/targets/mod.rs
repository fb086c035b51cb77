//! Connectors: how rows get to systems outside this database. A folder each.
//!
//! A connector knows nothing of Postgres' inside: no pgrx, no SPI. It is async, and runs on threads
//! that have no part in the backend it serves.

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

// Providers have options too.
use coco_core::change::{Change, DeliveryError, Encoding, RejectedChange, TargetSchema};
use coco_core::masking::Masker;
pub use coco_core::options;
use options::{Access, OptionSpec};

/// A kind of target. What SQL calls a foreign data wrapper.
pub struct Connector {
    /// The name of its foreign data wrapper.
    pub name: &'static str,
    /// The options of its servers, user mappings and targets.
    pub options: &'static [OptionSpec],
    /// Checks what is between several target options, or between them and the columns: when a
    /// target is declared, before anything is connected to. The message says what is wrong and how
    /// to mend it.
    pub check: fn(&TargetSchema) -> Result<(), String>,
    /// How it wants its rows.
    pub encoding: Encoding,
    /// How many changes, and bytes of them, it is given at once.
    pub batch: Limits,
    /// Makes what talks to a server. Nothing has to be connected to yet. [`Connector::connect`]
    /// calls it, and nothing else does.
    open: fn(Access) -> Result<Box<dyn Target>, DeliveryError>,
}

impl Connector {
    /// Returns a target of a server, which shows no secret of the user mapping in its errors.
    pub fn connect(&self, access: Access) -> Result<Box<dyn Target>, DeliveryError> {
        let masker = Masker::for_access(&access, self.options);
        match (self.open)(access) {
            Ok(target) => Ok(Box::new(Guarded { target, masker })),
            Err(error) => Err(masker.mask_error(error)),
        }
    }
}

/// What [`Target::prepare`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// Nothing: the target was made.
    Made,
    /// The target, and it fits.
    Found,
}

/// How much is sent at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub changes: usize,
    pub bytes: usize,
}

/// One target of a server, and the connection to it. After an error it is dropped, and another is
/// opened for the next try.
#[async_trait]
pub trait Target: Send {
    /// Whether the target is there, as far as that can be known. What is not is noted here as made by coco, before
    /// [`Target::prepare`] makes it: whatever happens then, [`Target::remove`] is asked for it.
    async fn exists(&mut self, schema: &TargetSchema) -> Result<bool, DeliveryError>;

    /// Makes on the other side what is missing (a table, a collection, a constraint, a topic), and
    /// checks what is there. Called once after it was opened, before any changes. Returns whether it
    /// made the target itself: what it found is not to be removed later.
    async fn prepare(&mut self, schema: &TargetSchema) -> Result<Prepared, DeliveryError>;

    /// Brings changes to the target, each key at most once among them. Can be asked for the same
    /// changes again, and must then come to the same. Returns those that are refused for a reason of
    /// the row's; all others have arrived, and last, when this returns.
    async fn apply(
        &mut self,
        schema: &TargetSchema,
        changes: &[Change],
    ) -> Result<Vec<RejectedChange>, DeliveryError>;

    /// Brings rows to the target as they come, where none of their keys is, and has them seen there once they are
    /// noted: not before, and never if they are not. `false`: nothing has arrived, and [`Target::apply`] is to bring
    /// them.
    async fn load_stream(
        &mut self,
        _shape: &TargetSchema,
        _rows: &mut RowStream,
    ) -> Result<bool, DeliveryError> {
        Ok(false)
    }

    /// Removes what [`Target::prepare`] said it made, with all that is in it. Nothing there is no
    /// error.
    async fn remove(&mut self, schema: &TargetSchema) -> Result<(), DeliveryError>;
}

/// All connectors that this build has.
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

/// The connector of a foreign data wrapper.
pub fn connector(name: &str) -> Option<&'static Connector> {
    ALL.iter().copied().find(|c| c.name == name)
}
