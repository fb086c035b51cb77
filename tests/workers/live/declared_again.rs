//! The query, the target or the flow itself changes while the flow is live.

use super::{evaluated, noise, shared, started, state};

#[test]
fn the_logic_changes_while_live() {
    let server = shared();
    let mut db = server.database("logic_changes");
    db.run("create function g(int) returns int language sql immutable as 'select $1 + 1'");
    started(&mut db, "f");
    db.run("select coco.set_query('f', null, 'select id, g(v) as v from f_s')");
    db.settle("f");
    assert!(db.holds("select bool_and(t.v = s.v + 1) from f_s s join f_t t using (id)"));
    db.run(
        "create or replace function g(int) returns int language sql immutable as 'select $1 - 1'",
    );
    db.settle("f");
    assert!(db.holds("select bool_and(t.v = s.v - 1) from f_s s join f_t t using (id)"));
    // Worker and session agree on what the logic is.
    assert_eq!(db.number("select evaluated from coco.update('f')"), 0);
    let before = evaluated(&mut db);
    db.run("update f_s set v = 1234 where id = 1");
    db.settle("f");
    assert_eq!(evaluated(&mut db), before + 1);
    // Another column, and a new one in the source.
    db.run("alter table f_s add column w text default 'w'");
    db.run("select coco.set_query('f', null, 'select id, v, w from f_s')");
    db.until("select count(*) = 100 from f_t where to_jsonb(f_t) ->> 'w' = 'w'");
    db.settle("f");
    // In one transaction with data, and one that is rolled back.
    db.run("begin; select coco.set_query('f', null, 'select id, v, w || ''!'' as w from f_s'); update f_s set w = 'x' where id = 1; commit");
    db.until("select count(*) = 99 from f_t where w = 'w!'");
    db.settle("f");
    db.run("begin; select coco.set_query('f', null, 'select id, v, null::text as w from f_s'); rollback");
    db.run("update f_s set w = 'y' where id = 2");
    db.settle("f");
    assert_eq!(db.text("select w from f_t where id = 2"), "y!");
}

#[test]
fn a_flow_is_dropped_while_live_and_declared_again() {
    let server = shared();
    let mut db = server.database("drops_flow");
    started(&mut db, "other");
    for n in 0..10 {
        db.run(&format!(
            "create table s{n} (id int primary key, v int); insert into s{n} values (1, {n})"
        ));
        db.run(&format!(
            "select coco.create_flow('f', 's{n}', 'select id, v from s{n}', 't', '{{id}}')"
        ));
        db.run("select coco.start('f')");
        if n % 2 == 0 {
            db.settle("f");
            assert_eq!(db.text("select v from t"), n.to_string());
        }
        db.run(&format!(
            "update s{n} set v = 100; select coco.drop_flow('f', false); drop table s{n}"
        ));
    }
    db.run("update other_s set v = 3");
    db.settle("other");
    let about: Vec<String> = noise(&server).into_iter().filter(|l| l.contains("\"f\"")).collect();
    assert!(!about.iter().any(|l| l.contains("drops_flow")), "{about:?}");
}

#[test]
fn a_target_that_is_dropped_is_made_and_filled_again() {
    let server = shared();
    let mut db = server.database("target_dropped");
    started(&mut db, "f");
    db.run("drop table f_t cascade");
    db.until("select to_regclass('f_t') is not null");
    db.settle("f");
    assert_eq!(db.number("select count(*) from f_t"), 100);
    db.run("insert into f_s values (101, 1)");
    db.settle("f");
    // Emptied by somebody: found by verify, not by the worker.
    db.run("truncate f_t; update f_s set v = 0 where id = 1");
    db.caught_up("f");
    assert_eq!(db.number("select count(*) from coco.verify('f')"), 100);
    db.run("select * from coco.verify('f', true)");
    db.settle("f");
}

#[test]
fn what_a_flow_needs_goes_and_comes_back() {
    let server = shared();
    let mut db = server.database("needs");
    started(&mut db, "f");
    started(&mut db, "healthy");
    let trouble = "select coalesce((select hint is not null and message like '%was dropped%' from coco_internal.flow_error), false)";
    // A used column that has another name is the same column.
    db.run("alter table f_s rename v to other; update f_s set other = 0 where id = 1");
    db.settle("f");
    assert_eq!(db.text("select v from f_t where id = 1"), "0");
    assert_eq!(state(&mut db, "f"), "live");
    db.run("alter table f_s rename other to v");
    // A column goes; the flow gets a query without it.
    db.run("alter table f_s drop column v cascade; insert into f_s values (1000)");
    db.until(trouble);
    db.run("select coco.set_query('f', null, 'select id, 0 as v from f_s')");
    db.until("select state = 'live' from coco.status where flow = 'f'");
    db.settle("f");
    // The source goes for good.
    db.run("drop table f_s cascade");
    db.until(trouble);
    assert_eq!(state(&mut db, "f"), "source dropped");
    db.run("update healthy_s set v = 4");
    db.settle("healthy");
    db.run("select coco.drop_flow('f')");
    assert_eq!(db.number("select count(*) from coco_internal.flow_error"), 0);
    assert_eq!(db.rows("select flow from coco.status"), ["healthy"]);
}
