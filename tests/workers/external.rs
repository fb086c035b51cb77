//! Targets outside this database, as users see them: what is sent, and what becomes of it when things
//! go wrong. The other side is a webhook, which shows every request, and another database.
#![cfg(all(feature = "http", feature = "postgres"))]

use crate::{http, sides, support};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Fault, Receiver};
use postgres::Client;
use sides::{UPPER, counted, declare, expected, fails, server_for, text, with_hook};
use support::server::until;
use support::{TestDb, explain};

/// What the changes of all requests since the last look did: upserts and deletions by key.
fn sent(receiver: &Receiver) -> (Vec<String>, Vec<String>) {
    let (mut upserts, mut deletes) = (vec![], vec![]);
    for request in receiver.requests() {
        let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
        for change in body["changes"].as_array().into_iter().flatten() {
            match change["op"].as_str() {
                Some("upsert") => upserts.push(change["key"].to_string()),
                _ => deletes.push(change["key"].to_string()),
            }
        }
    }
    receiver.forget_requests();
    (upserts, deletes)
}

#[test]
fn what_changes_is_sent_and_nothing_else() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_sent", &receiver);
    db.run("insert into docs select i, 'b' || i from generate_series(1, 5) i");
    declare(&mut db, "f");
    assert_eq!(counted(&mut db, "f"), (5, 5, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    assert_eq!(sent(&receiver).0.len(), 5);

    // Nothing changed; something that the query does not read; something that comes out the same.
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0));
    db.run("update docs set extra = 'x' where id = 1; update docs set body = 'B2' where id = 2");
    assert_eq!(counted(&mut db, "f"), (1, 0, 0, 0));
    assert_eq!(sent(&receiver), (vec![], vec![]));

    db.run(
        "update docs set body = 'new' where id = 1; delete from docs where id = 3;
         update docs set id = 40 where id = 4; insert into docs values (6, null)",
    );
    assert_eq!(counted(&mut db, "f"), (3, 3, 2, 0));
    let (mut upserts, mut deletes) = sent(&receiver);
    upserts.sort();
    deletes.sort();
    assert_eq!(upserts, ["{\"id\":1}", "{\"id\":40}", "{\"id\":6}"]);
    assert_eq!(deletes, ["{\"id\":3}", "{\"id\":4}"]);
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    db.verify_clean("f");
}

#[test]
fn a_key_that_changes_several_times_before_it_is_sent_arrives_once_and_last() {
    let mut receiver = Receiver::start();
    let mut db = with_hook("external_last", &receiver);
    db.run("insert into docs values (1, 'a'), (2, 'b'), (3, 'c')");
    declare(&mut db, "f");
    db.update("f", "normal");
    receiver.stop();
    for change in [
        "update docs set body = 'x' || id",
        "delete from docs where id in (2, 3)",
        "insert into docs values (3, 'again'); update docs set body = 'last' where id = 1",
    ] {
        db.run(change);
        let e = support::update(&mut db.client, "f", "normal").expect_err("nobody is there");
        assert_eq!(e.code().map(|c| c.code()), Some("08001"), "{}", explain(&e));
    }
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "7");
    receiver.forget_requests();
    receiver.start_again();
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0), "what was evaluated is not evaluated again");
    let (mut upserts, deletes) = sent(&receiver);
    upserts.sort();
    assert_eq!(
        (upserts, deletes),
        (vec!["{\"id\":1}".into(), "{\"id\":3}".into()], vec!["{\"id\":2}".into()])
    );
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
}

#[test]
fn one_declaration_fills_many_targets() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_many", &receiver);
    let mut other = TestDb::new("external_many_there");
    server_for(&mut db, &other);
    db.run(
        "insert into docs select i, 'b' || i from generate_series(1, 100) i;
         select coco.create_flow('f'); select coco.add_source('f', 'docs');
         select coco.add_target('f', 'here', 'select id, body from docs', '{id}');
         select coco.add_target('f', 'out', 'select id, upper(body) as body from docs', '{id}', server => 'hook');
         select coco.add_target('f', 'there', 'select id, length(body) as l, now() > ''2000-01-01'' as ok from docs', '{id}', server => 'pg');",
    );
    let counts = db.update("f", "normal").remove(0);
    assert_eq!((counts.evaluated, counts.upserted), (100, 300));
    db.run("update docs set body = body || '!' where id % 2 = 0; delete from docs where id = 1");
    db.update("f", "normal");
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    let here = "select md5(string_agg(id || body, ',' order by id)) from ";
    assert_eq!(
        text(&mut db.client, &format!("{here} here")),
        text(&mut db.client, &format!("{here} docs"))
    );
    let there = text(
        &mut other.client,
        "select string_agg(id || ' ' || l || ok, ',' order by id) from there",
    );
    let here = "select string_agg(id || ' ' || length(body) || true, ',' order by id) from docs";
    assert_eq!(there, text(&mut db.client, here));
    db.verify_clean("f");

    // What was made there goes with the flow, if that is asked for.
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert_eq!(text(&mut other.client, "select to_regclass('there')::text"), "");
}

