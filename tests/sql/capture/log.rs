//! The change log: it is emptied, and loses nothing.

use super::{comes_right, looked_at, run, text};
use crate::support::TestDb;

/// Two flows on a table, of which each change of all rows fills a segment of the log.
fn rotating(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("capture_{name}"));
    db.run(
        "set coco.log_segment_size = '64kB';
         create table d (id int primary key, n int);
         insert into d select i, 0 from generate_series(1, 3000) i;
         select coco.create_flow('f', 'd', 'select id, n from d', 't', '{id}', capture => 'trigger');
         select coco.create_flow('g', 'd', 'select id, -n as n from d', 'u', '{id}', capture => 'trigger');
         select coco.update('f')",
    );
    db
}

/// Changes most rows and follows them, often enough for each segment to be emptied twice, if nothing
/// keeps it. Returns how many segments it went through.
fn rotate(db: &mut TestDb) -> usize {
    let mut segments = std::collections::BTreeSet::new();
    for n in 0..12 {
        db.run(&format!("update d set n = n + 1 where id % 12 <> {n}"));
        db.update("f", "normal");
        segments.insert(text(&mut db.client, "select segment::text from coco_internal.capture"));
    }
    segments.len()
}

fn log_size(db: &mut TestDb) -> i64 {
    let sql =
        "select sum(pg_relation_size(oid))::bigint from pg_class where relname ~ '^log_1_[012]$'";
    db.client.query_one(sql, &[]).expect("a size").get(0)
}

#[test]
fn a_log_that_is_followed_does_not_grow() {
    let mut db = rotating("rotation");
    db.update("g", "normal");
    for _ in 0..12 {
        db.run("update d set n = n + 1");
        db.update("g", "normal");
        db.update("f", "normal");
    }
    assert!(log_size(&mut db) < 3 * 3000 * 60, "{}", log_size(&mut db));
    // One that falls behind keeps what it has not followed.
    let before = log_size(&mut db);
    rotate(&mut db);
    assert!(log_size(&mut db) > before + 12 * 64 * 1024);
    assert_eq!(looked_at(&mut db, "g")[0], 3000);
    for _ in 0..3 {
        db.run("update d set n = n + 1");
        assert_eq!(looked_at(&mut db, "f")[0], 3000);
        assert_eq!(looked_at(&mut db, "g")[0], 3000);
    }
    assert!(log_size(&mut db) < 3 * 3000 * 60, "{}", log_size(&mut db));
}

#[test]
fn what_open_transactions_write_survives_the_rotation_of_the_log() {
    let mut db = rotating("rotation_open");
    db.update("g", "normal");
    let (mut one, mut two) = (db.connect(), db.connect());
    assert_eq!(rotate(&mut db), 2);
    db.update("g", "normal");
    run(&mut one, "begin; insert into d select i, 0 from generate_series(10001, 13000) i");
    rotate(&mut db);
    run(
        &mut two,
        "begin; savepoint s; insert into d values (20001, 0); rollback to s; insert into d values (20002, 0)",
    );
    run(&mut one, "insert into d values (10000, 0)");
    db.update("g", "normal");
    rotate(&mut db);
    run(&mut one, "commit");
    comes_right(&mut db, "f");
    run(&mut two, "insert into d values (20003, 0); prepare transaction 'coco_capture_rotation'");
    rotate(&mut db);
    run(&mut two, "commit prepared 'coco_capture_rotation'");
    rotate(&mut db);
    comes_right(&mut db, "f");
    comes_right(&mut db, "g");
}

#[test]
fn a_first_update_that_is_not_committed_yet_keeps_the_log() {
    let mut db = rotating("rotation_first");
    let mut first = db.connect();
    run(&mut first, "begin; select coco.update('g')");
    rotate(&mut db);
    rotate(&mut db);
    db.run("update d set n = 0 where id = 1; select coco.update('f')");
    run(&mut first, "commit");
    db.update("g", "normal");
    db.verify_clean("g");
    assert_eq!(looked_at(&mut db, "g")[0], 0);
}

#[test]
fn a_first_update_that_reads_as_of_earlier_does_not_rely_on_a_log_emptied_since() {
    let mut db = rotating("rotation_old");
    let mut old = db.connect();
    run(&mut old, "begin isolation level repeatable read; select from d");
    rotate(&mut db);
    rotate(&mut db);
    run(&mut old, "select coco.update('g'); commit");
    comes_right(&mut db, "g");
    assert_eq!(looked_at(&mut db, "g")[0], 0);
}

#[test]
fn an_update_that_has_emptied_a_segment_and_is_open_holds_up_nobody() {
    let mut db = rotating("rotation_waits");
    db.update("g", "normal");
    let mut emptying = db.connect();
    let held = "select count(*)::text from pg_locks where mode = 'AccessExclusiveLock' and granted
        and relation in (select oid from pg_class where relname ~ '^log_1_[012]$')";
    let mut found = false;
    for _ in 0..20 {
        db.run("update d set n = n + 1");
        db.update("g", "normal");
        run(&mut emptying, "set coco.log_segment_size = '64kB'; begin; select coco.update('f')");
        if text(&mut db.client, held) != "0" {
            found = true;
            db.run("set lock_timeout = 5000");
            for _ in 0..3 {
                db.run("update d set n = n + 1; insert into d select max(id) + 1, 0 from d");
                let c = db.update("g", "normal").remove(0);
                assert!(c.seen > 3000, "{c:?}");
            }
            run(&mut emptying, "rollback");
            break;
        }
        run(&mut emptying, "commit");
    }
    assert!(found, "no update emptied a segment");
    comes_right(&mut db, "f");
    comes_right(&mut db, "g");
}
