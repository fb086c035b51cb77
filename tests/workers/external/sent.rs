//! What is sent to a target: what has changed, once, in its last state, and after its commit.

use super::sent;
use crate::http::Receiver;
use crate::sides::{UPPER, counted, declare, expected, fails, server_for, text, with_hook};
use crate::support::{self, TestDb, explain};

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
    let ledger =
        text(&mut db.client, "select relation::text from coco_internal.target where flow = 'f'");
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
fn a_lost_ledger_sends_everything_again() {
    let receiver = Receiver::start();
    let mut db = with_hook("external_ledger", &receiver);
    db.run("insert into docs select i, 'b' || i from generate_series(1, 10) i");
    declare(&mut db, "f");
    db.update("f", "normal");
    sent(&receiver);
    let ledger = text(&mut db.client, "select relation::text from coco_internal.target");
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
