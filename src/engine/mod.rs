//! Pure Rust: what to do with an item, a key, a failure. No Postgres, no I/O.
//!
//! The rules are those an update follows, whoever carries them out: set-based SQL for a target in
//! this database, a connector for one outside.

pub mod backoff;
pub mod claims;
// The protocol's steps for a target outside this database, which `catalog` carries out as SQL for
// one inside: exercised by their tests until a connector calls them.
#[allow(dead_code)]
pub mod commit;
pub mod counts;
pub mod decide;
pub mod delivery;
#[allow(dead_code)]
pub mod diff;
pub mod fingerprint;
pub mod isolate;
pub mod snapshot;
pub mod text;
pub mod version;
