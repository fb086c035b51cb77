//! The example of each connector's README, as a new user runs it: with the addresses and secrets of
//! servers of theirs, and no rights but those that it takes.
#![cfg(feature = "connectors")]

use crate::{http, scripted, server, support, topic};

use http::Receiver;
use neo4rs::{ConfigBuilder, Graph, query};
use qdrant_client::Qdrant;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{Query, QueryPointsBuilder};
use scripted::{Scripted, said_of};
use serde_json::{Value, json};
use support::TestDb;
use support::document::{blocks, psql};
use support::server::{Server, Session};
use tokio::runtime::Runtime;

/// A role that is no superuser, and its database.
const NEWCOMER: &str = "coco_newcomer";
const SECRET: &str = "it's-a-l0ng-s3cr3t";

/// SQL of a connector's README.
struct Example(String);

impl Example {
    /// The README's first example.
    fn of(connector: &str) -> Example {
        Example::nth(connector, 0)
    }

    fn nth(connector: &str, n: usize) -> Example {
        let path = format!("crates/coco-connectors/src/targets/{connector}/README.md");
        let mut sql = blocks(&path).into_iter().filter(|(language, _)| language == "sql");
        Example(sql.nth(n).unwrap_or_else(|| panic!("{path} has no such example")).1)
    }

    /// With a value of this machine's for one that the README shows.
    fn with(self, shown: &str, real: &str) -> Example {
        let shown = literal(shown);
        assert_eq!(self.0.matches(&shown).count(), 1, "{shown} in\n{}", self.0);
        Example(self.0.replace(&shown, &literal(real)))
    }