#[test]
fn a_row_that_is_refused_waits_and_the_others_arrive() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_refused", &receiver);
    db.run("insert into docs select i, case when i = 7 then 'poison' else 'b' end from generate_series(1, 20) i");
    declare(&mut db, "f");
    receiver.refuse(422, "POISON");
    assert_eq!(counted(&mut db, "f"), (20, 20, 0, 1));
    assert_eq!(receiver.rows("f", "out").len(), 19);
    let error =
        "select target || ' ' || target_key::text || ' ' || attempts || ' ' || (next_retry > now())
                   from coco.errors where flow = 'f' and source is null";
    assert_eq!(text(&mut db.client, error), "out {\"id\": 7} 1 true");
    receiver.forget_requests();
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0), "it is not due");
    assert_eq!(sent(&receiver).0.len(), 0);
    let counts = db.update("f", "retry").remove(0);
    assert_eq!(counts.failed, 1);
    assert_eq!(text(&mut db.client, error), "out {\"id\": 7} 2 true");

    // Mended here: the newer row goes through, and the older one is forgotten.
    db.run("update docs set body = 'well' where id = 7");
    assert_eq!(counted(&mut db, "f"), (1, 1, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.errors"), "0");

    // Mended there.
    db.run("update docs set body = 'poison' where id = 8");
    assert_eq!(counted(&mut db, "f"), (1, 1, 0, 1));
    receiver.refuse_nothing();
    assert_eq!(db.update("f", "retry")[0].failed, 0);
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.errors"), "0");
}

/// A row that cannot be encoded, as one whose JSON text is over 1 GB: here a value raises an error as it becomes JSON.
#[test]
fn a_row_that_has_no_json_text_is_refused_and_the_others_arrive() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_unfit", &receiver);
    db.run(
        "create type mood as enum ('fine', 'broken');
         create function mood_json(m mood) returns json language plpgsql as $$
           begin
             if m = 'broken' then raise exception 'a text too long' using errcode = '54000'; end if;
             return to_json(m::text);
           end $$;
         create cast (mood as json) with function mood_json(mood);
         create table moods (id int primary key, m mood not null);
         insert into moods select i, case when i in (1, 7, 8) then 'broken' else 'fine' end::mood from generate_series(1, 20) i;
         select coco.create_flow('f', 'moods', 'select id, m from moods', 'out', '{id}', server => 'hook')",
    );
    let errors = "select string_agg(concat_ws(' ', target, target_key->>'id', sqlstate, message, attempts), ', ' order by target_key->>'id')
                    from coco.errors where flow = 'f' and source is null";
    let refused = |attempts: i32, keys: &[i32]| {
        let rows: Vec<String> =
            keys.iter().map(|k| format!("out {k} 54000 a text too long {attempts}")).collect();
        rows.join(", ")
    };
    // A first fill, which the worker sends by itself.
    assert_eq!(counted(&mut db, "f"), (20, 20, 0, 3));
    assert_eq!(receiver.rows("f", "out").len(), 17);
    assert_eq!(text(&mut db.client, errors), refused(1, &[1, 7, 8]));
    let waits = "select queued || ' ' || rejected from coco.delivery_status where flow = 'f'";
    assert_eq!(text(&mut db.client, waits), "0 3");
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0), "it is not due");
    assert_eq!(db.update("f", "retry")[0].failed, 3);
    assert_eq!(text(&mut db.client, errors), refused(2, &[1, 7, 8]));

    // Out of the outbox: one among others, and one alone.
    db.run("update moods set m = 'broken' where id = 9; insert into moods values (21, 'fine')");
    assert_eq!(counted(&mut db, "f"), (2, 2, 0, 1));
    assert!(
        receiver.rows("f", "out").contains_key("{\"id\":21}"),
        "{:?}",
        receiver.rows("f", "out")
    );
    db.run("update moods set m = 'broken' where id = 10");
    assert_eq!(counted(&mut db, "f"), (1, 1, 0, 1));
    assert_eq!(text(&mut db.client, waits), "0 5");

    // Mended: the newer rows go through, and the older ones are forgotten.
    db.run("update moods set m = 'fine'");
    // An older one that is due by now is tried once more, and counted, before the newer one overtakes it.
    assert_eq!(db.update("f", "normal")[0].upserted, 5);
    assert_eq!(receiver.rows("f", "out").len(), 21);
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.errors"), "0");
}

