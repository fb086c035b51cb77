//! Changes of live flows without a gap: a worker follows both versions, and swaps them.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::explain;
use support::server::{Server, Session, SharedServer, Stop, kill, until};

/// A server with coco preloaded, for tests that need nothing of their own but a database.
fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

/// A live flow `f` from table `s` (id, v) with 200 rows to table `t`.
fn live_flow(server: &Server, name: &str) -> Session {
    let mut db = server.database(name);
    db.run(
        "create table s (id int primary key, v int not null);
         insert into s select i, i from generate_series(1, 200) i;
         select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.start('f')",
    );
    db.settle("f");
    db
}

const SWAPPED: &str = "select not exists (select from coco.versions where role = 'new')";

#[test]
fn a_worker_swaps_while_writers_and_readers_go_on() {
    let server = shared();
    let mut db = live_flow(&server, "gapless_live");
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (mut client, done) = (server.connect("gapless_live"), done.clone());
        std::thread::spawn(move || {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                // The sum of all rows stays as it is.
                client.run(&format!(
                    "update s set v = v + case id when 1 + {n} % 100 then 1 else -1 end
                      where id in (1 + {n} % 100, 101 + {n} % 100)"
                ));
            }
            n
        })
    };
    // Each version says which one it is: by its number of rows, and by their sum.
    let states = ["200 20100", "200 40200", "200 60300"];
    let reader = {
        let (mut client, done) =
            (server.try_connect("gapless_live").expect("a session"), done.clone());
        std::thread::spawn(move || {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let sql = "select concat_ws(' ', count(*), sum(v)) from t";
                let row = client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{}", explain(&e)));
                let found: String = row.get(0);
                assert!(states.contains(&found.as_str()), "a reader saw {found}");
                reads += 1;
            }
            reads
        })
    };
    for n in [2, 3] {
        db.run(&format!(
            "select coco.set_query('f', null, 'select id, v * {n} as v from s', gapless => true, keep_old => '1 h')"
        ));
        db.until(SWAPPED);
        let state = db.text("select concat_ws(' ', count(*), sum(v)) from t");
        assert_eq!(state, states[n - 1]);
    }
    // Back by hand, while the worker and the writer go on.
    db.run("select coco.rollback('f')");
    assert_eq!(db.text("select concat_ws(' ', count(*), sum(v)) from t"), states[1]);
    done.store(true, Ordering::Relaxed);
    assert!(writer.join().expect("a writer") > 0);
    assert!(reader.join().expect("a reader saw what it should") > 0);
    db.settle("f");
    db.settle("f@old");
    assert_eq!(
        db.text("select string_agg(flow, ' ' order by flow) from coco.flows where live"),
        "f f@old"
    );
}

#[test]
fn a_live_version_follows_and_goes_with_its_flow() {
    let server = shared();
    let mut db = live_flow(&server, "gapless_manual");
    db.run(
        "select coco.set_query('f', null, 'select id, -v as v from s', gapless => true, swap => 'manual')",
    );
    db.settle("f@new");
    db.run("update s set v = 1000 where id = 1");
    db.settle("f");
    db.settle("f@new");
    assert_eq!(
        db.text(
            "select row((select v from t where id = 1), (select v from \"t@new\" where id = 1))"
        ),
        "(1000,-1000)"
    );
    // Nobody swaps it but its owner; stopped and started with the flow.
    assert!(!db.holds(SWAPPED));
    db.run("select coco.stop('f')");
    assert_eq!(db.number("select count(*) from coco.flows where live"), 0);
    db.run("update s set v = 2000 where id = 1; select coco.start('f')");
    db.settle("f@new");
    db.run("select coco.swap('f')");
    assert_eq!(db.text("select v from t where id = 1"), "-2000");
    db.settle("f");
    db.run("select coco.drop_flow('f', false)");
    assert_eq!(db.number("select count(*) from coco_internal.version"), 0);
    assert_eq!(db.text("select to_regclass('\"t@new\"')"), "NULL");
}

#[test]
fn a_version_with_failing_items_waits_and_an_old_one_is_dropped_in_time() {
    let server = shared();
    let mut db = live_flow(&server, "gapless_waits");
    db.run("select coco.set_query('f', null, 'select id, 100 / (v - 7) as v from s', gapless => true, keep_old => '1 s')");
    db.until("select waits_for like '%has failed items (1)' from coco.versions");
    assert_eq!(db.number("select sum(v) from t"), 20100);
    db.run("update s set v = 8 where id = 7");
    db.until(SWAPPED);
    assert_eq!(db.number("select v from t where id = 7"), 100);
    // The worker's upkeep drops the old version when its second is over.
    db.until("select count(*) = 0 from coco.versions");
    assert_eq!(db.text("select to_regclass('\"t@old\"')"), "NULL");
    db.settle("f");
}

#[test]
fn a_crash_leaves_a_version_that_goes_on() {
    let server = Server::preloaded(&[]);
    let mut db = live_flow(&server, "gapless_crash");
    // A reader keeps the worker from swapping.
    let mut reader = server.connect("gapless_crash");
    reader.run("begin; select count(*) from t");
    db.run("select coco.set_query('f', null, 'select id, v * 2 as v from s', gapless => true)");
    db.settle("f@new");
    db.until("select waits_for is not null from coco.versions");
    let worker = db.number(
        "select pid from pg_stat_activity where backend_type = 'coco worker' and datname = current_database()",
    );
    kill("KILL", worker as i32);
    until("sessions end", || db.0.batch_execute("select 1").is_err());
    drop(reader);
    let mut db = None;
    until("the server is there again", || {
        db = server.try_connect("gapless_crash").ok().map(Session);
        db.is_some()
    });
    let mut db = db.expect("a session");
    db.until(SWAPPED);
    assert_eq!(db.number("select sum(v) from t"), 40200);
    db.settle("f");
    server.restart(Stop::Fast);
    let mut db = server.connect("gapless_crash");
    db.run("update s set v = 0 where id = 1");
    db.settle("f");
    assert_eq!(db.number("select v from t where id = 1"), 0);
}
