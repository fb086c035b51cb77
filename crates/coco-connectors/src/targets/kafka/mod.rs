//! A connector that writes rows to topics of Apache Kafka, or of a server with the same protocol.

mod client;
mod client_events;
mod config;
mod encode;
mod error;
mod producer;
mod reader;
mod topic;

use crate::targets::{Connector, Limits, Verification};
use coco_core::change::Encoding;

/// Each change becomes a record: its key is the target key, its value the row. A deleted row has no
/// value. All records of a key go to one partition, in the order of the changes.
pub static CONNECTOR: Connector = Connector {
    name: "coco_kafka",
    options: config::OPTIONS,
    check: topic::check,
    encoding: Encoding::Json,
    // Such a batch keeps the brokers busy. A larger one would only take longer.
    batch: Limits { changes: 40_000, bytes: 16 << 20 },
    verification: Some(Verification {
        digests: reader::digests,
        parts: reader::PARTS,
        tolerance: 0,
        option: None,
    }),
    open: client::open,
};
