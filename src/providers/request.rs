//! One request: what is sent, and what comes of it.

use reqwest::Client;

use super::config::Config;
use super::failure::{self, Failure};
use super::{embed, generate, post, spending};
use crate::engine::delivery::Trouble;
use crate::engine::provider::{Answer, Refusal, Task};
use crate::net::client;
use crate::net::endpoint::{self, Endpoint};
use crate::net::error::{is_tls, no_answer};

/// How many bytes an answer may have: more than a thousand vectors of thousands of numbers have.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

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
    let body = client::read(&mut response, LONGEST_ANSWER).await;
    if !status.is_success() {
        let body = body.ok().flatten().unwrap_or_default();
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
        Ok(None) => Err(wrong(format!("is longer than {LONGEST_ANSWER} bytes"))),
        Ok(Some(body)) => match task {
            Task::Embed { dimensions, .. } => embed::read(&body, inputs.len(), *dimensions),
            Task::Generate { schema, .. } => {
                generate::read(&body, schema.is_some(), |text| peer.quote(text))
            }
            Task::Post { .. } => post::read(body),
        }
        .map_err(wrong),
    };
    Sent { result, free: false }
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
