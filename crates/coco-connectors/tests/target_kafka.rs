//! Tests of the Kafka connector, against a real broker.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::server::{self, Kafka, exclusively, kafka};
use crate::topic::{self, contents, exists, records, setting};
use coco_connectors::targets;
use coco_connectors::targets::options::{Access, Options};
use coco_connectors::targets::{Prepared, Target};
use coco_core::change::{
    Change, Column, DeliveryError, ErrorScope, RejectedChange, TargetSchema, Values,
};
use serde_json::{Value, json};

const PASSWORD: &str = "writer-secret";

fn run<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(what)
}

fn options(of: &[(&str, &str)]) -> Options {
    Options(of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

/// Opens a target like SQL does: every option must exist and be valid.
fn open(server: &[(&str, &str)], user: &[(&str, &str)]) -> Result<Box<dyn Target>, DeliveryError> {
    let connector = targets::connector("coco_kafka").expect("the connector");
    for (name, value) in server.iter().chain(user) {
        let spec = connector.options.iter().find(|s| s.name == *name).expect(name);
        assert_eq!((spec.check)(value), Ok(()), "{name}");
    }
    connector.connect(Access { server: options(server), user: options(user), trusted: true })
}

/// Opens a target through the listener without authentication.
fn plain(kafka: &Kafka, more: &[(&str, &str)]) -> Box<dyn Target> {
    let mut server = vec![("bootstrap_servers", kafka.plaintext.as_str())];
    server.extend_from_slice(more);
    open(&server, &[]).expect("a target")
}

fn shape_with(topic: &str, options: Value) -> TargetSchema {
    let column = |name: &str, type_name: &str| Column {
        name: name.to_owned(),
        type_schema: "pg_catalog".to_owned(),
        type_name: type_name.to_owned(),
    };
    let schema = TargetSchema {
        flow: "the \"flow\" ä".to_owned(),
        target: topic.to_owned(),
        columns: vec![column("id", "integer"), column("body", "text")],
        key: vec![0],
        options: options.as_object().cloned().unwrap_or_default(),
    };
    let connector = targets::connector("coco_kafka").expect("the connector");
    assert_eq!((connector.check)(&schema), Ok(()));
    schema
}

fn schema(topic: &str) -> TargetSchema {
    shape_with(topic, json!({"partitions": 3}))
}

fn key(id: usize) -> String {
    format!("{{\"id\":{id}}}")
}

fn upsert(id: usize, body: &str, version: i64) -> Change {
    let row = json!({"id": id, "body": body}).to_string();
    Change { key: Values::Json(key(id)), row: Some(Values::Json(row)), version }
}

fn delete(id: usize, version: i64) -> Change {
    Change { key: Values::Json(key(id)), row: None, version }
}

fn many(ids: std::ops::Range<usize>, body: &str, version: i64) -> Vec<Change> {
    ids.map(|id| upsert(id, body, version)).collect()
}

fn values(of: &[Change]) -> BTreeMap<String, String> {
    let pair = |c: &Change| {
        let row = c.row.as_ref().and_then(Values::json)?.to_owned();
        Some((c.key.json()?.to_owned(), row))
    };
    of.iter().filter_map(pair).collect()
}

async fn apply(
    target: &mut dyn Target,
    schema: &TargetSchema,
    changes: &[Change],
) -> Vec<RejectedChange> {
    target.apply(schema, changes).await.unwrap_or_else(|t| panic!("{t:?}"))
}

fn delivery_error<T: std::fmt::Debug>(result: Result<T, DeliveryError>) -> DeliveryError {
    let error = result.expect_err("an error");
    let text = format!("{error:?}");
    assert!(!text.contains(PASSWORD) && !text.contains("wrong-secret"), "{text}");
    error
}

#[test]
fn rows_come_change_and_go() {
    let kafka = kafka();
    let schema = schema("rows");
    run(async {
        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        let first = [upsert(1, "a", 10), upsert(2, "b", 10), upsert(3, "c", 10)];
        assert_eq!(apply(&mut *target, &schema, &first).await, []);
        let second = [upsert(2, "changed", 11), delete(3, 11), delete(4, 11), upsert(5, "new", 11)];
        assert_eq!(apply(&mut *target, &schema, &second).await, []);
    });
    let now = [upsert(1, "a", 10), upsert(2, "changed", 11), upsert(5, "new", 11)];
    assert_eq!(contents(&kafka, "rows"), values(&now));

    let records = records(&kafka, "rows");
    assert_eq!(records.len(), 7);
    let of = |id: usize| records.iter().filter(move |r| r.key == key(id));
    // The records of each key are in the order of its changes, with their flow and process ordinal.
    let two: Vec<_> = of(2).map(|r| r.headers.clone()).collect();
    let header = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let flow = header("coco.flow", "the \"flow\" ä");
    assert_eq!(two[0], [flow.clone(), header("coco.process_ordinal", "10")]);
    assert_eq!(two[1], [flow.clone(), header("coco.process_ordinal", "11")]);
    // A delete is a tombstone, even if the key had no record.
    let gone: Vec<_> = of(3).map(|r| r.value.is_some()).collect();
    assert_eq!(gone, [true, false]);
    assert!(of(4).all(|r| r.value.is_none() && r.headers[0] == flow));
}

#[test]
fn the_same_again_comes_to_the_same() {
    let kafka = kafka();
    let schema = schema("again");
    let changes = [upsert(1, "a", 1), upsert(2, "b", 1), delete(3, 1)];
    for (opened, expected) in [(1, Prepared::Made), (2, Prepared::Found)] {
        run(async {
            let mut target = plain(&kafka, &[]);
            assert_eq!(target.prepare(&schema).await, Ok(expected));
            for _ in 0..2 {
                assert_eq!(apply(&mut *target, &schema, &changes).await, []);
            }
            assert_eq!(apply(&mut *target, &schema, &[]).await, []);
        });
        assert_eq!(records(&kafka, "again").len(), opened * 6);
        assert_eq!(contents(&kafka, "again"), values(&changes));
    }
}

#[test]
fn a_topic_is_made_as_it_is_declared() {
    let kafka = kafka();
    run(async {
        let declared = json!({"partitions": 4, "replication_factor": 1,
            "cleanup_policy": "compact,delete",
            "config": {"retention.ms": 86_400_000, "segment.ms": "3600000"}});
        let schema = shape_with("declared", declared);
        assert_eq!(plain(&kafka, &[]).prepare(&schema).await, Ok(Prepared::Made));
        // The brokers' defaults, except that the topic is compacted.
        let schema = shape_with("by-default", json!({}));
        assert_eq!(plain(&kafka, &[]).prepare(&schema).await, Ok(Prepared::Made));

        assert_eq!(setting(&kafka, "declared", "cleanup.policy").await, "compact,delete");
        assert_eq!(setting(&kafka, "declared", "retention.ms").await, "86400000");
        assert_eq!(setting(&kafka, "declared", "segment.ms").await, "3600000");
        assert_eq!(setting(&kafka, "by-default", "cleanup.policy").await, "compact");
    });
    assert_eq!(topic::partitions(&kafka, "declared"), 4);
    assert_eq!(topic::partitions(&kafka, "by-default"), 7);
}

#[test]
fn a_topic_that_is_found_must_be_as_it_is_declared() {
    let kafka = kafka();
    run(async {
        let made = shape_with("found", json!({"partitions": 2, "cleanup_policy": "compact"}));
        assert_eq!(plain(&kafka, &[]).prepare(&made).await, Ok(Prepared::Made));
        for fits in [json!({}), json!({"partitions": 2}), json!({"cleanup_policy": "compact"})] {
            let found = plain(&kafka, &[]).prepare(&shape_with("found", fits.clone())).await;
            assert_eq!(found, Ok(Prepared::Found), "{fits}");
        }
        for (differs, detail) in [
            (json!({"partitions": 3}), "Its partitions is 2, but 3 in"),
            (json!({"cleanup_policy": "delete"}), "Its cleanup_policy is compact, but delete in"),
        ] {
            let found = plain(&kafka, &[]).prepare(&shape_with("found", differs)).await;
            let error = delivery_error(found);
            assert_eq!(error.scope, ErrorScope::Target);
            assert!(error.detail.is_some_and(|d| d.contains(detail)));
        }
    });
}

#[test]
fn a_topic_that_cannot_be_made_is_the_targets_trouble() {
    let kafka = kafka();
    run(async {
        for (options, sqlstate) in [
            (json!({"replication_factor": 3}), "22023"),
            (json!({"config": {"no.such.setting": 1}}), "22023"),
            (json!({"config": {"retention.ms": "soon"}}), "22023"),
        ] {
            let prepared = plain(&kafka, &[]).prepare(&shape_with("never", options)).await;
            let error = delivery_error(prepared);
            assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Target, sqlstate));
            assert!(error.hint.is_some());
        }
        let made = shape_with("clash.of.names", json!({}));
        assert_eq!(plain(&kafka, &[]).prepare(&made).await, Ok(Prepared::Made));
        let clash = delivery_error(
            plain(&kafka, &[]).prepare(&shape_with("clash_of_names", json!({}))).await,
        );
        assert_eq!((clash.scope, clash.sqlstate.as_str()), (ErrorScope::Target, "42602"));
    });
    assert!(!exists(&kafka, "never"));
}

