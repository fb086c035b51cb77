//! What a collection holds, read by the Qdrant connector.

use std::collections::BTreeMap;

use coco_connectors::targets::options::{Access, Options};
use coco_connectors::targets::{Connector, Prepared, connector};
use coco_core::change::{Change, Column, TargetSchema, Values};
use coco_core::key_range::{KeyRange, PartDigests, PartSums, RangeDigest};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::scripted::Scripted;

fn qdrant() -> &'static Connector {
    connector("coco_qdrant").expect("the connector")
}

fn schema(distance: &str) -> TargetSchema {
    let column = |name: &str, type_name: &str| Column {
        name: name.to_owned(),
        type_schema: "pg_catalog".to_owned(),
        type_name: type_name.to_owned(),
    };
    let mut options = serde_json::Map::new();
    options.insert("vectors".to_owned(), json!({"e": {"size": 2, "distance": distance}}));
    TargetSchema {
        flow: "f".to_owned(),
        target: format!("verified_{distance}"),
        columns: vec![column("id", "bigint"), column("title", "text"), column("e", "real[]")],
        key: vec![0],
        options,
    }
}

fn upsert(id: usize, title: &str) -> Change {
    let row = json!({"id": id, "title": title, "e": [id, 0.5]}).to_string();
    let key = Values::Json(json!({ "id": id }).to_string());
    Change { key, row: Some(Values::Json(row)), version: 1 }
}

fn sent(schema: &TargetSchema, changes: &[Change], digits: u32) -> PartDigests {
    let verification = qdrant().verification.expect("the connector reads collections");
    let mut sums = PartSums::new(&[KeyRange::ALL], digits);
    for change in changes {
        let digests = (verification.digests)(schema, change).expect("digests");
        sums.add(digests.key, digests.row.expect("a row"));
    }
    sums.finish()
}

/// The parts that differ by more than rounding.
fn differing(ours: &PartDigests, theirs: &PartDigests) -> Vec<KeyRange> {
    let tolerance = qdrant().verification.expect("the connector reads collections").tolerance;
    let is_equal = |range: &KeyRange, sum: &RangeDigest| {
        theirs.get(range).is_some_and(|there| sum.is_within(there, tolerance))
    };
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    ours.iter().filter(|(range, sum)| !is_equal(range, sum)).map(|(range, _)| *range).collect()
}

#[test]
fn points_have_the_digests_of_the_rows_that_were_sent() {
    let script = Scripted::new("qdrant");
    let url = script.run("start", &["--while", &std::process::id().to_string()]);
    let runtime = Runtime::new().expect("a runtime");
    for distance in ["dot", "cosine"] {
        let schema = schema(distance);
        assert_eq!((qdrant().check)(&schema), Ok(()));
        let server = Options(BTreeMap::from([("url".to_owned(), url.clone())]));
        let user = Options(BTreeMap::new());
        let access = Access { server, user, trusted: true };
        let mut target = qdrant().connect(access).expect("a target");
        runtime.block_on(async {
            assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
            let empty = target.part_digests(&schema, &[KeyRange::ALL], 1).await;
            assert_eq!(empty, Ok(PartDigests::new()));
            // More than one page.
            let changes: Vec<Change> = (1..600).map(|id| upsert(id, "a title")).collect();
            assert_eq!(target.apply(&schema, &changes).await, Ok(vec![]));
            let held = target.part_digests(&schema, &[KeyRange::ALL], 2).await;
            let held = held.expect("digests");
            let found = differing(&sent(&schema, &changes, 2), &held);
            assert!(found.is_empty(), "{distance}: {found:?}");
            if distance == "dot" {
                assert_eq!(held, sent(&schema, &changes, 2));
            }

            let edit = upsert(42, "edited");
            // The same payload, and a vector of another direction.
            let row = json!({"id": 43, "title": "a title", "e": [43, 0.75]}).to_string();
            let turned = Change { row: Some(Values::Json(row)), ..upsert(43, "a title") };
            assert_eq!(target.apply(&schema, &[edit, turned]).await, Ok(vec![]));
            let held = target.part_digests(&schema, &[KeyRange::ALL], 32).await.expect("digests");
            let differing = differing(&sent(&schema, &changes, 32), &held);
            assert_eq!((differing.len(), held.len()), (2, 599), "{distance}");
            let rows = target.held_rows(&schema, &differing, 10).await.expect("rows");
            let mut keys: Vec<&str> = rows.iter().map(|row| row.json.as_str()).collect();
            keys.sort_unstable();
            assert_eq!(keys, [r#"{"id":42}"#, r#"{"id":43}"#], "{distance}");
            let error = target.held_rows(&schema, &[KeyRange::ALL], 10).await.expect_err("more");
            assert_eq!(error.sqlstate, "40001");
        });
    }
}
