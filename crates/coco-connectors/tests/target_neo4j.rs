//! Tests of the Neo4j connector, against one Neo4j server that all tests here share.
#![cfg(feature = "neo4j")]

use std::time::Duration;

use crate::neo4j::*;
use coco_connectors::targets;
use coco_connectors::targets::Prepared::{Found, Made};
use coco_core::change::{DeliveryError, ErrorScope, TargetSchema};
use serde_json::{Value, json};

#[tokio::test]
async fn rows_become_nodes_change_and_go() {
    let server = shared().await;
    let schema = nodes("Book", &[("id", "integer"), ("title", "text"), ("pages", "integer")], &[0]);
    let mut target = server.open();
    assert_eq!(target.prepare(&schema).await, Ok(Made));
    let first = [
        put(&schema, json!({"id": 1, "title": "One", "pages": 10})),
        put(&schema, json!({"id": 2, "title": "Two", "pages": null})),
    ];
    for _ in 0..2 {
        assert_eq!(target.apply(&schema, &first).await, Ok(vec![]));
        assert_eq!(
            server.rows("MATCH (n:Book) RETURN [n.id, n.title, n.pages] AS v ORDER BY n.id").await,
            [json!([1, "One", 10]), json!([2, "Two", null])]
        );
    }
    // Properties without a column stay; null removes a property.
    server.run("MATCH (n:Book {id: 1}) SET n.shelf = 'A'").await;
    let second = [
        put(&schema, json!({"id": 1, "title": null, "pages": 11})),
        gone(json!({"id": 2})),
        gone(json!({"id": 3})),
    ];
    for _ in 0..2 {
        assert_eq!(target.apply(&schema, &second).await, Ok(vec![]));
        assert_eq!(
            server.rows("MATCH (n:Book) RETURN properties(n) AS v").await,
            [json!({"id": 1, "pages": 11, "shelf": "A"})]
        );
    }
}

#[tokio::test]
async fn a_target_is_made_or_found_and_removed() {
    let server = shared().await;
    let schema = nodes("Removed", &[("a", "text"), ("b", "integer"), ("c", "text")], &[1, 0]);
    let mut target = server.open();
    assert_eq!(target.remove(&schema).await, Ok(()), "nothing there is no error");
    assert_eq!(target.exists(&schema).await, Ok(false));
    assert_eq!(target.prepare(&schema).await, Ok(Made));
    let rows: Vec<_> =
        (0..2500).map(|b| put(&schema, json!({"a": "x", "b": b, "c": "y"}))).collect();
    assert_eq!(target.apply(&schema, &rows).await, Ok(vec![]));
    assert_eq!(server.open().exists(&schema).await, Ok(true));
    assert_eq!(server.open().prepare(&schema).await, Ok(Found));
    let constraints = "SHOW CONSTRAINTS YIELD labelsOrTypes, properties WHERE 'Removed' IN labelsOrTypes \
                       RETURN properties AS v";
    assert_eq!(server.rows(constraints).await, [json!(["a", "b"])]);
    for _ in 0..2 {
        assert_eq!(target.remove(&schema).await, Ok(()));
        assert_eq!(server.count("MATCH (n:Removed)").await, 0);
        assert!(server.rows(constraints).await.is_empty());
    }
    assert_eq!(server.open().prepare(&schema).await, Ok(Made));
}

#[tokio::test]
async fn a_label_of_its_own_and_nodes_that_are_there_already() {
    let server = shared().await;
    server.run("CREATE (:Author {name: 'Ann', born: 1960})").await;
    let mut schema = nodes("authors", &[("name", "text"), ("books", "integer")], &[0]);
    schema.options.insert("label".to_owned(), json!("Author"));
    let mut target = server.open();
    assert_eq!(target.prepare(&schema).await, Ok(Found));
    let rows = [put(&schema, json!({"name": "Ann", "books": 3}))];
    assert_eq!(target.apply(&schema, &rows).await, Ok(vec![]));
    assert_eq!(
        server.rows("MATCH (n:Author) RETURN properties(n) AS v").await,
        [json!({"name": "Ann", "born": 1960, "books": 3})]
    );
}

