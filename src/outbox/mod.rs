//! Targets outside this database: what is kept of them here.
//!
//! An update writes for such a target what it writes for one in this database, and in the same
//! transaction as the tracking rows: but into two tables of coco's. The **ledger** has a row for
//! each key that the target is to have, with the fingerprint of its value: so an item's rows are
//! found, a key has one owner, and what did not change is not sent. The **outbox** has what is to be
//! sent, in order. Workers send it, and nothing of it is forgotten before the target has it. What
//! the first fill of a target has to send passes the outbox by, as long as nothing hinders it.

pub mod change_batch;
pub mod delivery_state;
pub mod drain;
pub mod foreign_server;
pub mod initial_load_buffer;
pub mod ledger;
pub mod pre_commit_feed;
pub mod provider_access;
pub mod queue;
pub mod row_encoder;
pub mod tables;
pub mod worker_result;
