//! Flows as people look at them: diagrams, and the page of `coco.report()`. Pure Rust: no Postgres, no I/O.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod graph;
mod layout;
pub mod mermaid;
pub mod report;
