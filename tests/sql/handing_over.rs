//! Items that hand values round: target keys, and values of other unique or exclusion constraints of the target.

use crate::support;

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

#[test]
fn a_row_that_passes_to_another_item_stays_where_it_is() {
    let mut db = TestDb::new("passes_on");
    db.run(
        "create table n (id int primary key, a text, v int); insert into n values (1, 'x', 1), (2, 'y', 1);
         select coco.create_flow('f', 'n', 'select a, id, v from n', 't', '{a}'); select coco.update('f');
         create table child (a text references t on delete cascade); insert into child values ('x'), ('y');
         update n set id = id + 100 where a = 'x';
         update n set a = case a when 'x' then 'y' else 'x' end",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.deleted, c.failed), (2, 0, 0), "{c:?}");
    assert_eq!(rows(&mut db, "select a from child order by 1"), ["x", "y"]);
    assert_eq!(wrong(&mut db, "select a, id, v from n", "t"), 0);
    db.verify_clean("f");
}

#[test]
fn a_flow_declared_again_takes_over_the_rows_of_its_old_target() {
    let mut db = TestDb::new("declared_again");
    let declare = "
        select coco.create_flow('f'); select coco.add_source('f', 'docs'); select coco.add_source('f', 'notes');
        select coco.add_target('f', 't', $q$select 'd' as kind, k, id, body from docs union all select 'n', k, id, body from notes$q$, '{kind,k}')";
    db.run(
        "create table docs (id int primary key, k int, body text);
         create table notes (id int primary key, k int, body text);
         insert into docs select i, i, 'd' from generate_series(1, 100) i;
         insert into notes select i, i, 'n' from generate_series(1, 50) i;
         set coco.batch_size = 20",
    );
    db.run(declare);
    db.run(
        "select * from coco.update('f'); select coco.drop_flow('f');
         update docs set body = 'changed' where id = 1; insert into docs values (101, 100, 'twice')",
    );
    db.run(declare);
    let counts = db.update("f", "normal");
    // Which of the two that produce one key has had it is not known any more; one of them waits.
    let failed: Vec<i64> = counts.iter().map(|c| c.failed).collect();
    assert_eq!(failed, [1, 0], "{counts:?}");
    assert_eq!(rows(&mut db, "select body from t where kind = 'd' and id = 1"), ["changed"]);
    db.run("delete from docs where id = 101; update docs set body = 'again' where id = 1");
    assert_eq!(db.update("f", "normal").iter().map(|c| c.failed).sum::<i64>(), 0);
    assert_eq!(rows(&mut db, "select body from t where kind = 'd' and id = 1"), ["again"]);
    db.verify_clean("f");
}

#[test]
#[cfg(not(feature = "pg15"))]
fn listed_keys_survive_what_changes_in_the_catalogs() {
    let mut db = TestDb::new("keys_survive");
    db.run(
        "create type mood as enum ('sad', 'ok'); create type pair as (a int, b text);
         create domain code as text; create table some_table ();
         create table n (id int primary key, m mood, p pair, c code, r regclass);
         insert into n values (1, 'sad', '(1,x)', 'b', 'some_table'), (2, 'ok', '(2,y)', 'c', 'pg_class'), (3, 'ok', '(3,z)', 'd', 'pg_type');
         select coco.create_flow('m', 'n', 'select m, r, id from n', 'tm', '{m,r}');
         select coco.create_flow('p', 'n', 'select p, id from n', 'tp', '{p}');
         select coco.create_flow('c', 'n', 'select c, id from n', 'tc', '{c}');
         select coco.update(f) from unnest('{m,p,c}'::text[]) f;
         alter type mood rename value 'sad' to 'blue';
         alter table some_table rename to renamed;
         alter domain code add check (value <> 'b') not valid",
    );
    // Composite types that a table uses cannot be altered, but for their names.
    let queries = [
        ("m", "select m, r, id from n", "tm"),
        ("p", "select p, id from n", "tp"),
        ("c", "select c, id from n", "tc"),
    ];
    for (change, failing) in
        [("update n set id = 11 where id = 1", 0), ("delete from n where id = 11", 0)]
    {
        db.run(change);
        for (flow, query, target) in queries {
            let failed = db.update(flow, "normal")[0].failed;
            assert_eq!(failed, failing, "{flow} after {change}");
            assert_eq!(wrong(&mut db, query, target), 0, "{flow} after {change}");
            db.verify_clean(flow);
        }
    }
}

#[test]
fn a_claim_whose_text_is_no_key_waits_for_its_retry() {
    let mut db = TestDb::new("claim_lost");
    db.run(
        "create type pair as (a int, b int);
         create function pair_text(pair) returns text language sql immutable as $$ select 'x' $$;
         create cast (pair as text) with function pair_text(pair) as assignment;
         create table n (id int primary key, k pair); insert into n select i, row(i, i)::pair from generate_series(1, 3) i;
         select coco.create_flow('f', 'n', 'select k, id from n', 't', '{k}'); select coco.update('f');
         set statement_timeout = '20s';
         update n set k = row(4, 4)::pair where id = 1; update n set id = 9 where id = 2; delete from n where id = 3;
         insert into n values (5, row(5, 5)::pair), (6, row(5, 5)::pair)",
    );
    // It ends, whatever comes of it.
    db.update("f", "normal");
    db.update("f", "normal");
}
