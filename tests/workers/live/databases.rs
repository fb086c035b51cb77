//! Databases with live flows: dropped, copied, renamed, and more of them than processes.

use super::{declare, noise, noise_of_restarts, shared, started};
use crate::support::explain;
use crate::support::server::{Server, Session, Stop};

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
