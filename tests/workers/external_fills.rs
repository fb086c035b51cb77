//! First fills of targets outside this database: what they send, when, and what becomes of it when things go wrong.
#![cfg(all(feature = "http", feature = "postgres"))]

use crate::{http, sides, support};

use std::thread::JoinHandle;

use http::{Fault, Receiver};
use postgres::Client;
use sides::{UPPER, counted, declare, expected, fails, server_for, text, with_hook};
use support::server::until;
use support::{TestDb, explain};

/// More rows than indexes are filled with one by one.
const MANY: i64 = 2500;

/// Two databases: a source of many items, and a server "pg" that is the other.
fn many(name: &str) -> (TestDb, TestDb) {
    let mut db = TestDb::new(name);
    let other = TestDb::new(&format!("{name}_there"));
    server_for(&mut db, &other);
    db.run(&format!(
        "create extension amcheck;
         create table src (id int primary key, n int not null, body text);
         insert into src
         select i, i % 40, case when i % 50 = 0 then null
                                -- too long for a page, and for compression
                                when i % 500 = 1 then (select string_agg(md5(random()::text), '') from generate_series(1, 400) g where i > 0)
                                else md5(i::text) end
           from generate_series(1, {MANY}) i;
         analyze src"
    ));
    (db, other)
}

/// Whether the items were written by a fill: as of one moment. Of batches each item has its own.
fn is_filled(db: &mut TestDb, flow: &str) -> bool {
    let table = text(
        &mut db.client,
        &format!(
            "select tracking::text from coco.source where flow = '{flow}' and lookup_of is null"
        ),
    );
    let sql = format!("select count(distinct process_ordinal)::text from {table}");
    text(&mut db.client, &sql) == "1"
}

/// Looks whether each index of a flow's own tables has an entry for each row.
fn check_indexes(db: &mut TestDb, flow: &str) {
    let sql = format!(
        "select count(bt_index_check(i.indexrelid, true))::text from pg_index i
          where i.indrelid in (select tracking from coco.source where flow = '{flow}' and lookup_of is null
                               union all select relation from coco.target where flow = '{flow}'
                               union all select outbox from coco.target where flow = '{flow}')"
    );
    let row = db.client.query_one(&sql, &[]);
    row.unwrap_or_else(|e| panic!("{}", explain(&e)));
}

/// A table as one text; nothing where it does not exist.
fn content(client: &mut Client, table: &str) -> String {
    let name = format!("select (to_regclass('{table}') is null)::text");
    if !table.starts_with('(') && text(client, &name) == "true" {
        return String::new();
    }
    text(client, &format!("select string_agg(t::text, E'\\n' order by t::text) from {table} as t"))
}

#[test]
fn a_fill_of_a_target_that_is_down_waits_in_the_outbox() {
    let mut receiver = Receiver::start();
    let mut db = with_hook("external_fill_down", &receiver);
    db.run("alter server hook options (add batch_size '100')");
    db.run("insert into docs select i, repeat('b' || i, 30) from generate_series(1, 3000) i");
    declare(&mut db, "f");
    receiver.stop();
    fails(&mut db.client, "select * from coco.update('f')", "08001");
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "3000");
    // It changes meanwhile: what is newer comes after.
    db.run("update docs set body = 'new' where id = 7; delete from docs where id = 8");
    fails(&mut db.client, "select * from coco.update('f')", "08001");
    receiver.start_again();
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    // The other way round: it goes down while it is being filled.
    db.run(&format!(
        "select coco.create_flow('g', 'docs', '{UPPER}', 'other', '{{id}}', server => 'hook')"
    ));
    receiver.forget_requests();
    receiver.next(Fault::KeepHalf);
    fails(&mut db.client, "select * from coco.update('g')", "08006");
    db.run("update docs set body = 'newer' where id = 7");
    assert_eq!(counted(&mut db, "g"), (1, 1, 0, 0));
    assert_eq!(receiver.rows("g", "other"), expected(&mut db.client, UPPER, "q.id"));
}

#[test]
fn a_fill_that_takes_long_waits_in_the_outbox() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_fill_long", &receiver);
    // 1,000 are sent at once.
    db.run("insert into docs select i, 'b' || i from generate_series(1, 8000) i");
    declare(&mut db, "f");
    receiver.next(Fault::Hold);
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || {
        session.batch_execute("select * from coco.update('f')").expect("an update");
    });
    let outbox = text(&mut db.client, "select outbox::text from coco.target");
    let waits = format!("select count(*)::text from {outbox}");
    until("it is sent", || !receiver.requests().is_empty());
    assert_eq!(text(&mut db.client, &waits), "0");
    std::thread::sleep(std::time::Duration::from_secs(11));
    receiver.release();
    waiting.join().expect("a session");
    assert_eq!(text(&mut db.client, &waits), "7000");
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
}