#[test]
fn a_target_that_was_wiped_is_filled_by_reexport() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_reexport", &receiver);
    // In several transactions.
    db.run("set coco.batch_size = 7");
    db.run("insert into docs select i, 'b' || i from generate_series(1, 50) i");
    declare(&mut db, "f");
    db.update("f", "normal");
    sent(&receiver);
    assert_eq!(db.update("f", "full_reprocess")[0].upserted, 0);
    assert_eq!(sent(&receiver), (vec![], vec![]), "all is evaluated, and came out the same");
    let ledger = text(&mut db.client, "select relation::text from coco.target where flow = 'f'");
    let written = format!("select string_agg(xmin::text, ',' order by id) from {ledger}");
    let before = text(&mut db.client, &written);
    let counts = db.update("f", "reexport").remove(0);
    assert_eq!((counts.seen, counts.evaluated, counts.upserted), (50, 50, 50));
    assert_eq!(sent(&receiver).0.len(), 50);
    assert_eq!(text(&mut db.client, &written), before, "what stays the same is not written again");
}

#[test]
fn another_query_sends_what_comes_out_different() {
    let mut receiver = Receiver::start();
    let mut db = with_hook("external_query", &receiver);
    db.run("insert into docs select i, case when i < 3 then 'B' else 'b' end from generate_series(1, 4) i");
    declare(&mut db, "f");
    db.update("f", "normal");
    sent(&receiver);
    // The same columns: only what differs.
    db.run("select coco.set_query('f', 'out', 'select id, body from docs')");
    db.update("f", "normal");
    assert_eq!(sent(&receiver).0.len(), 2);
    // Other columns, while deletions and rows of the old shape wait.
    receiver.stop();
    db.run("delete from docs where id = 1; update docs set body = 'z' where id = 2");
    support::update(&mut db.client, "f", "normal").expect_err("nobody is there");
    let query = "select id, length(body) as l, body as b from docs";
    db.run(&format!("select coco.set_query('f', null, '{query}')"));
    receiver.start_again();
    sent(&receiver);
    db.update("f", "normal");
    let (upserts, deletes) = sent(&receiver);
    assert_eq!((upserts.len(), deletes), (3, vec!["{\"id\":1}".to_owned()]));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, query, "q.id"));
    let message = fails(
        &mut db.client,
        "select coco.set_query('f', null, 'select id::text as id, body from docs')",
        "0A000",
    );
    assert!(message.contains("key"), "{message}");
}

#[test]
fn what_a_transaction_has_not_committed_is_not_sent() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_commit", &receiver);
    db.run("insert into docs values (1, 'a')");
    let message = fails(
        &mut db.client,
        &format!(
            "begin; select coco.create_flow('g', 'docs', '{UPPER}', 'o', '{{id}}', server => 'hook');
             select * from coco.update('g')"
        ),
        "55000",
    );
    assert!(message.contains("COMMIT"), "{message}");
    db.run("rollback");
    declare(&mut db, "f");
    db.run("begin; insert into docs values (2, 'b')");
    assert_eq!(counted(&mut db, "f"), (1, 1, 0, 0));
    db.run("commit");
    assert_eq!(counted(&mut db, "f"), (1, 1, 0, 0));
    // A worker that waits for us would wait for ever.
    db.run("insert into docs values (3, 'c')");
    let message =
        fails(&mut db.client, "begin; lock table docs; select * from coco.update('f')", "55006");
    assert!(message.contains("is blocked by this transaction"), "{message}");
    db.run("rollback");
    // The worker may have got the lock before it heard that it is not wanted any more.
    db.update("f", "normal");
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
}

