//! Rows that are sent before the local commit: nobody sees them until then.

use std::thread::JoinHandle;

use super::{MANY, content, is_filled, many};
use crate::sides::{counted, text};
use crate::support::server::until;
use crate::support::{self, TestDb, explain};

/// A fill whose evaluation waits for a lock at one of its last rows, when most of the others have been sent: in a
/// session of its own. Returns how it ended, where it fails the SQLSTATE.
fn gated(db: &mut TestDb) -> JoinHandle<Option<String>> {
    db.run(
        "create function gate(id int) returns int language plpgsql as $$
         begin
           if id = 2400 then perform pg_advisory_lock_shared(77); perform pg_advisory_unlock_shared(77); end if;
           return id;
         end $$;
         select coco.create_flow('f', 'src', 'select id, gate(id) as n, body from src', 'out', '{id}', server => 'pg');
         select pg_advisory_lock(77)",
    );
    let mut session = db.connect();
    std::thread::spawn(move || {
        let result = session.batch_execute("select * from coco.update('f')");
        result.err().and_then(|e| e.code().map(|c| c.code().to_owned()))
    })
}

/// How many rows a COPY there has taken, or the server's process in which it runs.
fn copied(other: &mut TestDb, what: &str) -> i64 {
    let sql = format!(
        "select coalesce(max({what}), 0)::text from pg_stat_progress_copy where datname = current_database()"
    );
    text(&mut other.client, &sql).parse().expect("a number")
}

const GATED: &str = "(select id, id as n, body from src)";

#[test]
fn what_is_sent_ahead_is_not_seen_before_it_is_committed_here() {
    let (mut db, mut other) = many("external_fill_ahead");
    let waiting = gated(&mut db);
    until("rows have arrived", || copied(&mut other, "tuples_processed") > 0);
    assert_eq!(content(&mut other.client, "out"), "");
    // Whoever ends it leaves nothing there.
    let ends = "select count(pg_cancel_backend(pid))::text from pg_stat_activity
                 where datname = current_database() and query like 'select * from coco.update%'";
    assert_eq!(text(&mut db.client, ends), "1");
    assert_eq!(waiting.join().expect("a session").as_deref(), Some("57014"));
    until("nothing is sent", || copied(&mut other, "pid") == 0);
    assert_eq!(content(&mut other.client, "out"), "");
    db.run("select pg_advisory_unlock(77)");
    assert_eq!(counted(&mut db, "f"), (MANY, MANY, 0, 0));
    assert_eq!(content(&mut other.client, "out"), content(&mut db.client, GATED));
    db.verify_clean("f");
}

#[test]
fn rows_that_are_lost_on_their_way_are_sent_once_more() {
    let (mut db, mut other) = many("external_fill_lost");
    let waiting = gated(&mut db);
    until("rows have arrived", || copied(&mut other, "tuples_processed") > 0);
    let pid = copied(&mut other, "pid");
    text(&mut other.client, &format!("select pg_terminate_backend({pid}, 60000)::text"));
    db.run("select pg_advisory_unlock(77)");
    assert_eq!(waiting.join().expect("a session"), None);
    assert!(is_filled(&mut db, "f"));
    assert_eq!(content(&mut other.client, "out"), content(&mut db.client, GATED));
    let waits = "select queued || coalesce(last_error, '') from coco.delivery_status";
    assert_eq!(text(&mut db.client, waits), "0");
}

#[test]
fn who_evaluates_does_not_wait_for_the_server() {
    let (mut db, mut other) = many("external_fill_slow");
    other.run("create table out (id int primary key, body text)");
    db.run("select coco.create_flow('f', 'src', 'select id, body from src', 'out', '{id}', server => 'pg')");
    let mut in_the_way = other.connect();
    in_the_way.batch_execute("begin; lock table out in share mode").expect("a lock");
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || support::update(&mut session, "f", "normal").is_ok());
    let tracked = format!("select (queued = {MANY})::text from coco.delivery_status");
    until("all is committed here", || text(&mut db.client, &tracked) == "true");
    in_the_way.batch_execute("commit").expect("a commit");
    assert!(waiting.join().expect("a session"));
    assert_eq!(
        content(&mut other.client, "out"),
        content(&mut db.client, "(select id, body from src)")
    );
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "0");
}

