//! Lookups: what changes in them is never lost, whatever items and lookups are meanwhile, wherever a turn ends, and
//! whoever goes on after it.

use crate::support;

use std::sync::Arc;
use std::thread;

use support::server::{Server, Session, SharedServer};

fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

/// Items of a batch. A turn takes four of them, and more when others have left something over.
const BATCH: i32 = 5;

/// Documents with authors, and a flow `named` that is not updated yet. It takes its time for each, so that a turn
/// is seen before the next one.
fn declared(server: &Server, name: &str, source: &str) -> Session {
    let mut db = server.database(name);
    db.run(&format!(
        "create table authors (id int primary key, name text not null);
         create table docs (id int primary key, author int not null, body text not null default 'a');
         create function slow(t text) returns text stable language plpgsql as
           $$ begin perform pg_sleep(0.005); return t; end $$;
         insert into authors values (1, 'old'), (2, 'other');
         insert into docs select i, 1 from generate_series(1, 100) i;
         select coco.create_flow('named');
         select coco.add_source('named', 'docs'{source});
         select coco.add_lookup('named', 'authors',
           affects => 'select d.id from docs d join authors a on a.id = d.author');
         select coco.add_target('named', 'named_t',
           'select d.id, d.body, slow(a.name) as name from docs d left join authors a on a.id = d.author', '{{id}}');
         select coco.alter_flow('named', batch_size => {BATCH})"
    ));
    db
}

/// The same, live; and paused as soon as all is as it should be.
fn live(server: &Server, name: &str) -> Session {
    let mut db = declared(server, name, "");
    begin(&mut db);
    db
}

fn begin(db: &mut Session) {
    db.run("select coco.start('named')");
    db.caught_up("named");
    pause(db);
}

/// When a turn that is under way has ended.
fn pause(db: &mut Session) {
    db.run("select coco.alter_flow('named', paused => true)");
}

fn go_on(db: &mut Session) {
    db.run("select coco.alter_flow('named', paused => false)");
}

/// In a transaction each: a turn takes all that one has changed, and then no more than its share.
fn one_by_one(db: &mut Session, from: i32, to: i32, statement: &str) {
    db.run(&format!(
        "do $$ begin for i in {from}..{to} loop {statement}; commit; end loop; end $$"
    ));
}

#[test]
fn an_item_that_is_another_for_a_moment_is_evaluated_with_what_changed_meanwhile() {
    let server = shared();
    let mut db = declared(&server, "moment", "");
    db.run("select coco.update('named')");
    let away = ["update docs set author = 2 where id = 1", "delete from docs where id = 1"];
    let back = ["update docs set author = 1 where id = 1", "insert into docs values (1, 1)"];
    for (n, (away, back)) in away.iter().zip(back).enumerate() {
        db.run(away);
        db.run(&format!("update authors set name = 'new {n}' where id = 1"));
        let mut holder = server.connect("moment");
        holder.run("begin; lock table docs");
        let mut other = server.connect("moment");
        let update = thread::spawn(move || other.run("select coco.update('named')"));
        db.until("select exists (select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database())");
        holder.run(back);
        holder.run("commit");
        update.join().expect("it goes through");
        db.run("select coco.update('named')");
        db.verify("named");
    }
}

#[test]
fn an_item_that_is_another_at_the_end_of_a_turn_is_evaluated_when_it_is_back() {
    let server = shared();
    for (name, meanwhile) in [("turn", "select 1"), ("rewritten_turn", "vacuum full docs")] {
        let mut db = live(&server, name);
        one_by_one(&mut db, 3, 100, "update docs set author = 2 where id = i");
        db.run("update docs set author = 2 where id = 1");
        db.run("update authors set name = 'new' where id = 1");
        go_on(&mut db);
        db.until("select exists (select from named_t where name = 'other')");
        pause(&mut db);
        assert_eq!(db.text("select name from named_t where id = 1"), "old", "it is not its turn");
        db.run("update docs set author = 1 where id = 1");
        // The log is followed no more, but read as a whole.
        db.run(meanwhile);
        go_on(&mut db);
        db.settle("named");
        assert_eq!(db.text("select name from named_t where id = 1"), "new");
    }
}

