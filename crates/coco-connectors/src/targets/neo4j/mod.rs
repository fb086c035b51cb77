//! A connector that writes rows as nodes or relationships of Neo4j.

mod bolt;
mod client;
mod config;
mod cypher;
mod decimal;
mod encode;
mod error;
mod mapping;
mod tls;
mod verify;

use crate::targets::{Connector, Limits, Verification};
use coco_core::change::{Encoding, TargetSchema};

pub static CONNECTOR: Connector = Connector {
    name: "coco_neo4j",
    options: config::OPTIONS,
    check,
    encoding: Encoding::Json,
    // A good size for one transaction of Neo4j, which holds all its changes in memory.
    batch: Limits { changes: 1000, bytes: 4 << 20 },
    verification: Some(Verification {
        digests: verify::digests,
        parts: verify::PARTS,
        tolerance: 0,
        option: None,
    }),
    open: client::open,
};

fn check(schema: &TargetSchema) -> Result<(), String> {
    mapping::Mapping::new(schema).map(drop)
}
