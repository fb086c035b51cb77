//! Flows without changes: workers leave them alone, and still notice every change.

use super::started;
use crate::support::server::{Server, Session};

fn transactions(db: &mut Session) -> i64 {
    db.number("select sum(transactions) from coco.workers")
}

/// Waits until the workers have run no transaction for a moment.
fn rest(db: &mut Session) {
    let mut before = -1;
    for _ in 0..100 {
        let now = transactions(db);
        if now == before {
            return;
        }
        before = now;
        db.run("select pg_sleep(1.2)");
    }
    panic!("the workers do not rest\n{}", db.state());
}

#[test]
fn a_change_causes_transactions_of_its_own_flow_alone() {
    let server = Server::preloaded(&["coco.max_workers = 1"]);
    let mut db = server.database("d");
    let names: Vec<String> = (1..=20).map(|n| format!("f{n}")).collect();
    for name in &names {
        started(&mut db, name);
    }
    rest(&mut db);
    let before = transactions(&mut db);
    for n in 0..20 {
        db.run(&format!("update f7_s set v = {n} where id = 1"));
        db.settle("f7");
    }
    let more = transactions(&mut db) - before;
    // Each change causes one transaction that follows it, and others that store the cursor or find nothing; at most
    // once in between, all flows are looked at. With a transaction of each flow for each change there would be 400.
    assert!((20..150).contains(&more), "{more} transactions");
    for (n, name) in names.iter().enumerate() {
        db.run(&format!("update {name}_s set v = {n} where id = 2"));
        db.settle(name);
    }
}

#[test]
fn an_idle_flow_notices_whatever_changes() {
    let server = Server::preloaded(&["coco.max_workers = 1", "max_prepared_transactions = 5"]);
    let mut db = server.database("d");
    for name in ["f", "g"] {
        started(&mut db, name);
    }
    let after = |db: &mut Session, sql: &str| {
        rest(db);
        db.run(sql);
        assert!(db.holds("select coco.wait('f', '20 s')"), "after {sql}\n{}", db.state());
        db.verify("f");
    };
    after(&mut db, "update f_s set v = 7 where id = 1");
    after(&mut db, "truncate f_s");
    after(&mut db, "insert into f_s select i, i from generate_series(1, 9) i");
    after(&mut db, "begin; savepoint a; update f_s set v = 8; release a; commit");
    // Another session commits what was prepared, at once or later.
    after(&mut db, "begin; update f_s set v = 9; prepare transaction 'p'");
    db.run("commit prepared 'p'");
    assert!(db.holds("select coco.wait('f', '20 s')"), "{}", db.state());
    db.verify("f");
    rest(&mut db);
    db.run("begin; update f_s set v = 10; prepare transaction 'p'");
    db.run("select pg_sleep(6)");
    db.run("commit prepared 'p'");
    assert!(db.holds("select coco.wait('f', '20 s')"), "{}", db.state());
    db.verify("f");
    // Many tables in one transaction.
    for n in 1..=20 {
        db.run(&format!("create table many_{n} (id int primary key, v int);
            select coco.create_flow('m{n}', 'many_{n}', 'select id, v from many_{n}', 'many_t{n}', '{{id}}', capture => 'trigger')"));
    }
    db.run("select coco.start(flow) from coco.flows where flow like 'm%'");
    db.run("select coco.wait(flow, '60 s') from coco.flows");
    let all: Vec<String> =
        (1..=20).map(|n| format!("insert into many_{n} values (1, 1)")).collect();
    rest(&mut db);
    db.run(&format!("begin; {}; update f_s set v = 11; commit", all.join("; ")));
    assert!(db.holds("select coco.wait('f', '20 s')"), "{}", db.state());
    assert!(db.holds("select coco.wait('m20', '20 s')"), "{}", db.state());
    assert_eq!(db.number("select count(*) from many_t20"), 1);
    // A rolled back change, then a change of what the flow computes.
    after(&mut db, "begin; update f_s set v = 12; rollback");
    after(&mut db, "select coco.set_query('f', 'f_t', 'select id, v * 3 as v from f_s')");
    assert!(db.holds("select bool_and(v = 33) from f_t"));
    // A session's update fails an item, and a worker retries it.
    db.run(
        "create function gate(v int) returns int language plpgsql stable as
            $$begin if exists (select from closed) then raise 'closed'; end if; return v; end$$;
            create table closed (x int);
            select coco.set_query('f', 'f_t', 'select id, gate(v) as v from f_s')",
    );
    db.settle("f");
    rest(&mut db);
    db.run(
        "insert into closed values (1); select coco.update('f', 'full_reprocess'); truncate closed",
    );
    db.until("select failed_items = 0 from coco.status where flow = 'f'");
    db.verify("f");
}
