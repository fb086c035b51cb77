//! A connector that posts changes as JSON to a URL.
//!
//! - `config`: the options
//! - `encode`: the body of a request, and its idempotency key
//! - `client`: sends requests, and finds the rejected rows
//! - `answer`: classifies responses
//! - `verify`: digests that a receiver stores and returns
//!
//! Code that other HTTP clients need as well is in `net`.

mod answer;
mod client;
mod config;
mod encode;
mod verify;

use super::{Connector, Limits, Verification};
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
    verification: Some(Verification {
        digests: verify::digests,
        parts: verify::PARTS,
        tolerance: 0,
        option: Some(verify::OPTION),
    }),
    open: client::open,
};
