//! The runs of a flow, as `coco.history` shows them.

#[cfg(feature = "http")]
use crate::http;
use crate::support;

use support::TestDb;
use support::server::Server;

const SHOWN: &str = "select concat_ws(' ', reason, initiator, seen, skipped, unchanged, evaluated, upserted, deleted, failed)
                       from coco.history('f') order by run_id";

fn rows(db: &mut TestDb, sql: &str) -> Vec<String> {
    let rows = db.client.query(sql, &[]);
    let rows = rows.unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)));
    rows.iter().map(|r| r.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())).collect()
}

fn declare(db: &mut TestDb) {
    db.run(
        "create table d (id int primary key, v int not null);
         insert into d select i, i from generate_series(1, 10) i;
         select coco.create_flow('f', 'd', 'select id, 100 / v as v from d', 't', '{id}')",
    );
}

#[test]
fn each_run_is_noted_with_its_reason_and_counts() {
    let mut db = TestDb::new("history_reasons");
    declare(&mut db);
    assert_eq!(rows(&mut db, SHOWN), Vec::<String>::new());
    db.update("f", "normal");
    db.run("update d set v = 0 where id = 1; update d set v = 50 where id = 2; delete from d where id = 3");
    db.update("f", "normal");
    db.update("f", "normal");
    db.update("f", "retry");
    db.run("select coco.set_query('f', null, 'select id, 1000 / v as v from d')");
    db.update("f", "normal");
    db.update("f", "full_reprocess");
    db.update("f", "reexport");
    assert_eq!(
        rows(&mut db, SHOWN),
        [
            "initial session 10 0 0 10 10 0 0",
            "data_change session 2 0 0 2 1 1 1",
            "data_change session 1 0 0 0 0 0 1",
            "retry session 1 0 0 1 0 0 1",
            "logic_change session 9 0 0 9 8 0 1",
            "full_reprocess session 9 0 0 9 0 0 1",
            "reexport session 9 0 0 9 8 0 1",
        ]
    );
    // The newest comes first, and its times are those of the run.
    assert_eq!(
        rows(
            &mut db,
            "select (array_agg(run_id) = array_agg(run_id order by run_id desc)
                     and bool_and(started between now() - interval '1 hour' and clock_timestamp())
                     and bool_and(elapsed > '0' and started + elapsed <= clock_timestamp())
                     and bool_and(error is null and label is null))::text
               from coco.history('f')"
        ),
        ["true"]
    );
}

#[test]
fn a_run_that_is_rolled_back_is_in_no_history() {
    let mut db = TestDb::new("history_rollback");
    declare(&mut db);
    db.run("begin; select coco.update('f'); rollback");
    assert_eq!(rows(&mut db, SHOWN), Vec::<String>::new());
    // A restored target, all of it again, is not the first run.
    db.update("f", "normal");
    db.run("drop table t");
    db.update("f", "normal");
    assert_eq!(
        rows(&mut db, "select reason from coco.history('f') order by run_id"),
        ["initial", "logic_change"]
    );
}

#[test]
fn as_many_runs_are_kept_as_the_setting_says() {
    let mut db = TestDb::new("history_size");
    declare(&mut db);
    db.run("set coco.history_limit = 3");
    for _ in 0..6 {
        db.update("f", "normal");
    }
    let newest = "select string_agg(run_id::text, ' ' order by run_id) from coco.history('f')";
    assert_eq!(rows(&mut db, newest), ["4 5 6"]);
    // Another flow's are counted by themselves.
    db.run("select coco.create_flow('g', 'd', 'select id from d', 'u', '{id}'); select coco.update('g')");
    assert_eq!(rows(&mut db, newest), ["4 5 6"]);
    db.run("set coco.history_limit = 0");
    db.update("f", "normal");
    assert_eq!(rows(&mut db, newest), ["4 5 6"]);
    db.run("set coco.history_limit = 1");
    db.update("f", "normal");
    assert_eq!(rows(&mut db, newest), ["8"]);
    // It goes with the flow.
    db.run("select coco.drop_flow('f')");
    assert_eq!(rows(&mut db, "select count(*)::text from coco_internal.run_history"), ["1"]);
}

