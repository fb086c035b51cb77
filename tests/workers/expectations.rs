//! Expectations of a target outside the database, and of a live flow.
#![cfg(all(feature = "http", feature = "postgres"))]

use crate::{http, sides, support};

use http::Receiver;
use sides::{counted, text, with_hook};
use support::server::until;

#[test]
fn a_parked_row_is_deleted_from_a_target_outside() {
    let receiver = Receiver::start();
    let mut db = with_hook("expect_outside", &receiver);
    db.run(
        "insert into docs values (1, 'a'), (2, 'bad'), (3, null);
         select coco.create_flow('f', 'docs', 'select id, body from docs', 'out', '{id}', server => 'hook');
         select coco.expect('f', 'body <> ''bad''', name => 'good')",
    );
    assert_eq!(counted(&mut db, "f"), (3, 2, 0, 0));
    let keys = |receiver: &Receiver| receiver.rows("f", "out").into_keys().collect::<Vec<_>>();
    assert_eq!(keys(&receiver), ["{\"id\":1}", "{\"id\":3}"]);
    assert_eq!(
        text(
            &mut db.client,
            "select concat_ws(' ', source_key, target, target_key) from coco.errors"
        ),
        "{\"id\": 2} out {\"id\": 2}"
    );
    db.run("update docs set body = 'bad' where id = 1; update docs set body = 'b' where id = 2");
    assert_eq!(counted(&mut db, "f"), (2, 1, 1, 0));
    assert_eq!(keys(&receiver), ["{\"id\":2}", "{\"id\":3}"]);
    assert_eq!(
        text(
            &mut db.client,
            "select concat_ws(' ', target, checked, failed, parked) from coco.expectations"
        ),
        "out 5 2 1"
    );
    db.verify_clean("f");
}

#[test]
fn a_live_flow_parks_rows_and_stops_at_too_many() {
    let receiver = Receiver::start();
    let mut db = with_hook("expect_live", &receiver);
    db.run(
        "create table s (id int primary key, v int);
         select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.expect('f', 'v > 0', name => 'positive', max_share => 0.02)",
    );
    db.run("select coco.start('f')");
    db.run("insert into s values (1, 1), (2, -1)");
    let mut client = db.connect();
    until("the row is parked", || {
        text(&mut client, "select string_agg(target_key::text, ' ') from coco.errors")
            == "{\"id\": 2}"
    });
    assert_eq!(text(&mut client, "select string_agg(id::text, ' ') from t"), "1");
    db.run("insert into s select i, -1 from generate_series(3, 9) i");
    until("the flow has failed", || text(&mut client, "select state from coco.status") == "failed");
    let said = text(&mut client, "select last_error from coco.status");
    assert_eq!(said, "too many rows of target public.t do not satisfy expectation \"positive\"");
    // The worker sees an expectation that is declared again, and continues.
    db.run("select coco.expect('f', 'v > 0', name => 'positive')");
    db.run("select coco.start('f')");
    until("the rows are parked", || {
        text(&mut client, "select count(*)::text from coco.errors") == "8"
    });
}
