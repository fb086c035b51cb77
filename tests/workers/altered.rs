//! Live flows that are renamed and altered while their workers follow them.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::server::{Server, Session, SharedServer};

fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

/// A live flow `f` from table `d` (id, v, n, m) to table `t` (id, v).
fn started(db: &mut Session, more: &str) {
    db.run(&format!(
        "create table d (id int primary key, v int not null, n int not null default 5, m int not null default 1);
         insert into d select i, i from generate_series(1, 100) i;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{{id}}'{more});
         select coco.start('f')"
    ));
    db.settle("f");
}

/// What all workers of the database have evaluated, once they wait.
fn evaluated(db: &mut Session) -> i64 {
    db.until("select bool_and(state = 'waiting') from coco.workers");
    db.number("select sum(evaluated) from coco.workers")
}

/// Neither a run nor a flow has failed.
fn is_well(db: &mut Session, flow: &str) {
    assert_eq!(db.number("select count(*) from coco_internal.flow_error"), 0, "{}", db.state());
    let failed = format!("select count(error) from coco.history('{flow}')");
    assert_eq!(db.number(&failed), 0);
    assert_eq!(db.text(&format!("select state from coco.status where flow = '{flow}'")), "live");
}

/// Writes in a session of its own while `work` runs.
fn while_written(server: &Server, database: &str, sql: &str, work: impl FnOnce()) {
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writer = server.connect(database);
        let ends = &ends;
        scope.spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                writer.run(sql);
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        ends.store(true, Ordering::Relaxed);
        if let Err(failed) = ended {
            std::panic::resume_unwind(failed);
        }
    });
}

#[test]
fn a_worker_follows_a_flow_under_its_new_name() {
    let server = shared();
    let mut db = server.database("live_rename");
    started(&mut db, "");
    let before = evaluated(&mut db);
    db.run("select coco.rename_flow('f', 'g')");
    db.settle("g");
    assert_eq!(evaluated(&mut db), before);
    db.run("update d set v = 0 where id = 1");
    db.settle("g");
    assert_eq!(evaluated(&mut db), before + 1);
    assert_eq!(db.rows("select distinct flow from coco.tracking"), ["g"]);
    assert!(db.fails("select coco.wait('f')").starts_with("42704"));
    is_well(&mut db, "g");

    // Again and again, under a writer.
    while_written(&server, "live_rename", "update d set v = v + 1 where id % 10 = 0", || {
        let mut name = "g".to_owned();
        for n in 0..20 {
            let next = format!("g{n}");
            db.run(&format!("select coco.rename_flow('{name}', '{next}')"));
            name = next;
        }
    });
    db.settle("g19");
    is_well(&mut db, "g19");
    db.run("select coco.stop('g19'); select coco.rename_flow('g19', 'f'); select coco.start('f'); update d set v = 1");
    db.settle("f");
}

#[test]
fn live_flows_exchange_their_names() {
    let server = shared();
    let mut db = server.database("live_swap");
    started(&mut db, "");
    db.run(
        "create table e (id int primary key, v int not null); insert into e select i, i from generate_series(1, 10) i;
         select coco.create_flow('other', 'e', 'select id, v * 10 as v from e', 'u', '{id}'); select coco.start('other')",
    );
    db.settle("other");
    let writes = "update d set v = v + 1 where id < 10; update e set v = v + 1";
    while_written(&server, "live_swap", writes, || {
        for _ in 0..10 {
            db.run(
                "begin; select coco.rename_flow('f', 'x'); select coco.rename_flow('other', 'f');
                 select coco.rename_flow('x', 'other'); commit",
            );
        }
        db.run("select coco.rename_flow('f', 'one')");
    });
    for flow in ["one", "other"] {
        db.settle(flow);
        is_well(&mut db, flow);
    }
    let targets = "select string_agg(flow || ' ' || target, ', ' order by flow) from coco.targets";
    assert_eq!(db.text(targets), "one public.t, other public.u");
}

