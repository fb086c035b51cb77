//! Clients of systems outside the database. The code is async, and uses no PostgreSQL server code.
//!
//! - [`targets`]: connectors to external targets.
//! - [`providers`]: functions over the network that a flow's query can call.
//! - `net`: HTTP, for connectors and providers.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(feature = "http")]
pub mod net;
pub mod providers;
pub mod targets;
