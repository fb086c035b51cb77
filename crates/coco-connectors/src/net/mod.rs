//! HTTP, as connectors and providers both have it: whom a request goes to, and with what.
//!
//! - `endpoint`: the options of a server that speaks HTTP, and what is made of them
//! - `path`: whether a URL that a row gives could lead out of where it seems to be
//! - `headers`: those of a request, credentials among them
//! - `tls`: whom an `https` server must be certified by
//! - `sign`: the signature of a request
//! - `peer`: the other side, as far as messages may speak of it
//! - `client`: what requests are made with
//! - `body`: how much of an answer is read
//! - `retry_after`: when the other side wants to be asked again
//! - `error`: what the lack of an answer means

pub mod body;
pub mod client;
pub mod endpoint;
pub mod error;
pub mod headers;
pub mod path;
pub mod peer;
pub mod retry_after;
pub mod sign;
pub mod tls;