#[tokio::test]
async fn rows_become_relationships_move_and_go_with_ends_that_nothing_needs() {
    let server = shared().await;
    let schema =
        edges("Cites", "P", &[("id", "integer"), ("a", "text"), ("b", "text"), ("n", "integer")]);
    let mut target = server.open();
    assert_eq!(target.prepare(&schema).await, Ok(Made));
    server.run("CREATE (:PFrom {name: 'declared'})").await;
    let all = "MATCH (x)-[r:Cites]->(y) RETURN [x.name, y.name, properties(r)] AS v ORDER BY r.id";
    let ends = "MATCH (n:PFrom|PTo) RETURN [n.name, n:_CocoEndpoint] AS v ORDER BY v";
    let rows = [
        put(&schema, json!({"id": 1, "a": "x", "b": "y", "n": 7})),
        put(&schema, json!({"id": 2, "a": "x", "b": "z", "n": null})),
        put(&schema, json!({"id": 3, "a": "declared", "b": "z", "n": 9})),
    ];
    for _ in 0..2 {
        assert_eq!(target.apply(&schema, &rows).await, Ok(vec![]));
        assert_eq!(
            server.rows(all).await,
            [
                json!(["x", "y", {"id": 1, "n": 7}]),
                json!(["x", "z", {"id": 2}]),
                json!(["declared", "z", {"id": 3, "n": 9}])
            ]
        );
    }
    assert_eq!(
        server.rows(ends).await,
        [json!(["declared", false]), json!(["x", true]), json!(["y", true]), json!(["z", true])]
    );
    assert_eq!(server.open().prepare(&schema).await, Ok(Found));
    // 1 gets another end node and 3 another start node: y has no relationship left, and is deleted.
    let moved = [
        put(&schema, json!({"id": 1, "a": "x", "b": "w", "n": 8})),
        put(&schema, json!({"id": 3, "a": "x", "b": "z", "n": 9})),
    ];
    for _ in 0..2 {
        assert_eq!(target.apply(&schema, &moved).await, Ok(vec![]));
        assert_eq!(
            server.rows(all).await,
            [
                json!(["x", "w", {"id": 1, "n": 8}]),
                json!(["x", "z", {"id": 2}]),
                json!(["x", "z", {"id": 3, "n": 9}])
            ]
        );
    }
    // With deletes of the last relationships of z; x is still needed.
    let fewer = [gone(json!({"id": 2})), gone(json!({"id": 3}))];
    for _ in 0..2 {
        assert_eq!(target.apply(&schema, &fewer).await, Ok(vec![]));
        assert_eq!(
            server.rows(ends).await,
            [json!(["declared", false]), json!(["w", true]), json!(["x", true])]
        );
    }
    for _ in 0..2 {
        assert_eq!(target.remove(&schema).await, Ok(()));
        assert_eq!(server.rows(ends).await, [json!(["declared", false])], "no target made it");
    }
    assert_eq!(
        server.rows("SHOW CONSTRAINTS YIELD labelsOrTypes WHERE any(l IN labelsOrTypes WHERE l IN ['Cites', 'PTo']) RETURN labelsOrTypes AS v").await,
        [] as [Value; 0]
    );
}

/// The key identifies the end nodes, as in the user documentation.
#[tokio::test]
async fn a_relationship_may_be_named_by_its_ends() {
    let server = shared().await;
    let mut schema =
        edges("MENTIONS", "Q", &[("a", "integer"), ("b", "text"), ("count", "integer")]);
    schema.key = vec![0, 1];
    let mut target = server.open();
    target.prepare(&schema).await.expect("made");
    let rows: Vec<_> = (0..6)
        .map(|i| put(&schema, json!({"a": i % 2, "b": format!("e{}", i % 3), "count": i})))
        .collect();
    for _ in 0..2 {
        assert_eq!(target.apply(&schema, &rows).await, Ok(vec![]));
        assert_eq!(server.count("MATCH (:QFrom)-[r:MENTIONS]->(:QTo)").await, 6);
        assert_eq!(server.count("MATCH (n:QFrom|QTo)").await, 5);
    }
    let keys: Vec<_> =
        (0..6).map(|i| gone(json!({"a": i % 2, "b": format!("e{}", i % 3)}))).collect();
    assert_eq!(target.apply(&schema, &keys).await, Ok(vec![]));
    assert_eq!(server.count("MATCH (n:QFrom|QTo)").await, 0);
}

