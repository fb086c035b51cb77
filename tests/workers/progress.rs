//! How far updates are, and what processes do: as other sessions, and the one that waits, see it.

#[cfg(feature = "http")]
use crate::http;
use crate::support;

use std::sync::{Arc, Mutex};

use support::TestDb;
use support::server::{Server, Session};

/// A flow of which each item takes a while: `ms` milliseconds, of which a batch is one item.
fn declare(db: &mut Session, ms: i32, items: i32) {
    db.run(&format!(
        "create table d (id int primary key);
         insert into d select i from generate_series(1, {items}) i;
         create function slow(id int) returns int volatile language plpgsql as
           $$ begin perform pg_sleep({ms} / 1000.0); return id; end $$;
         select coco.create_flow('f', 'd', 'select id, slow(id) as v from d', 't', '{{id}}');
         select coco.alter_flow('f', batch_size => 1)"
    ));
}

/// Is there a row that shows how far an update is, of all there is to do, and when it will end?
const HALFWAY: &str = "select count(*) = 1 from coco.progress p
  where flow = 'f' and source = 'd' and items_done > 0 and items_total = 100 and estimated_end > clock_timestamp() and pid = ";

#[test]
fn others_see_how_far_a_sessions_update_is() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("progress");
    declare(&mut db, 50, 100);
    let mut other = server.connect("progress");
    let pid = other.number("select pg_backend_pid()");
    let update = std::thread::spawn(move || {
        other.run("select coco.update('f')");
        other
    });
    db.until(&format!("{HALFWAY}{pid}"));
    let workers = format!("select count(*) from coco.workers where pid = {pid}");
    assert_eq!(db.number(&workers), 0, "a session is no worker");
    db.run("create role nobody_in_particular login; grant usage on schema coco to nobody_in_particular");
    let mut nobody = server.connect_as("progress", "nobody_in_particular");
    assert_eq!(nobody.number("select count(*) from coco.progress"), 0);
    update.join().expect("it is updated");
    assert_eq!(db.number("select count(*) from coco.progress"), 0);
    // One that fails, is canceled, or loses its client, is seen no more either.
    for end in ["pg_cancel_backend", "pg_terminate_backend"] {
        let mut other = server.connect("progress");
        let pid = other.number("select pg_backend_pid()");
        let update = std::thread::spawn(move || {
            other.fails("select coco.update('f', 'reexport')");
        });
        db.until(&format!("{HALFWAY}{pid}"));
        db.run(&format!("select {end}({pid})"));
        update.join().expect("it has ended");
        db.until("select count(*) = 0 from coco.progress");
    }
}

/// What a worker has set aside counts: a fill of many slices is one piece of work.
#[test]
fn a_live_flows_fill_is_one_piece_of_work() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("fill");
    declare(&mut db, 50, 100);
    db.run("select coco.start('f')");
    let worker = "(select pid from coco.workers)";
    db.until(&format!("{HALFWAY}{worker} and items_done > 10"));
    // While it works its activity says for which flow.
    db.until(
        "select count(*) = 1 from pg_stat_activity
          where backend_type = 'coco worker' and application_name = 'coco worker' and query = 'coco: flow f' and state = 'active'",
    );
    db.settle("f");
    db.until("select count(*) = 0 from coco.progress");
    if db.number("select current_setting('server_version_num')::int") >= 170_000 {
        for (process, event) in [("coco worker", "CocoChanges"), ("coco launcher", "CocoLauncher")]
        {
            db.until(&format!(
                "select count(*) = 1 from pg_stat_activity
                  where backend_type = '{process}' and wait_event_type = 'Extension' and wait_event = '{event}'"
            ));
        }
    }
}

/// Of an update that takes its time its client hears, not at once and not often, and only where it
/// has asked for it itself.
#[test]
fn who_waits_hears_how_far_an_update_is() {
    let mut db = TestDb::new("notices");
    db.run(
        "create table d (id int primary key);
         insert into d select i from generate_series(1, 55) i;
         create function slow(id int) returns int volatile language plpgsql as
           $$ begin perform pg_sleep(0.1); return id; end $$;
         select coco.create_flow('f', 'd', 'select id, slow(id) as v from d', 't', '{id}');
         select coco.alter_flow('f', batch_size => 1)",
    );
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = heard.clone();
    let mut client = db.connect_hearing(move |line| hear.lock().expect("lines").push(line));
    let mut update = |sql: &str| -> (Vec<String>, u64) {
        heard.lock().expect("lines").clear();
        let began = std::time::Instant::now();
        client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)));
        (heard.lock().expect("lines").clone(), began.elapsed().as_secs())
    };
    let (lines, seconds) = update("select coco.update('f')");
    assert!(!lines.is_empty() && lines.len() as u64 <= seconds / 5, "{lines:?} in {seconds} s");
    assert!(
        lines[0].starts_with("flow \"f\": ") && lines[0].contains(" of 55 items ("),
        "{lines:?}"
    );
    let (lines, _) = update("do $$ begin perform coco.update('f', 'full_reprocess'); end $$");
    assert_eq!(lines, Vec::<String>::new());
    let (lines, seconds) = update("update d set id = id + 1000; select coco.retry('f')");
    assert!(!lines.is_empty() && lines.len() as u64 <= seconds / 5, "{lines:?} in {seconds} s");
}

/// Each error says what to do, also where the one that was raised does not.
#[test]
fn errors_say_what_to_do_and_when_it_is_tried_again() {
    let mut db = TestDb::new("hints");
    db.run(
        "create table d (id int primary key, v text); insert into d values (1, 'x'), (2, '2');
         select coco.create_flow('f', 'd', 'select id, v::int as v from d', 't', '{id}');
         select coco.update('f')",
    );
    let error = db.client.query_one("select hint, next_retry > failed_at from coco.errors", &[]);
    let error = error.expect("an error");
    assert!(error.get::<_, String>(0).contains("coco.retry"));
    assert!(error.get::<_, bool>(1));
}

/// While a session waits for a worker, both say what they wait for.
#[cfg(feature = "http")]
#[test]
fn an_update_by_a_worker_says_what_it_does() {
    let receiver = http::Receiver::start();
    let server = Server::preloaded(&[]);
    let mut db = server.database("external");
    declare(&mut db, 50, 100);
    db.run(&format!(
        "create server hook foreign data wrapper coco_http options (url '{}');
         create user mapping for postgres server hook;
         select coco.add_target('f', 'out', 'select id, slow(id) as v from d', '{{id}}', server => 'hook')",
        receiver.url()
    ));
    let mut other = server.connect("external");
    let pid = other.number("select pg_backend_pid()");
    let update = std::thread::spawn(move || other.run("select coco.update('f')"));
    db.until(&format!("{HALFWAY}(select pid from coco.workers where worker_no = 0)"));
    db.until(
        "select count(*) = 1 from pg_stat_activity
          where backend_type = 'coco update' and application_name = 'coco update' and query = 'coco: update of flow f'",
    );
    if db.number("select current_setting('server_version_num')::int") >= 170_000 {
        db.until(&format!(
            "select count(*) = 1 from pg_stat_activity where pid = {pid} and wait_event = 'CocoUpdate'"
        ));
    }
    update.join().expect("it is updated");
}