#[test]
fn a_topic_is_removed_with_all_that_is_in_it() {
    let kafka = kafka();
    let schema = schema("removed");
    run(async {
        let mut target = plain(&kafka, &[]);
        // This server creates topics on request of a client.
        assert_eq!(target.exists(&schema).await, Ok(false));
        assert!(!exists(&kafka, "removed"));
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(target.exists(&schema).await, Ok(true));
        assert_eq!(apply(&mut *target, &schema, &many(0..10, "a", 1)).await, []);
        assert_eq!(target.remove(&schema).await, Ok(()));
        assert!(!exists(&kafka, "removed"));
        assert_eq!(plain(&kafka, &[]).exists(&schema).await, Ok(false));
        // Removing a missing topic is not an error, and a recreated topic is empty.
        assert_eq!(target.remove(&schema).await, Ok(()));
        assert_eq!(plain(&kafka, &[]).remove(&schema).await, Ok(()));
        assert_eq!(plain(&kafka, &[]).prepare(&schema).await, Ok(Prepared::Made));
    });
    assert_eq!(contents(&kafka, "removed"), BTreeMap::new());
}

/// This server creates topics on request of a client, with seven partitions and without compaction.
#[test]
fn a_topic_that_was_lost_is_not_made_by_sending() {
    let kafka = kafka();
    let schema = schema("lost");
    run(async {
        let mut target = plain(&kafka, &[("delivery_timeout", "10")]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &[upsert(1, "a", 1)]).await, []);
        assert_eq!(plain(&kafka, &[]).remove(&schema).await, Ok(()));
        let lost = delivery_error(target.apply(&schema, &[upsert(2, "b", 2)]).await);
        assert_eq!((lost.scope, lost.sqlstate.as_str()), (ErrorScope::Target, "HV00R"), "{lost:?}");
        assert!(!exists(&kafka, "lost"));
        // The next attempt finds that the topic is missing.
        assert_eq!(plain(&kafka, &[]).prepare(&schema).await, Ok(Prepared::Made));
    });
}

