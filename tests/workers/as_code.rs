//! Live flows whose declarations are run again.

use crate::support;

use support::server::Server;

#[test]
fn a_live_flow_that_is_declared_again_stays_live() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("as_code");
    db.run(
        "create table d (id int primary key, v int not null); insert into d select i, i % 3 from generate_series(1, 9) i;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}'); select coco.start('f')",
    );
    db.settle("f");
    let live = "select live from coco.flows where flow = 'f'";
    // A worker follows the new query.
    db.run("select coco.create_flow('f', 'd', 'select id, v + 1 as v from d', 't', '{id}', or_replace => true)");
    assert!(db.holds(live));
    db.settle("f");
    // And the flow under another id.
    let groups = "select coco.create_flow('f', 'd', 'select v, count(*) as n from d group by v', 't', '{v}', source_key => '{v}', or_replace => true)";
    db.run(groups);
    assert!(db.holds(live));
    db.settle("f");
    assert_eq!(
        db.text("select string_agg(v || ' ' || n, ', ' order by v) from t"),
        "0 3, 1 3, 2 3"
    );
    let id = db.text("select id from coco_internal.flow");
    db.run(groups);
    assert_eq!(db.text("select id from coco_internal.flow"), id);
    db.run("insert into d values (10, 0)");
    db.settle("f");
    assert_eq!(db.text("select n from t where v = 0"), "4");
    let definition = db.text("select coco.flow_definition('f')");
    assert!(definition.ends_with("SELECT coco.start(flow => 'f');\n"), "{definition}");
    // Paused, it stays so: no worker is asked for.
    db.run("select coco.alter_flow('f', paused => true)");
    db.run(
        "select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}', or_replace => true)",
    );
    assert!(db.holds("select live and paused from coco.flows where flow = 'f'"));
    assert_eq!(db.text("select count(*) from t"), "0");
    db.run("select coco.alter_flow('f', paused => false)");
    db.settle("f");
}
