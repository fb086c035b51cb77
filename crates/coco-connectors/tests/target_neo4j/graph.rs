//! Rows as nodes and relationships: they come, change, move and go.

use coco_connectors::targets::Prepared::{Found, Made};
use serde_json::{Value, json};

use crate::neo4j::*;

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
