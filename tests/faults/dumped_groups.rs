//! Dump and restore: groups that coco keeps by deltas go along, and nothing is evaluated again.

use crate::{dump, support};

use support::TestDb;

fn text(db: &mut TestDb, query: &str) -> String {
    db.client.query_one(query, &[]).expect(query).get(0)
}

#[test]
fn contributions_and_states_are_restored() {
    let mut db = TestDb::new("dumped_groups");
    db.run(
        "create table s (id int primary key, k text, v numeric, f boolean not null);
         insert into s select i, 'k' || nullif(i % 3, 0), i / 4.0, i % 2 = 0 from generate_series(1, 20) i;
         select coco.create_flow('f', 's',
           'select k, sum(v) filter (where f) as total, max(id) as most, count(*) as n from s group by k having count(*) > 1',
           't', '{k}', source_key => '{k}', aggregate => 'delta')",
    );
    db.update("f", "normal");
    let mut other = dump::restored(&db, "restored_groups");

    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (3, 0), "{c:?}");
    assert_eq!(text(&mut other, "select aggregate from coco.flows"), "delta");
    other.run("update s set v = 100 where id = 4; delete from s where id = 20");
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (2, 2), "{c:?}");
    other.verify_clean("f");
    other.run("insert into s values (50, null, 1, true)");
    assert_eq!(other.update("f", "normal")[0].evaluated, 1);
    other.verify_clean("f");
}
