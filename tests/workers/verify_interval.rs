//! `verify_interval`: workers verify the targets of live flows from time to time, and show what differs.
#![cfg(all(feature = "http", feature = "postgres"))]

use crate::{http, sides, support};

use http::Receiver;
use sides::{declare, fails, server_for, text, with_hook};
use support::TestDb;
use support::server::until;

/// Whether a query returns true.
fn holds(db: &mut TestDb, sql: &str) -> bool {
    text(&mut db.client, &format!("select ({sql})::text")) == "true"
}

/// Waits until a worker has verified the flow "f", and found no difference, after this moment.
fn until_verified(db: &mut TestDb) {
    let now = text(&mut db.client, "select clock_timestamp()::text");
    until("a worker has found no difference", || {
        holds(
            db,
            &format!(
                "select verified_at > '{now}' and differing_rows = 0 and state = 'live'
                   from coco.status_detail where flow = 'f'"
            ),
        )
    });
}

/// Waits until a worker has found this number of differing rows.
fn until_differing(db: &mut TestDb, rows: i64) {
    until("a worker has found what differs", || {
        holds(
            db,
            &format!("select differing_rows = {rows} from coco.status_detail where flow = 'f'"),
        )
    });
}

const STATUS: &str =
    "select concat_ws(' | ', state, last_error, hint) from coco.status where flow = 'f'";

#[test]
fn differences_of_another_database_are_shown_and_stay() {
    let mut db = TestDb::new("verify_interval_outside");
    let mut other = TestDb::new("verify_interval_outside_there");
    server_for(&mut db, &other);
    db.run(
        "create table docs (id int primary key, body text);
         insert into docs select i, 'b' || i from generate_series(1, 500) i;
         select coco.create_flow('f', 'docs', 'select id, body from docs', 'there', '{id}', server => 'pg')",
    );
    db.run("select coco.start('f')");
    assert!(holds(&mut db, "select coco.wait('f', '1 min')"));
    let unknown = "select verified_at is null and differing_rows is null and verify_error is null
                     from coco.status_detail";
    assert!(holds(&mut db, unknown), "nobody verifies what nobody asks for");
    db.run("select coco.alter_flow('f', verify_interval => '1 second')");
    assert!(holds(&mut db, "select verify_interval = '1 s' from coco.flows"));
    until_verified(&mut db);
    assert!(holds(&mut db, "select verified_at is not null from coco.delivery_status"));
    assert_eq!(
        text(
            &mut db.client,
            "select count(*)::text from coco.metrics where metric = 'coco_flow_verified_timestamp_seconds'"
        ),
        "1"
    );

    other.run(
        "update there set body = 'edited' where id = 7; delete from there where id = 9;
         insert into there values (5000, 'nobody''s')",
    );
    until_differing(&mut db, 3);
    assert_eq!(
        text(&mut db.client, STATUS),
        "degraded | 3 rows differ in the targets | To see the rows: SELECT * FROM coco.verify('f', outside => true). \
         To mend them, add repair => true."
    );
    assert_eq!(
        text(
            &mut db.client,
            "select value::text from coco.metrics where metric = 'coco_flow_differing_rows'"
        ),
        "3"
    );
    assert_eq!(
        text(
            &mut other.client,
            "select concat_ws(' ', body, (select count(*) from there)) from there where id = 7"
        ),
        "edited 500",
        "it is not mended unasked"
    );
    db.run("select * from coco.verify('f', outside => true, repair => true)");
    until_verified(&mut db);
    assert_eq!(text(&mut other.client, "select count(*)::text from there"), "500");

    // Changes that pass through the flow meanwhile are no difference.
    for round in 0..20 {
        db.run(&format!("update docs set body = body || '{round}' where id % 20 = {round}"));
        assert!(holds(&mut db, "select coalesce(differing_rows, 0) = 0 from coco.status_detail"));
    }
    until_verified(&mut db);

    db.run("select coco.alter_flow('f', verify_interval => '0')");
    assert!(holds(&mut db, unknown));
    assert!(holds(&mut db, "select verify_interval is null from coco.flows"));
    db.run("select coco.stop('f')");
}

#[test]
fn differences_of_tables_here_are_shown_too() {
    let mut db = TestDb::new("verify_interval_here");
    db.run(
        "create table s (id int primary key, v int);
         insert into s select i, i from generate_series(1, 300) i;
         select coco.create_flow('f', 's', 'select id, v * 2 as v from s', 't', '{id}');
         select coco.alter_flow('f', verify_interval => '1 second')",
    );
    db.run("select coco.start('f')");
    until_verified(&mut db);
    db.run("delete from t where id = 9");
    until_differing(&mut db, 1);
    assert_eq!(
        text(&mut db.client, STATUS),
        "degraded | 1 row differs in the targets | To see the rows: SELECT * FROM coco.verify('f'). \
         To mend them, add repair => true."
    );
    assert!(holds(&mut db, "select health = 'degraded' from coco.status_detail"));
    db.run("update s set v = -v where id < 100");
    assert!(holds(&mut db, "select coco.wait('f', '1 min')"));
    db.run("select * from coco.verify('f', repair => true)");
    until_verified(&mut db);
    assert_eq!(text(&mut db.client, "select count(*)::text from t"), "300");
    db.run("select coco.stop('f')");
}

#[test]
fn a_target_that_cannot_be_read_is_said_to_be_so() {
    let receiver = Receiver::start();
    let mut db = with_hook("verify_interval_hook", &receiver);
    db.run("insert into docs values (1, 'a')");
    declare(&mut db, "f");
    db.run("select coco.alter_flow('f', verify_interval => '1 second')");
    db.run("select coco.start('f')");
    until("the reason is shown", || {
        text(&mut db.client, "select verify_error from coco.status_detail")
            == "target \"out\" on server hook cannot be verified"
    });
    assert!(holds(
        &mut db,
        "select verified_at is null and state = 'live' from coco.status_detail"
    ));
    db.run("select coco.stop('f')");
}

#[test]
fn an_interval_is_checked_and_defined() {
    let mut db = TestDb::new("verify_interval_kept");
    db.run(
        "create table s (id int primary key, v int);
         select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}')",
    );
    for wrong in ["-1 s", "0.5 s", "2 years"] {
        let sql = format!("select coco.alter_flow('f', verify_interval => '{wrong}')");
        let said = fails(&mut db.client, &sql, "22023");
        let message = "argument \"verify_interval\" must be between 1 second and 1 year";
        assert!(said.contains(message), "{said}");
    }
    db.run("select coco.alter_flow('f', verify_interval => '1 day')");
    let definition = text(&mut db.client, "select coco.flow_definition('f')");
    assert!(definition.contains("verify_interval => '1 day'"), "{definition}");
    db.run("select coco.alter_flow('f', label => 'other')");
    assert!(holds(&mut db, "select verify_interval = '1 day' from coco.flows"));
    db.run("select coco.drop_flow('f')");
    assert_eq!(text(&mut db.client, "select count(*)::text from coco_internal.verification"), "0");
}
