//! Declarations of external targets: who may use a server, options, keys and names.

use crate::http::Receiver;
use crate::sides::{UPPER, declare, expected, fails, text, with_hook};

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
