//! Partitioned tables, their partitions, and inheritance.

use super::{comes_right, looked_at, partitioned, run, ten_rows, text};
use crate::support::TestDb;

#[test]
fn changes_of_a_partitioned_table_and_of_its_partitions_are_found() {
    let mut db = partitioned("partitions");
    db.run("insert into p values (11, 1, 'a'), (12, 2, 'b'); update p set body = 'x' where id = 1");
    assert_eq!(looked_at(&mut db, "f"), [3, 3, 3, 0]);
    db.run("insert into p1 values (13, 1, 'a'); update p2 set body = 'y' where id = 12; delete from p2 where id = 3");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 1]);
    db.run("delete from p where id > 10; truncate p");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 12]);
}

#[test]
fn rows_that_move_between_partitions_are_found() {
    let mut db = partitioned("moves");
    db.run("update p set part = 3 - part where id in (1, 2)");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 2]);
}

#[test]
fn partitions_that_come_and_go_are_found_with_their_rows() {
    let mut db = partitioned("attach");
    db.run("create table p3 (id int not null, part int not null, body text, primary key (id, part)); insert into p3 values (1, 3, 'a'), (2, 3, 'b');
            alter table p attach partition p3 for values in (3)");
    assert_eq!(looked_at(&mut db, "f"), [12, 2, 2, 0]);
    db.run("update p3 set body = 'c' where id = 1");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("alter table p detach partition p3; update p3 set body = 'd'; insert into p3 values (3, 3, 'e')");
    assert_eq!(looked_at(&mut db, "f"), [10, 0, 0, 2]);
    db.run("update p3 set body = 'd'");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    db.run("alter table p attach partition p3 for values in (3)");
    assert_eq!(looked_at(&mut db, "f"), [13, 3, 3, 0]);
    db.run("drop table p3");
    assert_eq!(looked_at(&mut db, "f"), [10, 0, 0, 3]);
    db.run(
        "create table p4 partition of p for values in (4); insert into p4 values (1, 4, 'late')",
    );
    assert_eq!(looked_at(&mut db, "f"), [11, 1, 1, 0]);
    db.run("insert into p4 values (2, 4, 'later')");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("truncate p1");
    assert_eq!(looked_at(&mut db, "f"), [7, 0, 0, 5]);
    // What was truncated before, within one transaction, is truncated without a sign.
    db.run("begin; truncate p2; insert into p2 (id, part, body) values (1, 2, 'x'); select coco.update('f'); truncate p2; commit");
    assert_eq!(looked_at(&mut db, "f")[3], 1);
}

#[test]
fn a_partition_detached_concurrently_is_gone_at_once() {
    let mut db = partitioned("detach");
    // Somebody who still reads the partition keeps the detaching from ending.
    let (mut reader, mut detacher) = (db.connect(), db.connect());
    run(&mut reader, "begin isolation level repeatable read; select from p");
    let detaching = std::thread::spawn(move || {
        run(&mut detacher, "alter table p detach partition p1 concurrently")
    });
    let pending = "select count(*)::text from pg_inherits where inhdetachpending";
    while text(&mut db.client, pending) != "1" {
        std::thread::yield_now();
    }
    comes_right(&mut db, "f");
    assert_eq!(text(&mut db.client, "select count(*)::text from t"), "5");
    run(&mut reader, "commit");
    detaching.join().expect("detached");
    comes_right(&mut db, "f");
}

#[test]
fn changes_of_an_inheritance_tree_are_found() {
    let mut db = TestDb::new("capture_inheritance");
    db.run(
        "create table d (id int primary key, body text);
         create table c (extra int, primary key (id)) inherits (d);
         insert into d values (1, 'a'); insert into c values (2, 'b', 0);
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    db.run("update d set body = 'x' where id = 2; insert into c values (3, 'c', 0)");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    db.run("truncate only c; insert into c values (5, 'e', 0)");
    assert_eq!(looked_at(&mut db, "f"), [2, 1, 1, 2]);
    // A child that comes later has no trigger: it is scanned.
    db.run("create table late () inherits (d); insert into late values (4, 'd')");
    comes_right(&mut db, "f");
    db.run("update late set body = 'x'; alter table c no inherit d");
    comes_right(&mut db, "f");
    db.run("delete from late; drop table late");
    comes_right(&mut db, "f");
}

#[test]
fn a_table_that_becomes_a_part_is_scanned() {
    let mut db = ten_rows("becomes_part");
    db.run(
        "create table whole (id int primary key, body text, unused int) partition by range (id);
         alter table whole attach partition d for values from (0) to (1000);
         insert into whole values (50, 'x'); update whole set body = 'y' where id = 1",
    );
    comes_right(&mut db, "f");
    db.run("delete from whole where id = 50");
    comes_right(&mut db, "f");
    db.run("create table other (like d including all); insert into other values (2000, 'o'); drop table other;
            alter table whole detach partition d; update d set body = 'z' where id = 2");
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

#[test]
fn a_partition_can_be_a_source_beside_its_table() {
    let mut db = partitioned("part_source");
    db.run(
        "select coco.create_flow('part', 'p1', 'select id, body from p1', 'u', '{id}', source_key => '{id,part}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "part")[..3], [5, 5, 5]);
    comes_right(&mut db, "f");
    db.run("update p set body = 'x' where id in (1, 2); insert into p1 values (20, 1, 'y')");
    assert_eq!(looked_at(&mut db, "part"), [2, 2, 2, 0]);
    assert_eq!(looked_at(&mut db, "f"), [3, 3, 3, 0]);
    db.run("truncate p");
    comes_right(&mut db, "part");
    comes_right(&mut db, "f");
    assert_eq!(
        text(
            &mut db.client,
            "select count(*)::text from (select from t union all select from u) x"
        ),
        "0"
    );
    db.run("select coco.drop_flow('part'); insert into p values (1, 1, 'a')");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_partitioned_table_can_be_a_source_beside_its_partition() {
    let mut db = partitioned("whole_source");
    db.run(
        "select coco.drop_flow('f', keep_targets => false);
         select coco.create_flow('part', 'p1', 'select id, body from p1', 'u', '{id}', source_key => '{id,part}', capture => 'trigger');
         select coco.create_flow('f', 'p', 'select id, part, body from p', 't', '{id,part}', capture => 'trigger')",
    );
    comes_right(&mut db, "part");
    comes_right(&mut db, "f");
    db.run("update p set body = 'x' where id in (1, 2)");
    assert_eq!(looked_at(&mut db, "part"), [1, 1, 1, 0]);
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
}
