//! HTTP for connectors and providers.
//!
//! - `endpoint`: the options of an HTTP server
//! - `path`: checks that the URL in a row cannot leave its apparent path
//! - `headers`: request headers, including credentials
//! - `tls`: the trusted root certificates
//! - `sign`: the signature of a request
//! - `peer`: the server, as messages may describe it
//! - `client`: clients and requests
//! - `body`: reads responses, with limits
//! - `retry_after`: the wait that a server asks for
//! - `error`: classifies requests without a response

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
