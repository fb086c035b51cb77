//! `coco.verify` with `outside`: what another Postgres really holds, found and mended.
#![cfg(all(feature = "http", feature = "postgres"))]

use crate::{http, sides, support};

use http::Receiver;
use sides::{declare, fails, server_for, text, with_hook};
use support::{TestDb, explain};

/// What coco.verify of the flow "f" finds, as texts in order.
fn found(db: &mut TestDb, arguments: &str) -> Vec<String> {
    let sql = format!(
        "select r from (select concat_ws(' ', target, difference, key::text) as r
                          from coco.verify('f', {arguments})) as q order by r collate \"C\""
    );
    let rows = db.client.query(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    rows.iter().map(|row| row.get(0)).collect()
}

/// Two databases with a flow "f" of this many rows, from `docs` here to `there`.
fn two_sides(name: &str, rows: u32) -> (TestDb, TestDb) {
    let mut db = TestDb::new(name);
    let other = TestDb::new(&format!("{name}_there"));
    server_for(&mut db, &other);
    db.run(&format!(
        "create table docs (id int primary key, body text, price numeric, at timestamptz);
         insert into docs select i, 'b' || i, i * 1.10, '2024-01-01'::timestamptz + i * interval '1 h'
           from generate_series(1, {rows}) i;
         select coco.create_flow('f', 'docs', 'select id, upper(body) as body, price, at from docs',
                                 'there', '{{id}}', server => 'pg')"
    ));
    db.update("f", "normal");
    (db, other)
}

const ALL: &str =
    "select md5(string_agg(concat_ws(' ', id, upper(body), price::text), ',' order by id)) from ";

fn assert_equal_sides(db: &mut TestDb, other: &mut TestDb) {
    let here = text(&mut db.client, &format!("{ALL} docs"));
    assert_eq!(text(&mut other.client, &format!("{ALL} there")), here);
}

const DIFFERENCES: [&str; 3] = [
    r#""there" on server pg different {"id": 7}"#,
    r#""there" on server pg extra {"id": 5000}"#,
    r#""there" on server pg missing {"id": 9}"#,
];

fn change(other: &mut TestDb) {
    other.run(
        "update there set price = price + 0 where id = 6;
         update there set body = 'edited' where id = 7;
         delete from there where id = 9;
         insert into there values (5000, 'nobody''s', 1, now())",
    );
}

#[test]
fn what_differs_there_is_found_and_mended() {
    let (mut db, mut other) = two_sides("verify_outside", 3000);
    let verified = "select (verified_at > now() - interval '1 h')::text from coco.delivery_status";
    assert_eq!(text(&mut db.client, verified), "");
    assert_eq!(found(&mut db, "outside => true"), [""; 0]);
    assert_eq!(text(&mut db.client, verified), "true");
    let metric = "select count(*)::text from coco.metrics
                   where metric = 'coco_target_verified_timestamp_seconds' and name = 'there'";
    assert_eq!(text(&mut db.client, metric), "1");
    change(&mut other);
    assert_eq!(found(&mut db, "repair => false"), [""; 0], "the ledger knows nothing of it");
    assert_eq!(found(&mut db, "outside => true"), DIFFERENCES);
    assert_eq!(found(&mut db, "outside => true"), DIFFERENCES, "it is not mended unasked");
    assert_eq!(found(&mut db, "outside => true, repair => true"), DIFFERENCES);
    assert_equal_sides(&mut db, &mut other);
    assert_eq!(found(&mut db, "outside => true"), [""; 0]);
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "0");
    db.verify_clean("f");
}

#[test]
fn changes_that_wait_are_delivered_first() {
    let (mut db, mut other) = two_sides("verify_outside_waiting", 100);
    db.run("update docs set body = 'new' where id = 1; delete from docs where id = 2; insert into docs values (101, 'more', 1, now())");
    assert_eq!(found(&mut db, "outside => true"), [""; 0]);
    assert_equal_sides(&mut db, &mut other);
}

