//! coco: React, for data in Postgres.
//!
//! A flow is a query that coco evaluates once per source item. coco keeps the result materialized
//! in a target, and touches only the rows that a change affects.
//!
//! The code is divided into rooms, the modules below. A room imports only from rooms further down
//! this list; `tests/rooms.rs` checks this rule.
//!
//! - [`sql_api`]: converts SQL arguments to types, and results to rows. It has no logic and no SQL
//!   text.
//! - [`workers`]: the background processes: when and in which process an update runs, and delivery
//!   to external targets. No SQL text.
//! - [`inspect`]: what a user sees of flows. Except for a repair, it does not change a flow's
//!   state.
//! - [`declare`]: creates, alters and drops flows.
//! - [`update`]: brings a flow's targets up to date, in one transaction or in several.
//! - [`flows`]: a flow in a backend's memory: loaded, cached, and checked before it runs.
//! - [`memo`]: results of memoized functions.
//! - [`outbox`]: the rows that external targets hold, and the changes that coco has not delivered
//!   yet.
//! - [`query`]: the user's query, as a tree and as text.
//! - [`capture`]: which keys of a table changed since a snapshot.
//! - [`catalog`]: rows of coco's own tables, and locks on them.
//! - [`pg`]: safe wrappers over the server.
//!
//! Four crates do not depend on Postgres: `coco-core` (the decision about each item),
//! `coco-connectors` (external targets and providers), `coco-report` (diagrams, and the page of
//! `coco.report()`) and `coco-text` (text of files, and chunks of source code).

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// Only the extension itself needs `unsafe`, because it calls the server and the server calls it.
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

/// Initializes the library. Postgres calls it when it loads the library.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::backtrace::disable();
    sql_api::gucs::define();
    workers::define();
}
