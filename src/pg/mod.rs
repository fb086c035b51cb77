//! Safe wrappers over the server: errors, SPI, roles, snapshots, tuplestores, bulk insert, plans,
//! encodings of values.
//!
//! Nothing in this module knows flows. It contains most of the extension's `unsafe` code. Callers:
//! every room.

pub mod acting_role;
pub mod backend;
pub mod backtrace;
pub mod bulk_insert;
pub mod checked_version;
pub mod child_process;
pub mod clock;
pub mod columns;
pub mod datum_bytes;
pub mod deferred_indexes;
pub mod error;
pub mod error_context;
pub mod fmgr;
pub mod internal_objects;
pub mod invalidation;
pub mod json;
pub mod local_files;
pub mod notice;
pub mod plan_cache;
pub mod relations;
pub mod server_text;
pub mod server_version;
pub mod snapshot;
pub mod spi;
pub mod subtransaction;
pub mod time_zone;
pub mod tuplestore;
pub mod type_definition;
pub mod value_codec;
