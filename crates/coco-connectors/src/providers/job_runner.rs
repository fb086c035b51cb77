//! Runs jobs: groups inputs into requests, limits concurrent requests, and retries.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::budget::{self, Budget};
use super::config::Config;
use super::failure::Failure;
use super::request::{self, RequestOutcome};
use super::response::ParsedResponse;
use super::server::{self, Server, lock};
use crate::net::endpoint::Endpoint;
use coco_core::change::DeliveryError;
use coco_core::masking::Masker;
use coco_core::provider::{Answer, Job, JobOutcome, RejectedInput, Task, Usage};

/// Maximum bytes of inputs per request, except for a single longer input.
const BATCH_BYTES: usize = 256 * 1024;

/// The first wait before a retry. It doubles up to the longest wait.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// If a server asks for a longer pause, the job ends: a statement does not wait that long.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs jobs concurrently, and returns an outcome for each. If the future is dropped, it sends no
/// more requests and cancels those in flight.
pub async fn ask(jobs: Vec<Job>) -> Vec<JobOutcome> {
    let mut limits_by_server: HashMap<String, Arc<ServerLimits>> = HashMap::new();
    let mut beside = JoinSet::new();
    // The outcome of a job whose task panics.
    let lost = |job: &Job| {
        failed_outcome(job.inputs.len(), DeliveryError::server("XX000", "a job has failed"))
    };
    let mut outcomes: Vec<JobOutcome> = jobs.iter().map(lost).collect();
    let plans: Vec<_> = jobs.iter().map(|job| Config::new(&job.task, &job.access.server)).collect();
    for (job, plan) in jobs.iter().zip(&plans) {
        if let Ok(config) = plan {
            let limits = limits_by_server.entry(job.server.clone());
            limits.or_insert_with(|| Arc::new(ServerLimits::new(job, &jobs, config)));
        }
    }
    for (place, (job, plan)) in jobs.into_iter().zip(plans).enumerate() {
        let begun = plan.and_then(|config| {
            let limits = limits_by_server.get(&job.server).cloned();
            let limits =
                limits.ok_or_else(|| DeliveryError::server("XX000", "a job was not planned"))?;
            let (endpoint, client) = server::connection(&job.task, &job.access, &config)?;
            Ok((config, limits, endpoint, client))
        });
        match begun {
            Err(error) => {
                let error = masker(&job).mask_error(error);
                outcomes[place] = failed_outcome(job.inputs.len(), error);
            }
            Ok((config, limits, endpoint, client)) => {
                let masker = masker(&job);
                let Job { server: name, task, inputs, .. } = job;
                let server = server::server(&name);
                let (stop, stopped) = watch::channel(false);
                let run = Arc::new(JobRun {
                    name,
                    task,
                    inputs,
                    config,
                    endpoint,
                    client,
                    server,
                    limits,
                    masker,
                    stopped,
                });
                beside.spawn(async move { (place, run.run_to_end(stop).await) });
            }
        }
    }
    while let Some(done) = beside.join_next().await {
        if let Ok((place, outcome)) = done {
            outcomes[place] = outcome;
        }
    }
    outcomes
}

/// Creates a masker for all options of a job's user mapping except the user's name.
fn masker(job: &Job) -> Masker {
    let options = job.access.user.0.iter().filter(|(name, _)| *name != "user");
    Masker::new(options.map(|(_, value)| value.as_str()))
}

/// Masks secrets in the errors of a request's result. An answer is data, and stays unchanged.
fn mask_secrets(
    result: Result<ParsedResponse, Failure>,
    masker: &Masker,
) -> Result<ParsedResponse, Failure> {
    match result {
        Ok(mut reading) => {
            let errors = reading.answers.iter_mut().filter_map(|answer| answer.as_mut().err());
            for error in errors {
                error.rejection = masker.mask_rejected_input(std::mem::take(&mut error.rejection));
            }
            Ok(reading)
        }
        Err(Failure::Inputs(refusal)) => Err(Failure::Inputs(masker.mask_rejected_input(refusal))),
        Err(Failure::Retry(error)) => Err(Failure::Retry(masker.mask_error(error))),
        Err(Failure::SlowDown(error)) => Err(Failure::SlowDown(masker.mask_error(error))),
        Err(Failure::Fatal(error)) => Err(Failure::Fatal(masker.mask_error(error))),
    }
}

