//! Who may start, stop and see live flows.

use super::{shared, started, state, worker};

#[test]
fn who_may_do_and_see_what() {
    let server = shared();
    let mut db = server.database("rights");
    db.run(
        "create role rights_owner login; create role rights_other login;
            grant create on schema public to rights_owner; grant usage on schema coco to rights_owner, rights_other",
    );
    let mut owner = server.connect_as("rights", "rights_owner");
    started(&mut owner, "f");
    assert_eq!(owner.number("select count(*) from coco.status where state = 'live'"), 1);
    let mut other = server.connect_as("rights", "rights_other");
    for call in ["start", "stop", "wait"] {
        let e = other.fails(&format!("select coco.{call}('f')"));
        assert!(e.starts_with("42501 must be owner of flow \"f\""), "{call}: {e}");
    }
    for view in ["status", "progress", "flows", "errors", "tracking"] {
        assert_eq!(other.number(&format!("select count(*) from coco.{view}")), 0, "{view}");
    }
    assert!(other.fails("table coco_internal.flow_error").starts_with("42501 "));
    // What works on a flow is the owner's to see.
    owner.run("create function slow(int) returns int language plpgsql as 'begin perform pg_sleep(case $1 when 0 then 20 else 0 end); return $1; end'");
    owner.run("select coco.set_query('f', null, 'select id, slow(v) as v from f_s')");
    owner.settle("f");
    owner.run("update f_s set v = 0 where id = 1");
    owner.until("select count(*) = 1 from coco.workers where flow = 'f' and source = 'f_s' and state = 'working'");
    owner.until("select items_total = 1 from coco.progress where flow = 'f'");
    assert_eq!(other.rows("select row(flow, source, state) from coco.workers"), ["(,,working)"]);
    assert_eq!(other.number("select count(*) from coco.progress"), 0);
    assert_eq!(
        db.rows("select row(application_name, query, state) from pg_stat_activity where backend_type = 'coco worker' and datname = 'rights'"),
        ["(\"coco worker\",\"coco: flow f\",active)"]
    );
    // A worker runs as the flow's owner: what it may not do it cannot have done by its query.
    let pid = worker(&mut db);
    db.run(&format!("select pg_cancel_backend({pid})"));
    db.until("select state = 'failed' from coco.status where flow = 'f'");
    assert_eq!(
        owner.text("select last_error from coco.status"),
        "canceling statement due to user request"
    );
    owner.run("update f_s set v = 1 where id = 1");
    owner.until("select state = 'live' from coco.status");
    owner.settle("f");
    db.until("select state = 'idle' from pg_stat_activity where backend_type = 'coco worker' and datname = 'rights'");
    drop(owner);
    drop(other);
    db.run("drop owned by rights_owner, rights_other cascade");
    db.run("select coco.drop_flow('f'); drop role rights_owner, rights_other");
}

#[test]
fn the_owner_goes() {
    let server = shared();
    let mut db = server.database("owner_goes");
    db.run("create role goes login; create role heir; grant create on schema public to goes, heir; grant usage on schema coco to goes");
    let mut owner = server.connect_as("owner_goes", "goes");
    started(&mut owner, "f");
    drop(owner);
    started(&mut db, "healthy");
    assert!(db.fails("drop role goes").starts_with("2BP01 "));
    db.run(
        "reassign owned by goes to heir; drop owned by goes; drop role goes; update f_s set v = 9",
    );
    db.until("select count(*) = 1 from coco_internal.flow_error where message like '%no longer exists%' and hint is not null");
    db.run("update healthy_s set v = 4");
    db.settle("healthy");
    assert_eq!(state(&mut db, "healthy"), "live");
    db.run("select coco.drop_flow('f'); drop owned by heir; drop role heir");
    assert_eq!(db.rows("select flow from coco.status"), ["healthy"]);
}
