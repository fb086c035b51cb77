//! First fills whose rows wait in the outbox: the target is down, or the fill takes long.

use super::{MANY, check_indexes, content, is_filled, many};
use crate::http::{Fault, Receiver};
use crate::sides::{UPPER, counted, declare, expected, fails, text, with_hook};
use crate::support::server::until;
use crate::support::{self, explain};

#[test]
fn a_fill_of_a_target_that_is_down_waits_in_the_outbox() {
    let mut receiver = Receiver::start();
    let mut db = with_hook("external_fill_down", &receiver);
    db.run("alter server hook options (add batch_size '100')");
    db.run("insert into docs select i, repeat('b' || i, 30) from generate_series(1, 3000) i");
    declare(&mut db, "f");
    receiver.stop();
    fails(&mut db.client, "select * from coco.update('f')", "08001");
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "3000");
    // It changes meanwhile: what is newer comes after.
    db.run("update docs set body = 'new' where id = 7; delete from docs where id = 8");
    fails(&mut db.client, "select * from coco.update('f')", "08001");
    receiver.start_again();
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    // The other way round: it goes down while it is being filled.
    db.run(&format!(
        "select coco.create_flow('g', 'docs', '{UPPER}', 'other', '{{id}}', server => 'hook')"
    ));
    receiver.forget_requests();
    receiver.next(Fault::KeepHalf);
    fails(&mut db.client, "select * from coco.update('g')", "08006");
    db.run("update docs set body = 'newer' where id = 7");
    assert_eq!(counted(&mut db, "g"), (1, 1, 0, 0));
    assert_eq!(receiver.rows("g", "other"), expected(&mut db.client, UPPER, "q.id"));
}

#[test]
fn a_fill_that_takes_long_waits_in_the_outbox() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_fill_long", &receiver);
    // 1,000 are sent at once.
    db.run("insert into docs select i, 'b' || i from generate_series(1, 8000) i");
    declare(&mut db, "f");
    receiver.next(Fault::Hold);
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || {
        session.batch_execute("select * from coco.update('f')").expect("an update");
    });
    let outbox = text(&mut db.client, "select outbox::text from coco_internal.target");
    let waits = format!("select count(*)::text from {outbox}");
    until("it is sent", || !receiver.requests().is_empty());
    assert_eq!(text(&mut db.client, &waits), "0");
    std::thread::sleep(std::time::Duration::from_secs(11));
    receiver.release();
    waiting.join().expect("a session");
    assert_eq!(text(&mut db.client, &waits), "7000");
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
}

#[test]
fn another_query_comes_while_a_fill_is_sent() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_fill_query", &receiver);
    db.run("insert into docs select i, 'b' || i from generate_series(1, 3000) i");
    db.run("alter server hook options (add batch_size '1000')");
    declare(&mut db, "f");
    receiver.next(Fault::Hold);
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || {
        let result = session.batch_execute("select * from coco.update('f')");
        result.err().and_then(|e| e.code().map(|c| c.code().to_owned()))
    });
    until("it is sent", || !receiver.requests().is_empty());
    let query = "select id, lower(body) as body, length(body) as size from docs";
    db.run(&format!("select coco.set_query('f', 'out', '{query}')"));
    receiver.release();
    assert_eq!(waiting.join().expect("a session").as_deref(), Some("40001"));
    assert_eq!(counted(&mut db, "f"), (3000, 3000, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, query, "q.id"));
}

#[test]
fn of_a_fill_that_is_ended_nothing_is_sent() {
    let (mut db, mut other) = many("external_fill_ended");
    db.run(
        "create table gate (closed bool); insert into gate values (true);
         create function slow(id int) returns int language plpgsql as $$
         begin
           if id = 2400 and exists (select from public.gate where closed) then perform pg_sleep(3600); end if;
           return id;
         end $$;
         select coco.create_flow('f', 'src', 'select id, slow(id) as n, body from src', 'out', '{id}', server => 'pg')",
    );
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || support::update(&mut session, "f", "normal").is_err());
    let sleeps = "select coalesce(max(pid), 0)::text from pg_stat_activity
                   where backend_type = 'coco update' and datname = current_database() and wait_event = 'PgSleep'";
    until("it is in the middle", || text(&mut db.client, sleeps) != "0");
    let pid = text(&mut db.client, sleeps);
    text(&mut db.client, &format!("select pg_terminate_backend({pid}, 60000)::text"));
    assert!(waiting.join().expect("a session"), "its worker was ended");
    // The table was made ahead, and that is known.
    assert_eq!(text(&mut other.client, "select count(*)::text from out"), "0");
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "0");
    assert_eq!(
        text(&mut db.client, "select managed::text from coco_internal.target where flow = 'f'"),
        "true"
    );
    check_indexes(&mut db, "f");
    db.run("update gate set closed = false");
    assert_eq!(counted(&mut db, "f"), (MANY, MANY, 0, 0));
    assert!(is_filled(&mut db, "f"));
    let here = content(&mut db.client, "(select id, id as n, body from src)");
    assert_eq!(content(&mut other.client, "out"), here);
    check_indexes(&mut db, "f");
    db.verify_clean("f");
}

#[test]
fn a_target_that_cannot_be_opened_is_in_trouble_when_there_is_something_to_send() {
    let (mut db, other) = many("external_fill_closed");
    drop(other);
    db.run("create table later (id int primary key);
            select coco.create_flow('f', 'later', 'select id from later', 'out', '{id}', server => 'pg')");
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0));
    let trouble = "select coalesce(last_error, '') from coco.status where flow = 'f'";
    assert_eq!(text(&mut db.client, trouble), "");
    db.run("insert into later values (1)");
    let e = support::update(&mut db.client, "f", "normal").expect_err("nobody is there");
    let message = explain(&e);
    assert!(message.contains("could not deliver to target"), "{message}");
    let shown = text(&mut db.client, trouble);
    assert!(shown.starts_with("target \"out\" on server pg: database"), "{shown}");
}

#[test]
fn positions_go_on_after_a_fill() {
    let (mut db, other) = many("external_fill_positions");
    drop(other);
    db.run("select coco.create_flow('f', 'src', 'select id, body from src', 'out', '{id}', server => 'pg')");
    for change in
        ["select 1", "update src set body = 'new' where id = 7; delete from src where id = 8"]
    {
        db.run(change);
        support::update(&mut db.client, "f", "normal").expect_err("nobody is there");
    }
    let outbox = text(&mut db.client, "select outbox::text from coco_internal.target");
    let sql = format!("select count(*) || ' ' || max(position) - min(position) from {outbox}");
    assert_eq!(text(&mut db.client, &sql), format!("{} {}", MANY + 2, MANY + 1));
    let sql = format!(
        "select string_agg(c1 || ' ' || upsert, ',' order by position) from {outbox} where position > {MANY}"
    );
    let last = text(&mut db.client, &sql);
    assert!(last == "8 false,7 true" || last == "7 true,8 false", "{last}");
}
