//! Items that fail, and target keys that two items claim.

use crate::support;

use support::TestDb;

fn rows(db: &mut TestDb, sql: &str) -> Vec<String> {
    db.client
        .query(sql, &[])
        .unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)))
        .iter()
        .map(|r| r.get(0))
        .collect()
}

fn errors(db: &mut TestDb, flow: &str) -> Vec<String> {
    let sql = format!(
        "select concat_ws(' ', source_key, sqlstate, message, attempts) from coco.errors
          where flow = '{flow}' order by source_key"
    );
    rows(db, &sql)
}

#[test]
fn one_item_that_fails_delays_nobody_and_keeps_its_rows() {
    let mut db = TestDb::new("one_fails");
    db.run(
        "create table n (id int primary key, d int);
         insert into n select i, 1 from generate_series(1, 5000) i;
         select coco.create_flow('inv', 'n', 'select id, 100 / d as q from n', 'inv', '{id}')",
    );
    assert_eq!(db.update("inv", "normal")[0].upserted, 5000);
    db.run("update n set d = 2 where id <= 100; update n set d = 0 where id in (7, 4000)");
    let c = &db.update("inv", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted, c.failed), (101, 99, 0, 2), "{c:?}");
    assert_eq!(
        errors(&mut db, "inv"),
        ["{\"id\": 7} 22012 division by zero 1", "{\"id\": 4000} 22012 division by zero 1"]
    );
    assert_eq!(rows(&mut db, "select q::text from inv where id in (7, 4000)"), ["100", "100"]);
    db.verify_clean("inv");

    // It waits for its retry; coco.retry does not, and counts another attempt.
    let c = &db.update("inv", "normal")[0];
    assert_eq!((c.evaluated, c.failed), (0, 2), "{c:?}");
    db.run("select * from coco.retry('inv')");
    assert_eq!(
        errors(&mut db, "inv"),
        ["{\"id\": 7} 22012 division by zero 2", "{\"id\": 4000} 22012 division by zero 2"]
    );
    // A change does not wait either, and a success clears the error.
    db.run("update n set d = 4 where id = 7; delete from n where id = 4000");
    let c = &db.update("inv", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted, c.failed), (1, 1, 1, 0), "{c:?}");
    assert!(errors(&mut db, "inv").is_empty());
    db.verify_clean("inv");
}

#[test]
fn an_item_that_is_not_to_be_evaluated_cannot_fail() {
    let mut db = TestDb::new("not_due");
    db.run(
        "create table s (id int primary key, n int, at int not null default 1);
            insert into s select i, i from generate_series(1, 3000) i",
    );
    // Of one that is gone, or whose ordinal alone is new, the conditions fail: they cost little, and could come first.
    for (flow, options) in [("carried", ""), ("versioned", ", ordinal => 'at'")] {
        db.run(&format!(
            "select coco.create_flow('{flow}', 's',
               'select x.id, x.m from (select id, 6000 / coalesce(n, 0) as m from s) x where x.m > 1', '{flow}', '{{id}}'{options})"
        ));
        assert_eq!(db.update(flow, "normal")[0].upserted, 3000, "{flow}");
    }
    db.run(
        "delete from s where id between 1 and 1500; update s set n = 2999, at = 2 where id = 2000;
            update s set at = 3 where id > 2900",
    );
    for flow in ["carried", "versioned"] {
        let c = &db.update(flow, "normal")[0];
        assert_eq!(
            (c.evaluated, c.upserted, c.deleted, c.failed),
            (1, 1, 1500, 0),
            "{flow}: {c:?}"
        );
        db.verify_clean(flow);
    }
}

