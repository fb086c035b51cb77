//! A connector that posts changes as JSON to a URL.
//!
//! - `config`: the options
//! - `encode`: the body of a request, and its idempotency key
//! - `client`: sends requests, and finds the rejected rows
//! - `answer`: classifies responses
//!
//! Code that other HTTP clients need as well is in `net`.

mod answer;
mod client;
mod config;
mod encode;

use super::{Connector, Limits};
use coco_core::change::Encoding;

pub static CONNECTOR: Connector = Connector {
    name: "coco_http",
    options: config::OPTIONS,
    // There are no target options, and any columns are accepted.
    check: |_| Ok(()),
    encoding: Encoding::Json,
    // Including the text around the changes, a body stays below 1 MiB, a common limit of reverse
    // proxies.
    batch: Limits { changes: 1000, bytes: 768 * 1024 },
    verification: None,
    open: client::open,
};
