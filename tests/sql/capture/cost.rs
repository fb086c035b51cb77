//! What an update does not read, and what it waits for.

use super::{looked_at, run, text};
use crate::support::server::until;
use crate::support::{self, TestDb};

#[test]
fn an_update_reads_neither_all_of_the_source_nor_all_that_is_tracked() {
    let mut db = TestDb::new("capture_cost");
    db.run(
        "create table d (id int primary key, grp int not null, body text);
         insert into d select i, i / 10, md5(i::text) from generate_series(1, 50000) i;
         create index on d (grp); analyze d;
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger');
         select coco.create_flow('g', 'd', 'select grp, string_agg(body, chr(32) order by id) as body from d group by grp', 'u', '{grp}', source_key => '{grp}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "f")[0], 50_000);
    assert_eq!(looked_at(&mut db, "g")[0], 5_001);
    for flow in ["f", "g"] {
        db.run("update d set body = md5(body) where id in (17, 40000)");
        // A session that has counted nothing before.
        let mut client = db.connect();
        run(&mut client, "begin");
        let c = support::update(&mut client, flow, "normal").expect("an update").remove(0);
        assert_eq!((c.seen, c.upserted), (2, 2), "{flow}: {c:?}");
        let read = "select string_agg(c.oid::regclass || ' ' || pg_stat_get_xact_tuples_returned(c.oid), ', ')
              from pg_class c where c.relkind = 'r' and pg_stat_get_xact_tuples_returned(c.oid) > 10
               and (c.oid in (select tracking from coco_internal.source) or c.relname in ('d', 't', 'u'))";
        let read: Option<String> = client.query_one(read, &[]).expect("counts").get(0);
        assert_eq!(read, None, "{flow} reads rows it does not need");
        run(&mut client, "commit");
    }
}

/// The log keeps what another flow has not followed: an update reads by an index what is new to its own flow.
#[test]
fn what_another_flow_has_not_followed_is_not_read_again() {
    let mut db = TestDb::new("capture_held");
    db.run(
        "create table d (id int primary key, v int not null default 0);
         insert into d select generate_series(1, 100); analyze d;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}', capture => 'trigger');
         select coco.create_flow('g', 'd', 'select id, v from d', 'u', '{id}', capture => 'trigger')",
    );
    for flow in ["f", "g", "f", "g"] {
        looked_at(&mut db, flow);
    }
    for _ in 0..3 {
        db.run("insert into d select generate_series(1000, 20000); delete from d where id >= 1000");
        looked_at(&mut db, "f");
    }
    db.run("update d set v = 1 where id = 7");
    let mut client = db.connect();
    run(&mut client, "begin");
    let c = support::update(&mut client, "f", "normal").expect("an update").remove(0);
    assert_eq!((c.seen, c.upserted), (1, 1), "{c:?}");
    let read = "select sum(pg_stat_get_xact_tuples_returned(c.oid))::bigint from pg_class c
                 where c.relnamespace = 'coco_internal'::regnamespace and c.relname like 'log%'";
    let read: i64 = client.query_one(read, &[]).expect("counts").get(0);
    assert!(read < 100, "{read} entries are read for one change");
    run(&mut client, "commit");
}

/// Else the server would not find the deadlock of the two, and both would wait for ever.
#[test]
fn a_session_that_waits_for_a_log_is_seen_to_wait() {
    let mut db = TestDb::new("capture_seen_to_wait");
    db.run(
        "create table d (id int primary key); insert into d values (1);
         select coco.create_flow('f', 'd', 'select id from d', 't', '{id}', capture => 'trigger')",
    );
    looked_at(&mut db, "f");
    looked_at(&mut db, "f");
    db.run("insert into d values (2)");
    let mut holding = db.connect();
    run(
        &mut holding,
        "begin; lock table coco_internal.log_1_0, coco_internal.log_1_1, coco_internal.log_1_2 in access exclusive mode",
    );
    let mut updating = db.connect();
    let update = std::thread::spawn(move || support::update(&mut updating, "f", "normal"));
    let waits = "select count(*)::text from pg_locks l join pg_class c on c.oid = l.relation
                  where not l.granted and c.relname like 'log_1%'";
    until("it waits for a lock", || text(&mut db.client, waits) == "1");
    run(&mut holding, "rollback");
    let counts = update.join().expect("no panic").expect("an update");
    assert_eq!(counts[0].seen, 1);
}

#[test]
fn items_that_fail_are_tried_again_when_they_are_due_and_count_until_then() {
    let mut db = TestDb::new("capture_failing");
    db.run(
        "create table d (id int primary key, n int); insert into d values (1, 1), (2, 0), (3, 3);
         select coco.create_flow('f', 'd', 'select id, 6 / n as n from d', 't', '{id}', capture => 'trigger')",
    );
    assert_eq!(db.update("f", "normal")[0].failed, 1);
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.evaluated, c.failed), (1, 0, 1), "{c:?}");
    db.run("update d set n = 2 where id = 1");
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.evaluated, c.failed), (2, 1, 1), "{c:?}");
    let c = db.update("f", "retry").remove(0);
    assert_eq!((c.seen, c.evaluated, c.failed), (1, 1, 1), "{c:?}");
    db.run("update d set n = 6 where id = 2");
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.evaluated, c.upserted, c.failed), (1, 1, 1, 0), "{c:?}");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}
