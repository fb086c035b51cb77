//! Answers of the receiver, and receivers that are down or slow.

use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use coco_core::change::ErrorScope;

use super::{Webhook, delete, header, rows, text, upsert, upserts};
use crate::http::{Fault, Receiver};

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
