//! One request, and its result.

use reqwest::Client;

use super::config::Config;
use super::failure::{self, Failure};
use super::response::ParsedResponse;
use super::{budget, embed, generate, post};
use crate::net::endpoint::{self, Endpoint};
use crate::net::error::{is_tls, no_answer};
use crate::net::{body, client};
use coco_core::change::DeliveryError;
use coco_core::options::Options;
use coco_core::provider::{RequestTerms, Task};

/// Maximum bytes of a response with a text.
const MAX_TEXT_BYTES: usize = 16 * 1024 * 1024;
/// Maximum bytes of an error response.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Maximum bytes of a response with vectors.
const MAX_VECTORS_BYTES: usize = 64 * 1024 * 1024;
/// Maximum dimensions of a vector, if the request does not set them.
const MAX_DIMENSIONS: u32 = 16_384;
/// Maximum bytes of one number of a vector, including a line break and indentation.
const MAX_NUMBER_BYTES: usize = 40;
/// Maximum number of tokens that a server may count beyond the bytes of the inputs: the answer does
/// not include the reasoning of a model.
const MAX_EXTRA_TOKENS: u64 = 1_000_000;

/// The outcome of a request.
pub struct RequestOutcome {
    pub result: Result<ParsedResponse, Failure>,
    /// The server has not processed the request, so the request costs nothing.
    pub is_free: bool,
}

/// Estimates the tokens of a request: those of its inputs, and those of its answer.
pub fn estimate(task: &Task, config: &Config, inputs: &[&str]) -> (u64, u64) {
    let tokens_in = inputs.iter().map(|input| budget::estimate_tokens(input)).sum();
    match task {
        Task::Generate { .. } => {
            (tokens_in, generate::max_answer_tokens(&config.parameters).unwrap_or(tokens_in))
        }
        _ => (tokens_in, 0),
    }
}

/// Returns what the options of a server say about the requests of a task.
pub fn request_terms(task: &Task, server: &Options) -> Result<RequestTerms, DeliveryError> {
    let config = Config::new(task, server)?;
    Ok(RequestTerms {
        inputs_per_request: config.batch_size as u64,
        price_in: config.prices.tokens_in,
        price_out: config.prices.tokens_out,
        answer_tokens: match task {
            Task::Generate { .. } => generate::max_answer_tokens(&config.parameters),
            _ => None,
        },
    })
}

/// Sends a request, and reads the response.
pub async fn send(
    task: &Task,
    config: &Config,
    endpoint: &Endpoint,
    client: &Client,
    server: &str,
    inputs: &[&str],
) -> RequestOutcome {
    let request = match prepare(task, config, endpoint, client, inputs) {
        Ok(request) => request,
        Err(error) => return RequestOutcome { result: Err(Failure::Fatal(error)), is_free: true },
    };
    let unanswered = |error: &reqwest::Error| {
        let delivery_error = no_answer(error, endpoint);
        match is_tls(error) || error.is_builder() {
            true => Failure::Fatal(delivery_error),
            false => Failure::Retry(delivery_error),
        }
    };
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(e) => return RequestOutcome { result: Err(unanswered(&e)), is_free: e.is_connect() },
    };
    let (status, peer) = (response.status(), &endpoint.peer);
    let longest =
        if status.is_success() { max_response_bytes(task, inputs.len()) } else { MAX_ERROR_BYTES };
    let body = body::read(&mut response, longest).await;
    if !status.is_success() {
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let failure = failure::read(status, response.headers(), &body, task, server, peer);
        return RequestOutcome { result: Err(failure), is_free: true };
    }
    let wrong = |why: String| {
        let message = format!("{peer} sent an invalid answer: its answer {}", peer.quote(&why));
        Failure::Retry(DeliveryError::server("08P01", message))
    };
    let result = match body {
        Err(e) => Err(unanswered(&e)),
        Ok(Err(excess)) => Err(wrong(excess.to_string())),
        Ok(Ok(body)) => match task {
            Task::Embed { dimensions, .. } => embed::read(&body, inputs.len(), *dimensions),
            Task::Generate { schema, .. } => {
                generate::read(&body, schema.is_some(), |text| peer.quote(text))
            }
            Task::Post { .. } => post::read(&body),
        }
        .map(|reading| bound_token_counts(reading, inputs))
        .map_err(wrong),
    };
    RequestOutcome { result, is_free: false }
}

/// Returns the maximum bytes of a response to this many inputs.
fn max_response_bytes(task: &Task, inputs: usize) -> usize {
    match task {
        Task::Embed { dimensions, .. } => {
            let dimensions = dimensions.unwrap_or(MAX_DIMENSIONS) as usize;
            let vectors = inputs.saturating_mul(dimensions).saturating_mul(MAX_NUMBER_BYTES);
            vectors.saturating_add(MAX_ERROR_BYTES).min(MAX_VECTORS_BYTES)
        }
        Task::Generate { .. } | Task::Post { .. } => MAX_TEXT_BYTES,
    }
}

/// Bounds the token counts of a response. Other requests wait for these tokens, and they determine
/// the cost.
fn bound_token_counts(reading: ParsedResponse, inputs: &[&str]) -> ParsedResponse {
    let bytes: u64 = inputs.iter().map(|input| input.len() as u64).sum();
    let most = |tokens: u64| tokens.min(bytes.saturating_add(MAX_EXTRA_TOKENS));
    ParsedResponse {
        tokens_in: reading.tokens_in.map(most),
        tokens_out: reading.tokens_out.map(most),
        ..reading
    }
}

fn prepare(
    task: &Task,
    config: &Config,
    endpoint: &Endpoint,
    client: &Client,
    inputs: &[&str],
) -> Result<reqwest::RequestBuilder, DeliveryError> {
    let first = inputs.first().copied().unwrap_or_default();
    let (url, body, idempotency_key) = match task {
        Task::Embed { model, dimensions } => {
            let body = embed::body(model, *dimensions, inputs).map_err(|e| {
                DeliveryError::target("XX000", "could not write inputs as JSON")
                    .detail(e.to_string())
            })?;
            (join_path(endpoint, "embeddings"), body, None)
        }
        Task::Generate { model, schema } => {
            let body = generate::body(model, schema.as_ref(), &config.parameters, first);
            (join_path(endpoint, "chat/completions"), body, None)
        }
        Task::Post { url } => {
            let parsed = endpoint::url(url)
                .map_err(|why| DeliveryError::target("22023", format!("the URL {why}")))?;
            (parsed, first.to_owned(), Some(post::idempotency_key(url, first)))
        }
    };
    // The credentials of a server are sent only to that server.
    if url.origin() != endpoint.url.origin() {
        return Err(DeliveryError::target("42501", "the URL does not belong to the server"));
    }
    let mut request = client::post(client, endpoint, url, body);
    if let Some(key) = idempotency_key {
        request = request.header("idempotency-key", key);
    }
    Ok(request)
}

/// Returns the URL of a path below the server's URL.
fn join_path(endpoint: &Endpoint, path: &str) -> reqwest::Url {
    let mut url = endpoint.url.clone();
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base}/{path}"));
    url
}
