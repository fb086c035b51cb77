//! Expectations in the first update of a flow: the statement that fills the targets also sets aside
//! the rows that coco parks.

use crate::support;

use postgres::Client;
use support::{TestDb, explain};

fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// Whether the items of flow `f` were written at once: they have one process ordinal. In batches,
/// each item has its own.
fn is_filled(db: &mut TestDb) -> bool {
    let table = text(
        &mut db.client,
        "select tracking::text from coco_internal.source where flow = 'f' and lookup_of is null",
    );
    let ordinals = format!("select count(distinct process_ordinal)::text from {table}");
    text(&mut db.client, &ordinals) == "1"
}

/// The expectations, with the numbers of rows checked, failed and parked.
fn counted(db: &mut TestDb) -> String {
    text(
        &mut db.client,
        "select string_agg(concat_ws(' ', name, action, checked, failed, parked), ', ' order by name)
           from coco.expectations",
    )
}

/// A database with a table `s` (id, v) of this many rows, of which every hundredth has a negative v.
fn with_rows(name: &str, rows: i32) -> TestDb {
    let mut db = TestDb::new(&format!("expect_bulk_{name}"));
    db.run(&format!(
        "create table s (id int primary key, v int);
         insert into s select i, case when i % 100 = 0 then -i else i end from generate_series(1, {rows}) i"
    ));
    db
}

#[test]
fn bad_rows_do_not_undo_the_first_fill() {
    let mut db = with_rows("park", 5000);
    db.run(
        "create table lowest (v int); insert into lowest values (1);
         create function is_enough(v int) returns boolean language plpgsql stable as
           'begin return v >= (select min(l.v) from lowest l); end';
         select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.expect('f', 'is_enough(v)', name => 'enough')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated, c.upserted, c.failed), (5000, 5000, 4950, 0), "{c:?}");
    assert!(is_filled(&mut db));
    assert_eq!(text(&mut db.client, "select count(*)::text from t"), "4950");
    assert_eq!(text(&mut db.client, "select count(*)::text from t where v < 0"), "0");
    assert_eq!(counted(&mut db), "enough park 5000 50 50");
    assert_eq!(
        text(
            &mut db.client,
            "select concat_ws(' | ', count(*), min(source_key->>'id'), min(target_key->>'id'),
                              min(sqlstate), min(message), count(*) filter (where source_key = target_key))
               from coco.errors"
        ),
        "50 | 100 | 100 | 23514 | \
         row of public.t does not satisfy expectation \"enough\" | 50"
    );
    assert_eq!(text(&mut db.client, "select state from coco.status"), "degraded");
    db.verify_clean("f");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted, c.failed), (0, 0, 0, 0), "{c:?}");

    // The index on failing items, which was built after the rows, has the parked ones.
    db.run("update lowest set v = -2000");
    db.run("select * from coco.retry('f')");
    assert_eq!(text(&mut db.client, "select count(*)::text from t"), "4970");
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.errors"), "30");
    db.run("update s set v = 7 where id = 5000; delete from s where id = 4900");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted), (1, 1, 0), "{c:?}");
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.errors"), "28");
    db.verify_clean("f");
}

