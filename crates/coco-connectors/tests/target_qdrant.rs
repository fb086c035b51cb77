//! Tests of the Qdrant connector through its trait, against Qdrant's engine and protocol (see
//! `scripts/servers/qdrant/server.py`). The tests read the points with Qdrant's own client.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use crate::scripted::Scripted;
use coco_connectors::targets::options::{Access, OptionScope, Options};
use coco_connectors::targets::{Connector, Prepared, Target, connector};
use coco_core::change::{
    Change, Column, DeliveryError, ErrorScope, RejectedChange, TargetSchema, Values,
};
use qdrant_client::Qdrant;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::{
    CountPointsBuilder, CreateCollectionBuilder, Distance, GetPointsBuilder, PointId, Query,
    QueryPointsBuilder, RetrievedPoint, ScrollPointsBuilder, VectorOutput, VectorParamsBuilder,
    vector_output,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

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

#[test]
fn points_are_made_updated_and_deleted_and_it_can_all_be_done_again() {
    let server = Server::start(&[]);
    let schema = docs();
    let mut target = server.target();
    server.block_on(async {
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        let both = [doc(1, "one"), doc(2, "two")];
        assert_eq!(target.apply(&schema, &both).await, Ok(vec![]));
        // The same changes again.
        assert_eq!(target.apply(&schema, &both).await, Ok(vec![]));
    });
    let points = server.points("docs");
    assert_eq!(points.len(), 2);
    assert_eq!(points["1"].id, Some(PointId::from(1)));
    assert_eq!(payload(&points["1"]), json!({"id": 1, "title": "one"}));
    assert_eq!(vectors(&points["1"])[""], [0.6, 0.0, 0.8]);

    let changes = [
        upsert(&schema, &json!({"id": 1, "title": null, "e": "[0,1,0]"})),
        delete(&schema, &json!({"id": 2})),
        doc(3, "three"),
        // A missing point.
        delete(&schema, &json!({"id": 4})),
    ];
    for _ in 0..2 {
        server.block_on(async {
            // Another connection finds the collection that the first has created.
            let mut target = server.target();
            assert_eq!(target.prepare(&schema).await, Ok(Prepared::Found));
            assert_eq!(target.apply(&schema, &changes).await, Ok(vec![]));
            assert_eq!(target.apply(&schema, &[]).await, Ok(vec![]));
        });
        let points = server.points("docs");
        assert_eq!(points.keys().collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(payload(&points["1"]), json!({"id": 1, "title": null}));
        assert_eq!(vectors(&points["1"])[""], [0.0, 1.0, 0.0]);
    }
}

#[test]
fn what_has_arrived_is_found_by_similarity() {
    let server = Server::start(&[]);
    let schema = docs();
    server.prepare(&schema);
    let rows = [(1, "[1,0,0]"), (2, "[0,1,0]"), (3, "[0.8,0.6,0]")];
    let rows = rows.map(|(id, e)| upsert(&schema, &json!({"id": id, "title": "t", "e": e})));
    assert_eq!(server.apply(&schema, &rows), Ok(vec![]));
    let query = QueryPointsBuilder::new("docs")
        .query(Query::new_nearest(vec![1.0, 0.1, 0.0]))
        .limit(2)
        .with_payload(true);
    let found = server.block_on(server.client().query(query)).expect("points").result;
    let ids: Vec<String> = found.iter().map(|point| point.payload["id"].to_string()).collect();
    assert_eq!(ids, ["1", "3"]);
}

#[test]
fn values_of_all_kinds_are_payload() {
    let server = Server::start(&[]);
    let columns = [
        ("id", "text"),
        ("n", "numeric"),
        ("f", "double precision"),
        ("b", "boolean"),
        ("j", "jsonb"),
        ("a", "text[]"),
        ("t", "timestamp with time zone"),
        ("e", "vector(3)"),
    ];
    let schema = schema("kinds", 1, &columns, Value::Null);
    server.prepare(&schema);
    // At the maximum depth, and at the maximum depth of protocol buffers.
    let deep = (0..29).fold(json!(1), |inner, _| json!({ "in": inner }));
    let row = json!({
        "id": "ünï\n\"code\"", "n": 12.5, "f": 1e300, "b": true,
        "j": {"deep": deep, "null": null, "": i64::MIN}, "a": ["x", null],
        "t": "2024-02-29T12:00:00+00:00", "e": "[0,0,1]",
    });
    assert_eq!(server.apply(&schema, &[upsert(&schema, &row)]), Ok(vec![]));
    let points = server.points("kinds");
    let mut expected = row;
    expected.as_object_mut().expect("an object").remove("e");
    assert_eq!(payload(points.values().next().expect("a point")), expected);
}

#[test]
fn several_vectors_have_names_and_can_be_missing() {
    let server = Server::start(&[]);
    let columns = [("id", "integer"), ("e", "halfvec(2)"), ("f", "real[]"), ("g", "real[]")];
    let named = json!({
        "f": {"size": 3, "distance": "euclid", "name": "l'été 数"},
        "e": {"distance": "dot"},
    });
    let schema = schema("named", 1, &columns, named);
    assert_eq!((qdrant().check)(&schema), Ok(()));
    server.prepare(&schema);
    let first = [
        upsert(&schema, &json!({"id": 1, "e": "[1,2]", "f": [1, 2, 3], "g": [1, 2]})),
        upsert(&schema, &json!({"id": 2, "e": null, "f": [1.5, 2, 3], "g": null})),
        upsert(&schema, &json!({"id": 3, "e": null, "f": null, "g": null})),
    ];
    assert_eq!(server.apply(&schema, &first), Ok(vec![]));
    let points = server.points("named");
    let both = [("e".to_owned(), vec![1.0, 2.0]), ("l'été 数".to_owned(), vec![1.0, 2.0, 3.0])];
    assert_eq!(vectors(&points["1"]), BTreeMap::from(both));
    assert_eq!(
        vectors(&points["2"]),
        BTreeMap::from([("l'été 数".to_owned(), vec![1.5, 2.0, 3.0])])
    );
    assert_eq!(vectors(&points["3"]), BTreeMap::new());
    // An array that the option vectors does not name is part of the payload.
    assert_eq!(payload(&points["1"]), json!({"id": 1, "g": [1, 2]}));

    // A vector that becomes NULL is removed.
    let second = upsert(&schema, &json!({"id": 1, "e": "[3,4]", "f": null, "g": null}));
    assert_eq!(server.apply(&schema, &[second]), Ok(vec![]));
    let points = server.points("named");
    assert_eq!(vectors(&points["1"]), BTreeMap::from([("e".to_owned(), vec![3.0, 4.0])]));
}

#[test]
fn a_key_of_several_columns_names_its_point() {
    let server = Server::start(&[]);
    let columns = [("id", "text"), ("n", "bigint"), ("e", "vector(1)")];
    let schema = schema("pairs", 2, &columns, Value::Null);
    server.prepare(&schema);
    let row = |n| json!({"id": "Köln", "n": n, "e": "[1]"});
    let rows = [upsert(&schema, &row(7)), upsert(&schema, &row(-8))];
    assert_eq!(server.apply(&schema, &rows), Ok(vec![]));
    // uuid.uuid5(uuid.UUID("aede6d9d-0fd9-4091-b8e4-e949801c3db2"), '["Köln",7]') in Python
    let id = PointId::from("31248dba-72ed-5f68-b230-2b4af1030467");
    let get = || GetPointsBuilder::new("pairs", vec![id.clone()]).with_payload(true);
    let found = server.block_on(server.client().get_points(get())).expect("points").result;
    assert_eq!(payload(&found[0]), json!({"id": "Köln", "n": 7}));
    assert_eq!(server.apply(&schema, &[delete(&schema, &row(7))]), Ok(vec![]));
    assert!(server.block_on(server.client().get_points(get())).expect("none").result.is_empty());
    assert_eq!(server.points("pairs").len(), 1);
}

#[test]
fn odd_names_are_names() {
    let server = Server::start(&[]);
    let columns = [("id", "uuid"), (" 'x\"; -- ", "text"), ("ñ.[0]", "text"), ("数", "vector(1)")];
    let name = "it's a 'données' collection 数 %20";
    let schema = schema(name, 1, &columns, Value::Null);
    assert_eq!(server.prepare(&schema), Prepared::Made);
    assert_eq!(server.prepare(&schema), Prepared::Found);
    let id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let row = json!({"id": id, " 'x\"; -- ": "a", "ñ.[0]": "b", "数": "[1]"});
    assert_eq!(server.apply(&schema, &[upsert(&schema, &row)]), Ok(vec![]));
    let points = server.points(name);
    let point = points.values().next().expect("a point");
    assert_eq!(point.id, Some(PointId::from(id)));
    assert_eq!(payload(point), json!({"id": id, " 'x\"; -- ": "a", "ñ.[0]": "b"}));
    assert_eq!(server.block_on(server.target().remove(&schema)), Ok(()));
    assert_eq!(server.prepare(&schema), Prepared::Made);
}

#[test]
fn what_was_made_is_removed_and_nothing_is_no_error() {
    let server = Server::start(&[]);
    let schema = docs();
    let is_there = || server.block_on(server.target().exists(&schema));
    assert_eq!((is_there(), is_there()), (Ok(false), Ok(false)));
    server.prepare(&schema);
    assert_eq!(is_there(), Ok(true));
    assert_eq!(server.block_on(server.target().remove(&schema)), Ok(()));
    let exists = server.block_on(server.client().collection_exists("docs"));
    assert!(!exists.expect("an answer"));
    assert_eq!(server.block_on(server.target().remove(&schema)), Ok(()));
    // The collection is missing, which is not an error of the server.
    for change in [doc(1, "one"), delete(&schema, &json!({"id": 1}))] {
        assert_trouble(
            &server.apply(&schema, &[change]).expect_err("lost"),
            ErrorScope::Target,
            "HV00R",
        );
    }
}

#[test]
fn a_collection_that_does_not_fit_is_left_alone() {
    let server = Server::start(&[]);
    let client = server.client();
    let make = |name: &str, size, distance| {
        let vectors = VectorParamsBuilder::new(size, distance);
        let request = CreateCollectionBuilder::new(name).vectors_config(vectors);
        server.block_on(client.create_collection(request)).expect("a collection");
    };
    make("larger", 4, Distance::Cosine);
    make("dot", 3, Distance::Dot);
    make("fits", 3, Distance::Cosine);
    let prepare = |name: &str, options: Value| {
        let columns = [("id", "bigint"), ("e", "vector(3)")];
        server.block_on(server.target().prepare(&schema(name, 1, &columns, options)))
    };
    for (name, options, says) in [
        ("larger", Value::Null, "has 4 dimensions, the column has 3"),
        ("dot", Value::Null, "is Dot, not Cosine"),
        ("fits", json!({"e": {"name": "n"}}), "has no vector \"n\", but unnamed vector"),
    ] {
        let error = prepare(name, options).expect_err(name);
        assert_trouble(&error, ErrorScope::Target, "42804");
        assert!(error.detail.as_deref().is_some_and(|d| d.contains(says)), "{error:?}");
        assert!(error.hint.is_some());
    }
    assert_eq!(prepare("dot", json!({"e": {"distance": "dot"}})), Ok(Prepared::Found));
    assert_eq!(prepare("fits", Value::Null), Ok(Prepared::Found));
}

#[test]
fn a_collection_that_was_made_anew_otherwise_refuses_no_rows() {
    let server = Server::start(&[]);
    let schema = docs();
    let mut target = server.target();
    server.block_on(target.prepare(&schema)).expect("a collection");
    let client = server.client();
    server.block_on(client.delete_collection("docs")).expect("deleted");
    let vectors = VectorParamsBuilder::new(4, Distance::Cosine);
    let request = CreateCollectionBuilder::new("docs").vectors_config(vectors);
    server.block_on(client.create_collection(request)).expect("a collection");
    let applied = server.block_on(target.apply(&schema, &[doc(1, "one"), doc(2, "two")]));
    assert_trouble(&applied.expect_err("it does not fit"), ErrorScope::Target, "42804");
}

#[test]
fn rows_that_cannot_be_points_do_not_keep_others_back() {
    let server = Server::start(&[]);
    let columns = [("id", "bigint"), ("n", "jsonb"), ("e", "vector(3)")];
    let schema = schema("docs", 1, &columns, Value::Null);
    server.prepare(&schema);
    let row = |id: i64, n: Value, e: Value| upsert(&schema, &json!({"id": id, "n": n, "e": e}));
    let good = "[1,0,0]";
    let too_deep = (0..31).fold(json!(1), |inner, _| json!([inner]));
    let raw = |text: &str| Values::Json(text.to_owned());
    let changes = [
        row(0, json!(0), json!(good)),
        row(1, json!(1), json!("[1,0]")),
        row(2, json!(2), Value::Null),
        row(3, too_deep, json!(good)),
        Change {
            row: Some(raw(r#"{"id":4,"n":12345678901234567890123,"e":"[1,0,0]"}"#)),
            ..row(4, json!(4), json!(good))
        },
        Change { row: Some(raw("{")), ..row(5, json!(5), json!(good)) },
        row(6, json!("poison"), json!(good)),
        row(7, json!(7), json!(good)),
        delete(&schema, &json!({"id": 8})),
    ];
    server.faults(json!({"Upsert": {"poison": "poison"}}));
    let rejected = server.apply(&schema, &changes).expect("the others arrive");
    let rejected: Vec<(usize, &str)> =
        rejected.iter().map(|r| (r.change, r.sqlstate.as_str())).collect();
    let expected =
        [(1, "22000"), (2, "23502"), (3, "54000"), (4, "22003"), (5, "22030"), (6, "22023")];
    assert_eq!(rejected, expected);
    assert_eq!(server.ids("docs"), ["0", "7"]);
}

#[test]
fn points_that_the_server_refuses_are_found_by_halving() {
    let server = Server::start(&[]);
    let schema = docs();
    server.prepare(&schema);
    let changes: Vec<Change> = (0..64)
        .map(|id| doc(id, if [0, 40, 41].contains(&id) { "poison" } else { "good" }))
        .collect();
    server.faults(json!({"Upsert": {"poison": "poison"}}));
    let rejected = server.apply(&schema, &changes).expect("the others arrive");
    let mut places: Vec<usize> = rejected.iter().map(|r| r.change).collect();
    places.sort_unstable();
    assert_eq!(places, [0, 40, 41]);
    assert!(rejected.iter().all(|r| r.message.contains("poisoned")), "{rejected:?}");
    let arrived = server.done("Upsert");
    assert_eq!(arrived.iter().sum::<usize>(), 61);
    assert!(arrived.len() < 20, "{arrived:?}");
}

#[test]
fn a_large_batch_is_one_request() {
    let server = Server::start(&[]);
    let columns = [("id", "bigint"), ("body", "text"), ("e", "vector(384)")];
    let schema = schema("large", 1, &columns, Value::Null);
    server.prepare(&schema);
    let component = |id: i64, n: i64| ((id * 7 + n * 13) % 1000) as f64 / 1000.0 - 0.5;
    let changes: Vec<Change> = (0..1000)
        .map(|id| {
            let e: Vec<String> = (0..384).map(|n| component(id, n).to_string()).collect();
            let e = format!("[{}]", e.join(","));
            upsert(&schema, &json!({"id": id, "body": "word ".repeat(800), "e": e}))
        })
        .collect();
    let bytes: usize = changes.iter().filter_map(|c| Some(c.row.as_ref()?.bytes())).sum();
    assert!(bytes > 5 << 20, "more than gRPC takes by default");
    assert_eq!(server.apply(&schema, &changes), Ok(vec![]));
    assert_eq!(server.done("Upsert"), [1000]);
    assert_eq!(server.points("large").len(), 1000);
    let keys: Vec<Change> = (0..1000).map(|id| delete(&schema, &json!({"id": id}))).collect();
    assert_eq!(server.apply(&schema, &keys), Ok(vec![]));
    assert_eq!(server.points("large").len(), 0);
}

#[test]
fn who_has_no_key_or_a_wrong_one_is_not_let_in_and_no_message_has_it() {
    let server = Server::start(&["--api-key", KEY]);
    let schema = docs();
    let prepare = |user: &[(&str, &str)]| {
        let mut target = open(access(&[("url", &server.url)], user)).expect("a target");
        server.block_on(target.prepare(&schema))
    };
    let none = prepare(&[]).expect_err("no key");
    assert_trouble(&none, ErrorScope::Server, "28000");
    // The server repeats the key.
    let wrong = prepare(&[("api_key", "wr0ng-secret")]).expect_err("a wrong key");
    assert_trouble(&wrong, ErrorScope::Server, "28000");
    assert!(wrong.message.contains("Invalid API key ***"), "{wrong:?}");
    assert!(wrong.hint.as_deref().is_some_and(|h| h.contains("USER MAPPING")));
    assert!(!format!("{wrong:?}").contains("wr0ng-secret"));
    assert_eq!(prepare(&[("api_key", KEY)]), Ok(Prepared::Made));
}

#[test]
fn who_is_no_superuser_must_have_a_key() {
    let untrusted = |user: &[(&str, &str)]| {
        let access = access(&[("url", "http://127.0.0.1")], user);
        open(Access { trusted: false, ..access })
    };
    let Err(none) = untrusted(&[]) else { panic!("let in") };
    assert_trouble(&none, ErrorScope::Server, "28000");
    assert!(untrusted(&[("api_key", KEY)]).is_ok());
}

#[test]
fn a_server_that_was_down_has_what_it_had_and_gets_what_it_missed() {
    let mut server = Server::start(&[]);
    let schema = docs();
    server.prepare(&schema);
    let mut target = server.target();
    assert_eq!(server.block_on(target.apply(&schema, &[doc(1, "one")])), Ok(vec![]));
    server.down();
    let two = [doc(2, "two")];
    // On the existing connection, and on a new one.
    let over_old = server.block_on(target.apply(&schema, &two)).expect_err("it is down");
    assert_eq!(over_old.scope, ErrorScope::Server, "{over_old:?}");
    let over_new = server.apply(&schema, &two).expect_err("it is down");
    assert_trouble(&over_new, ErrorScope::Server, "08001");
    let detail = over_new.detail.as_deref().unwrap_or_default();
    assert!(detail.contains("Connection refused"), "{over_new:?}");
    server.up(&[]);
    assert_eq!(server.prepare(&schema), Prepared::Found);
    assert_eq!(server.apply(&schema, &two), Ok(vec![]));
    assert_eq!(server.ids("docs"), ["1", "2"]);
}

#[test]
fn a_slow_server_is_waited_for_as_long_as_is_said() {
    let server = Server::start(&[]);
    let schema = docs();
    server.prepare(&schema);
    let apply = |timeout: &str| {
        let access = access(&[("url", &server.url), ("request_timeout", timeout)], &[]);
        let mut target = open(access).expect("a target");
        server.block_on(target.apply(&schema, &[doc(1, "one")]))
    };
    server.faults(json!({"Upsert": {"delay": 3}}));
    let error = apply("1").expect_err("it answers later");
    assert_trouble(&error, ErrorScope::Server, "57014");
    assert!(error.hint.as_deref().is_some_and(|h| h.contains("request_timeout")));
    assert_eq!(apply("60"), Ok(vec![]));
    assert_eq!(server.ids("docs"), ["1"]);
    // Both were sent once: coco does not repeat a request that timed out by itself, whether it was
    // processed or not.
    assert!(server.done("Upsert").len() <= 2);
}

#[test]
fn what_was_applied_in_part_is_applied_again() {
    let mut server = Server::start(&[]);
    let schema = docs();
    server.prepare(&schema);
    assert_eq!(server.apply(&schema, &[doc(9, "nine")]), Ok(vec![]));
    let mut changes: Vec<Change> = (1..=8).map(|id| doc(id, "new")).collect();
    changes.push(delete(&schema, &json!({"id": 9})));
    // The points are written, and the deleted one still exists.
    server.faults(json!({"Delete": {"code": "INTERNAL", "message": "disk on fire"}}));
    let error = server.apply(&schema, &changes).expect_err("in part");
    assert_trouble(&error, ErrorScope::Server, "HV000");
    assert!(error.message.contains("disk on fire"));
    assert_eq!(server.ids("docs").len(), 9);
    // The server ends with three of the points written.
    let changed: Vec<Change> = (1..=8).map(|id| doc(id, "newer")).collect();
    let changes = [changed, vec![delete(&schema, &json!({"id": 9}))]].concat();
    server.faults(json!({"Upsert": {"die_after": 3}}));
    let error = server.apply(&schema, &changes).expect_err("it died");
    assert_eq!(error.scope, ErrorScope::Server, "{error:?}");
    server.faults(json!({}));
    server.up(&[]);
    let newer = |point: &&RetrievedPoint| payload(point)["title"] == "newer";
    assert_eq!(server.points("docs").values().filter(newer).count(), 3);
    assert_eq!(server.apply(&schema, &changes), Ok(vec![]));
    let points = server.points("docs");
    assert_eq!(points.values().filter(newer).count(), 8);
    assert_eq!(points.len(), 8);
}

#[test]
fn what_the_server_says_of_itself_is_told_apart() {
    let server = Server::start(&[]);
    let schema = docs();
    server.prepare(&schema);
    let apply = |faults: Value| {
        server.faults(json!({ "Upsert": faults }));
        server.apply(&schema, &[doc(1, "one")]).expect_err("a fault")
    };
    let limited = apply(json!({
        "code": "RESOURCE_EXHAUSTED", "message": "rate limit", "metadata": {"retry-after": "7"},
    }));
    assert_trouble(&limited, ErrorScope::Server, "53400");
    assert_eq!(limited.retry_after, Some(Duration::from_secs(7)));
    let busy = apply(json!({"code": "UNAVAILABLE", "message": "starting"}));
    assert_trouble(&busy, ErrorScope::Server, "57P03");
    let late = apply(json!({"code": "DEADLINE_EXCEEDED", "message": "late"}));
    assert_trouble(&late, ErrorScope::Server, "57014");
    let locked = apply(json!({"code": "FAILED_PRECONDITION", "message": "locked for writes"}));
    assert_trouble(&locked, ErrorScope::Server, "55000");
    // Without an error, but without a reliable effect either.
    let waits = apply(json!({"status": "WaitTimeout"}));
    assert_trouble(&waits, ErrorScope::Server, "57P03");
    assert!(waits.message.contains("WaitTimeout"));
    // The collection limits the number of points per request.
    server.faults(json!({"Upsert": {"code": "INVALID_ARGUMENT", "message": "batch", "times": 1}}));
    assert_eq!(server.apply(&schema, &[doc(1, "one"), doc(2, "two")]), Ok(vec![]));
    assert_eq!(server.ids("docs"), ["1", "2"]);
}

#[test]
fn over_tls_the_certificate_is_checked() {
    let server = Server::start(&["--tls", "--api-key", KEY]);
    assert!(server.url.starts_with("https://"));
    let schema = docs();
    let prepare = |options: &[(&str, &str)]| {
        let mut target = open(access(options, &[("api_key", KEY)])).expect("a target");
        server.block_on(target.prepare(&schema))
    };
    let authority =
        std::fs::read_to_string(server.script.dir.join("ca.pem")).expect("a certificate");
    let url = server.url.as_str();
    assert_eq!(prepare(&[("url", url), ("sslrootcert", &authority)]), Ok(Prepared::Made));
    // The certificate belongs to another server.
    let address = url.replace("localhost", "127.0.0.1");
    let error = prepare(&[("url", &address), ("sslrootcert", &authority)]).expect_err("a name");
    assert_trouble(&error, ErrorScope::Server, "08001");
    // The system trusts no issuer of the certificate.
    let unknown = open(access(&[("url", url)], &[("api_key", KEY)]))
        .and_then(|mut target| server.block_on(target.prepare(&schema)));
    assert_eq!(unknown.expect_err("not trusted").scope, ErrorScope::Server);
}

#[test]
fn what_is_no_qdrant_is_the_servers_trouble() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 1024]);
            let _ =
                stream.write_all(b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let runtime = Runtime::new().expect("a runtime");
    let mut target = open(access(&[("url", &url)], &[])).expect("a target");
    let error = runtime.block_on(target.prepare(&docs())).expect_err("no Qdrant");
    // How far the request gets before the connection closes is random.
    let sqlstate = if error.sqlstate == "08001" { "08001" } else { "08006" };
    assert_trouble(&error, ErrorScope::Server, sqlstate);
    assert!(error.hint.as_deref().is_some_and(|h| h.contains("6334")), "{error:?}");
}

#[test]
fn options_are_checked_one_by_one() {
    let wrong = |name: &str, value: &str| {
        let spec = qdrant().options.iter().find(|spec| spec.name == name).expect(name);
        (spec.check)(value).expect_err(value)
    };
    for url in ["localhost:6334", "grpc://localhost", "http://user:pw@localhost", "http://h/x"] {
        assert!(!wrong("url", url).contains("pw"));
    }
    for seconds in ["0", "-1", "1.5", "soon"] {
        wrong("request_timeout", seconds);
        wrong("connect_timeout", seconds);
    }
    wrong("sslrootcert", "/etc/passwd");
    wrong("sslrootcert", "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n");
    assert!(!wrong("api_key", "s3cret\n").contains("s3cret"));
    wrong("vectors", "[]");
    wrong("vectors", r#"{"e": {"distance": "l2"}}"#);

    let secrets: Vec<&str> =
        qdrant().options.iter().filter(|spec| spec.secret).map(|spec| spec.name).collect();
    assert_eq!(secrets, ["api_key"]);
    assert!(
        qdrant().options.iter().all(|spec| !spec.secret || spec.scope == OptionScope::UserMapping)
    );

    let plain = [("url", "http://localhost"), ("sslrootcert", "x")];
    let Err(error) = open(access(&plain, &[])) else { panic!("no TLS to use it for") };
    assert_trouble(&error, ErrorScope::Server, "HV024");
    let check = (qdrant().check)(&schema("t", 1, &[("id", "text"), ("b", "text")], Value::Null));
    assert!(check.expect_err("no vector").contains("no column is a vector"));
}
