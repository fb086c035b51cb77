//! Delivering changes to targets outside this database.

pub mod dispatcher;
pub mod drop_flow;
pub mod next_batch;
pub mod target_channel;
