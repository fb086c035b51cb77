//! The connector to another Postgres.
#![cfg(feature = "postgres")]

#[allow(dead_code)]
#[path = "../src/engine/mod.rs"]
mod engine;
#[allow(dead_code)]
#[path = "../src/targets/mod.rs"]
mod targets;
