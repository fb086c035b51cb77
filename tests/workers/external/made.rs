//! What coco has made on the other side goes with its flow; what others have made stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sides::{fails, server_for, text};
use crate::support::server::until;
use crate::support::{self, TestDb};

#[test]
fn a_flow_goes_with_all_that_was_made_for_it_or_stays() {
    let mut db = TestDb::new("external_drop");
    let mut other = TestDb::new("external_drop_there");
    server_for(&mut db, &other);
    db.run(
        "create table docs (id int primary key, body text);
         insert into docs select i, 'b' || i from generate_series(1, 100) i;
         select coco.create_flow('f'); select coco.add_source('f', 'docs');
         select coco.add_target('f', 'here', 'select id, body from docs', '{id}');
         select coco.add_target('f', 'there', 'select id, body from docs', '{id}', server => 'pg');",
    );
    db.update("f", "normal");
    let drop = "select coco.drop_flow('f', keep_targets => false)";
    let there = "select count(*)::text from there";

    // Something hinders it here, or there.
    db.run("create view on_it as select * from here");
    fails(&mut db.client, drop, "2BP01");
    assert_eq!(text(&mut other.client, there), "100");
    db.run("drop view on_it; alter server pg options (set dbname 'coco_test_nowhere')");
    fails(&mut db.client, drop, "3D000");
    db.run("alter server pg options (set dbname 'coco_test_external_drop_there')");
    db.run("delete from docs where id = 1");
    db.update("f", "normal");
    db.verify_clean("f");
    assert_eq!(text(&mut other.client, there), "99");

    // Nothing is made again by a worker that follows the flow.
    db.run("select coco.start('f'); select coco.wait('f', '60 s')");
    let mut writer = db.connect();
    let ended = Arc::new(AtomicBool::new(false));
    let writing = std::thread::spawn({
        let ended = ended.clone();
        move || {
            let mut id = 1000;
            while !ended.load(Ordering::Relaxed) {
                writer.execute("insert into docs values ($1, 'new')", &[&id]).expect("a row");
                id += 1;
            }
        }
    });
    until("rows arrive", || text(&mut other.client, there).parse::<i32>().expect("a number") > 150);
    db.run("begin");
    db.run(drop);
    db.run("rollback");
    ended.store(true, Ordering::Relaxed);
    writing.join().expect("rows are written");
    assert_eq!(text(&mut db.client, "select to_regclass('here')::text"), "");
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.flows"), "0");
    assert_eq!(text(&mut other.client, "select to_regclass('there')::text"), "");
}

#[test]
fn a_table_that_could_not_be_made_is_not_coco_s_when_somebody_makes_it() {
    let mut db = TestDb::new("external_not_made");
    let mut other = TestDb::new("external_not_made_there");
    server_for(&mut db, &other);
    other.run(
        "do $$ begin create role coco_guest login; exception when duplicate_object or unique_violation then null; end $$;
         revoke create on schema public from public",
    );
    db.run(
        "alter user mapping for postgres server pg options (set user 'coco_guest');
         create table docs (id int primary key, body text); insert into docs values (1, 'a');
         select coco.create_flow('f', 'docs', 'select id, body from docs', 'out', '{id}', server => 'pg')",
    );
    let made = "select managed::text from coco_internal.target where flow = 'f'";
    fails(&mut db.client, "select * from coco.update('f')", "42501");
    assert_eq!(text(&mut db.client, made), "false");
    other.run("create table out (id int primary key, body text); grant all on out to coco_guest");
    db.update("f", "normal");
    assert_eq!(text(&mut other.client, "select string_agg(body, ',') from out"), "a");
    assert_eq!(text(&mut db.client, made), "false");
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert_eq!(text(&mut other.client, "select count(*)::text from out"), "1");
}

#[test]
fn a_table_that_somebody_else_makes_first_is_not_coco_s() {
    let mut db = TestDb::new("external_quicker");
    let mut other = TestDb::new("external_quicker_there");
    server_for(&mut db, &other);
    db.run(
        "create table docs (id int primary key, body text); insert into docs values (1, 'a');
         select coco.create_flow('f', 'docs', 'select id, body from docs', 'out', '{id}', server => 'pg')",
    );
    // Not seen yet when coco looks, and in its way when it makes one.
    other.run("begin; create table out (id int primary key, body text)");
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || support::update(&mut session, "f", "normal").is_ok());
    let made = "select managed::text from coco_internal.target where flow = 'f'";
    until("that it is made is noted", || text(&mut db.client, made) == "true");
    let waits = "select count(*)::text from pg_stat_activity
                  where query like 'create table %' and wait_event_type = 'Lock' and application_name = 'coco'";
    until("it is in the way", || text(&mut db.client, waits) == "1");
    other.run("commit");
    assert!(waiting.join().expect("a session"));
    assert_eq!(text(&mut db.client, made), "false");
    assert_eq!(text(&mut other.client, "select string_agg(body, ',') from out"), "a");
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert_eq!(text(&mut other.client, "select count(*)::text from out"), "1");
}
