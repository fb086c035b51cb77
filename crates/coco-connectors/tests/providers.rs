//! Tests of providers, against a server that counts requests and misbehaves on demand.

use std::time::Duration;

use crate::provider::{Counts, Fault, Provider, vector};
use coco_core::change::{DeliveryError, ErrorScope};
use coco_core::options::{Access, Options};
use coco_core::provider::{Answer, Job, JobOutcome, Task};
use serde_json::json;

/// A server of one test, under the name of the test: a process stores the state of a server by its
/// name.
struct Server {
    name: String,
    provider: Provider,
    options: Vec<(String, String)>,
}

impl Server {
    fn new(name: &str, options: &[(&str, &str)]) -> Server {
        let provider = Provider::start();
        let mut all = vec![("url".to_owned(), provider.url())];
        all.extend(options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        Server { name: name.to_owned(), provider, options: all }
    }

    fn job(&self, task: Task, inputs: &[String]) -> Job {
        let server = Options(self.options.iter().cloned().collect());
        let access = Access { server, user: Options::default(), trusted: false };
        Job { server: self.name.clone(), task, access, inputs: inputs.to_vec(), budget: None }
    }

    fn embed(&self, inputs: &[String]) -> JobOutcome {
        ask(vec![self.job(embedding("m"), inputs)]).pop().expect("an outcome")
    }

    /// Checks that all inputs are embedded correctly.
    fn embeds(&self, inputs: &[String]) -> JobOutcome {
        let outcome = self.embed(inputs);
        assert_eq!(outcome.error, None);
        for (input, answer) in inputs.iter().zip(&outcome.answers) {
            let expected = Some(Ok(Answer::Embedding(vector(input, 8))));
            assert_eq!(*answer, expected, "{input}");
        }
        assert_eq!(outcome.answers.len(), inputs.len());
        outcome
    }

    /// Checks that the job ends with an error, and returns the error.
    fn fails(&self, inputs: &[String]) -> DeliveryError {
        let outcome = self.embed(inputs);
        assert!(outcome.answers.iter().all(Option::is_none), "{:?}", outcome.answers);
        outcome.error.expect("an error")
    }
}

fn ask(jobs: Vec<Job>) -> Vec<JobOutcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(coco_connectors::providers::ask(jobs))
}

fn embedding(model: &str) -> Task {
    Task::Embed { model: model.to_owned(), dimensions: None }
}

fn texts(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("text {n}")).collect()
}

fn places(
    outcome: &JobOutcome,
    of: impl Fn(&Option<Result<Answer, coco_core::provider::RejectedInput>>) -> bool,
) -> Vec<usize> {
    let found = outcome.answers.iter().enumerate().filter(|(_, answer)| of(answer));
    found.map(|(place, _)| place).collect()
}

#[test]
fn inputs_are_asked_for_in_batches() {
    let server = Server::new("batches", &[("batch_size", "10")]);
    let outcome = server.embeds(&texts(95));
    let counts = Counts { requests: 10, inputs: 95, distinct: 95 };
    assert_eq!(server.provider.counts(), counts);
    assert_eq!((outcome.usage.requests, outcome.usage.retries), (10, 0));
    let bytes: usize = texts(95).iter().map(String::len).sum();
    assert_eq!((outcome.usage.tokens_in, outcome.usage.tokens_out), (bytes as u64, 0));
    server.embeds(&[]);
}

#[test]
fn no_more_requests_are_made_at_once_than_may_be() {
    let server = Server::new("concurrency", &[("batch_size", "1"), ("concurrency", "3")]);
    server.provider.delay(Duration::from_millis(50));
    let jobs = vec![server.job(embedding("m"), &texts(8)), server.job(embedding("n"), &texts(8))];
    for outcome in ask(jobs) {
        assert_eq!(outcome.error, None);
    }
    assert_eq!((server.provider.counts().requests, server.provider.busiest()), (16, 3));
}

#[test]
fn a_refused_batch_is_halved_to_the_input_that_is_to_blame() {
    let server = Server::new("halves", &[]);
    server.provider.refuse("bad");
    let mut inputs = texts(64);
    inputs[5] = "bad".to_owned();
    inputs[40] = "bad too".to_owned();
    let outcome = server.embed(&inputs);
    assert_eq!(outcome.error, None);
    assert_eq!(places(&outcome, |a| matches!(a, Some(Err(_)))), [5, 40]);
    assert_eq!(places(&outcome, |a| matches!(a, Some(Ok(_)))).len(), 62);
    let Some(Some(Err(refusal))) = outcome.answers.get(5) else { panic!("no refusal") };
    assert_eq!(refusal.sqlstate, "22000");
    assert!(
        refusal.message.ends_with("400 Bad Request: '$.input' is invalid"),
        "{}",
        refusal.message
    );
    // Each input at most twice per halving.
    assert!(outcome.usage.requests <= 25, "{:?}", outcome.usage);
}