#[test]
fn a_lookup_that_is_another_at_the_end_of_a_turn_is_looked_up_again_when_it_is_back() {
    let server = shared();
    let mut db = live(&server, "lookup_turn");
    db.run("insert into authors select i, 'n' || i from generate_series(3, 100) i");
    db.run("update docs set author = id where id > 2");
    go_on(&mut db);
    db.settle("named");
    pause(&mut db);
    one_by_one(&mut db, 3, 100, "update authors set name = 'm' || i where id = i");
    db.run("update authors set name = 'for a moment' where id = 1");
    db.run("update docs set body = 'b' where id = 1");
    go_on(&mut db);
    db.until("select name = 'for a moment' from named_t where id = 1");
    pause(&mut db);
    assert!(
        db.holds("select exists (select from named_t where name like 'n%')"),
        "more is to come"
    );
    db.run("update authors set name = 'old' where id = 1");
    go_on(&mut db);
    db.settle("named");
}

/// Has the next turn read all documents, and set aside what is more than it takes.
fn rewritten(db: &mut Session) {
    db.run("vacuum full docs");
}

const SOME_ARE_NEW: &str =
    "select count(*) filter (where name = 'new') between 1 and 99 from named_t";

#[test]
fn what_is_set_aside_is_found_again_by_who_comes_next() {
    let server = shared();
    let cancel = "select pg_cancel_backend(pid) from pg_stat_activity
                   where backend_type = 'coco worker' and datname = current_database()";
    let ways = [
        ("aside_cancel", cancel),
        ("aside_update", "select coco.stop('named'); select coco.update('named')"),
    ];
    for (name, way) in ways {
        let mut db = live(&server, name);
        rewritten(&mut db);
        db.run("update authors set name = 'new' where id = 1");
        go_on(&mut db);
        db.until(SOME_ARE_NEW);
        db.run(way);
        if way == cancel {
            db.caught_up("named");
        }
        db.verify("named");
        assert_eq!(db.number("select count(*) from named_t where name = 'new'"), 100, "{name}");
    }
}

#[test]
fn an_item_that_was_set_aside_as_another_is_evaluated_when_it_is_back() {
    let server = shared();
    let ways = [("aside_back", "select 1"), ("aside_stopped", "select coco.stop('named')")];
    for (name, way) in ways {
        let mut db = live(&server, name);
        rewritten(&mut db);
        db.run("update docs set author = 2");
        db.run("update authors set name = 'new' where id = 1");
        go_on(&mut db);
        db.until("select exists (select from named_t where name = 'other')");
        pause(&mut db);
        assert_eq!(db.text("select name from named_t where id = 100"), "old", "it is set aside");
        db.run("update docs set author = 1 where id = 100");
        go_on(&mut db);
        db.run(way);
        db.run("select coco.start('named')");
        db.settle("named");
        assert_eq!(db.text("select name from named_t where id = 100"), "new");
    }
}

#[test]
fn a_lookup_that_is_another_while_slices_are_worked_off_is_looked_up_again() {
    let server = shared();
    let mut db = live(&server, "slices");
    rewritten(&mut db);
    db.run("update docs set body = 'b'");
    go_on(&mut db);
    db.until("select exists (select from named_t where body = 'b')");
    pause(&mut db);
    db.run("update authors set name = 'for a moment' where id = 1");
    // An item that is not of a slice, and is no item of that author's then.
    db.run("update docs set author = 2 where id = 1");
    go_on(&mut db);
    db.until("select exists (select from named_t where name = 'for a moment')");
    pause(&mut db);
    db.run("update authors set name = 'old' where id = 1");
    db.run("update docs set author = 1 where id = 1");
    go_on(&mut db);
    db.settle("named");
}