#[test]
fn an_update_that_is_cancelled_ends_its_worker_and_loses_nothing() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_cancel", &receiver);
    db.run("insert into docs select i, 'b' || i from generate_series(1, 10) i");
    declare(&mut db, "f");
    // What a fill sends only its process has: it is evaluated and sent once more.
    is_cancelled(&mut db, &receiver);
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "10");
    assert_eq!(counted(&mut db, "f"), (10, 10, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    // The rest waits in the outbox.
    db.run("update docs set body = 'c' || id where id < 5; delete from docs where id = 9");
    is_cancelled(&mut db, &receiver);
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "5");
    assert_eq!(counted(&mut db, "f"), (0, 0, 0, 0));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
    assert_eq!(text(&mut db.client, "select queued::text from coco.delivery_status"), "0");
}

/// An update that is cancelled while what it sends is on its way.
fn is_cancelled(db: &mut TestDb, receiver: &Receiver) {
    receiver.forget_requests();
    receiver.next(Fault::Hold);
    let mut session = db.connect();
    let cancel = session.cancel_token();
    let waiting = std::thread::spawn(move || {
        let result = session.batch_execute("select * from coco.update('f')");
        result.expect_err("it is cancelled").code().map(|c| c.code().to_owned())
    });
    until("it is sent", || !receiver.requests().is_empty());
    cancel.cancel_query(postgres::NoTls).expect("it can be cancelled");
    assert_eq!(waiting.join().expect("a session").as_deref(), Some("57014"));
    receiver.release();
    until("its worker has ended", || {
        text(
            &mut db.client,
            "select count(*)::text from pg_stat_activity
              where backend_type = 'coco update' and datname = current_database()",
        ) == "0"
    });
}

#[test]
fn a_flow_is_dropped_while_an_update_is_between_two_parts() {
    let mut db = TestDb::new("external_drop_between");
    let mut other = TestDb::new("external_drop_between_there");
    server_for(&mut db, &other);
    db.run(
        "create table docs (id int primary key);
         create function gate(id int) returns text language plpgsql as
         'begin
            if id = 130 then perform pg_advisory_lock_shared(77); perform pg_advisory_unlock_shared(77); end if;
            return id::text;
          end';
         insert into docs values (0);
         select coco.create_flow('f', 'docs', 'select id, gate(id) as body from docs', 'there', '{id}', server => 'pg')",
    );
    counted(&mut db, "f");
    // Parts of at least 40 changes: the first is on its way, the second is evaluated.
    for first in [1, 41, 81, 121, 161] {
        db.run(&format!("insert into docs select i from generate_series({first}, {first} + 39) i"));
    }
    db.run("select pg_advisory_lock(77)");
    let mut in_the_way = other.connect();
    in_the_way.batch_execute("begin; lock table there in share mode").expect("a lock");
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || {
        session.batch_execute("set coco.batch_size = 10").expect("a setting");
        let result = session.batch_execute("select * from coco.update('f')");
        result.err().and_then(|e| e.code().map(|c| c.code().to_owned()))
    });
    let waits = |what: &str, client: &mut Client| {
        let sql = format!(
            "select count(*)::text from pg_locks l join pg_stat_activity a using (pid)
              where not l.granted and l.locktype = '{what}' and a.datname = current_database()"
        );
        text(client, &sql) == "1"
    };
    until("the first part is on its way", || waits("relation", &mut other.client));
    until("the second part waits", || waits("advisory", &mut db.client));
    let mut session = db.connect();
    let dropping = std::thread::spawn(move || {
        session.batch_execute("select coco.drop_flow('f', keep_targets => false)")
    });
    until("who drops waits for that", || waits("object", &mut db.client));
    db.run("select pg_advisory_unlock(77)");
    until("who drops has the flow", || !waits("object", &mut db.client));
    in_the_way.batch_execute("commit").expect("a commit");
    dropping.join().expect("a session").expect("it is dropped");
    // Its turn is canceled, or finds no flow any more.
    let ended = waiting.join().expect("a session");
    assert!(matches!(ended.as_deref(), Some("57014" | "42704")), "{ended:?}");
    assert_eq!(text(&mut other.client, "select to_regclass('there')::text"), "");
}

