//! Access to a server: passwords, databases, encryption and options.

use std::time::Duration;

use coco_connectors::targets;
use coco_connectors::targets::Prepared::Made;
use coco_core::change::{DeliveryError, ErrorScope};
use serde_json::json;

use crate::neo4j::*;

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
