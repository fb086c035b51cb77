//! The state of each server in this process: the requests sent, the requested pause, the amount
//! spent, and the connections.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Client;

use super::config::{self, Config};
use super::rate_limit::TokenBucket;
use crate::net::client;
use crate::net::endpoint::Endpoint;
use coco_core::change::DeliveryError;
use coco_core::options::Access;
use coco_core::provider::Task;

static SERVERS: LazyLock<Mutex<HashMap<String, Arc<Server>>>> = LazyLock::new(Mutex::default);

type Connection = (Arc<Endpoint>, Client);
type Connections = HashMap<(Access, bool), Connection>;

static CONNECTIONS: LazyLock<Mutex<Connections>> = LazyLock::new(Mutex::default);
/// Options and keys change, so unused connections must not stay forever.
const MAX_CONNECTIONS: usize = 64;

pub struct Server(Mutex<State>);

struct State {
    requests: TokenBucket,
    tokens: TokenBucket,
    paused_until: Option<Instant>,
    spent: f64,
}

/// Returns the state of the server with this name.
pub fn server(name: &str) -> Arc<Server> {
    let mut servers = lock(&SERVERS);
    if let Some(known) = servers.get(name) {
        return known.clone();
    }
    let now = Instant::now();
    let (requests, tokens) = (TokenBucket::new(now), TokenBucket::new(now));
    let state = State { requests, tokens, paused_until: None, spent: 0.0 };
    let new = Arc::new(Server(Mutex::new(state)));
    servers.insert(name.to_owned(), new.clone());
    new
}

/// Returns the endpoint and the client for a task's requests.
pub fn connection(
    task: &Task,
    access: &Access,
    config: &Config,
) -> Result<Connection, DeliveryError> {
    // The two kinds of servers send an api_key differently.
    let key = (access.clone(), matches!(task, Task::Post { .. }));
    if let Some(known) = lock(&CONNECTIONS).get(&key) {
        return Ok(known.clone());
    }
    let endpoint = Arc::new(config::endpoint(task, access)?);
    let client = client::new(&endpoint, config.concurrency)?;
    let mut connections = lock(&CONNECTIONS);
    if connections.len() >= MAX_CONNECTIONS {
        connections.clear();
    }
    connections.insert(key, (endpoint.clone(), client.clone()));
    Ok((endpoint, client))
}

impl Server {
    /// Takes a request's share of the server's limits. Returns how long to wait before sending it.
    pub fn take(&self, tokens: u64, config: &Config) -> Duration {
        let mut state = lock(&self.0);
        let now = Instant::now();
        let mut wait = Duration::ZERO;
        if let Some(rate) = config.requests_per_minute {
            wait = wait.max(state.requests.take(1.0, rate, now));
        }
        if let Some(rate) = config.tokens_per_minute {
            wait = wait.max(state.tokens.take(tokens as f64, rate, now));
        }
        wait
    }

    /// Corrects the estimated tokens of a request.
    pub fn correct(&self, taken: u64, used: u64) {
        lock(&self.0).tokens.correct(used as f64 - taken as f64);
    }

    /// Pauses all requests to the server for this time.
    pub fn pause(&self, time: Duration) {
        let mut state = lock(&self.0);
        state.paused_until = state.paused_until.max(Instant::now().checked_add(time));
    }

    /// Returns the remaining time of a pause.
    pub fn remaining_pause(&self) -> Duration {
        let until = lock(&self.0).paused_until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Returns the amount that this process has spent.
    pub fn spent(&self) -> f64 {
        lock(&self.0).spent
    }

    pub fn add_spent(&self, cost: f64) {
        lock(&self.0).spent += cost;
    }
}

/// Locks a mutex. The state stays consistent even if a thread panics: no change under the lock
/// takes several steps.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