#[test]
fn a_failed_item_is_tried_again_when_its_time_has_come() {
    let mut db = TestDb::new("retried");
    db.run(
        "create table n (id int primary key, d int); insert into n values (1, 1);
         create function risky(int) returns int language plpgsql as
           $$ begin if current_setting('test.broken', true) = 'on' then raise exception 'broken' using errcode = 'P0042'; end if; return $1; end $$;
         select coco.create_flow('r', 'n', 'select id, risky(d) as d from n', 'r', '{id}');
         set test.broken = on",
    );
    assert_eq!(db.update("r", "normal")[0].failed, 1);
    assert_eq!(errors(&mut db, "r"), ["{\"id\": 1} P0042 broken 1"]);
    let waits = rows(
        &mut db,
        "select extract(epoch from next_retry - failed_at)::int::text from coco.errors",
    );
    assert_eq!(waits, ["1"]);
    db.run("set test.broken = off; select pg_sleep(1.2)");
    let c = &db.update("r", "normal")[0];
    assert_eq!((c.evaluated, c.failed, c.upserted), (1, 0, 1), "{c:?}");
}

#[test]
fn a_constraint_of_the_target_fails_the_item_alone() {
    let mut db = TestDb::new("constraint");
    db.run(
        "create table n (id int primary key, d int); insert into n select i, i from generate_series(1, 100) i;
         create table t (id int primary key, d int check (d <> 50));
         select coco.create_flow('c', 'n', 'select id, d from n', 't', '{id}')",
    );
    let c = &db.update("c", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.failed), (100, 99, 1), "{c:?}");
    assert!(
        errors(&mut db, "c")[0]
            .starts_with("{\"id\": 50} 23514 new row for relation \"t\" violates check")
    );
}

#[test]
fn an_item_that_produces_a_key_twice_is_at_fault_itself() {
    let mut db = TestDb::new("twice");
    db.run(
        "create table n (id int primary key, times int); insert into n select i, 1 from generate_series(1, 10) i;
         select coco.create_flow('t', 'n', 'select id, 1 as k from n, generate_series(1, times)', 't', '{id,k}')",
    );
    db.update("t", "normal");
    db.run("update n set times = 2 where id = 3");
    assert_eq!(db.update("t", "normal")[0].failed, 1);
    assert_eq!(
        errors(&mut db, "t"),
        ["{\"id\": 3} 21000 item has several rows with one key for target public.t 1"]
    );
    db.verify_clean("t");
}

#[test]
fn a_key_two_items_claim_stays_with_the_first_until_it_lets_go() {
    let mut db = TestDb::new("claims");
    db.run(
        "create table p (id int primary key, email text not null);
         insert into p values (1, 'a'), (2, 'b'), (3, 'a'), (4, 'a');
         select coco.create_flow('e', 'p', 'select email, id from p', 'e', '{email}')",
    );
    let target = |db: &mut TestDb| rows(db, "select email || id from e order by 1");
    assert_eq!(db.update("e", "normal")[0].failed, 2);
    assert_eq!(target(&mut db), ["a1", "b2"]);
    assert!(
        errors(&mut db, "e")[0].starts_with(
            "{\"id\": 3} 23505 target key of public.e already belongs to another item"
        )
    );

    // The first lets go: one of the others takes the key over in the same update, without waiting.
    db.run("update p set email = 'c' where id = 1");
    let c = &db.update("e", "normal")[0];
    assert_eq!((c.failed, c.evaluated), (1, 2), "{c:?}");
    assert_eq!(target(&mut db), ["a3", "b2", "c1"]);
    db.run("delete from p where id = 3");
    assert_eq!(db.update("e", "normal")[0].failed, 0);
    assert_eq!(target(&mut db), ["a4", "b2", "c1"]);

    // A ring of keys moves on within one batch: nobody is at fault.
    db.run("update p set email = case id when 1 then 'a' when 2 then 'c' when 4 then 'b' end");
    assert_eq!(db.update("e", "normal")[0].failed, 0);
    assert_eq!(target(&mut db), ["a1", "b4", "c2"]);
    db.verify_clean("e");

    // An item that fails keeps what it had, until then: nobody takes that.
    db.run("update p set email = 'b' where id = 1");
    assert_eq!(db.update("e", "normal")[0].failed, 1);
    assert_eq!(target(&mut db), ["a1", "b4", "c2"]);
    db.run("delete from p where id = 4");
    assert_eq!(db.update("e", "normal")[0].failed, 0);
    assert_eq!(target(&mut db), ["b1", "c2"]);
    db.verify_clean("e");
}

