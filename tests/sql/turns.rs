//! What a flow's owner, or whoever writes a row, cannot do to the workers, which all flows share: keep them, kill
//! them for ever, take their locks.

use crate::support;

use support::server::{Server, Session, kill, until};

/// A flow `other`, which has nothing to do with what the test does.
fn with_other(server: &Server) -> Session {
    let mut db = server.database("turns");
    db.run(
        "create table other_s (id int primary key);
         select coco.create_flow('other', 'other_s', 'select id from other_s', 'other_t', '{id}');
         select coco.start('other')",
    );
    db.settle("other");
    db
}

/// A live flow `f` of one row that evaluates `expression`, beside another.
fn with_flow(server: &Server, expression: &str) -> Session {
    let mut db = with_other(server);
    db.run(&format!(
        "create table s (id int primary key);
         select coco.create_flow('f', 's', 'select id, ({expression})::text as x from s', 't', '{{id}}');
         insert into s values (1);
         select coco.start('f')"
    ));
    db
}

fn other_follows(db: &mut Session) {
    db.run("insert into other_s select coalesce(max(id), 0) + 1 from other_s");
    db.settle("other");
}

fn state(db: &mut Session, flow: &str) -> String {
    db.text(&format!("select state from coco.status where flow = '{flow}'"))
}

const IN_TURN: &str =
    "select count(*) = 1 from coco.workers where flow = 'f' and state = 'working'";

const SLEEPS: &str = "select exists (select from pg_stat_activity where backend_type = 'coco worker' and wait_event = 'PgSleep')";

#[test]
fn a_turn_that_never_ends_is_canceled_and_others_go_on() {
    let server = Server::preloaded(&["coco.turn_timeout = '300ms'"]);
    let mut db = with_flow(&server, "select pg_sleep(100000)");
    db.until("select last_error = 'canceling transaction due to coco.turn_timeout' from coco.status where flow = 'f'");
    other_follows(&mut db);
    assert_eq!(state(&mut db, "f"), "failed");
    db.run("select coco.stop('f')");
    assert_eq!(state(&mut db, "f"), "never updated");
}

#[test]
fn a_turn_that_catches_its_cancel_ends_with_the_process_and_is_set_aside() {
    let server = Server::preloaded(&["coco.turn_timeout = '300ms'"]);
    let mut db = with_other(&server);
    db.run(
        "create function stay() returns int language plpgsql as $$
           begin
             loop
               begin perform pg_sleep(100000); exception when query_canceled then null; end;
             end loop;
           end $$;
         create table s (id int primary key);
         select coco.create_flow('f', 's', 'select id, stay() as x from s', 't', '{id}');
         insert into s values (1);
         select coco.start('f')",
    );
    db.until("select last_error like 'a process was terminated by a signal%' from coco.status where flow = 'f'");
    db.run("select coco.stop('f')");
    other_follows(&mut db);
}

#[test]
fn a_lock_on_what_a_flow_has_holds_up_no_other_flow() {
    let server = Server::preloaded(&[]);
    let mut db = with_flow(&server, "1");
    db.caught_up("f");
    let mut holder = server.connect("turns");
    for lock in [
        "lock table s in access exclusive mode",
        "alter table s add column more int",
        "lock table t in access exclusive mode",
        "lock table t in share mode",
        "update t set x = x",
    ] {
        db.run("insert into s select coalesce(max(id), 0) + 1 from s");
        db.caught_up("f");
        holder.run(&format!("begin; {lock}"));
        if !lock.contains(" s ") {
            db.run("delete from s where id = (select max(id) from s); update s set id = id + 1000");
        }
        other_follows(&mut db);
        if !lock.contains(" s ") {
            db.until("select state = 'failed' and hint like '%pg_locks%' from coco.status where flow = 'f'");
            other_follows(&mut db);
            let soon =
                "select next_retry < now() + interval '5 s' from coco.status where flow = 'f'";
            db.until(soon);
        }
        holder.run("rollback");
        db.caught_up("f");
    }
    // Said once, twice, …, not with each attempt.
    assert!(server.log().matches("due to lock timeout").count() < 40);
}

#[test]
fn to_stop_or_drop_a_flow_ends_its_turn() {
    let server = Server::preloaded(&[]);
    let mut db = with_flow(&server, "select pg_sleep(100000)");
    db.until(SLEEPS);
    db.run("select coco.stop('f')");
    assert_eq!(state(&mut db, "f"), "never updated");
    db.run("select coco.start('f')");
    db.until(SLEEPS);
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert!(db.holds("select to_regclass('t') is null"));
    other_follows(&mut db);
}

