//! Documents say what happens: their examples are run in order, each document's in a server of its
//! own that preloads coco, and what they show is compared.
//!
//! A block of SQL is run by psql, and the block without a language that follows it is what psql prints
//! in the end; `…` in it stands for what varies (`support/document.rs`). Where a document needs servers,
//! those of the test suite stand in for the addresses it shows. There cypher, python and kcat, with
//! which it looks at them, are run too. `<!-- not run: why -->` marks a block that is not.
#![cfg(feature = "connectors")]

use crate::{http, provider, scripted, server, support};

use std::path::Path;
use std::process::Command;

use http::Receiver;
use neo4rs::{ConfigBuilder, Graph, query};
use provider::Provider;
use scripted::{Scripted, said_of};
use serde_json::Value;
use support::document::{Block, is_as_shown, parse, path_of, psql_in, run};
use support::server::Server;

/// A server that a document needs.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// Of embeddings: a real one.
    Model,
    /// Of embeddings and generated text, made up.
    Models,
    /// One's own, which takes JSON and answers JSON.
    Service,
    Postgres,
    Qdrant,
    Neo4j,
    Kafka,
    Webhooks,
}

use Need::{Kafka, Model, Models, Neo4j, Postgres, Qdrant, Service, Webhooks};

/// How many blocks may be marked as not run, in all documents.
const NOT_RUN_AT_MOST: usize = 3;

macro_rules! documents {
    ($($name:ident: $path:literal $(, $need:expr)*;)*) => {
        const RUN: &[&str] = &[$($path),*];
        $(#[test]
        fn $name() {
            Running::new(&[$($need),*]).runs($path);
        })*
    };
}

documents! {
    readme: "README.md", Model;
    quick_start: "docs/quick-start.md";
    concepts: "docs/concepts.md";
    how_an_update_works: "docs/how-an-update-works.md";
    recipes: "docs/recipes.md";
    search: "docs/search.md", Model;
    coming_from: "docs/coming-from.md", Models;
    changing_a_flow: "docs/changing-a-flow.md";
    expectations: "docs/expectations.md";
    operations: "docs/operations.md";
    security: "docs/security.md";
    troubleshooting: "docs/troubleshooting.md";
    internals_query: "docs/internals/query.md";
    connectors: "docs/connectors.md", Postgres, Qdrant, Neo4j, Kafka, Webhooks;
    functions: "docs/functions.md", Models, Service;
    example_search: "examples/search/README.md", Model;
    example_catalogue: "examples/catalogue-qdrant/README.md", Model, Qdrant;
    example_orders: "examples/orders-kafka/README.md", Kafka;
    example_graph: "examples/graph-neo4j/README.md", Neo4j;
    example_aggregates: "examples/aggregates/README.md";
    sql_reference: "docs/sql-reference.md";
}

/// Run by tests of their own, which say more of what comes there.
const RUN_ELSEWHERE: &[&str] = &["crates/coco-connectors/src/targets/"];

#[test]
fn every_document_is_run() {
    let mut not_run = Vec::new();
    let mut unknown = Vec::new();
    for document in documents() {
        let blocks = parse(&document);
        let has_sql = blocks.iter().any(|block| block.language == "sql");
        let known = RUN.contains(&document.as_str())
            || RUN_ELSEWHERE.iter().any(|folder| document.starts_with(folder));
        if has_sql && !known {
            unknown.push(document.clone());
        }
        for Block { line, language, not_run: reason, .. } in blocks {
            assert!(
                language.is_empty() || language.chars().all(|c| c.is_ascii_alphanumeric()),
                "{document}:{line}: \"{language}\" is no language: a block is run, or marked"
            );
            not_run.extend(reason.map(|reason| format!("{document}:{line}: {reason}")));
        }
    }
    assert!(unknown.is_empty(), "in no test: {unknown:?}");
    assert!(not_run.len() <= NOT_RUN_AT_MOST, "{}", not_run.join("\n"));
}

