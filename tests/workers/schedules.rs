//! Live flows that workers update by a schedule: when they do, and what sessions see until then.

use crate::support;

use std::sync::Arc;

use support::server::{Server, Session, SharedServer, Stop};

fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

/// A live flow `g` that follows each commit, and table `d` (id, v), from which both it and the flows of the tests read.
fn with_follower(db: &mut Session) {
    db.run(
        "create table d (id int primary key, v int not null);
         insert into d select i, i from generate_series(1, 100) i;
         select coco.create_flow('g', 'd', 'select id, v from d', 'g_t', '{id}'); select coco.start('g')",
    );
    db.settle("g");
}

/// A live flow from table `d` to table `f_t`.
fn started(db: &mut Session, refresh: &str) {
    db.run(&format!(
        "select coco.create_flow('f', 'd', 'select id, v * 2 as v from d', 'f_t', '{{id}}', refresh => '{refresh}');
         select coco.start('f')"
    ));
    db.settle("f");
}

/// Commits a change of every row, and lets the worker follow it with flow `g`.
fn commit(db: &mut Session) {
    db.run("update d set v = v + 1");
    db.settle("g");
}

/// Waits until state, severity and pending changes of a flow are these, and the next update is `later`, `due` or `none`.
fn shows(db: &mut Session, flow: &str, expected: &str) {
    db.until(&format!(
        "select concat_ws(' ', state, health, pending, case when next_update > now() then 'later' when next_update is null then 'none' else 'due' end) = '{expected}'
           from coco.status_detail where flow = '{flow}'"
    ));
}

/// Waits until workers have updated a flow by its schedule, after a coco.start that makes it due.
fn updated(db: &mut Session, flow: &str) {
    db.until(&format!(
        "select coalesce(next_update > now(), false) from coco.status_detail where flow = '{flow}'"
    ));
}

#[test]
fn a_flow_with_a_short_interval_follows() {
    let server = shared();
    let mut db = server.database("schedule_second");
    with_follower(&mut db);
    started(&mut db, "1 second");
    for n in 1..=3 {
        db.run(&format!("update d set v = {n} where id = 1"));
        db.until(&format!("select v = {n} * 2 from f_t where id = 1"));
    }
    db.run("delete from d where id > 50");
    db.settle("f");
    assert_eq!(db.number("select count(*) from f_t"), 50);
    db.until("select state = 'up to date' from coco.status where flow = 'f'");
    assert_eq!(db.number("select count(error) from coco.history('f')"), 0);
}

#[test]
fn a_flow_waits_for_the_time_of_its_cron_line() {
    let server = shared();
    let mut db = server.database("schedule_yearly");
    with_follower(&mut db);
    started(&mut db, "0 0 1 1 *");
    shows(&mut db, "f", "up to date well 0 later");
    shows(&mut db, "g", "live well 0 none");
    for _ in 0..3 {
        commit(&mut db);
    }
    assert_eq!(db.number("select sum(v) from f_t"), 2 * 5050);
    assert!(db.holds(
        "select state = 'up to date' and health = 'well' and pending > 0 and lag > '0' and hint is null and next_update > now()
           from coco.status_detail where flow = 'f'"
    ));
    // Waiting would be in vain, and looking is not.
    let e = db.fails("select coco.wait('f', '10 s')");
    assert_eq!(e, "55000 flow \"f\" is not updated before the timeout");
    assert!(!db.holds("select coco.wait('f', '0')"));
    // A session updates it, which is no update by the schedule.
    db.run("create temporary table kept as select next_update from coco.status_detail where flow = 'f'");
    db.run("select coco.update('f')");
    assert_eq!(db.number("select sum(v) from f_t"), 2 * (5050 + 300));
    assert!(db.holds("select coco.wait('f', '10 s')"));
    assert!(db.holds(
        "select s.next_update = b.next_update from coco.status_detail s, kept b where s.flow = 'f'"
    ));
    // coco.start updates it by a worker.
    commit(&mut db);
    db.run("select coco.start('f')");
    db.settle("f");
    assert_eq!(db.number("select sum(v) from f_t"), 2 * (5050 + 400));
    commit(&mut db);
    assert_eq!(db.number("select sum(v) from f_t"), 2 * (5050 + 400));
    db.run("select coco.stop('f')");
    assert!(db.holds(
        "select state = 'behind' and next_update is null from coco.status_detail where flow = 'f'"
    ));
}