#[test]
fn a_query_cannot_release_the_locks_of_its_worker() {
    let server = Server::preloaded(&[]);
    let mut db = with_flow(&server, "select pg_advisory_unlock_all()");
    db.caught_up("f");
    for n in 2..5 {
        db.run(&format!("insert into s values ({n})"));
        db.caught_up("f");
        // Of the class of advisory locks, for longer than a transaction.
        assert!(db.holds(
            "select exists (select from pg_locks l join coco.workers w on w.pid = l.pid
               where l.locktype = 'object' and l.classid = 'coco_internal.flow'::regclass and l.objid = 0 and l.granted)"
        ));
    }
    assert!(!server.log().contains("released its locks"));
}

/// The server starts anew each time, and the flow is tried again each time but the last.
#[test]
fn a_flow_that_kills_three_workers_is_set_aside_until_it_is_started() {
    let server = Server::preloaded(&["restart_after_crash = on"]);
    with_flow(&server, "select pg_sleep(100000)");
    let find = |sql: &str| -> Option<i32> {
        let mut client = server.try_connect("turns").ok()?;
        client.query_opt(sql, &[]).ok()??.get(0)
    };
    const SLEEPER: &str = "select pid from pg_stat_activity where backend_type = 'coco worker' and wait_event = 'PgSleep'";
    for _ in 0..3 {
        let mut pid = None;
        until("a worker is in a turn", || {
            pid = find(SLEEPER);
            pid.is_some()
        });
        let pid = pid.expect("one was found");
        kill("SEGV", pid);
        until("the server has begun anew", || {
            find("select 1").is_some() && find(SLEEPER) != Some(pid)
        });
    }
    until("the flow is set aside", || {
        find("select 1 from coco.status where flow = 'f' and state = 'set aside'").is_some()
    });
    let mut db = server.connect("turns");
    other_follows(&mut db);
    assert_eq!(state(&mut db, "f"), "set aside");
    let hint = db.text("select hint from coco.status where flow = 'f'");
    assert!(hint.contains("coco.start"), "{hint}");
    assert!(server.log().contains("flow \"f\": the flow is set aside"));
    // The others that the server ended with it have done no harm.
    assert_eq!(db.number("select count(*) from coco_internal.flow_error"), 1);
    db.run("select coco.start('f')");
    db.until(IN_TURN);
    db.run("select coco.stop('f')");
}

#[test]
fn sessions_that_update_one_flow_use_one_process() {
    let server = Server::preloaded(&[]);
    let mut db = with_other(&server);
    db.run(
        "create server hooks foreign data wrapper coco_http options (url 'http://127.0.0.1:9');
         create user mapping for postgres server hooks;
         create table s (id int primary key);
         insert into s values (1);
         select coco.create_flow('f', 's', 'select id, pg_sleep(100000)::text as x from s', 'out', '{id}', server => 'hooks')",
    );
    const ALL: usize = 20;
    std::thread::scope(|scope| {
        for _ in 0..ALL {
            scope.spawn(|| {
                let client = server.try_connect("turns");
                let mut client = client.expect("a connection");
                client.batch_execute("select * from coco.update('f')").expect_err("canceled");
            });
        }
        db.until(&format!(
            "select count(*) = {} from pg_locks where not granted and objsubid = 2",
            ALL - 1
        ));
        let processes = "select count(*) from pg_stat_activity where backend_type = 'coco update'";
        db.until("select count(*) = 1 from pg_stat_activity where backend_type = 'coco update' and wait_event = 'PgSleep'");
        assert_eq!(db.number(processes), 1);
        other_follows(&mut db);
        let rest = "select count(*) from pg_stat_activity where query like '%coco.update(%' and state = 'active' and pid <> pg_backend_pid()";
        until("all are canceled", || {
            db.run("select pg_cancel_backend(pid) from pg_stat_activity where query like '%coco.update(%' and state = 'active' and pid <> pg_backend_pid()");
            db.number(rest) == 0
        });
    });
}

/// A table of `app`'s, followed by a flow of `mallory`'s.
fn of_another(server: &Server) -> (Session, Session) {
    let mut db = with_other(server);
    db.run(
        "create role app login; create role mallory login; create schema mal authorization mallory;
         grant usage on schema coco to app, mallory; grant create on schema public to app;
         set role app; create table public.d (id int primary key); reset role;
         grant select, trigger on public.d to mallory",
    );
    let mut mallory = server.connect_as("turns", "mallory");
    mallory.run(
        "select coco.create_flow('m', 'public.d', 'select id from d', 'mal.m', '{id}', capture => 'trigger',
           refresh_interval => '1 s')",
    );
    (db, mallory)
}

const TRIGGERS: &str = "select count(*) from pg_trigger where tgrelid = 'public.d'::regclass";