#[test]
fn servers_are_for_those_who_may_use_them() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_rights", &receiver);
    db.run(
        "do $$ begin create role coco_alice login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to coco_alice; create schema alice authorization coco_alice;
         create server secret foreign data wrapper coco_http options (url 'http://127.0.0.1:1/secret-path')",
    );
    let mut alice = db.connect_as("coco_alice");
    alice.batch_execute("set search_path = alice; create table d (id int primary key); insert into d values (1)").expect("a table");
    let create =
        "select coco.create_flow('a', 'd', 'select id from d', 'out', '{id}', server => 'hook')";
    fails(&mut alice, create, "42501");
    fails(
        &mut alice,
        "create server x foreign data wrapper coco_http options (url 'http://127.0.0.1/')",
        "42501",
    );
    fails(
        &mut db.client,
        "create server x foreign data wrapper coco_http options (uri 'http://127.0.0.1/')",
        "HV00D",
    );
    fails(
        &mut db.client,
        "create server x foreign data wrapper coco_http options (url 'http://me:pw@127.0.0.1/')",
        "HV024",
    );
    fails(&mut db.client, "create server x foreign data wrapper coco_http", "HV00J");
    fails(
        &mut alice,
        "select coco.create_flow('a', 'd', 'select id from d', 'out', '{id}', server => 'nowhere')",
        "42704",
    );

    db.run("grant usage on foreign server hook to coco_alice");
    receiver.want("authorization", "Bearer s3cr3t-token");
    alice
        .batch_execute(
            "create user mapping for coco_alice server hook options (bearer_token 's3cr3t-token')",
        )
        .expect("a mapping");
    alice.batch_execute(create).expect("a flow");
    alice.batch_execute("select * from coco.update('a')").expect("an update");
    assert_eq!(receiver.rows("a", "out").len(), 1);
    // What was granted is asked for at every run.
    db.run("revoke usage on foreign server hook from coco_alice");
    alice.batch_execute("insert into d values (2)").expect("a row");
    let message = fails(&mut alice, "select * from coco.update('a')", "42501");
    assert!(message.contains("hook"), "{message}");
    db.run("grant usage on foreign server hook to coco_alice");
    // And a wrong secret is nowhere to be read.
    alice
        .batch_execute("alter user mapping for coco_alice server hook options (set bearer_token 'wr0ng-token')")
        .expect("a mapping");
    let message = fails(&mut alice, "select * from coco.update('a')", "28P01");
    let views = "select concat((select string_agg(s::text, '') from coco.status s),
                        (select string_agg(d::text, '') from coco.delivery_status d),
                        (select string_agg(e::text, '') from coco.errors e),
                        (select string_agg(t::text, '') from coco.targets t),
                        (select string_agg(query, '') from pg_stat_activity where backend_type like 'coco%'))";
    let shown = text(&mut alice, views);
    assert!(shown.contains("out"), "{shown}");
    assert!(!message.contains("wr0ng") && !shown.contains("wr0ng"), "{message} {shown}");
    // Nothing was lost meanwhile.
    alice
        .batch_execute("alter user mapping for coco_alice server hook options (set bearer_token 's3cr3t-token')")
        .expect("a mapping");
    alice.batch_execute("select * from coco.update('a')").expect("an update");
    assert_eq!(receiver.rows("a", "out").len(), 2);
    db.run("drop owned by coco_alice cascade");
}

#[test]
fn a_server_that_a_flow_uses_is_missed() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_server", &receiver);
    db.run("insert into docs values (1, 'a')");
    declare(&mut db, "f");
    let message = fails(&mut db.client, "drop server hook", "2BP01");
    assert!(message.contains("coco.query_"), "{message}");
    db.run("alter server hook rename to other");
    let message = fails(&mut db.client, "select * from coco.update('f')", "42704");
    assert!(message.contains("renamed"), "{message}");
    db.run("alter server other rename to hook");
    db.update("f", "normal");
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, UPPER, "q.id"));
}

#[test]
fn options_of_a_target_are_checked() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_options", &receiver);
    fails(
        &mut db.client,
        &format!(
            "select coco.create_flow('f', 'docs', '{UPPER}', 'out', '{{id}}', server => 'hook', options => '{{\"nonsense\": 1}}')"
        ),
        "HV00D",
    );
    fails(
        &mut db.client,
        &format!(
            "select coco.create_flow('f', 'docs', '{UPPER}', 'out', '{{id}}', options => '{{}}')"
        ),
        "22023",
    );
    db.run("create extension postgres_fdw; create server other foreign data wrapper postgres_fdw");
    fails(
        &mut db.client,
        &format!(
            "select coco.create_flow('f', 'docs', '{UPPER}', 'out', '{{id}}', server => 'other')"
        ),
        "42809",
    );
    declare(&mut db, "f");
    let message = fails(
        &mut db.client,
        &format!(
            "select coco.create_flow('g', 'docs', '{UPPER}', 'out', '{{id}}', server => 'hook')"
        ),
        "55006",
    );
    assert!(message.contains("\"f\""), "{message}");
}

