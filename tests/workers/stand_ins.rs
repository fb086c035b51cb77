//! Stand-ins: while one flow takes long, another worker follows the others.

use crate::support;

use std::sync::Arc;

use support::server::{Server, Session, SharedServer};

/// A server with coco preloaded, where a database has one worker but for stand-ins.
fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

/// A live flow `f` from table `f_s` to table `f_t`; its query gives `value` for each row.
fn started(db: &mut Session, f: &str, value: &str) {
    db.run(&format!(
        "create table {f}_s (id int primary key, v int not null);
         insert into {f}_s select i, i from generate_series(1, 100) i;
         select coco.create_flow('{f}', '{f}_s', 'select id, {value} as v from {f}_s', '{f}_t', '{{id}}');
         select coco.start('{f}')"
    ));
    db.settle(f);
}

/// The number of workers in this database that are in a turn of the flow.
fn at_work(db: &mut Session, flow: &str) -> i64 {
    db.number(&format!(
        "select count(*) from coco.workers where flow = '{flow}' and state = 'working'"
    ))
}

const WORKERS: &str = "select count(*) from coco.workers";

#[test]
fn flows_that_sleep_do_not_hold_up_the_others() {
    let server = shared();
    let mut db = server.database("sleeping");
    db.run("create function slow(int) returns int language plpgsql volatile as 'begin perform pg_sleep(case $1 when -1 then 3600 else 0 end); return $1; end'");
    started(&mut db, "one", "slow(v)");
    started(&mut db, "two", "slow(v)");
    started(&mut db, "three", "v");
    assert_eq!(db.number(WORKERS), 1);
    db.run("update one_s set v = -1 where id = 1");
    db.until("select count(*) = 1 from coco.workers where flow = 'one'");
    for v in [7, 8, 9] {
        db.run(&format!(
            "update three_s set v = {v} where id = 1; update two_s set v = {v} where id = 1"
        ));
        db.settle("three");
        db.settle("two");
    }
    // One that stands in may need another to stand in for it.
    db.run("update two_s set v = -1 where id = 1");
    db.until("select count(*) = 1 from coco.workers where flow = 'two'");
    db.run("update three_s set v = v + 1");
    db.settle("three");
    assert_eq!((at_work(&mut db, "one"), at_work(&mut db, "two")), (1, 1));
    assert_eq!(db.number(WORKERS), 3);
    // They leave when they are not needed any more, and nothing is lost by that.
    db.run("select coco.stop('one'); select coco.stop('two')");
    db.run("update one_s set v = 1 where id = 1; update two_s set v = 1 where id = 1");
    db.run("select coco.start('one'); select coco.start('two')");
    for f in ["one", "two", "three"] {
        db.settle(f);
    }
    db.until("select count(*) = 1 from coco.workers");
    for f in ["one", "two", "three"] {
        db.run(&format!("update {f}_s set v = v + 1"));
        db.settle(f);
    }
}

#[test]
fn flows_that_compute_do_not_hold_up_the_others() {
    let server = shared();
    let mut db = server.database("computing");
    db.run("create function slow(int) returns int language plpgsql volatile as 'begin while $1 = -1 loop null; end loop; return $1; end'");
    started(&mut db, "one", "slow(v)");
    started(&mut db, "two", "slow(v)");
    started(&mut db, "three", "v");
    db.run("update one_s set v = -1 where id = 1");
    db.until("select count(*) = 1 from coco.workers where flow = 'one'");
    db.run("update three_s set v = v + 1");
    db.settle("three");
    assert_eq!(at_work(&mut db, "one"), 1);
    assert_eq!(db.number(WORKERS), 2);
    db.run("select coco.drop_flow('one')");
    db.until("select count(*) = 1 from coco.workers");
}

#[test]
fn a_flow_that_is_alone_has_no_stand_in() {
    let server = shared();
    let mut db = server.database("alone");
    db.run("create function slow(int) returns int language plpgsql volatile as 'begin perform pg_sleep(case $1 when -1 then 2 else 0 end); return $1; end'");
    started(&mut db, "one", "slow(v)");
    db.run("update one_s set v = -1 where id = 1");
    db.until("select count(*) = 1 from coco.workers where flow = 'one'");
    db.until("select count(*) = 0 from coco.workers where flow = 'one'");
    assert_eq!(db.rows("select max(worker_no) from coco.workers"), ["1"]);
}

#[cfg(feature = "functions")]
#[test]
fn a_provider_that_does_not_answer_does_not_hold_up_other_flows() {
    use crate::provider::{Fault, Provider};

    let server = shared();
    let mut db = server.database("silent");
    let provider = Provider::start();
    db.run(&format!(
        "create server silent foreign data wrapper coco_openai options (url '{}')",
        provider.url()
    ));
    started(&mut db, "other", "v");
    started(&mut db, "asking", "coco.generate(v::text, ''silent'', ''m'')");
    provider.always(Some(Fault::Hang));
    db.run("update asking_s set v = -1 where id = 1");
    db.until("select count(*) = 1 from coco.workers where flow = 'asking'");
    for _ in 0..3 {
        db.run("update other_s set v = v + 1");
        db.settle("other");
        assert_eq!(at_work(&mut db, "asking"), 1);
    }
    provider.always(None);
    db.run("select coco.stop('asking'); select coco.start('asking')");
    db.settle("asking");
    db.until("select count(*) = 1 from coco.workers");
}
