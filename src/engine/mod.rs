//! Pure Rust: what to do with an item, a key, a failure. No Postgres, no I/O.
//!
//! The rules are those an update follows; the catalog carries them out as statements over whole
//! batches.

pub mod backoff;
pub mod claims;
pub mod counts;
pub mod decide;
// Of a build without all connectors a part is not used.
#[cfg_attr(not(feature = "connectors"), allow(dead_code))]
pub mod delivery;
pub mod fingerprint;
#[cfg(test)]
mod following;
pub mod graph;
pub mod history;
pub mod isolate;
pub mod layout;
#[cfg_attr(not(feature = "connectors"), allow(dead_code))]
pub mod masking;
pub mod memo;
pub mod mermaid;
#[cfg_attr(not(feature = "connectors"), allow(dead_code))]
pub mod options;
pub mod plan;
#[cfg_attr(not(feature = "functions"), allow(dead_code))]
pub mod provider;
pub mod report;
pub mod snapshot;
pub mod text;
pub mod version;