#[test]
fn a_table_that_was_emptied_is_filled_in_parts() {
    let (mut db, mut other) = two_sides("verify_outside_emptied", 10_050);
    other.run("truncate there");
    let counted = "select count(*)::text from coco.verify('f', outside => true, repair => true)";
    assert_eq!(text(&mut db.client, counted), "10000");
    assert_eq!(text(&mut db.client, counted), "50");
    assert_eq!(text(&mut db.client, counted), "0");
    assert_equal_sides(&mut db, &mut other);
}

#[test]
fn the_row_of_a_failed_item_is_only_looked_for() {
    let mut db = TestDb::new("verify_outside_failing");
    let mut other = TestDb::new("verify_outside_failing_there");
    server_for(&mut db, &other);
    db.run(
        "create table docs (id int primary key, n int);
         insert into docs select i, i from generate_series(1, 50) i;
         select coco.create_flow('f', 'docs', 'select id, 100 / n as part from docs', 'there', '{id}', server => 'pg')",
    );
    db.update("f", "normal");
    db.run("update docs set n = 0 where id = 3");
    assert_eq!(db.update("f", "normal")[0].failed, 1);
    other.run("update there set part = 0 where id in (3, 4)");
    let failing = r#"failing {"id": 3}"#;
    let differs = r#""there" on server pg different {"id": 4}"#;
    assert_eq!(found(&mut db, "outside => true, repair => true").len(), 2);
    assert_eq!(found(&mut db, "outside => true"), [failing]);
    other.run("update there set part = 0 where id = 4");
    let all = found(&mut db, "outside => true");
    assert!(
        all.iter().any(|row| row == differs) && all.iter().any(|row| row == failing),
        "{all:?}"
    );
}

#[test]
fn a_live_flow_is_verified_too() {
    let (mut db, mut other) = two_sides("verify_outside_live", 200);
    db.run("select coco.start('f')");
    change(&mut other);
    assert_eq!(found(&mut db, "outside => true, repair => true"), DIFFERENCES);
    assert_eq!(found(&mut db, "outside => true"), [""; 0]);
    assert_equal_sides(&mut db, &mut other);
    db.run("select coco.stop('f')");
}

#[test]
fn tables_here_are_compared_with_those_there() {
    let (mut db, mut other) = two_sides("verify_outside_both", 20);
    db.run("select coco.add_target('f', 'here', 'select id, body from docs', '{id}')");
    db.update("f", "normal");
    db.run("delete from here where id = 5");
    other.run("delete from there where id = 5");
    let both = [
        r#""there" on server pg missing {"id": 5}"#.to_owned(),
        r#"public.here missing {"id": 5}"#.to_owned(),
    ];
    assert_eq!(found(&mut db, "outside => true, repair => true"), both);
    assert_eq!(found(&mut db, "outside => true"), [""; 0]);
}

#[test]
fn what_cannot_be_verified_is_said() {
    let receiver = Receiver::start();
    let mut db = with_hook("verify_outside_hook", &receiver);
    db.run("insert into docs values (1, 'a')");
    declare(&mut db, "f");
    let verify = "select * from coco.verify('f', outside => true)";
    let said = fails(&mut db.client, verify, "0A000");
    assert!(said.contains("target \"out\" on server hook cannot be verified"), "{said}");

    db.run("select coco.create_flow('here', 'docs', 'select id from docs', 'here', '{id}')");
    let said = fails(&mut db.client, "select * from coco.verify('here', outside => true)", "22023");
    assert!(said.contains("flow \"here\" has no target outside this database"), "{said}");

    let (mut db, mut other) = two_sides("verify_outside_dropped", 5);
    other.run("drop table there");
    let said = fails(&mut db.client, verify, "42704");
    assert!(said.contains("target \"there\" on server pg does not exist"), "{said}");
    other.run("create table there (id int primary key)");
    let said = fails(&mut db.client, verify, "42804");
    assert!(said.contains("could not verify target \"there\" on server pg"), "{said}");
}
