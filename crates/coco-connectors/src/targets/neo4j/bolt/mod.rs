//! Bolt 4, the protocol of Neo4j's, as far as a target needs it.
//!
//! Nothing that a server sends is trusted: messages, answers, values and their nesting are bounded
//! before they are kept.
//!
//! - `value`: values, and how they are written (PackStream)
//! - `read`: how they are read
//! - `connection`: a connection, and the messages that go over it

mod connection;
mod read;
mod value;

pub use connection::{BoltError, Connection};
pub use value::Value;