#[test]
fn odd_names_and_values_arrive_as_they_are() {
    let kafka = kafka();
    let name = "Odd.Name_-..1";
    let schema = schema(name);
    let odd = [
        (
            "{\"a b\":\"it's \\\"quoted\\\"\",\"ä\":null}",
            "{\"a b\":\"it's\",\"ä\":null,\"x\":[1,2.50,1e400]}",
        ),
        ("{\"a b\":\"\\u0000\",\"ä\":\"😀\"}", "{\"x\":\"\\u0000 and \\ud800\"}"),
        ("{}", "null"),
        ("{\"a b\":\"\"}", ""),
    ];
    let change = |(key, row): &(&str, &str)| Change {
        key: Values::Json((*key).to_owned()),
        row: Some(Values::Json((*row).to_owned())),
        version: 1,
    };
    let changes: Vec<Change> = odd.iter().map(change).collect();
    run(async {
        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &changes).await, []);
    });
    assert_eq!(contents(&kafka, name), values(&changes));
    assert_eq!(contents(&kafka, name).get("{\"a b\":\"\"}").map(String::as_str), Some(""));
}

#[test]
fn rows_that_are_too_large_are_refused_alone() {
    let kafka = kafka();
    let schema = schema("large-rows");
    let mut changes = many(0..500, "a", 1);
    changes[17] = upsert(17, &"x".repeat(1_100_000), 1);
    changes[301] = upsert(301, &"y".repeat(2_000_000), 1);
    run(async {
        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        let rejected = apply(&mut *target, &schema, &changes).await;
        assert_eq!(places(&rejected), [17, 301]);
        assert!(
            rejected
                .iter()
                .all(|r| r.sqlstate == "54000" && r.message.contains("max_message_bytes"))
        );
        // The target is usable afterwards.
        assert_eq!(apply(&mut *target, &schema, &[upsert(17, "small", 2)]).await, []);
        changes[17] = upsert(17, "small", 2);
    });
    changes.remove(301);
    assert_eq!(contents(&kafka, "large-rows"), values(&changes));
}

