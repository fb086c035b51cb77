//! Dump and restore: expectations and parked rows go along, and nothing is evaluated again.

use crate::{dump, support};

use support::TestDb;

fn text(db: &mut TestDb, query: &str) -> String {
    db.client.query_one(query, &[]).expect(query).get(0)
}

#[test]
fn expectations_and_parked_rows_are_restored() {
    let mut db = TestDb::new("dumped_expectations");
    db.run(
        "create table s (id int primary key, v int); insert into s values (1, 10), (2, -1), (3, null);
         select coco.create_flow('f', 's', 'select id, v from s', 't', '{id}');
         select coco.expect('f', 'v > 0', name => 'positive', max_share => 0.5)",
    );
    db.update("f", "normal");
    let mut other = dump::restored(&db, "restored_expectations");

    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (3, 0), "{c:?}");
    assert_eq!(
        text(
            &mut other,
            "select concat_ws(' ', name, condition, action, max_share, checked, failed, parked)
               from coco.expectations"
        ),
        "positive v > 0 park 0.5 3 1 1"
    );
    assert_eq!(text(&mut other, "select target_key::text from coco.errors"), "{\"id\": 2}");
    other.run("update s set v = -5 where id = 1; update s set v = 5 where id = 2");
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted), (2, 1, 1), "{c:?}");
    other.run("select coco.set_query('f', null, 'select id, v + 0 as v from s')");
    other.update("f", "normal");
    assert_eq!(text(&mut other, "select string_agg(id::text, ',' order by id) from t"), "2,3");
    other.verify_clean("f");
}