fn failed_outcome(inputs: usize, error: DeliveryError) -> JobOutcome {
    JobOutcome { answers: vec![None; inputs], usage: Usage::default(), error: Some(error) }
}

/// The limits that the jobs of one server share.
struct ServerLimits {
    budget: Mutex<Budget>,
    /// A permit for each concurrent request.
    requests: Semaphore,
}

impl ServerLimits {
    fn new(first: &Job, all: &[Job], config: &Config) -> ServerLimits {
        let given = all.iter().filter(|job| job.server == first.server).filter_map(|j| j.budget);
        let of_process = || Some(config.spending_cap? - server::server(&first.server).spent());
        let left = given.reduce(f64::min).or_else(of_process);
        let requests = Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS));
        ServerLimits { budget: Mutex::new(Budget::new(left)), requests }
    }
}

struct JobRun {
    /// The name of the server.
    name: String,
    task: Task,
    inputs: Vec<String>,
    config: Config,
    endpoint: Arc<Endpoint>,
    client: Client,
    server: Arc<Server>,
    limits: Arc<ServerLimits>,
    masker: Masker,
    /// Becomes true when the job must send no more requests, after an error.
    stopped: watch::Receiver<bool>,
}

/// The inputs of one request.
#[derive(Clone, Debug, PartialEq)]
struct InputBatch {
    /// Indexes of the inputs in the job.
    inputs: Vec<usize>,
    /// Number of failed attempts.
    attempts: u32,
}

/// The result of one request of a job.
struct JobReply {
    batch: InputBatch,
    /// `None`: the request was not sent, because the job had stopped.
    result: Option<Result<ParsedResponse, Failure>>,
    usage: Usage,
}

impl JobRun {
    async fn run_to_end(self: Arc<Self>, stop: watch::Sender<bool>) -> JobOutcome {
        let began = Instant::now();
        let mut state = JobProgress {
            answers: vec![None; self.inputs.len()],
            waiting: split_inputs(&self.inputs, self.config.batch_size),
            error: None,
            dimensions: None,
            votes: HashMap::new(),
            batch_size: self.config.batch_size,
            max_retries: self.config.max_retries,
        };
        let mut usage = Usage::default();
        let mut in_flight = JoinSet::new();
        loop {
            while state.error.is_none() && in_flight.len() < self.config.concurrency {
                let Some(batch) = state.waiting.pop_front() else { break };
                in_flight.spawn(self.clone().send(batch));
            }
            let reply = match in_flight.join_next().await {
                None => break,
                Some(Ok(reply)) => reply,
                Some(Err(_)) => {
                    state.stop(DeliveryError::server("XX000", "a request has failed"));
                    continue;
                }
            };
            add(&mut usage, &reply.usage);
            if let Some(result) = reply.result {
                state.record(reply.batch, result);
            }
            if state.error.is_some() {
                // Requests in flight are charged for, so the job waits for them.
                stop.send_replace(true);
            }
        }
        usage.elapsed = began.elapsed();
        JobOutcome { answers: state.answers, usage, error: state.error }
    }

    /// Sends one request.
    async fn send(self: Arc<Self>, batch: InputBatch) -> JobReply {
        let mut usage = Usage::default();
        let result = self.try_send(&batch, &mut usage).await;
        JobReply { batch, result, usage }
    }