/// The broker rejects all records of a request if one is too large, or if all together are.
#[test]
fn rows_that_a_broker_refuses_are_found_among_good_ones() {
    let kafka = kafka();
    let options = json!({"partitions": 2, "config": {"max.message.bytes": 4000}});
    let schema = shape_with("small-limit", options);
    let mut random = fastrand::Rng::with_seed(7);
    // Random, so that compression has no effect.
    let mut noise = |n: usize| (0..n).map(|_| random.alphanumeric()).collect::<String>();
    let mut changes: Vec<Change> = (0..200).map(|id| upsert(id, &noise(300), 1)).collect();
    for large in [0, 77, 199] {
        changes[large] = upsert(large, &noise(20_000), 1);
    }
    changes[5] = delete(5, 1);
    run(async {
        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        let rejected = apply(&mut *target, &schema, &changes).await;
        assert_eq!(places(&rejected), [0, 77, 199]);
        assert!(rejected.iter().all(|r| r.sqlstate == "54000"), "{rejected:?}");
        // The same batch again: the same changes are rejected, and nothing else changes.
        assert_eq!(places(&apply(&mut *target, &schema, &changes).await), [0, 77, 199]);
    });
    let good: Vec<Change> = changes
        .into_iter()
        .enumerate()
        .filter(|(at, _)| ![0, 77, 199].contains(at))
        .map(|(_, c)| c)
        .collect();
    assert_eq!(contents(&kafka, "small-limit"), values(&good));
}

fn places(rejected: &[RejectedChange]) -> Vec<usize> {
    let mut places: Vec<usize> = rejected.iter().map(|r| r.change).collect();
    places.sort_unstable();
    places
}

/// More records than fit into the producer's queue.
#[test]
fn a_large_batch_arrives() {
    let kafka = kafka();
    let schema = schema("large-batch");
    let changes = many(0..150_000, "something of about fifty bytes, so that it is a row", 1);
    run(async {
        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &changes).await, []);
    });
    assert_eq!(records(&kafka, "large-batch").len(), changes.len());
    assert_eq!(contents(&kafka, "large-batch"), values(&changes));
}

