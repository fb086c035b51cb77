//! `reexport` and the rows that a target outside the database has and no item has.
#![cfg(all(feature = "http", feature = "postgres"))]

use std::sync::{Arc, Mutex};

use crate::{http, sides, support};

use http::Receiver;
use sides::{declare, server_for, text, with_hook};
use support::{TestDb, update};

const ROWS: &str = "select string_agg(id || ':' || body, ' ' order by id) from there";

/// Two databases with a table `docs` of three rows here, and a server "pg" that is the other database.
fn two_sides(name: &str) -> (TestDb, TestDb) {
    let mut db = TestDb::new(name);
    let other = TestDb::new(&format!("{name}_there"));
    server_for(&mut db, &other);
    db.run(
        "create table docs (id int primary key, body text);
         insert into docs values (1, 'a'), (2, 'b'), (3, 'c')",
    );
    (db, other)
}

const DECLARE: &str = "select coco.create_flow('f', 'docs', 'select id, body from docs', 'there', '{id}', server => 'pg')";

/// Runs a reexport of the flow "f". Returns the number of deleted rows, and the notices about extra rows.
fn reexport(db: &TestDb) -> (i64, Vec<String>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notices = heard.clone();
    let mut client = db.connect_hearing(move |line| notices.lock().expect("lines").push(line));
    let counts = update(&mut client, "f", "reexport").expect("counts").remove(0);
    drop(client);
    let mut lines = heard.lock().expect("lines").clone();
    lines.retain(|line| line.contains("no item has"));
    (counts.deleted, lines)
}

#[test]
fn a_table_that_coco_made_has_only_rows_of_items_afterwards() {
    let (mut db, mut other) = two_sides("reexport_extra");
    db.run(DECLARE);
    db.update("f", "normal");
    other.run(
        "insert into there select i, 'nobody''s' from generate_series(100, 149) i;
         update there set body = 'edited' where id = 1;
         delete from there where id = 2",
    );
    assert_eq!(reexport(&db), (50, vec![]));
    assert_eq!(text(&mut other.client, ROWS), "1:a 2:b 3:c");
    assert_eq!(
        text(&mut db.client, "select count(*)::text from coco.verify('f', outside => true)"),
        "0"
    );
    assert_eq!(reexport(&db), (0, vec![]));
    // A normal update, or one that evaluates everything, leaves such rows alone.
    other.run("insert into there values (200, 'nobody''s')");
    db.update("f", "full_reprocess");
    assert_eq!(text(&mut other.client, ROWS), "1:a 2:b 3:c 200:nobody's");
}

#[test]
fn more_extra_rows_than_a_comparison_returns_are_deleted() {
    let (mut db, mut other) = two_sides("reexport_extra_many");
    db.run(DECLARE);
    db.update("f", "normal");
    other.run("insert into there select i, 'x' from generate_series(101, 10200) i");
    assert_eq!(reexport(&db), (10_100, vec![]));
    assert_eq!(text(&mut other.client, ROWS), "1:a 2:b 3:c");
}

#[test]
fn rows_of_others_stay_in_a_table_that_coco_has_not_made() {
    let (mut db, mut other) = two_sides("reexport_extra_adopted");
    other.run(
        "create table there (id int primary key, body text); insert into there values (9, 'mine')",
    );
    db.run(DECLARE);
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, "select managed::text from coco.targets"), "false");
    let note = "target \"there\" on server pg holds rows that no item has".to_owned();
    assert_eq!(reexport(&db), (0, vec![note]));
    assert_eq!(text(&mut other.client, ROWS), "1:a 2:b 3:c 9:mine");
    db.run("select * from coco.verify('f', outside => true, repair => true)");
    assert_eq!(text(&mut other.client, ROWS), "1:a 2:b 3:c");
    assert_eq!(reexport(&db), (0, vec![]));
}

#[test]
fn a_webhook_that_answers_no_digests_may_keep_extra_rows() {
    let receiver = Receiver::start();
    let mut db = with_hook("reexport_extra_hook", &receiver);
    db.run("insert into docs values (1, 'a')");
    declare(&mut db, "f");
    db.update("f", "normal");
    let note = "target \"out\" on server hook may hold rows that no item has".to_owned();
    assert_eq!(reexport(&db), (0, vec![note]));
}

#[test]
fn a_live_flow_is_reexported_too() {
    let (mut db, mut other) = two_sides("reexport_extra_live");
    db.run(DECLARE);
    db.update("f", "normal");
    db.run("select coco.start('f')");
    other.run("insert into there values (200, 'nobody''s')");
    assert_eq!(reexport(&db), (1, vec![]));
    assert_eq!(text(&mut other.client, ROWS), "1:a 2:b 3:c");
    db.run("select coco.stop('f')");
}
