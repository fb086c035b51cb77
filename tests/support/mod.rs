//! A database of a test's own on the test server, and what a test asks coco there.
#![allow(dead_code)] // each file of tests uses a part

pub mod document;
pub mod server;

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use postgres::{Client, Config, Error, NoTls};

/// What `coco.update` says of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub source: String,
    pub seen: i64,
    pub skipped: i64,
    pub unchanged: i64,
    pub evaluated: i64,
    pub upserted: i64,
    pub deleted: i64,
    pub failed: i64,
}

/// A fresh database with the extension; dropped at the end.
pub struct TestDb {
    name: String,
    pub client: Client,
}

impl TestDb {
    /// A database of this name is dropped first: give each test a name of its own.
    pub fn new(name: &str) -> TestDb {
        let name = format!("coco_test_{name}");
        belongs_to_this_test(&name);
        let mut server = connect(server());
        execute(&mut server, &format!("drop database if exists \"{name}\" with (force)"));
        let template = template_database(&mut server);
        execute(&mut server, &format!("create database \"{name}\" template \"{template}\""));
        let client = connect(server_database(&name));
        TestDb { name, client }
    }

    /// Another connection to the same database.
    pub fn connect(&self) -> Client {
        connect(server_database(&self.name))
    }

    /// Another connection to the same database, whose notices and warnings go to `hear`.
    pub fn connect_hearing(&self, hear: impl Fn(String) + Send + Sync + 'static) -> Client {
        let mut config = server_database(&self.name);
        config.notice_callback(move |n| hear(n.message().to_owned()));
        connect(config)
    }

    /// Another connection to the same database, as that role.
    pub fn connect_as(&self, role: &str) -> Client {
        connect(server_database(&self.name).user(role))
    }

    /// This database as a connection string, for programs of the server.
    pub fn url(&self) -> String {
        let server = std::env::var("COCO_TEST_URL").unwrap_or_default();
        let rest: Vec<&str> =
            server.split_whitespace().filter(|p| !p.starts_with("dbname=")).collect();
        format!("{} dbname={}", rest.join(" "), self.name)
    }

    /// Statements whose results do not matter.
    pub fn run(&mut self, sql: &str) {
        execute(&mut self.client, sql);
    }

    pub fn update(&mut self, flow: &str, mode: &str) -> Vec<Counts> {
        update(&mut self.client, flow, mode).unwrap_or_else(|e| panic!("update: {}", explain(&e)))
    }

    /// Fails where `coco.verify` finds a difference.
    pub fn verify_clean(&mut self, flow: &str) {
        let found = verify(&mut self.client, flow, false)
            .unwrap_or_else(|e| panic!("verify: {}", explain(&e)));
        assert!(found.is_empty(), "coco.verify of {flow} finds:\n{}", found.join("\n"));
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        // A test that failed has said why; a second panic would hide it.
        if let Ok(mut server) = server().connect(NoTls) {
            let drop = format!("drop database if exists \"{}\" with (force)", self.name);
            if let Err(e) = server.batch_execute(&drop) {
                eprintln!("{drop}: {}", explain(&e));
            }
        }
    }
}

/// A database with the extension and nothing else: a copy of it is there sooner than the extension is created. Each process
/// of tests makes one, of the extension that is installed now.
fn template_database(server: &mut Client) -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = format!("coco_template_{}", std::process::id());
        execute(server, &format!("drop database if exists \"{name}\""));
        // Not template1: anybody connected to it would be in the way.
        execute(server, &format!("create database \"{name}\" template template0"));
        execute(&mut connect(server_database(&name)), "create extension coco");
        // Nobody who is connected to it may be in the way of a copy.
        execute(server, &format!("alter database \"{name}\" allow_connections false"));
        name
    })
}

/// Fails where another test of this binary has a database of this name: they may run at the same time.
fn belongs_to_this_test(database: &str) {
    static TESTS: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);
    // A test's thread has the test's name.
    let Some(test) = std::thread::current().name().map(str::to_owned) else { return };
    let mut tests = TESTS.lock().unwrap_or_else(|e| e.into_inner());
    let tests = tests.get_or_insert_default();
    let first = tests.entry(database.to_owned()).or_insert_with(|| test.clone()).clone();
    assert_eq!(first, test, "two tests have a database {database}");
}

/// A row per source.
pub fn update(client: &mut Client, flow: &str, mode: &str) -> Result<Vec<Counts>, Error> {
    let rows = client.query("select * from coco.update($1, $2)", &[&flow, &mode])?;
    Ok(rows
        .iter()
        .map(|r| Counts {
            source: r.get("source"),
            seen: r.get("seen"),
            skipped: r.get("skipped"),
            unchanged: r.get("unchanged"),
            evaluated: r.get("evaluated"),
            upserted: r.get("upserted"),
            deleted: r.get("deleted"),
            failed: r.get("failed"),
        })
        .collect())
}

/// A line for each difference that `coco.verify` returns; items that fail are none.
pub fn verify(client: &mut Client, flow: &str, repair: bool) -> Result<Vec<String>, Error> {
    let sql = "select concat_ws(' ', target, difference, key) from coco.verify($1, $2)
                where difference <> 'failing' order by 1";
    Ok(client.query(sql, &[&flow, &repair])?.iter().map(|r| r.get(0)).collect())
}

/// An error with all that the server said of it.
pub fn explain(error: &Error) -> String {
    match error.as_db_error() {
        None => error.to_string(),
        Some(e) => format!(
            "{} ({}) detail: {} hint: {} context: {}",
            e.message(),
            e.code().code(),
            e.detail().unwrap_or("-"),
            e.hint().unwrap_or("-"),
            e.where_().unwrap_or("-"),
        ),
    }
}

/// A connection to another database of the test server.
pub fn connect_to(database: &str) -> Client {
    connect(server_database(database))
}

/// The same, if it is there.
pub fn try_connect_to(database: &str) -> Option<Client> {
    server_database(database).connect(NoTls).ok()
}

fn server() -> Config {
    let url = std::env::var("COCO_TEST_URL").unwrap_or_else(|_| {
        panic!("COCO_TEST_URL names no server: run `make test`, which starts one and sets it")
    });
    url.parse().unwrap_or_else(|e| panic!("COCO_TEST_URL ({url}): {e}"))
}

fn server_database(name: &str) -> Config {
    let mut config = server();
    config.dbname(name);
    config
}

fn connect(config: impl std::borrow::Borrow<Config>) -> Client {
    config
        .borrow()
        .connect(NoTls)
        .unwrap_or_else(|e| panic!("no connection to the test server: {}", explain(&e)))
}

fn execute(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
}
