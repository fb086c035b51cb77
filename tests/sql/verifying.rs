//! What `coco.verify` finds, and what it leaves out.

use crate::support;

use support::TestDb;

/// All that `coco.verify` returns, a line each.
fn found(db: &mut TestDb, repair: bool) -> Vec<String> {
    let sql = "select concat_ws(' ', difference, target, source, key, since is not null)
                 from coco.verify('f', $1) order by 1";
    let rows =
        db.client.query(sql, &[&repair]).unwrap_or_else(|e| panic!("{}", support::explain(&e)));
    rows.iter().map(|r| r.get(0)).collect()
}

#[test]
fn items_that_fail_are_named_with_the_time_since_when() {
    let mut db = TestDb::new("verify_failing");
    db.run(
        "create table n (id int primary key, d int); insert into n select i, 1 from generate_series(1, 5) i;
         select coco.create_flow('f', 'n', 'select id, 100 / d as q from n', 't', '{id}');
         select coco.update('f'); update n set d = 0 where id = 2; select coco.update('f')",
    );
    assert_eq!(found(&mut db, false), ["failing n {\"id\": 2} t"]);
    let since = "select since::text from coco.verify('f') where difference = 'failing'";
    let first: String = db.client.query_one(since, &[]).expect("it fails").get(0);
    db.run("select coco.retry('f')");
    let again: String = db.client.query_one(since, &[]).expect("it still fails").get(0);
    assert_eq!(first, again);
    // Repair mends what differs, and not what fails.
    db.run("update t set q = 7 where id in (2, 3)");
    assert_eq!(
        found(&mut db, true),
        ["different public.t {\"id\": 3} f", "failing n {\"id\": 2} t"]
    );
    assert_eq!(found(&mut db, false), ["failing n {\"id\": 2} t"]);
    db.run("update n set d = 1 where id = 2; select coco.update('f')");
    assert!(found(&mut db, false).is_empty());
}

#[test]
fn names_of_columns_do_not_matter_and_a_row_that_is_there_twice_shows() {
    let mut db = TestDb::new("verify_odd");
    db.run(
        "create table n (id int primary key, present bool, copy int, coco_copy int);
         insert into n select i, true, i, i from generate_series(1, 5) i;
         select coco.create_flow('f', 'n', 'select * from n', 't', '{id}'); select coco.update('f')",
    );
    assert!(found(&mut db, false).is_empty());
    db.run("alter table t drop constraint t_pkey; insert into t select * from t where id = 3");
    assert_eq!(found(&mut db, false), ["extra public.t {\"id\": 3} f"]);
    assert_eq!(found(&mut db, true), ["extra public.t {\"id\": 3} f"]);
    assert!(found(&mut db, false).is_empty());
}

#[test]
fn rows_of_items_that_fail_are_left_as_they_are_by_repair() {
    let mut db = TestDb::new("verify_left");
    db.run(
        "create table n (id int primary key, d int); insert into n select i, 1 from generate_series(1, 5) i;
         select coco.create_flow('f', 'n', 'select id, 100 / d as q from n', 't', '{id}');
         select coco.update('f'); update n set d = 0 where id = 2; select coco.update('f');
         alter table t drop constraint t_pkey; insert into t select * from t where id in (2, 3)",
    );
    assert_eq!(found(&mut db, true), ["extra public.t {\"id\": 3} f", "failing n {\"id\": 2} t"]);
    let rows: i64 = db.client.query_one("select count(*) from t where id = 2", &[]).unwrap().get(0);
    assert_eq!(rows, 2);
}
