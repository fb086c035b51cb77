//! Tests of the connectors and the providers through their traits, against servers of each kind.
//!
//! The extension need not be installed. `COCO_TEST_PG_BIN`, which `make test` sets, is the folder
//! with PostgreSQL's programs.

#[cfg(feature = "http")]
#[path = "../../../tests/support/http.rs"]
mod http;
#[cfg(feature = "functions")]
#[path = "../../../tests/support/provider.rs"]
mod provider;
#[cfg(any(feature = "neo4j", feature = "qdrant"))]
#[path = "../../../tests/support/scripted.rs"]
mod scripted;
#[cfg(feature = "kafka")]
#[path = "../../../tests/kafka/server.rs"]
mod server;
#[cfg(feature = "postgres")]
#[path = "../../../tests/support/mod.rs"]
mod support;
#[cfg(feature = "kafka")]
#[allow(dead_code)] // the tests of the extension use more of it
#[path = "../../../tests/kafka/topic.rs"]
mod topic;

#[cfg(feature = "neo4j")]
mod neo4j;
#[cfg(feature = "functions")]
mod providers;
#[cfg(feature = "http")]
mod target_http;
#[cfg(feature = "http")]
mod target_http_verify;
#[cfg(feature = "kafka")]
mod target_kafka;
#[cfg(feature = "kafka")]
mod target_kafka_verify;
#[cfg(feature = "neo4j")]
mod target_neo4j;
#[cfg(feature = "neo4j")]
mod target_neo4j_verify;
#[cfg(feature = "postgres")]
mod target_postgres;
#[cfg(feature = "qdrant")]
mod target_qdrant;
#[cfg(feature = "qdrant")]
mod target_qdrant_verify;
