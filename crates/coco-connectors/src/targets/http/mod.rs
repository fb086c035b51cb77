//! Webhooks: changes are posted as JSON to a URL.
//!
//! - `config`: the options, and what is made of them
//! - `encode`: changes as the body of a request, and the key that names it
//! - `client`: sends, and finds the rows that are refused
//! - `answer`: what an answer means
//!
//! What of HTTP is not a webhook's alone is in `net`.

mod answer;
mod client;
mod config;
mod encode;

use super::{Connector, Limits};
use coco_core::change::Encoding;

pub static CONNECTOR: Connector = Connector {
    name: "coco_http",
    options: config::OPTIONS,
    // There are no target options, and any columns will do.
    check: |_| Ok(()),
    encoding: Encoding::Json,
    // With what is written around the changes a body stays below 1 MiB, which is what a common
    // reverse proxy lets through.
    batch: Limits { changes: 1000, bytes: 768 * 1024 },
    open: client::open,
};
