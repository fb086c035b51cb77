//! Tests of the Kafka connector, against a real broker.

mod access;
mod faults;
mod rows;
mod topics;

use std::collections::BTreeMap;
use std::time::Duration;

use coco_connectors::targets::options::{Access, Options};
use coco_connectors::targets::{self, Target};
use coco_core::change::{Change, Column, DeliveryError, RejectedChange, TargetSchema, Values};
use serde_json::{Value, json};

use crate::server::{self, Kafka};

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
