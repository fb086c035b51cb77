//! Live flows that follow what other flows write: readers see all of them as of one moment, and whoever waits for the
//! last one waits for all.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::server::{Server, Session, SharedServer};

fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

/// Sessions that write until they are told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Runs statement after statement in `count` sessions, each with a pause, so that ten flows can follow. `write`
    /// returns the next one, given the number of the writer and of its statement.
    fn start(
        server: &Server,
        database: &str,
        count: usize,
        write: impl Fn(usize, usize) -> String + Clone + Send + 'static,
    ) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |writer: usize| {
            let (mut session, stop, write) =
                (server.connect(database), stop.clone(), write.clone());
            std::thread::spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    session.run(&write(writer, n));
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        };
        let threads = (0..count).map(run).collect();
        Writers { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a writer goes on"));
    }
}

/// A flow `name` that copies `id` and `v`.
fn copies(db: &mut Session, name: &str, source: &str, target: &str) {
    db.run(&format!(
        "select coco.create_flow('{name}', '{source}', 'select id, v from {source}', '{target}', '{{id}}')"
    ));
}

#[test]
fn who_waits_for_the_last_of_ten_finds_each_committed_row() {
    let server = shared();
    let mut db = server.database("ten");
    db.run("create table t0 (id bigint primary key, v int not null)");
    for n in 1..=10 {
        copies(&mut db, &format!("f{n}"), &format!("t{}", n - 1), &format!("t{n}"));
    }
    db.run("select coco.start('f' || n) from generate_series(1, 10) n");
    db.caught_up("f10");
    let writers = Writers::start(&server, "ten", 4, |writer, n| {
        format!("insert into t0 values ({writer} * 1000000 + {n}, {n})")
    });
    for n in 0..30 {
        let id = 100_000_000 + n;
        db.run(&format!("insert into t0 values ({id}, 1)"));
        db.caught_up("f10");
        assert!(db.holds(&format!("select exists (select from t10 where id = {id})")), "{id}");
        db.run(&format!("update t0 set v = 2 where id = {id}"));
        db.caught_up("f10");
        assert_eq!(db.number(&format!("select v from t10 where id = {id}")), 2);
    }
    writers.stop();
    db.settle("f10");
    assert_eq!(
        db.text("select count(*) || ' ' || sum(v) from t10"),
        db.text("select count(*) || ' ' || sum(v) from t0")
    );
    db.until("select pending = 0 from coco.status where flow = 'f10'");
}

/// Flows `l` and `r` from `s`, and `both` over their targets.
fn diamond(server: &Server, name: &str) -> Session {
    let mut db = server.database(name);
    db.run(
        "create table s (id int primary key, v int not null);
         insert into s select i, i from generate_series(1, 100) i",
    );
    copies(&mut db, "l", "s", "l_t");
    copies(&mut db, "r", "s", "r_t");
    db.run(
        "select coco.create_flow('both');
         select coco.add_source('both', 'l_t');
         select coco.add_lookup('both', 'r_t', affects => 'select id from r_t');
         select coco.add_target('both', 'both_t',
           'select l.id, l.v as l, r.v as r from l_t l join public.r_t r on r.id = l.id', '{id}');
         select coco.start(f) from unnest('{l,r,both}'::text[]) f",
    );
    db.caught_up("both");
    db
}

const SUMS: &str = "select array[(select sum(v) from l_t), (select sum(v) from r_t), (select sum(l) from both_t), (select sum(r) from both_t)]";