    /// With another option after one that the README shows.
    fn and(self, shown: &str, option: &str, value: &str) -> Example {
        let shown = literal(shown);
        assert_eq!(self.0.matches(&shown).count(), 1, "{shown} in\n{}", self.0);
        Example(self.0.replace(&shown, &format!("{shown}, {option} {}", literal(value))))
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A database whose owner is no superuser, and may use a connector.
struct Newcomer {
    db: TestDb,
    sql: Session,
}

impl Newcomer {
    fn new(connector: &str) -> Newcomer {
        let mut db = TestDb::new(&format!("connectors_{connector}"));
        db.run(&newcomers(connector));
        let sql = Session(db.connect_as(NEWCOMER));
        Newcomer { db, sql }
    }

    fn runs(&self, example: &Example) {
        psql(&format!("{} user={NEWCOMER}", self.db.url()), &example.0);
    }

    /// Updates a flow, of whose rows none fails.
    fn update(&mut self, flow: &str) {
        let counts = support::update(&mut self.sql.0, flow, "normal");
        let counts = counts.unwrap_or_else(|e| panic!("{}", support::explain(&e)));
        assert!(counts.iter().all(|source| source.failed == 0), "{counts:?}");
        self.sql.verify(flow);
    }

    /// Drops a flow with what was made for it.
    fn drop(&mut self, flow: &str) {
        self.sql.run(&format!("select coco.drop_flow('{flow}', keep_targets => false)"));
        assert_eq!(self.sql.number("select count(*) from coco.flows"), 0);
    }
}

/// Makes the role, if it is not there, and gives it a database with a connector.
fn newcomers(connector: &str) -> String {
    format!(
        "do $$ begin create role {NEWCOMER} login;
               exception when duplicate_object or unique_violation then null; end $$;
         do $$ begin execute format('grant create on database %I to {NEWCOMER}', current_database()); end $$;
         create schema {NEWCOMER} authorization {NEWCOMER};
         grant usage on schema coco to {NEWCOMER};
         grant usage on foreign data wrapper coco_{connector} to {NEWCOMER};"
    )
}

/// A receiver with TLS that wants the secrets, and the example for it.
fn webhook() -> (Receiver, Example) {
    let receiver = Receiver::start_tls(&["127.0.0.1"]);
    receiver.want("authorization", "Bearer t0k3n");
    receiver.want_signature(SECRET);
    let example = Example::of("http")
        .and("https://hooks.example.org/coco", "sslrootcert", receiver.certificate())
        .with("https://hooks.example.org/coco", &receiver.url())
        .with("eyJ0…", "t0k3n")
        .with("some long random text", SECRET);
    (receiver, example)
}

/// The rows of the example's target, in the order of their keys' text.
fn posted(receiver: &Receiver) -> Vec<Value> {
    let rows = receiver.rows("docs", "search index").into_values();
    rows.map(|row| serde_json::from_str(&row).expect("JSON")).collect()
}

#[test]
fn webhooks() {
    let (receiver, example) = webhook();
    let mut user = Newcomer::new("http");
    user.runs(&example);
    user.sql.run("insert into docs values (1, 'one', 'abc'), (2, 'two', 'de'), (3, 'three', null)");
    user.update("docs");
    assert_eq!(
        posted(&receiver),
        [
            json!({"id": 1, "title": "one", "letters": 3}),
            json!({"id": 2, "title": "two", "letters": 2}),
            json!({"id": 3, "title": "three", "letters": null}),
        ]
    );
    user.sql.run(
        "insert into docs values (4, 'four', 'x'); update docs set body = 'abcd' where id = 1;
         delete from docs where id = 2",
    );
    user.update("docs");
    let now = [
        json!({"id": 1, "title": "one", "letters": 4}),
        json!({"id": 3, "title": "three", "letters": null}),
        json!({"id": 4, "title": "four", "letters": 1}),
    ];
    assert_eq!(posted(&receiver), now);
    // The receiver hears nothing of it.
    receiver.forget_requests();
    user.drop("docs");
    assert_eq!((posted(&receiver), receiver.requests().len()), (now.to_vec(), 0));
}

#[test]
fn another_postgres() {
    let server = Server::start(&[]);
    let rules = "local all postgres trust\nlocal all all scram-sha-256\n";
    let path = server.directory().join("data/pg_hba.conf");
    std::fs::write(path, rules).expect("pg_hba.conf is written");
    server.reload(&[]);
    let mut there = server.connect("postgres");
    there.run("create database reports");
    let mut there = server.connect("reports");
    there.run(&Example::nth("postgres", 1).with("…", SECRET).0);

    let mut user = Newcomer::new("postgres");
    let example = Example::of("postgres")
        .with("reports.example.com", &server.directory().display().to_string())
        .with("…", SECRET);
    user.runs(&example);
    user.sql.run("insert into orders values (1, 'ann', 1.5), (2, 'bob', null), (3, 'cäcilie', 3)");
    user.update("order_totals");
    let totals = "select t from shop.order_totals as t order by id";
    assert_eq!(there.rows(totals), ["(1,ANN,1.50)", "(2,BOB,)", "(3,CÄCILIE,3.00)"]);
    user.sql.run(
        "insert into orders values (4, 'dan', 4); update orders set total = 2 where id = 2;
         delete from orders where id = 1",
    );
    user.update("order_totals");
    assert_eq!(there.rows(totals), ["(2,BOB,2.00)", "(3,CÄCILIE,3.00)", "(4,DAN,4.00)"]);
    user.drop("order_totals");
    assert!(there.holds("select to_regclass('shop.order_totals') is null"));
}

#[test]
fn qdrant() {
    let script = Scripted::new("qdrant");
    let owner = std::process::id().to_string();
    let url = script.run("start", &["--api-key", SECRET, "--while", &owner]);
    let runtime = Runtime::new().expect("a runtime");
    let client = Qdrant::from_url(&url).api_key(SECRET).skip_compatibility_check().build();
    let client = client.expect("a client");
    // The titles of all documents, those first that are nearest to apples.
    let found = || {
        let apples = Query::new_nearest(vec![1.0, 0.0, 0.0]);
        let request = QueryPointsBuilder::new("docs").query(apples).limit(10).with_payload(true);
        let found = runtime.block_on(client.query(request)).expect("an answer").result;
        let title = |kind: Option<Kind>| match kind {
            Some(Kind::StringValue(title)) => title,
            other => panic!("{other:?} is no title"),
        };
        let titles =
            found.into_iter().map(|mut point| title(point.payload.remove("title")?.kind).into());
        titles.collect::<Option<Vec<String>>>().expect("each has a title")
    };

    let mut user = Newcomer::new("qdrant");
    let example = Example::of("qdrant").with("http://localhost:6334", &url).with("…", SECRET);
    // Where pgvector is not a trusted extension, only a superuser can add it.
    user.db.run("create extension vector");
    user.runs(&example);
    user.update("docs_in_qdrant");
    assert_eq!(found(), ["apples", "pears"]);
    user.sql.run(
        "insert into docs values (3, 'plums', '[0.5,0.5,0]'); delete from docs where id = 1;
         update docs set title = 'quinces', embedding = '[0.1,0.9,0]' where id = 2",
    );
    user.update("docs_in_qdrant");
    assert_eq!(found(), ["plums", "quinces"]);
    user.drop("docs_in_qdrant");
    assert!(!runtime.block_on(client.collection_exists("docs")).expect("an answer"));
}

#[test]
fn neo4j() {
    let script = Scripted::new("neo4j");
    let said = script.run("start", &[]);
    let (url, password) = (said_of(&said, "url"), said_of(&said, "password"));
    let runtime = Runtime::new().expect("a runtime");
    let config = ConfigBuilder::default().uri(&url).user("neo4j").password(password.as_str());
    let graph = Graph::connect(config.build().expect("a configuration")).expect("a graph");
    let rows = |cypher: &str| {
        runtime.block_on(async {
            let mut rows = graph.execute(query(cypher)).await.expect("rows");
            let mut all: Vec<Value> = Vec::new();
            while let Some(row) = rows.next().await.expect("a row") {
                all.push(row.get("v").expect("a value"));
            }
            all
        })
    };

    let mut user = Newcomer::new("neo4j");
    let example = Example::of("neo4j")
        .with("bolt://graph.example.com:7687", &url)
        .with("coco", "neo4j")
        .with("…", &password);
    user.runs(&example);
    user.sql.run(
        "insert into documents values (1, 'One', '{a,b}'), (2, 'Two', '{b}'), (3, 'Three', null)",
    );
    let documents = "MATCH (d:Document) RETURN [d.id, d.title] AS v ORDER BY v";
    let mentions = "MATCH (d:Document)-[m:MENTIONS]->(t:Tag)
                    RETURN [d.id, t.name, m.position] AS v ORDER BY v";
    let tags = "MATCH (t:Tag) RETURN t.name AS v ORDER BY v";
    user.update("graph_documents");
    assert_eq!(rows(documents), [json!([1, "One"]), json!([2, "Two"]), json!([3, "Three"])]);
    assert_eq!(rows(mentions), [json!([1, "a", 1]), json!([1, "b", 2]), json!([2, "b", 1])]);
    assert_eq!(rows(tags), [json!("a"), json!("b")]);
    user.sql.run(
        "insert into documents values (4, 'Four', '{c}'); delete from documents where id = 1;
         update documents set title = 'Zwei', tags = '{c,b}' where id = 2",
    );
    user.update("graph_documents");
    assert_eq!(rows(documents), [json!([2, "Zwei"]), json!([3, "Three"]), json!([4, "Four"])]);
    assert_eq!(rows(mentions), [json!([2, "b", 2]), json!([2, "c", 1]), json!([4, "c", 1])]);
    assert_eq!(rows(tags), [json!("b"), json!("c")]);
    user.drop("graph_documents");
    assert!(rows("MATCH (n) RETURN labels(n) AS v").is_empty());
    assert!(rows("SHOW CONSTRAINTS YIELD name RETURN name AS v").is_empty());
}

#[test]
fn kafka() {
    let broker = server::kafka();
    let example = Example::of("kafka")
        .and("kafka-1:9092,kafka-2:9092", "sslrootcert", &broker.certificate)
        .with("kafka-1:9092,kafka-2:9092", &broker.sasl_ssl)
        .with("coco", "writer")
        .with("secret", "writer-secret");
    let mut user = Newcomer::new("kafka");
    user.runs(&example);
    user.sql.run("insert into orders values (7, 'Ada', 12.50), (8, 'Bob', null), (9, 'Eve', 1)");
    user.update("order_events");
    user.sql.run(
        "insert into orders values (10, 'Kim', 3.00); update orders set total = 13.0 where id = 7;
         delete from orders where id = 8",
    );
    user.update("order_events");
    // The last record of each key, as compaction leaves it.
    let mut last = std::collections::BTreeMap::new();
    let records = topic::records(&broker, "orders");
    assert_eq!(records.len(), 6, "{records:?}");
    for record in records {
        last.insert(record.key, record.value);
    }
    let last: Vec<_> = last.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
    assert_eq!(
        last,
        [
            (r#"{"id":10}"#, Some(r#"{"id":10,"customer":"Kim","total":3.00}"#)),
            (r#"{"id":7}"#, Some(r#"{"id":7,"customer":"Ada","total":13.0}"#)),
            (r#"{"id":8}"#, None),
            (r#"{"id":9}"#, Some(r#"{"id":9,"customer":"Eve","total":1}"#)),
        ]
    );
    user.drop("order_events");
    assert!(!topic::exists(&broker, "orders"));
}

#[test]
fn a_live_flow_sends_what_changes() {
    let (receiver, example) = webhook();
    let server = Server::preloaded(&[]);
    let mut db = server.database("live");
    db.run(&newcomers("http"));
    let mut user = server.connect_as("live", NEWCOMER);
    psql(&format!("{} user={NEWCOMER}", server.url("live")), &example.0);
    user.run("select coco.start('docs')");
    user.caught_up("docs");
    user.run("insert into docs values (1, 'one', 'abc'), (2, 'two', 'de')");
    user.caught_up("docs");
    assert_eq!(
        posted(&receiver),
        [
            json!({"id": 1, "title": "one", "letters": 3}),
            json!({"id": 2, "title": "two", "letters": 2}),
        ]
    );
    user.run("update docs set title = 'uno' where id = 1; delete from docs where id = 2");
    user.settle("docs");
    assert_eq!(posted(&receiver), [json!({"id": 1, "title": "uno", "letters": 3})]);
    user.run("select coco.drop_flow('docs', keep_targets => false)");
}
