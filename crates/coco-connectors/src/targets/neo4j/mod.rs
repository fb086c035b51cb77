//! Neo4j: rows become nodes, or relationships between nodes.

mod bolt;
mod client;
mod config;
mod cypher;
mod decimal;
mod encode;
mod error;
mod mapping;
mod tls;

use crate::targets::{Connector, Limits};
use coco_core::change::{Encoding, TargetSchema};

pub static CONNECTOR: Connector = Connector {
    name: "coco_neo4j",
    options: config::OPTIONS,
    check,
    encoding: Encoding::Json,
    // What one transaction of Neo4j's takes well: it holds all that it changes in memory.
    batch: Limits { changes: 1000, bytes: 4 << 20 },
    open: client::open,
};

fn check(schema: &TargetSchema) -> Result<(), String> {
    mapping::Mapping::new(schema).map(drop)
}
