//! What a worker must not do: fill the log, or need more and more memory.

use super::{noise_of_restarts, shared, started, worker};
use crate::support::server::{BOUND, Server, Stop, comes};

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
