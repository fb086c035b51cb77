//! Live flows that fail or take long, beside others that go on.

use super::{WORKERS, shared, started, state, worker};
use crate::support::server::Server;

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
    db.until("select attempts >= 2 from coco_internal.flow_error where sqlstate = '42501'");
    assert!(db.holds("select next_retry - failed_at > '1900 ms' from coco_internal.flow_error"));
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
    db.until("select coalesce((select attempts from coco_internal.flow_error), 0) >= 3");
    db.run("grant select on secret to fails_owner; select coco.start('f')");
    db.settle("f");
    db.run("revoke select on secret from fails_owner");
    db.run("update f_s set v = 4");
    db.until("select state = 'failed' from coco.status where flow = 'f'");
    db.run("select coco.stop('f')");
    assert_eq!(state(&mut db, "f"), "behind");
    assert_eq!(db.number("select count(*) from coco_internal.flow_error"), 0);
    db.run("drop owned by fails_owner cascade; drop role fails_owner");
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
        "insert into coco_internal.flow_error (flow, attempts, next_retry, sqlstate, message)
         select id, 1, now() + interval '1 year', 'XX000', 'x' from coco_internal.flow where flow = 'f'",
    );
    db.run(&format!("select pg_terminate_backend(pid) from ({WORKERS}) as w"));
    db.run("update d set v = 1");
    db.settle("f");
    // A source that is read as a whole now and then.
    db.run("select coco.start('w')");
    db.settle("w");
    db.run(
        "select coco.stop('w');
         update coco_internal.cursor set followed_at = now() + interval '1 year'
          where source = (select id from coco_internal.source where flow = 'w')",
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
    let failures = "select (select count(*) from coco_internal.flow_error)
                         + (select count(*) from coco.history('g') where error is not null)";
    assert_eq!(db.number(failures), 0);
    assert_eq!(db.number("select v from g_t where id = 1"), 1);
}
