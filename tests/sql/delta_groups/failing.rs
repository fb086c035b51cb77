//! Rows and groups that raise errors, where coco keeps the groups by deltas.

use crate::support;

use super::{create, states_are_whole};
use crate::compared::{is_the_query, rows, text};
use support::TestDb;

#[test]
fn a_row_that_raises_an_error_makes_its_group_fail_alone() {
    let mut db = TestDb::new("delta_groups_failing");
    db.run(
        "create table t (id int primary key, k int not null, v int not null);
         insert into t select i, i % 3, i from generate_series(1, 12) i",
    );
    let query =
        "select k, sum(100 / v) as total, count(*) as n from t where 10 / (v + 50) >= 0 group by k";
    db.run(&create("f", "t", query, "k"));
    db.update("f", "normal");
    db.run("update t set v = 0 where id in (3, 6); update t set v = 50 where id = 4");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.failed), (1, 1), "{c:?}");
    assert_eq!(
        rows(&mut db, "select concat_ws(' ', source_key, sqlstate, attempts) from coco.errors"),
        ["{\"k\": 0} 22012 1"]
    );
    let before = text(&mut db, "select total from f_t where k = 0");
    // One of the two rows is mended: the group still fails, and keeps its row.
    db.run("update t set v = 3 where id = 3");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.failed), (0, 1), "{c:?}");
    assert_eq!(text(&mut db, "select total from f_t where k = 0"), before);
    states_are_whole(&mut db, "f");
    // The other one is deleted.
    db.run("delete from t where id = 6");
    assert_eq!(db.update("f", "normal")[0].failed, 0);
    is_the_query(&mut db, "f", "f_t", query, "the failing row is gone");
    // WHERE raises the error.
    db.run("insert into t values (100, 1, -50)");
    assert_eq!(db.update("f", "normal")[0].failed, 1);
    db.run("delete from t where id = 100");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "WHERE raises no error any more");
}

#[test]
fn a_first_update_finds_the_failing_rows() {
    let mut db = TestDb::new("delta_groups_failing_first");
    db.run(
        "create table t (id int primary key, k int not null, v int not null);
         insert into t select i, i % 50, i from generate_series(1, 5000) i;
         update t set v = 0 where id in (7, 4000)",
    );
    let query = "select k, sum(100000 / v) as total, max(v) as most from t group by k";
    db.run(&create("f", "t", query, "k"));
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.failed), (48, 2), "{c:?}");
    assert_eq!(
        rows(&mut db, "select source_key::text from coco.errors order by 1"),
        ["{\"k\": 0}", "{\"k\": 7}"]
    );
    states_are_whole(&mut db, "f");
    db.run("update t set v = 1 where v = 0");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "the rows are mended");
}

/// Nothing in the source changes, and the group succeeds when its time comes.
#[test]
fn a_retry_evaluates_the_failing_rows_again() {
    let mut db = TestDb::new("delta_groups_retry");
    db.run(
        "create table t (id int primary key, k int, v int not null);
         insert into t select i, nullif(i % 3, 0), i from generate_series(1, 12) i;
         create table limits (most int); insert into limits values (100);
         create function checked(v int) returns int language plpgsql stable as $$
           begin
             if v > (select most from limits) then raise exception '% is too much', v; end if;
             return v;
           end $$",
    );
    let query = "select k, sum(checked(v)) as total from t group by k";
    db.run(&create("f", "t", query, "k"));
    db.update("f", "normal");
    db.run("update t set v = 1000 where id = 6");
    assert_eq!(db.update("f", "normal")[0].failed, 1);
    db.run("update limits set most = 2000");
    db.run("select * from coco.retry('f')");
    is_the_query(&mut db, "f", "f_t", query, "coco.retry");
    states_are_whole(&mut db, "f");
}

#[test]
fn a_group_whose_result_raises_an_error_fails_alone() {
    let mut db = TestDb::new("delta_groups_result");
    db.run(
        "create table t (id int primary key, k int not null, v int not null, big numeric, took interval);
         insert into t select i, i % 3, i from generate_series(1, 12) i",
    );
    let query = "select k, 100 / (sum(v) - 22) as share, sum(big) as big, sum(took) as took from t
                  group by k having 10 / count(*) >= 0";
    db.run(&create("f", "t", query, "k"));
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.failed), (3, 1), "{c:?}");
    db.run("update t set v = v + 1 where id = 1");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "the sum is another one");
    // Numbers that are too large to add, and intervals whose sum is out of range, fail with their group.
    db.run("update t set big = 1e2000 where id in (1, 2); update t set took = '178000000 years' where id in (3, 6)");
    let c = &db.update("f", "normal")[0];
    assert_eq!(c.failed, 3, "{c:?}");
    db.run("update t set big = 1, took = '1 year' where id < 7");
    db.update("f", "normal");
    is_the_query(&mut db, "f", "f_t", query, "small numbers again");
}
