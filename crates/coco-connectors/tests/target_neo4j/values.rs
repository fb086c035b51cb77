//! Values, names, rows that are refused, and large batches.

use coco_connectors::targets;
use coco_connectors::targets::Prepared::Made;
use serde_json::{Value, json};

use crate::neo4j::*;

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
