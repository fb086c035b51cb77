//! Rows as points: their payload, vectors and keys.

use std::collections::BTreeMap;

use coco_connectors::targets::Prepared;
use coco_core::change::{Change, Values};
use qdrant_client::qdrant::{GetPointsBuilder, PointId, Query, QueryPointsBuilder};
use serde_json::{Value, json};

use super::{Server, delete, doc, docs, payload, qdrant, schema, upsert, vectors};

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
