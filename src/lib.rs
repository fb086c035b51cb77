//! coco: React, for data in Postgres.
//!
//! A flow is a query evaluated once per source item. coco keeps its result materialised in a
//! target and touches only what a change touches. Layers, each importing only those below it:
//!
//! - [`api`]: the SQL functions.
//! - [`worker`]: the processes that keep live flows up to date.
//! - [`catalog`]: the only place with SQL of coco's own.
//! - [`targets`]: beside the catalog, in a crate of their own, connectors to systems outside of this database.
//! - [`providers`]: beside them, the functions over the network that a flow's query can call.
//! - [`engine`]: crates of their own, pure Rust. `coco-core`: what to do with an item. `coco-report`: flows as people
//!   look at them.
//! - [`files`]: beside them, files of the server.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// The extension alone: it is called by the server, and calls it.
#![allow(unsafe_code)]

mod api;
mod catalog;
mod files;
mod worker;

use coco_connectors::{providers, targets};

/// What is decided, and how it is shown, by crates of their own.
mod engine {
    pub use coco_core::*;
    pub use coco_report::{graph, mermaid, report};
}

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
    "../sql/comments/flows.sql",
    name = "said_flows",
    requires = ["functions"]
);
pgrx::extension_sql_file!(
    "../sql/comments/looking.sql",
    name = "said_looking",
    requires = ["functions"]
);
pgrx::extension_sql_file!(
    "../sql/comments/queries.sql",
    name = "said_queries",
    requires = ["functions"]
);
pgrx::extension_sql_file!("../sql/comments/views.sql", name = "said_views", requires = ["views"]);
pgrx::extension_sql_file!("../sql/rights.sql", name = "rights", finalize);

/// Called by Postgres when the library is loaded.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    api::settings::define();
    worker::define();
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