#[test]
fn a_reader_sees_the_ends_of_a_diamond_as_of_one_moment() {
    let server = shared();
    let mut db = diamond(&server, "diamond");
    let mut changes = server.connect("diamond");
    let writers = Writers::start(&server, "diamond", 8, |writer, n| match n % 10 {
        0 => format!("insert into s values ({writer} * 1000000 + 1000 + {n}, 7)"),
        5 => format!("delete from s where id = {writer} * 1000000 + 1000 + {n} - 5"),
        _ => format!("update s set v = v + 1 where id = 1 + ({n} * 7 + {writer}) % 100"),
    });
    let mut seen = std::collections::BTreeSet::new();
    // Until the reader has seen many different states, and all the while; `make soak` reads for minutes.
    let seconds = std::env::var("COCO_SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let end = Instant::now() + Duration::from_secs(seconds);
    while seen.len() < 200 || Instant::now() < end {
        let sums = db.text(SUMS);
        let each: Vec<&str> = sums.trim_matches(['{', '}']).split(',').collect();
        assert!(each.iter().all(|sum| *sum == each[0]), "{sums}");
        if seen.insert(each[0].to_owned()) && seen.len() == 100 {
            // Also across a change of the catalog.
            changes.run("create table unrelated (id int); alter table s add column more int");
        }
    }
    writers.stop();
    for flow in ["l", "r", "both"] {
        db.settle(flow);
    }
    assert_eq!(db.number("select sum(v) from s"), db.number("select sum(l) from both_t"));
}

#[test]
fn a_flow_that_fails_keeps_no_other_flow_of_its_chain_back() {
    let server = shared();
    let mut db = diamond(&server, "failing_chain");
    db.run("select coco.stop('both'); alter table r_t rename column v to w; insert into s values (1000, 1)");
    db.until("select state = 'failed' from coco.status where flow = 'r'");
    db.run("select coco.start('both')");
    db.caught_up("l");
    assert!(db.holds("select exists (select from l_t where id = 1000)"));
    db.run("update s set v = 5 where id = 1000");
    db.until("select v = 5 from l_t where id = 1000");
    db.run("alter table r_t rename column w to v");
    db.until("select state = 'live' from coco.status where flow = 'r'");
    db.settle("both");
    assert_eq!(db.text("select row(l, r) from both_t where id = 1000"), "(5,5)");
    // They are together again.
    let writers = Writers::start(&server, "failing_chain", 2, |writer, n| {
        format!("update s set v = v + 1 where id = 1 + ({n} + {writer}) % 100")
    });
    db.until("select (select sum(v) from l_t) > 5500 and (select sum(v) from l_t) = (select sum(v) from r_t)");
    writers.stop();
    db.settle("both");
}

#[test]
fn a_session_that_has_a_flow_does_not_hold_the_others_for_long() {
    let server = shared();
    let mut db = diamond(&server, "held_chain");
    let mut holder = server.connect("held_chain");
    holder.run("begin; select coco.update('r')");
    db.run("insert into s values (1000, 1)");
    db.until("select exists (select from l_t where id = 1000)");
    assert!(!db.holds("select exists (select from r_t where id = 1000)"));
    holder.run("commit");
    db.settle("both");
    assert!(db.holds("select exists (select from both_t where id = 1000)"));
}

#[test]
fn one_waits_only_for_flows_that_are_followed() {
    let server = shared();
    let mut db = server.database("not_followed");
    db.run("create table t0 (id int primary key, v int not null)");
    for n in 1..=3 {
        copies(&mut db, &format!("f{n}"), &format!("t{}", n - 1), &format!("t{n}"));
    }
    db.run("select coco.start('f1'); select coco.start('f3')");
    assert_eq!(db.fails("select coco.wait('f3')"), "55000 flow \"f2\" is not live");
    db.caught_up("f1");
    db.run("select coco.start('f2'); select coco.alter_flow('f1', paused => true)");
    assert_eq!(db.fails("select coco.wait('f3')"), "55000 flow \"f1\" is paused");
    db.run("select coco.alter_flow('f1', paused => false); insert into t0 values (1, 1)");
    db.caught_up("f3");
    assert_eq!(db.number("select count(*) from t3"), 1);
    // Nothing is waited for beyond the time that was given.
    let mut holder = server.connect("not_followed");
    holder.run("begin; lock table t1 in share mode");
    db.run("insert into t0 values (2, 2)");
    assert!(!db.holds("select coco.wait('f3', '100 ms')"));
    holder.run("commit");
    db.caught_up("f3");
}

#[test]
fn a_flow_of_another_role_is_waited_for_and_not_named() {
    let server = shared();
    let mut db = server.database("foreign_chain");
    for role in ["coco_chain_alice", "coco_chain_bob"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$"
        ));
    }
    db.run(
        "grant usage on schema coco to coco_chain_alice, coco_chain_bob;
         create schema alice authorization coco_chain_alice;
         create schema bob authorization coco_chain_bob",
    );
    let mut alice = server.connect_as("foreign_chain", "coco_chain_alice");
    let mut bob = server.connect_as("foreign_chain", "coco_chain_bob");
    alice.run(
        "set search_path = alice;
         create table s (id int primary key, v int not null);
         select coco.create_flow('alices', 's', 'select id, v from s', 't', '{id}');
         grant usage on schema alice to coco_chain_bob;
         grant select, trigger on alice.t to coco_chain_bob;
         select coco.start('alices')",
    );
    bob.run(
        "set search_path = bob;
         select coco.create_flow('bobs', 'alice.t', 'select id, v from alice.t', 't', '{id}');
         select coco.start('bobs')",
    );
    for n in 1..=20 {
        alice.run(&format!("insert into s values ({n}, {n})"));
        bob.caught_up("bobs");
        assert!(bob.holds(&format!("select exists (select from t where id = {n})")), "{n}");
    }
    alice.run("select coco.stop('alices')");
    let e = bob.fails("select coco.wait('bobs')");
    assert_eq!(e, "55000 a flow of another role that feeds flow \"bobs\" is not live");
    alice.run("select coco.start('alices')");
    bob.caught_up("bobs");
}
