//! Sources and lookups that are rewritten while a flow is updated.

mod support;

use std::sync::{Arc, Mutex, Weak};
use std::thread;

use support::server::{Server, Session};

fn shared() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(there) = shared.upgrade() {
        return there;
    }
    let server = Arc::new(Server::preloaded(&[]));
    *shared = Arc::downgrade(&server);
    server
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
