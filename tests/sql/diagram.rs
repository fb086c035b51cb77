//! coco.diagram, as Mermaid's own parser reads it.

use crate::support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use postgres::Client;
use serde_json::Value;
use support::{TestDb, explain};

/// What Mermaid has understood of a diagram.
struct Read(Value);

impl Read {
    fn of(client: &mut Client, flow: Option<&str>) -> Read {
        let row = client.query_one("select coco.diagram($1)", &[&flow]);
        let text: String = row.unwrap_or_else(|e| panic!("diagram: {}", explain(&e))).get(0);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/mermaid.sh");
        let mut read = Command::new(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("scripts/mermaid.sh starts");
        read.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        let out = read.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "Mermaid cannot read this:\n{text}\n{said}");
        Read(serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    fn list(&self, name: &str) -> &[Value] {
        self.0[name].as_array().map_or(&[], Vec::as_slice)
    }

    /// The node whose label begins with this line.
    fn node(&self, name: &str) -> &Value {
        let first = |n: &Value| n["label"].as_str().map(|l| l.split("<br>").next() == Some(name));
        let mut found = self.list("nodes").iter().filter(|n| first(n) == Some(true));
        let node = found.next().unwrap_or_else(|| panic!("no node {name:?} in {:#}", self.0));
        assert!(found.next().is_none(), "two nodes {name:?} in {:#}", self.0);
        node
    }

    /// The label and pattern of the edge between two nodes.
    fn edge(&self, from: &str, to: &str) -> (&str, &str) {
        let (from, to) = (&self.node(from)["id"], &self.node(to)["id"]);
        let edge = self.list("edges").iter().find(|e| e["from"] == *from && e["to"] == *to);
        let edge = edge.unwrap_or_else(|| panic!("no edge {from} -> {to} in {:#}", self.0));
        (edge["label"].as_str().unwrap_or_default(), edge["pattern"].as_str().unwrap_or_default())
    }
}

#[test]
fn flows_that_feed_each_other_are_connected() {
    let mut db = TestDb::new("diagram_chain");
    db.run(
        "create table docs (id int primary key, body text); insert into docs values (1, 'a b');
         create table names (id int primary key, name text);
         create function dear(t text) returns text language sql immutable as 'select upper(t)';
         select coco.memoize('dear(text)');
         select coco.create_flow('first');
         select coco.add_source('first', 'docs', name => 'd');
         select coco.add_lookup('first', 'names');
         select coco.add_target('first', 'middle', 'select d.id, dear(d.body) as body, n.name from d join names n on n.id = d.id', '{id}');
         select coco.create_flow('second', 'middle', 'select id, 1 / length(name) as x from middle', 'last', '{id}');
         create server away foreign data wrapper coco_http options (url 'http://127.0.0.1:1/');
         select coco.create_flow('third', 'middle', 'select id, body from middle', 'hook', '{id}', server => 'away')",
    );
    let read = Read::of(&mut db.client, None);
    assert_eq!(read.edge("public.docs", "first"), ("d", "normal"));
    assert_eq!(read.edge("public.names", "first"), ("lookup", "dotted"));
    assert_eq!(read.edge("public.dear(text)", "first").1, "dotted");
    read.edge("first", "public.middle");
    read.edge("public.middle", "second");
    read.edge("public.middle", "third");
    read.edge("second", "public.last");
    read.edge("third", "hook");
    assert_eq!(read.list("edges").len(), 8, "{:#}", read.0);
    assert_eq!(read.node("hook")["parent"], read.node("away")["id"]);
    assert_eq!(read.node("first")["label"], "first<br>never updated");
    assert_eq!(read.node("first")["shape"], "stadium");

    // One of them alone.
    let read = Read::of(&mut db.client, Some("second"));
    assert_eq!(read.list("nodes").len(), 3, "{:#}", read.0);
    read.edge("public.middle", "second");

    // Its state shows.
    db.run("insert into names values (1, '')");
    db.update("first", "normal");
    db.update("second", "normal");
    let read = Read::of(&mut db.client, None);
    assert_eq!(read.node("second")["label"], "second<br>degraded<br>1 failing");
    assert!(read.node("second")["classes"].as_str().is_some_and(|c| c.contains("failing")));
    db.run("drop table last");
    let read = Read::of(&mut db.client, Some("second"));
    assert_eq!(read.node("second")["label"], "second<br>target dropped<br>1 failing");
}

#[test]
fn no_name_breaks_a_diagram() {
    let mut db = TestDb::new("diagram_names");
    let names = [
        "end",
        "a\"b",
        "x] --> y",
        "subgraph",
        "`code`",
        "<img src=x onerror=alert(1)>",
        "#34;",
        "&lt;",
        "größe 表 🦀",
        "%% comment",
        "click n0 call()",
        "two\nlines",
        "style n0 fill:#fff;",
        "a|b",
        "o--o",
    ];
    let quoted = |n: &str| format!("\"{}\"", n.replace('"', "\"\""));
    for (n, name) in names.iter().enumerate() {
        db.run(&format!("create table {} (id int primary key)", quoted(name)));
        let create = "select coco.create_flow($1, $2::text::regclass, 'select id from d', $3, '{id}', name => 'd')";
        let (table, target) = (quoted(name), format!("t{n}"));
        let done = db.client.execute(create, &[name, &table, &target]);
        done.unwrap_or_else(|e| panic!("{name}: {}", explain(&e)));
    }
    let read = Read::of(&mut db.client, None);
    assert_eq!(read.list("nodes").len(), 3 * names.len(), "{:#}", read.0);
    assert_eq!(read.list("edges").len(), 2 * names.len());
    for (n, name) in names.iter().enumerate() {
        // A label has one line a note.
        let shown = name.replace('\n', " ");
        read.edge(&shown, &format!("public.t{n}"));
        let table: String = db
            .client
            .query_one("select $1::text::regclass::text", &[&quoted(name)])
            .unwrap()
            .get(0);
        let qualified = format!("public.{}", table.replace('\n', " "));
        assert_eq!(read.edge(&qualified, &shown).0, "d", "{name}");
    }
}

#[test]
fn each_sees_his_own_flows() {
    let mut db = TestDb::new("diagram_rights");
    for role in ["coco_diagram_one", "coco_diagram_two"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$;
             grant usage on schema coco to {role}; create schema {role} authorization {role}"
        ));
        let mut client = db.connect_as(role);
        let made = client.batch_execute(&format!(
            "set search_path = {role}; create table d (id int primary key);
             select coco.create_flow('of {role}', 'd', 'select id from d', 't', '{{id}}')"
        ));
        made.unwrap_or_else(|e| panic!("{}", explain(&e)));
    }
    let mut one = db.connect_as("coco_diagram_one");
    let read = Read::of(&mut one, None);
    assert_eq!(read.list("nodes").len(), 3, "{:#}", read.0);
    read.node("of coco_diagram_one");
    assert_eq!(Read::of(&mut db.client, None).list("nodes").len(), 6);
    for (flow, sqlstate) in [("of coco_diagram_two", "42501"), ("none", "42704")] {
        let e = one.execute("select coco.diagram($1)", &[&flow]).expect_err(flow);
        assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{}", explain(&e));
    }
}
