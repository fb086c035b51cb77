//! Dump and restore: flows just go on, and what did not change is not evaluated.

#[cfg(feature = "http")]
#[path = "support/http.rs"]
mod http;
mod support;

use std::process::{Command, Stdio};

use support::TestDb;

/// Dumps a database and restores it in another.
fn restored(db: &TestDb, name: &str) -> TestDb {
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
    let mut other = TestDb::new(name);
    other.run("drop extension coco");
    let mut dump = Command::new(format!("{bin}/pg_dump"))
        .args(["-d", &db.url()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_dump starts");
    let restore = Command::new(format!("{bin}/psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &other.url()])
        .stdin(dump.stdout.take().expect("a pipe"))
        .stdout(Stdio::null())
        .status()
        .expect("psql starts");
    assert!(dump.wait().expect("pg_dump ends").success(), "pg_dump writes it all");
    assert!(restore.success(), "the dump restores without an error");
    other
}

fn captured(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        "create table d (id int primary key, body text);
         insert into d select i, 'b' || i from generate_series(1, 50) i;
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger');
         select coco.create_flow('g', 'd', 'select id, upper(body) as body from d', 'u', '{id}', capture => 'trigger')",
    );
    for flow in ["f", "g"] {
        db.update(flow, "normal");
    }
    db
}

#[test]
fn a_restored_capture_scans_until_its_log_is_made_again() {
    let mut db = captured("dumped_capture");
    db.run("update d set body = 'changed' where id = 1");
    let mut other = restored(&db, "restored_capture");
    // Writers find triggers without a log.
    other.run("update d set body = 'changed' where id = 2");
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (50, 2), "{c:?}");
    other.verify_clean("f");
    other.run("update d set body = 'changed' where id = 3");
    // Other databases of the server may hold it up.
    let mut scans = 0;
    while other.update("f", "normal")[0].seen > 0 {
        scans += 1;
        assert!(scans < 1000, "f is scanned for ever");
    }
    assert!(scans > 0, "the first update makes the log, and knows nothing yet");
    other.run("update d set body = 'again' where id = 3; insert into d values (51, 'new')");
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (2, 2), "{c:?}");
    other.verify_clean("f");
    other.update("g", "normal");
    other.verify_clean("g");
    assert_eq!(other.update("g", "normal")[0].seen, 0);
}

#[test]
fn a_writer_that_found_no_log_yet_is_found_after_a_restore() {
    let db = captured("dumped_writer");
    let mut other = restored(&db, "restored_writer");
    let (mut first, mut writer) = (other.connect(), other.connect());
    first.batch_execute("begin; select coco.update('f')").expect("an update");
    // While the log is made: its transaction is later than that one's.
    writer.batch_execute("begin; update d set body = 'unnoted' where id = 1").expect("a writer");
    first.batch_execute("commit").expect("committed");
    for _ in 0..3 {
        assert_eq!(other.update("f", "normal")[0].evaluated, 0);
        other.update("g", "normal");
    }
    writer.batch_execute("commit").expect("committed");
    for flow in ["f", "g"] {
        assert_eq!(other.update(flow, "normal")[0].evaluated, 1, "{flow}");
        other.verify_clean(flow);
    }
}

#[test]
fn a_restored_flow_goes_on_and_evaluates_nothing_that_did_not_change() {
    let mut db = TestDb::new("dumped");
    db.run(
        "create type mood as enum ('sad', 'ok');
         create function f(t text) returns text language sql immutable as $$ select upper(t) $$;
         create table d (id int primary key, body text, m mood default 'ok');
         insert into d select i, 'b' || i from generate_series(1, 50) i;
         select coco.create_flow('covered', 'd', 'select id, f(body) as body, m from d', 'c', '{id}');
         select coco.create_flow('listed', 'd', 'select md5(body) as h, id from d', 'l', '{h}');
         select coco.create_flow('fails', 'd', 'select id, 1 / (id - 7) as q from d', 'q', '{id}')",
    );
    db.run("select coco.alter_flow('covered', label => 'v7', batch_size => 5)");
    for flow in ["covered", "listed", "fails"] {
        db.update(flow, "normal");
    }
    db.run("select coco.alter_flow('fails', paused => true)");
    let mut other = restored(&db, "restored");
    for flow in ["covered", "listed"] {
        let c = &other.update(flow, "normal")[0];
        assert_eq!((c.seen, c.unchanged, c.evaluated), (50, 50, 0), "{flow}: {c:?}");
    }
    let flows = "select string_agg(concat_ws(' ', flow, label, batch_size, paused), ', ' order by flow) from coco.flows";
    let flows: String = other.client.query_one(flows, &[]).expect("flows").get(0);
    assert_eq!(flows, "covered v7 5 f, fails t, listed f");
    other.run("select coco.alter_flow('fails', paused => false)");
    assert_eq!(other.update("fails", "normal")[0].failed, 1);
    let runs = "select string_agg(concat_ws(' ', reason, label), ', ' order by run) from coco.history('covered')";
    let runs: String = other.client.query_one(runs, &[]).expect("runs").get(0);
    assert_eq!(runs, "first v7, change v7");
    other.run("update d set body = 'new' where id = 3; delete from d where id = 4");
    for flow in ["covered", "listed"] {
        let c = &other.update(flow, "normal")[0];
        assert_eq!((c.evaluated, c.failed), (1, 0), "{flow}: {c:?}");
        other.verify_clean(flow);
    }
    // New flows get ids that the restored ones do not have.
    other.run("select coco.create_flow('new', 'd', 'select id from d', 'n', '{id}')");
    assert_eq!(other.update("new", "normal")[0].upserted, 49);
}

#[cfg(feature = "http")]
#[test]
fn a_restored_flow_sends_what_was_not_sent_and_nothing_else() {
    let mut receiver = http::Receiver::start();
    let mut db = TestDb::new("dumped_external");
    db.run(&format!(
        "create server hook foreign data wrapper coco_http options (url '{}');
         create user mapping for postgres server hook;
         create table d (id int primary key, body text);
         insert into d select i, 'b' || i from generate_series(1, 50) i;
         select coco.create_flow('f', 'd', 'select id, body from d', 'out', '{{id}}', server => 'hook')",
        receiver.url()
    ));
    db.update("f", "normal");
    receiver.stop();
    db.run("update d set body = 'new' where id = 1; delete from d where id = 2");
    support::update(&mut db.client, "f", "normal").expect_err("nobody is there");
    let mut other = restored(&db, "restored_external");
    receiver.start_again();
    receiver.forget_requests();
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated, c.upserted, c.deleted), (49, 0, 0, 0), "{c:?}");
    let sent: Vec<_> = receiver.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].contains("\"new\"") && sent[0].contains("delete"), "{sent:?}");
    let rows = receiver.rows("f", "out");
    assert_eq!(rows.len(), 49);
    other.run("update d set body = 'newer' where id = 3");
    other.update("f", "normal");
    assert!(receiver.rows("f", "out").values().any(|row| row.contains("newer")));
    other.verify_clean("f");
}
