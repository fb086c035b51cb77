//! What a role does to its own flows costs others neither locks nor workers, nor a right that they took back.

use crate::ground::{Ground, attempt_in};
use crate::support::server::{BOUND, comes};

/// A table of app's, which mallory may read and capture, with a flow of mallory's over it.
fn over_another_roles_table(ground: &mut Ground) {
    ground.role("app").run(
        "create table shared (id int primary key, v int); insert into shared values (1, 1);
         grant usage on schema app to mallory; grant select, trigger on shared to mallory",
    );
    ground.role("mallory").run(
        "select coco.create_flow('watch', 'app.shared', 'select id, v from shared', 'mal.watched', '{id}', capture => 'trigger'); select * from coco.update('watch')",
    );
}

#[test]
fn to_drop_a_flow_locks_nobodys_table_past_the_call() {
    let mut ground = Ground::new();
    over_another_roles_table(&mut ground);
    let mut mallory = ground.role("mallory");
    mallory.run("begin");
    attempt_in(&mut mallory, &["select coco.drop_flow('watch')"]);
    let mut app = ground.role("app");
    app.run("set lock_timeout = '3s'; select * from shared; insert into shared values (2, 2); update shared set v = 3; delete from shared where id = 2");
    mallory.run("rollback");
    // A declaration holds up readers and writers no longer than to put triggers takes.
    ground.unharmed();
    let mut mallory = ground.role("mallory");
    attempt_in(&mut mallory, &["select coco.drop_flow('watch')"]);
    // What is left on the table, if something is, hinders no writer, and goes.
    app.run("insert into shared values (3, 3); update shared set v = v + 1; truncate shared");
    ground.unharmed();
}

#[test]
fn triggers_that_a_tables_owner_dropped_stay_dropped() {
    let mut ground = Ground::new();
    over_another_roles_table(&mut ground);
    let triggers = "select count(*) from pg_trigger where tgrelid = 'app.shared'::regclass and not tgisinternal";
    assert_ne!(ground.admin.number(triggers), 0);
    let mut app = ground.role("app");
    app.run(
        "revoke trigger on shared from mallory;
         do $$ declare t name; begin for t in select tgname from pg_trigger where tgrelid = 'app.shared'::regclass and not tgisinternal loop
           execute format('drop trigger %I on app.shared', t); end loop; end $$",
    );
    for sql in [
        "select * from coco.update('watch')",
        "select coco.start('watch')",
        "select coco.wait('watch', '5 s')",
        "select coco.stop('watch')",
        "select coco.set_query('watch', null, 'select id, v + 1 as v from shared')",
        "select * from coco.update('watch', 'full_reprocess')",
    ] {
        ground.attempt("mallory", &[sql]);
        assert_eq!(ground.admin.number(triggers), 0, "they came back by {sql}");
        ground.admin.0.batch_execute(sql).ok();
        assert_eq!(
            ground.admin.number(triggers),
            0,
            "they came back by {sql}, which a superuser called"
        );
    }
    // The flow goes on by scanning, for it may read the table.
    app.run("insert into shared values (5, 5)");
    let mut mallory = ground.role("mallory");
    attempt_in(&mut mallory, &["select * from coco.update('watch')"]);
    assert_eq!(mallory.number("select count(*) from watched where id = 5"), 1);
    ground.unharmed();
}

#[test]
fn a_flow_that_never_ends_can_be_stopped_and_keeps_no_other_waiting() {
    let mut ground = Ground::new();
    let mut app = ground.role("app");
    app.run("select coco.start('bystander'); insert into people values (50, 'x')");
    app.caught_up("bystander");
    let mut mallory = ground.role("mallory");
    mallory.run(
        "create table t (id int primary key); insert into t values (1);
         create function slow(int) returns int language plpgsql as $$ begin loop perform pg_sleep(0.1); end loop; end $$;
         select coco.create_flow('slow', 'mal.t', 'select slow(id) as id from t', 'mal.slow', '{id}');
         select coco.start('slow')",
    );
    let mut admin = ground.server.connect(crate::ground::DATABASE);
    assert!(comes(BOUND, || admin.holds(
        "select exists (select from coco.workers where flow = 'slow' and state = 'working')"
    )));
    let stopping = std::thread::spawn(move || {
        mallory.0.batch_execute("set statement_timeout = '25s'; select coco.stop('slow')").is_ok()
    });
    assert!(comes(BOUND, || stopping.is_finished()), "coco.stop does not return");
    assert!(stopping.join().expect("no panic"), "coco.stop waits for a turn that never ends");
    app.run("insert into people values (51, 'y')");
    app.caught_up("bystander");
    app.run("select coco.stop('bystander')");
    ground.unharmed();
}