#[test]
fn who_waits_for_a_key_with_an_older_version_goes_on_waiting() {
    let mut db = TestDb::new("waits_older");
    db.run(
        "create table p (id int primary key, email text not null, version int not null);
         insert into p values (1, 'a', 5), (2, 'b', 5);
         select coco.create_flow('e', 'p', 'select email, id from p', 'e', '{email}', ordinal => 'version');
         select * from coco.update('e');
         update p set email = 'a', version = 6 where id = 2",
    );
    assert_eq!(db.update("e", "normal")[0].failed, 1);
    // The key falls free, but what the source has of the other is older than what is committed:
    // it is not let in, and the update ends.
    db.run("set statement_timeout = '20s'; delete from p where id = 1; update p set version = 4 where id = 2");
    let c = &db.update("e", "normal")[0];
    assert_eq!((c.skipped, c.evaluated, c.deleted, c.failed), (1, 0, 1, 0), "{c:?}");
    assert_eq!(rows(&mut db, "select email || id from e"), ["b2"]);
    db.run("update p set version = 7 where id = 2");
    assert_eq!(db.update("e", "normal")[0].upserted, 1);
    assert_eq!(rows(&mut db, "select email || id from e"), ["a2"]);
    db.verify_clean("e");
}

#[test]
fn keys_change_hands_across_batches_and_nobody_is_at_fault() {
    // What a scan finds is gone through as a whole, what a log has a batch at a time.
    for capture in ["scan", "trigger"] {
        let mut db = TestDb::new(&format!("ranks_{capture}"));
        db.run(&format!(
            "set coco.batch_size = 10;
             create table p (id int primary key, rank int not null);
             insert into p select i, i from generate_series(1, 100) i;
             select coco.create_flow('r', 'p', 'select rank, id from p', 'r', '{{rank}}', capture => '{capture}')",
        ));
        db.update("r", "normal");
        for shift in ["rank + 1", "rank - 1", "101 - rank", "rank % 100 + 1"] {
            db.run(&format!("update p set rank = {shift}"));
            let c = &db.update("r", "normal")[0];
            assert_eq!((c.evaluated, c.failed), (100, 0), "{capture}, {shift}: {c:?}");
            db.verify_clean("r");
        }
    }
}

#[test]
fn a_key_that_an_update_has_passed_on_is_not_passed_on_again() {
    let mut db = TestDb::new("passed_on_once");
    let both = "select u.w as alias, s.id from s, lateral (select a union select b) as u (w)";
    db.run(&format!(
        "set coco.batch_size = 2;
         create table s (id int primary key, a text not null, b text not null);
         select coco.create_flow('e', 's', '{both}', 'e', '{{alias}}', capture => 'scan');
         insert into s values (6, '4', '10');
         insert into s values (2, '4', '6'), (7, '2', '3'), (9, '2', '8');
         update s set a = b, b = a where id % 2 = 0;
         select coco.set_query('e', 'e', 'select a as alias, id from s')",
    ));
    db.update("e", "normal");
    // 2 wants what 6 gets. It fails, and keeps the key '6', which 4 waits for.
    db.run("update s set a = b, b = a where id % 2 = 0");
    db.run("delete from s where id = 7; insert into s values (4, '6', '7')");
    db.update("e", "normal");
    // 2 is deleted in a batch with 8, a new item that gets its key. 3 and 4 come after all batches.
    db.run("delete from s where id = 2");
    db.run("insert into s values (3, '6', '6'), (8, '11', '6')");
    db.run(&format!("select coco.set_query('e', 'e', '{both}')"));
    db.update("e", "normal");
    let failing = "select (source_key->>'id')::int from coco.errors";
    assert_eq!(
        rows(
            &mut db,
            &format!("select alias || ':' || id from e where id not in ({failing}) order by 1")
        ),
        rows(
            &mut db,
            &format!(
                "select alias || ':' || id from ({both}) where id not in ({failing}) order by 1"
            )
        ),
    );
    assert_eq!(rows(&mut db, &format!("select count(*)::text from ({failing})")), ["2"]);
    let twice =
        "select k from coco.tracking, jsonb_each(target_keys) as t, jsonb_object_keys(t.value) as k
                  group by k having count(*) > 1";
    assert_eq!(rows(&mut db, twice), Vec::<String>::new());
    db.verify_clean("e");
}