#[test]
fn another_schedule_takes_effect_at_once() {
    let server = shared();
    let mut db = server.database("schedule_altered");
    with_follower(&mut db);
    started(&mut db, "@yearly");
    commit(&mut db);
    assert_eq!(db.number("select sum(v) from f_t"), 2 * 5050);
    db.run("select coco.alter_flow('f', refresh => '1 second')");
    db.until(&format!("select sum(v) = {} from f_t", 2 * 5150));
    // The schedule does not apply any longer.
    db.run("select coco.alter_flow('f', refresh => 'commit')");
    for _ in 0..5 {
        commit(&mut db);
        db.settle("f");
    }
    shows(&mut db, "f", "live well 0 none");
    db.run("select coco.alter_flow('f', refresh => '36500 days')");
    db.until("select next_update > now() + interval '36000 days' from coco.status_detail where flow = 'f'");
    commit(&mut db);
    assert_eq!(db.number("select sum(v) from f_t"), 2 * (5050 + 600));
}

#[test]
fn the_next_time_is_local() {
    let server = shared();
    let mut db = server.database("schedule_zone");
    with_follower(&mut db);
    db.run(
        "select coco.create_flow('f', 'd', 'select id, v * 2 as v from d', 'f_t', '{id}', refresh => '30 4 2 1 *',
           settings => '{\"TimeZone\": \"Asia/Tokyo\"}');
         select coco.start('f')",
    );
    db.settle("f");
    // The second of January is over or not, so the year is left out.
    assert_eq!(
        db.text("select to_char(next_update at time zone 'Asia/Tokyo', 'MM-DD HH24:MI:SS') from coco.status_detail where flow = 'f'"),
        "01-02 04:30:00"
    );
    assert!(db.holds("select next_update > now() and next_update < now() + interval '367 days' from coco.status_detail where flow = 'f'"));
    // Another time zone moves the time; the logic has changed, too.
    db.run("select coco.alter_flow('f', settings => '{\"TimeZone\": \"America/New_York\"}')");
    assert_eq!(
        db.text("select to_char(next_update at time zone 'America/New_York', 'MM-DD HH24:MI:SS') from coco.status_detail where flow = 'f'"),
        "01-02 04:30:00"
    );
}

#[test]
fn sources_that_are_not_captured_are_read_at_the_times_of_the_schedule() {
    let server = shared();
    let mut db = server.database("schedule_scan");
    with_follower(&mut db);
    db.run(
        "create view w as select id, v from d;
         create table e (id int primary key, v int not null); insert into e values (1, 1);
         select coco.create_flow('f', refresh => '1 second');
         select coco.add_source('f', 'w', key => '{id}', refresh_interval => '1 day');
         select coco.add_source('f', 'e');
         select coco.add_target('f', 'f_t', 'select 1 as k, id, v from w union all select 2, id, v from e', '{k,id}');
         select coco.start('f')",
    );
    db.settle("f");
    db.run("update d set v = 1000 where id = 7; update e set v = 5");
    db.until("select sum(v) = 1005 from f_t where k = 1 and id = 7 or k = 2");
    // With a yearly schedule, the interval of the source does not count either.
    db.run("select coco.alter_flow('f', refresh => '@yearly')");
    db.run("select coco.alter_flow('f', source => 'w', refresh_interval => '0')");
    db.run("select coco.start('f')");
    updated(&mut db, "f");
    db.run("update d set v = 2000 where id = 7; update e set v = 6");
    db.settle("g");
    db.run("update d set v = 2001 where id = 8");
    db.settle("g");
    assert_eq!(db.number("select sum(v) from f_t where k = 1 and id = 7 or k = 2"), 1005);
    db.run("select coco.start('f')");
    updated(&mut db, "f");
    assert_eq!(db.number("select sum(v) from f_t where k = 1 and id = 7 or k = 2"), 2006);
    db.verify("f");
}

