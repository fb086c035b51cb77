//! Requests: how rows become requests, and how large these are.

use std::collections::{BTreeMap, BTreeSet};

use coco_connectors::targets::Prepared;
use coco_core::change::Change;

use super::{Webhook, delete, header, json, rows, schema, upsert, upserts};
use crate::http::Receiver;

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
    assert_eq!(header(request, "user-agent"), Some(concat!("coco/", env!("CARGO_PKG_VERSION"))));
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
