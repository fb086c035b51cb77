//! What a compacted topic holds, against a real broker.

use coco_connectors::targets::options::{Access, Options};
use coco_connectors::targets::{self, Prepared, Target};
use coco_core::change::{Change, Column, TargetSchema, Values};
use coco_core::key_range::{KeyRange, PartDigests, PartSums};

use crate::server::{Kafka, kafka};

fn run<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(what)
}

fn open(kafka: &Kafka) -> Box<dyn Target> {
    let connector = targets::connector("coco_kafka").expect("the connector");
    let server = [("bootstrap_servers".to_owned(), kafka.plaintext.clone())];
    let server = Options(server.into_iter().collect());
    let user = Options(Default::default());
    connector.connect(Access { server, user, trusted: true }).expect("a target")
}

fn schema(topic: &str, options: serde_json::Value) -> TargetSchema {
    let column = |name: &str, type_name: &str| Column {
        name: name.to_owned(),
        type_schema: "pg_catalog".to_owned(),
        type_name: type_name.to_owned(),
    };
    TargetSchema {
        flow: "f".to_owned(),
        target: topic.to_owned(),
        columns: vec![column("id", "integer"), column("body", "text")],
        key: vec![0],
        options: options.as_object().cloned().unwrap_or_default(),
    }
}

fn upsert(id: usize, body: &str) -> Change {
    let row = Some(Values::Json(format!("{{\"id\":{id},\"body\":\"{body}\"}}")));
    Change { key: Values::Json(format!("{{\"id\":{id}}}")), row, version: 1 }
}

fn delete(id: usize) -> Change {
    Change { row: None, ..upsert(id, "") }
}

fn sent(schema: &TargetSchema, changes: &[Change], ranges: &[KeyRange]) -> PartDigests {
    let connector = targets::connector("coco_kafka").expect("the connector");
    let verification = connector.verification.expect("the connector reads topics");
    let mut sums = PartSums::new(ranges, 2);
    for change in changes {
        let digests = (verification.digests)(schema, change).expect("digests");
        sums.add(digests.key, digests.row.expect("a row"));
    }
    sums.finish()
}

#[test]
fn the_last_record_of_each_key_is_what_a_topic_holds() {
    let kafka = kafka();
    let schema = schema("verified", serde_json::json!({"partitions": 3}));
    run(async {
        let mut target = open(&kafka);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(target.part_digests(&schema, &[KeyRange::ALL], 2).await, Ok(PartDigests::new()));
        let first: Vec<Change> = (0..2500).map(|id| upsert(id, "first")).collect();
        assert_eq!(target.apply(&schema, &first).await, Ok(vec![]));
        let second = [upsert(7, "second"), delete(8), upsert(9000, "new"), delete(9001)];
        assert_eq!(target.apply(&schema, &second).await, Ok(vec![]));
        let mut now: Vec<Change> = first
            .into_iter()
            .filter(|c| *c != upsert(7, "first") && *c != upsert(8, "first"))
            .collect();
        now.extend([upsert(7, "second"), upsert(9000, "new")]);

        let held = target.part_digests(&schema, &[KeyRange::ALL], 2).await;
        assert_eq!(held, Ok(sent(&schema, &now, &[KeyRange::ALL])));
        let ranges = ["3", "c"].map(|prefix| KeyRange::from_prefix(prefix).expect("a range"));
        let held = target.part_digests(&schema, &ranges, 2).await;
        assert_eq!(held, Ok(sent(&schema, &now, &ranges)));

        let rows = target.held_rows(&schema, &[KeyRange::ALL], 3000).await.expect("rows");
        assert_eq!(rows.len(), now.len());
        assert!(rows.iter().any(|row| row.json == "{\"id\":9000}"));
        let error = target.held_rows(&schema, &[KeyRange::ALL], 100).await.expect_err("too many");
        assert_eq!(error.sqlstate, "40001");
    });
}

#[test]
fn a_topic_that_deletes_old_records_cannot_be_verified() {
    let kafka = kafka();
    let schema = schema("unverified", serde_json::json!({"cleanup_policy": "compact,delete"}));
    run(async {
        let mut target = open(&kafka);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        let error = target.part_digests(&schema, &[KeyRange::ALL], 1).await.expect_err("an error");
        assert_eq!(error.sqlstate, "0A000");
    });
}