#[test]
fn to_drop_a_flow_locks_nobody_elses_table() {
    let server = Server::preloaded(&[]);
    let (mut db, mut mallory) = of_another(&server);
    mallory.run("begin; select coco.drop_flow('m')");
    let mut app = server.connect_as("turns", "app");
    app.run("set lock_timeout = '10s'; select * from d; insert into d values (1)");
    mallory.run("commit");
    app.run("insert into d values (2)");
    // A worker drops them.
    db.until(&format!("select ({TRIGGERS}) = 0"));
}

#[test]
fn triggers_that_the_owner_of_the_table_dropped_stay_dropped() {
    let server = Server::preloaded(&[]);
    let (mut db, mut mallory) = of_another(&server);
    let mut app = server.connect_as("turns", "app");
    const DROP: &str =
        "do $$ declare t text; begin
           for t in select tgname from pg_trigger where tgrelid = 'd'::regclass and tgname like 'coco%' loop
             execute format('drop trigger %I on d', t);
           end loop;
         end $$";
    mallory.run("select coco.start('m')");
    mallory.caught_up("m");
    app.run(DROP);
    app.run("insert into d values (1)");
    mallory.settle("m");
    app.run("revoke trigger on d from mallory; insert into d values (2)");
    mallory.settle("m");
    mallory.run("select coco.stop('m'); select coco.start('m')");
    app.run("insert into d values (3)");
    mallory.settle("m");
    assert_eq!(db.number(TRIGGERS), 0);
    app.run("grant trigger on d to mallory");
    mallory.run("select coco.stop('m'); select coco.start('m')");
    assert_ne!(db.number(TRIGGERS), 0);
    app.run("insert into d values (4)");
    mallory.settle("m");
}

#[test]
fn an_error_names_no_flow_of_somebody_elses() {
    let server = Server::start(&[]);
    let mut db = server.database("turns");
    db.run(
        "create role mallory login; grant usage on schema coco to mallory;
         create table s (id int primary key); create table t (id int primary key);
         grant all on s, t to mallory;
         select coco.create_flow('secret', 's', 'select id from s', 't', '{id}')",
    );
    const DECLARE: &str = "select coco.create_flow('m', 's', 'select id from s', 't', '{id}')";
    assert!(db.fails(DECLARE).contains("flow \"secret\""));
    let failed = server.connect_as("turns", "mallory").fails(DECLARE);
    assert!(failed.contains("another flow") && !failed.contains("secret"), "{failed}");
}

#[test]
fn to_split_a_text_can_be_canceled() {
    let server = Server::start(&[]);
    let mut db = server.database("turns");
    db.run("set statement_timeout = '200ms'");
    for text in ["repeat('a b ', 20000000)", "repeat('a', 20000000)", "repeat(chr(769), 10000000)"]
    {
        let failed = db.fails(&format!("select count(*) from coco.split_text({text}, 2)"));
        assert!(failed.starts_with("57014"), "{failed}");
    }
}

#[test]
fn values_that_are_nested_too_deep_are_an_error() {
    let server = Server::start(&[]);
    let mut db = server.database("turns");
    for function in ["fingerprint", "stable_uuid"] {
        let failed = db.fails(&format!(
            "do $$
             declare r record := row(1);
             begin
               for i in 1..12000 loop r := row(r); end loop;
               perform coco.{function}(r);
             end $$"
        ));
        assert!(failed.starts_with("54001"), "{failed}");
    }
}

/// As on a full disk, where nothing can be written: neither what the flow writes, nor that it fails.
#[test]
fn a_failure_that_cannot_be_recorded_is_put_off() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("turns");
    db.run(
        "create table d (id int primary key);
         select coco.create_flow('f', 'd', 'select id from d', 'f_t', '{id}');
         select coco.start('f')",
    );
    db.settle("f");
    db.run("alter table coco_internal.flow_error add constraint nothing check (false)");
    let mut other = server.connect("turns");
    other.run("begin; lock table f_t in access exclusive mode");
    let said = || server.log().matches("could not record the failure").count();
    let began = std::time::Instant::now();
    // Each insert wakes the worker.
    for i in 0.. {
        db.run(&format!("insert into d values ({i})"));
        if said() > 1 || began.elapsed().as_secs() > 60 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(said(), 2, "the second time it is tried after a second");
    let (before, second) = (said(), std::time::Instant::now());
    while second.elapsed().as_millis() < 1500 {
        db.run("delete from d; insert into d values (1)");
    }
    assert_eq!(said(), before, "the third time after two");
    other.run("rollback");
    db.run("alter table coco_internal.flow_error drop constraint nothing");
    db.settle("f");
}
