//! Rows to the topics of Apache Kafka, and of what speaks its protocol.

mod client;
mod config;
mod encode;
mod error;
mod producer;
mod topic;

use crate::targets::{Connector, Limits};
use coco_core::change::Encoding;

/// A record a row: its key is the target key, its value the row, no value a row that is gone. All
/// records of a key go to one partition, in the order in which the row changed.
pub static CONNECTOR: Connector = Connector {
    name: "coco_kafka",
    options: config::OPTIONS,
    check: topic::check,
    encoding: Encoding::Json,
    // What is in flight at once keeps the brokers busy; more would only be waited for longer.
    batch: Limits { changes: 40_000, bytes: 16 << 20 },
    open: client::open,
};
