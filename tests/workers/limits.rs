//! A live flow that a limit stops: it shows why, other flows continue, and a permission lets it go on.

use crate::support;

use std::sync::Arc;

use support::server::{Server, SharedServer};

fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

#[test]
fn a_live_flow_waits_for_a_permission_and_others_continue() {
    let server = shared();
    let mut db = server.database("live_limits");
    db.run(
        "create table d (id int primary key, v int not null);
         insert into d select i, i from generate_series(1, 100) i;
         create table o (id int primary key, v int not null);
         insert into o select i, i from generate_series(1, 100) i;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}');
         select coco.create_flow('other', 'o', 'select id, v from o', 'ot', '{id}');
         select coco.start('f'); select coco.start('other')",
    );
    db.settle("f");
    db.settle("other");
    db.run("select coco.alter_flow('f', max_rows => 10)");
    // A small change passes.
    db.run("update d set v = 0 where id <= 10");
    db.settle("f");
    db.run("update d set v = -1");
    db.until("select last_error like '%would pass its limit max_rows%' and hint like '%coco.allow%' from coco.status where flow = 'f'");
    assert_eq!(db.number("select count(*) from t where v = -1"), 0);
    db.run("update o set v = -1");
    db.settle("other");
    assert_eq!(db.number("select count(*) from ot where v = -1"), 100);
    db.run("select coco.allow('f')");
    db.until("select count(*) = 100 from t where v = -1");
    db.until("select last_error is null from coco.status where flow = 'f'");
    assert!(db.holds("select not beyond_limits from coco_internal.flow where flow = 'f'"));
    db.verify("f");
}