    async fn try_send(
        &self,
        batch: &InputBatch,
        usage: &mut Usage,
    ) -> Option<Result<ParsedResponse, Failure>> {
        let JobRun { task, config, server, .. } = self;
        if batch.attempts > 0 {
            self.wait(retry_wait(batch.attempts, fastrand::f64())).await?;
        }
        let inputs: Vec<&str> =
            batch.inputs.iter().filter_map(|n| self.inputs.get(*n)).map(String::as_str).collect();
        let (tokens_in, tokens_out) = request::estimate(task, config, &inputs);
        let estimate = config.prices.cost(tokens_in, tokens_out);
        let _permit = self.limits.requests.acquire().await.ok()?;
        self.wait(server.take(tokens_in + tokens_out, config)).await?;
        // Meanwhile, the server may have asked other requests to slow down, repeatedly.
        loop {
            match server.remaining_pause() {
                Duration::ZERO => break,
                pause => self.wait(pause).await?,
            }
        }
        if *self.stopped.borrow() {
            return None;
        }
        if !lock(&self.limits.budget).reserve(estimate) {
            server.correct(tokens_in + tokens_out, 0);
            return Some(Err(Failure::Fatal(self.spending_cap_error())));
        }
        usage.requests += 1;
        usage.retries += u64::from(batch.attempts > 0);
        let JobRun { endpoint, client, name, .. } = self;
        let RequestOutcome { result, is_free } =
            request::send(task, config, endpoint, client, name, &inputs).await;
        let result = mask_secrets(result, &self.masker);
        let used = match (&result, is_free) {
            (_, true) => (0, 0),
            (Ok(reading), _) => (
                reading.tokens_in.unwrap_or(tokens_in),
                reading.tokens_out.unwrap_or_else(|| estimate_generated(reading)),
            ),
            // The server did not report the usage, and may charge for the request.
            (Err(_), false) => (tokens_in, tokens_out),
        };
        let cost = config.prices.cost(used.0, used.1);
        lock(&self.limits.budget).settle(estimate, cost);
        server.add_spent(cost);
        server.correct(tokens_in + tokens_out, used.0 + used.1);
        (usage.tokens_in, usage.tokens_out, usage.cost) = (used.0, used.1, cost);
        // If a server asks for a wait, that concerns all requests.
        let pause = match &result {
            Err(Failure::SlowDown(error)) => {
                let of_ours = retry_wait(batch.attempts + 1, fastrand::f64());
                Some(error.retry_after.unwrap_or(of_ours))
            }
            Err(Failure::Retry(error)) => error.retry_after,
            _ => None,
        };
        if let Some(pause) = pause {
            server.pause(pause.min(LONGEST_PAUSE));
        }
        Some(result)
    }

    /// Waits. Returns `None` if the job stops meanwhile.
    async fn wait(&self, time: Duration) -> Option<()> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => None,
            () = tokio::time::sleep(time) => Some(()),
        }
    }

    fn spending_cap_error(&self) -> DeliveryError {
        let name = &self.name;
        DeliveryError::server("53400", format!("spending cap of server \"{name}\" is reached"))
            .detail("Earlier answers are kept.")
            .hint("Raise the cap with ALTER SERVER … OPTIONS (SET spending_cap '…').")
    }
}

/// The state of a job.
struct JobProgress {
    answers: Vec<Option<Result<Answer, RejectedInput>>>,
    waiting: VecDeque<InputBatch>,
    error: Option<DeliveryError>,
    /// Dimensions of the vectors received, or of most of them.
    dimensions: Option<usize>,
    /// Number of responses by the length of their vectors.
    votes: HashMap<usize, usize>,
    batch_size: usize,
    max_retries: u32,
}

impl JobProgress {
    /// Records the result of a request.
    fn record(&mut self, batch: InputBatch, result: Result<ParsedResponse, Failure>) {
        match result {
            Ok(reading) => self.accept(batch, reading),
            Err(Failure::Fatal(error)) => self.stop(error),
            Err(Failure::Inputs(refusal)) => match batch.inputs.as_slice() {
                [alone] => self.answer(*alone, Err(refusal)),
                inputs => {
                    let (left, right) = inputs.split_at(inputs.len() / 2);
                    for half in [right, left] {
                        self.waiting.push_front(InputBatch { inputs: half.to_vec(), attempts: 0 });
                    }
                }
            },
            Err(Failure::Retry(error) | Failure::SlowDown(error)) => {
                self.retry_or_stop(batch, error)
            }
        }
    }

    fn retry_or_stop(&mut self, batch: InputBatch, error: DeliveryError) {
        let patient = error.retry_after.is_none_or(|after| after <= LONGEST_PAUSE);
        match patient && batch.attempts < self.max_retries {
            true => {
                tracing::debug!(
                    sqlstate = error.sqlstate,
                    inputs = batch.inputs.len(),
                    attempts = batch.attempts + 1,
                    "retrying a request to a provider: {}",
                    error.message
                );
                self.waiting.push_back(InputBatch { attempts: batch.attempts + 1, ..batch });
            }
            false => self.stop(error),
        }
    }

