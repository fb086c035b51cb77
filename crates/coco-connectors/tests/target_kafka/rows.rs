//! Rows as records: they come, change and go, and some are refused.

use coco_connectors::targets::Prepared;
use coco_core::change::{Change, RejectedChange, Values};
use serde_json::json;

use super::{apply, delete, key, many, plain, run, schema, shape_with, upsert, values};
use crate::server::kafka;
use crate::topic::{contents, records};

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