#[test]
fn what_is_shown_is_compared() {
    let said = " a | when\n---+-------\n 1 | 10:00\n 2 | 11:00\n";
    assert!(is_as_shown(said, " a | when\n---+-------\n 1 | 10:00\n 2 | 11:00"));
    assert!(is_as_shown(said, " 2 | 11:00"));
    assert!(!is_as_shown(said, " 1 | 10:00"));
    assert!(is_as_shown(said, " a | when\n---+------\n 1 | …\n 2 | 11:…"));
    assert!(is_as_shown(said, " a | when\n…\n 2 | 11:00"));
    assert!(!is_as_shown(said, " a | when\n---+------\n 1 | …\n 2 | 12:…"));
    assert!(!is_as_shown(said, " b | when\n…"));
    let void = "WARNING:  so\n start \n-------\n \n\n a\n---\n 1\n\n";
    assert!(is_as_shown(void, "WARNING:  so\n a\n---\n 1"));
    assert!(!is_as_shown(" a \n---\n 2\n", " a\n---\n"));
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let path = path_of(&document);
        let folder = path.parent().expect("a folder");
        let text = std::fs::read_to_string(&path).expect("a document");
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = match file.is_empty() {
                true => path.clone(),
                false => folder.join(file),
            };
            let found = to.exists()
                && (anchor.is_empty()
                    || std::fs::read_to_string(&to).is_ok_and(|text| has_heading(&text, anchor)));
            if !found {
                wrong.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A promise that docs/reliability.md makes is held by tests, which exist.
#[test]
fn each_promise_names_tests_that_exist() {
    let text = std::fs::read_to_string(path_of("docs/reliability.md")).expect("a document");
    let mut wrong = Vec::new();
    let promises =
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise"));
    for promise in promises {
        let spans = promise.split('`').skip(1).step_by(2);
        let tests: Vec<_> = spans.filter_map(|span| span.split_once("::")).collect();
        let known = |(file, test): &(&str, &str)| match *file {
            "tests/sql/cases.rs" => path_of(&format!("tests/cases/{test}.sql")).exists(),
            // Tests of property.rs are made by a macro, out of names and shapes.
            file => std::fs::read_to_string(path_of(file)).is_ok_and(|code| {
                code.contains(&format!("fn {test}()")) || code.contains(&format!("    {test}: \""))
            }),
        };
        if tests.is_empty() || !tests.iter().all(known) {
            wrong.push(promise);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The links of a document to other files of the project, and within it.
fn links(text: &str) -> Vec<&str> {
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let targets = ends.map(|(to, _)| to);
    targets.filter(|to| !to.contains("://") && !to.contains(char::is_whitespace)).collect()
}

/// Whether a heading has this anchor, as GitHub makes them.
fn has_heading(text: &str, anchor: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| line.trim_start_matches('#').trim()).any(|heading| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).eq(anchor.chars())
    })
}

/// All that the project has.
fn documents() -> Vec<String> {
    let root = path_of("");
    let mut found = vec!["README.md".to_owned()];
    for folder in ["docs", "examples", "src", "crates"] {
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "md") {
                    let path = path.strip_prefix(&root).expect("below the root");
                    found.push(path.display().to_string());
                }
            }
        }
    }
    found
}

/// The server that a document's examples are run on, and what stands in for those it shows.
struct Running {
    server: Server,
    /// What is shown, what it is here, and whether it has to be shown.
    stand_ins: Vec<(&'static str, String, bool)>,
    neo4j: Option<Graph>,
    runtime: tokio::runtime::Runtime,
    /// Kept until the end.
    others: Vec<Box<dyn std::any::Any>>,
}

const SECRET: &str = "it's-a-l0ng-s3cr3t";

impl Running {
    fn new(needs: &[Need]) -> Running {
        let server = Server::preloaded(&["max_prepared_transactions = 5"]);
        server.connect("postgres").run("create database docs template template0");
        let mut running = Running {
            server,
            stand_ins: Vec::new(),
            neo4j: None,
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
            others: Vec::new(),
        };
        for need in needs {
            running.provide(*need);
        }
        running
    }

    fn provide(&mut self, need: Need) {
        let owner = std::process::id().to_string();
        match need {
            Model => {
                let script = Scripted::new("embeddings");
                let url = script.run("start", &["--while", &owner]);
                self.stands("http://localhost:11434/v1", url);
                self.others.push(Box::new(script));
            }
            Models => {
                let provider = Provider::start();
                provider.dimensions(384);
                self.stands("http://localhost:11434/v1", provider.url());
                self.others.push(Box::new(provider));
            }
            Service => {
                let provider = Provider::start();
                self.stands("http://localhost:8080", provider.url().replace("/v1", ""));
                self.others.push(Box::new(provider));
            }
            Postgres => {
                let there = Server::start(&[]);
                let mut session = there.connect("postgres");
                session.run("create role coco login");
                session.run("create database warehouse owner coco");
                let address = format!("host '{}', port '5432'", there.directory().display());
                self.stands("host 'localhost', port '5433'", address);
                self.stands("(user 'coco', password '…')", "(user 'coco')".to_owned());
                self.others.push(Box::new(there));
            }
            Qdrant => {
                let script = Scripted::new("qdrant");
                let url = script.run("start", &["--api-key", SECRET, "--while", &owner]);
                let port = url.rsplit(':').next().unwrap_or_default().to_owned();
                self.stands("http://localhost:6334", url);
                self.stands("api_key '…'", format!("api_key '{}'", SECRET.replace('\'', "''")));
                // As a client has them.
                self.may_stand("grpc_port=6334", format!("grpc_port={port}"));
                self.may_stand("api_key=\"…\"", format!("api_key=\"{SECRET}\""));
                self.others.push(Box::new(script));
            }
            Neo4j => {
                let script = Scripted::new("neo4j");
                let said = script.run("start", &[]);
                let (url, password) = (said_of(&said, "url"), said_of(&said, "password"));
                let config =
                    ConfigBuilder::default().uri(&url).user("neo4j").password(password.as_str());
                let config = config.build().expect("a configuration");
                let graph = Graph::connect(config).expect("a graph");
                self.neo4j = Some(graph);
                self.stands("bolt://localhost:7687", url);
                self.stands(
                    "user 'neo4j', password '…'",
                    format!("user 'neo4j', password '{password}'"),
                );
                self.others.push(Box::new(script));
            }
            Kafka => {
                let broker = server::kafka();
                self.stands("localhost:9092", broker.plaintext.clone());
            }
            Webhooks => {
                let receiver = Receiver::start();
                self.stands("http://127.0.0.1:8080/coco", receiver.url());
                self.others.push(Box::new(receiver));
            }
        }
    }

