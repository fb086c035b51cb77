//! What requests are made with.

use std::time::{Duration, SystemTime};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, Url, redirect};

use super::endpoint::Endpoint;
use super::tls;
use coco_core::change::DeliveryError;

const USER_AGENT: &str = concat!("coco/", env!("CARGO_PKG_VERSION"));
/// Many servers close a connection that was idle for 5 seconds or more. One that is given up
/// sooner is not closed by the other side just when a request is on its way.
const IDLE: Duration = Duration::from_secs(3);

/// A client that keeps so many connections open for a while. Nothing has to be connected to yet.
pub fn new(endpoint: &Endpoint, connections: usize) -> Result<Client, DeliveryError> {
    Client::builder()
        .tls_backend_preconfigured(tls::client(endpoint)?)
        .user_agent(USER_AGENT)
        .default_headers(endpoint.headers.clone())
        .connect_timeout(endpoint.connect_timeout)
        .timeout(endpoint.request_timeout)
        // The request goes where the server's owner has said, and nowhere else.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(connections)
        .pool_idle_timeout(IDLE)
        .build()
        .map_err(|e| {
            let detail = endpoint.peer.quote(&e.without_url().to_string());
            DeliveryError::server("HV000", "the HTTP client cannot be set up").detail(detail)
        })
}

/// A POST of JSON, signed where the endpoint's options say so.
pub fn post(client: &Client, endpoint: &Endpoint, url: Url, body: String) -> RequestBuilder {
    let mut request = client.post(url).header(CONTENT_TYPE, "application/json");
    if let Some(signer) = &endpoint.signer {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        request = request.header("x-coco-signature", signer.sign(now.as_secs(), body.as_bytes()));
    }
    request.body(body)
}
