//! External targets: the tables that coco keeps for them in this database.
//!
//! For an external target, an update writes the same rows as for a local one, but into two tables
//! of coco. The update writes these tables and the tracking rows in one transaction. Workers
//! deliver from the tables.
//!
//! - The **ledger** has a row for each key that the target should hold, with the fingerprint of its
//!   value. With it coco finds an item's rows, gives each key one owner, and does not send
//!   unchanged rows.
//! - The **outbox** has the undelivered changes, in order. An entry stays until the target has
//!   acknowledged it.
//!
//! Rows of an initial load bypass the outbox, unless an error stops their delivery.

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
