//! Flows as a backend holds them: loaded from the catalog, cached, and checked whether they can
//! run.
//!
//! Callers: `update`, `declare`, `inspect`, `workers`. Only this room finds a flow by its name.

pub mod cache;
pub mod group_states;
pub mod live_rows;
pub mod load;
pub mod paused;
pub mod schedules;
pub mod upstream;
pub mod verification;