#[test]
fn a_password_is_asked_for_and_told_to_nobody() {
    let kafka = kafka();
    let server = [
        ("bootstrap_servers", kafka.sasl_plaintext.as_str()),
        ("security_protocol", "sasl_plaintext"),
        ("sasl_mechanism", "PLAIN"),
    ];
    let schema = schema("sasl");
    run(async {
        for user in [
            [("user", "writer"), ("password", "wrong-secret")],
            [("user", "no one"), ("password", PASSWORD)],
        ] {
            let wrong =
                delivery_error(open(&server, &user).expect("a target").prepare(&schema).await);
            assert_eq!(
                (wrong.scope, wrong.sqlstate.as_str()),
                (ErrorScope::Server, "28P01"),
                "{wrong:?}"
            );
            assert!(wrong.hint.is_some_and(|h| h.contains("user mapping")));
            // Also without `prepare`.
            let wrong = delivery_error(
                open(&server, &user).expect("a target").apply(&schema, &[upsert(1, "a", 1)]).await,
            );
            assert_eq!(
                (wrong.scope, wrong.sqlstate.as_str()),
                (ErrorScope::Server, "28P01"),
                "{wrong:?}"
            );
            let wrong =
                delivery_error(open(&server, &user).expect("a target").remove(&schema).await);
            assert_eq!(
                (wrong.scope, wrong.sqlstate.as_str()),
                (ErrorScope::Server, "28P01"),
                "{wrong:?}"
            );
        }
        assert!(!exists(&kafka, "sasl"));
        let mut target =
            open(&server, &[("user", "writer"), ("password", PASSWORD)]).expect("a target");
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &[upsert(1, "a", 1)]).await, []);

        // A mechanism that this listener does not support.
        let scram = [server[0], server[1], ("sasl_mechanism", "SCRAM-SHA-512")];
        let user = [("user", "writer"), ("password", PASSWORD)];
        let wrong = delivery_error(open(&scram, &user).expect("a target").prepare(&schema).await);
        assert_eq!(wrong.scope, ErrorScope::Server);
        assert!(wrong.sqlstate.starts_with("28"), "{wrong:?}");
    });
    assert_eq!(contents(&kafka, "sasl"), values(&[upsert(1, "a", 1)]));
}

#[test]
fn tls_is_checked_and_scram_goes_through_it() {
    let kafka = kafka();
    let schema = schema("tls");
    let server = [
        ("bootstrap_servers", kafka.sasl_ssl.as_str()),
        ("security_protocol", "sasl_ssl"),
        ("sasl_mechanism", "SCRAM-SHA-256"),
        ("sslrootcert", kafka.certificate.as_str()),
    ];
    let user = [("user", "writer"), ("password", PASSWORD)];
    run(async {
        let mut target = open(&server, &user).expect("a target");
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &[upsert(1, "a", 1)]).await, []);

        let user = [("user", "writer"), ("password", "wrong-secret")];
        let wrong = delivery_error(open(&server, &user).expect("a target").prepare(&schema).await);
        assert_eq!(wrong.sqlstate, "28P01", "{wrong:?}");

        // The system does not trust the issuer of the broker's certificate.
        let unknown =
            delivery_error(open(&server[..3], &user).expect("a target").prepare(&schema).await);
        assert_eq!(
            (unknown.scope, unknown.sqlstate.as_str()),
            (ErrorScope::Server, "08001"),
            "{unknown:?}"
        );
        assert!(unknown.hint.is_some_and(|h| h.contains("sslrootcert")));

        // TLS to a plaintext listener, and plaintext to a TLS listener.
        for (address, protocol) in [(&kafka.plaintext, "ssl"), (&kafka.sasl_ssl, "plaintext")] {
            let server = [
                ("bootstrap_servers", address.as_str()),
                ("security_protocol", protocol),
                ("request_timeout", "2"),
            ];
            let wrong =
                delivery_error(open(&server, &[]).expect("a target").prepare(&schema).await);
            assert_eq!(
                (wrong.scope, wrong.sqlstate.as_str()),
                (ErrorScope::Server, "08006"),
                "{wrong:?}"
            );
            assert!(
                wrong.detail.is_some()
                    && wrong.hint.is_some_and(|h| h.contains("security_protocol"))
            );
        }
    });
    assert_eq!(contents(&kafka, "tls"), values(&[upsert(1, "a", 1)]));
}

