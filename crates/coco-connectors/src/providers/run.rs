//! A job, from its inputs to its answers: what is asked together, how many requests are made at
//! once, and which are made again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::config::Config;
use super::failure::Failure;
use super::request::{self, Reading, Sent};
use super::server::{self, Server, lock};
use super::spending::{self, Budget};
use crate::net::endpoint::Endpoint;
use coco_core::delivery::Trouble;
use coco_core::masking::Masker;
use coco_core::provider::{Answer, Job, Outcome, Refusal, Task, Usage};

/// How many bytes of inputs a request has, but for a single one that is longer.
const BATCH_BYTES: usize = 256 * 1024;

/// The first wait before a request is made again, which doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A server that wants to be left alone for longer is: a statement does not wait for that.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Does jobs beside each other: an outcome for each. Dropped, it makes no more requests, and gives up
/// those that are on their way.
pub async fn ask(jobs: Vec<Job>) -> Vec<Outcome> {
    let mut shares: HashMap<String, Arc<Share>> = HashMap::new();
    let mut beside = JoinSet::new();
    // Until a job says otherwise.
    let lost = |job: &Job| nothing(job.inputs.len(), Trouble::server("XX000", "a job has failed"));
    let mut outcomes: Vec<Outcome> = jobs.iter().map(lost).collect();
    let plans: Vec<_> = jobs.iter().map(|job| Config::new(&job.task, &job.access.server)).collect();
    for (job, plan) in jobs.iter().zip(&plans) {
        if let Ok(config) = plan {
            let share = shares.entry(job.server.clone());
            share.or_insert_with(|| Arc::new(Share::new(job, &jobs, config)));
        }
    }
    for (place, (job, plan)) in jobs.into_iter().zip(plans).enumerate() {
        let begun = plan.and_then(|config| {
            let share = shares.get(&job.server).cloned();
            let share = share.ok_or_else(|| Trouble::server("XX000", "a job was not planned"))?;
            let (endpoint, client) = server::line(&job.task, &job.access, &config)?;
            Ok((config, share, endpoint, client))
        });
        match begun {
            Err(trouble) => {
                let trouble = masker(&job).trouble(trouble);
                outcomes[place] = nothing(job.inputs.len(), trouble);
            }
            Ok((config, share, endpoint, client)) => {
                let masker = masker(&job);
                let Job { server: name, task, inputs, .. } = job;
                let server = server::server(&name);
                let (stop, stopped) = watch::channel(false);
                let run = Arc::new(Run {
                    name,
                    task,
                    inputs,
                    config,
                    endpoint,
                    client,
                    server,
                    share,
                    masker,
                    stopped,
                });
                beside.spawn(async move { (place, run.to_end(stop).await) });
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

/// Masks all options of a job's user mapping but the user's name.
fn masker(job: &Job) -> Masker {
    let options = job.access.user.0.iter().filter(|(name, _)| *name != "user");
    Masker::new(options.map(|(_, value)| value.as_str()))
}

/// What a request came to, without secrets in what the server says of a failure. An answer is data,
/// and stays as it is.
fn masked(result: Result<Reading, Failure>, masker: &Masker) -> Result<Reading, Failure> {
    match result {
        Ok(mut reading) => {
            let doubts = reading.answers.iter_mut().filter_map(|answer| answer.as_mut().err());
            for doubt in doubts {
                doubt.refusal = masker.refusal(std::mem::take(&mut doubt.refusal));
            }
            Ok(reading)
        }
        Err(Failure::Inputs(refusal)) => Err(Failure::Inputs(masker.refusal(refusal))),
        Err(Failure::Again(trouble)) => Err(Failure::Again(masker.trouble(trouble))),
        Err(Failure::Slower(trouble)) => Err(Failure::Slower(masker.trouble(trouble))),
        Err(Failure::Trouble(trouble)) => Err(Failure::Trouble(masker.trouble(trouble))),
    }
}

fn nothing(inputs: usize, trouble: Trouble) -> Outcome {
    Outcome { answers: vec![None; inputs], usage: Usage::default(), trouble: Some(trouble) }
}

/// What the jobs of one server have in common.
struct Share {
    budget: Mutex<Budget>,
    /// A permit for each request that may be on its way.
    requests: Semaphore,
}

impl Share {
    fn new(first: &Job, all: &[Job], config: &Config) -> Share {
        let given = all.iter().filter(|job| job.server == first.server).filter_map(|j| j.budget);
        let of_process = || Some(config.spending_cap? - server::server(&first.server).spent());
        let left = given.reduce(f64::min).or_else(of_process);
        let requests = Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS));
        Share { budget: Mutex::new(Budget::new(left)), requests }
    }
}

struct Run {
    /// The server's.
    name: String,
    task: Task,
    inputs: Vec<String>,
    config: Config,
    endpoint: Arc<Endpoint>,
    client: Client,
    server: Arc<Server>,
    share: Arc<Share>,
    masker: Masker,
    /// Nothing more is to be asked: something has gone wrong.
    stopped: watch::Receiver<bool>,
}

/// Inputs that are asked for together.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    /// Their places.
    inputs: Vec<usize>,
    /// How often it was asked for in vain.
    attempts: u32,
}

/// What became of a part.
struct Back {
    part: Part,
    /// None: it was not asked for any more.
    result: Option<Result<Reading, Failure>>,
    usage: Usage,
}

impl Run {
    async fn to_end(self: Arc<Self>, stop: watch::Sender<bool>) -> Outcome {
        let began = Instant::now();
        let mut state = Progress {
            answers: vec![None; self.inputs.len()],
            waiting: parts(&self.inputs, self.config.batch_size),
            trouble: None,
            dimensions: None,
            votes: HashMap::new(),
            batch_size: self.config.batch_size,
            max_retries: self.config.max_retries,
        };
        let mut usage = Usage::default();
        let mut flying = JoinSet::new();
        loop {
            while state.trouble.is_none() && flying.len() < self.config.concurrency {
                let Some(part) = state.waiting.pop_front() else { break };
                flying.spawn(self.clone().send(part));
            }
            let back = match flying.join_next().await {
                None => break,
                Some(Ok(back)) => back,
                Some(Err(_)) => {
                    state.stop(Trouble::server("XX000", "a request has failed"));
                    continue;
                }
            };
            add(&mut usage, &back.usage);
            if let Some(result) = back.result {
                state.note(back.part, result);
            }
            if state.trouble.is_some() {
                // What is on its way is paid for, and so it is waited for.
                stop.send_replace(true);
            }
        }
        usage.elapsed = began.elapsed();
        Outcome { answers: state.answers, usage, trouble: state.trouble }
    }

    /// Asks for a part, once.
    async fn send(self: Arc<Self>, part: Part) -> Back {
        let mut usage = Usage::default();
        let result = self.try_send(&part, &mut usage).await;
        Back { part, result, usage }
    }

    async fn try_send(&self, part: &Part, usage: &mut Usage) -> Option<Result<Reading, Failure>> {
        let Run { task, config, server, .. } = self;
        if part.attempts > 0 {
            self.wait(delay(part.attempts, fastrand::f64())).await?;
        }
        let inputs: Vec<&str> =
            part.inputs.iter().filter_map(|n| self.inputs.get(*n)).map(String::as_str).collect();
        let (tokens_in, tokens_out) = request::estimate(task, config, &inputs);
        let estimate = config.prices.cost(tokens_in, tokens_out);
        let _permit = self.share.requests.acquire().await.ok()?;
        self.wait(server.take(tokens_in + tokens_out, config)).await?;
        // Others may have been told to slow down meanwhile, and again after that.
        loop {
            match server.paused() {
                Duration::ZERO => break,
                pause => self.wait(pause).await?,
            }
        }
        if *self.stopped.borrow() {
            return None;
        }
        if !lock(&self.share.budget).reserve(estimate) {
            server.correct(tokens_in + tokens_out, 0);
            return Some(Err(Failure::Trouble(self.too_dear())));
        }
        usage.requests += 1;
        usage.retries += u64::from(part.attempts > 0);
        let Run { endpoint, client, name, .. } = self;
        let Sent { result, free } =
            request::send(task, config, endpoint, client, name, &inputs).await;
        let result = masked(result, &self.masker);
        let used = match (&result, free) {
            (_, true) => (0, 0),
            (Ok(reading), _) => (
                reading.tokens_in.unwrap_or(tokens_in),
                reading.tokens_out.unwrap_or_else(|| generated(reading)),
            ),
            // Nobody has said what it was: it may well be charged for.
            (Err(_), false) => (tokens_in, tokens_out),
        };
        let cost = config.prices.cost(used.0, used.1);
        lock(&self.share.budget).settle(estimate, cost);
        server.spend(cost);
        server.correct(tokens_in + tokens_out, used.0 + used.1);
        (usage.tokens_in, usage.tokens_out, usage.cost) = (used.0, used.1, cost);
        // A server that says when it wants to be asked again means all requests.
        let pause = match &result {
            Err(Failure::Slower(trouble)) => {
                let of_ours = delay(part.attempts + 1, fastrand::f64());
                Some(trouble.retry_after.unwrap_or(of_ours))
            }
            Err(Failure::Again(trouble)) => trouble.retry_after,
            _ => None,
        };
        if let Some(pause) = pause {
            server.pause(pause.min(LONGEST_PAUSE));
        }
        Some(result)
    }

    /// Waits, unless nothing more is to be asked.
    async fn wait(&self, time: Duration) -> Option<()> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => None,
            () = tokio::time::sleep(time) => Some(()),
        }
    }

    fn too_dear(&self) -> Trouble {
        let name = &self.name;
        Trouble::server("53400", format!("spending cap of server \"{name}\" is reached"))
            .detail("What was answered before that is kept.")
            .hint("Raise it with ALTER SERVER … OPTIONS (SET spending_cap '…').")
    }
}

