//! A connector that writes rows as points of a Qdrant collection.
//!
//! `config`: the options. `layout`: the mapping of columns to vectors. `collection`: the collection
//! for a layout. `encode`: a row as a point, from `point_id`, `vector` and `payload`. `connection`,
//! `client`: requests to the server. `error`: its errors. `verify`: digests
//! of points.

mod client;
mod collection;
mod config;
mod connection;
mod encode;
mod error;
mod layout;
mod payload;
mod point_id;
mod vector;
mod verify;

use super::{Connector, Limits, Verification};
use coco_core::change::Encoding;

/// `CREATE SERVER … FOREIGN DATA WRAPPER coco_qdrant`
pub static CONNECTOR: Connector = Connector {
    name: "coco_qdrant",
    options: config::OPTIONS,
    check: |schema| layout::Layout::of(schema).map(drop),
    encoding: Encoding::Json,
    // A vector of 1536 dimensions is about 18 kB of JSON, and 6 kB on the wire.
    batch: Limits { changes: 1000, bytes: 8 << 20 },
    verification: Some(Verification {
        digests: verify::digests,
        parts: verify::PARTS,
        tolerance: verify::TOLERANCE,
        option: None,
    }),
    open: |access| Ok(Box::new(client::Client::new(&access)?)),
};