#[test]
fn certificates_and_keys_that_are_none_are_told_without_their_text() {
    let kafka = kafka();
    let server = [("bootstrap_servers", kafka.sasl_ssl.as_str()), ("security_protocol", "ssl")];
    let pem = |what: &str| format!("-----BEGIN {what}-----\nwrong-secret\n-----END {what}-----\n");
    let (certificate, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
    let user = [("sslcert", certificate.as_str()), ("sslkey", key.as_str())];
    let mut target = open(&server, &user).expect("a target");
    let wrong = delivery_error(run(target.prepare(&schema("pem"))));
    assert_eq!((wrong.scope, wrong.sqlstate.as_str()), (ErrorScope::Server, "HV024"), "{wrong:?}");
}

#[test]
fn what_a_user_may_not_do_is_the_targets_trouble() {
    let kafka = kafka();
    let server = [
        ("bootstrap_servers", kafka.sasl_plaintext.as_str()),
        ("security_protocol", "sasl_plaintext"),
        ("sasl_mechanism", "PLAIN"),
    ];
    let reader = [("user", "reader"), ("password", "reader-secret")];
    let there = schema("not-for-readers");
    run(async {
        assert_eq!(plain(&kafka, &[]).prepare(&there).await, Ok(Prepared::Made));
        for schema in [&there, &schema("not-there-for-readers")] {
            let may_not =
                delivery_error(open(&server, &reader).expect("a target").prepare(schema).await);
            assert_eq!(
                (may_not.scope, may_not.sqlstate.as_str()),
                (ErrorScope::Target, "42501"),
                "{may_not:?}"
            );
            assert!(may_not.hint.is_some());
        }
        let may_not = delivery_error(
            open(&server, &reader).expect("a target").apply(&there, &[upsert(1, "a", 1)]).await,
        );
        // If a user may write to no topic, the error concerns the cluster or this topic, depending
        // on the first request.
        assert_eq!(may_not.sqlstate, "42501", "{may_not:?}");
        assert!(may_not.hint.is_some_and(|h| h.contains("Let the user")));
        let may_not =
            delivery_error(open(&server, &reader).expect("a target").remove(&there).await);
        assert_eq!(
            (may_not.scope, may_not.sqlstate.as_str()),
            (ErrorScope::Target, "42501"),
            "{may_not:?}"
        );
    });
    assert!(exists(&kafka, "not-for-readers"));
    assert_eq!(records(&kafka, "not-for-readers").len(), 0);
}

#[test]
fn options_are_checked() {
    let connector = targets::connector("coco_kafka").expect("the connector");
    for (name, bad) in [
        ("bootstrap_servers", "user:secret@host:9092"),
        ("bootstrap_servers", "/var/run/kafka"),
        ("security_protocol", "SSL"),
        ("sasl_mechanism", "GSSAPI"),
        ("sasl_mechanism", "OAUTHBEARER"),
        ("sslrootcert", "/etc/passwd"),
        ("sslcert", "/etc/passwd"),
        ("sslkey", "/etc/ssl/private/key.pem"),
        ("connect_timeout", "0"),
        ("request_timeout", "1.5"),
        ("delivery_timeout", "-1"),
        ("compression", "zstd"),
        ("linger", "60000"),
        ("max_message_bytes", "10"),
        ("password_required", "no"),
        ("partitions", "0"),
        ("replication_factor", "many"),
        ("cleanup_policy", "keep"),
        ("config", "{"),
    ] {
        let spec = connector.options.iter().find(|s| s.name == name).expect(name);
        assert!((spec.check)(bad).is_err_and(|why| !why.contains("secret")), "{name} {bad}");
    }
    // Settings of librdkafka that no user may set.
    let forbidden =
        ["plugin.library.paths", "ssl.ca.location", "ssl.key.location", "sasl.oauthbearer.config"];
    assert!(forbidden.iter().all(|f| connector.options.iter().all(|s| s.name != *f)));
    let secrets: Vec<&str> =
        connector.options.iter().filter(|s| s.secret).map(|s| s.name).collect();
    assert_eq!(secrets, ["password", "sslkey"]);
}

#[test]
fn a_server_that_is_not_there_is_the_servers_trouble() {
    let dead = server::free_address();
    let schema = schema("nowhere");
    run(async {
        for address in [dead.as_str(), "no-such-host.invalid:9092"] {
            let server = [
                ("bootstrap_servers", address),
                ("request_timeout", "2"),
                ("delivery_timeout", "2"),
            ];
            let prepared =
                delivery_error(open(&server, &[]).expect("a target").prepare(&schema).await);
            let applied = delivery_error(
                open(&server, &[]).expect("a target").apply(&schema, &[upsert(1, "a", 1)]).await,
            );
            for error in [prepared, applied] {
                assert_eq!(
                    (error.scope, error.sqlstate.as_str()),
                    (ErrorScope::Server, "08006"),
                    "{error:?}"
                );
                // The lookup of a name may not have finished yet: the system decides how long it
                // takes.
                let detail = error.detail.unwrap_or_else(|| address.to_owned());
                assert!(detail.contains(address), "{detail}");
                assert!(address != dead || detail.contains("refused"), "{detail}");
            }
        }
    });
}

#[test]
fn a_server_that_was_down_goes_on_where_it_was() {
    let kafka = exclusively();
    let schema = schema("down");
    let before = many(0..100, "before", 1);
    let after = many(50..150, "after", 2);
    run(async {
        let mut target = plain(&kafka, &[("delivery_timeout", "5")]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &before).await, []);
        kafka.stop();
        let down = delivery_error(target.apply(&schema, &after).await);
        assert_eq!((down.scope, down.sqlstate.as_str()), (ErrorScope::Server, "08006"), "{down:?}");
        kafka.start();

        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Found));
        assert_eq!(apply(&mut *target, &schema, &after).await, []);
        // A short outage within the timeout has no effect.
        kafka.stop();
        let changes = [delete(0, 3)];
        let applying = async { apply(&mut *target, &schema, &changes).await };
        let starting = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            kafka.start();
        };
        assert_eq!(tokio::join!(applying, starting).0, []);
    });
    let mut now = values(&before);
    now.extend(values(&after));
    now.remove(&key(0));
    assert_eq!(contents(&kafka, "down"), now);
}