#[tokio::test]
async fn a_node_may_be_both_ends() {
    let server = shared().await;
    let mut schema = edges("KNOWS", "", &[("id", "integer"), ("a", "text"), ("b", "text")]);
    schema.options.insert("from".to_owned(), json!({"label": "Person", "key": {"a": "name"}}));
    schema.options.insert("to".to_owned(), json!({"label": "Person", "key": {"b": "name"}}));
    let mut target = server.open();
    target.prepare(&schema).await.expect("made");
    let rows = [
        put(&schema, json!({"id": 1, "a": "x", "b": "x"})),
        put(&schema, json!({"id": 2, "a": "y", "b": "x"})),
    ];
    for _ in 0..2 {
        assert_eq!(target.apply(&schema, &rows).await, Ok(vec![]));
        assert_eq!(server.count("MATCH (:Person)-[r:KNOWS]->(:Person)").await, 2);
        assert_eq!(server.count("MATCH (n:Person)").await, 2);
    }
    let turned = [put(&schema, json!({"id": 2, "a": "x", "b": "y"})), gone(json!({"id": 1}))];
    for _ in 0..2 {
        assert_eq!(target.apply(&schema, &turned).await, Ok(vec![]));
        assert_eq!(
            server.rows("MATCH (a)-[r:KNOWS]->(b) RETURN [a.name, b.name] AS v").await,
            [json!(["x", "y"])]
        );
    }
    assert_eq!(target.apply(&schema, &[gone(json!({"id": 2}))]).await, Ok(vec![]));
    assert_eq!(server.count("MATCH (n:Person)").await, 0);
}

#[tokio::test]
async fn nodes_and_relationships_share_nodes() {
    let server = shared().await;
    let mut docs = nodes("RFrom", &[("name", "text"), ("title", "text")], &[0]);
    let mentions = edges("R", "R", &[("id", "integer"), ("a", "text"), ("b", "text")]);
    let (mut node, mut edge) = (server.open(), server.open());
    edge.prepare(&mentions).await.expect("made");
    let rows = [put(&mentions, json!({"id": 1, "a": "d", "b": "e"}))];
    edge.apply(&mentions, &rows).await.expect("applied");
    assert_eq!(node.prepare(&docs).await, Ok(Made), "ends alone are no rows");
    // No row has created the node yet, so there is no node to delete.
    assert_eq!(node.apply(&docs, &[gone(json!({"name": "d"}))]).await, Ok(vec![]));
    assert_eq!(server.count("MATCH (:RFrom)-[r:R]->(:RTo)").await, 1);
    // A row adopts the node, which then remains without the relationship.
    let row = [put(&docs, json!({"name": "d", "title": "Doc"}))];
    assert_eq!(node.apply(&docs, &row).await, Ok(vec![]));
    assert_eq!(server.count("MATCH (n:RFrom) WHERE n:_CocoEndpoint").await, 0);
    let away = [gone(json!({"id": 1}))];
    assert_eq!(edge.apply(&mentions, &away).await, Ok(vec![]));
    assert_eq!(
        server.rows("MATCH (n:RFrom|RTo) RETURN properties(n) AS v").await,
        [json!({"name": "d", "title": "Doc"})]
    );
    // The node is deleted with its relationships and the end nodes that only they needed, whichever
    // target comes first.
    edge.apply(&mentions, &rows).await.expect("applied");
    let both = [gone(json!({"name": "d"}))];
    for _ in 0..2 {
        assert_eq!(node.apply(&docs, &both).await, Ok(vec![]));
        assert_eq!(edge.apply(&mentions, &away).await, Ok(vec![]));
        assert_eq!(server.count("MATCH (n:RFrom|RTo)").await, 0);
    }
    // Removing a target keeps the end nodes of another target.
    edge.apply(&mentions, &rows).await.expect("applied");
    assert_eq!(node.remove(&docs).await, Ok(()));
    assert_eq!(server.count("MATCH (:RFrom)-[r:R]->(:RTo)").await, 1);
    let constrained =
        "SHOW CONSTRAINTS YIELD labelsOrTypes WHERE 'RFrom' IN labelsOrTypes RETURN 1 AS v";
    assert_eq!(server.rows(constrained).await.len(), 1);
    docs.flow = "other".to_owned();
    assert_eq!(node.prepare(&docs).await, Ok(Made));
}

