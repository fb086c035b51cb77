//! `coco.wait` of a live flow.

use super::{shared, started, state};

#[test]
fn wait_says_when_its_time_is_over() {
    let server = shared();
    let mut db = server.database("waits");
    started(&mut db, "f");
    let mut other = server.connect("waits");
    other.run("begin; select * from coco.update('f')");
    db.run("insert into f_s values (1000, 1)");
    assert!(!db.holds("select coco.wait('f', '200 ms')"), "the flow is held by another");
    assert!(!db.holds("select coco.wait('f', '0')"), "no time is enough");
    assert_eq!(db.number("select pending from coco.status"), 1);
    other.run("commit");
    db.settle("f");
    assert!(db.holds("select coco.wait('f', '0')"), "all is there");
    // It can be canceled.
    other.run("begin; select * from coco.update('f')");
    db.run("insert into f_s values (1001, 1); set statement_timeout = '300ms'");
    assert!(db.fails("select coco.wait('f')").starts_with("57014 "));
    db.run("reset statement_timeout");
    // To stop a flow waits for whoever works on it.
    db.run("set lock_timeout = '200ms'");
    assert!(db.fails("select coco.stop('f')").starts_with("55P03 "));
    other.run("rollback");
    db.run("reset lock_timeout; select coco.stop('f')");
    // A worker may have followed the last row before the flow was stopped.
    let state = state(&mut db, "f");
    assert!(state == "behind" || state == "up to date", "{state}");
}

/// A scan's snapshot is of its begin: what is committed while it goes on is in the next one.
#[test]
fn to_wait_is_to_wait_for_a_scan_that_began_later() {
    let server = shared();
    let mut db = server.database("scan_before");
    db.run(
        "create table d (id int primary key); insert into d values (1);
         create view w as select * from d;
         create function slow(i int) returns int language plpgsql as
           $$ begin perform pg_sleep(2); return i; end $$;
         select coco.create_flow('f', 'w', 'select id, slow(id) as s from w', 'f_t', '{id}',
           source_key => '{id}', refresh_interval => '100 ms');
         select coco.start('f')",
    );
    db.until(
        "select exists (select from pg_stat_activity
                         where datname = current_database() and wait_event = 'PgSleep')",
    );
    db.run("insert into d values (2)");
    db.caught_up("f");
    assert_eq!(db.number("select count(*) from f_t"), 2);
}

/// Else the log is never emptied while sessions wait again and again.
#[test]
fn to_wait_keeps_no_lock_on_the_log() {
    let server = shared();
    let mut db = server.database("wait_locks");
    started(&mut db, "f");
    db.run("begin; select coco.wait('f', '60 s')");
    let locks = "select c.relname from pg_locks l join pg_class c on c.oid = l.relation
                  where l.pid = pg_backend_pid() and c.relname ~ '^log_[0-9]'";
    assert!(db.rows(locks).is_empty(), "{:?}", db.rows(locks));
    db.run("rollback");
}
