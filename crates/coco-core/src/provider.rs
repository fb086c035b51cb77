//! Jobs for providers of functions over the network, and their outcomes. A provider is a server
//! that embeds texts, generates texts, or answers a request.

use std::time::Duration;

use serde_json::Value;

use super::change::DeliveryError;
use super::options::Access;

/// The task of a job. All inputs of a job have the same task.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Embeds each input with a model.
    Embed { model: String, dimensions: Option<u32> },
    /// Generates an answer to each input with a model. With a JSON Schema, each answer is a JSON
    /// text.
    Generate { model: String, schema: Option<Value> },
    /// Posts each input, a JSON text, to a service. The URL must lie under the URL of the server.
    Post { url: String },
}

/// Estimates the tokens of a text: in English, a token has about four bytes.
pub fn estimate_tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

/// What the options of a server say about the requests of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RequestTerms {
    /// Maximum number of inputs in a request, at least 1.
    pub inputs_per_request: u64,
    /// Prices of a million tokens, in the unit of the server's prices.
    pub price_in: f64,
    pub price_out: f64,
    /// Maximum number of tokens that an answer has; `None` if the task gets no generated text, or
    /// the options do not limit it.
    pub answer_tokens: Option<u64>,
}

/// Inputs for one task of one server.
#[derive(Clone, Debug)]
pub struct Job {
    /// Name of the foreign server. Jobs of one server share its limits.
    pub server: String,
    pub task: Task,
    pub access: Access,
    pub inputs: Vec<String>,
    /// Amount that the job may still spend, in the unit of the server's prices. If it is `None`,
    /// the limit is the server's `spending_cap` minus what this process has spent. Jobs of one
    /// server that are passed together share the lowest budget.
    pub budget: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Embedding(Vec<f32>),
    /// The generated text. It is a JSON text if the task has a schema, or if a service answered.
    Text(String),
}

/// The reason why the provider rejected one input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RejectedInput {
    pub sqlstate: String,
    pub message: String,
}

/// Requests, tokens and cost of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Number of requests, including retries.
    pub requests: u64,
    pub retries: u64,
    /// Tokens as the server has counted them. If the server reports no count, the number is a
    /// quarter of the bytes.
    pub tokens_in: u64,
    pub tokens_out: u64,
    /// In the unit of the server's prices.
    pub cost: f64,
    pub elapsed: Duration,
}

/// The outcome of a job.
#[derive(Clone, Debug)]
pub struct JobOutcome {
    /// The answer to each input, in order. `None`: the provider gave no answer; `error` says why.
    pub answers: Vec<Option<Result<Answer, RejectedInput>>>,
    pub usage: Usage,
    /// The reason why some inputs have no answer.
    pub error: Option<DeliveryError>,
}