#[tokio::test]
async fn values_are_what_their_types_say() {
    let server = shared().await;
    let columns = [
        ("id", "bigint", json!(9007199254740993_i64), "INTEGER NOT NULL"),
        ("float", "double precision", json!(3), "FLOAT NOT NULL"),
        ("price", "numeric(10,2)", json!(1.5), "FLOAT NOT NULL"),
        ("flag", "boolean", json!(true), "BOOLEAN NOT NULL"),
        ("texts", "text[]", json!(["a", "ü"]), "LIST<STRING NOT NULL> NOT NULL"),
        ("vector", "vector(3)", json!("[1,2.5,-3]"), "LIST<FLOAT NOT NULL> NOT NULL"),
        ("map", "jsonb", json!({"a": [1, "b"]}), "STRING NOT NULL"),
        ("mixed", "jsonb", json!([1, "b"]), "STRING NOT NULL"),
        (
            "zoned",
            "timestamp with time zone",
            json!("2024-05-06T07:08:09.123456+02:00"),
            "ZONED DATETIME NOT NULL",
        ),
        (
            "local",
            "timestamp without time zone",
            json!("2024-05-06T07:08:09"),
            "LOCAL DATETIME NOT NULL",
        ),
        ("day", "date", json!("2024-05-06"), "DATE NOT NULL"),
        ("clock", "time without time zone", json!("07:08:09"), "LOCAL TIME NOT NULL"),
        ("nothing", "text", Value::Null, "NULL"),
    ];
    let named: Vec<_> = columns.iter().map(|c| (c.0, c.1)).collect();
    let mut schema = nodes("Typed", &named, &[0]);
    schema.options.insert("temporal".to_owned(), json!(true));
    let row: serde_json::Map<_, _> =
        columns.iter().map(|c| (c.0.to_owned(), c.2.clone())).collect();
    let mut target = server.open();
    target.prepare(&schema).await.expect("made");
    for _ in 0..2 {
        assert_eq!(target.apply(&schema, &[put(&schema, row.clone().into())]).await, Ok(vec![]));
    }
    for (name, _, _, expected) in &columns {
        let found = server.rows(&format!("MATCH (n:Typed) RETURN valueType(n.{name}) AS v")).await;
        assert_eq!(found, [json!(expected)], "{name}");
    }
    assert_eq!(
        server
            .rows(
                "MATCH (n:Typed) RETURN [toString(n.id), toString(n.zoned), toString(n.local), \
                 toString(n.day), toString(n.clock), n.map, toString(n.vector[1])] AS v"
            )
            .await,
        [json!([
            "9007199254740993",
            "2024-05-06T07:08:09.123456+02:00",
            "2024-05-06T07:08:09",
            "2024-05-06",
            "07:08:09",
            "{\"a\":[1,\"b\"]}",
            "2.5"
        ])]
    );
    schema.options.clear();
    assert_eq!(target.apply(&schema, &[put(&schema, row.into())]).await, Ok(vec![]));
    assert_eq!(
        server.rows("MATCH (n:Typed) RETURN n.day AS v").await,
        [json!("2024-05-06")],
        "text unless asked for"
    );
}

#[tokio::test]
async fn odd_names_are_names() {
    let server = shared().await;
    for (place, odd) in [
        "with space",
        "a`b",
        "``",
        r"a\u0060b",
        r"a\\u0060 x",
        "`) DETACH DELETE n //",
        "'\"$x",
        "größe 数",
        "a\nb",
    ]
    .into_iter()
    .enumerate()
    {
        let label = format!("{odd}{place}");
        let schema = nodes(&label, &[(odd, "text"), ("o", "text")], &[0]);
        let mut target = server.open();
        assert_eq!(target.prepare(&schema).await, Ok(Made), "{odd}");
        let rows = [put(&schema, json!({odd: odd, "o": odd}))];
        assert_eq!(target.apply(&schema, &rows).await, Ok(vec![]), "{odd}");
        let found = "MATCH (n) WHERE $label IN labels(n) RETURN properties(n) AS v";
        let with = [("label", label.as_str())];
        assert_eq!(server.rows_with(found, &with).await, [json!({odd: odd, "o": odd})], "{odd}");

        let mut edge = edges(&label, "Odd", &[(odd, "text"), ("a", "text"), ("b", "text")]);
        for (end, column) in [("from", "a"), ("to", "b")] {
            edge.options.insert(end.to_owned(), json!({"label": label, "key": {column: odd}}));
        }
        edge.options.insert("type".to_owned(), json!(label));
        assert_eq!(target.prepare(&edge).await, Ok(Made), "{odd}");
        let rows = [put(&edge, json!({odd: odd, "a": odd, "b": "other"}))];
        assert_eq!(target.apply(&edge, &rows).await, Ok(vec![]), "{odd}");
        let kinds = "MATCH ()-[r]->() WHERE type(r) = $label RETURN properties(r) AS v";
        assert_eq!(server.rows_with(kinds, &with).await, [json!({odd: odd})], "{odd}");
        assert_eq!(target.remove(&edge).await, Ok(()), "{odd}");
        assert_eq!(target.remove(&schema).await, Ok(()), "{odd}");
        assert!(server.rows_with(found, &with).await.is_empty(), "{odd}");
    }
}

