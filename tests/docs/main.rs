//! The documents: their examples run, the reference is what the extension says, each error has its line.

#[cfg(feature = "http")]
#[path = "../support/http.rs"]
mod http;
#[cfg(feature = "functions")]
#[path = "../support/provider.rs"]
mod provider;
#[path = "../support/scripted.rs"]
mod scripted;
#[allow(dead_code)]
#[cfg(feature = "kafka")]
#[path = "../kafka/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

mod documents;
mod reference;
mod troubleshooting;