#[test]
fn two_items_with_one_key_send_one_row_and_one_error() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_claims", &receiver);
    db.run("insert into docs values (1, 'same'), (2, 'same'), (3, 'other')");
    db.run("select coco.create_flow('f', 'docs', 'select body, id from docs', 'out', '{body}', server => 'hook')");
    assert_eq!(counted(&mut db, "f"), (3, 2, 0, 1));
    assert_eq!(receiver.rows("f", "out").len(), 2);
    // When the owner lets go of it, the other takes it over.
    db.run("update docs set body = 'mine' where id = 1");
    db.update("f", "normal");
    let rows = receiver.rows("f", "out");
    assert_eq!(rows, expected(&mut db.client, "select body, id from docs", "q.body"), "{rows:?}");
}

#[test]
fn a_lost_ledger_sends_everything_again() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_ledger", &receiver);
    db.run("insert into docs select i, 'b' || i from generate_series(1, 10) i");
    declare(&mut db, "f");
    db.update("f", "normal");
    sent(&receiver);
    let ledger = text(&mut db.client, "select relation::text from coco.target");
    db.run(&format!("delete from {ledger} where id = 3; update {ledger} set coco_fingerprint = null where id = 4"));
    let found = support::verify(&mut db.client, "f", true).expect("verify");
    assert_eq!(found.len(), 2, "{found:?}");
    db.update("f", "normal");
    assert_eq!(sent(&receiver).0.len(), 2);
    db.run(&format!("drop table {ledger} cascade"));
    db.update("f", "normal");
    assert_eq!(sent(&receiver).0.len(), 10);
    db.verify_clean("f");
}

#[test]
fn a_key_that_looks_different_is_another_key_there() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_look", &receiver);
    db.run("create table prices (no numeric primary key, label text); insert into prices values (1.0, 'a'), (2, 'b')");
    let query = "select no, label from prices";
    db.run(&format!(
        "select coco.create_flow('f', 'prices', '{query}', 'out', '{{no}}', server => 'hook')"
    ));
    db.update("f", "normal");
    db.run("update prices set no = 1.00 where no = 1");
    db.run("update prices set label = 'c' where no = 2");
    db.update("f", "normal");
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, query, "q.no"));
    db.run("delete from prices");
    db.update("f", "normal");
    assert!(receiver.rows("f", "out").is_empty());
}

#[test]
fn columns_are_called_what_they_like() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_names", &receiver);
    db.run("insert into docs select i, 'b' || i from generate_series(1, 3) i");
    let query =
        "select id as k, body as r, 1 as o, 2 as \"position\", 'x' as \"A \"\"b\" from docs";
    for (flow, key) in [("f", "k"), ("g", "r")] {
        db.run(&format!("select coco.create_flow('{flow}', 'docs', $q${query}$q$, '{flow}', '{{{key}}}', server => 'hook')"));
        db.update(flow, "normal");
        assert_eq!(receiver.rows(flow, flow), expected(&mut db.client, query, &format!("q.{key}")));
        db.verify_clean(flow);
    }
}

#[test]
fn what_a_lookup_affects_is_evaluated_also_where_a_scan_takes_several_transactions() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_lookup", &receiver);
    db.run(
        "create table authors (id int primary key, name text); insert into authors values (1, 'one'), (2, 'two');
         insert into docs select i, 'b', (i % 2 + 1)::text from generate_series(1, 30) i",
    );
    let query = "select d.id, d.body, a.name from docs d join authors a on a.id = d.extra::int";
    db.run(&format!(
        "select coco.create_flow('f'); select coco.add_source('f', 'docs', capture => 'scan');
         select coco.add_target('f', 'out', $$ {query} $$, '{{id}}', server => 'hook');
         select coco.add_lookup('f', 'authors', affects => 'select d.id from docs d join authors a on a.id = d.extra::int');
         set coco.batch_size = 4"
    ));
    db.update("f", "normal");
    db.run("update authors set name = 'uno' where id = 1; update docs set body = 'x' where extra = '2'");
    let counts = db.update("f", "normal").remove(0);
    assert_eq!((counts.evaluated, counts.upserted), (30, 30));
    assert_eq!(receiver.rows("f", "out"), expected(&mut db.client, query, "q.id"));
}

