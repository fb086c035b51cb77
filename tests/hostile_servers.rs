//! Servers that mean harm: what they send is bounded, and shows no secret, whatever it is.
//!
//! Each server is a script over a socket. What real servers do is in the suites of the connectors.
#![cfg(feature = "connectors")]

#[path = "support/hostile.rs"]
mod hostile;

#[path = "hostile_servers/bolt.rs"]
mod bolt;
#[path = "hostile_servers/http.rs"]
mod http;
#[path = "hostile_servers/postgres.rs"]
mod postgres;
#[path = "hostile_servers/qdrant.rs"]
mod qdrant;

use coco_connectors::{providers, targets};
use coco_core as engine;
use engine::change::{Column, DeliveryError, RejectedChange, TargetSchema};
use engine::options::{Access, Options};
use targets::Prepared;

/// Long enough to be masked in all its forms, with what URLs, JSON, HTML and SQL write otherwise.
const SECRET: &str = "p4ss/w%rd\"é'&";

/// The forms that servers repeat it in.
fn forms() -> Vec<String> {
    vec![
        SECRET.to_owned(),
        serde_json::to_string(SECRET).expect("JSON"),
        "p4ss%2Fw%25rd%22%C3%A9%27%26".to_owned(),
        "p4ss/w%rd&quot;é&#39;&amp;".to_owned(),
        // user:p4ss/w%rd"é'&
        "dXNlcjpwNHNzL3clcmQiw6knJg==".to_owned(),
    ]
}

/// Fails where a part of the secret is shown that shows what it is.
fn shows_no_secret(error: &DeliveryError) {
    let all = format!("{} {:?} {:?}", error.message, error.detail, error.hint);
    for part in ["p4ss", "NHNzL3clcm", "rd%22", "rd&quot"] {
        assert!(!all.contains(part), "{part} in {all}");
    }
    for text in [Some(&error.message), error.detail.as_ref(), error.hint.as_ref()] {
        assert!(text.is_none_or(|text| text.len() < 2100), "{all}");
        assert!(text.is_none_or(|text| !text.contains('\0')), "{all}");
    }
    assert_eq!(error.sqlstate.len(), 5, "{}", error.sqlstate);
}

fn options(pairs: &[(&str, &str)]) -> Options {
    Options(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
}

fn access(server: &[(&str, &str)], user: &[(&str, &str)]) -> Access {
    Access { server: options(server), user: options(user), trusted: true }
}

fn schema() -> TargetSchema {
    let column = |name: &str, type_name: &str| Column {
        name: name.to_owned(),
        type_schema: "pg_catalog".to_owned(),
        type_name: type_name.to_owned(),
    };
    TargetSchema {
        flow: "f".to_owned(),
        target: "docs".to_owned(),
        columns: vec![column("id", "integer"), column("body", "text")],
        key: vec![0],
        options: serde_json::Map::new(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Prepares a target, as the first thing that is asked of a server.
fn prepare(
    connector: &str,
    access: Access,
    schema: &TargetSchema,
) -> Result<Prepared, DeliveryError> {
    let connector = targets::connector(connector).expect("in this build");
    runtime().block_on(async { connector.connect(access)?.prepare(schema).await })
}

/// Applies changes to a target that was not prepared.
fn apply(
    connector: &str,
    access: Access,
    schema: &TargetSchema,
    changes: &[engine::change::Change],
) -> Result<Vec<RejectedChange>, DeliveryError> {
    let connector = targets::connector(connector).expect("in this build");
    runtime().block_on(async { connector.connect(access)?.apply(schema, changes).await })
}