#[test]
fn keys_change_hands_beside_items_that_fail() {
    let mut db = TestDb::new("hands_and_failures");
    db.run(
        "create table p (id int primary key, a text, d int not null default 1);
         insert into p values (1, 'y'), (2, 'x'), (4, 'z'), (5, 'u'), (6, 'v'), (7, 'w');
         select coco.create_flow('e', 'p', 'select a as alias, id / d as id from p', 'e', '{alias}')",
    );
    db.update("e", "normal");
    // 1 and 2 swap; 3 wants what 4 has; 7 raises an error and keeps its key, 6 wants that, and 5 that
    // of 6: who waits for one that fails waits with it.
    db.run(
        "update p set a = case id when 1 then 'x' when 2 then 'y' when 5 then 'v' when 6 then 'w' else a end,
                      d = case id when 7 then 0 else 1 end;
         insert into p values (3, 'z')",
    );
    let c = &db.update("e", "normal")[0];
    assert_eq!((c.failed, c.evaluated), (4, 6), "{c:?}");
    assert_eq!(
        rows(&mut db, "select alias || id from e order by 1"),
        ["u5", "v6", "w7", "x1", "y2", "z4"]
    );
    db.run("update p set d = 1, a = 'new' where id = 7; delete from p where id = 4");
    let c = &db.update("e", "normal")[0];
    assert_eq!(c.failed, 0, "{c:?}");
    assert_eq!(
        rows(&mut db, "select alias || id from e order by 1"),
        ["new7", "v5", "w6", "x1", "y2", "z3"]
    );
    db.verify_clean("e");
}

#[test]
fn two_items_that_break_a_constraint_together_leave_one_of_them() {
    let mut db = TestDb::new("together");
    db.run(
        "create table n (id int primary key, u int); insert into n select i, i from generate_series(1, 50) i;
         create table t (id int primary key, u int unique);
         select coco.create_flow('c', 'n', 'select id, u from n', 't', '{id}');
         update n set u = 7 where id = 30",
    );
    let c = &db.update("c", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.failed), (50, 49, 1), "{c:?}");
    assert!(errors(&mut db, "c")[0].starts_with("{\"id\": 30} 23505 duplicate key value violates"));
    db.run("update n set u = 30 where id = 30");
    assert_eq!(db.update("c", "normal")[0].failed, 0);
    db.verify_clean("c");
}

#[test]
fn what_is_no_items_fault_ends_the_update_and_changes_nothing() {
    let mut db = TestDb::new("no_items_fault");
    db.run(
        "create table n (id int primary key); insert into n values (1), (2);
         create table t (id int primary key);
         select coco.create_flow('f', 'n', 'select id from n', 't', '{id}');
         alter table t rename id to other",
    );
    let e = support::update(&mut db.client, "f", "normal").expect_err("the target does not fit");
    assert_eq!(e.code().map(|c| c.code()), Some("42703"), "{}", support::explain(&e));
    assert!(errors(&mut db, "f").is_empty());
    db.run("alter table t rename other to id");
    assert_eq!(db.update("f", "normal")[0].upserted, 2);

    db.run(
        "create function slow(int) returns int language plpgsql as $$ begin perform pg_sleep(30); return $1; end $$;
         select coco.set_query('f', null, 'select slow(id) as id from n'); set statement_timeout = '200ms'",
    );
    let e = support::update(&mut db.client, "f", "normal").expect_err("the timeout strikes");
    assert_eq!(e.code().map(|c| c.code()), Some("57014"), "{}", support::explain(&e));
    db.run("set statement_timeout = 0");
    assert!(errors(&mut db, "f").is_empty());
    assert_eq!(rows(&mut db, "select count(*)::text from t"), ["2"]);
}