#[test]
fn a_flow_goes_with_all_that_was_made_for_it_or_stays() {
    let mut db = TestDb::new("external_drop");
    let mut other = TestDb::new("external_drop_there");
    server_for(&mut db, &other);
    db.run(
        "create table docs (id int primary key, body text);
         insert into docs select i, 'b' || i from generate_series(1, 100) i;
         select coco.create_flow('f'); select coco.add_source('f', 'docs');
         select coco.add_target('f', 'here', 'select id, body from docs', '{id}');
         select coco.add_target('f', 'there', 'select id, body from docs', '{id}', server => 'pg');",
    );
    db.update("f", "normal");
    let drop = "select coco.drop_flow('f', keep_targets => false)";
    let there = "select count(*)::text from there";

    // Something hinders it here, or there.
    db.run("create view on_it as select * from here");
    fails(&mut db.client, drop, "2BP01");
    assert_eq!(text(&mut other.client, there), "100");
    db.run("drop view on_it; alter server pg options (set dbname 'coco_test_nowhere')");
    fails(&mut db.client, drop, "3D000");
    db.run("alter server pg options (set dbname 'coco_test_external_drop_there')");
    db.run("delete from docs where id = 1");
    db.update("f", "normal");
    db.verify_clean("f");
    assert_eq!(text(&mut other.client, there), "99");

    // Nothing is made again by a worker that follows the flow.
    db.run("select coco.start('f'); select coco.wait('f', '60 s')");
    let mut writer = db.connect();
    let ended = Arc::new(AtomicBool::new(false));
    let writing = std::thread::spawn({
        let ended = ended.clone();
        move || {
            let mut id = 1000;
            while !ended.load(Ordering::Relaxed) {
                writer.execute("insert into docs values ($1, 'new')", &[&id]).expect("a row");
                id += 1;
            }
        }
    });
    until("rows arrive", || text(&mut other.client, there).parse::<i32>().expect("a number") > 150);
    db.run("begin");
    db.run(drop);
    db.run("rollback");
    ended.store(true, Ordering::Relaxed);
    writing.join().expect("rows are written");
    assert_eq!(text(&mut db.client, "select to_regclass('here')::text"), "");
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.flows"), "0");
    assert_eq!(text(&mut other.client, "select to_regclass('there')::text"), "");
}

#[test]
fn what_is_refused_while_that_cannot_be_noted_is_not_lost() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_noted", &receiver);
    db.run(
        "insert into docs select i, case i when 1 then 'poison' else 'b' end from generate_series(1, 5000) i;
         create table way as select 1 as x;
         create function public.in_the_way() returns trigger language plpgsql as $$ begin
             if exists (select from public.way) then raise 'it cannot be noted'; end if;
             return new;
           end $$;
         create trigger in_the_way before update of sent on coco.delivery_state
           for each row execute function public.in_the_way()",
    );
    declare(&mut db, "f");
    receiver.refuse(200, "POISON");
    // Several batches; and so late that the next is read meanwhile.
    receiver.always(Some(Fault::Late(std::time::Duration::from_millis(300))));
    db.run("select coco.start('f')");
    until("it is sent", || receiver.requests().len() >= 3);
    db.run("delete from way");
    receiver.always(None);
    db.run("select coco.wait('f', '60 s')");
    assert_eq!(receiver.rows("f", "out").len(), 4999);
    let error = "select target_key::text from coco.errors where flow = 'f' and target = 'out'";
    assert_eq!(text(&mut db.client, error), "{\"id\": 1}");
}