#[test]
fn a_slow_server_is_waited_for_as_long_as_was_said() {
    let kafka = exclusively();
    let schema = schema("slow");
    run(async {
        let mut target = plain(&kafka, &[("delivery_timeout", "15"), ("request_timeout", "15")]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &[upsert(1, "first", 1)]).await, []);
        // The records reach the server's machine, and the server reads them when it resumes.
        kafka.freeze();
        let late = delivery_error(target.apply(&schema, &many(0..1000, "late", 2)).await);
        assert_eq!((late.scope, late.sqlstate.as_str()), (ErrorScope::Server, "08006"), "{late:?}");
        let prepared =
            delivery_error(plain(&kafka, &[("request_timeout", "1")]).prepare(&schema).await);
        assert_eq!(
            (prepared.scope, prepared.sqlstate.as_str()),
            (ErrorScope::Server, "08006"),
            "{prepared:?}"
        );

        // A new producer starts before the server resumes. The server may read its requests before it
        // has executed all that the old one has sent, as the README says, so they are waited for.
        let mut target = plain(&kafka, &[]);
        let newer = many(0..1000, "newer", 3);
        let thawing = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            kafka.thaw();
        };
        assert_eq!(tokio::join!(target.prepare(&schema), thawing).0, Ok(Prepared::Found));
        let mut seen = records(&kafka, "slow").len();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = records(&kafka, "slow").len();
            if std::mem::replace(&mut seen, now) == now {
                break;
            }
        }
        assert_eq!(apply(&mut *target, &schema, &newer).await, []);
        assert_eq!(contents(&kafka, "slow"), values(&newer));

        // Within the timeout.
        kafka.freeze();
        let newest = many(0..1000, "newest", 4);
        let thawing = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            kafka.thaw();
        };
        assert_eq!(tokio::join!(apply(&mut *target, &schema, &newest), thawing).0, []);
        assert_eq!(contents(&kafka, "slow"), values(&newest));
    });
}

