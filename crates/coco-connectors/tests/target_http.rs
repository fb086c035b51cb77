//! Tests of the webhook connector, against a receiver that records requests.

mod access;
mod answers;
mod options;
mod rejected;
mod requests;

use coco_connectors::targets::options::{Access, Options};
use coco_connectors::targets::{self, Connector, Target};
use coco_core::change::{Change, Column, DeliveryError, RejectedChange, TargetSchema, Values};
use tokio::runtime::Runtime;

use crate::http::{Receiver, Request};

/// An open target, and the runtime that drives it.
struct Webhook {
    runtime: Runtime,
    target: Box<dyn Target>,
    schema: TargetSchema,
}

impl Webhook {
    fn open(receiver: &Receiver) -> Webhook {
        Webhook::with(receiver, &[], &[])
    }

    /// Opens a target with these options of the server and the user mapping in addition to the URL.
    fn with(receiver: &Receiver, server: &[(&str, &str)], user: &[(&str, &str)]) -> Webhook {
        let url = receiver.url();
        let server = [&[("url", url.as_str())], server].concat();
        let target = open(&server, user).unwrap_or_else(|error| panic!("{error:?}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        Webhook { runtime, target, schema: schema("flow", "docs") }
    }

    fn apply(&mut self, changes: &[Change]) -> Result<Vec<RejectedChange>, DeliveryError> {
        self.runtime.block_on(self.target.apply(&self.schema, changes))
    }

    /// Applies changes, and panics unless the receiver accepts all.
    fn deliver(&mut self, changes: &[Change]) {
        assert_eq!(self.apply(changes), Ok(vec![]));
    }

    fn fails(&mut self, changes: &[Change]) -> DeliveryError {
        self.apply(changes).expect_err("an error")
    }
}

fn connector() -> &'static Connector {
    targets::connector("coco_http").expect("this build has it")
}

fn open(server: &[(&str, &str)], user: &[(&str, &str)]) -> Result<Box<dyn Target>, DeliveryError> {
    let access = Access { server: options(server), user: options(user), trusted: false };
    connector().connect(access)
}

fn options(pairs: &[(&str, &str)]) -> Options {
    Options(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
}

fn schema(flow: &str, target: &str) -> TargetSchema {
    let column = |name: &str, type_name: &str| Column {
        name: name.to_owned(),
        type_schema: "pg_catalog".to_owned(),
        type_name: type_name.to_owned(),
    };
    TargetSchema {
        flow: flow.to_owned(),
        target: target.to_owned(),
        columns: vec![column("id", "integer"), column("body", "text")],
        key: vec![0],
        options: serde_json::Map::new(),
    }
}

fn json(text: impl Into<String>) -> Values {
    Values::Json(text.into())
}

fn upsert(id: usize, body: &str, version: i64) -> Change {
    let body = serde_json::Value::from(body);
    Change {
        key: json(format!(r#"{{"id":{id}}}"#)),
        row: Some(json(format!(r#"{{"id":{id},"body":{body}}}"#))),
        version,
    }
}

fn delete(id: usize, version: i64) -> Change {
    Change { key: json(format!(r#"{{"id":{id}}}"#)), row: None, version }
}

/// Returns upserts of this many rows, with their number as body.
fn upserts(n: usize) -> Vec<Change> {
    (0..n).map(|id| upsert(id, &id.to_string(), 1)).collect()
}

fn rows(receiver: &Receiver) -> Vec<String> {
    receiver.rows("flow", "docs").into_values().collect()
}

fn places(rejected: &[RejectedChange]) -> Vec<usize> {
    let mut places: Vec<usize> = rejected.iter().map(|r| r.change).collect();
    places.sort_unstable();
    places
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.get(name).map(String::as_str)
}

/// Returns all texts of an error.
fn text(error: &DeliveryError) -> String {
    format!("{error:?}")
}