#[test]
fn a_worker_compares_again_after_a_change_of_the_ordinal() {
    let server = shared();
    let mut db = server.database("live_ordinal");
    started(&mut db, ", ordinal => 'n'");
    // The worker knows its position from memory, and the ordinal hides a change.
    db.run("update d set v = 0, n = 6 where id = 2");
    db.settle("f");
    db.run("update d set v = 1000, m = 2 where id = 1");
    db.caught_up("f");
    assert_eq!(db.text("select v from t where id = 1"), "1");
    db.run("select coco.alter_flow('f', ordinal => 'm')");
    db.until("select v = 1000 from t where id = 1");
    db.settle("f");
    // Ordinals of the former expression were larger.
    db.run("update d set v = 1001, m = 3 where id = 1");
    db.settle("f");
    db.run("select coco.alter_flow('f', ordinal => '', fingerprint => 'v / 2')");
    db.settle("f");
    db.run("update d set v = 2000 where id = 3");
    db.settle("f");
    is_well(&mut db, "f");
}

#[test]
fn a_worker_misses_nothing_between_capture_modes() {
    let server = shared();
    let mut db = server.database("live_capture");
    started(&mut db, "");
    db.run("select coco.alter_flow('f', refresh_interval => '0')");
    while_written(&server, "live_capture", "update d set v = v + 1 where id % 3 = 0", || {
        for mode in ["scan", "trigger", "scan", "always", "scan", "auto"] {
            db.run(&format!("select coco.alter_flow('f', capture => '{mode}')"));
            db.caught_up("f");
        }
    });
    db.settle("f");
    assert_eq!(db.text("select capture from coco.sources"), "trigger");
    is_well(&mut db, "f");
    // A scan that is not due for long is due once after the change.
    db.run("select coco.alter_flow('f', refresh_interval => '1 hour')");
    db.run("update d set v = 7 where id = 1; select coco.alter_flow('f', capture => 'scan')");
    db.until("select v = 7 from t where id = 1");
}

#[test]
fn a_worker_evaluates_under_new_settings() {
    let server = shared();
    let mut db = server.database("live_settings");
    db.run(
        "set timezone = 'UTC'; create table d (id int primary key, seen timestamptz not null);
         insert into d values (1, '2025-01-01 00:00+00');
         select coco.create_flow('f', 'd', 'select id, seen::text as seen from d', 't', '{id}'); select coco.start('f')",
    );
    db.settle("f");
    db.run("select coco.alter_flow('f', settings => '{\"TimeZone\": \"Asia/Tokyo\"}')");
    db.until("select seen = '2025-01-01 09:00:00+09' from t");
    db.settle("f");
    is_well(&mut db, "f");
}

#[cfg(all(feature = "http", feature = "postgres"))]
#[test]
fn changes_are_sent_under_a_flows_new_name() {
    use crate::http::Receiver;
    use crate::sides::{counted, declare, with_hook};

    let receiver = Receiver::start();
    let mut db = with_hook("altered_external", &receiver);
    db.run("insert into docs select i, 'b' || i from generate_series(1, 5) i");
    declare(&mut db, "f");
    assert_eq!(counted(&mut db, "f"), (5, 5, 0, 0));
    db.run("select coco.rename_flow('f', 'g')");
    assert_eq!(counted(&mut db, "g"), (0, 0, 0, 0));
    db.run("update docs set body = 'new' where id = 1; delete from docs where id = 2");
    assert_eq!(counted(&mut db, "g"), (1, 1, 1, 0));
    assert_eq!(receiver.rows("f", "out").len(), 5);
    assert_eq!(receiver.rows("g", "out").len(), 1);
    let names =
        "select string_agg(distinct relname::text, ',' order by relname::text) from pg_class
                  where relnamespace = 'coco'::regnamespace and relname ~ '^(ledger|outbox)_'";
    let shown = crate::sides::text(&mut db.client, names);
    assert!(shown.split(',').all(|name| name.ends_with("_g")), "{shown}");
    assert_eq!(crate::sides::text(&mut db.client, "select flow from coco.delivery_status"), "g");
    db.verify_clean("g");

    // A worker continues to send, too.
    db.run("select coco.start('g'); select coco.wait('g', '60 s')");
    db.run("select coco.rename_flow('g', 'h')");
    db.run("insert into docs values (7, 'seven')");
    db.run("select coco.wait('h', '60 s')");
    support::server::until("the row is sent", || receiver.rows("h", "out").len() == 1);
    db.run("select coco.drop_flow('h')");
}