#[test]
fn another_query_comes_while_a_fill_is_sent() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_fill_query", &receiver);
    db.run("insert into docs select i, 'b' || i from generate_series(1, 3000) i");
    db.run("alter server hook options (add batch_size '1000')");
    declare(&mut db, "f");
    receiver.next(Fault::Hold);
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || {
        let result = session.batch_execute("select * from coco.update('f')");
        result.err().and_then(|e| e.code().map(|c| c.code().to_owned()))
    });
    until("it is sent", || !receiver.requests().is_empty());
    let query = "select id, lower(body) as body, length(body) as size from docs";
    db.run(&format!("select coco.set_query('f', 'out', '{query}')"));
    receiver.release();
    assert_eq!(waiting.join().expect("a session").as_deref(), Some("40001"));
    assert_eq!(counted(&mut db, "f"), (3000, 3000, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, query, "q.id"));
}

#[test]
fn a_fill_sends_what_batches_send() {
    let (mut db, mut other) = many("external_fill");
    db.run("create function quiet() returns trigger language plpgsql as 'begin return new; end'");
    for (shape, query, key, options) in [
        ("rows", "select upper(body) as body, id, n from src", "{id}", ""),
        (
            "pieces",
            "select id, k, substr(body, 1, 40) || k as piece from src, generate_series(1, n % 4) as k",
            "{k,id}",
            "",
        ),
        (
            "groups",
            "select n, count(*) as many, string_agg(body, ',' order by id) as bodies from src group by n",
            "{n}",
            ", source_key => '{n}'",
        ),
        ("none", "select id, body from src where id < 0", "{id}", ""),
    ] {
        let batched = format!("{shape}_batched");
        for flow in [shape, &batched] {
            db.run(&format!(
                "select coco.create_flow('{flow}', 'src', $q${query}$q$, '{flow}', '{key}', server => 'pg'{options});
                 select coco.add_target('{flow}', '{flow}_here', $q${query}$q$, '{key}')"
            ));
        }
        let ledger = |db: &mut TestDb, flow: &str| {
            let sql = format!(
                "select relation::text from coco.target where flow = '{flow}' and outbox is not null"
            );
            text(&mut db.client, &sql)
        };
        let (filled, beside) = (ledger(&mut db, shape), ledger(&mut db, &batched));
        // A trigger wants more than rows and index entries: batch by batch.
        db.run(&format!(
            "create trigger quiet before insert on {beside} for each row execute function quiet()"
        ));
        let counts = [shape, &batched].map(|flow| db.update(flow, "normal").remove(0));
        assert_eq!(counts[0], counts[1], "{shape}");
        assert!(is_filled(&mut db, shape), "{shape}");
        assert!(!is_filled(&mut db, &batched), "{shape}");
        let mut same = |db: &mut TestDb| {
            assert_eq!(content(&mut db.client, &filled), content(&mut db.client, &beside));
            let there = content(&mut other.client, shape);
            assert_eq!(there, content(&mut other.client, &batched), "{shape}");
            assert_eq!(there, content(&mut db.client, &format!("{shape}_here")), "{shape}");
            db.verify_clean(shape);
            check_indexes(db, shape);
        };
        same(&mut db);
        // From there on it is one as any other.
        db.run("update src set body = 'new' where id in (3, 7); delete from src where id = 5");
        for mode in ["normal", "reexport"] {
            let counts = [shape, &batched].map(|flow| db.update(flow, mode).remove(0));
            assert_eq!(counts[0], counts[1], "{shape} {mode}");
            same(&mut db);
        }
        db.run("insert into src values (5, 5, 'back')");
        for flow in [shape, &batched] {
            db.run(&format!("select coco.drop_flow('{flow}', keep_targets => false)"));
        }
    }
    assert_eq!(text(&mut other.client, "select to_regclass('rows')::text"), "");
}

#[test]
fn of_a_fill_that_fails_the_items_at_fault_are_found() {
    let (mut db, mut other) = many("external_fill_fails");
    for (flow, query, key, code, rows) in [
        ("raises", "select id, 1 / (id - 1203) as x from src", "{id}", "22012", MANY - 1),
        (
            "twice",
            "select id, k % 3 as k from src, generate_series(1, case when id = 1203 then 4 else 2 end) k",
            "{id,k}",
            "21000",
            2 * (MANY - 1),
        ),
    ] {
        db.run(&format!(
            "select coco.create_flow('{flow}', 'src', '{query}', '{flow}', '{key}', server => 'pg')"
        ));
        assert_eq!(counted(&mut db, flow), (MANY, rows, 0, 1), "{flow}");
        let errors =
            format!("select sqlstate || ' ' || source_key from coco.errors where flow = '{flow}'");
        assert_eq!(text(&mut db.client, &errors), format!("{code} {{\"id\": 1203}}"));
        let there = text(&mut other.client, &format!("select count(*)::text from {flow}"));
        assert_eq!(there, rows.to_string(), "{flow}");
        check_indexes(&mut db, flow);
        db.verify_clean(flow);
    }
}