/// Random changes, while the other side fails in every way it can.
#[test]
fn whatever_goes_wrong_the_target_ends_up_right() {
    let seed = match std::env::var("COCO_TEST_SEED") {
        Ok(seed) => seed.parse().expect("COCO_TEST_SEED is a number"),
        Err(_) => fastrand::u64(1..1_000_000),
    };
    println!("COCO_TEST_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let receiver = Receiver::start();
    let mut db = with_hook("external_random", &receiver);
    let query = "select id, n, md5(body || n) as piece from docs, generate_series(1, length(body) % 4) as n";
    db.run(&format!(
        "select coco.create_flow('f', 'docs', $$ {query} $$, 'out', '{{id,n}}', server => 'hook');
         alter server hook options (add batch_size '7', set request_timeout '1')"
    ));
    for _ in 0..25 {
        for _ in 0..rng.usize(1..6) {
            let (id, to) = (rng.i32(1..60), rng.i32(1..60));
            let body: String = (0..rng.usize(0..9)).map(|_| rng.alphanumeric()).collect();
            db.run(&match rng.u8(0..6) {
                0 => format!("delete from docs where id between {id} and {to}"),
                1 => format!("update docs set id = id + 100 where id = {id} and not exists (select from docs where id = {id} + 100)"),
                2 => "truncate docs".to_owned(),
                _ => format!(
                    "insert into docs select i, '{body}' || i from generate_series({id}, {id} + 15) i
                     on conflict (id) do update set body = excluded.body"
                ),
            });
        }
        for _ in 0..rng.usize(0..3) {
            receiver.next(match rng.u8(0..6) {
                0 => Fault::status(500),
                1 => Fault::CutRequest,
                2 => Fault::KeepHalf,
                3 => Fault::CutAnswer,
                4 => Fault::answer(429, ("Retry-After", "1"), ""),
                _ => Fault::Late(std::time::Duration::from_millis(1500)),
            });
        }
        // It may end with an error, and goes on from there.
        support::update(&mut db.client, "f", "normal").ok();
    }
    until("nothing goes wrong any more", || support::update(&mut db.client, "f", "normal").is_ok());
    assert_eq!(
        receiver.rows("f", "out"),
        expected(&mut db.client, query, "q.id, q.n"),
        "seed {seed}"
    );
    db.verify_clean("f");
    assert_eq!(
        text(&mut db.client, "select queued + rejected || '' from coco.delivery_status"),
        "0"
    );
}

#[test]
fn a_table_that_could_not_be_made_is_not_coco_s_when_somebody_makes_it() {
    let mut db = TestDb::new("external_not_made");
    let mut other = TestDb::new("external_not_made_there");
    server_for(&mut db, &other);
    other.run(
        "do $$ begin create role coco_guest login; exception when duplicate_object or unique_violation then null; end $$;
         revoke create on schema public from public",
    );
    db.run(
        "alter user mapping for postgres server pg options (set user 'coco_guest');
         create table docs (id int primary key, body text); insert into docs values (1, 'a');
         select coco.create_flow('f', 'docs', 'select id, body from docs', 'out', '{id}', server => 'pg')",
    );
    let made = "select managed::text from coco.target where flow = 'f'";
    fails(&mut db.client, "select * from coco.update('f')", "42501");
    assert_eq!(text(&mut db.client, made), "false");
    other.run("create table out (id int primary key, body text); grant all on out to coco_guest");
    db.update("f", "normal");
    assert_eq!(text(&mut other.client, "select string_agg(body, ',') from out"), "a");
    assert_eq!(text(&mut db.client, made), "false");
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert_eq!(text(&mut other.client, "select count(*)::text from out"), "1");
}

#[test]
fn a_table_that_somebody_else_makes_first_is_not_coco_s() {
    let mut db = TestDb::new("external_quicker");
    let mut other = TestDb::new("external_quicker_there");
    server_for(&mut db, &other);
    db.run(
        "create table docs (id int primary key, body text); insert into docs values (1, 'a');
         select coco.create_flow('f', 'docs', 'select id, body from docs', 'out', '{id}', server => 'pg')",
    );
    // Not seen yet when coco looks, and in its way when it makes one.
    other.run("begin; create table out (id int primary key, body text)");
    let mut session = db.connect();
    let waiting = std::thread::spawn(move || support::update(&mut session, "f", "normal").is_ok());
    let made = "select managed::text from coco.target where flow = 'f'";
    until("that it is made is noted", || text(&mut db.client, made) == "true");
    let waits = "select count(*)::text from pg_stat_activity
                  where query like 'create table %' and wait_event_type = 'Lock' and application_name = 'coco'";
    until("it is in the way", || text(&mut db.client, waits) == "1");
    other.run("commit");
    assert!(waiting.join().expect("a session"));
    assert_eq!(text(&mut db.client, made), "false");
    assert_eq!(text(&mut other.client, "select string_agg(body, ',') from out"), "a");
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert_eq!(text(&mut other.client, "select count(*)::text from out"), "1");
}
