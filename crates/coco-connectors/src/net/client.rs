//! Creates HTTP clients and requests.

use std::time::{Duration, SystemTime};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, Url, redirect};

use super::endpoint::Endpoint;
use super::tls;
use coco_core::change::DeliveryError;

const USER_AGENT: &str = concat!("coco/", env!("CARGO_PKG_VERSION"));
/// Many servers close a connection after 5 seconds without requests. coco gives a connection up
/// earlier, so that the server does not close it just as a request is sent.
const IDLE: Duration = Duration::from_secs(3);

/// Creates a client that keeps this many idle connections. It does not connect yet.
pub fn new(endpoint: &Endpoint, connections: usize) -> Result<Client, DeliveryError> {
    Client::builder()
        .tls_backend_preconfigured(tls::client(endpoint)?)
        .user_agent(USER_AGENT)
        .default_headers(endpoint.headers.clone())
        .connect_timeout(endpoint.connect_timeout)
        .timeout(endpoint.request_timeout)
        // A request goes only to the URL that the owner of the server has set.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(connections)
        .pool_idle_timeout(IDLE)
        .build()
        .map_err(|e| {
            let detail = endpoint.peer.quote(&e.without_url().to_string());
            DeliveryError::server("HV000", "could not set up the HTTP client").detail(detail)
        })
}

/// Creates a POST request with a JSON body. Signs it if the options contain a secret for
/// signatures.
pub fn post(client: &Client, endpoint: &Endpoint, url: Url, body: String) -> RequestBuilder {
    let mut request = client.post(url).header(CONTENT_TYPE, "application/json");
    if let Some(signer) = &endpoint.signer {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        request = request.header("x-coco-signature", signer.sign(now.as_secs(), body.as_bytes()));
    }
    request.body(body)
}