/// How far a job is.
struct Progress {
    answers: Vec<Option<Result<Answer, Refusal>>>,
    waiting: VecDeque<Part>,
    trouble: Option<Trouble>,
    /// Of the vectors that were answered, or of most of them.
    dimensions: Option<usize>,
    /// How many answers had vectors of a length.
    votes: HashMap<usize, usize>,
    batch_size: usize,
    max_retries: u32,
}

impl Progress {
    /// Takes what became of a part.
    fn note(&mut self, part: Part, result: Result<Reading, Failure>) {
        match result {
            Ok(reading) => self.take(part, reading),
            Err(Failure::Trouble(trouble)) => self.stop(trouble),
            Err(Failure::Inputs(refusal)) => match part.inputs.as_slice() {
                [alone] => self.answer(*alone, Err(refusal)),
                inputs => {
                    let (left, right) = inputs.split_at(inputs.len() / 2);
                    for half in [right, left] {
                        self.waiting.push_front(Part { inputs: half.to_vec(), attempts: 0 });
                    }
                }
            },
            Err(Failure::Again(trouble) | Failure::Slower(trouble)) => self.again(part, trouble),
        }
    }

    fn again(&mut self, part: Part, trouble: Trouble) {
        let patient = trouble.retry_after.is_none_or(|after| after <= LONGEST_PAUSE);
        match patient && part.attempts < self.max_retries {
            true => {
                tracing::debug!(
                    sqlstate = trouble.sqlstate,
                    inputs = part.inputs.len(),
                    attempts = part.attempts + 1,
                    "a provider is asked again: {}",
                    trouble.message
                );
                self.waiting.push_back(Part { attempts: part.attempts + 1, ..part });
            }
            false => self.stop(trouble),
        }
    }