/// After any single error, the answers are right, and no input is requested more than once more.
#[test]
fn what_goes_wrong_once_is_asked_again() {
    for (name, fault) in [
        ("429", Fault::retry_after(429, "retry-after-ms", "20")),
        ("408", Fault::status(408, "")),
        ("500", Fault::status(500, "oops")),
        ("503", Fault::retry_after(503, "retry-after", "1")),
        ("count", Fault::WrongCount),
        ("json", Fault::InvalidJson),
        ("cut", Fault::Cut),
        ("nan", Fault::Nan),
        ("null", Fault::Null),
    ] {
        let server = Server::new(&format!("once {name}"), &[]);
        server.provider.next(fault);
        let outcome = server.embeds(&texts(20));
        assert_eq!((outcome.usage.requests, outcome.usage.retries), (2, 1), "{name}");
        assert!(server.provider.counts().inputs <= 40, "{name}");
        let waited = server.provider.times()[1];
        assert!(name != "503" || waited >= Duration::from_secs(1), "{waited:?}");
    }
}

#[test]
fn what_goes_on_is_reported() {
    for (name, fault, sqlstate, said) in [
        ("429", Fault::status(429, ""), "53400", "429"),
        ("500", Fault::status(500, r#"{"error":"oops"}"#), "HV000", "500"),
        ("count", Fault::WrongCount, "08P01", "19 vectors for 20 inputs"),
        ("json", Fault::InvalidJson, "08P01", "EOF"),
        ("cut", Fault::Cut, "08006", "without an answer"),
        ("nan", Fault::Nan, "08P01", "is not a valid answer"),
    ] {
        let server = Server::new(&format!("on {name}"), &[("max_retries", "1")]);
        server.provider.always(Some(fault));
        let error = server.fails(&texts(20));
        assert_eq!(
            (error.scope, error.sqlstate.as_str()),
            (ErrorScope::Server, sqlstate),
            "{name}"
        );
        assert!(error.message.contains(said), "{name}: {}", error.message);
        assert_eq!(server.provider.counts().requests, 2, "{name}");
    }
}

#[test]
fn what_is_no_number_is_that_inputs_refusal_in_the_end() {
    let server = Server::new("null", &[("max_retries", "1")]);
    server.provider.always(Some(Fault::Null));
    let outcome = server.embed(&texts(3));
    assert_eq!(outcome.error, None);
    assert_eq!(places(&outcome, |a| matches!(a, Some(Err(_)))), [2]);
    assert_eq!(server.provider.counts(), Counts { requests: 2, inputs: 4, distinct: 3 });
}

#[test]
fn vectors_of_another_length_are_not_taken() {
    let options = [("batch_size", "1"), ("concurrency", "1"), ("max_retries", "1")];
    let server = Server::new("length", &options);
    server.provider.after(1, Fault::WrongDimension);
    server.embeds(&texts(2));
    // The right length is unknown, so all vectors are discarded.
    server.provider.next(Fault::WrongDimension);
    let outcome = server.embed(&texts(2));
    assert!(outcome.error.is_some() && outcome.answers.iter().all(Option::is_none));

    let server = Server::new("length said", &options);
    server.provider.next(Fault::WrongDimension);
    let task = Task::Embed { model: "m".to_owned(), dimensions: Some(8) };
    let outcome = ask(vec![server.job(task, &texts(2))]).pop().expect("an outcome");
    assert_eq!((outcome.error, outcome.usage.retries), (None, 1));
}

#[test]
fn some_troubles_are_final() {
    for (name, status, body, sqlstate, hint) in [
        (
            "401",
            401,
            "",
            "28P01",
            "CREATE USER MAPPING FOR … SERVER \"final 401\" OPTIONS (api_key '…')",
        ),
        ("403", 403, "", "42501", "CREATE USER MAPPING"),
        ("404", 404, "", "HV00R", "name of the model"),
        (
            "quota",
            429,
            r#"{"error":{"message":"x","code":"insufficient_quota"}}"#,
            "53400",
            "account",
        ),
        (
            "parameter",
            400,
            r#"{"error":{"message":"x","param":"dimensions"}}"#,
            "22023",
            "dimensions",
        ),
        ("redirect", 302, "", "08P01", "Redirects"),
    ] {
        let server =
            Server::new(&format!("final {name}"), &[("concurrency", "1"), ("batch_size", "1")]);
        server.provider.always(Some(Fault::status(status, body)));
        let error = server.fails(&texts(20));
        assert_eq!(error.sqlstate, sqlstate, "{name}");
        assert!(error.hint.as_ref().is_some_and(|h| h.contains(hint)), "{name}: {error:?}");
        assert_eq!(server.provider.counts().requests, 1, "{name}");
    }
}

#[test]
fn what_was_answered_before_a_trouble_is_kept() {
    let options = [("batch_size", "1"), ("concurrency", "1"), ("max_retries", "0")];
    let server = Server::new("kept", &options);
    server.provider.after(2, Fault::status(500, ""));
    let outcome = server.embed(&texts(5));
    assert_eq!(outcome.error.as_ref().map(|t| t.sqlstate.as_str()), Some("HV000"));
    assert_eq!(places(&outcome, Option::is_some), [0, 1]);
    assert_eq!(server.provider.counts().requests, 3);
}

#[test]
fn no_request_is_begun_that_may_cost_too_much() {
    let options = [
        ("batch_size", "1"),
        ("concurrency", "1"),
        ("price_per_million_input_tokens", "1"),
        ("spending_cap", "0.000013"),
    ];
    let server = Server::new("dear", &options);
    // Of 6 bytes each: an estimate of two tokens, and six afterwards.
    let outcome = server.embed(&texts(5));
    let error = outcome.error.clone().expect("an error");
    assert_eq!(error.sqlstate, "53400");
    assert_eq!(error.message, "spending cap of server \"dear\" is reached");
    assert!(error.hint.is_some());
    assert_eq!(places(&outcome, Option::is_some), [0, 1]);
    assert!((outcome.usage.cost - 12e-6).abs() < 1e-12, "{:?}", outcome.usage);
    // The process records the amount spent.
    server.fails(&texts(1));
    assert_eq!(server.provider.counts().requests, 2);
    // A given budget counts instead, and the jobs share it.
    let job = || Job { budget: Some(13e-6), ..server.job(embedding("m"), &texts(5)) };
    let both = ask(vec![job(), job()]);
    let answered: usize = both.iter().map(|o| places(o, Option::is_some).len()).sum();
    assert_eq!(answered, 2);
}

#[test]
fn requests_keep_to_a_rate() {
    let options = [("batch_size", "1"), ("requests_per_minute", "600")];
    let server = Server::new("rate", &options);
    server.embeds(&texts(15));
    // Ten at once, and ten per second after that.
    let times = server.provider.times();
    assert!(times[14] >= Duration::from_millis(250), "{times:?}");

    let options = [("batch_size", "1"), ("tokens_per_minute", "600")];
    let server = Server::new("token rate", &options);
    server.provider.say_no_usage();
    server.embeds(&texts(9));
    // Each takes two of the ten at once, and of ten per second.
    let times = server.provider.times();
    assert!(times[8] >= Duration::from_millis(400), "{times:?}");
}

#[test]
fn a_429_slows_down_all_requests() {
    let server = Server::new("pause", &[("batch_size", "1"), ("concurrency", "2")]);
    server.provider.next(Fault::retry_after(429, "retry-after", "1"));
    server.provider.delay(Duration::from_millis(200));
    server.embeds(&texts(10));
    let times = server.provider.times();
    // Only the other request in flight arrived before the end of the pause.
    let early = times.iter().filter(|at| **at < Duration::from_millis(900)).count();
    assert_eq!(early, 2, "{times:?}");
    assert_eq!(server.provider.counts().requests, 11);
}

#[test]
fn a_server_that_wants_to_be_left_alone_for_long_is() {
    let server = Server::new("alone", &[]);
    server.provider.always(Some(Fault::retry_after(429, "retry-after", "600")));
    let error = server.fails(&texts(1));
    assert_eq!(error.retry_after, Some(Duration::from_secs(600)));
    assert_eq!(server.provider.counts().requests, 1);
}

#[test]
fn chats_are_answered_one_by_one() {
    let server = Server::new("chats", &[("parameters", r#"{"max_tokens": 7}"#)]);
    let schema = json!({ "type": "object", "properties": { "said": { "type": "string" }, "n": { "type": "integer" } } });
    let task = Task::Generate { model: "m".to_owned(), schema: Some(schema) };
    let outcome = ask(vec![server.job(task, &texts(3))]).pop().expect("an outcome");
    assert_eq!(outcome.error, None);
    for (answer, input) in outcome.answers.iter().zip(texts(3)) {
        let Some(Ok(Answer::Text(text))) = answer else { panic!("{answer:?}") };
        let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(json, json!({ "said": input, "n": input.len() }));
    }
    assert_eq!(server.provider.counts().requests, 3);
    assert!(server.provider.requests()[0].body.contains("\"max_tokens\":7"));
    assert!(outcome.usage.tokens_out > 0);

    server.provider.refuse("bad");
    let task = Task::Generate { model: "m".to_owned(), schema: None };
    let inputs = ["good".to_owned(), "bad".to_owned()];
    let outcome = ask(vec![server.job(task, &inputs)]).pop().expect("an outcome");
    assert_eq!(outcome.answers[0], Some(Ok(Answer::Text("echo: good".to_owned()))));
    assert!(matches!(outcome.answers[1], Some(Err(_))));
}

#[test]
fn a_service_is_asked_again_under_the_same_name() {
    let server = Server::new("service", &[("max_retries", "1"), ("concurrency", "1")]);
    let url = format!("{}/classify", server.provider.url());
    let post = |inputs: &[String]| {
        let task = Task::Post { url: url.clone() };
        ask(vec![server.job(task, inputs)]).pop().expect("an outcome")
    };
    let bodies: Vec<String> = (0..3).map(|n| format!(r#"{{"n": {n}.10}}"#)).collect();
    server.provider.next(Fault::status(502, ""));
    let outcome = post(&bodies);
    assert_eq!((outcome.error, outcome.usage.retries, outcome.usage.cost), (None, 1, 0.0));
    for (body, answer) in bodies.iter().zip(&outcome.answers) {
        let expected = format!(r#"{{"path":"/v1/classify","got":{body}}}"#);
        assert_eq!(*answer, Some(Ok(Answer::Text(expected))));
    }
    let sent = server.provider.requests();
    let keys: std::collections::BTreeSet<&String> =
        sent.iter().filter_map(|request| request.headers.get("idempotency-key")).collect();
    assert_eq!((sent.len(), keys.len()), (4, 3));

    server.provider.refuse("1.10");
    let outcome = post(&bodies);
    assert_eq!(places(&outcome, |a| matches!(a, Some(Err(_)))), [1]);
    server.provider.always(Some(Fault::InvalidJson));
    let error = post(&bodies).error.expect("an error");
    assert!(error.message.contains("its answer is not JSON"), "{}", error.message);
    server.provider.always(Some(Fault::status(404, "")));
    let error = post(&bodies).error.expect("an error");
    assert!(error.hint.is_some_and(|hint| hint.contains("path of the URL")));

    // The credentials of this server are sent to no other server.
    let task = Task::Post { url: "http://127.0.0.1:1/v1".to_owned() };
    let outcome = ask(vec![server.job(task, &bodies)]).pop().expect("an outcome");
    assert_eq!(outcome.error.expect("an error").sqlstate, "42501");
}

#[test]
fn a_models_refusal_is_the_inputs() {
    for (name, choice, said) in [
        ("length", json!({ "message": { "content": "x" }, "finish_reason": "length" }), "cut off"),
        (
            "filter",
            json!({ "message": { "content": "" }, "finish_reason": "content_filter" }),
            "filter",
        ),
        ("refusal", json!({ "message": { "refusal": "I cannot" } }), "refused to answer: I cannot"),
        ("json", json!({ "message": { "content": "no JSON" } }), "is not JSON"),
    ] {
        let server = Server::new(&format!("refusal {name}"), &[("max_retries", "0")]);
        server.provider.always(Some(Fault::Choice(choice)));
        let task = Task::Generate { model: "m".to_owned(), schema: Some(json!({})) };
        let outcome = ask(vec![server.job(task, &texts(1))]).pop().expect("an outcome");
        let Some(Err(refusal)) = &outcome.answers[0] else { panic!("{name}: {outcome:?}") };
        assert!(refusal.message.contains(said), "{}", refusal.message);
        assert_eq!(outcome.error, None, "{name}");
    }
}

#[test]
fn options_that_do_not_fit_are_trouble() {
    let server = Server::new("unfit", &[("sslrootcert", "x")]);
    let error = server.fails(&texts(1));
    assert_eq!(error.sqlstate, "HV024");
    let server = Server::new("unfit too", &[("batch_size", "none")]);
    assert_eq!(server.fails(&texts(2)).sqlstate, "HV024");
}
