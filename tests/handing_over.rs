//! Items that hand values round: target keys, and values of other unique or exclusion constraints of the target.

mod support;

use support::TestDb;

fn rows(db: &mut TestDb, sql: &str) -> Vec<String> {
    db.client
        .query(sql, &[])
        .unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)))
        .iter()
        .map(|r| r.get(0))
        .collect()
}

/// How many rows a target has wrong.
fn wrong(db: &mut TestDb, query: &str, target: &str) -> i64 {
    let sql = format!(
        "select (select count(*) from ({query} except all select * from {target}) as a)
              + (select count(*) from (select * from {target} except all {query}) as b)"
    );
    db.client
        .query_one(&sql, &[])
        .unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)))
        .get(0)
}

#[test]
fn rows_swap_a_value_of_another_unique_constraint() {
    let mut db = TestDb::new("swap_unique");
    db.run(
        "create table n (id int primary key, pos int not null, t text);
         insert into n select i, i, 'a' from generate_series(1, 300) i;
         create table t (id int primary key, pos int not null unique, t text);
         create table child (id int references t on delete cascade);
         select coco.create_flow('f', 'n', 'select id, pos, t from n', 't', '{id}');
         select coco.update('f'); insert into child values (4);
         set coco.batch_size = 50;
         update n set t = 'b' where id = 4;
         update n set pos = case id when 1 then 2 when 2 then 3 when 3 then 1 end where id < 4",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted, c.failed), (4, 4, 0, 0), "{c:?}");
    // A row that does not change the value stays where it is, and so do its children.
    assert_eq!(rows(&mut db, "select id::text from child"), ["4"]);
    // Each batch meets the next one.
    db.run("update n set pos = pos + 1");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (300, 0), "{c:?}");
    assert_eq!(wrong(&mut db, "select id, pos, t from n", "t"), 0);
    db.verify_clean("f");

    // An index of expressions, with a predicate, which the user has added.
    db.run(
        "create unique index on t (lower(t || pos)) where id > 10; update n set pos = 1000 - pos",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!(c.failed, 0, "{c:?}");
    assert_eq!(wrong(&mut db, "select id, pos, t from n", "t"), 0);
}

#[test]
fn an_item_that_conflicts_for_good_fails_alone_beside_those_that_swap() {
    let mut db = TestDb::new("swap_and_fail");
    db.run(
        "create extension if not exists btree_gist;
         create table n (id int primary key, room int, at int4range, d int default 1);
         insert into n select i, i, '[1,5)' from generate_series(1, 40) i;
         create table t (id int primary key, room int, at int4range, q int, exclude using gist (room with =, at with &&));
         select coco.create_flow('f', 'n', 'select id, room, at, 1 / d as q from n', 't', '{id}');
         select coco.update('f');
         update n set room = case id when 1 then 2 when 2 then 1 end where id < 3;
         update n set room = 30 where id = 20;
         update n set room = 20 where id = 21;
         update n set d = 0 where id = 10;
         update n set room = 10 where id = 11",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (2, 4), "{c:?}");
    let failing =
        "select concat_ws(' ', source_key, sqlstate) from coco.errors order by source_key";
    assert_eq!(
        rows(&mut db, failing),
        ["{\"id\": 10} 22012", "{\"id\": 11} 23P01", "{\"id\": 20} 23P01", "{\"id\": 21} 23P01"]
    );
    // What makes room takes along those that waited for it.
    db.run("update n set room = 21 where id = 30; update n set d = 1, room = 11 where id = 10");
    let c = &db.update("f", "normal")[0];
    assert_eq!(c.failed, 0, "{c:?}");
    assert_eq!(wrong(&mut db, "select id, room, at, 1 / d as q from n", "t"), 0);
    db.verify_clean("f");
}

#[test]
fn a_ring_that_two_updates_see_in_parts_is_settled_with_its_last_item() {
    let mut db = TestDb::new("ring_in_parts");
    db.run(
        "create table n (id int primary key, slot int not null, d int default 1);
         insert into n select i, i from generate_series(1, 20) i;
         create table by_pos (id int primary key, slot int unique, q int);
         select coco.create_flow('listed', 'n', 'select slot, id, 1 / d as q from n', 'listed', '{slot}');
         select coco.create_flow('unique', 'n', 'select id, slot, 1 / d as q from n', 'by_pos', '{id}');
         select coco.update('listed'); select coco.update('unique');
         update n set slot = case id when 1 then 2 when 2 then 3 when 3 then 1 end where id < 4;
         update n set d = 0 where id = 2",
    );
    for flow in ["listed", "unique"] {
        assert_eq!(db.update(flow, "normal")[0].failed, 3, "{flow}");
    }
    // The others are not due yet.
    db.run("update n set d = 1 where id = 2");
    for flow in ["listed", "unique"] {
        let c = &db.update(flow, "normal")[0];
        assert_eq!((c.evaluated, c.failed), (3, 0), "{flow}: {c:?}");
        db.verify_clean(flow);
    }
    assert_eq!(wrong(&mut db, "select slot, id, 1 / d as q from n", "listed"), 0);
    assert_eq!(wrong(&mut db, "select id, slot, 1 / d as q from n", "by_pos"), 0);
}
