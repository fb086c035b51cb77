//! Servers that are down, slow, fail, or are none.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use coco_connectors::targets::Prepared;
use coco_core::change::{Change, ErrorScope};
use qdrant_client::qdrant::RetrievedPoint;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Server, access, assert_trouble, delete, doc, docs, open, payload};

#[test]
fn a_server_that_was_down_has_what_it_had_and_gets_what_it_missed() {
    let mut server = Server::start(&[]);
    let schema = docs();
    server.prepare(&schema);
    let mut target = server.target();
    assert_eq!(server.block_on(target.apply(&schema, &[doc(1, "one")])), Ok(vec![]));
    server.down();
    let two = [doc(2, "two")];
    // On the existing connection, and on a new one.
    let over_old = server.block_on(target.apply(&schema, &two)).expect_err("it is down");
    assert_eq!(over_old.scope, ErrorScope::Server, "{over_old:?}");
    let over_new = server.apply(&schema, &two).expect_err("it is down");
    assert_trouble(&over_new, ErrorScope::Server, "08001");
    let detail = over_new.detail.as_deref().unwrap_or_default();
    assert!(detail.contains("Connection refused"), "{over_new:?}");
    server.up(&[]);
    assert_eq!(server.prepare(&schema), Prepared::Found);
    assert_eq!(server.apply(&schema, &two), Ok(vec![]));
    assert_eq!(server.ids("docs"), ["1", "2"]);
}

#[test]
fn a_slow_server_is_waited_for_as_long_as_is_said() {
    let server = Server::start(&[]);
    let schema = docs();
    server.prepare(&schema);
    let apply = |timeout: &str| {
        let access = access(&[("url", &server.url), ("request_timeout", timeout)], &[]);
        let mut target = open(access).expect("a target");
        server.block_on(target.apply(&schema, &[doc(1, "one")]))
    };
    server.faults(json!({"Upsert": {"delay": 3}}));
    let error = apply("1").expect_err("it answers later");
    assert_trouble(&error, ErrorScope::Server, "57014");
    assert!(error.hint.as_deref().is_some_and(|h| h.contains("request_timeout")));
    assert_eq!(apply("60"), Ok(vec![]));
    assert_eq!(server.ids("docs"), ["1"]);
    // Both were sent once: coco does not repeat a request that timed out by itself, whether it was
    // processed or not.
    assert!(server.done("Upsert").len() <= 2);
}

#[test]
fn what_was_applied_in_part_is_applied_again() {
    let mut server = Server::start(&[]);
    let schema = docs();
    server.prepare(&schema);
    assert_eq!(server.apply(&schema, &[doc(9, "nine")]), Ok(vec![]));
    let mut changes: Vec<Change> = (1..=8).map(|id| doc(id, "new")).collect();
    changes.push(delete(&schema, &json!({"id": 9})));
    // The points are written, and the deleted one still exists.
    server.faults(json!({"Delete": {"code": "INTERNAL", "message": "disk on fire"}}));
    let error = server.apply(&schema, &changes).expect_err("in part");
    assert_trouble(&error, ErrorScope::Server, "HV000");
    assert!(error.message.contains("disk on fire"));
    assert_eq!(server.ids("docs").len(), 9);
    // The server ends with three of the points written.
    let changed: Vec<Change> = (1..=8).map(|id| doc(id, "newer")).collect();
    let changes = [changed, vec![delete(&schema, &json!({"id": 9}))]].concat();
    server.faults(json!({"Upsert": {"die_after": 3}}));
    let error = server.apply(&schema, &changes).expect_err("it died");
    assert_eq!(error.scope, ErrorScope::Server, "{error:?}");
    server.faults(json!({}));
    server.up(&[]);
    let newer = |point: &&RetrievedPoint| payload(point)["title"] == "newer";
    assert_eq!(server.points("docs").values().filter(newer).count(), 3);
    assert_eq!(server.apply(&schema, &changes), Ok(vec![]));
    let points = server.points("docs");
    assert_eq!(points.values().filter(newer).count(), 8);
    assert_eq!(points.len(), 8);
}

#[test]
fn what_the_server_says_of_itself_is_told_apart() {
    let server = Server::start(&[]);
    let schema = docs();
    server.prepare(&schema);
    let apply = |faults: Value| {
        server.faults(json!({ "Upsert": faults }));
        server.apply(&schema, &[doc(1, "one")]).expect_err("a fault")
    };
    let limited = apply(json!({
        "code": "RESOURCE_EXHAUSTED", "message": "rate limit", "metadata": {"retry-after": "7"},
    }));
    assert_trouble(&limited, ErrorScope::Server, "53400");
    assert_eq!(limited.retry_after, Some(Duration::from_secs(7)));
    let busy = apply(json!({"code": "UNAVAILABLE", "message": "starting"}));
    assert_trouble(&busy, ErrorScope::Server, "57P03");
    let late = apply(json!({"code": "DEADLINE_EXCEEDED", "message": "late"}));
    assert_trouble(&late, ErrorScope::Server, "57014");
    let locked = apply(json!({"code": "FAILED_PRECONDITION", "message": "locked for writes"}));
    assert_trouble(&locked, ErrorScope::Server, "55000");
    // Without an error, but without a reliable effect either.
    let waits = apply(json!({"status": "WaitTimeout"}));
    assert_trouble(&waits, ErrorScope::Server, "57P03");
    assert!(waits.message.contains("WaitTimeout"));
    // The collection limits the number of points per request.
    server.faults(json!({"Upsert": {"code": "INVALID_ARGUMENT", "message": "batch", "times": 1}}));
    assert_eq!(server.apply(&schema, &[doc(1, "one"), doc(2, "two")]), Ok(vec![]));
    assert_eq!(server.ids("docs"), ["1", "2"]);
}

#[test]
fn what_is_no_qdrant_is_the_servers_trouble() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 1024]);
            let _ =
                stream.write_all(b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let runtime = Runtime::new().expect("a runtime");
    let mut target = open(access(&[("url", &url)], &[])).expect("a target");
    let error = runtime.block_on(target.prepare(&docs())).expect_err("no Qdrant");
    // How far the request gets before the connection closes is random.
    let sqlstate = if error.sqlstate == "08001" { "08001" } else { "08006" };
    assert_trouble(&error, ErrorScope::Server, sqlstate);
    assert!(error.hint.as_deref().is_some_and(|h| h.contains("6334")), "{error:?}");
}
