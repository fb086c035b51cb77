//! coco.report, in a real browser.

use std::path::PathBuf;
use std::process::Command;

use crate::support;

use serde_json::Value;
use support::{TestDb, explain};

/// What a browser has found of a report, by screen.
fn look(test: &str, page: &str) -> Value {
    let root = env!("CARGO_MANIFEST_DIR");
    let dir = std::env::temp_dir().join(format!("coco-report-{test}.{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let _gone = Gone(dir.clone());
    let file = dir.join("report.html");
    std::fs::write(&file, page).expect("a file");
    let script = format!("{root}/scripts/browser.sh");
    let out = Command::new(script).arg(&file).arg(&dir).output().expect("scripts/browser.sh runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for screen in ["light", "dark", "narrow"] {
        assert!(dir.join(format!("{screen}.png")).exists(), "{screen}");
    }
    serde_json::from_slice(&out.stdout).expect("JSON")
}

struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn report(client: &mut postgres::Client) -> String {
    let row = client.query_one("select coco.report()", &[]);
    row.unwrap_or_else(|e| panic!("report: {}", explain(&e))).get(0)
}

/// A page as it should be on every screen: it asks for nothing and says nothing, fits, and is accessible.
fn fine(found: &Value) {
    for (screen, width) in [("light", 1120), ("dark", 1120), ("narrow", 360)] {
        let page = &found[screen];
        assert_eq!(page["said"], serde_json::json!([]), "{screen}");
        assert_eq!(page["asked"], serde_json::json!([]), "{screen}");
        assert_eq!(page["scripts"], 0, "{screen}");
        assert_eq!(page["width"], width, "{screen}");
        assert_eq!((&page["unnamed"], &page["headless"]), (&Value::from(0), &Value::from(0)));
    }
    assert_ne!(found["light"]["background"], found["dark"]["background"]);
}

#[test]
fn a_browser_shows_what_there_is_and_asks_for_nothing() {
    let mut db = TestDb::new("report_shows");
    assert!(report(&mut db.client).contains("There is no flow that you may see."));
    db.run(
        "create table docs (id int primary key, body text); insert into docs values (1, 'a b'), (2, 'c');
         create table names (id int primary key, name text); insert into names values (1, 'x'), (2, '');
         create function dear(t text) returns text language sql immutable as 'select upper(t)';
         select coco.memoize('dear(text)');
         select coco.create_flow('first');
         select coco.add_source('first', 'docs');
         select coco.add_lookup('first', 'names');
         select coco.add_target('first', 'middle', 'select d.id, dear(d.body) as body, n.name from docs d join names n on n.id = d.id', '{id}');
         select coco.create_flow('second', 'middle', 'select id, 1 / length(name) as x from middle', 'last', '{id}');
         create server away foreign data wrapper coco_http options (url 'http://127.0.0.1:1/');
         select coco.create_flow('third', 'middle', 'select id, body from middle', 'hook', '{id}', server => 'away');
         analyze",
    );
    for flow in ["first", "first", "second"] {
        db.update(flow, "normal");
    }
    db.run("insert into docs values (3, 'd')");
    let found = look("shows", &report(&mut db.client));
    fine(&found);
    let page = &found["light"];
    let names: Vec<&str> =
        page["names"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    for name in [
        "first, behind, 1 pending",
        "second, degraded, 1 pending, 1 failing",
        "third, never updated",
        "hook",
        "public.dear(text)",
        "public.docs, about 2 rows",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert_eq!((names.len(), page["edges"].as_u64()), (9, Some(8)), "{names:?}");
    assert_eq!(page["runs"], 3);
    let text = page["text"].as_str().expect("text");
    for said in
        ["22012 division by zero", "{\"id\": 2}", "shared_preload_libraries", "public.dear(text)"]
    {
        assert!(text.contains(said), "{said} is not in {text}");
    }
}

#[test]
fn no_name_or_message_becomes_markup() {
    let mut db = TestDb::new("report_names");
    let bad = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'";
    let name: String = bad.chars().take(60).collect();
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    db.run(&format!("create table {quoted} (id text primary key)"));
    db.client.execute(&format!("insert into {quoted} values ($1)"), &[&bad]).unwrap();
    db.run("create function fail(t text) returns int language plpgsql as $$ begin raise exception using message = t, hint = t, detail = t; end $$");
    let create = "select coco.create_flow($1, $2::text::regclass, 'select id, fail(id) as x from d', $3, '{id}', name => 'd')";
    let done = db.client.execute(create, &[&name, &quoted, &"t"]);
    done.unwrap_or_else(|e| panic!("{}", explain(&e)));
    db.update(&name, "normal");
    let found = look("names", &report(&mut db.client));
    fine(&found);
    let text = found["light"]["text"].as_str().expect("text");
    assert!(text.contains(&name) && text.contains(bad), "{text}");
}

#[test]
fn each_sees_his_own_flows() {
    let mut db = TestDb::new("report_rights");
    for role in ["coco_report_one", "coco_report_two"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$;
             grant usage on schema coco to {role}; grant pg_monitor to {role}; create schema {role} authorization {role}"
        ));
        let mut client = db.connect_as(role);
        let made = client.batch_execute(&format!(
            "set search_path = {role}; create table d (id int primary key); insert into d values (1);
             create function f(i int) returns int language sql immutable as 'select i';
             select coco.memoize('f(int)');
             select coco.create_flow('of {role}', 'd', 'select id, f(id) as x from d', 't', '{{id}}');
             select coco.update('of {role}')"
        ));
        made.unwrap_or_else(|e| panic!("{}", explain(&e)));
    }
    // Also what those who watch may know in numbers is not in the report.
    let one = report(&mut db.connect_as("coco_report_one"));
    assert!(one.contains("of coco_report_one") && !one.contains("coco_report_two"), "{one}");
    let all = report(&mut db.client);
    assert!(all.contains("of coco_report_one") && all.contains("of coco_report_two"));
}
