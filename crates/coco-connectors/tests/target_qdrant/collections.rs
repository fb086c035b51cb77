//! Collections: made, found and removed.

use coco_connectors::targets::Prepared;
use coco_core::change::ErrorScope;
use qdrant_client::qdrant::{CreateCollectionBuilder, Distance, VectorParamsBuilder};
use serde_json::{Value, json};

use super::{Server, assert_trouble, delete, doc, docs, schema};

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