#[test]
fn a_large_update_takes_several_transactions_and_ends() {
    let server = shared();
    let mut db = server.database("schedule_large");
    with_follower(&mut db);
    db.run("create view w as select id, v from d");
    db.run(
        "insert into d select i, i from generate_series(101, 3000) i;
         select coco.create_flow('f', refresh => '@yearly'); select coco.alter_flow('f', batch_size => 100);
         select coco.add_source('f', 'd'); select coco.add_source('f', 'w', key => '{id}');
         select coco.add_target('f', 'f_t', 'select 1 as k, id, v from d union all select 2, id, v from w', '{k,id}');
         select coco.start('f')",
    );
    updated(&mut db, "f");
    assert_eq!(db.number("select count(*) from f_t"), 6000);
    db.verify("f");
    // So does one that follows the log.
    db.run("update d set v = v + 1");
    db.run("select coco.start('f')");
    updated(&mut db, "f");
    for k in [1, 2] {
        let found =
            format!("select (select sum(v) from f_t where k = {k}) - (select sum(v) from d)");
        assert_eq!(db.number(&found), 0, "{k}");
    }
    db.verify("f");
}

#[test]
fn flows_of_a_chain_have_schedules_of_their_own() {
    let server = shared();
    let mut db = server.database("schedule_chain");
    with_follower(&mut db);
    db.run(
        "select coco.create_flow('last', 'g_t', 'select id, v + 1 as v from g_t', 'last_t', '{id}', refresh => '@yearly');
         select coco.start('last')",
    );
    db.settle("last");
    commit(&mut db);
    assert_eq!(db.number("select sum(v) from last_t"), 5150);
    let e = db.fails("select coco.wait('last', '20 s')");
    assert_eq!(e, "55000 flow \"last\" is not updated before the timeout");
    // The flow that feeds another one waits, and so does what follows it.
    db.run("select coco.alter_flow('g', refresh => '@yearly'); select coco.alter_flow('last', refresh => 'commit')");
    db.run("select coco.start('g')");
    updated(&mut db, "g");
    db.settle("last");
    db.run("update d set v = 0");
    let e = db.fails("select coco.wait('last', '20 s')");
    assert_eq!(e, "55000 flow \"g\" is not updated before the timeout");
    db.run("select coco.start('g')");
    db.settle("last");
    assert_eq!(db.number("select sum(v) from last_t"), 100);
    // Both of them: they are updated together.
    db.run("select coco.alter_flow('last', refresh => '@yearly')");
    db.run("select coco.start('last')");
    updated(&mut db, "last");
    db.run("update d set v = 1");
    db.run("select coco.start('g'); select coco.start('last')");
    db.settle("last");
    assert_eq!(db.number("select sum(v) from last_t"), 200);
}

#[test]
fn a_restart_neither_loses_nor_repeats_an_update() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("schedule_restart");
    with_follower(&mut db);
    started(&mut db, "@yearly");
    let began = db.text("select began from coco_internal.scheduled_run");
    commit(&mut db);
    drop(db);
    server.restart(Stop::Fast);
    let mut db = server.connect("schedule_restart");
    commit(&mut db);
    assert_eq!(db.number("select sum(v) from f_t"), 2 * 5050);
    assert_eq!(db.text("select began from coco_internal.scheduled_run"), began);
    // A time that was missed while the server was down counts once.
    db.run("update coco_internal.scheduled_run set began = began - interval '3 years'");
    db.until(&format!("select sum(v) = {} from f_t", 2 * (5050 + 200)));
    db.until("select next_update > now() from coco.status_detail where flow = 'f'");
    commit(&mut db);
    assert_eq!(db.number("select sum(v) from f_t"), 2 * (5050 + 200));
    // So does a time that a clock which was ahead has left.
    db.run("update coco_internal.scheduled_run set began = now() + interval '3 years'");
    db.until(&format!("select sum(v) = {} from f_t", 2 * (5050 + 300)));
    db.until("select began <= now() from coco_internal.scheduled_run");
}
