//! The part of Bolt 4, the protocol of Neo4j, that a target needs.
//!
//! The server is not trusted: messages, responses, values and their nesting are bounded before they
//! are stored.
//!
//! - `value`: values, and their encoding (PackStream)
//! - `read`: their decoding
//! - `connection`: a connection, and its messages

mod connection;
mod read;
mod value;

pub use connection::{BoltError, Connection};
pub use value::Value;