#[test]
fn a_row_of_a_fill_is_evaluated_once() {
    let (mut db, mut other) = many("external_fill_once");
    db.run(
        "create sequence seen;
         select coco.create_flow('f', 'src', 'select id, nextval(''seen'') as no from src', 'out', '{id}', server => 'pg')",
    );
    assert_eq!(counted(&mut db, "f"), (MANY, MANY, 0, 0));
    assert!(is_filled(&mut db, "f"));
    let last = text(&mut db.client, "select last_value::text from seen");
    let there = "select count(distinct no) || ' ' || max(no) from out";
    assert_eq!(text(&mut other.client, there), format!("{MANY} {last}"));
    assert_eq!(last, MANY.to_string());
}

#[test]
fn of_a_fill_that_is_ended_nothing_is_sent() {
    let (mut db, mut other) = many("external_fill_ended");
    db.run(
        "create table gate (closed bool); insert into gate values (true);
         create function slow(id int) returns int language plpgsql as $$
         begin
           if id = 2400 and exists (select from public.gate where closed) then perform pg_sleep(3600); end if;
           return id;
         end $$;
         select coco.create_flow('f', 'src', 'select id, slow(id) as n, body from src', 'out', '{id}', server => 'pg')",
    );
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || support::update(&mut session, "f", "normal").is_err());
    let sleeps = "select coalesce(max(pid), 0)::text from pg_stat_activity
                   where backend_type = 'coco update' and datname = current_database() and wait_event = 'PgSleep'";
    until("it is in the middle", || text(&mut db.client, sleeps) != "0");
    let pid = text(&mut db.client, sleeps);
    text(&mut db.client, &format!("select pg_terminate_backend({pid}, 60000)::text"));
    assert!(waiting.join().expect("a session"), "its worker was ended");
    // The table was made ahead, and that is known.
    assert_eq!(text(&mut other.client, "select count(*)::text from out"), "0");
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "0");
    assert_eq!(
        text(&mut db.client, "select managed::text from coco.target where flow = 'f'"),
        "true"
    );
    check_indexes(&mut db, "f");
    db.run("update gate set closed = false");
    assert_eq!(counted(&mut db, "f"), (MANY, MANY, 0, 0));
    assert!(is_filled(&mut db, "f"));
    let here = content(&mut db.client, "(select id, id as n, body from src)");
    assert_eq!(content(&mut other.client, "out"), here);
    check_indexes(&mut db, "f");
    db.verify_clean("f");
}

#[test]
fn a_target_that_cannot_be_opened_is_in_trouble_when_there_is_something_to_send() {
    let (mut db, other) = many("external_fill_closed");
    drop(other);
    db.run("create table later (id int primary key);
            select coco.create_flow('f', 'later', 'select id from later', 'out', '{id}', server => 'pg')");
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0));
    let trouble = "select coalesce(last_error, '') from coco.status where flow = 'f'";
    assert_eq!(text(&mut db.client, trouble), "");
    db.run("insert into later values (1)");
    let e = support::update(&mut db.client, "f", "normal").expect_err("nobody is there");
    let message = explain(&e);
    assert!(message.contains("could not deliver to target"), "{message}");
    let shown = text(&mut db.client, trouble);
    assert!(shown.starts_with("target \"out\" on server pg: database"), "{shown}");
}

#[test]
fn positions_go_on_after_a_fill() {
    let (mut db, other) = many("external_fill_positions");
    drop(other);
    db.run("select coco.create_flow('f', 'src', 'select id, body from src', 'out', '{id}', server => 'pg')");
    for change in
        ["select 1", "update src set body = 'new' where id = 7; delete from src where id = 8"]
    {
        db.run(change);
        support::update(&mut db.client, "f", "normal").expect_err("nobody is there");
    }
    let outbox = text(&mut db.client, "select outbox::text from coco.target");
    let sql = format!("select count(*) || ' ' || max(position) - min(position) from {outbox}");
    assert_eq!(text(&mut db.client, &sql), format!("{} {}", MANY + 2, MANY + 1));
    let sql = format!(
        "select string_agg(c1 || ' ' || upsert, ',' order by position) from {outbox} where position > {MANY}"
    );
    let last = text(&mut db.client, &sql);
    assert!(last == "8 false,7 true" || last == "7 true,8 false", "{last}");
}

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
                                    and l.classid = 'coco.target'::regclass)::text";
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
