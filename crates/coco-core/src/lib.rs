//! Pure Rust: what to do with an item, a key, a failure. No Postgres, no I/O.
//!
//! The rules are those an update follows; the catalog carries them out as statements over whole
//! batches.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod backoff;
pub mod claims;
pub mod counts;
pub mod decide;
pub mod delivery;
pub mod fingerprint;
#[cfg(test)]
mod following;
pub mod history;
pub mod isolate;
pub mod masking;
pub mod memo;
pub mod options;
pub mod plan;
pub mod provider;
pub mod snapshot;
pub mod source_work;
pub mod stand_in;
pub mod text;
pub mod version;
pub mod worker_request;
pub mod write_plan;