#[tokio::test]
async fn a_row_that_is_refused_keeps_no_other_back() {
    let server = shared().await;
    let schema = nodes("Checked", &[("id", "text"), ("mail", "text"), ("n", "numeric")], &[0]);
    let mut target = server.open();
    target.prepare(&schema).await.expect("made");
    server.run("CREATE CONSTRAINT mails FOR (n:Checked) REQUIRE n.mail IS UNIQUE").await;
    server.run("CREATE (:Checked {id: 'first', mail: 'taken'}), (:Checked {id: 'old'})").await;
    let mut changes: Vec<_> = (0..100)
        .map(|i| put(&schema, json!({"id": format!("r{i}"), "mail": format!("m{i}"), "n": i})))
        .collect();
    changes[3] = put(&schema, json!({"id": null, "mail": "m3", "n": 1}));
    changes[40] = put(&schema, json!({"id": "r40", "mail": "taken", "n": 1}));
    changes[41] = put(&schema, json!({"id": "x".repeat(40_000), "mail": "m41", "n": 1}));
    changes[99] =
        raw(r#"{"id": "r99"}"#, r#"{"id": "r99", "mail": "m", "n": 0.12345678901234567890}"#);
    changes.push(gone(json!({"id": "old"})));
    for _ in 0..2 {
        let rejected = target.apply(&schema, &changes).await.expect("no trouble");
        let found: Vec<_> = rejected.iter().map(|r| (r.change, r.sqlstate.as_str())).collect();
        assert_eq!(found, [(3, "23502"), (40, "23505"), (41, "54000"), (99, "22003")]);
        assert!(rejected[0].message.contains("\"id\""), "{}", rejected[0].message);
        assert!(rejected[1].message.contains("taken"), "{}", rejected[1].message);
        assert_eq!(server.count("MATCH (n:Checked)").await, 97);
        assert_eq!(server.count("MATCH (n:Checked {id: 'old'})").await, 0);
    }
    // An end node without a name is also an error of the row.
    let edge = edges("Halved", "H", &[("id", "integer"), ("a", "text"), ("b", "text")]);
    target.prepare(&edge).await.expect("made");
    let rows = [
        put(&edge, json!({"id": 1, "a": "x", "b": null})),
        put(&edge, json!({"id": 2, "a": "x", "b": "y"})),
    ];
    let rejected = target.apply(&edge, &rows).await.expect("no trouble");
    assert_eq!((rejected.len(), rejected[0].change), (1, 0));
    assert_eq!(server.count("MATCH (:HFrom)-[r:Halved]->(:HTo)").await, 1);
}

#[tokio::test]
async fn a_large_batch_arrives_and_goes() {
    let server = shared().await;
    let schema = nodes("Large", &[("id", "integer"), ("text", "text")], &[0]);
    let edge = edges("LARGE", "Large", &[("id", "integer"), ("a", "integer"), ("b", "integer")]);
    let limits = targets::connector("coco_neo4j").expect("in this build").batch;
    let text = "x".repeat(limits.bytes / limits.changes);
    let rows: Vec<_> =
        (0..limits.changes).map(|i| put(&schema, json!({"id": i, "text": text}))).collect();
    let mut target = server.open();
    target.prepare(&schema).await.expect("made");
    target.prepare(&edge).await.expect("made");
    assert_eq!(target.apply(&schema, &rows).await, Ok(vec![]));
    assert_eq!(server.count("MATCH (n:Large)").await, 1000);
    let rows: Vec<_> =
        (0..5000).map(|i| put(&edge, json!({"id": i, "a": i % 70, "b": i % 30}))).collect();
    assert_eq!(target.apply(&edge, &rows).await, Ok(vec![]));
    assert_eq!(server.count("MATCH (:LargeFrom)-[r:LARGE]->(:LargeTo)").await, 5000);
    let keys: Vec<_> = (0..5000).map(|i| gone(json!({"id": i}))).collect();
    assert_eq!(target.apply(&edge, &keys).await, Ok(vec![]));
    assert_eq!(server.count("MATCH (n:LargeFrom|LargeTo)").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_write_the_same_ends_at_a_time_make_each_once() {
    let server = shared().await;
    let schema =
        |kind: &str| edges(kind, "Both", &[("id", "integer"), ("a", "integer"), ("b", "integer")]);
    server.open().prepare(&schema("B0")).await.expect("made");
    let writers: Vec<_> = (0..4)
        .map(|w| {
            let (mut target, schema) = (server.open(), schema(&format!("B{w}")));
            tokio::spawn(async move {
                target.prepare(&schema).await.expect("made");
                // In different orders, so that the transactions deadlock.
                for round in 0..5 {
                    let each = |i: i64| {
                        let i = if w % 2 == 0 { i } else { 199 - i };
                        put(&schema, json!({"id": i, "a": i % 20, "b": (i + round) % 20}))
                    };
                    let rows: Vec<_> = (0..200).map(each).collect();
                    // Retries like the dispatcher, as long as others interfere.
                    let mut applied = target.apply(&schema, &rows).await;
                    for _ in 0..20 {
                        match applied {
                            Err(error) if error.sqlstate == "40P01" => {
                                applied = target.apply(&schema, &rows).await;
                            }
                            _ => break,
                        }
                    }
                    assert_eq!(applied, Ok(vec![]));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    assert_eq!(server.count("MATCH (n:BothFrom|BothTo)").await, 40);
    assert_eq!(server.count("MATCH (:BothFrom)-[r:B0|B1|B2|B3]->(:BothTo)").await, 800);
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_without_the_password() {
    let server = shared().await;
    let schema = nodes("Locked", &[("id", "integer")], &[0]);
    server
        .run_on(
            "system",
            "CREATE OR REPLACE USER guest SET PASSWORD 'guest-password' CHANGE NOT REQUIRED",
        )
        .await;
    server
        .run_on(
            "system",
            "CREATE OR REPLACE USER fresh SET PASSWORD 'fresh-password' CHANGE REQUIRED",
        )
        .await;
    let attempt = async |user: &str, password: &str| -> DeliveryError {
        let mut target = server.open_with(&[], user, password);
        let error = target.prepare(&schema).await.expect_err("not let in");
        let said = format!("{error:?}");
        assert!(!said.contains(password), "{said}");
        assert_eq!(error.scope, ErrorScope::Server);
        assert!(error.hint.is_some());
        error
    };
    for user in ["guest", "nobody"] {
        assert_eq!(attempt(user, "not-the-password").await.sqlstate, "28P01");
    }
    assert_eq!(attempt("fresh", "fresh-password").await.sqlstate, "28P01");
    // The third failed login of a user in a row locks the user out, with any password.
    let mut last = attempt("guest", "not-the-password").await;
    for _ in 0..5 {
        last = attempt("guest", "not-the-password").await;
    }
    assert_eq!((last.sqlstate.as_str(), last.retry_after), ("28000", Some(Duration::from_secs(5))));
}

#[tokio::test]
async fn a_database_that_is_not_there_is_the_targets_trouble() {
    let server = shared().await;
    let schema = nodes("Nowhere", &[("id", "integer")], &[0]);
    let mut target = server.open_with(&[("database", "nowhere")], USER, &server.password);
    let error = target.prepare(&schema).await.expect_err("no such database");
    assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Target, "3D000"));
    assert_eq!(target.remove(&schema).await, Ok(()));
    let mut target = server.open_with(&[("database", "neo4j")], USER, &server.password);
    assert_eq!(target.prepare(&schema).await, Ok(Made));
}

#[tokio::test]
async fn what_a_key_cannot_be_made_of_is_the_targets_trouble() {
    let server = shared().await;
    server.run("CREATE (:Twice {id: 1}), (:Twice {id: 1})").await;
    let schema = nodes("Twice", &[("id", "integer")], &[0]);
    let error = server.open().prepare(&schema).await.expect_err("no key");
    assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Target, "23505"));
    server.run("CREATE INDEX in_the_way FOR (n:Indexed) ON (n.id)").await;
    let schema = nodes("Indexed", &[("id", "integer")], &[0]);
    let error = server.open().prepare(&schema).await.expect_err("an index in the way");
    assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Target, "42P07"));
    assert!(error.hint.is_some());
    // A constraint of the user is sufficient, and stays.
    server.run("CREATE CONSTRAINT mine FOR (n:Own) REQUIRE n.id IS UNIQUE").await;
    let schema = nodes("Own", &[("id", "integer")], &[0]);
    let mut target = server.open();
    assert_eq!(target.prepare(&schema).await, Ok(Made));
    assert_eq!(target.remove(&schema).await, Ok(()));
    let left =
        "SHOW CONSTRAINTS YIELD name, labelsOrTypes WHERE 'Own' IN labelsOrTypes RETURN name AS v";
    assert_eq!(server.rows(left).await, [json!("mine")]);
}

#[tokio::test]
async fn connections_are_encrypted_and_the_server_is_verified() {
    let server = shared().await;
    let schema = nodes("Secret", &[("id", "integer")], &[0]);
    let url = server.url.replace("bolt://", "bolt+s://");
    let with = |options: &[(&str, &str)]| server.open_with(options, USER, &server.password);
    let mut target = with(&[("url", &url), ("sslrootcert", &server.certificate)]);
    assert_eq!(target.prepare(&schema).await, Ok(Made));
    assert_eq!(target.apply(&schema, &[put(&schema, json!({"id": 1}))]).await, Ok(vec![]));
    let other = certificate().0;
    for mut target in [with(&[("url", &url)]), with(&[("url", &url), ("sslrootcert", &other)])] {
        let error = target.prepare(&schema).await.expect_err("not trusted");
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08001"));
        assert!(error.hint.expect("a hint").contains("sslrootcert"));
    }
    let Err(error) = server.try_open(&[("sslrootcert", &server.certificate)]) else {
        panic!("certificates that nothing is done with");
    };
    assert!(error.message.contains("sslrootcert"));
}

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

#[test]
fn options_that_do_not_fit_are_refused() {
    let connector = targets::connector("coco_neo4j").expect("in this build");
    let check = |name: &str, value: &str| {
        let spec = connector.options.iter().find(|s| s.name == name);
        (spec.unwrap_or_else(|| panic!("no option {name}")).check)(value)
    };
    for (name, good) in [
        ("url", "bolt+s://graph.example.com:7687"),
        ("database", "neo4j"),
        ("connect_timeout", "5"),
        ("request_timeout", "600"),
        ("sslrootcert", &certificate().0),
        ("kind", "relationship"),
        ("label", "A label"),
        ("type", "A`type"),
        ("temporal", "true"),
        ("from", r#"{"label": "A", "key": {"a": "id", "b": "tenant"}}"#),
    ] {
        assert_eq!(check(name, good), Ok(()), "{name} {good}");
    }
    for (name, bad) in [
        ("url", "http://h:7474"),
        ("url", "bolt://neo4j:geheim@h"),
        ("database", ""),
        ("connect_timeout", "0"),
        ("request_timeout", "soon"),
        ("sslrootcert", "/etc/passwd"),
        ("kind", "edge"),
        ("label", ""),
        ("type", ""),
        ("temporal", "1"),
        ("from", "Document"),
        ("to", "{}"),
    ] {
        let wrong = check(name, bad).expect_err(bad);
        assert!(!wrong.contains("geheim"), "{wrong}");
    }
    let secrets = connector.options.iter().filter(|s| s.secret).map(|s| s.name);
    assert_eq!(secrets.collect::<Vec<_>>(), ["password"]);
    let mut schema = edges("T", "T", &[("id", "integer"), ("a", "text"), ("b", "text")]);
    assert_eq!((connector.check)(&schema), Ok(()));
    schema.options.insert("to".to_owned(), json!({"label": "X", "key": {"other": "name"}}));
    assert!((connector.check)(&schema).expect_err("no such column").contains("\"other\""));
}
