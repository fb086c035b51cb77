//! The captured table is altered, renamed or dropped, and so is its flow.

use std::sync::{Arc, Mutex};

use super::{comes_right, looked_at, partitioned, refused, run, ten_rows, text};
use crate::support;

#[test]
fn changes_while_triggers_were_disabled_are_found() {
    let mut db = ten_rows("disabled");
    db.run("alter table d disable trigger user; update d set body = 'x' where id = 1; alter table d enable trigger user");
    assert_eq!(looked_at(&mut db, "f"), [10, 1, 1, 0]);
    db.run("begin; alter table d disable trigger user; delete from d where id = 2; alter table d enable trigger user; commit");
    assert_eq!(looked_at(&mut db, "f"), [9, 0, 0, 1]);
    db.run("alter table d disable trigger user; update d set body = 'y' where id = 1");
    comes_right(&mut db, "f");
    db.run("update d set body = 'z' where id = 3");
    comes_right(&mut db, "f");
    db.run("alter table d enable trigger user; update d set body = 'z' where id = 4");
    assert_eq!(looked_at(&mut db, "f"), [9, 1, 1, 0]);
    db.run("update d set body = 'z' where id = 5");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_trigger_dropped_by_hand_costs_scans_and_no_change() {
    let mut db = ten_rows("dropped_trigger");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = heard.clone();
    let mut client = db.connect_hearing(move |m| hear.lock().expect("unharmed").push(m));
    db.run("do $$ begin execute (select format('drop trigger %I on d', tgname) from pg_trigger where tgrelid = 'd'::regclass and tgname like '%update'); end $$;
            update d set body = 'x' where id = 1");
    let c = support::update(&mut client, "f", "normal").expect("an update").remove(0);
    assert_eq!((c.seen, c.upserted), (10, 1), "{c:?}");
    let said = heard.lock().expect("unharmed").join("\n");
    assert!(said.contains("not every change of"), "{said}");
    db.run("update d set body = 'y' where id = 2; insert into d values (11, 'a')");
    comes_right(&mut db, "f");
    // Another flow puts it back.
    db.run("select coco.create_flow('g', 'd', 'select id, body from d', 'u', '{id}', capture => 'trigger')");
    comes_right(&mut db, "f");
    comes_right(&mut db, "g");
    db.run("update d set body = 'z' where id = 2");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    assert_eq!(looked_at(&mut db, "g"), [1, 1, 1, 0]);
}

#[test]
fn renaming_and_moving_a_table_disturbs_nothing() {
    let mut db = ten_rows("renamed");
    db.run("alter table d rename to \"Odd name\"; create schema s; alter table \"Odd name\" set schema s;
            update s.\"Odd name\" set body = 'x' where id = 1; create table d (id int); insert into d values (77)");
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.evaluated), (1, 1), "{c:?}");
    assert_eq!(text(&mut db.client, "select body from t where id = 1"), "x");
}

#[test]
fn other_columns_that_come_and_go_disturb_nothing() {
    let mut db = ten_rows("columns");
    let mut writer = db.connect();
    run(&mut writer, "update d set body = 'w' where id = 1");
    db.run("alter table d add more int, add again int default 5; alter table d drop column unused");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    run(&mut writer, "insert into d values (11, 'a', 1, 2); update d set body = 'b' where id = 2");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    db.run("alter table d add much text default repeat('x', 10); cluster d using d_pkey");
    comes_right(&mut db, "f");
    run(&mut writer, "update d set more = 3");
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.evaluated), (11, 0), "{c:?}");
}

