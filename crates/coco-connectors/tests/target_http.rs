//! Tests of the webhook connector, against a receiver that records requests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::http::{Fault, Receiver, Request};
use coco_connectors::targets;
use coco_connectors::targets::options::{Access, OptionScope, Options};
use coco_connectors::targets::{Connector, Prepared, Target};
use coco_core::change::{
    Change, Column, DeliveryError, ErrorScope, RejectedChange, TargetSchema, Values,
};
use tokio::runtime::Runtime;

/// An open target, and the runtime that drives it.
struct Webhook {
    runtime: Runtime,
    target: Box<dyn Target>,
    schema: TargetSchema,
}

impl Webhook {
    fn open(receiver: &Receiver) -> Webhook {
        Webhook::with(receiver, &[], &[])
    }

    /// Opens a target with these options of the server and the user mapping in addition to the URL.
    fn with(receiver: &Receiver, server: &[(&str, &str)], user: &[(&str, &str)]) -> Webhook {
        let url = receiver.url();
        let server = [&[("url", url.as_str())], server].concat();
        let target = open(&server, user).unwrap_or_else(|error| panic!("{error:?}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        Webhook { runtime, target, schema: schema("flow", "docs") }
    }

    fn apply(&mut self, changes: &[Change]) -> Result<Vec<RejectedChange>, DeliveryError> {
        self.runtime.block_on(self.target.apply(&self.schema, changes))
    }

    /// Applies changes, and panics unless the receiver accepts all.
    fn deliver(&mut self, changes: &[Change]) {
        assert_eq!(self.apply(changes), Ok(vec![]));
    }

    fn fails(&mut self, changes: &[Change]) -> DeliveryError {
        self.apply(changes).expect_err("an error")
    }
}

fn connector() -> &'static Connector {
    targets::connector("coco_http").expect("this build has it")
}

fn open(server: &[(&str, &str)], user: &[(&str, &str)]) -> Result<Box<dyn Target>, DeliveryError> {
    let access = Access { server: options(server), user: options(user), trusted: false };
    connector().connect(access)
}

fn options(pairs: &[(&str, &str)]) -> Options {
    Options(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
}

fn schema(flow: &str, target: &str) -> TargetSchema {
    let column = |name: &str, type_name: &str| Column {
        name: name.to_owned(),
        type_schema: "pg_catalog".to_owned(),
        type_name: type_name.to_owned(),
    };
    TargetSchema {
        flow: flow.to_owned(),
        target: target.to_owned(),
        columns: vec![column("id", "integer"), column("body", "text")],
        key: vec![0],
        options: serde_json::Map::new(),
    }
}

fn json(text: impl Into<String>) -> Values {
    Values::Json(text.into())
}

fn upsert(id: usize, body: &str, version: i64) -> Change {
    let body = serde_json::Value::from(body);
    Change {
        key: json(format!(r#"{{"id":{id}}}"#)),
        row: Some(json(format!(r#"{{"id":{id},"body":{body}}}"#))),
        version,
    }
}

fn delete(id: usize, version: i64) -> Change {
    Change { key: json(format!(r#"{{"id":{id}}}"#)), row: None, version }
}

/// Returns upserts of this many rows, with their number as body.
fn upserts(n: usize) -> Vec<Change> {
    (0..n).map(|id| upsert(id, &id.to_string(), 1)).collect()
}

fn rows(receiver: &Receiver) -> Vec<String> {
    receiver.rows("flow", "docs").into_values().collect()
}

fn places(rejected: &[RejectedChange]) -> Vec<usize> {
    let mut places: Vec<usize> = rejected.iter().map(|r| r.change).collect();
    places.sort_unstable();
    places
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.get(name).map(String::as_str)
}

/// Returns all texts of an error.
fn text(error: &DeliveryError) -> String {
    format!("{error:?}")
}

#[test]
fn rows_are_made_changed_and_removed() {
    let receiver = Receiver::start();
    let mut webhook = Webhook::open(&receiver);
    webhook.deliver(&[upsert(1, "one", 1), upsert(2, "two", 1), upsert(3, "three", 1)]);
    webhook.deliver(&[upsert(2, "zwei", 2), delete(3, 2), delete(99, 2)]);
    assert_eq!(rows(&receiver), [r#"{"id":1,"body":"one"}"#, r#"{"id":2,"body":"zwei"}"#]);
    webhook.deliver(&[upsert(3, "again", 3)]);
    assert_eq!(rows(&receiver).len(), 3);
}

#[test]
fn a_request_is_as_documented() {
    let receiver = Receiver::start();
    let given = [("headers", r#"{"X-Env": "test", "accept": "application/json"}"#)];
    Webhook::with(&receiver, &given, &[]).deliver(&[upsert(1, "one", 7), delete(2, 8)]);
    let requests = receiver.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/coco?in=test"));
    let key = header(request, "idempotency-key").expect("a key");
    let expected = format!(
        r#"{{"flow":"flow","target":"docs","batch":"{key}","changes":[{{"op":"upsert","key":{{"id":1}},"row":{{"id":1,"body":"one"}},"version":7}},{{"op":"delete","key":{{"id":2}},"version":8}}]}}"#
    );
    assert_eq!(request.body, expected);
    assert_eq!(header(request, "content-type"), Some("application/json"));
    assert_eq!(header(request, "user-agent"), Some("coco/0.1.0"));
    assert_eq!(header(request, "x-env"), Some("test"));
    assert_eq!(header(request, "accept"), Some("application/json"));
    assert_eq!(header(request, "x-coco-signature"), None);
    assert_eq!(header(request, "authorization"), None);
}

#[test]
fn the_same_again_comes_to_the_same_and_has_the_same_name() {
    let receiver = Receiver::start();
    let changes = [upsert(1, "one", 1), delete(2, 1)];
    let mut webhook = Webhook::open(&receiver);
    webhook.deliver(&changes);
    let once = rows(&receiver);
    webhook.deliver(&changes);
    Webhook::open(&receiver).deliver(&changes);
    assert_eq!(rows(&receiver), once);
    webhook.deliver(&[upsert(1, "one", 2), delete(2, 2)]);
    let keys: Vec<_> = receiver
        .requests()
        .iter()
        .map(|r| header(r, "idempotency-key").map(str::to_owned))
        .collect();
    assert!(keys[0].is_some() && keys[0] == keys[1] && keys[0] == keys[2], "{keys:?}");
    assert_ne!(keys[0], keys[3], "newer versions are another batch");
}

#[test]
fn preparing_and_removing_and_nothing_to_do_send_nothing() {
    let receiver = Receiver::start();
    let mut webhook = Webhook::open(&receiver);
    let Webhook { runtime, target, schema } = &mut webhook;
    assert_eq!(runtime.block_on(target.prepare(schema)), Ok(Prepared::Found));
    assert_eq!(runtime.block_on(target.remove(schema)), Ok(()));
    webhook.deliver(&[]);
    assert_eq!(receiver.requests().len(), 0);
}

#[test]
fn values_arrive_as_they_were_written() {
    let receiver = Receiver::start();
    let key = r#"{"né\"\\ \u0007":"a/b '日本' 🦀","n":12345678901234567890.123456789012345678901234567890}"#;
    let row = r#"{"big":9223372036854775807,"exact":0.10,"none":null,"nan":"NaN", "list":[1,null,{"a":"\u2028\t"}],"bytes":"\\x00ff"}"#;
    let mut webhook = Webhook::open(&receiver);
    webhook.schema = schema("my \"flow\"\n日本", "it's {\\} a/../target?#");
    webhook.deliver(&[Change { key: json(key), row: Some(json(row)), version: i64::MAX }]);
    let expected = BTreeMap::from([(key.to_owned(), row.to_owned())]);
    assert_eq!(receiver.rows("my \"flow\"\n日本", "it's {\\} a/../target?#"), expected);
    // No name chosen by the user becomes part of the URL.
    assert_eq!(receiver.requests()[0].path, "/coco?in=test");
}

#[test]
fn a_batch_is_one_request_unless_the_server_wants_smaller_ones() {
    let receiver = Receiver::start();
    let changes = upserts(1000);
    Webhook::open(&receiver).deliver(&changes);
    assert_eq!(receiver.requests().len(), 1);
    receiver.forget_requests();

    Webhook::with(&receiver, &[("batch_size", "300")], &[]).deliver(&changes);
    assert_eq!(receiver.requests().len(), 4);
    assert_eq!(rows(&receiver).len(), 1000);
}

#[test]
fn a_connection_is_used_again() {
    let receiver = Receiver::start();
    let mut webhook = Webhook::open(&receiver);
    // Not always: the connection is returned in the background, possibly after the next request has
    // begun.
    let again = (1..=100).any(|n| {
        webhook.deliver(&upserts(1));
        let used: BTreeSet<usize> = receiver.requests().iter().map(|r| r.connection).collect();
        used.len() < n
    });
    assert!(again, "100 requests came over 100 connections");
}

#[test]
fn large_rows_arrive() {
    let receiver = Receiver::start();
    let body = "é\"".repeat(2_000_000);
    Webhook::open(&receiver).deliver(&[upsert(1, &body, 1), upsert(2, "small", 1)]);
    assert_eq!(rows(&receiver)[0].len(), r#"{"id":1,"body":""}"#.len() + 2_000_000 * 4);
}

#[test]
fn rows_that_are_refused_by_name_are_reported_at_their_places() {
    let receiver = Receiver::start();
    receiver.refuse(200, "bad");
    let mut changes = upserts(10);
    for place in [0, 4, 9] {
        changes[place] = upsert(place, "bad", 1);
    }
    let mut webhook = Webhook::with(&receiver, &[("batch_size", "4")], &[]);
    let rejected = webhook.apply(&changes).expect("the others arrive");
    assert_eq!(places(&rejected), [0, 4, 9]);
    assert!(rejected.iter().all(|r| r.message == "not that one"), "{rejected:?}");
    assert_eq!((rows(&receiver).len(), receiver.requests().len()), (7, 3));
    receiver.refuse_nothing();
    webhook.deliver(&changes);
    assert_eq!(rows(&receiver).len(), 10);
}

#[test]
fn rows_that_are_refused_with_all_others_are_found() {
    let receiver = Receiver::start();
    for (status, sqlstate) in [(400, "22000"), (409, "23000"), (422, "22000")] {
        receiver.refuse(status, "bad");
        receiver.forget_requests();
        let mut changes = upserts(100);
        for place in [0, 50, 51, 99] {
            changes[place] = upsert(place, "bad", 1);
        }
        changes.push(delete(1000, 1));
        let rejected = Webhook::open(&receiver).apply(&changes).expect("the others arrive");
        assert_eq!(places(&rejected), [0, 50, 51, 99]);
        for row in &rejected {
            assert_eq!(row.sqlstate, sqlstate);
            assert!(row.message.contains(&status.to_string()), "{}", row.message);
            assert!(row.message.ends_with("one of them is bad"), "{}", row.message);
        }
        assert_eq!(rows(&receiver).len(), 96);
        let requests = receiver.requests().len();
        assert!(requests < 60, "{requests} requests");
    }
}

#[test]
fn all_rows_can_be_refused() {
    let receiver = Receiver::start();
    receiver.refuse(422, "id");
    let rejected = Webhook::open(&receiver).apply(&upserts(7)).expect("no trouble");
    assert_eq!(places(&rejected), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(rows(&receiver).len(), 0);
}

#[test]
fn what_is_too_large_for_one_request_comes_in_several() {
    let receiver = Receiver::start();
    receiver.largest(2000);
    let mut changes = upserts(100);
    changes[42] = upsert(42, &"x".repeat(2000), 1);
    let rejected = Webhook::open(&receiver).apply(&changes).expect("the others arrive");
    assert_eq!((places(&rejected), rejected[0].sqlstate.as_str()), (vec![42], "54000"));
    assert_eq!(rows(&receiver).len(), 99);
}

#[test]
fn an_answer_before_the_request_has_been_read_counts() {
    let receiver = Receiver::start();
    receiver.next(Fault::AnswerUnread { status: 413 });
    let changes = [upsert(1, &"x".repeat(4_000_000), 1), upsert(2, "small", 1)];
    Webhook::open(&receiver).deliver(&changes);
    assert_eq!((rows(&receiver).len(), receiver.requests().len()), (2, 3));
}

#[test]
fn an_answer_that_says_nothing_of_use_says_that_all_have_arrived() {
    let receiver = Receiver::start();
    let mut webhook = Webhook::open(&receiver);
    let long = format!(r#"{{"refused":[{{"change":0}}],"x":"{}"}}"#, "x".repeat(2_000_000));
    for body in ["", "ok", r#"{"refused":[{"change":1}]}"#, r#"{"refused":{}}"#, &long] {
        receiver.next(Fault::answer(202, ("content-type", "text/html"), body));
        webhook.deliver(&[upsert(1, "one", 1)]);
    }
    receiver.next(Fault::status(204));
    webhook.deliver(&[upsert(1, "one", 1)]);
    assert_eq!(rows(&receiver).len(), 0, "the faults kept nothing");
}

#[test]
fn credentials_are_sent_and_wrong_ones_are_the_servers_trouble() {
    let token = ("authorization", "Bearer t0ken", [("bearer_token", "t0ken")].as_slice());
    let basic = (
        "authorization",
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        [("user", "Aladdin"), ("password", "open sesame")].as_slice(),
    );
    let alone = ("authorization", "Basic a2V5Og==", [("user", "key")].as_slice());
    let key = ("x-api-key", "k3y", [("api_key", "k3y")].as_slice());
    for (name, value, user) in [token, basic, alone, key] {
        let receiver = Receiver::start();
        receiver.want(name, value);
        Webhook::with(&receiver, &[], user).deliver(&[upsert(1, "one", 1)]);
        let wrong = [("user", "Aladdin"), ("password", "wr0ng"), ("api_key", "wr0ng")];
        for user in [wrong.as_slice(), &[]] {
            let error = Webhook::with(&receiver, &[], user).fails(&[upsert(2, "two", 1)]);
            assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "28P01"));
            assert!(error.hint.as_ref().is_some_and(|h| h.contains("user mapping")));
            assert_eq!(error.detail.as_deref(), Some("The server says: who are you?"));
            assert!(!text(&error).contains("wr0ng"), "{error:?}");
        }
        assert_eq!(rows(&receiver).len(), 1);
    }
}

#[test]
fn an_api_key_goes_into_the_header_that_the_server_names() {
    let receiver = Receiver::start();
    receiver.want("authorization", "Splunk k3y");
    let server = [("api_key_header", "Authorization")];
    Webhook::with(&receiver, &server, &[("api_key", "Splunk k3y")]).deliver(&[upsert(1, "one", 1)]);
}

#[test]
fn requests_are_signed() {
    let receiver = Receiver::start();
    receiver.want_signature("ключ");
    let changes = [upsert(1, "naïve", 1)];
    Webhook::with(&receiver, &[], &[("hmac_secret", "ключ")]).deliver(&changes);
    for user in [[("hmac_secret", "other")].as_slice(), &[]] {
        let error = Webhook::with(&receiver, &[], user).fails(&changes);
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Target, "42501"));
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("hmac_secret")));
        assert!(!text(&error).contains("other"), "{error:?}");
    }
}

#[test]
fn secrets_are_not_shown_also_where_the_server_repeats_them() {
    let receiver = Receiver::start();
    let echo = |status| {
        let body = r#"{"message":"got k3y, \"p4ss, s1gn and dTpcInA0c3M="}"#;
        Fault::answer(status, ("x", "y"), &body.replace("dTpcInA0c3M=", "dToicDRzcw=="))
    };
    let user = [("user", "u"), ("password", "\"p4ss"), ("api_key", "k3y"), ("hmac_secret", "s1gn")];
    let mut webhook = Webhook::with(&receiver, &[], &user);
    receiver.always(Some(echo(422)));
    let rejected = webhook.apply(&upserts(1)).expect("no trouble");
    assert!(rejected[0].message.ends_with("got ***, ***, *** and ***"), "{rejected:?}");
    for status in [401, 403, 404, 429, 500] {
        receiver.always(Some(echo(status)));
        let error = webhook.fails(&upserts(1));
        assert_eq!(error.detail.as_deref(), Some("The server says: got ***, ***, *** and ***"));
        assert!(!text(&error).contains("coco?in"), "the path may be one: {error:?}");
    }
    let access = Access { server: options(&[]), user: options(&user), trusted: true };
    assert!(!format!("{access:?}").contains("k3y"));
}

#[test]
fn statuses_that_are_no_rows_end_it() {
    let receiver = Receiver::start();
    let mut webhook = Webhook::open(&receiver);
    for (status, scope, sqlstate) in [
        (403, ErrorScope::Target, "42501"),
        (404, ErrorScope::Target, "HV00R"),
        (405, ErrorScope::Server, "08P01"),
        (407, ErrorScope::Server, "28000"),
        (408, ErrorScope::Server, "08006"),
        (410, ErrorScope::Target, "HV00R"),
        (425, ErrorScope::Server, "57P03"),
        (429, ErrorScope::Server, "53400"),
        (500, ErrorScope::Server, "HV000"),
        (503, ErrorScope::Server, "57P03"),
    ] {
        receiver.next(Fault::status(status));
        receiver.forget_requests();
        let error = webhook.fails(&upserts(4));
        assert_eq!((error.scope, error.sqlstate.as_str()), (scope, sqlstate), "{status}");
        assert!(error.message.contains(&status.to_string()), "{error:?}");
        assert_eq!((error.retry_after, receiver.requests().len()), (None, 1));
        webhook.deliver(&upserts(4));
    }
}

#[test]
fn the_server_says_when_to_come_again() {
    let receiver = Receiver::start();
    let mut webhook = Webhook::open(&receiver);
    let mut after = |status, when: &str| {
        receiver.next(Fault::answer(status, ("Retry-After", when), ""));
        webhook.fails(&upserts(1)).retry_after
    };
    assert_eq!(after(429, "17"), Some(Duration::from_secs(17)));
    assert_eq!(after(503, "999999999"), Some(Duration::from_secs(3600)));
    assert_eq!(after(503, "-1"), None);
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(600));
    let wait = after(429, &date).expect("it said when");
    assert!(wait <= Duration::from_secs(600), "{wait:?}");
}

#[test]
fn redirects_are_not_followed() {
    let (receiver, elsewhere) = (Receiver::start(), Receiver::start());
    let mut webhook = Webhook::with(&receiver, &[], &[("bearer_token", "t0ken")]);
    for status in [301, 302, 303, 307, 308] {
        receiver.next(Fault::answer(status, ("Location", &elsewhere.url()), ""));
        let error = webhook.fails(&upserts(1));
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08P01"));
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("Redirects")), "{error:?}");
        assert!(!text(&error).contains(&elsewhere.url()), "{error:?}");
    }
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn a_server_that_was_down_gets_its_rows_when_it_is_up() {
    let mut receiver = Receiver::start();
    let mut webhook = Webhook::open(&receiver);
    webhook.deliver(&upserts(1));
    receiver.stop();
    for mut webhook in [webhook, Webhook::open(&receiver)] {
        let error = webhook.fails(&upserts(3));
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08001"));
        assert!(error.detail.as_ref().is_some_and(|d| d.contains("refused")), "{error:?}");
        assert!(!text(&error).contains("/coco"), "{error:?}");
    }
    receiver.start_again();
    Webhook::open(&receiver).deliver(&upserts(3));
    assert_eq!(rows(&receiver).len(), 3);
}

#[test]
fn a_connection_that_was_closed_while_idle_is_no_trouble() {
    let mut receiver = Receiver::start();
    let mut webhook = Webhook::open(&receiver);
    webhook.deliver(&upserts(1));
    receiver.stop();
    receiver.start_again();
    webhook.deliver(&upserts(2));
    assert_eq!(receiver.requests().iter().map(|r| r.connection).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn an_answer_that_does_not_come_in_time_is_the_servers_trouble() {
    let receiver = Receiver::start();
    receiver.next(Fault::Hold);
    let mut webhook = Webhook::with(&receiver, &[("request_timeout", "1")], &[]);
    let error = webhook.fails(&upserts(3));
    assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08006"));
    assert!(error.message.ends_with("did not answer within 1 s"), "{error:?}");
    assert!(error.hint.as_ref().is_some_and(|h| h.contains("request_timeout")));
    receiver.release();
    Webhook::open(&receiver).deliver(&upserts(3));
    assert_eq!(rows(&receiver).len(), 3);
}

#[test]
fn a_slow_answer_in_time_is_none() {
    let receiver = Receiver::start();
    receiver.next(Fault::Late(Duration::from_millis(300)));
    Webhook::with(&receiver, &[("request_timeout", "60")], &[]).deliver(&upserts(3));
    assert_eq!((rows(&receiver).len(), receiver.requests().len()), (3, 1));
}

#[test]
fn a_server_that_never_speaks_is_given_up() {
    // The system completes the TCP handshake; nothing answers the TLS handshake.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let receiver = Receiver::start_tls(&["127.0.0.1"]);
    let url = format!("https://{}/", silent.local_addr().expect("an address"));
    let options = [("url", url.as_str()), ("connect_timeout", "1")];
    let error = Webhook::with(&receiver, &options, &[]).fails(&upserts(1));
    assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08001"));
    assert!(error.message.ends_with("within 1 s"), "{error:?}");
}

#[test]
fn what_arrived_in_part_arrives_in_whole_when_sent_again() {
    for (fault, kept) in [(Fault::CutRequest, 0), (Fault::KeepHalf, 5), (Fault::CutAnswer, 10)] {
        let receiver = Receiver::start();
        receiver.next(fault.clone());
        let changes = upserts(10);
        let error = Webhook::open(&receiver).fails(&changes);
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08006"));
        assert_eq!(rows(&receiver).len(), kept, "{fault:?}");
        Webhook::open(&receiver).deliver(&changes);
        assert_eq!(rows(&receiver).len(), 10);
        let requests = receiver.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(
            header(&requests[0], "idempotency-key"),
            header(&requests[1], "idempotency-key")
        );
    }
}

#[test]
fn trouble_in_a_later_request_leaves_what_came_before() {
    let receiver = Receiver::start();
    let mut webhook = Webhook::with(&receiver, &[("batch_size", "5")], &[]);
    receiver.next(Fault::Late(Duration::ZERO));
    receiver.next(Fault::status(503));
    assert_eq!(webhook.fails(&upserts(10)).sqlstate, "57P03");
    assert_eq!(rows(&receiver).len(), 5);
    // Newer changes first, then the older ones that were never acknowledged.
    webhook.deliver(&[upsert(1, "newer", 2), delete(2, 2)]);
    webhook.deliver(&upserts(10));
    let rows = receiver.rows("flow", "docs");
    assert_eq!((rows.len(), rows.get(r#"{"id":2}"#)), (9, None));
    assert!(rows[r#"{"id":1}"#].contains("newer"));
}

/// A client reads the environment when it is created, so the variables must be set in another
/// process.
#[test]
fn proxies_of_the_environment_are_not_used() {
    const NAME: &str = "target_http::proxies_of_the_environment_are_not_used";
    if std::env::var_os("COCO_TEST_PROXIES").is_some() {
        let receiver = Receiver::start();
        Webhook::open(&receiver).deliver(&upserts(1));
        let receiver = Receiver::start_tls(&["127.0.0.1"]);
        let server = [("sslrootcert", receiver.certificate())];
        Webhook::with(&receiver, &server, &[]).deliver(&upserts(1));
        return;
    }
    let proxy = Receiver::start();
    let mut test = Command::new(std::env::current_exe().expect("this test"));
    test.args(["--exact", NAME]).env("COCO_TEST_PROXIES", "1");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    {
        test.env(name, proxy.url());
    }
    let output = test.env_remove("no_proxy").env_remove("NO_PROXY").output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    assert_eq!(proxy.requests().len(), 0);
}

#[test]
fn tls_wants_a_certificate_that_it_can_trust() {
    let receiver = Receiver::start_tls(&["127.0.0.1"]);
    let trusted = [("sslrootcert", receiver.certificate())];
    let mut webhook = Webhook::with(&receiver, &trusted, &[("bearer_token", "t0ken")]);
    webhook.deliver(&upserts(2));
    webhook.deliver(&[delete(1, 2)]);
    assert_eq!(rows(&receiver).len(), 1);

    // A certificate unknown to the system, another server's certificate, and a trusted one with
    // another name.
    let other = Receiver::start_tls(&["127.0.0.1"]);
    let named = Receiver::start_tls(&["example.org"]);
    for (receiver, certificate) in [
        (&receiver, None),
        (&receiver, Some(other.certificate())),
        (&named, Some(named.certificate())),
    ] {
        let server: Vec<_> = certificate.map(|pem| ("sslrootcert", pem)).into_iter().collect();
        let error = match open(&[&[("url", receiver.url().as_str())], &server[..]].concat(), &[]) {
            // Without any root certificates, the error is immediate.
            Err(error) => error,
            Ok(_) => Webhook::with(receiver, &server, &[]).fails(&upserts(1)),
        };
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08001"));
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("sslrootcert")), "{error:?}");
        assert!(certificate.is_none() || text(&error).contains("certificate"), "{error:?}");
    }
    assert_eq!((receiver.requests().len(), named.requests().len()), (2, 0));
}

#[test]
fn a_server_without_tls_is_not_taken_for_one_with_it() {
    let (plain, secure) = (Receiver::start(), Receiver::start_tls(&["127.0.0.1"]));
    let url = plain.url().replace("http:", "https:");
    let options = [("url", url.as_str()), ("sslrootcert", secure.certificate())];
    let error = Webhook::with(&plain, &options, &[]).fails(&upserts(1));
    assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08001"));
    assert_eq!(plain.requests().len(), 0);
}

#[test]
fn options_that_are_wrong_are_refused_with_the_reason() {
    for (on, name, value, why) in [
        (OptionScope::Server, "url", "hooks.example", "must be a URL"),
        (OptionScope::Server, "url", "ftp://hooks.example", "must start with http"),
        (OptionScope::Server, "url", "file:///etc/passwd", "must start with http"),
        (OptionScope::Server, "url", "unix:/run/docker.sock", "must start with http"),
        (
            OptionScope::Server,
            "url",
            "https://me:s3cret@hooks.example",
            "belong in the user mapping",
        ),
        (OptionScope::Server, "url", "https://s3cret@hooks.example", "belong in the user mapping"),
        (OptionScope::Server, "url", "https://me:s3cret@hooks.example:x", "must be a URL"),
        (OptionScope::Server, "url", "https://hooks.example/#s3cret", "fragment"),
        (OptionScope::Server, "connect_timeout", "0", "from 1 to 3600"),
        (OptionScope::Server, "request_timeout", "3601", "from 1 to 3600"),
        (OptionScope::Server, "request_timeout", "1.5", "from 1 to 3600"),
        (OptionScope::Server, "batch_size", "0", "greater than 0"),
        (OptionScope::Server, "headers", "X-A: b", "JSON object"),
        (OptionScope::Server, "headers", r#"{"Authorization": "s3cret"}"#, "user mapping"),
        (OptionScope::Server, "headers", r#"{"Content-Type": "text/plain"}"#, "content-type"),
        (OptionScope::Server, "api_key_header", "Host", "must not name the header host"),
        (OptionScope::Server, "api_key_header", "a:b", "invalid header"),
        (OptionScope::Server, "sslrootcert", "/etc/passwd", "not a path"),
        (
            OptionScope::Server,
            "sslrootcert",
            "-----BEGIN CERTIFICATE-----\ns3cret",
            "not valid PEM",
        ),
        (
            OptionScope::Server,
            "sslrootcert",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be used",
        ),
        (OptionScope::UserMapping, "bearer_token", "s3cret\r\nX-Evil: 1", "printable ASCII"),
        (OptionScope::UserMapping, "bearer_token", "", "must not be empty"),
        (OptionScope::UserMapping, "api_key", "s3cret\u{e9}", "printable ASCII"),
        (OptionScope::UserMapping, "user", "me:s3cret", "no colon"),
        (OptionScope::UserMapping, "hmac_secret", "", "must not be empty"),
    ] {
        let error = (spec(on, name).check)(value).expect_err(value);
        assert!(error.contains(why), "{name} {value:?}: {error}");
        assert!(!error.contains("s3cret"), "{name} {value:?}: {error}");
    }
}

#[test]
fn options_that_are_right_are_taken() {
    let secure = Receiver::start_tls(&["127.0.0.1"]);
    for (on, name, value) in [
        (OptionScope::Server, "url", "http://[::1]:8080/a/b?c=d"),
        (OptionScope::Server, "url", "https://hooks.example"),
        (OptionScope::Server, "connect_timeout", "1"),
        (OptionScope::Server, "request_timeout", "3600"),
        (OptionScope::Server, "batch_size", "100"),
        (OptionScope::Server, "headers", r#"{"X-Env": "test"}"#),
        (OptionScope::Server, "api_key_header", "Authorization"),
        (OptionScope::Server, "sslrootcert", secure.certificate()),
        (OptionScope::UserMapping, "bearer_token", "abc.DEF-123_~+/="),
        (OptionScope::UserMapping, "user", "me@example.org"),
        (OptionScope::UserMapping, "password", "any: thing é"),
        (OptionScope::UserMapping, "api_key", "Token token=\"x\""),
        (OptionScope::UserMapping, "hmac_secret", "any: thing é"),
    ] {
        assert_eq!((spec(on, name).check)(value), Ok(()), "{name} {value:?}");
    }
    assert!(spec(OptionScope::Server, "url").required);
    for secret in ["bearer_token", "password", "api_key", "hmac_secret"] {
        assert!(spec(OptionScope::UserMapping, secret).secret, "{secret}");
    }
}

fn spec(on: OptionScope, name: &str) -> &'static targets::options::OptionSpec {
    let mut specs = connector().options.iter();
    specs.find(|s| s.scope == on && s.name == name).unwrap_or_else(|| panic!("no option {name}"))
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let secure = Receiver::start_tls(&["127.0.0.1"]);
    let url = ("url", "http://hooks.example/");
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Pairs, Pairs, &str); 7] = [
        (&[], &[], "\"url\" is missing"),
        (&[url, ("sslrootcert", secure.certificate())], &[], "does not start with https"),
        (&[url], &[("bearer_token", "s3cret"), ("user", "me")], "already"),
        (&[url], &[("password", "s3cret")], "no user"),
        (&[url, ("headers", r#"{"X-API-Key": "x"}"#)], &[("api_key", "s3cret")], "already"),
        (
            &[url, ("api_key_header", "Authorization")],
            &[("api_key", "s3cret"), ("bearer_token", "s3cret")],
            "already",
        ),
        (&[url, ("batch_size", "0")], &[], "greater than 0"),
    ];
    for (server, user, why) in cases {
        let error = open(server, user).err().unwrap_or_else(|| panic!("{why}: not refused"));
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "HV024"));
        assert!(error.message.contains(why), "{}", error.message);
        assert!(!text(&error).contains("s3cret"), "{error:?}");
    }
}
