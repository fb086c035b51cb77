//! Tests of the Neo4j connector, against one Neo4j server that all tests here share.
#![cfg(feature = "neo4j")]

mod access;
mod faults;
mod graph;
mod values;
