//! One request: what is sent, and what comes of it.

use reqwest::Client;

use super::config::Config;
use super::failure::{self, Failure};
use super::{embed, generate, post, spending};
use crate::net::endpoint::{self, Endpoint};
use crate::net::error::{is_tls, no_answer};
use crate::net::{body, client};
use coco_core::delivery::Trouble;
use coco_core::provider::{Answer, Refusal, Task};

/// The most bytes of an answer that is a text.
const LONGEST_TEXT: usize = 16 * 1024 * 1024;
/// The most bytes of an answer that says why there is none.
const LONGEST_ERROR: usize = 64 * 1024;
/// The most bytes of an answer that is vectors.
const LONGEST_VECTORS: usize = 64 * 1024 * 1024;
/// The most numbers of a vector, where the request does not say how many.
const MOST_DIMENSIONS: u32 = 16_384;
/// The most bytes that a number of a vector is written with, a line and its indentation for each.
const LONGEST_NUMBER: usize = 40;
/// The most tokens that a server may count beyond the bytes of a request's inputs: what a model has
/// thought is no part of its answer.
const MOST_TOKENS: u64 = 1_000_000;

/// What an answer says of each input, and of what it has cost.
#[derive(Debug, PartialEq)]
pub struct Reading {
    pub answers: Vec<Result<Answer, Doubt>>,
    pub tokens_in: Option<u64>,
    pub tokens_out: Option<u64>,
}

/// Why an input of a request that was answered is not.
#[derive(Debug, PartialEq)]
pub struct Doubt {
    pub refusal: Refusal,
    /// It may be another time.
    pub again: bool,
}

impl Doubt {
    pub fn retry(message: impl Into<String>) -> Doubt {
        let refusal = Refusal { sqlstate: "HV000".to_owned(), message: message.into() };
        Doubt { refusal, again: true }
    }

    pub fn refuse(message: impl Into<String>) -> Doubt {
        let refusal = Refusal { sqlstate: "22000".to_owned(), message: message.into() };
        Doubt { refusal, again: false }
    }
}

/// What became of a request.
pub struct Sent {
    pub result: Result<Reading, Failure>,
    /// Nobody has worked on it, and so it has cost nothing.
    pub free: bool,
}

/// About how many tokens a request takes, of its inputs and its answer.
pub fn estimate(task: &Task, config: &Config, inputs: &[&str]) -> (u64, u64) {
    let tokens_in = inputs.iter().map(|input| spending::tokens(input)).sum();
    match task {
        Task::Generate { .. } => {
            (tokens_in, generate::longest(&config.parameters).unwrap_or(tokens_in))
        }
        _ => (tokens_in, 0),
    }
}

/// Makes a request.
pub async fn send(
    task: &Task,
    config: &Config,
    endpoint: &Endpoint,
    client: &Client,
    server: &str,
    inputs: &[&str],
) -> Sent {
    let request = match prepare(task, config, endpoint, client, inputs) {
        Ok(request) => request,
        Err(trouble) => return Sent { result: Err(Failure::Trouble(trouble)), free: true },
    };
    let unanswered = |error: &reqwest::Error| {
        let trouble = no_answer(error, endpoint);
        match is_tls(error) || error.is_builder() {
            true => Failure::Trouble(trouble),
            false => Failure::Again(trouble),
        }
    };
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(e) => return Sent { result: Err(unanswered(&e)), free: e.is_connect() },
    };
    let (status, peer) = (response.status(), &endpoint.peer);
    let longest = if status.is_success() { longest(task, inputs.len()) } else { LONGEST_ERROR };
    let body = body::read(&mut response, longest).await;
    if !status.is_success() {
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let failure = failure::read(status, response.headers(), &body, task, server, peer);
        return Sent { result: Err(failure), free: true };
    }
    let wrong = |why: String| {
        let message =
            format!("{peer} does not answer as it should: its answer {}", peer.quote(&why));
        Failure::Again(Trouble::server("08P01", message))
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
        .map(|reading| plausible(reading, inputs))
        .map_err(wrong),
    };
    Sent { result, free: false }
}

/// The most bytes of an answer to so many inputs.
fn longest(task: &Task, inputs: usize) -> usize {
    match task {
        Task::Embed { dimensions, .. } => {
            let dimensions = dimensions.unwrap_or(MOST_DIMENSIONS) as usize;
            let vectors = inputs.saturating_mul(dimensions).saturating_mul(LONGEST_NUMBER);
            vectors.saturating_add(LONGEST_ERROR).min(LONGEST_VECTORS)
        }
        Task::Generate { .. } | Task::Post { .. } => LONGEST_TEXT,
    }
}

/// A reading without counts of tokens that cannot be: they are what others wait for, and what is
/// charged for.
fn plausible(reading: Reading, inputs: &[&str]) -> Reading {
    let bytes: u64 = inputs.iter().map(|input| input.len() as u64).sum();
    let most = |tokens: u64| tokens.min(bytes.saturating_add(MOST_TOKENS));
    Reading {
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
) -> Result<reqwest::RequestBuilder, Trouble> {
    let first = inputs.first().copied().unwrap_or_default();
    let (url, body, idempotency_key) = match task {
        Task::Embed { model, dimensions } => {
            let body = embed::body(model, *dimensions, inputs).map_err(|e| {
                Trouble::target("XX000", "inputs cannot be written as JSON").detail(e.to_string())
            })?;
            (below(endpoint, "embeddings"), body, None)
        }
        Task::Generate { model, schema } => {
            let body = generate::body(model, schema.as_ref(), &config.parameters, first);
            (below(endpoint, "chat/completions"), body, None)
        }
        Task::Post { url } => {
            let parsed = endpoint::url(url).map_err(|why| {
                Trouble::target("22023", format!("the URL that is to be posted to {why}"))
            })?;
            (parsed, first.to_owned(), Some(post::idempotency_key(url, first)))
        }
    };
    // What a server's credentials are sent to is the server's.
    if url.origin() != endpoint.url.origin() {
        return Err(Trouble::target("42501", "the URL is not one of the server's"));
    }
    let mut request = client::post(client, endpoint, url, body);
    if let Some(key) = idempotency_key {
        request = request.header("idempotency-key", key);
    }
    Ok(request)
}

/// A path below the server's.
fn below(endpoint: &Endpoint, path: &str) -> reqwest::Url {
    let mut url = endpoint.url.clone();
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base}/{path}"));
    url
}