    fn accept(&mut self, batch: InputBatch, reading: ParsedResponse) {
        let length = reading.answers.iter().flatten().find_map(|answer| match answer {
            Answer::Embedding(vector) => Some(vector.len()),
            Answer::Text(_) => None,
        });
        if let Some(length) = length {
            *self.votes.entry(length).or_insert(0) += 1;
        }
        if let (Some(length), Some(expected)) = (length, self.dimensions)
            && length != expected
        {
            let votes = |of: usize| self.votes.get(&of).copied().unwrap_or(0);
            if votes(length) <= votes(expected) || batch.attempts >= self.max_retries {
                let message = format!(
                    "the server answered with vectors of {length} dimensions after vectors of \
                     {expected}"
                );
                self.retry_or_stop(batch, DeliveryError::server("08P01", message));
                if self.error.is_some() {
                    // Neither length is known to be right.
                    self.answers.fill(None);
                }
                return;
            }
            // Most responses have this length, so the earlier inputs are requested again.
            self.ask_again_for_length(expected, batch.attempts + 1);
            self.dimensions = Some(length);
        }
        self.dimensions = self.dimensions.or(length);
        let last = batch.attempts >= self.max_retries;
        let mut retryable = Vec::new();
        for (place, answer) in batch.inputs.into_iter().zip(reading.answers) {
            match answer {
                Err(error) if error.is_retryable && !last => retryable.push(place),
                Err(error) => self.answer(place, Err(error.rejection)),
                Ok(answer) => self.answer(place, Ok(answer)),
            }
        }
        if !retryable.is_empty() {
            self.waiting.push_back(InputBatch { inputs: retryable, attempts: batch.attempts + 1 });
        }
    }

    /// Discards the vectors of this length, and requests their inputs again.
    fn ask_again_for_length(&mut self, length: usize, attempts: u32) {
        let mut places = Vec::new();
        for (place, answer) in self.answers.iter_mut().enumerate() {
            if matches!(answer, Some(Ok(Answer::Embedding(vector))) if vector.len() == length) {
                *answer = None;
                places.push(place);
            }
        }
        for inputs in places.chunks(self.batch_size.max(1)) {
            self.waiting.push_back(InputBatch { inputs: inputs.to_vec(), attempts });
        }
    }

    fn answer(&mut self, place: usize, answer: Result<Answer, RejectedInput>) {
        if let Some(empty) = self.answers.get_mut(place) {
            *empty = Some(answer);
        }
    }

    /// Stops the job. Only the first error counts.
    fn stop(&mut self, error: DeliveryError) {
        self.error.get_or_insert(error);
    }
}

/// Groups the inputs into requests.
fn split_inputs(inputs: &[String], batch_size: usize) -> VecDeque<InputBatch> {
    let mut split_inputs: VecDeque<InputBatch> = VecDeque::new();
    let mut bytes = 0;
    for (place, input) in inputs.iter().enumerate() {
        bytes += input.len();
        match split_inputs.back_mut() {
            Some(batch) if batch.inputs.len() < batch_size && bytes <= BATCH_BYTES => {
                batch.inputs.push(place);
            }
            _ => {
                bytes = input.len();
                split_inputs.push_back(InputBatch { inputs: vec![place], attempts: 0 });
            }
        }
    }
    split_inputs
}

/// Returns the wait after this many attempts. `random` is between 0 and 1, so that requests that
/// failed together are not repeated together.
fn retry_wait(attempts: u32, random: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT).mul_f64(0.5 + random / 2.0)
}

/// Estimates the generated tokens if the server does not report them.
fn estimate_generated(reading: &ParsedResponse) -> u64 {
    let tokens = |answer: &Answer| match answer {
        Answer::Text(text) => budget::estimate_tokens(text),
        Answer::Embedding(_) => 0,
    };
    reading.answers.iter().flatten().map(tokens).sum()
}

