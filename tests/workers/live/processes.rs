//! The launcher and the workers: how they start, end and come back.

use std::sync::{Arc, Mutex};

use super::{WORKERS, declare, started, state, worker};
use crate::support::explain;
use crate::support::server::{Server, Session, Stop, kill, until};

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
        until("the worker is canceled and catches up", || {
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
fn without_preload_a_dropped_database_gives_its_process_back() {
    let server =
        Server::start(&["max_worker_processes = 2", "max_logical_replication_workers = 0"]);
    let mut control = server.connect("postgres");
    for name in ["a", "b", "c", "d"] {
        let mut db = server.database(name);
        declare(&mut db, "f");
        // The process of a database that was dropped is given back when the server starts it again.
        db.until("select coco.start('f') is not null and coco.wait('f', '100 ms')");
        db.run("update f_s set v = 9");
        db.settle("f");
        control.run(&format!("drop database {name} with (force)"));
    }
    let log = server.log();
    assert!(log.lines().filter(|l| l.contains("FATAL:  database")).count() <= 4, "{log}");
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