#[test]
fn a_query_that_frees_advisory_locks_frees_none_of_coco_s() {
    let mut ground = Ground::new();
    let mut mallory = ground.role("mallory");
    mallory.run(
        "create table t (id int primary key); insert into t values (1);
         create function free(int) returns int language plpgsql as $$ begin perform pg_advisory_unlock_all(); return $1; end $$;
         select coco.create_flow('free', 'mal.t', 'select free(id) as id from t', 'mal.free', '{id}');
         select coco.start('free')",
    );
    mallory.caught_up("free");
    let locks = "select count(*) from pg_locks l join pg_stat_activity a using (pid) where a.backend_type = 'coco worker' and l.granted and l.locktype in ('advisory', 'object', 'userlock', 'relation')";
    ground.admin.until(&format!("select ({locks}) >= 0"));
    for i in 2..6 {
        mallory.run(&format!("insert into t values ({i})"));
        mallory.caught_up("free");
        // One worker at most has a seat of this database's first, and one alone has a flow's turn.
        let twice = "select count(*) - count(distinct worker_no) from coco.workers";
        assert_eq!(ground.admin.number(twice), 0);
    }
    mallory.run("select * from coco.update('free'); select coco.stop('free')");
    mallory.verify("free");
    ground.unharmed();
}

#[test]
fn code_in_a_flow_takes_no_right_and_leaves_nothing_in_the_session() {
    let mut ground = Ground::new();
    let mut mallory = ground.role("mallory");
    mallory.run("create table t (id int primary key); insert into t values (1)");
    for (n, body) in [
        "set role postgres",
        "reset role",
        "set session authorization postgres",
        "reset session authorization",
        "set session_replication_role = replica",
        "perform set_config('role', 'postgres', false)",
        "execute 'alter role mallory superuser'",
        "execute 'create temp table left_behind (x int)'",
        "execute 'create role another superuser'",
        "execute 'grant postgres to mallory'",
        "execute 'listen x'",
        "execute 'declare c cursor with hold for select 1'",
        "execute 'prepare p as select 1'",
        "execute 'copy (select 1) to program ''true'''",
        "execute 'load ''plpgsql'''",
        "perform pg_read_file('/etc/passwd')",
        "perform lo_import('/etc/passwd')",
        "perform coco.read_file('/etc', 'passwd')",
        "execute 'create constraint trigger later after insert on mal.t deferrable initially deferred for each row execute function mal.late()'",
    ]
    .iter()
    .enumerate()
    {
        let declare = format!(
            "create function f{n}(i int) returns int language plpgsql volatile as $$ begin {body}; return i; end $$;
             select coco.create_flow('f{n}', 'mal.t', 'select f{n}(id) as id from t', 'mal.t{n}', '{{id}}')"
        );
        attempt_in(&mut mallory, &[&declare]);
        attempt_in(&mut ground.admin, &[
            &format!("select * from coco.update('f{n}')"),
            &format!("select * from coco.verify('f{n}', true)"),
            &format!("select * from coco.preview('f{n}', 'full_reprocess')"),
            &format!("select * from coco.explain('f{n}')"),
        ]);
        assert!(ground.admin.holds("select current_user = 'postgres' and session_user = 'postgres'"), "{body}");
        assert!(ground.admin.holds("select to_regclass('pg_temp.left_behind') is null"), "{body}");
        assert_eq!(ground.admin.text("select current_setting('session_replication_role')"), "origin", "{body}");
    }
    ground.unharmed();
}
