//! What a session does: flows declared, altered, updated, looked at, and what is refused. Most of it in databases of the
//! server that tests share; a suite that needs a server of its own starts one.

#[allow(dead_code)]
#[cfg(feature = "documents")]
#[path = "../support/documents.rs"]
mod documents;
#[path = "../support/ground.rs"]
mod ground;
#[cfg(feature = "http")]
#[path = "../support/http.rs"]
mod http;
#[cfg(feature = "functions")]
#[path = "../support/provider.rs"]
mod provider;
#[path = "../support/scripted.rs"]
mod scripted;
#[allow(dead_code)]
#[cfg(feature = "kafka")]
#[path = "../kafka/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code)]
#[cfg(feature = "kafka")]
#[path = "../kafka/topic.rs"]
mod topic;

mod alter_flow;
mod altering;
mod arguments;
mod as_code;
mod backtraces;
mod bound;
mod capture;
mod cases;
mod chains;
mod compared;
mod concurrent;
mod connectors;
mod declaring;
mod delta_groups;
mod delta_property;
mod derived_lookups;
mod derived_property;
mod diagram;
mod estimate;
mod evaluate;
mod expectations;
mod expectations_bulk;
mod explain;
#[cfg(feature = "documents")]
mod extract;
mod failures;
mod files;
mod fill_order;
mod filling;
mod functions;
mod gapless;
mod handing_over;
mod history;
mod installation;
mod internal_forged;
mod key_expressions;
mod labels;
mod lineage;
mod lineage_inputs;
mod logic;
mod lookups;
mod memo;
mod memo_forged;
mod memo_provided;
mod memo_reuse;
mod memo_ttl;
mod null_groups;
mod own_tables;
mod property;
mod query_alone;
mod report;
mod rights;
mod schedules;
mod search;
mod security;
#[cfg(feature = "code")]
mod split_more;
mod status;
mod targets;
mod text;
mod turns;
mod types;
mod update_limits;
mod updating;
mod upgrade;
mod verifying;