    fn take(&mut self, part: Part, reading: Reading) {
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
            if votes(length) <= votes(expected) || part.attempts >= self.max_retries {
                let message = format!(
                    "the server answers with vectors of {length} dimensions after some of {expected}"
                );
                self.again(part, Trouble::server("08P01", message));
                if self.trouble.is_some() {
                    // Nobody knows which of them are right.
                    self.answers.fill(None);
                }
                return;
            }
            // Most answers say so: those of before are asked for again.
            self.ask_again_of(expected, part.attempts + 1);
            self.dimensions = Some(length);
        }
        self.dimensions = self.dimensions.or(length);
        let last = part.attempts >= self.max_retries;
        let mut doubted = Vec::new();
        for (place, answer) in part.inputs.into_iter().zip(reading.answers) {
            match answer {
                Err(doubt) if doubt.again && !last => doubted.push(place),
                Err(doubt) => self.answer(place, Err(doubt.refusal)),
                Ok(answer) => self.answer(place, Ok(answer)),
            }
        }
        if !doubted.is_empty() {
            self.waiting.push_back(Part { inputs: doubted, attempts: part.attempts + 1 });
        }
    }

    /// Forgets the vectors of this length, and has them asked for again.
    fn ask_again_of(&mut self, length: usize, attempts: u32) {
        let mut places = Vec::new();
        for (place, answer) in self.answers.iter_mut().enumerate() {
            if matches!(answer, Some(Ok(Answer::Embedding(vector))) if vector.len() == length) {
                *answer = None;
                places.push(place);
            }
        }
        for inputs in places.chunks(self.batch_size.max(1)) {
            self.waiting.push_back(Part { inputs: inputs.to_vec(), attempts });
        }
    }

    fn answer(&mut self, place: usize, answer: Result<Answer, Refusal>) {
        if let Some(empty) = self.answers.get_mut(place) {
            *empty = Some(answer);
        }
    }

    /// The first trouble counts.
    fn stop(&mut self, trouble: Trouble) {
        self.trouble.get_or_insert(trouble);
    }
}

