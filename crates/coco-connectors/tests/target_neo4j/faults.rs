//! Servers that are down, slow or end, and batches that are applied in part.

use std::time::Duration;

use coco_connectors::targets::Prepared::Found;
use coco_core::change::{ErrorScope, TargetSchema};
use serde_json::{Value, json};

use crate::neo4j::*;

#[tokio::test]
async fn what_is_no_server_of_neo4js_is_told() {
    let server = shared().await;
    let schema = nodes("None", &[("id", "integer")], &[0]);
    let error_of = async |url: String| {
        let options = [("url", url.as_str()), ("connect_timeout", "1")];
        let mut target = server.open_with(&options, USER, &server.password);
        target.prepare(&schema).await.expect_err("no server")
    };
    let http = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(error_of(http).await.sqlstate, "08P01");
    for url in [answering(b""), silent(), nobody()] {
        let error = error_of(url).await;
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08001"));
        assert!(error.hint.is_some());
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_up_again() {
    let server = alone().await;
    let schema = nodes("Durable", &[("id", "integer")], &[0]);
    let mut target = server.open();
    target.prepare(&schema).await.expect("made");
    assert_eq!(target.apply(&schema, &[put(&schema, json!({"id": 1}))]).await, Ok(vec![]));
    server.halt();
    let next = [put(&schema, json!({"id": 2}))];
    let error = target.apply(&schema, &next).await.expect_err("down");
    assert_eq!(error.scope, ErrorScope::Server);
    assert!(error.sqlstate.starts_with("08"), "{error:?}");
    let error = server.open().prepare(&schema).await.expect_err("down");
    assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08001"));
    server.start();
    let mut target = server.open();
    assert_eq!(target.prepare(&schema).await, Ok(Found));
    assert_eq!(target.apply(&schema, &next).await, Ok(vec![]));
    assert_eq!(server.count("MATCH (n:Durable)").await, 2, "what was there before lasts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_is_brought_to_the_same() {
    let server = alone().await;
    let schema = edges("KILLED", "K", &[("id", "integer"), ("a", "integer"), ("b", "integer")]);
    let mut target = server.open();
    target.prepare(&schema).await.expect("made");
    // Each batch creates a relationship, and moves another. The loop runs until the connection
    // ends, at any point.
    let batch = |schema: &TargetSchema, round: i64| {
        [
            put(schema, json!({"id": 1000 + round, "a": 0, "b": round})),
            put(schema, json!({"id": round % 7, "a": round, "b": 0})),
        ]
    };
    let shape_too = schema.clone();
    let writing = tokio::spawn(async move {
        for round in 0.. {
            if let Err(error) = target.apply(&shape_too, &batch(&shape_too, round)).await {
                return (round, error);
            }
        }
        unreachable!("there is always a next round")
    });
    while server.count("MATCH ()-[r:KILLED {id: 1100}]->()").await == 0 {
        assert!(!writing.is_finished());
    }
    server.halt();
    let (rounds, error) = writing.await.expect("no panic");
    assert_eq!(error.scope, ErrorScope::Server, "{error:?}");
    server.start();
    let returned = format!("MATCH ()-[r:KILLED]->() WHERE 1000 <= r.id < {}", 1000 + rounds);
    assert_eq!(server.count(&returned).await, rounds, "what returned before is there");
    let mut target = server.open();
    assert_eq!(target.prepare(&schema).await, Ok(Found));
    for round in rounds - 7..=rounds {
        assert_eq!(target.apply(&schema, &batch(&schema, round)).await, Ok(vec![]));
    }
    let last = "MATCH (x)-[r:KILLED]->() WHERE r.id < 1000 RETURN x.name AS v ORDER BY v";
    assert_eq!(server.rows(last).await, (rounds - 6..=rounds).map(Value::from).collect::<Vec<_>>());
    assert_eq!(target.remove(&schema).await, Ok(()));
    assert_eq!(server.count("MATCH (n:KFrom|KTo)").await, 0);
}

/// Another process did not finish a batch, or this process finished it without getting the answer.
#[tokio::test]
async fn a_batch_applied_in_part_is_applied_again() {
    let server = shared().await;
    let schema = edges("PART", "Part", &[("id", "integer"), ("a", "integer"), ("b", "integer")]);
    let mut target = server.open();
    target.prepare(&schema).await.expect("made");
    let put = |i: i64, by: i64| put(&schema, json!({"id": i, "a": i % 7, "b": (i + by) % 5}));
    let before: Vec<_> = (0..300).map(|i| put(i, 0)).collect();
    assert_eq!(target.apply(&schema, &before).await, Ok(vec![]));
    let mut changes: Vec<_> = (0..200).map(|i| put(i, 1)).collect();
    changes.extend((200..300).map(|i| gone(json!({"id": i}))));
    changes.extend((300..400).map(|i| put(i, 1)));
    let part: Vec<_> = changes.iter().step_by(3).cloned().collect();
    for some in [&part, &changes, &part, &changes] {
        assert_eq!(target.apply(&schema, some).await, Ok(vec![]));
    }
    assert_eq!(server.count("MATCH (:PartFrom)-[r:PART]->(:PartTo)").await, 300);
    let right = "MATCH (x:PartFrom)-[r:PART]->(y:PartTo) WHERE x.name = r.id % 7 AND y.name = (r.id + 1) % 5";
    assert_eq!(server.count(right).await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_waited_for_as_long_as_the_options_say() {
    let server = alone().await;
    let schema = nodes("Slow", &[("id", "integer")], &[0]);
    let rows = [put(&schema, json!({"id": 1}))];
    let options = [("request_timeout", "5"), ("connect_timeout", "1")];
    let mut hasty = server.open_with(&options, USER, &server.password);
    let mut patient = server.open_with(&[("request_timeout", "600")], USER, &server.password);
    // A server that was just started is slow at first, and here it is only to be waited for.
    patient.prepare(&schema).await.expect("made");
    hasty.prepare(&schema).await.expect("found");
    server.freeze();
    let error = hasty.apply(&schema, &rows).await.expect_err("too slow");
    assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08006"));
    assert!(error.hint.expect("a hint").contains("request_timeout"));
    let mut new = server.open_with(&options, USER, &server.password);
    let error = new.apply(&schema, &rows).await.expect_err("too slow");
    assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08001"));
    assert!(error.hint.expect("a hint").contains("connect_timeout"));
    // The server answers after a while, within the timeout.
    let (shape_too, rows_too) = (schema.clone(), rows.clone());
    let waiting = tokio::spawn(async move { patient.apply(&shape_too, &rows_too).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    server.thaw();
    assert_eq!(waiting.await.expect("no panic"), Ok(vec![]));
    assert_eq!(server.open().apply(&schema, &rows).await, Ok(vec![]));
    assert_eq!(server.count("MATCH (n:Slow)").await, 1);
}
