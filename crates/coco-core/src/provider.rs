//! What is asked of a provider of functions over the network (a server that embeds texts, generates
//! them, or answers a request), and what can become of it.

use std::time::Duration;

use serde_json::Value;

use super::change::DeliveryError;
use super::options::Access;

/// What is asked for: one kind a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// The embedding of each input, by a model.
    Embed { model: String, dimensions: Option<u32> },
    /// What a model answers to each input; with a JSON Schema, a JSON text.
    Generate { model: String, schema: Option<Value> },
    /// What a service answers to each input, which is a JSON text, at a URL that lies under the
    /// server's.
    Post { url: String },
}

/// Inputs for one task of one server.
#[derive(Clone, Debug)]
pub struct Job {
    /// The name of the foreign server: jobs of one share its limits.
    pub server: String,
    pub task: Task,
    pub access: Access,
    pub inputs: Vec<String>,
    /// What may still be spent, in the unit of the server's prices. None: as much as the server's
    /// `spending_cap` leaves of what this process has spent. Jobs of one server that are asked
    /// together share the lowest.
    pub budget: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Embedding(Vec<f32>),
    /// What was generated; with a schema, and of a service, a JSON text.
    Text(String),
}

/// Why an input is not answered: a reason of the input's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RejectedInput {
    pub sqlstate: String,
    pub message: String,
}

/// What it has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Requests, each retry among them.
    pub requests: u64,
    pub retries: u64,
    /// As the server has counted, or else a quarter of the bytes.
    pub tokens_in: u64,
    pub tokens_out: u64,
    /// In the unit of the server's prices.
    pub cost: f64,
    pub elapsed: Duration,
}

/// What became of a job.
#[derive(Clone, Debug)]
pub struct JobOutcome {
    /// Of each input. None: there is no answer, for a reason that `error` names.
    pub answers: Vec<Option<Result<Answer, RejectedInput>>>,
    pub usage: Usage,
    /// Why not all inputs have an answer.
    pub error: Option<DeliveryError>,
}
