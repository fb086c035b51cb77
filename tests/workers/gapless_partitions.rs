//! Changes of live flows whose targets are partitioned tables: a worker swaps tables and partitions,
//! and adds partitions that come later to each version.

use crate::support;

use std::sync::Arc;

use support::server::{Server, SharedServer};

/// A server with coco preloaded, for tests that need nothing of their own but a database.
fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

#[test]
fn a_worker_swaps_partitions_and_adds_those_that_come_later() {
    let server = shared();
    let mut db = server.database("gapless_partitions");
    db.run(
        "create table s (id int primary key, v int not null);
         insert into s select i, i from generate_series(1, 200) i;
         create table t (id int primary key, v int) partition by range (id);
         create table low partition of t for values from (0) to (101);
         create table high partition of t for values from (101) to (1000);
         select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.start('f')",
    );
    db.settle("f");
    db.run(
        "select coco.set_query('f', null, 'select id, v * 2 as v from s', gapless => true, swap => 'manual', keep_old => '1 h')",
    );
    db.settle("f@new");
    db.run("create table more partition of t for values from (1000) to (2000)");
    db.run("select coco.swap('f')");
    assert_eq!(
        db.text(
            "select concat_ws(' ', (select sum(v) from low), (select sum(v) from high), (select count(*) from more))"
        ),
        "10100 30100 0"
    );
    assert_eq!(db.number("select sum(v) from \"low@old\""), 5050);
    db.settle("f");
    // The worker's upkeep adds a partition to the version that is kept. Its items wait until then.
    db.run("create table last partition of t for values from (2000) to (3000)");
    db.run("insert into s values (2500, 7)");
    db.until("select count(*) = 1 from last");
    db.until("select to_regclass('\"last@old\"') is not null");
    db.until("select count(*) = 1 from \"last@old\"");
    db.run("select coco.rollback('f')");
    assert_eq!(db.number("select v from last"), 7);
    db.settle("f");
    // The worker itself swaps, if it may.
    db.run("select coco.drop_flow('f@old')");
    db.run("drop table \"t@old\"");
    db.run("select coco.set_query('f', null, 'select id, v * 3 as v from s', gapless => true)");
    db.until("select not exists (select from coco.versions)");
    assert_eq!(db.number("select v from last"), 21);
    db.settle("f");
}