    fn stands(&mut self, shown: &'static str, real: String) {
        self.stand_ins.push((shown, real, true));
    }

    fn may_stand(&mut self, shown: &'static str, real: String) {
        self.stand_ins.push((shown, real, false));
    }

    fn runs(&self, document: &str) {
        let blocks = parse(document);
        let all: String = blocks.iter().map(|block| block.text.as_str()).collect();
        for (shown, _, has_to) in &self.stand_ins {
            assert!(!has_to || all.contains(shown), "{document} does not show {shown} any more");
        }
        if !all.contains("CREATE EXTENSION coco") {
            self.server.connect("docs").run("create extension coco");
        }
        let path = path_of(document);
        let folder = path.parent().expect("a folder");
        for block in blocks.iter().filter(|block| block.not_run.is_none()) {
            let at = format!("{document}:{}", block.line);
            let said = self.said(folder, block, &at);
            if let (Some(said), Some(shown)) = (said, &block.shown) {
                assert!(
                    is_as_shown(&said, shown),
                    "{at}\n{}\nshown is:\n{shown}\nit is:\n{said}",
                    block.text
                );
            }
        }
    }

    /// What a block prints; None of one that nobody runs.
    fn said(&self, folder: &Path, block: &Block, at: &str) -> Option<String> {
        let mut text = block.text.clone();
        for (shown, real, _) in &self.stand_ins {
            text = text.replace(shown, real);
        }
        let shown = block.shown.as_deref().unwrap_or_default();
        let (fine, said) = match block.language.as_str() {
            "sql" => {
                let hear =
                    ["ERROR:", "WARNING:", "NOTICE:"].iter().any(|word| shown.contains(word));
                psql_in(folder, &self.server.url("docs"), &text, hear)
            }
            "cypher" => (true, self.cypher(&text, shown)),
            "python" if text.contains("qdrant") => {
                let mut python = Command::new("python3");
                let packages = path_of(".tools/qdrant");
                python.arg("-").env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
                run(&mut python, &text, false)
            }
            "sh" if text.starts_with("kcat ") => {
                run(Command::new("sh").arg("-e").current_dir(folder), &text, false)
            }
            _ => return None,
        };
        let fails = shown.contains("ERROR:");
        assert_eq!(fine, !fails, "{at}\n{text}\n{said}");
        Some(said)
    }

    /// What a query gives, in the way of `cypher-shell --format plain`. The columns' names are those
    /// that are shown.
    fn cypher(&self, text: &str, shown: &str) -> String {
        let graph = self.neo4j.as_ref().expect("the document needs Neo4j");
        let header = shown.lines().next().unwrap_or_default();
        let mut lines = vec![header.to_owned()];
        self.runtime.block_on(async {
            let mut rows =
                graph.execute(query(text)).await.unwrap_or_else(|e| panic!("{text}: {e}"));
            while let Some(row) = rows.next().await.unwrap_or_else(|e| panic!("{text}: {e}")) {
                let values = header.split(", ").map(|name| {
                    let value: Value = row.get(name).unwrap_or_else(|e| panic!("{name}: {e}"));
                    as_cypher_shell_does(&value)
                });
                lines.push(values.collect::<Vec<_>>().join(", "));
            }
        });
        lines.join("\n")
    }
}

fn as_cypher_shell_does(value: &Value) -> String {
    match value {
        Value::Bool(true) => "TRUE".to_owned(),
        Value::Bool(false) => "FALSE".to_owned(),
        Value::Null => "NULL".to_owned(),
        Value::Array(all) => {
            let all: Vec<String> = all.iter().map(as_cypher_shell_does).collect();
            format!("[{}]", all.join(", "))
        }
        other => other.to_string(),
    }
}
