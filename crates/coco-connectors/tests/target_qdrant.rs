//! Tests of the Qdrant connector through its trait, against Qdrant's engine and protocol (see
//! `scripts/servers/qdrant/server.py`). The tests read the points with Qdrant's own client.

mod access;
mod collections;
mod faults;
mod points;

use std::collections::BTreeMap;
use std::future::Future;

use coco_connectors::targets::options::{Access, Options};
use coco_connectors::targets::{Connector, Prepared, Target, connector};
use coco_core::change::{
    Change, Column, DeliveryError, ErrorScope, RejectedChange, TargetSchema, Values,
};
use qdrant_client::Qdrant;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::{
    CountPointsBuilder, RetrievedPoint, ScrollPointsBuilder, VectorOutput, vector_output,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::scripted::Scripted;

const KEY: &str = "k3y-of-the-tests";

/// A server of one test, with a runtime.
struct Server {
    script: Scripted,
    url: String,
    runtime: Runtime,
}

impl Server {
    fn start(options: &[&str]) -> Server {
        let runtime = Runtime::new().expect("a runtime");
        let mut server = Server { script: Scripted::new("qdrant"), url: String::new(), runtime };
        server.up(options);
        server
    }

    fn up(&mut self, options: &[&str]) {
        let owner = std::process::id().to_string();
        let options = [&["--while", &owner], options].concat();
        self.url = self.script.run("start", &options);
    }

    fn down(&self) {
        self.script.run("stop", &[]);
    }

    /// Sets the faults from now on: see `Faults` of the server.
    fn faults(&self, faults: Value) {
        let new = self.script.dir.join("faults.new");
        std::fs::write(&new, faults.to_string()).expect("a file");
        std::fs::rename(new, self.script.dir.join("faults.json")).expect("a file");
    }

    /// Returns the completed requests of a method: the number of points of each.
    fn done(&self, method: &str) -> Vec<usize> {
        let done = std::fs::read_to_string(self.script.dir.join("done")).unwrap_or_default();
        let of_method = done.lines().filter_map(|line| line.split_once(' '));
        let of_method = of_method.filter(|(name, _)| *name == method);
        of_method.map(|(_, points)| points.parse().unwrap_or(0)).collect()
    }

    fn access(&self) -> Access {
        access(&[("url", &self.url)], &[])
    }

    fn target(&self) -> Box<dyn Target> {
        open(self.access()).expect("a target")
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn prepare(&self, schema: &TargetSchema) -> Prepared {
        self.block_on(self.target().prepare(schema)).expect("a collection")
    }

    /// Applies changes on a new connection.
    fn apply(
        &self,
        schema: &TargetSchema,
        changes: &[Change],
    ) -> Result<Vec<RejectedChange>, DeliveryError> {
        self.block_on(self.target().apply(schema, changes))
    }

    fn client(&self) -> Qdrant {
        Qdrant::from_url(&self.url).skip_compatibility_check().build().expect("a client")
    }

    /// Returns all points, by the JSON of their payload's `id`.
    fn points(&self, collection: &str) -> BTreeMap<String, RetrievedPoint> {
        let client = self.client();
        self.block_on(async {
            let counted = client.count(CountPointsBuilder::new(collection).exact(true)).await;
            let count = counted.expect("a count").result.expect("a count").count;
            let request = ScrollPointsBuilder::new(collection).limit(100_000);
            let all = client.scroll(request.with_payload(true).with_vectors(true)).await;
            let all = all.expect("points").result;
            assert_eq!(all.len() as u64, count);
            all.into_iter().map(|point| (point.payload["id"].to_string(), point)).collect()
        })
    }

    fn ids(&self, collection: &str) -> Vec<String> {
        self.points(collection).into_keys().collect()
    }
}

fn qdrant() -> &'static Connector {
    connector("coco_qdrant").expect("the connector")
}

fn options(pairs: &[(&str, &str)]) -> Options {
    Options(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

fn access(server: &[(&str, &str)], user: &[(&str, &str)]) -> Access {
    Access { server: options(server), user: options(user), trusted: true }
}

fn open(access: Access) -> Result<Box<dyn Target>, DeliveryError> {
    qdrant().connect(access)
}

/// Returns a schema whose key is the first `key` columns.
fn schema(target: &str, key: usize, columns: &[(&str, &str)], vectors: Value) -> TargetSchema {
    let columns = columns.iter().map(|(name, type_name)| Column {
        name: (*name).to_owned(),
        type_schema: match type_name.contains("vec") {
            true => "public".to_owned(),
            false => "pg_catalog".to_owned(),
        },
        type_name: (*type_name).to_owned(),
    });
    let mut options = serde_json::Map::new();
    if !vectors.is_null() {
        options.insert("vectors".to_owned(), vectors);
    }
    TargetSchema {
        flow: "flow".to_owned(),
        target: target.to_owned(),
        columns: columns.collect(),
        key: (0..key).collect(),
        options,
    }
}

/// Returns a schema with `id`, `title` and an embedding of three dimensions.
fn docs() -> TargetSchema {
    schema("docs", 1, &[("id", "bigint"), ("title", "text"), ("e", "vector(3)")], Value::Null)
}

/// Returns the change of a row with these columns.
fn upsert(schema: &TargetSchema, row: &Value) -> Change {
    Change { row: Some(Values::Json(row.to_string())), ..delete(schema, row) }
}

fn delete(schema: &TargetSchema, row: &Value) -> Change {
    let key: serde_json::Map<String, Value> =
        schema.key_columns().map(|c| (c.name.clone(), row[&c.name].clone())).collect();
    Change { key: Values::Json(Value::Object(key).to_string()), row: None, version: 1 }
}

fn doc(id: i64, title: &str) -> Change {
    upsert(&docs(), &json!({"id": id, "title": title, "e": "[0.6,0,0.8]"}))
}

fn payload(point: &RetrievedPoint) -> Value {
    point.payload.iter().map(|(name, value)| (name.clone(), to_json(value))).collect()
}

fn to_json(value: &qdrant_client::qdrant::Value) -> Value {
    match value.kind.as_ref().expect("a kind") {
        Kind::NullValue(_) => Value::Null,
        Kind::DoubleValue(double) => json!(double),
        Kind::IntegerValue(integer) => json!(integer),
        Kind::StringValue(text) => json!(text),
        Kind::BoolValue(boolean) => json!(boolean),
        Kind::StructValue(object) => {
            object.fields.iter().map(|(name, value)| (name.clone(), to_json(value))).collect()
        }
        Kind::ListValue(list) => list.values.iter().map(to_json).collect(),
    }
}

/// Returns the vectors of a point, by name.
fn vectors(point: &RetrievedPoint) -> BTreeMap<String, Vec<f32>> {
    let dense = |v: &VectorOutput| match v.clone().into_vector() {
        vector_output::Vector::Dense(dense) => dense.data,
        other => panic!("{other:?}"),
    };
    match point.vectors.as_ref().and_then(|v| v.vectors_options.as_ref()) {
        None => BTreeMap::new(),
        Some(VectorsOptions::Vector(v)) => BTreeMap::from([(String::new(), dense(v))]),
        Some(VectorsOptions::Vectors(named)) => {
            named.vectors.iter().map(|(name, v)| (name.clone(), dense(v))).collect()
        }
    }
}

fn assert_trouble(error: &DeliveryError, scope: ErrorScope, sqlstate: &str) {
    assert_eq!((error.scope, error.sqlstate.as_str()), (scope, sqlstate), "{error:?}");
}
