//! Live flows: workers on real servers, through all that happens to servers.

use crate::support;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use support::explain;
use support::server::{BOUND, Server, Session, SharedServer, Stop, comes, kill, until};

/// A server with coco preloaded, for tests that need nothing of their own but a database.
fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

/// A flow `f` from table `f_s` (id, v) to table `f_t` (id, twice v).
fn declare(db: &mut Session, f: &str) {
    db.run(&format!(
        "create table {f}_s (id int primary key, v int not null);
         insert into {f}_s select i, i from generate_series(1, 100) i;
         select coco.create_flow('{f}', '{f}_s', 'select id, v * 2 as v from {f}_s', '{f}_t', '{{id}}')"
    ));
}

fn started(db: &mut Session, f: &str) {
    declare(db, f);
    db.run(&format!("select coco.start('{f}')"));
    db.settle(f);
}

fn state(db: &mut Session, f: &str) -> String {
    db.text(&format!("select state from coco.status where flow = '{f}'"))
}

/// The processes of workers in this database.
const WORKERS: &str = "select pid from pg_stat_activity
  where backend_type = 'coco worker' and datname = current_database()";

fn worker(db: &mut Session) -> i32 {
    db.until(
        "select count(*) > 0 from pg_stat_activity
               where backend_type = 'coco worker' and datname = current_database()",
    );
    db.number(WORKERS) as i32
}

/// Items evaluated by the workers of this database, when they have done what they are doing.
fn evaluated(db: &mut Session) -> i64 {
    db.until("select bool_and(state = 'waiting') from coco.workers");
    db.number("select sum(evaluated) from coco.workers")
}

fn is_quiet(line: &str) -> bool {
    let words = ["ERROR", "FATAL", "PANIC", "WARNING", "coco"];
    // The rest of a message of several lines begins with a tab.
    let rest = line.starts_with('\t') || line.contains("listening on");
    // Autovacuum, too, finds now and then that a database has just been dropped.
    let vacuum = line.contains("autovacuum worker") && line.contains("does not exist");
    rest || vacuum || !words.iter().any(|word| line.contains(word))
}

/// Lines of a server's log that somebody would look into.
fn noise(server: &Server) -> Vec<String> {
    server.log().lines().filter(|l| !is_quiet(l)).map(str::to_owned).collect()
}

#[test]
fn a_live_flow_follows_each_commit_until_it_is_stopped() {
    let server = shared();
    let mut db = server.database("follows");
    declare(&mut db, "f");
    assert_eq!(state(&mut db, "f"), "never updated");
    let e = db.fails("select coco.wait('f')");
    assert!(e.starts_with("55000 flow \"f\" is not live"), "{e}");
    db.run("select coco.start('f')");
    db.settle("f");
    assert_eq!(db.number("select count(*) from f_t"), 100);
    db.until("select state = 'live' and pending = 0 and last_error is null from coco.status");
    db.run("update f_s set v = v + 1 where id <= 10; delete from f_s where id > 90");
    db.settle("f");
    assert_eq!(db.number("select count(*) from f_t"), 90);
    // To start again what is live changes nothing.
    db.run("select coco.start('f'); update f_s set id = 1000 where id = 1");
    db.settle("f");
    db.run("truncate f_s");
    db.settle("f");
    assert_eq!(db.number("select count(*) from f_t"), 0);

    db.run("select coco.stop('f'); insert into f_s values (1, 1)");
    assert_eq!(state(&mut db, "f"), "behind");
    // Another flow is followed, while this one is left alone.
    started(&mut db, "g");
    assert_eq!(db.number("select count(*) from f_t"), 0);
    assert_eq!(db.number("select pending from coco.status where flow = 'f'"), 1);
    let before = evaluated(&mut db);
    db.run("select coco.start('f')");
    db.settle("f");
    assert_eq!(evaluated(&mut db), before + 1);
    assert_eq!(db.text("select row(id, v) from f_t"), "(1,2)");
}

#[test]
fn writers_wake_the_worker() {
    let server = shared();
    let mut db = server.database("wakes");
    started(&mut db, "f");
    let (turns, began) = (db.number("select transactions from coco.workers"), Instant::now());
    for n in 0..50 {
        db.run(&format!("update f_s set v = {n} where id = 7"));
        db.until(&format!("select v = {n} * 2 from f_t where id = 7"));
    }
    let turns = db.number("select transactions from coco.workers") - turns;
    // By itself it looks once a second.
    let alone = began.elapsed().as_secs() as i64 + 1;
    assert!(turns >= 50 && turns > 2 * alone, "{turns} turns in {alone} s");
    // What is rolled back is not followed.
    let before = evaluated(&mut db);
    db.run("begin; update f_s set v = 77777; rollback");
    db.run("begin; savepoint a; update f_s set v = 88888; rollback to a; update f_s set v = 55 where id = 5; commit");
    db.settle("f");
    assert_eq!(evaluated(&mut db), before + 1);
}

#[test]
fn subtransactions_and_a_transaction_that_stays_open() {
    let server = shared();
    let mut db = server.database("open_transaction");
    started(&mut db, "f");
    let mut other = server.connect("open_transaction");
    other.run(
        "begin; update f_s set v = 1000 where id = 1;
         savepoint a; update f_s set v = 1000 where id = 2;
         savepoint b; delete from f_s where id = 3; rollback to b;
         savepoint c; insert into f_s values (1001, 7); release c",
    );
    // Others are followed meanwhile, also past a rotation of the log.
    db.run("set coco.log_segment_size = '64kB'; alter database open_transaction set coco.log_segment_size = '64kB'");
    for n in 0..20 {
        db.run(&format!("update f_s set v = {n} where id > 10"));
        db.settle("f");
    }
    assert_eq!(db.text("select v from f_t where id = 1"), "2");
    other.run("commit");
    db.settle("f");
    assert_eq!(
        db.rows("select row(id, v) from f_t where id in (1, 2, 3, 1001) order by id"),
        ["(1,2000)", "(2,2000)", "(3,6)", "(1001,14)"]
    );
    // One that was begun before the flow was made live, and wrote after.
    other.run("begin isolation level repeatable read; select count(*) from f_s");
    declare(&mut db, "g");
    db.run("select coco.start('g')");
    other.run("insert into g_s values (500, 1); commit");
    db.settle("g");
    assert_eq!(db.text("select v from g_t where id = 500"), "2");
}

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
    // It can be cancelled.
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

