//! Targets outside this database: what is kept of them here.
//!
//! An update writes for such a target what it writes for one in this database, and in the same
//! transaction as the tracking rows: but into two tables of coco's. The **ledger** has a row for
//! each key that the target is to have, with the fingerprint of its value: so an item's rows are
//! found, a key has one owner, and what did not change is not sent. The **outbox** has what is to be
//! sent, in order. Workers send it, and nothing of it is forgotten before the target has it. What
//! the first fill of a target has to send passes the outbox by, as long as nothing hinders it.

pub mod access;
pub mod batch;
pub mod delivery;
mod encoder;
pub mod feed;
pub mod held;
pub mod ledger;
pub mod outbox;
pub mod server;
pub mod tables;
