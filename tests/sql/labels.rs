//! `coco.label`: the code under which flows are declared and updated.

#[cfg(feature = "http")]
use crate::http;
use crate::support;

use support::TestDb;

fn rows(db: &mut TestDb, sql: &str) -> Vec<String> {
    let sql = format!("select q::text from ({sql}) as q(q)");
    let rows = db.client.query(&sql, &[]);
    let rows = rows.unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)));
    rows.iter().map(|r| r.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())).collect()
}

const LOGICS: &str =
    "select coalesce(label, '-') from coco.logic_versions where flow = 'f' order by recorded";
const RUNS: &str = "select coalesce(label, '-') from coco.history('f') order by run_id";
const LINEAGE: &str = "select label from coco.lineage('t', '{\"id\": 1}')";

fn declared(name: &str, label: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run("create table d (id int primary key, v int); insert into d values (1, 1)");
    db.run(&format!("set coco.label = '{label}'"));
    db.run("select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}')");
    db
}

#[test]
fn a_logic_has_the_label_of_the_session_that_declares_it() {
    let mut db = declared("label_declared", "a1b2c3");
    assert_eq!(rows(&mut db, LOGICS), ["a1b2c3"]);
    let explained = "select detail ~ 'label:\\s+a1b2c3' from coco.explain('f') where section = 'logic fingerprint'";
    assert_eq!(rows(&mut db, explained), ["true"]);
    // The next session, or a worker, has no label.
    db.run("reset coco.label");
    db.update("f", "normal");
    assert_eq!(
        (rows(&mut db, LOGICS), rows(&mut db, RUNS)),
        (vec!["a1b2c3".to_owned()], vec!["-".to_owned()])
    );
    assert_eq!(rows(&mut db, LINEAGE), ["a1b2c3"]);
    db.run("set coco.label = 'd4e5f6'");
    db.run("select coco.set_query('f', null, 'select id, v + 1 as v from d')");
    db.run("reset coco.label");
    db.update("f", "normal");
    assert_eq!(rows(&mut db, LOGICS), ["a1b2c3", "d4e5f6"]);
    assert_eq!(rows(&mut db, LINEAGE), ["d4e5f6"]);
    assert_eq!(rows(&mut db, "select v from t"), ["2"]);
}

#[test]
fn a_run_has_the_label_of_its_session_and_a_logic_keeps_its_first() {
    let mut db = declared("label_runs", "");
    db.update("f", "normal");
    assert_eq!(
        (rows(&mut db, LOGICS), rows(&mut db, RUNS)),
        (vec!["-".to_owned()], vec!["-".to_owned()])
    );
    for label in ["v1", "v2"] {
        db.run(&format!("set coco.label = '{label}'"));
        db.update("f", "normal");
    }
    assert_eq!(rows(&mut db, RUNS), ["-", "v1", "v2"]);
    assert_eq!(rows(&mut db, LOGICS), ["v1"]);
    let status = "select label from coco.status_detail where flow = 'f'";
    assert_eq!(rows(&mut db, status), ["v2"]);
    // The label of the flow is that of runs without a label of their own.
    db.run("reset coco.label");
    db.run("select coco.alter_flow('f', label => 'of the flow')");
    db.run("update d set v = 2");
    db.update("f", "normal");
    assert_eq!(rows(&mut db, status), ["of the flow"]);
    assert_eq!(rows(&mut db, LINEAGE), ["of the flow"]);
    db.verify_clean("f");
}

#[test]
fn a_replaced_function_gets_the_label_of_the_update_that_runs_it() {
    let mut db = TestDb::new("label_function");
    db.run(
        "create table d (id int primary key, v int); insert into d values (1, 1);
         create function twice(i int) returns int language sql immutable as 'select 2 * i';
         select coco.create_flow('f', 'd', 'select id, twice(v) as v from d', 't', '{id}')",
    );
    db.update("f", "normal");
    db.run("set coco.label = 'v2'");
    db.run("create or replace function twice(i int) returns int language sql immutable as 'select i + i + 1'");
    db.update("f", "normal");
    assert_eq!(rows(&mut db, LOGICS), ["-", "v2"]);
    assert_eq!(rows(&mut db, LINEAGE), ["v2"]);
}

#[cfg(feature = "http")]
#[test]
fn a_worker_records_the_label_of_the_session_that_waits_for_it() {
    let receiver = http::Receiver::start();
    let mut db = TestDb::new("label_worker");
    db.run(&format!(
        "create server hook foreign data wrapper coco_http options (url '{}');
         create user mapping for postgres server hook;
         create table d (id int primary key, body text); insert into d values (1, 'a');
         select coco.create_flow('f', 'd', 'select id, body from d', 'out', '{{id}}', server => 'hook')",
        receiver.url()
    ));
    db.run("set coco.label = 'release 1.2, of June'");
    db.update("f", "normal");
    assert_eq!(rows(&mut db, RUNS), ["release 1.2, of June"]);
    assert_eq!(rows(&mut db, LOGICS), ["release 1.2, of June"]);
}
