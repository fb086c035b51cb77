//! What coco talks to outside its database. Async, and without anything of Postgres' inside.
//!
//! - [`targets`]: connectors to the systems that rows are brought to.
//! - [`providers`]: beside them, the functions over the network that a flow's query can call.
//! - `net`: below both, HTTP.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(feature = "http")]
pub mod net;
pub mod providers;
pub mod targets;