#[test]
fn a_renamed_key_column_does_not_reach_writers() {
    let mut db = ten_rows("renamed_key");
    let mut writer = db.connect();
    run(&mut writer, "insert into d values (11, 'a')");
    db.run("alter table d rename id to number");
    run(
        &mut writer,
        "insert into d values (12, 'a'); update d set number = 20 where number = 1; delete from d where number = 2",
    );
    run(&mut writer, "begin; savepoint s; truncate d; rollback to s; commit");
    db.run("insert into d values (13, 'b')");
    db.run("alter table d rename number to id");
    run(&mut writer, "insert into d values (14, 'b')");
    comes_right(&mut db, "f");
    db.run("update d set body = 'z' where id = 14");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn another_type_of_a_key_column_does_not_reach_writers() {
    let mut db = ten_rows("key_type");
    // Once there is a target, its view holds the column fast.
    refused(&mut db.client, "alter table d alter id type bigint", "0A000");
    db.run("select coco.drop_flow('f'); select coco.create_flow('f'); select coco.add_source('f', 'd', capture => 'trigger')");
    let mut writer = db.connect();
    run(&mut writer, "insert into d values (11, 'c')");
    db.run("alter table d alter id type bigint");
    run(
        &mut writer,
        "insert into d values (5000000000, 'd'); update d set id = 70 where id = 1; delete from d where id = 2",
    );
    db.run("alter table d alter id type text using id::text collate \"C\"");
    run(
        &mut writer,
        "insert into d values ('x', 'x'); update d set id = 'y' where id = 'x'; truncate d",
    );
    db.run("alter table d drop column id");
    run(&mut writer, "insert into d values ('x'); delete from d");
}

#[test]
fn a_dropped_source_leaves_nothing_in_the_way() {
    let mut db = ten_rows("dropped");
    refused(&mut db.client, "drop table d", "2BP01");
    db.run("drop table d cascade; create table d (id int primary key, body text); insert into d values (1, 'a')");
    assert!(support::update(&mut db.client, "f", "normal").is_err());
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert_eq!(
        text(&mut db.client, "select count(*)::text from pg_class where relname like 'log\\_%'"),
        "0"
    );
    db.run("select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

const LEFT: &str = "select (select count(*) from pg_trigger where tgname like 'coco%')
    || ' triggers, ' || (select count(*) from pg_class where relname ~ '^log_' and relkind = 'r') || ' segments, '
    || (select count(*) from coco_internal.capture) || ' captures'";

#[test]
fn the_last_flow_takes_triggers_and_log_along() {
    let mut db = ten_rows("drop_flow");
    db.run("select coco.create_flow('g', 'd', 'select id, body from d', 'u', '{id}', capture => 'trigger')");
    let mut writer = db.connect();
    run(&mut writer, "insert into d values (11, 'a')");
    looked_at(&mut db, "g");
    db.run("select coco.drop_flow('f')");
    run(&mut writer, "insert into d values (12, 'a')");
    assert_eq!(looked_at(&mut db, "g"), [1, 1, 1, 0]);
    db.run("select coco.drop_flow('g')");
    assert_eq!(text(&mut db.client, LEFT), "0 triggers, 0 segments, 0 captures");
    run(&mut writer, "insert into d values (13, 'a')");
}

#[test]
fn a_flow_is_dropped_while_its_table_is_in_use() {
    let mut db = ten_rows("drop_in_use");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = heard.clone();
    let mut client = db.connect_hearing(move |m| hear.lock().expect("unharmed").push(m));
    let mut writer = db.connect();
    run(&mut writer, "begin; insert into d values (11, 'a')");
    run(&mut client, "set lock_timeout = 5000; select coco.drop_flow('f', keep_targets => false)");
    let said = heard.lock().expect("unharmed").join("\n");
    assert!(
        said.contains("could not drop trigger") && said.contains("the table is in use"),
        "{said}"
    );
    run(
        &mut writer,
        "insert into d values (12, 'a'); update d set body = 'x'; truncate d; insert into d values (13, 'b'); commit",
    );
    run(&mut writer, "insert into d values (14, 'a')");
    db.run("insert into d values (15, 'a')");
    // What was left is in nobody's way.
    db.run("select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')");
    run(&mut writer, "insert into d values (16, 'a')");
    comes_right(&mut db, "f");
    run(&mut writer, "insert into d values (17, 'a')");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("select coco.drop_flow('f')");
    assert_eq!(text(&mut db.client, LEFT), "0 triggers, 0 segments, 0 captures");
}

#[test]
fn a_flow_is_dropped_while_a_partition_is_in_use() {
    let mut db = partitioned("drop_partition_in_use");
    let mut writer = db.connect();
    run(&mut writer, "begin; insert into p2 (id, part, body) values (50, 2, 'a')");
    db.run("set lock_timeout = 5000; begin; select coco.drop_flow('f')");
    // Not even while the transaction that drops it is open.
    run(
        &mut writer,
        "set lock_timeout = 5000; insert into p2 (id, part, body) values (51, 2, 'a')",
    );
    let mut other = db.connect();
    run(&mut other, "set lock_timeout = 5000; insert into p values (52, 1, 'a')");
    db.run("commit");
    run(&mut writer, "insert into p values (53, 1, 'a'); commit");
    run(&mut other, "insert into p values (54, 1, 'a')");
}

#[test]
fn without_the_extension_writers_go_on() {
    let mut db = ten_rows("extension");
    let mut writer = db.connect();
    run(&mut writer, "insert into d values (11, 'a')");
    db.run("drop extension coco cascade");
    run(&mut writer, "insert into d values (12, 'a'); truncate d; insert into d values (1, 'a')");
    db.run("create extension coco; drop table t;
            select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')");
    run(&mut writer, "insert into d values (2, 'a')");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    run(&mut writer, "insert into d values (3, 'a')");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_second_key_on_a_partitioned_table_is_added_while_a_partition_is_written() {
    let mut db = partitioned("second_key");
    db.run("update p set body = id::text; alter table p alter body set not null");
    looked_at(&mut db, "f");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = ["p1", "p2", "p"]
        .into_iter()
        .enumerate()
        .map(|(n, table)| {
            let (mut client, stop) = (db.connect(), stop.clone());
            std::thread::spawn(move || {
                let part = n % 2 + 1;
                let mut written = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let id = 1000 * (n + 1) + written % 500;
                    run(
                        &mut client,
                        &format!(
                            "begin; delete from {table} where id = {id};
                        insert into {table} (id, part, body) values ({id}, {part}, 'w'); commit"
                        ),
                    );
                    written += 1;
                }
            })
        })
        .collect();
    for n in 0..5 {
        db.run(&format!("select coco.create_flow('g{n}', 'p', 'select body, count(*) as n from p group by body', 'u{n}', '{{body}}', source_key => '{{body}}', capture => 'trigger')"));
        db.update(&format!("g{n}"), "normal");
        db.update("f", "normal");
        db.run(&format!("select coco.drop_flow('g{n}')"));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for w in writers {
        w.join().expect("no writer fails");
    }
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}