/// Inputs as they are asked for together.
fn parts(inputs: &[String], batch_size: usize) -> VecDeque<Part> {
    let mut parts: VecDeque<Part> = VecDeque::new();
    let mut bytes = 0;
    for (place, input) in inputs.iter().enumerate() {
        bytes += input.len();
        match parts.back_mut() {
            Some(part) if part.inputs.len() < batch_size && bytes <= BATCH_BYTES => {
                part.inputs.push(place);
            }
            _ => {
                bytes = input.len();
                parts.push_back(Part { inputs: vec![place], attempts: 0 });
            }
        }
    }
    parts
}

/// How long to wait after so many attempts. `random`: from 0 to 1, so that requests which failed
/// together are not made again together.
fn delay(attempts: u32, random: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT).mul_f64(0.5 + random / 2.0)
}

/// About how many tokens were generated, where the server does not say so.
fn generated(reading: &Reading) -> u64 {
    let tokens = |answer: &Answer| match answer {
        Answer::Text(text) => spending::tokens(text),
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
    use crate::providers::request::Doubt;

    fn progress(inputs: usize) -> Progress {
        Progress {
            answers: vec![None; inputs],
            waiting: VecDeque::new(),
            trouble: None,
            dimensions: None,
            votes: HashMap::new(),
            batch_size: 2,
            max_retries: 2,
        }
    }

    fn part(inputs: &[usize], attempts: u32) -> Part {
        Part { inputs: inputs.to_vec(), attempts }
    }

    fn reading(vectors: &[Option<&[f32]>]) -> Reading {
        let answer = |vector: &Option<&[f32]>| match vector {
            Some(vector) => Ok(Answer::Embedding(vector.to_vec())),
            None => Err(Doubt::retry("no vector")),
        };
        let answers = vectors.iter().map(answer).collect();
        Reading { answers, tokens_in: None, tokens_out: None }
    }

    fn refusal() -> Failure {
        Failure::Inputs(Refusal { sqlstate: "22000".to_owned(), message: "no".to_owned() })
    }

    fn trouble() -> Trouble {
        Trouble::server("HV000", "ill")
    }

    #[test]
    fn parts_have_so_many_inputs_and_bytes() {
        let long = "x".repeat(BATCH_BYTES);
        let inputs: Vec<String> =
            ["a", "b", "c", &long, "d", "e"].iter().map(|s| (*s).to_owned()).collect();
        let places: Vec<Vec<usize>> = parts(&inputs, 2).into_iter().map(|p| p.inputs).collect();
        assert_eq!(places, [vec![0, 1], vec![2], vec![3], vec![4, 5]]);
        assert!(parts(&[], 2).is_empty());
    }

    #[test]
    fn a_refused_part_is_halved_until_an_input_stands_alone() {
        let mut state = progress(3);
        state.note(part(&[0, 1, 2], 1), Err(refusal()));
        assert_eq!(state.waiting, [part(&[0], 0), part(&[1, 2], 0)]);
        state.note(part(&[0], 0), Err(refusal()));
        assert!(matches!(state.answers[0], Some(Err(_))) && state.trouble.is_none());
    }

    #[test]
    fn a_part_is_asked_again_so_often() {
        let mut state = progress(1);
        state.note(part(&[0], 1), Err(Failure::Again(trouble())));
        assert_eq!(state.waiting, [part(&[0], 2)]);
        state.note(part(&[0], 2), Err(Failure::Slower(trouble())));
        assert_eq!(state.trouble, Some(trouble()));
    }

    #[test]
    fn a_server_that_wants_to_be_left_alone_is() {
        let mut state = progress(1);
        let alone = trouble().retry_after(LONGEST_PAUSE * 2);
        state.note(part(&[0], 0), Err(Failure::Slower(alone.clone())));
        assert_eq!((state.trouble, state.waiting.len()), (Some(alone), 0));
    }

    #[test]
    fn what_is_doubted_is_asked_again_alone_and_then_refused() {
        let mut state = progress(2);
        state.note(part(&[0, 1], 0), Ok(reading(&[None, Some(&[1.0])])));
        assert_eq!((state.waiting.pop_front(), &state.answers[0]), (Some(part(&[0], 1)), &None));
        assert!(matches!(state.answers[1], Some(Ok(_))));
        state.note(part(&[0], 2), Ok(reading(&[None])));
        assert!(matches!(state.answers[0], Some(Err(_))) && state.trouble.is_none());
    }

    #[test]
    fn vectors_that_do_not_fit_together_are_not_kept() {
        let mut state = progress(2);
        state.note(part(&[0], 0), Ok(reading(&[Some(&[1.0, 2.0])])));
        state.note(part(&[1], 0), Ok(reading(&[Some(&[1.0])])));
        assert_eq!((&state.waiting[0], state.answers[0].is_some()), (&part(&[1], 1), true));
        state.note(part(&[1], 2), Ok(reading(&[Some(&[1.0])])));
        assert!(state.trouble.is_some() && state.answers.iter().all(Option::is_none));
    }

    #[test]
    fn the_length_that_most_answers_have_counts() {
        let mut state = progress(4);
        state.note(part(&[0], 0), Ok(reading(&[Some(&[1.0])])));
        state.note(part(&[1], 0), Ok(reading(&[Some(&[1.0, 2.0])])));
        state.note(part(&[2], 0), Ok(reading(&[Some(&[1.0, 2.0])])));
        assert!(state.answers[0].is_none() && state.answers[2].is_some());
        assert_eq!(state.waiting, [part(&[1], 1), part(&[0], 1)]);
        assert_eq!((state.dimensions, &state.trouble), (Some(2), &None));
    }

    #[test]
    fn waits_double_and_differ() {
        let ms = |attempts, random| delay(attempts, random).as_millis();
        assert_eq!([ms(1, 0.0), ms(1, 1.0), ms(2, 1.0), ms(3, 0.0)], [250, 500, 1000, 1000]);
        assert_eq!([ms(7, 1.0), ms(4000, 1.0)], [30_000, 30_000]);
    }
}
