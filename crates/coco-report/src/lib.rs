//! Flows as people look at them: diagrams, and the page of `coco.report()`. Pure Rust: no Postgres, no I/O.

pub mod graph;
mod layout;
pub mod mermaid;
pub mod report;
