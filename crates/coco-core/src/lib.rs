//! The rules of coco in pure Rust: what to do with an item, a key or a failure. No Postgres, and no
//! I/O.
//!
//! The extension applies these rules with SQL statements over whole batches.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod backoff;
pub mod bisect;
pub mod change;
pub mod counts;
pub mod cron;
pub mod decision;
pub mod expectation;
pub mod fingerprint;
pub mod flow_order;
pub mod key_handover;
pub mod key_range;
#[cfg(test)]
mod lookup_model;
pub mod masking;
pub mod memo_batch;
pub mod options;
pub mod plan_reader;
pub mod provider;
pub mod range_search;
pub mod rank_fusion;
#[cfg(test)]
mod repair_model;
pub mod run_history;
pub mod sampling;
pub mod schedule;
pub mod snapshot;
pub mod source_work;
pub mod stand_in;
pub mod target_delivery;
pub mod text;
pub mod version;
pub mod worker_request;
pub mod write_plan;
