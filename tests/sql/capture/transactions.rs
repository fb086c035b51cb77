//! What commits, rolls back, stays open, or reads as of an earlier time.

use super::{comes_right, looked_at, refused, run, ten_rows, text};
use crate::support::TestDb;

#[test]
fn what_is_rolled_back_is_not_looked_at() {
    let mut db = ten_rows("rollback");
    db.run("begin; update d set body = 'x'; insert into d values (11, 'a'); rollback");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    db.run(
        "begin; savepoint a; update d set body = 'x'; rollback to a; update d set body = 'y' where id = 1;
         savepoint b; delete from d where id = 2; savepoint c; insert into d values (12, 'c'); rollback to c; release b; commit",
    );
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 1]);
}

#[test]
fn a_prepared_transaction_is_found_when_it_commits() {
    let mut db = ten_rows("prepared");
    db.run("begin; update d set body = 'x' where id = 1; prepare transaction 'coco_capture_1'");
    db.run("begin; update d set body = 'x' where id = 2; prepare transaction 'coco_capture_2'");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    db.run("update d set body = 'y' where id = 3");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("commit prepared 'coco_capture_1'");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("rollback prepared 'coco_capture_2'");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    // An update itself, prepared: the next waits for it.
    db.run("update d set body = 'z' where id = 4");
    db.run("begin; select coco.update('f'); update d set body = 'z' where id = 5; prepare transaction 'coco_capture_3'");
    let mut other = db.connect();
    refused(&mut other, "set lock_timeout = 100; select coco.update('f')", "55P03");
    db.run("commit prepared 'coco_capture_3'");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_transaction_that_stays_open_over_many_updates_is_found_when_it_commits() {
    let mut db = ten_rows("open");
    let (mut one, mut two) = (db.connect(), db.connect());
    run(&mut one, "begin; update d set body = 'one' where id = 1");
    for n in 0..5 {
        db.run(&format!("update d set body = 'n{n}' where id = 3"));
        assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
        if n == 2 {
            run(&mut two, "begin; savepoint s; update d set body = 'two' where id = 2; release s");
        }
        run(&mut one, &format!("savepoint s{n}; insert into d values (20 + {n}, 'x')"));
    }
    run(&mut one, "commit");
    assert_eq!(looked_at(&mut db, "f"), [6, 6, 6, 0]);
    run(&mut two, "commit");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_transaction_that_writes_on_after_its_own_update_is_found_again() {
    let mut db = ten_rows("writes_on");
    let seen = |db: &mut TestDb| -> i64 {
        db.client.query_one("select seen from coco.update('f')", &[]).expect("an update").get(0)
    };
    db.run("begin; update d set body = 'a' where id = 1");
    assert_eq!(seen(&mut db), 1);
    db.run("update d set body = 'b' where id = 2");
    assert_eq!(seen(&mut db), 2);
    db.run("savepoint s; update d set body = 'c' where id = 3");
    assert_eq!(seen(&mut db), 3);
    db.run("rollback to s");
    assert_eq!(seen(&mut db), 2);
    db.run("savepoint s; select coco.update('f'); release s; update d set body = 'd' where id = 4; commit");
    assert_eq!(
        text(&mut db.client, "select string_agg(body, ',' order by id) from t where id < 5"),
        "a,b,row 3,row 4"
    );
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.evaluated, c.upserted), (1, 1), "{c:?}");
    db.verify_clean("f");
    // An update that is undone has not been.
    db.run("update d set body = 'e' where id = 5; begin; savepoint s; select coco.update('f'); rollback to s; commit");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_caller_that_reads_as_of_earlier_is_refused_and_loses_nothing() {
    for level in ["repeatable read", "serializable"] {
        let mut db = ten_rows(&level.replace(' ', "_"));
        let mut old = db.connect();
        run(&mut old, &format!("begin isolation level {level}; select from d"));
        db.run("update d set body = 'x' where id = 1");
        assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
        db.run("update d set body = 'y' where id = 2");
        refused(&mut old, "select coco.update('f')", "40001");
        run(&mut old, "rollback");
        assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
        // One whose view is not stale for the flow is let through, and leaves what it does not see.
        run(&mut old, &format!("begin isolation level {level}; select from d"));
        db.run("update d set body = 'z' where id = 3");
        assert_eq!(text(&mut old, "select seen::text from coco.update('f')"), "0");
        run(&mut old, "update d set body = 'w' where id = 4");
        assert_eq!(text(&mut old, "select seen::text from coco.update('f')"), "1");
        run(&mut old, "commit");
        let c = db.update("f", "normal").remove(0);
        assert_eq!((c.evaluated, c.upserted), (1, 1), "{c:?}");
        db.verify_clean("f");
        assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    }
}

#[test]
fn a_first_update_that_another_was_before_is_refused() {
    let mut db = TestDb::new("capture_first_old");
    db.run(
        "create table d (id int primary key, body text); insert into d values (1, 'a');
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')",
    );
    let mut old = db.connect();
    run(&mut old, "begin isolation level repeatable read; select from d");
    looked_at(&mut db, "f");
    refused(&mut old, "select coco.update('f')", "40001");
}

#[test]
fn a_flow_declared_in_a_transaction_that_reads_as_of_earlier_loses_nothing() {
    let mut db = TestDb::new("capture_declared_old");
    db.run("create table d (id int primary key, body text); insert into d values (1, 'a')");
    let mut old = db.connect();
    run(&mut old, "begin isolation level repeatable read; select from d");
    db.run("insert into d values (2, 'b')");
    run(
        &mut old,
        "select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger');
         select coco.update('f'); commit",
    );
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

#[test]
fn writers_of_one_key_are_all_found() {
    let mut db = ten_rows("one_key");
    let writers: Vec<_> = (0..4)
        .map(|w| {
            let mut client = db.connect();
            std::thread::spawn(move || {
                for i in 0..50 {
                    run(&mut client, &format!("insert into d values (99, '{w} {i}') on conflict (id) do update set body = excluded.body"));
                    if i % 10 == 0 {
                        run(&mut client, "delete from d where id = 99");
                    }
                }
            })
        })
        .collect();
    while writers.iter().any(|w| !w.is_finished()) {
        db.update("f", "normal");
    }
    for w in writers {
        w.join().expect("no writer fails");
    }
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}
