//! Providers of functions over the network: servers that embed texts, generate texts, or answer a
//! request.
//!
//! Like a connector, a provider uses no PostgreSQL server code: no pgrx, and no SPI. It is async,
//! and runs on threads that are separate from the backend it serves.
//!
//! - `config`: the options of a server
//! - `server`: the state of a server in this process: limits, pauses, clients
//! - `rate_limit`: limits of requests and tokens per minute
//! - `budget`: the cost of requests, and its limit
//! - `job_runner`: runs jobs, from their inputs to their answers
//! - `request`: one request, and its result
//! - `response`: the parsed response
//! - `failure`: classifies error responses
//! - `embed`, `generate`, `post`: the requests and responses of each kind of task
//! - `url_prefix`: finds the server whose URL is a prefix of another URL

#[cfg(feature = "functions")]
mod budget;
#[cfg(feature = "functions")]
mod config;
#[cfg(not(feature = "functions"))]
mod disabled;
#[cfg(feature = "functions")]
mod embed;
#[cfg(feature = "functions")]
mod failure;
#[cfg(feature = "functions")]
mod generate;
#[cfg(feature = "functions")]
mod job_runner;
#[cfg(feature = "functions")]
mod post;
#[cfg(feature = "functions")]
mod rate_limit;
#[cfg(feature = "functions")]
mod request;
#[cfg(feature = "functions")]
mod response;
#[cfg(feature = "functions")]
mod server;
#[cfg(feature = "functions")]
mod url_prefix;

#[cfg(not(feature = "functions"))]
pub use disabled::{ask, longest_matching_prefix, request_terms};
#[cfg(feature = "functions")]
pub use job_runner::ask;
#[cfg(feature = "functions")]
pub use request::request_terms;
#[cfg(feature = "functions")]
pub use url_prefix::longest_matching_prefix;

use coco_core::options::OptionSpec;

/// The foreign data wrapper of servers that embed and generate.
pub const MODELS: &str = "coco_openai";
/// The foreign data wrapper of services that receive posts. Webhooks use the same wrapper.
pub const SERVICES: &str = "coco_http";

/// Returns the options of servers and user mappings if the foreign data wrapper belongs only to
/// providers.
pub fn options(wrapper: &str) -> Option<&'static [OptionSpec]> {
    #[cfg(feature = "functions")]
    if wrapper == MODELS {
        return Some(config::OPTIONS);
    }
    let _ = wrapper;
    None
}
