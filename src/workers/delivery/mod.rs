//! Delivering changes to targets outside this database.

pub mod dispatcher;
pub mod drop_flow;
pub mod resolved_target;
pub mod target_channel;
pub mod target_store;
