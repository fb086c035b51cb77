//! A connector that writes rows to a table of another PostgreSQL server, 15 to 18. README.md in
//! this folder is its user documentation.

mod bisect;
mod client;
mod config;
mod copy_stream;
mod encode;
mod error;
mod names;
mod session;
mod statements;
mod table;
mod tls;
mod types;
mod verify;
mod wire;

use super::options::Access;
use super::{Connector, Limits, Target, Verification};
use coco_core::change::{DeliveryError, Encoding, TargetSchema};

/// `coco_postgres`.
pub static CONNECTOR: Connector = Connector {
    name: "coco_postgres",
    options: config::OPTIONS,
    check,
    encoding: Encoding::Binary,
    // Large enough that round trips do not matter, and small enough that no statement on the server
    // takes long.
    batch: Limits { changes: 40_000, bytes: 8 << 20 },
    verification: Some(Verification {
        digests: verify::digests,
        parts: verify::PARTS,
        tolerance: 0,
        option: None,
    }),
    open,
};

fn check(schema: &TargetSchema) -> Result<(), String> {
    names::target(&schema.target)?;
    schema.columns.iter().try_for_each(types::check)
}

fn open(access: Access) -> Result<Box<dyn Target>, DeliveryError> {
    Ok(Box::new(client::PostgresTarget::new(config::Config::new(&access)?)))
}
