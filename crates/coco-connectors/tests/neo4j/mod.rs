//! The shared server of the tests of the Neo4j connector, and helpers that create changes.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::OnceLock;

use neo4rs::{ConfigBuilder, Graph, query};
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::scripted::{Scripted, said_of};
use coco_connectors::targets::options::{Access, Options};
use coco_connectors::targets::{self, Target};
use coco_core::change::{Change, Column, DeliveryError, TargetSchema, Values};

pub const USER: &str = "neo4j";

/// A server that [`scripts/servers/neo4j.sh`] has started.
pub struct Server {
    pub url: String,
    pub password: String,
    /// The server's certificate, as PEM text.
    pub certificate: String,
}

static SERVER: OnceLock<RwLock<Server>> = OnceLock::new();

/// Returns the running server. Other tests use it at the same time.
pub async fn shared() -> RwLockReadGuard<'static, Server> {
    SERVER.get_or_init(Server::new).read().await
}

/// Returns the server exclusively, for a test that stops it or slows it down.
pub async fn alone() -> RwLockWriteGuard<'static, Server> {
    SERVER.get_or_init(Server::new).write().await
}

/// A static is never dropped. This function runs after all tests, whether they passed or not.
extern "C" fn at_exit() {
    script().end();
}

// SAFETY: as C's library declares it.
#[allow(unsafe_code)] // nothing else runs at a process's end
unsafe extern "C" {
    safe fn atexit(function: extern "C" fn()) -> i32;
}

fn script() -> &'static Scripted {
    static SCRIPT: OnceLock<Scripted> = OnceLock::new();
    SCRIPT.get_or_init(|| Scripted::new("neo4j"))
}

impl Server {
    fn new() -> RwLock<Server> {
        let tls = script().dir.join("tls");
        std::fs::create_dir_all(&tls).expect("a directory");
        let (certificate, key) = certificate();
        std::fs::write(tls.join("public.crt"), &certificate).expect("written");
        std::fs::write(tls.join("private.key"), key).expect("written");
        atexit(at_exit);
        let said = script().run("start", &[]);
        let url = said_of(&said, "url");
        RwLock::new(Server { url, password: said_of(&said, "password"), certificate })
    }

    pub fn start(&self) {
        script().run("start", &[]);
    }

    /// Stops the server like a crash.
    pub fn halt(&self) {
        script().run("halt", &[]);
    }

    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(script().dir.join("pid")).expect("its process id");
        let status = Command::new("kill").arg(signal).arg(pid.trim()).status().expect("kill");
        assert!(status.success());
    }

    /// Opens a target with the server's default options.
    pub fn open(&self) -> Box<dyn Target> {
        self.open_with(&[], USER, &self.password)
    }

    pub fn open_with(
        &self,
        server: &[(&str, &str)],
        user: &str,
        password: &str,
    ) -> Box<dyn Target> {
        self.try_open_as(server, user, password).unwrap_or_else(|t| panic!("{t:?}"))
    }

    pub fn try_open(&self, server: &[(&str, &str)]) -> Result<Box<dyn Target>, DeliveryError> {
        self.try_open_as(server, USER, &self.password)
    }

    fn try_open_as(
        &self,
        server: &[(&str, &str)],
        user: &str,
        password: &str,
    ) -> Result<Box<dyn Target>, DeliveryError> {
        let options = |given: &[(&str, &str)]| {
            Options(given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let mut server_options = options(&[("url", &self.url)]);
        server_options.0.extend(options(server).0);
        let user = options(&[("user", user), ("password", password)]);
        let connector = targets::connector("coco_neo4j").expect("in this build");
        connector.connect(Access { server: server_options, user, trusted: false })
    }

    fn graph(&self, database: &str) -> Graph {
        let config = ConfigBuilder::default()
            .uri(&self.url)
            .user(USER)
            .password(self.password.as_str())
            .db(database);
        Graph::connect(config.build().expect("a configuration")).expect("a graph")
    }

    pub async fn run(&self, cypher: &str) {
        self.run_on("neo4j", cypher).await;
    }

    pub async fn run_on(&self, database: &str, cypher: &str) {
        self.graph(database).run(query(cypher)).await.unwrap_or_else(|e| panic!("{cypher}: {e}"));
    }

    /// Returns the column `v` of all rows.
    pub async fn rows(&self, cypher: &str) -> Vec<Value> {
        self.rows_with(cypher, &[]).await
    }

    pub async fn rows_with(&self, cypher: &str, parameters: &[(&str, &str)]) -> Vec<Value> {
        let with = parameters.iter().fold(query(cypher), |q, (name, value)| q.param(name, *value));
        let graph = self.graph("neo4j");
        let mut rows = graph.execute(with).await.unwrap_or_else(|e| panic!("{cypher}: {e}"));
        let mut all = Vec::new();
        while let Some(row) = rows.next().await.unwrap_or_else(|e| panic!("{cypher}: {e}")) {
            all.push(row.get("v").unwrap_or_else(|e| panic!("{cypher}: {e}")));
        }
        all
    }

    /// Returns the number of matches of a pattern.
    pub async fn count(&self, pattern: &str) -> i64 {
        let counted = self.rows(&format!("{pattern} RETURN count(*) AS v")).await;
        counted.first().and_then(Value::as_i64).expect("a number")
    }
}

/// Returns a self-signed certificate for this machine, and its key, as PEM text.
pub fn certificate() -> (String, String) {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Returns the URL of a server that answers each connection with these bytes, and closes it.
pub fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = url(&listener);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            stream.read_exact(&mut [0; 20]).ok();
            stream.write_all(bytes).ok();
        }
    });
    url
}

