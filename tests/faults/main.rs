//! Processes and servers that are killed, dumps that are restored, and rows that were forged.

#[allow(dead_code)]
#[cfg(all(feature = "documents", feature = "code"))]
#[path = "../support/documents.rs"]
mod documents;
#[path = "../support/ground.rs"]
mod ground;
#[cfg(feature = "http")]
#[path = "../support/http.rs"]
mod http;
#[allow(dead_code)]
#[cfg(feature = "kafka")]
#[path = "../kafka/server.rs"]
mod server;
#[cfg(all(feature = "http", feature = "postgres"))]
#[path = "../support/sides.rs"]
mod sides;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code)]
#[cfg(feature = "kafka")]
#[path = "../kafka/topic.rs"]
mod topic;

mod chaos;
mod crashes;
mod dump;
mod dumped_expectations;
mod dumped_groups;
mod dumped_keys;
mod fuzz;
mod pg_upgrade;
mod restore;