fn add(sum: &mut Usage, more: &Usage) {
    sum.requests += more.requests;
    sum.retries += more.retries;
    sum.tokens_in += more.tokens_in;
    sum.tokens_out += more.tokens_out;
    sum.cost += more.cost;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::response::InputError;

    fn progress(inputs: usize) -> JobProgress {
        JobProgress {
            answers: vec![None; inputs],
            waiting: VecDeque::new(),
            error: None,
            dimensions: None,
            votes: HashMap::new(),
            batch_size: 2,
            max_retries: 2,
        }
    }

    fn batch(inputs: &[usize], attempts: u32) -> InputBatch {
        InputBatch { inputs: inputs.to_vec(), attempts }
    }

    fn reading(vectors: &[Option<&[f32]>]) -> ParsedResponse {
        let answer = |vector: &Option<&[f32]>| match vector {
            Some(vector) => Ok(Answer::Embedding(vector.to_vec())),
            None => Err(InputError::retryable("no vector")),
        };
        let answers = vectors.iter().map(answer).collect();
        ParsedResponse { answers, tokens_in: None, tokens_out: None }
    }

    fn refusal() -> Failure {
        Failure::Inputs(RejectedInput { sqlstate: "22000".to_owned(), message: "no".to_owned() })
    }

    fn error() -> DeliveryError {
        DeliveryError::server("HV000", "ill")
    }

    #[test]
    fn parts_have_so_many_inputs_and_bytes() {
        let long = "x".repeat(BATCH_BYTES);
        let inputs: Vec<String> =
            ["a", "b", "c", &long, "d", "e"].iter().map(|s| (*s).to_owned()).collect();
        let places: Vec<Vec<usize>> =
            split_inputs(&inputs, 2).into_iter().map(|p| p.inputs).collect();
        assert_eq!(places, [vec![0, 1], vec![2], vec![3], vec![4, 5]]);
        assert!(split_inputs(&[], 2).is_empty());
    }

    #[test]
    fn a_refused_part_is_halved_until_an_input_stands_alone() {
        let mut state = progress(3);
        state.record(batch(&[0, 1, 2], 1), Err(refusal()));
        assert_eq!(state.waiting, [batch(&[0], 0), batch(&[1, 2], 0)]);
        state.record(batch(&[0], 0), Err(refusal()));
        assert!(matches!(state.answers[0], Some(Err(_))) && state.error.is_none());
    }

    #[test]
    fn a_part_is_asked_again_so_often() {
        let mut state = progress(1);
        state.record(batch(&[0], 1), Err(Failure::Retry(error())));
        assert_eq!(state.waiting, [batch(&[0], 2)]);
        state.record(batch(&[0], 2), Err(Failure::SlowDown(error())));
        assert_eq!(state.error, Some(error()));
    }

    #[test]
    fn a_server_that_wants_to_be_left_alone_is() {
        let mut state = progress(1);
        let alone = error().retry_after(LONGEST_PAUSE * 2);
        state.record(batch(&[0], 0), Err(Failure::SlowDown(alone.clone())));
        assert_eq!((state.error, state.waiting.len()), (Some(alone), 0));
    }

    #[test]
    fn what_is_doubted_is_asked_again_alone_and_then_refused() {
        let mut state = progress(2);
        state.record(batch(&[0, 1], 0), Ok(reading(&[None, Some(&[1.0])])));
        assert_eq!((state.waiting.pop_front(), &state.answers[0]), (Some(batch(&[0], 1)), &None));
        assert!(matches!(state.answers[1], Some(Ok(_))));
        state.record(batch(&[0], 2), Ok(reading(&[None])));
        assert!(matches!(state.answers[0], Some(Err(_))) && state.error.is_none());
    }

    #[test]
    fn vectors_that_do_not_fit_together_are_not_kept() {
        let mut state = progress(2);
        state.record(batch(&[0], 0), Ok(reading(&[Some(&[1.0, 2.0])])));
        state.record(batch(&[1], 0), Ok(reading(&[Some(&[1.0])])));
        assert_eq!((&state.waiting[0], state.answers[0].is_some()), (&batch(&[1], 1), true));
        state.record(batch(&[1], 2), Ok(reading(&[Some(&[1.0])])));
        assert!(state.error.is_some() && state.answers.iter().all(Option::is_none));
    }

    #[test]
    fn the_length_that_most_answers_have_counts() {
        let mut state = progress(4);
        state.record(batch(&[0], 0), Ok(reading(&[Some(&[1.0])])));
        state.record(batch(&[1], 0), Ok(reading(&[Some(&[1.0, 2.0])])));
        state.record(batch(&[2], 0), Ok(reading(&[Some(&[1.0, 2.0])])));
        assert!(state.answers[0].is_none() && state.answers[2].is_some());
        assert_eq!(state.waiting, [batch(&[1], 1), batch(&[0], 1)]);
        assert_eq!((state.dimensions, &state.error), (Some(2), &None));
    }

    #[test]
    fn waits_double_and_differ() {
        let ms = |attempts, random| retry_wait(attempts, random).as_millis();
        assert_eq!([ms(1, 0.0), ms(1, 1.0), ms(2, 1.0), ms(3, 0.0)], [250, 500, 1000, 1000]);
        assert_eq!([ms(7, 1.0), ms(4000, 1.0)], [30_000, 30_000]);
    }
}