#[test]
fn by_hand_and_by_worker_at_a_time() {
    let server = shared();
    let mut db = server.database("by_hand");
    started(&mut db, "f");
    let writing = server.connect("by_hand");
    let writer = std::thread::spawn(move || {
        let mut writing = writing;
        for n in 0..150 {
            writing.run(&format!("update f_s set v = {n} where id % 7 = {n} % 7"));
            writing.run(&format!(
                "delete from f_s where id = 10 + {n}; insert into f_s values (5000 + {n}, {n})"
            ));
        }
    });
    let mut modes = ["normal", "retry", "full_reprocess"].iter().cycle();
    while !writer.is_finished() {
        db.run(&format!("select * from coco.update('f', '{}')", modes.next().expect("another")));
    }
    writer.join().expect("the writer ends well");
    db.settle("f");
    assert!(noise(&server).iter().all(|l| !l.contains("deadlock")), "nobody waits for each other");
}

#[test]
fn the_logic_changes_while_live() {
    let server = shared();
    let mut db = server.database("logic_changes");
    db.run("create function g(int) returns int language sql immutable as 'select $1 + 1'");
    started(&mut db, "f");
    db.run("select coco.set_query('f', null, 'select id, g(v) as v from f_s')");
    db.settle("f");
    assert!(db.holds("select bool_and(t.v = s.v + 1) from f_s s join f_t t using (id)"));
    db.run(
        "create or replace function g(int) returns int language sql immutable as 'select $1 - 1'",
    );
    db.settle("f");
    assert!(db.holds("select bool_and(t.v = s.v - 1) from f_s s join f_t t using (id)"));
    // Worker and session agree on what the logic is.
    assert_eq!(db.number("select evaluated from coco.update('f')"), 0);
    let before = evaluated(&mut db);
    db.run("update f_s set v = 1234 where id = 1");
    db.settle("f");
    assert_eq!(evaluated(&mut db), before + 1);
    // Another column, and a new one in the source.
    db.run("alter table f_s add column w text default 'w'");
    db.run("select coco.set_query('f', null, 'select id, v, w from f_s')");
    db.until("select count(*) = 100 from f_t where to_jsonb(f_t) ->> 'w' = 'w'");
    db.settle("f");
    // In one transaction with data, and one that is rolled back.
    db.run("begin; select coco.set_query('f', null, 'select id, v, w || ''!'' as w from f_s'); update f_s set w = 'x' where id = 1; commit");
    db.until("select count(*) = 99 from f_t where w = 'w!'");
    db.settle("f");
    db.run("begin; select coco.set_query('f', null, 'select id, v, null::text as w from f_s'); rollback");
    db.run("update f_s set w = 'y' where id = 2");
    db.settle("f");
    assert_eq!(db.text("select w from f_t where id = 2"), "y!");
}

#[test]
fn a_flow_is_dropped_while_live_and_declared_again() {
    let server = shared();
    let mut db = server.database("drops_flow");
    started(&mut db, "other");
    for n in 0..10 {
        db.run(&format!(
            "create table s{n} (id int primary key, v int); insert into s{n} values (1, {n})"
        ));
        db.run(&format!(
            "select coco.create_flow('f', 's{n}', 'select id, v from s{n}', 't', '{{id}}')"
        ));
        db.run("select coco.start('f')");
        if n % 2 == 0 {
            db.settle("f");
            assert_eq!(db.text("select v from t"), n.to_string());
        }
        db.run(&format!(
            "update s{n} set v = 100; select coco.drop_flow('f', false); drop table s{n}"
        ));
    }
    db.run("update other_s set v = 3");
    db.settle("other");
    let about: Vec<String> = noise(&server).into_iter().filter(|l| l.contains("\"f\"")).collect();
    assert!(!about.iter().any(|l| l.contains("drops_flow")), "{about:?}");
}

#[test]
fn a_target_that_is_dropped_is_made_and_filled_again() {
    let server = shared();
    let mut db = server.database("target_dropped");
    started(&mut db, "f");
    db.run("drop table f_t cascade");
    db.until("select to_regclass('f_t') is not null");
    db.settle("f");
    assert_eq!(db.number("select count(*) from f_t"), 100);
    db.run("insert into f_s values (101, 1)");
    db.settle("f");
    // Emptied by somebody: found by verify, not by the worker.
    db.run("truncate f_t; update f_s set v = 0 where id = 1");
    db.caught_up("f");
    assert_eq!(db.number("select count(*) from coco.verify('f')"), 100);
    db.run("select * from coco.verify('f', true)");
    db.settle("f");
}

