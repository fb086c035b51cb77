//! Providers of functions over the network: servers that embed texts, generate them, or answer a
//! request.
//!
//! As a connector, a provider knows nothing of Postgres' inside: no pgrx, no SPI. It is async, and
//! runs on threads that have no part in the backend it serves.
//!
//! - `config`: the options of a server, and what is made of them
//! - `server`: what this process knows of a server: limits, pauses, clients
//! - `rate_limit`: how often, and how much, may be asked for in a minute
//! - `budget`: what requests cost, and may cost
//! - `job_runner`: a job, from its inputs to its answers
//! - `request`: one request, until it is answered or has failed
//! - `failure`: what an answer means that is none
//! - `embed`, `generate`, `post`: what each kind of task sends, and gets
//! - `url_prefix`: whether a URL lies under another

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
mod server;
#[cfg(feature = "functions")]
mod url_prefix;

#[cfg(not(feature = "functions"))]
pub use disabled::{ask, longest_matching_prefix};
#[cfg(feature = "functions")]
pub use job_runner::ask;
#[cfg(feature = "functions")]
pub use url_prefix::longest_matching_prefix;

use coco_core::options::OptionSpec;

/// The foreign data wrapper of servers that embed and generate.
pub const MODELS: &str = "coco_openai";
/// The foreign data wrapper of services that are posted to, which are webhooks' as well.
pub const SERVICES: &str = "coco_http";

/// The options of servers and user mappings of a foreign data wrapper that is a provider's alone.
pub fn options(wrapper: &str) -> Option<&'static [OptionSpec]> {
    #[cfg(feature = "functions")]
    if wrapper == MODELS {
        return Some(config::OPTIONS);
    }
    let _ = wrapper;
    None
}
