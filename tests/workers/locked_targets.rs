//! Sessions that lock a live flow's target, and then want a stronger lock on it.

use crate::support;

use support::server::SharedServer;

static SHARED: SharedServer = SharedServer::new();

#[test]
fn a_worker_and_a_session_that_drops_its_own_index_are_in_no_deadlock() {
    let server = SHARED.get();
    let mut db = server.database("locked_targets");
    db.run(
        "create table s (id int primary key, v int not null);
         insert into s select i, i from generate_series(1, 10) i;
         select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.start('f')",
    );
    db.settle("f");
    let mut migration = server.connect("locked_targets");
    // Nobody can write the target until the end of this transaction. The worker looks now and then.
    migration.run("begin; create index made on t (v)");
    db.run("update s set v = 0 where id = 1");
    db.until(
        "select coalesce(last_error = 'could not obtain lock on relation public.t', false) from coco.status where flow = 'f'",
    );
    for _ in 0..20 {
        migration.run("savepoint s; drop index made; rollback to s");
    }
    migration.run("commit");
    db.settle("f");
    assert!(!server.log().contains("deadlock detected"));
}