#[test]
fn a_query_that_frees_advisory_locks_does_not_free_the_target_of_a_fill() {
    let (mut db, mut other) = many("external_fill_freed");
    other.run("create table out (id int primary key, n int)");
    db.run(
        "create function free(id int) returns int language plpgsql as $$
         begin perform pg_advisory_unlock_all(); return id; end $$;
         select coco.create_flow('f', 'src', 'select id, free(id) as n from src', 'out', '{id}', server => 'pg')",
    );
    let mut in_the_way = other.connect();
    in_the_way.batch_execute("begin; lock table out in share mode").expect("a lock");
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || support::update(&mut session, "f", "normal").is_ok());
    let tracked = format!("select (queued = {MANY})::text from coco.delivery_status");
    until("all is committed here", || text(&mut db.client, &tracked) == "true");
    let sends = "select (count(*) = 1)::text from pg_stat_activity
                  where datname = current_database() and backend_type = 'coco update'
                    and wait_event in ('CocoDelivery', 'Extension')";
    until("rows are on their way", || text(&mut db.client, sends) == "true");
    let locked = "select exists (select from pg_locks l join pg_stat_activity a using (pid)
                                  where a.datname = current_database() and a.backend_type = 'coco update'
                                    and l.granted and l.locktype = 'object'
                                    and l.classid = 'coco_internal.target'::regclass)::text";
    assert_eq!(text(&mut db.client, locked), "true");
    in_the_way.batch_execute("commit").expect("a commit");
    assert!(waiting.join().expect("a session"));
    let rows = content(&mut db.client, "(select id, id as n from src)");
    assert_eq!(content(&mut other.client, "out"), rows);
}

/// Has little of what is to be sent kept in memory.
fn keep_little(db: &mut TestDb) {
    db.run(
        "do $$ begin
           execute format('alter database %I set maintenance_work_mem = ''1MB''', current_database());
         end $$",
    );
}

#[test]
fn more_than_memory_holds_is_sent_ahead_in_part() {
    let (mut db, mut other) = many("external_fill_large");
    keep_little(&mut db);
    let query =
        "select id, k, repeat(md5(id || ''-'' || k), 4) as body from src, generate_series(1, 5) k";
    db.run(&format!(
        "select coco.create_flow('f', 'src', '{query}', 'out', '{{id,k}}', server => 'pg')"
    ));
    assert_eq!(counted(&mut db, "f"), (MANY, 5 * MANY, 0, 0));
    let query = query.replace("''", "'");
    let sum = |rows: &str| {
        format!("select md5(string_agg(t::text, ',' order by id, k)) from {rows} as t")
    };
    let (here, there) = (sum(&format!("({query})")), sum("out"));
    assert_eq!(text(&mut other.client, &there), text(&mut db.client, &here));
    db.verify_clean("f");
}

#[test]
fn what_was_kept_for_another_type_is_not_sent_as_this_one() {
    let (mut db, mut other) = many("external_fill_types");
    other.run("create table out (id int, k int, n numeric, primary key (id, k))");
    // More than fits in one batch.
    let query = |expression: &str| {
        format!("select id, k, {expression} as n from src, generate_series(1, 40) k")
    };
    keep_little(&mut db);
    db.run(&format!(
        "select coco.create_flow('f', 'src', $${}$$, 'out', '{{id,k}}', server => 'pg')",
        query("(k / 2.0)::numeric")
    ));
    let mut in_the_way = other.connect();
    in_the_way.batch_execute("begin; lock table out in share mode").expect("a lock");
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || {
        let result = session.batch_execute("select * from coco.update('f')");
        result.err().map(|e| explain(&e)).unwrap_or_default()
    });
    let all = format!("select (queued = {})::text from coco.delivery_status", 40 * MANY);
    until("all is committed here", || text(&mut db.client, &all) == "true");
    db.run(&format!("select coco.set_query('f', null, $${}$$)", query("k::numeric(10,2)")));
    in_the_way.batch_execute("commit").expect("a commit");
    let message = waiting.join().expect("a session");
    assert!(message.contains("40001") && message.contains("changed while"), "{message}");
    db.update("f", "normal");
    let sums = |from: &str| format!("select count(*) || ' ' || sum(n * k) from {from}");
    let here = text(&mut db.client, &sums(&format!("({}) q", query("k::numeric(10,2)"))));
    assert_eq!(text(&mut other.client, &sums("out")), here);
    db.verify_clean("f");
}