#[test]
fn a_batch_that_was_half_applied_is_applied_again() {
    let kafka = exclusively();
    let schema = schema("half");
    let changes = many(0..60_000, "a row of a batch that is cut off in the middle", 1);
    run(async {
        let mut target = plain(&kafka, &[("delivery_timeout", "5")]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        // Killed during a batch.
        let killing = async {
            while records(&kafka, "half").is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let killed = tokio::select! {
            applied = target.apply(&schema, &changes) => Some(applied),
            () = killing => None,
        };
        // The next batch works in both cases: canceled in the middle, or completed before.
        drop((killed, target));
        kafka.kill();
        kafka.start();

        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Found));
        assert_eq!(apply(&mut *target, &schema, &changes).await, []);
        assert_eq!(contents(&kafka, "half"), values(&changes));
    });
}

/// A caller may stop waiting for a batch. Unsent records must not be sent later.
#[test]
fn a_batch_that_was_given_up_is_not_sent_later() {
    let kafka = exclusively();
    let schema = schema("given-up");
    run(async {
        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        kafka.stop();
        let waited = Duration::from_millis(500);
        let given_up =
            tokio::time::timeout(waited, target.apply(&schema, &[upsert(1, "old", 1)])).await;
        assert!(given_up.is_err());
        kafka.start();
        assert_eq!(
            apply(&mut *target, &schema, &[upsert(1, "new", 2), upsert(2, "new", 2)]).await,
            []
        );
    });
    assert_eq!(records(&kafka, "given-up").len(), 2);
}

/// Runs in a separate process, without the threads of other tests.
#[test]
fn a_client_is_quiet_takes_no_signals_and_ends_with_its_target() {
    if let Ok(addresses) = std::env::var("COCO_TEST_KAFKA_ALONE") {
        alone(&addresses);
        return;
    }
    let kafka = kafka();
    let name = "target_kafka::a_client_is_quiet_takes_no_signals_and_ends_with_its_target";
    let child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("COCO_TEST_KAFKA_ALONE", format!("{} {}", kafka.plaintext, kafka.sasl_plaintext))
        .output()
        .expect("a child");
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{stderr}");
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{child:?}");
    assert_eq!(stderr, "");
}

fn alone(addresses: &str) {
    let (plaintext, sasl) = addresses.split_once(' ').expect("two addresses");
    let dead = server::free_address();
    let schema = schema("alone");
    run(async {
        let mut target = open(&[("bootstrap_servers", plaintext)], &[]).expect("a target");
        target.prepare(&schema).await.expect("a topic");
        apply(&mut *target, &schema, &[upsert(1, "a", 1)]).await;
        let blocked = server::blocked_signals("rdk:");
        assert!(blocked.len() >= 2, "{blocked:?}");
        // All signals except the two that cannot be blocked, and the two of the C library.
        let all = !(1u64 << 8 | 1 << 18 | 1 << 31 | 1 << 32);
        assert!(blocked.iter().all(|(_, mask)| *mask == all), "{blocked:x?}");
        drop(target);
        none_is_left().await;

        let server = [
            ("bootstrap_servers", sasl),
            ("security_protocol", "sasl_plaintext"),
            ("sasl_mechanism", "PLAIN"),
        ];
        let user = [("user", "writer"), ("password", "wrong-secret")];
        delivery_error(open(&server, &user).expect("a target").prepare(&schema).await);
        let server = [("bootstrap_servers", dead.as_str()), ("request_timeout", "1")];
        let mut target = open(&server, &[]).expect("a target");
        delivery_error(target.prepare(&schema).await);
        none_is_left().await;
    });
}

/// An admin client ends by itself, soon.
async fn none_is_left() {
    for _ in 0..1000 {
        if server::blocked_signals("rdk:").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("threads are left: {:x?}", server::blocked_signals("rdk:"));
}
