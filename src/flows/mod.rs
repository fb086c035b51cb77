//! A flow as a backend holds it: loaded from the catalog, cached, able to run or not.
//!
//! Callers: `update`, `declare`, `inspect`, `workers`. The only room that resolves a flow by its name.

pub mod cache;
pub mod live_rows;
pub mod load;
pub mod paused;
