//! coco: React, for data in Postgres.
//!
//! A flow is a query evaluated once per source item. coco keeps its result materialized in a target and touches only what
//! a change touches. The code is in rooms. A room imports only from rooms further down this list; `tests/rooms.rs` holds
//! it.
//!
//! - [`sql_api`]: converts SQL arguments to types, and results to rows. No logic, and no SQL text.
//! - [`workers`]: the processes: who runs an update, and when, and delivery to external targets. No SQL text.
//! - [`inspect`]: what a user sees of flows. It changes no flow's state, but for a repair.
//! - [`declare`]: changes what a flow is.
//! - [`update`]: brings a flow's targets up to date, in one transaction or in a series.
//! - [`flows`]: a flow as the backend holds it: loaded, cached, runnable or not.
//! - [`memo`]: results of memoized functions.
//! - [`outbox`]: what external targets hold, and what is still to be delivered.
//! - [`query`]: the user's query, as a tree and as text.
//! - [`capture`]: which keys of a table changed since a snapshot.
//! - [`catalog`]: rows of coco's own tables, and locks on them.
//! - [`pg`]: safe wrappers over the server.
//!
//! Three crates need no Postgres: `coco-core` (what to do with an item), `coco-connectors` (targets and providers
//! outside this database) and `coco-report` (diagrams, and the page of `coco.report()`).

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// The extension alone: it is called by the server, and calls it.
#![allow(unsafe_code)]

mod capture;
mod catalog;
mod declare;
mod flows;
mod inspect;
mod memo;
mod outbox;
mod pg;
mod query;
mod sql_api;
mod update;
mod workers;

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pg_test/mod.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests
mod in_backend;

::pgrx::pg_module_magic!(name, version);

pgrx::extension_sql!(
    "create schema coco; create schema coco_internal;",
    name = "schema",
    bootstrap
);
pgrx::extension_sql_file!("../sql/catalog.sql", name = "catalog", requires = ["schema"]);
pgrx::extension_sql_file!("../sql/functions.sql", name = "functions", requires = ["catalog"]);
pgrx::extension_sql_file!("../sql/views.sql", name = "views", requires = ["functions"]);
pgrx::extension_sql_file!(
    "../sql/comments/flow_functions.sql",
    name = "comments_flow_functions",
    requires = ["functions"]
);
pgrx::extension_sql_file!(
    "../sql/comments/inspect_functions.sql",
    name = "comments_inspect_functions",
    requires = ["functions"]
);
pgrx::extension_sql_file!(
    "../sql/comments/query_functions.sql",
    name = "comments_query_functions",
    requires = ["functions"]
);
pgrx::extension_sql_file!(
    "../sql/comments/views.sql",
    name = "comments_views",
    requires = ["views"]
);
pgrx::extension_sql_file!("../sql/rights.sql", name = "rights", finalize);

/// Called by Postgres when the library is loaded.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    sql_api::gucs::define();
    workers::define();
}

/// Required by `cargo pgrx test` at the crate root.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
