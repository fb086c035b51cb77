//! Changes that replication applies.

use super::{comes_right, looked_at, run, ten_rows, text};
use crate::support::{self, TestDb};
use postgres::Client;

#[test]
fn replicas_roles_changes_are_found_with_always() {
    let mut db = ten_rows("replica");
    db.run(
        "create table e (id int primary key, body text); insert into e values (1, 'a');
         select coco.create_flow('always', 'e', 'select id, body from e', 'u', '{id}', capture => 'always')",
    );
    looked_at(&mut db, "always");
    db.run("set session_replication_role = replica;
            update d set body = 'x' where id = 1; update e set body = 'x'; insert into e values (2, 'b');
            reset session_replication_role");
    assert_eq!(looked_at(&mut db, "always"), [2, 2, 2, 0]);
    // Without it they go by, until all is read again.
    assert_eq!(db.update("f", "normal")[0].seen, 0);
    assert_eq!(support::verify(&mut db.client, "f", true).expect("verify").len(), 1);
    db.verify_clean("f");
    // A flow that wants it gives it to the table.
    db.run("select coco.create_flow('too', 'd', 'select id, body from d', 'v', '{id}', capture => 'always')");
    comes_right(&mut db, "too");
    comes_right(&mut db, "f");
    db.run("set session_replication_role = replica; update d set body = 'y' where id = 1; reset session_replication_role");
    assert_eq!(looked_at(&mut db, "too"), [1, 1, 1, 0]);
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

/// Waits until a query gives this.
fn wait_for(client: &mut Client, sql: &str, expected: &str) {
    let began = std::time::Instant::now();
    loop {
        let found = text(client, sql);
        if found == expected {
            return;
        }
        assert!(began.elapsed().as_secs() < 60, "{sql} should give {expected}, gives {found}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn what_a_subscription_applies_is_found_with_always() {
    let remove = "do $$ begin perform pg_drop_replication_slot('coco_capture_test'); exception when undefined_object then null; end $$";
    let unsubscribe = "do $$ begin if exists (select from pg_subscription where subname = 'coco_capture_test') then
         alter subscription coco_capture_test disable; alter subscription coco_capture_test set (slot_name = none); end if; end $$;
         drop subscription if exists coco_capture_test";
    // Of a run that was ended.
    let mut postgres = support::connect_to("postgres");
    if let Some(mut left) = support::try_connect_to("coco_test_capture_subscriber") {
        run(&mut left, unsubscribe);
    }
    run(&mut postgres, remove);
    let mut publisher = TestDb::new("capture_publisher");
    let mut db = TestDb::new("capture_subscriber");
    let table = "create table d (id int primary key, body text)";
    publisher.run(table);
    publisher.run("insert into d values (1, 'a'); create publication p for table d");
    publisher.run("select pg_create_logical_replication_slot('coco_capture_test', 'pgoutput')");
    db.run(table);
    db.run("select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'always')");
    looked_at(&mut db, "f");
    db.run(&format!(
        "create subscription coco_capture_test connection '{}' publication p with (create_slot = false, slot_name = 'coco_capture_test')",
        publisher.url()
    ));
    let rows = "select coalesce(string_agg(id || body, ',' order by id), '') from d";
    wait_for(&mut db.client, rows, "1a");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    publisher.run("insert into d values (2, 'b'), (3, 'c'); update d set body = 'x' where id = 1; delete from d where id = 3");
    wait_for(&mut db.client, rows, "1x,2b");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    publisher.run("truncate d; insert into d values (5, 'e')");
    wait_for(&mut db.client, rows, "5e");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 2]);
    db.run(unsubscribe);
    wait_for(
        &mut postgres,
        "select count(*)::text from pg_replication_slots where slot_name = 'coco_capture_test' and active",
        "0",
    );
    run(&mut postgres, remove);
}