/// Returns the URL of a server that accepts connections, and sends nothing.
pub fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = url(&listener);
    std::mem::forget(listener);
    url
}

/// Returns a URL at which no server listens.
pub fn nobody() -> String {
    url(&TcpListener::bind("127.0.0.1:0").expect("a port"))
}

fn url(listener: &TcpListener) -> String {
    format!("bolt://{}", listener.local_addr().expect("an address"))
}

/// Returns the schema of a target of nodes, from columns with their types.
pub fn nodes(label: &str, columns: &[(&str, &str)], key: &[usize]) -> TargetSchema {
    let column = |(name, type_name): &(&str, &str)| Column {
        name: (*name).to_owned(),
        type_schema: "pg_catalog".to_owned(),
        type_name: (*type_name).to_owned(),
    };
    TargetSchema {
        flow: "flow".to_owned(),
        target: label.to_owned(),
        columns: columns.iter().map(column).collect(),
        key: key.to_vec(),
        options: serde_json::Map::new(),
    }
}

/// Returns the schema of a target of relationships from `{ends}From {name: a}` to `{ends}To {name:
/// b}`. Its key is the first column.
pub fn edges(kind: &str, ends: &str, columns: &[(&str, &str)]) -> TargetSchema {
    let mut schema = nodes(kind, columns, &[0]);
    let options = json!({
        "kind": "relationship",
        "from": {"label": format!("{ends}From"), "key": {"a": "name"}},
        "to": {"label": format!("{ends}To"), "key": {"b": "name"}},
    });
    schema.options = options.as_object().expect("an object").clone();
    schema
}

/// Returns an upsert of a row.
pub fn put(schema: &TargetSchema, row: Value) -> Change {
    let key: serde_json::Map<_, _> =
        schema.key_columns().map(|c| (c.name.clone(), row[&c.name].clone())).collect();
    raw(&Value::from(key).to_string(), &row.to_string())
}

/// Like [`put`], for JSON text with numbers that `Value` cannot represent.
pub fn raw(key: &str, row: &str) -> Change {
    let (key, row) = (Values::Json(key.to_owned()), Values::Json(row.to_owned()));
    Change { key, row: Some(row), version: 1 }
}

/// Returns a delete of a row.
pub fn gone(key: Value) -> Change {
    Change { key: Values::Json(key.to_string()), row: None, version: 1 }
}