#[test]
fn items_with_several_rows_and_targets_list_what_is_parked() {
    let mut db = with_rows("several", 200);
    db.run(
        "select coco.create_flow('f', 's',
           'select s.id, n, s.v * n as v from s, generate_series(1, 3) n', 't', '{id,n}');
         select coco.add_target('f', 'u', 'select id, v from s where v <> 5', '{id}');
         select coco.add_target('f', 'w', 'select id, v from s', '{id}');
         select coco.expect('f', 'v > -250', name => 'a', target => 't');
         select coco.expect('f', 'v <> 21', name => 'b', target => 't', action => 'warn');
         select coco.expect('f', 'n < 4', name => 'c', target => 't', action => 'fail');
         select coco.expect('f', 'v >= 0', name => 'd', target => 'u');
         select coco.expect('f', 'v < 0', name => 'e', target => 'w', action => 'warn')",
    );
    let c = &db.update("f", "normal")[0];
    // Of t, -300, -400 and -600 are parked; of u, -100 and -200, and it has no row with 5.
    assert_eq!(
        (c.seen, c.evaluated, c.upserted, c.failed),
        (200, 200, 597 + 197 + 200, 0),
        "{c:?}"
    );
    assert!(is_filled(&mut db));
    assert_eq!(
        counted(&mut db),
        "a park 600 3 3, b warn 600 2 0, c fail 600 0 0, d park 199 2 2, e warn 200 198 0"
    );
    assert_eq!(
        text(
            &mut db.client,
            "select string_agg(concat_ws(' ', source_key->>'id', target, target_key), ', '
                               order by target, (source_key->>'id')::int, target_key)
               from coco.errors"
        ),
        "100 public.t {\"n\": 3, \"id\": 100}, 200 public.t {\"n\": 2, \"id\": 200}, \
         200 public.t {\"n\": 3, \"id\": 200}, 100 public.u {\"id\": 100}, 200 public.u {\"id\": 200}"
    );
    assert_eq!(text(&mut db.client, "select count(*)::text from t"), "597");
    assert_eq!(text(&mut db.client, "select count(*)::text from u"), "197");
    db.verify_clean("f");
    db.run("update s set v = 1 where id = 200");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.failed), (1, 0), "{c:?}");
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.errors"), "2");
    db.verify_clean("f");
}

#[test]
fn groups_park_rows_in_the_first_fill() {
    let mut db = with_rows("groups", 1000);
    db.run(
        "alter table s add g int not null default 0; update s set g = id % 10;
         select coco.create_flow('f', 's', 'select g, min(v) as least from s group by g', 't', '{g}',
                                 source_key => '{g}');
         select coco.expect('f', 'least > 0', name => 'positive')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated, c.upserted, c.failed), (10, 10, 9, 0), "{c:?}");
    assert!(is_filled(&mut db));
    assert_eq!(
        text(&mut db.client, "select concat_ws(' ', source_key, target_key) from coco.errors"),
        "{\"g\": 0} {\"g\": 0}"
    );
    db.verify_clean("f");
}

#[test]
fn a_parked_row_takes_no_key() {
    let mut db = with_rows("key", 3);
    db.run(
        "create table signs (sign int); insert into signs values (1), (-1);
         select coco.create_flow('f', 's', 'select s.id, s.v * g.sign as v from s, signs g', 't', '{id}');
         select coco.expect('f', 'v > 0', name => 'positive')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.failed), (3, 3, 0), "{c:?}");
    assert!(is_filled(&mut db));
    assert_eq!(
        text(&mut db.client, "select string_agg(id || ':' || v, ' ' order by id) from t"),
        "1:1 2:2 3:3"
    );
    assert_eq!(counted(&mut db), "positive park 6 3 3");
    db.verify_clean("f");
}

#[test]
fn every_row_may_be_parked_and_too_many_still_end_the_update() {
    let mut db = with_rows("all", 3);
    db.run(
        "select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.expect('f', 'v > 9', name => 'large')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.failed), (3, 0, 0), "{c:?}");
    assert!(is_filled(&mut db));
    assert_eq!(counted(&mut db), "large park 3 3 3");
    db.verify_clean("f");

    let mut db = with_rows("share", 1000);
    db.run(
        "select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.expect('f', 'v > 0', name => 'positive', max_share => 0.005)",
    );
    let e = db.client.batch_execute("select * from coco.update('f')").expect_err("too many rows");
    let said = explain(&e);
    assert!(
        said.contains("10 of 1000 rows of this update do not satisfy it, and max_share allows 5."),
        "{said}"
    );
    assert_eq!(text(&mut db.client, "select count(*)::text from t"), "0");
}

#[test]
fn warnings_are_counted_and_failing_items_are_left_to_batches() {
    let mut db = with_rows("warn", 1000);
    db.run(
        "select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.expect('f', 'v > 0', name => 'positive', action => 'warn')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (1000, 0), "{c:?}");
    assert!(is_filled(&mut db));
    assert_eq!(counted(&mut db), "positive warn 1000 10 0");
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.errors"), "0");
    db.verify_clean("f");

    let mut db = with_rows("fail", 1000);
    db.run(
        "select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.expect('f', 'v > 0', name => 'positive', action => 'fail');
         select coco.expect('f', 'v <> 3', name => 'other')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (989, 10), "{c:?}");
    assert!(!is_filled(&mut db));
}