/// What another session drops of the history, while this one reads as of earlier, is no error.
#[test]
fn runs_are_noted_in_every_isolation_level() {
    let mut db = TestDb::new("history_isolation");
    declare(&mut db);
    db.run("select coco.update('f'); select coco.update('f')");
    for level in ["repeatable read", "serializable"] {
        db.run(&format!("begin isolation level {level}; set local coco.history_limit = 1; select coco.update('f'); commit"));
    }
    assert_eq!(rows(&mut db, "select count(*)::text from coco.history('f')"), ["4"]);
    db.run("set coco.history_limit = 1; select coco.update('f')");
    assert_eq!(rows(&mut db, "select count(*)::text from coco.history('f')"), ["1"]);
}

#[test]
fn history_is_the_owners() {
    let mut db = TestDb::new("history_rights");
    declare(&mut db);
    db.update("f", "normal");
    db.run(
        "do $$ begin create role coco_bob login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to coco_bob",
    );
    let mut bob = db.connect_as("coco_bob");
    for (sql, code) in [
        ("select * from coco.history('f')", "42501"),
        ("select * from coco.history('nowhere')", "42704"),
        ("select * from coco_internal.run_history", "42501"),
    ] {
        let e = bob.query(sql, &[]).expect_err(sql);
        assert_eq!(e.code().map(|c| c.code()), Some(code), "{sql}: {}", support::explain(&e));
    }
}

/// What a worker does in many turns is one row, or few; what it does not do is none.
#[test]
fn a_live_flows_turns_are_taken_together() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("live_history");
    db.run(
        "create table d (id int primary key, v int not null);
         insert into d select i, i from generate_series(1, 10) i;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}');
         select coco.start('f')",
    );
    db.settle("f");
    db.until("select count(*) = 1 from coco.history('f')");
    assert_eq!(
        db.text(
            "select concat_ws(' ', reason, initiator, evaluated, upserted) from coco.history('f')"
        ),
        "initial worker 10 10"
    );
    for n in 0..40 {
        db.run(&format!("update d set v = {n} where id = 1"));
        db.until(&format!("select v = {n} from t where id = 1"));
    }
    // What is done is noted when the flow is stopped, at the latest.
    db.run("select coco.stop('f')");
    db.until(
        "select coalesce(sum(evaluated), 0) = 40 from coco.history('f') where reason = 'data_change'",
    );
    // In less than a minute, or in a few on a slow machine.
    let entries = db.number("select count(*) from coco.history('f') where reason = 'data_change'");
    let minutes = db.number(
        "select ceil(extract(epoch from clock_timestamp() - min(started)) / 60)::int from coco.history('f')",
    );
    assert!(entries <= 1 + minutes, "{entries} entries in {minutes} minutes");

    // Why it fails as a whole is noted once, whatever the attempts.
    db.run("select coco.start('f'); alter table d rename id to other");
    db.until("select coalesce(max(attempts), 0) >= 2 from coco_internal.flow_error");
    db.until("select count(*) = 1 from coco.history('f') where error is not null");
    db.run("alter table d rename other to id; select coco.stop('f'); select coco.start('f')");
    db.settle("f");
    let errors = db.rows("select error from coco.history('f') where error is not null");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("key column \"id\" of source \"d\""), "{errors:?}");
}

/// Of an update that a worker makes for a session an entry is left, also where that fails.
#[cfg(feature = "http")]
#[test]
fn what_a_worker_does_for_a_session_is_noted_also_where_it_fails() {
    let mut receiver = http::Receiver::start();
    let mut db = TestDb::new("history_external");
    db.run(&format!(
        "create server hook foreign data wrapper coco_http options (url '{}');
         create user mapping for postgres server hook;
         create table d (id int primary key, body text);
         insert into d select i, 'b' || i from generate_series(1, 25) i;
         select coco.create_flow('f', 'd', 'select id, body from d', 'out', '{{id}}', server => 'hook')",
        receiver.url()
    ));
    // Several parts are one run.
    db.run("set coco.batch_size = 2; select coco.update('f')");
    receiver.stop();
    db.run("update d set body = 'new' where id = 1");
    support::update(&mut db.client, "f", "normal").expect_err("nobody is there");
    let shown = rows(
        &mut db,
        "select concat_ws(' ', reason, initiator, evaluated, upserted, error is not null) from coco.history('f') order by run_id",
    );
    assert_eq!(shown, ["initial session 25 25 f", "data_change session 1 1 t"]);
    let error = rows(&mut db, "select error from coco.history('f') where error is not null");
    assert!(error[0].contains("could not deliver to target"), "{error:?}");
}
