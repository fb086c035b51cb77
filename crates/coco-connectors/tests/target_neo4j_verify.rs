//! What a database holds, read by the Neo4j connector.

use coco_connectors::targets::{self, Prepared::Made};
use coco_core::change::{Change, TargetSchema};
use coco_core::key_range::{KeyRange, PartDigests, PartSums};
use serde_json::json;

use crate::neo4j::{edges, nodes, put, shared};

fn sent(schema: &TargetSchema, changes: &[Change], digits: u32) -> PartDigests {
    let connector = targets::connector("coco_neo4j").expect("the connector");
    let verification = connector.verification.expect("the connector reads graphs");
    let mut sums = PartSums::new(&[KeyRange::ALL], digits);
    for change in changes {
        let digests = (verification.digests)(schema, change).expect("digests");
        sums.add(digests.key, digests.row.expect("a row"));
    }
    sums.finish()
}

#[tokio::test]
async fn nodes_have_the_digests_of_the_rows_that_were_sent() {
    let server = shared().await;
    let columns = [
        ("id", "integer"),
        ("title", "text"),
        ("f", "double precision"),
        ("n", "numeric"),
        ("b", "boolean"),
        ("j", "jsonb"),
        ("a", "text[]"),
    ];
    let schema = nodes("Verified", &columns, &[0]);
    let mut target = server.open();
    assert_eq!(target.prepare(&schema).await, Ok(Made));
    let empty = target.part_digests(&schema, &[KeyRange::ALL], 1).await;
    assert_eq!(empty, Ok(PartDigests::new()));
    // More than one answer of 1,000 rows.
    let changes: Vec<Change> = (0..2500)
        .map(|id| {
            let row = json!({
                "id": id, "title": (id % 2 == 0).then_some("größe"), "f": 0.1, "n": 7, "b": true,
                "j": {"x": [1, null]}, "a": ["p", "q"],
            });
            put(&schema, row)
        })
        .collect();
    for part in changes.chunks(1000) {
        assert_eq!(target.apply(&schema, part).await, Ok(vec![]));
    }
    let held = target.part_digests(&schema, &[KeyRange::ALL], 2).await;
    assert_eq!(held, Ok(sent(&schema, &changes, 2)));

    server.run("MATCH (n:Verified {id: 42}) SET n.title = 'edited'").await;
    server.run("CREATE (:Verified {title: 'without a key'})").await;
    let held = target.part_digests(&schema, &[KeyRange::ALL], 32).await.expect("digests");
    let sent = sent(&schema, &changes, 32);
    let differing: Vec<&KeyRange> =
        sent.iter().filter(|(range, sum)| held.get(range) != Some(sum)).map(|(r, _)| r).collect();
    assert_eq!((differing.len(), held.len()), (1, 2500));
    let rows = target.held_rows(&schema, &[*differing[0]], 10).await.expect("rows");
    let keys: Vec<&str> = rows.iter().map(|row| row.json.as_str()).collect();
    assert_eq!(keys, [r#"{"id":42}"#]);
    let error = target.held_rows(&schema, &[KeyRange::ALL], 10).await.expect_err("more");
    assert_eq!(error.sqlstate, "40001");
}

#[tokio::test]
async fn relationships_have_the_digests_of_their_rows_and_ends() {
    let server = shared().await;
    let columns = [("id", "integer"), ("a", "text"), ("b", "text"), ("n", "integer")];
    let schema = edges("VerifiedCites", "V", &columns);
    let mut target = server.open();
    assert_eq!(target.prepare(&schema).await, Ok(Made));
    let changes: Vec<Change> = (0..50)
        .map(|id| put(&schema, json!({"id": id, "a": format!("x{id}"), "b": "y", "n": id})))
        .collect();
    assert_eq!(target.apply(&schema, &changes).await, Ok(vec![]));
    let held = target.part_digests(&schema, &[KeyRange::ALL], 1).await;
    assert_eq!(held, Ok(sent(&schema, &changes, 1)));
    server.run("MATCH (x:VFrom {name: 'x7'}) SET x.name = 'other'").await;
    let held = target.part_digests(&schema, &[KeyRange::ALL], 1).await;
    assert_ne!(held, Ok(sent(&schema, &changes, 1)));
}