#[test]
fn a_source_that_is_scanned_is_read_with_its_lookups() {
    let server = shared();
    let scanned = ", capture => 'scan', refresh_interval => '1 hour'";
    let mut db = declared(&server, "scanned", scanned);
    begin(&mut db);
    // Nobody would read it within the hour.
    db.run("update docs set author = 2 where id = 1");
    db.run("update authors set name = 'new' where id = 1");
    go_on(&mut db);
    db.until("select name = 'new' from named_t where id = 100");
    pause(&mut db);
    db.run("update docs set author = 1 where id = 1");
    go_on(&mut db);
    db.run("select coco.update('named')");
    db.verify("named");
    assert_eq!(db.text("select name from named_t where id = 1"), "new");
}

/// Gives the table another file, in which rows are that only this transaction has written.
const REWRITE: [&str; 2] = [
    "alter table docs add column more float not null default random()",
    "alter table authors add column more float not null default random()",
];

#[test]
fn an_update_that_waits_for_a_table_to_be_rewritten_reads_what_is_there_then() {
    let server = shared();
    let mut db = declared(&server, "rewrites", "");
    db.run("select coco.update('named')");
    for rewrite in REWRITE {
        db.run("update docs set body = body || 'b' where id = 1");
        let mut altering = server.connect("rewrites");
        altering.run(&format!("begin; {rewrite}"));
        let mut other = server.connect("rewrites");
        let update = thread::spawn(move || {
            other.rows("select row(upserted, deleted) from coco.update('named')")
        });
        db.until("select exists (select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database())");
        altering.run("commit");
        assert_eq!(update.join().expect("it goes through"), ["(1,0)"], "{rewrite}");
        db.verify("named");
    }
}

#[test]
fn a_worker_does_not_wait_for_a_table_that_is_being_rewritten_and_reads_what_is_there_then() {
    let server = shared();
    let mut db = live(&server, "rewritten_live");
    db.run("create table s (id int primary key); select coco.create_flow('other', 's', 'select id from s', 'other_t', '{id}'); select coco.start('other')");
    for rewrite in REWRITE {
        db.run("update docs set body = body || 'b' where id = 1");
        let mut altering = server.connect("rewritten_live");
        altering.run(&format!("begin; {rewrite}"));
        go_on(&mut db);
        db.until("select last_error like 'could not obtain lock on relation %' from coco.status where flow = 'named'");
        db.run("insert into s select count(*) from s");
        db.settle("other");
        altering.run("commit");
        db.settle("named");
        assert_eq!(db.number("select count(*) from named_t"), 100);
        assert_eq!(
            db.number("select deleted from coco.workers where deleted > 0 union all select 0"),
            0
        );
        pause(&mut db);
    }
}

#[test]
fn a_snapshot_from_before_a_rewrite_is_not_read_with() {
    let server = shared();
    let mut db = declared(&server, "older", "");
    db.run("select coco.update('named')");
    let refused = "40001 could not serialize access due to concurrent rewrite of relation public.";
    for (rewrite, table) in REWRITE.iter().zip(["docs", "authors"]) {
        for (n, reading) in
            ["coco.update('named')", "coco.verify('named')", "coco.preview('named')"]
                .iter()
                .enumerate()
        {
            let mut older = server.connect("older");
            older.run("begin isolation level repeatable read; select count(*) from named_t");
            db.run(&rewrite.replace("more", &format!("more_{n}")));
            let said = older.fails(&format!("select count(*) from {reading}"));
            assert_eq!(said, format!("{refused}{table}"), "{reading}");
            older.run("rollback");
        }
    }
    assert_eq!(db.number("select count(*) from named_t"), 100);
    // What the transaction itself has rewritten it reads.
    db.run("begin isolation level repeatable read; alter table docs add own float default random(); select coco.update('named'); commit");
    db.verify("named");
}