#[test]
fn a_flow_that_fails_as_a_whole_says_why_and_recovers() {
    let server = shared();
    let mut db = server.database("fails");
    db.run("create role fails_owner; grant create on schema public to fails_owner; grant usage on schema coco to fails_owner");
    started(&mut db, "healthy");
    db.run("create table f_s (id int primary key, v int); insert into f_s values (1, 1);
            create table secret (v int); insert into secret values (10);
            alter table f_s owner to fails_owner; grant select on secret to fails_owner;
            set role fails_owner;
            select coco.create_flow('f', 'f_s', 'select id, v + (select v from secret) as v from f_s', 'f_t', '{id}');
            select coco.start('f'); reset role");
    db.settle("f");
    // One after the other: others see what a transaction has written a moment before they hear of
    // the rights that it has changed.
    db.run("revoke select on secret from fails_owner");
    db.run("update f_s set v = 2");
    db.until("select state = 'failed' from coco.status where flow = 'f'");
    assert_eq!(
        db.text("select row(last_error, next_retry is not null) from coco.status where flow = 'f'"),
        "(\"permission denied for table secret\",t)"
    );
    // Again and again, less and less often, and nobody else is kept from anything.
    db.until("select attempts >= 2 from coco.flow_error where sqlstate = '42501'");
    assert!(db.holds("select next_retry - failed_at > '1900 ms' from coco.flow_error"));
    db.run("update healthy_s set v = 3");
    db.settle("healthy");
    assert!(!db.holds("select coco.wait('f', '10 ms')"), "it waits");
    db.run("grant select on secret to fails_owner");
    db.until("select state = 'live' from coco.status where flow = 'f'");
    db.settle("f");
    assert_eq!(db.text("select v from f_t"), "12");

    // To start it tries at once; to stop it forgets.
    db.run("revoke select on secret from fails_owner");
    db.run("update f_s set v = 3");
    db.until("select coalesce((select attempts from coco.flow_error), 0) >= 3");
    db.run("grant select on secret to fails_owner; select coco.start('f')");
    db.settle("f");
    db.run("revoke select on secret from fails_owner");
    db.run("update f_s set v = 4");
    db.until("select state = 'failed' from coco.status where flow = 'f'");
    db.run("select coco.stop('f')");
    assert_eq!(state(&mut db, "f"), "behind");
    assert_eq!(db.number("select count(*) from coco.flow_error"), 0);
    db.run("drop owned by fails_owner cascade; drop role fails_owner");
}

#[test]
fn what_a_flow_needs_goes_and_comes_back() {
    let server = shared();
    let mut db = server.database("needs");
    started(&mut db, "f");
    started(&mut db, "healthy");
    let trouble = "select coalesce((select hint is not null and message like '%was dropped%' from coco.flow_error), false)";
    // A used column that has another name is the same column.
    db.run("alter table f_s rename v to other; update f_s set other = 0 where id = 1");
    db.settle("f");
    assert_eq!(db.text("select v from f_t where id = 1"), "0");
    assert_eq!(state(&mut db, "f"), "live");
    db.run("alter table f_s rename other to v");
    // A column goes; the flow gets a query without it.
    db.run("alter table f_s drop column v cascade; insert into f_s values (1000)");
    db.until(trouble);
    db.run("select coco.set_query('f', null, 'select id, 0 as v from f_s')");
    db.until("select state = 'live' from coco.status where flow = 'f'");
    db.settle("f");
    // The source goes for good.
    db.run("drop table f_s cascade");
    db.until(trouble);
    assert_eq!(state(&mut db, "f"), "source dropped");
    db.run("update healthy_s set v = 4");
    db.settle("healthy");
    db.run("select coco.drop_flow('f')");
    assert_eq!(db.number("select count(*) from coco.flow_error"), 0);
    assert_eq!(db.rows("select flow from coco.status"), ["healthy"]);
}

#[test]
fn lookups_live() {
    let server = shared();
    let mut db = server.database("lookups");
    db.run("create table a (id int primary key, name text, unused int); insert into a values (1, 'x'), (2, 'y');
            create table d (id int primary key, a int, body text);
            insert into d select i, i % 2 + 1, 'b' || i from generate_series(1, 20) i;
            select coco.create_flow('f', 'd', 'select d.id, d.body || coalesce(a.name, ''-'') as body from d left join a on a.id = d.a', 't', '{id}');
            select coco.add_lookup('f', 'a', affects => 'select d.id from d join a on a.id = d.a');
            select coco.start('f')");
    db.settle("f");
    let before = evaluated(&mut db);
    db.run("update a set name = 'z' where id = 2");
    db.settle("f");
    assert_eq!(evaluated(&mut db), before + 10);
    assert_eq!(db.number("select count(*) from t where body like '%z'"), 10);
    // A row and what it is looked up by, in one transaction and in two.
    db.run("begin; insert into a values (3, 'n'); update d set a = 3 where id <= 5; commit");
    db.settle("f");
    db.run("update d set a = 4 where id = 1");
    db.run("insert into a values (4, 'm')");
    db.settle("f");
    assert_eq!(db.text("select body from t where id = 1"), "b1m");
    db.run("delete from a where id = 4");
    db.settle("f");
    assert_eq!(db.text("select body from t where id = 1"), "b1-");
    db.run("truncate a");
    db.settle("f");
    assert_eq!(db.number("select count(*) from t where body like '%-'"), 20);
    // The lookup goes.
    db.run("drop table a cascade");
    db.until("select count(*) = 1 from coco.flow_error where hint is not null");
    assert!(["source dropped", "query broken", "failed"].contains(&state(&mut db, "f").as_str()));
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

/// What was put off while the clock was ahead is not put off until then.
#[test]
fn a_clock_that_was_ahead_holds_nothing_up() {
    let server = shared();
    let mut db = server.database("clock");
    db.run(
        "create table d (id int primary key, v int); insert into d values (1, 0);
         create view w as select * from d;
         select coco.create_flow('f', 'd', 'select id, 1 / v as q from d', 'f_t', '{id}');
         select coco.create_flow('w', 'w', 'select id, v from w', 'w_t', '{id}',
           source_key => '{id}', refresh_interval => '1 hour')",
    );
    db.run("select coco.update('f')");
    for (ahead, evaluated) in [("30 minutes", 0), ("1 year", 1)] {
        db.run(&format!(
            "update coco_internal.tracking_1
                set failure = jsonb_set(failure, '{{next_retry}}', to_jsonb(now() + interval '{ahead}'))"
        ));
        let found = db.number("select sum(evaluated) from coco.update('f')");
        assert_eq!(found, evaluated, "{ahead}");
    }
    // A flow that could not be followed.
    db.run("select coco.start('f')");
    db.caught_up("f");
    db.run(
        "insert into coco.flow_error (flow, attempts, next_retry, sqlstate, message)
         select id, 1, now() + interval '1 year', 'XX000', 'x' from coco.flow where flow = 'f'",
    );
    db.run(&format!("select pg_terminate_backend(pid) from ({WORKERS}) as w"));
    db.run("update d set v = 1");
    db.settle("f");
    // A source that is read as a whole now and then.
    db.run("select coco.start('w')");
    db.settle("w");
    db.run(
        "select coco.stop('w');
         update coco.cursor set followed_at = now() + interval '1 year'
          where source = (select id from coco.source where flow = 'w')",
    );
    // A worker that has not heard of the stop would know by itself when it last read the source.
    db.run(&format!("select pg_terminate_backend(pid) from ({WORKERS}) as w"));
    db.run("insert into d values (2, 2); select coco.start('w')");
    db.settle("w");
}

#[test]
fn failing_items_are_tried_again_when_due() {
    let server = shared();
    let mut db = server.database("items");
    db.run("create table gate (d int); insert into gate values (0);
            create table s (id int primary key); insert into s values (1), (2), (3);
            select coco.create_flow('f', 's', 'select id, case id when 2 then 1 / (select d from gate) else 1 end as q from s', 't', '{id}');
            select coco.start('f')");
    db.until("select state = 'degraded' and failed_items = 1 from coco.status");
    db.until("select attempts >= 2 from coco.errors");
    db.caught_up("f");
    assert_eq!(db.number("select count(*) from t"), 2);
    db.run("update gate set d = 1");
    db.until("select state = 'live' from coco.status");
    db.settle("f");
    assert_eq!(db.number("select count(*) from t"), 3);
}

#[test]
fn a_flow_with_much_to_do_lets_others_have_their_turns() {
    let server = shared();
    let mut db = server.database("fair");
    for f in ["big", "small"] {
        started(&mut db, f);
    }
    // Of the flow's own: a worker that is there already would not hear of a setting of the database.
    db.run("select coco.alter_flow('big', batch_size => 5)");
    // A transaction is followed as a whole: many small ones.
    db.run(
        "create procedure fill() language plpgsql as $$
         begin
           for n in 1000 .. 4000 loop
             insert into big_s values (n, n);
             commit;
           end loop;
         end $$",
    );
    db.run("select coco.stop('big')");
    // Each item takes its time, whatever the machine, and all together a minute: more than five rounds need.
    db.run("create table pace (d float8); insert into pace values (0.02);
            select coco.set_query('big', null, 'select id, v * 2 + length(pg_sleep((select d from pace))::text) as v from big_s')");
    db.run("call fill()");
    db.run("select coco.start('big')");
    for n in 0..5 {
        db.run(&format!("update small_s set v = {n}"));
        db.caught_up("small");
        let left = "select count(*) from big_s where id not in (select id from big_t)";
        assert!(db.number(left) > 0, "the small flow waited for the big one, round {n}");
    }
    db.run("update pace set d = 0; select coco.alter_flow('big', batch_size => 0)");
    let pid = worker(&mut db);
    db.run(&format!("select pg_terminate_backend({pid})"));
    db.settle("big");
}

#[test]
fn what_cannot_be_captured_is_read_now_and_then() {
    let server = shared();
    let mut db = server.database("scans");
    let files = server.directory().join("files");
    std::fs::create_dir(&files).expect("a directory is made");
    std::fs::write(files.join("a.txt"), "one").expect("a file is written");
    db.run(&format!(
        "create table s (id int primary key, v int); insert into s values (1, 1), (2, 2);
         create view w as select id, v from s;
         create view files as select path, modified, convert_from(content, 'UTF8') as body from coco.local_files('{}');
         select coco.create_flow('seldom', 'w', 'select id, v from w', 'seldom_t', '{{id}}', source_key => '{{id}}', refresh_interval => '1 hour');
         select coco.create_flow('often', 'w', 'select id, v from w', 'often_t', '{{id}}', source_key => '{{id}}', refresh_interval => '100 ms');
         select coco.create_flow('files', 'files', 'select path, body from files', 'files_t', '{{path}}', source_key => '{{path}}', ordinal => 'modified', refresh_interval => '100 ms');
         select coco.start(f) from unnest('{{seldom,often,files}}'::text[]) f",
        files.display()
    ));
    db.settle("often");
    db.settle("files");
    db.until("select count(*) = 2 from seldom_t");
    let before = evaluated(&mut db);
    db.run("update s set v = 3 where id = 1");
    db.settle("often");
    assert_eq!(db.text("select v from often_t where id = 1"), "3");
    assert_eq!(evaluated(&mut db), before + 1);
    assert_eq!(db.text("select v from seldom_t where id = 1"), "1");
    assert!(!db.holds("select coco.wait('seldom', '100 ms')"), "it is not read for an hour");
    // Another query is reason to read it.
    db.run("select coco.set_query('seldom', null, 'select id, v + 10 as v from w')");
    db.until("select sum(v) = 25 from seldom_t");
    // Files.
    std::fs::write(files.join("b.txt"), "two").expect("a file is written");
    std::fs::remove_file(files.join("a.txt")).expect("a file is removed");
    db.caught_up("files");
    assert_eq!(db.rows("select row(path, body) from files_t"), ["(b.txt,two)"]);
    for f in ["often", "files"] {
        db.verify(f);
    }
}

#[test]
fn who_may_do_and_see_what() {
    let server = shared();
    let mut db = server.database("rights");
    db.run(
        "create role rights_owner login; create role rights_other login;
            grant create on schema public to rights_owner; grant usage on schema coco to rights_owner, rights_other",
    );
    let mut owner = server.connect_as("rights", "rights_owner");
    started(&mut owner, "f");
    assert_eq!(owner.number("select count(*) from coco.status where state = 'live'"), 1);
    let mut other = server.connect_as("rights", "rights_other");
    for call in ["start", "stop", "wait"] {
        let e = other.fails(&format!("select coco.{call}('f')"));
        assert!(e.starts_with("42501 must be owner of flow \"f\""), "{call}: {e}");
    }
    for view in ["status", "progress", "flows", "errors", "tracking"] {
        assert_eq!(other.number(&format!("select count(*) from coco.{view}")), 0, "{view}");
    }
    assert!(other.fails("table coco.flow_error").starts_with("42501 "));
    // What works on a flow is the owner's to see.
    owner.run("create function slow(int) returns int language plpgsql as 'begin perform pg_sleep(case $1 when 0 then 20 else 0 end); return $1; end'");
    owner.run("select coco.set_query('f', null, 'select id, slow(v) as v from f_s')");
    owner.settle("f");
    owner.run("update f_s set v = 0 where id = 1");
    owner.until("select count(*) = 1 from coco.workers where flow = 'f' and source = 'f_s' and state = 'working'");
    owner.until("select items_total = 1 from coco.progress where flow = 'f'");
    assert_eq!(other.rows("select row(flow, source, state) from coco.workers"), ["(,,working)"]);
    assert_eq!(other.number("select count(*) from coco.progress"), 0);
    assert_eq!(
        db.rows("select row(application_name, query, state) from pg_stat_activity where backend_type = 'coco worker' and datname = 'rights'"),
        ["(\"coco worker\",\"coco: flow f\",active)"]
    );
    // A worker runs as the flow's owner: what it may not do it cannot have done by its query.
    let pid = worker(&mut db);
    db.run(&format!("select pg_cancel_backend({pid})"));
    db.until("select state = 'failed' from coco.status where flow = 'f'");
    assert_eq!(
        owner.text("select last_error from coco.status"),
        "canceling statement due to user request"
    );
    owner.run("update f_s set v = 1 where id = 1");
    owner.until("select state = 'live' from coco.status");
    owner.settle("f");
    db.until("select state = 'idle' from pg_stat_activity where backend_type = 'coco worker' and datname = 'rights'");
    drop(owner);
    drop(other);
    db.run("drop owned by rights_owner, rights_other cascade");
    db.run("select coco.drop_flow('f'); drop role rights_owner, rights_other");
}

#[test]
fn the_owner_goes() {
    let server = shared();
    let mut db = server.database("owner_goes");
    db.run("create role goes login; create role heir; grant create on schema public to goes, heir; grant usage on schema coco to goes");
    let mut owner = server.connect_as("owner_goes", "goes");
    started(&mut owner, "f");
    drop(owner);
    started(&mut db, "healthy");
    assert!(db.fails("drop role goes").starts_with("2BP01 "));
    db.run(
        "reassign owned by goes to heir; drop owned by goes; drop role goes; update f_s set v = 9",
    );
    db.until("select count(*) = 1 from coco.flow_error where message like '%no longer exists%' and hint is not null");
    db.run("update healthy_s set v = 4");
    db.settle("healthy");
    assert_eq!(state(&mut db, "healthy"), "live");
    db.run("select coco.drop_flow('f'); drop owned by heir; drop role heir");
    assert_eq!(db.rows("select flow from coco.status"), ["healthy"]);
}

/// What takes everything away from a worker that is at work can meet it in a deadlock: then Postgres ends
/// one of both, and it is to be done again.
fn patiently(db: &mut Session, sql: &str) {
    for _ in 0..10 {
        match db.0.batch_execute(sql) {
            Ok(()) => return,
            Err(e) if e.code().is_some_and(|c| c.code() == "40P01") => {
                db.0.batch_execute("rollback").ok();
            }
            Err(e) => panic!("{sql}: {}", explain(&e)),
        }
    }
    panic!("{sql}: a deadlock each time");
}

#[test]
fn the_extension_is_dropped_and_made_again() {
    let server = shared();
    let mut db = server.database("extension");
    for n in 0..4 {
        started(&mut db, "f");
        db.run(&format!("update f_s set v = {n}"));
        if n % 2 == 0 {
            db.settle("f");
        }
        // The first ids are given out again.
        match n {
            0 => patiently(
                &mut db,
                "begin; drop extension coco cascade; drop table f_s, f_t; create extension coco; commit",
            ),
            1 => patiently(
                &mut db,
                "drop extension coco cascade; create extension coco; drop table f_s, f_t",
            ),
            2 => {
                patiently(&mut db, "drop extension coco cascade; drop table f_s, f_t");
                db.until("select count(*) = 0 from pg_stat_activity where backend_type = 'coco worker' and datname = current_database()");
                db.run("create extension coco");
            }
            _ => {}
        }
    }
    // Over the same table, with the same logic, while what the worker has in mind is of before.
    patiently(
        &mut db,
        "begin; drop extension coco cascade; update f_s set v = 77; create extension coco;
            drop table f_t;
            select coco.create_flow('f', 'f_s', 'select id, v * 2 as v from f_s', 'f_t', '{id}');
            select coco.start('f'); commit",
    );
    db.settle("f");
    assert_eq!(db.number("select count(*) from f_t where v = 154"), 100);
    db.until("select count(*) = 1 from pg_stat_activity where backend_type = 'coco worker' and datname = current_database()");
    db.until("select state = 'live' from coco.status");
}

#[test]
fn databases_are_copied_renamed_and_dropped_while_served() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("one");
    started(&mut db, "f");
    drop(db);
    let mut control = server.connect("postgres");
    control.run("create database two template one");
    for name in ["one", "two"] {
        let mut db = server.connect(name);
        db.run("update f_s set v = 3 where id = 1");
        db.settle("f");
    }
    // The copy is its own.
    let mut two = server.connect("two");
    two.run("insert into f_s values (1000, 1)");
    two.settle("f");
    drop(two);
    assert_eq!(server.connect("one").number("select count(*) from f_t"), 100);
    control.run("alter database two rename to three");
    let mut three = server.connect("three");
    three.run("insert into f_s values (1001, 1)");
    three.settle("f");
    drop(three);
    control.run("drop database three");
    control.run("drop database one");
    assert_eq!(noise(&server), Vec::<String>::new());
    // In a row, while workers come and go.
    for n in 0..3 {
        let mut db = server.database("again");
        declare(&mut db, "f");
        db.run("select coco.start('f')");
        if n == 0 {
            db.settle("f");
        }
        drop(db);
        control.run("drop database again");
    }
    // The server says so of a process that was started, and connects when the database is gone.
    let too_late = |l: &String| {
        l.starts_with("coco worker FATAL:") && l.ends_with(" does not exist")
            || l.contains("exited with exit code 1")
    };
    let said: Vec<String> = noise(&server).into_iter().filter(|l| !too_late(l)).collect();
    assert_eq!(said, Vec::<String>::new());
}

#[test]
fn every_database_is_served_and_goes_on_after_a_restart() {
    let server = Server::preloaded(&["coco.max_workers = 2"]);
    let mut all: Vec<Session> = vec![];
    for n in 0..3 {
        let mut db = server.database(&format!("d{n}"));
        for f in ["f", "g"] {
            started(&mut db, f);
        }
        all.push(db);
    }
    // The extension comes to a database that was there before.
    all[0].run("create database late template template0");
    let mut late = server.connect("late");
    late.run("create extension coco");
    started(&mut late, "f");
    started(&mut late, "g");
    for stop in [Stop::Fast, Stop::Immediate] {
        server.restart(stop);
        for name in ["d0", "d1", "d2", "late"] {
            let mut db = server.connect(name);
            db.run("update f_s set v = v + 1; update g_s set v = v + 1 where id < 50");
            for f in ["f", "g"] {
                db.settle(f);
            }
            db.until("select count(*) = 2 and count(distinct worker_no) = 2 from coco.workers");
        }
    }
    assert_eq!(noise_of_restarts(&server), Vec::<String>::new());
}

/// Noise, but for what a restart makes.
fn noise_of_restarts(server: &Server) -> Vec<String> {
    let ends = ["terminating ", "database system", "exited with exit code 1", "CONTEXT"];
    noise(server).into_iter().filter(|l| !ends.iter().any(|e| l.contains(e))).collect()
}

#[test]
fn workers_and_the_launcher_come_back() {
    let server = Server::preloaded(&["coco.max_workers = 2"]);
    let mut db = server.database("d");
    for f in ["f", "g"] {
        started(&mut db, f);
    }
    db.until("select count(*) = 2 from coco.workers");
    for seat in [1, 2] {
        let pid = db.number(&format!("select pid from coco.workers where worker_no = {seat}"));
        db.run(&format!("select pg_terminate_backend({pid})"));
        db.until(&format!(
            "select count(*) = 1 from coco.workers where worker_no = {seat} and pid <> {pid}"
        ));
        db.run("update f_s set v = v + 1; update g_s set v = v + 1");
        for f in ["f", "g"] {
            db.settle(f);
        }
    }
    let launcher = "select pid from pg_stat_activity where backend_type = 'coco launcher'";
    let pid = db.number(launcher);
    db.run(&format!("select pg_terminate_backend({pid})"));
    db.until(&format!("select count(*) = 1 from ({launcher}) l where pid <> {pid}"));
    let mut other = server.database("other");
    started(&mut other, "f");
    db.run("update f_s set v = v + 1");
    db.settle("f");
    // One that is killed takes all down, and all come back.
    let pid = worker(&mut db);
    kill("KILL", pid);
    until("sessions end", || db.0.batch_execute("select 1").is_err());
    let mut db = None;
    until("the server is there again", || {
        db = server.try_connect("d").ok().map(Session);
        db.is_some()
    });
    let mut db = db.expect("a session");
    db.run("update f_s set v = v + 1");
    for f in ["f", "g"] {
        db.settle(f);
    }
    db.until("select count(*) = 2 from coco.workers");
}

#[test]
fn a_worker_that_is_ended_young_comes_back() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("d");
    started(&mut db, "f");
    let began = std::time::Instant::now();
    let mut last = 0;
    for n in 0..5 {
        db.until(&format!("select count(*) = 1 from ({WORKERS}) as w (pid) where pid <> {last}"));
        last = worker(&mut db);
        db.run(&format!("select pg_terminate_backend({last}); update f_s set v = {n}"));
    }
    db.settle("f");
    assert!(began.elapsed() < std::time::Duration::from_secs(45), "{:?}", began.elapsed());
}

#[test]
fn databases_share_processes_that_are_too_few() {
    // Two are left for workers.
    let settings = ["max_worker_processes = 3", "max_logical_replication_workers = 0"];
    let server = Server::preloaded(&settings);
    let mut idle = server.database("idle");
    declare(&mut idle, "f");
    let mut all: Vec<Session> = (1..=4)
        .map(|n| {
            let mut db = server.database(&format!("d{n}"));
            started(&mut db, "f");
            db
        })
        .collect();
    for db in &mut all {
        db.run("update f_s set v = v + 1");
    }
    for db in &mut all {
        db.settle("f");
    }
    drop(all);
    server.restart(Stop::Fast);
    for n in 1..=4 {
        let mut db = server.connect(&format!("d{n}"));
        db.run("update f_s set v = v + 1");
        db.settle("f");
    }
}

#[test]
fn settings_are_taken_from_a_reload() {
    let server = Server::preloaded(&["coco.max_workers = 1"]);
    let mut db = server.database("d");
    for f in ["f", "g", "h"] {
        started(&mut db, f);
    }
    assert_eq!(db.number("select count(*) from coco.workers"), 1);
    server.reload(&["coco.max_workers = 3"]);
    db.until("select count(*) = 3 from coco.workers");
    for f in ["f", "g", "h"] {
        db.run(&format!("update {f}_s set v = v + 1"));
        db.settle(f);
    }
    server.reload(&["coco.max_workers = 1"]);
    db.until("select count(*) = 1 from coco.workers");
    for f in ["f", "g", "h"] {
        db.run(&format!("update {f}_s set v = v + 1"));
        db.settle(f);
    }
    // The size of a batch shows by what is done at a time.
    db.run("create function slow(int) returns int language plpgsql volatile as 'begin perform pg_sleep(0.01); return $1; end'");
    server.reload(&["coco.batch_size = 3"]);
    db.until(
        "show coco.batch_size = '3'"
            .replace("show coco.batch_size", "select current_setting('coco.batch_size')")
            .as_str(),
    );
    db.run("select coco.set_query('f', null, 'select id, slow(v) as v from f_s')");
    db.until("select items_done % 3 = 0 and items_done > 0 and items_done < 100 from coco.progress union all select false limit 1");
    db.settle("f");
}

#[test]
fn shutdown_does_not_wait_for_a_query() {
    for (stop, preload) in [(Stop::Fast, true), (Stop::Immediate, true), (Stop::Fast, false)] {
        let settings: &[&str] = if preload { &["shared_preload_libraries = 'coco'"] } else { &[] };
        let server = Server::start(settings);
        let mut db = server.database("d");
        started(&mut db, "f");
        db.run("create function slow(int) returns int language plpgsql volatile as 'begin perform pg_sleep(case $1 when -1 then 3600 else 0 end); return $1; end'");
        db.run("select coco.set_query('f', null, 'select id, slow(v) as v from f_s')");
        db.settle("f");
        db.run("update f_s set v = -1 where id = 1");
        db.until("select wait_event = 'PgSleep' from pg_stat_activity where backend_type = 'coco worker' and datname = current_database()");
        server.stop(stop);
        // What was done by halves is done again.
        server.start_again();
        let mut db = server.connect("d");
        db.run("update f_s set v = 1 where id = 1; update f_s set v = 2 where id = 2");
        if !preload {
            assert_eq!(state(&mut db, "f"), "no worker");
            db.run("select coco.start('f')");
        }
        // It may have begun before that, or not yet.
        until("the worker is cancelled and catches up", || {
            let pid = worker(&mut db);
            // Not while it begins: it would end, and another come a minute later.
            let cancel = "select pg_cancel_backend(pid) from pg_stat_activity where state = 'active' and pid =";
            db.0.batch_execute(&format!("{cancel} {pid}")).ok();
            db.holds("select coco.wait('f', '1 s')")
        });
        db.settle("f");
        assert_eq!(db.rows("select v from f_t where id < 3 order by id"), ["1", "2"]);
    }
}

#[test]
fn without_preload_a_worker_is_started_once_and_ends_with_the_server() {
    let server = Server::start(&[]);
    let mut db = server.database("d");
    declare(&mut db, "f");
    declare(&mut db, "g");
    let heard = Arc::new(Mutex::new(Vec::<String>::new()));
    let hear = heard.clone();
    let mut config = server.config("d");
    config.notice_callback(move |n| {
        hear.lock().expect("unpoisoned").push(format!("{} {}", n.severity(), n.message()));
    });
    let mut hearing = config.connect(postgres::NoTls).unwrap_or_else(|e| panic!("{}", explain(&e)));
    hearing.batch_execute("select coco.start('f')").expect("it starts");
    assert_eq!(*heard.lock().unwrap(), ["NOTICE flow \"f\" is live until the server restarts"]);
    db.settle("f");
    let pid = worker(&mut db);
    db.run("select coco.start('g'); select coco.start('f')");
    for n in 0..3 {
        db.run(&format!("update f_s set v = {n}; update g_s set v = {n} + 1"));
        for f in ["f", "g"] {
            db.settle(f);
        }
    }
    assert_eq!(db.rows(WORKERS), [pid.to_string()]);
    assert_eq!(db.number("select count(*) from coco.workers"), 0);
    assert_eq!(state(&mut db, "f"), "live");
    // It comes back after an end of its own.
    db.run(&format!("select pg_terminate_backend({pid})"));
    db.until(&format!("select count(*) = 1 from pg_stat_activity where backend_type = 'coco worker' and pid <> {pid}"));
    db.run("update f_s set v = 7");
    db.settle("f");
    server.restart(Stop::Fast);
    let mut db = server.connect("d");
    db.run("update f_s set v = 8");
    assert_eq!(state(&mut db, "f"), "no worker");
    assert!(!db.holds("select coco.wait('f', '10 ms')"), "nobody is there");
    db.run("select coco.start('f')");
    for f in ["f", "g"] {
        db.settle(f);
    }
    // Many at a time start one worker.
    server.restart(Stop::Fast);
    let sessions: Vec<_> = (0..8).map(|_| server.connect("d")).collect();
    std::thread::scope(|scope| {
        for (n, mut session) in sessions.into_iter().enumerate() {
            let flow = if n % 2 == 0 { "f" } else { "g" };
            scope.spawn(move || session.run(&format!("select coco.start('{flow}')")));
        }
    });
    let mut db = server.connect("d");
    for f in ["f", "g"] {
        db.run(&format!("update {f}_s set v = 9"));
        db.settle(f);
    }
    db.until("select count(*) = 1 from pg_stat_activity where backend_type = 'coco worker'");
    let mut control = server.connect("postgres");
    drop(db);
    drop(hearing);
    control.run("drop database d");
}

#[test]
fn where_no_worker_can_be_had_it_is_said() {
    let one = ["max_worker_processes = 1", "max_logical_replication_workers = 0"];
    let server = Server::start(&one);
    let mut db = server.database("d");
    started(&mut db, "f");
    let mut other = server.database("other");
    declare(&mut other, "f");
    other.run("select coco.start('f')");
    assert_eq!(state(&mut other, "f"), "no worker");
    assert!(!other.holds("select coco.wait('f', '10 ms')"), "nobody is there");
    // There is one when the other leaves.
    drop(db);
    server.connect("postgres").run("drop database d");
    other.run("select coco.start('f')");
    other.settle("f");
}

#[test]
fn a_standby_has_no_worker_until_it_is_promoted() {
    let server = Server::preloaded(&["wal_level = replica"]);
    let mut db = server.database("d");
    started(&mut db, "f");
    let standby = server.standby();
    db.run("update f_s set v = 3");
    db.settle("f");
    let mut there = standby.connect("d");
    there.until("select count(*) = 100 from f_t where v = 6");
    assert_eq!(
        there.number("select count(*) from pg_stat_activity where backend_type like 'coco%'"),
        0
    );
    assert_eq!(there.number("select count(*) from coco.workers"), 0);
    there.rows("select row(s.*) from coco.status s");
    assert!(there.fails("select coco.start('f')").contains("recovery"));
    server.stop(Stop::Fast);
    standby.promote();
    there.until("select not pg_is_in_recovery()");
    there.run("update f_s set v = 4; delete from f_s where id = 1");
    there.settle("f");
    assert_eq!(there.number("select count(*) from f_t where v = 8"), 99);
    assert_eq!(there.number("select count(*) from coco.workers"), 1);
}

#[test]
fn a_cancel_that_was_meant_for_another_flow_is_no_failure() {
    let server = Server::preloaded(&["coco.max_workers = 1"]);
    let mut db = server.database("d");
    db.run("create function slow(int) returns int language plpgsql volatile as 'begin perform pg_sleep(case when $1 = -1 then 3600 else 0 end); return $1; end'");
    for f in ["f", "g"] {
        started(&mut db, f);
        db.run(&format!(
            "select coco.set_query('{f}', null, 'select id, slow(v) as v from {f}_s')"
        ));
        db.settle(f);
    }
    let works_on = |f: &str| {
        format!("select count(*) = 1 from coco.workers where flow = '{f}' and state = 'working'")
    };
    db.run("update f_s set v = -1 where id = 1");
    db.until(&works_on("f"));
    db.run("select coco.stop('f'); update g_s set v = -1 where id = 1");
    db.until(&works_on("g"));
    db.run("update g_s set v = 1 where id = 1");
    // As when the turn that coco.stop ended had been over before the cancel came.
    let pid = worker(&mut db);
    db.run(&format!("select pg_cancel_backend({pid})"));
    db.settle("g");
    let failures = "select (select count(*) from coco.flow_error)
                         + (select count(*) from coco.history('g') where error is not null)";
    assert_eq!(db.number(failures), 0);
    assert_eq!(db.number("select v from g_t where id = 1"), 1);
}

#[test]
fn normal_operation_is_quiet() {
    let server = Server::preloaded(&["coco.max_workers = 2"]);
    let mut db = server.database("d");
    for f in ["f", "g", "h"] {
        started(&mut db, f);
    }
    for n in 0..30 {
        db.run(&format!("update f_s set v = {n} where id % 3 = 0; update g_s set v = {n}; begin; delete from h_s where id = {n}; savepoint a; truncate h_s; rollback to a; commit"));
    }
    for f in ["f", "g", "h"] {
        db.settle(f);
        db.run(&format!("select coco.stop('{f}')"));
        db.run(&format!("select coco.start('{f}')"));
        db.settle(f);
        db.run(&format!("select coco.drop_flow('{f}', false)"));
    }
    server.restart(Stop::Fast);
    assert_eq!(noise_of_restarts(&server), Vec::<String>::new());
}

/// Memory of a process that is its own, in kB.
#[cfg(target_os = "linux")]
fn own_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// `COCO_TEST_TURNS` makes it longer.
#[test]
#[cfg(target_os = "linux")]
fn a_worker_needs_no_more_memory_as_it_goes_on() {
    let more = std::env::var("COCO_TEST_TURNS").ok().and_then(|t| t.parse().ok()).unwrap_or(2000);
    let server = shared();
    let mut db = server.database("memory");
    for f in ["f", "g"] {
        started(&mut db, f);
    }
    db.run("create table a (id int primary key, x int); insert into a values (1, 1);
            select coco.add_lookup('g', 'a', affects => 'select id from a'); select coco.start('g')");
    let pid = worker(&mut db);
    let mut turns = |until: i64| {
        let mut n = 0;
        while db.number("select transactions from coco.workers") < until {
            n += 1;
            db.run(&format!("update f_s set v = {n} where id = {n} % 100 + 1"));
            db.run(&format!("update g_s set v = {n} where id = {n} % 100 + 1"));
            db.run(&format!("update a set x = {n}"));
        }
        own_memory(pid)
    };
    // What grows with turns grows in each stretch of them. What a worker does once a minute, and then keeps plans of, is in
    // one of them at most, or two.
    let mut before = turns(1000);
    assert!(before > 500, "the worker was seen: {before} kB");
    let mut grown = vec![];
    for n in 1..=4 {
        let after = turns(1000 + n * more);
        println!("a worker's own memory: {before} kB, {after} kB {more} turns later");
        grown.push(after.saturating_sub(before));
        if grown.last() < Some(&2048) {
            break;
        }
        before = after;
    }
    assert!(grown.last() < Some(&2048), "kB that {more} turns add, again and again: {grown:?}");
    assert!(comes(BOUND, || own_memory(pid) > 0), "it is still the same");
    for f in ["f", "g"] {
        db.settle(f);
    }
}

/// Gives the extension in this database another version, as a library that is newer or older finds it.
fn set_version(db: &mut Session, version: &str) {
    db.run(&format!(
        "set allow_system_table_mods = on;
         update pg_extension set extversion = '{version}' where extname = 'coco';
         reset allow_system_table_mods"
    ));
}

#[test]
fn a_library_of_another_version_says_so_and_writers_go_on() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("versions");
    started(&mut db, "f");
    let version = db.text("select extversion from pg_extension where extname = 'coco'");
    let left = format!("select count(*) = 0 from ({WORKERS}) as w");
    for (other, hint) in [
        ("0.0.9", "Run ALTER EXTENSION coco UPDATE."),
        ("99.0.0", "Install the library of that version, and restart the server"),
    ] {
        set_version(&mut db, other);
        let says = format!(
            "coco's library is version {version}, the extension in this database is {other}"
        );
        db.until(&left);
        let said = || server.log().lines().filter(|line| line.contains(&says)).count();
        until("the worker says it", || said() > 0);
        let mut session = server.connect("versions");
        let before = said();
        for call in [
            "select * from coco.update('f')",
            "select coco.drop_flow('f')",
            "select coco.start('f')",
            "select coco.wait('f')",
            "select * from coco.status",
            "select * from coco.verify('f')",
        ] {
            let error = session.0.batch_execute(call).expect_err(call);
            let text = explain(&error);
            assert!(text.contains(&says) && text.contains(hint), "{call}: {text}");
        }
        // Writers are captured all the same.
        session.run("update f_s set v = v + 1 where id <= 10; insert into f_s select max(id) + 1, 0 from f_s");
        session.run("truncate f_s; insert into f_s select i, i from generate_series(1, 100) i");
        session.run("update f_s set v = v + 1 where id <= 10");
        // The worker has said it once.
        assert_eq!(before, 1, "{}", server.log());
        set_version(&mut db, &version);
        let mut session = server.connect("versions");
        session.run("select coco.start('f')");
        session.settle("f");
        let off = "select count(*) from f_s s full join f_t t using (id) where s.v * 2 is distinct from t.v";
        assert_eq!(session.number(off), 0);
    }
}
