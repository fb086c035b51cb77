//! Updating: what is looked at, evaluated and written.

use crate::support;

use support::TestDb;

fn text(db: &mut TestDb, sql: &str) -> String {
    let row = db.client.query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e))).get(0)
}

#[test]
fn of_a_hundred_thousand_items_one_that_changed_is_evaluated() {
    let mut db = TestDb::new("hundred_thousand");
    db.run(
        "create table d (id int primary key, body text, unused int);
         insert into d select i, md5(i::text), 0 from generate_series(1, 100000) i;
         select coco.create_flow('f', 'd', 'select id, upper(body) as body from d', 't', '{id}', capture => 'scan')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated, c.upserted), (100_000, 100_000, 100_000), "{c:?}");
    // Where no row is written, the table's pages stay as they are: not even a lock is left.
    let state = "select md5(string_agg(ctid::text || xmin || xmax, ',' order by id)) from t";
    let before = text(&mut db, state);
    db.run("update d set unused = 1 where id % 10 = 0");
    let c = &db.update("f", "normal")[0];
    assert_eq!(
        (c.seen, c.unchanged, c.evaluated, c.upserted, c.deleted),
        (100_000, 100_000, 0, 0, 0),
        "{c:?}"
    );
    let c = &db.update("f", "full_reprocess")[0];
    assert_eq!((c.evaluated, c.upserted), (100_000, 0), "{c:?}");
    assert_eq!(text(&mut db, state), before);
    db.run("update d set body = 'x' where id = 77");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.unchanged, c.evaluated, c.upserted, c.deleted), (99_999, 1, 1, 0), "{c:?}");
    let c = &db.update("f", "reexport")[0];
    assert_eq!((c.evaluated, c.upserted), (100_000, 100_000), "{c:?}");
    db.verify_clean("f");
}

#[test]
fn a_fingerprint_of_the_users_own_makes_trivial_changes_none() {
    let mut db = TestDb::new("normalized");
    db.run(
        "create table d (id int primary key, body text);
         insert into d values (1, E'One  two.\nThree.'), (2, 'Other.');
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', fingerprint => 'coco.normalize_text(body)')",
    );
    db.update("f", "normal");
    db.run(r"update d set body = E'One two. \r\nThree.\n' where id = 1");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.seen, c.unchanged, c.evaluated), (1, 1, 0), "{c:?}");
    db.run("update d set body = 'One two. Three!' where id = 1");
    assert_eq!(db.update("f", "normal")[0].evaluated, 1);
}

#[test]
fn a_known_ordinal_skips_unread_and_never_goes_back() {
    let mut db = TestDb::new("ordinal");
    db.run(
        "create table d (id int primary key, body text, modified timestamptz not null);
         insert into d values (1, 'a', '2020-01-01'), (2, 'b', '2020-01-01');
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', ordinal => 'modified', capture => 'scan')",
    );
    db.update("f", "normal");
    db.run("insert into d values (3, 'c', 'infinity')");
    assert_eq!(db.update("f", "normal")[0].upserted, 1);
    db.run("delete from d where id = 3");
    assert_eq!(db.update("f", "normal")[0].deleted, 1);
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.skipped, c.unchanged, c.evaluated), (2, 0, 0), "{c:?}");
    // The ordinal moved, the content did not: it alone advances.
    db.run("update d set modified = '2021-01-01'; update d set body = 'bb' where id = 2");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.skipped, c.unchanged, c.evaluated, c.upserted), (0, 1, 1, 1), "{c:?}");
    assert_eq!(
        text(&mut db, "select count(distinct source_ordinal)::text from coco.tracking"),
        "1"
    );
    // An older version is left alone.
    db.run("update d set modified = '2019-01-01', body = 'old'");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.skipped, c.evaluated), (2, 0), "{c:?}");
    assert_eq!(text(&mut db, "select string_agg(body, ',' order by id) from t"), "a,bb");
}

#[test]
fn a_result_does_not_depend_on_whose_session_computed_it() {
    let mut db = TestDb::new("settings");
    db.run(
        "set timezone = 'Asia/Tokyo'; set datestyle = 'German';
         create table d (id int primary key, at timestamptz); insert into d values (1, '2020-01-01 00:00:00+00');
         select coco.create_flow('f', 'd', $$ select id, at::date as day, at::text as said from d $$, 't', '{id}')",
    );
    db.update("f", "normal");
    db.run("set timezone = 'America/Lima'; set datestyle = 'ISO'");
    db.verify_clean("f");
    assert_eq!(db.update("f", "full_reprocess")[0].upserted, 0);
    assert_eq!(
        text(&mut db, "select day || ' ' || said from t"),
        "2020-01-01 2020-01-01 09:00:00+09"
    );
}

#[test]
fn an_update_sees_its_transactions_changes_and_goes_with_it() {
    let mut db = TestDb::new("atomic");
    db.run(
        "create table d (id int primary key, body text); insert into d values (1, 'a');
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}')",
    );
    db.update("f", "normal");
    let mut tx = db.client.transaction().unwrap();
    tx.batch_execute("update d set body = 'b'; insert into d values (2, 'c')").unwrap();
    let n: i64 = tx.query_one("select upserted from coco.update('f')", &[]).unwrap().get(0);
    assert_eq!(n, 2);
    tx.rollback().unwrap();
    assert_eq!(text(&mut db, "select string_agg(body, ',') from t"), "a");
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    db.verify_clean("f");
}

#[test]
fn every_key_type_with_an_order_will_do() {
    let mut db = TestDb::new("key_types");
    db.run("create extension citext; create type mood as enum ('sad', 'ok'); create domain pos as int check (value > 0)");
    for (n, (ty, a, b)) in [
        ("smallint", "1", "2"),
        ("numeric", "1.0", "2.50"),
        ("text", "'a'", "'B'"),
        ("citext", "'a'", "'B'"),
        ("uuid", "gen_random_uuid()", "gen_random_uuid()"),
        ("timestamptz", "'2020-01-01'", "now()"),
        ("interval", "'1 day 2 hours'", "'3 mons'"),
        ("bytea", "'\\x00ff'", "'\\x01'"),
        ("boolean", "true", "false"),
        ("mood", "'sad'", "'ok'"),
        ("pos", "1", "2"),
        ("float8", "0.1", "'NaN'"),
        ("inet", "'1.2.3.4'", "'::1'"),
        ("int[]", "'{1,2}'", "'{}'"),
        ("jsonb", "'{\"a\": 1}'", "'[]'"),
        ("int4range", "'[1,2)'", "'empty'"),
        ("char(3)", "'a'", "'bc'"),
        ("\"char\"", "'a'", "'b'"),
        ("name", "'a'", "'b'"),
        ("oid", "1", "2"),
        ("text collate \"C\"", "'a'", "'b'"),
        ("tsvector", "'a b'", "'c'"),
        ("date", "'infinity'", "'2020-01-01'"),
    ]
    .into_iter()
    .enumerate()
    {
        db.run(&format!(
            "create table s{n} (k {ty} primary key, v int not null); insert into s{n} values ({a}, 1), ({b}, 2);
             -- rows found by the source key, and rows found by a list
             select coco.create_flow('covered {n}', 's{n}', 'select k, v from s{n}', 'c{n}', '{{k}}');
             select coco.create_flow('listed {n}', 's{n}', 'select coalesce(k, k) as kk, v from s{n}', 'l{n}', '{{kk}}');
             select coco.create_flow('group {n}', 's{n}', 'select v, count(k) as n from s{n} group by v', 'g{n}', '{{v}}', source_key => '{{v}}')"
        ));
        for flow in ["covered", "listed", "group"] {
            let flow = format!("{flow} {n}");
            assert_eq!(db.update(&flow, "normal")[0].upserted, 2, "{ty}");
            assert_eq!(db.update(&flow, "normal")[0].evaluated, 0, "{ty}");
        }
        db.run(&format!("update s{n} set v = 3 where v = 1; delete from s{n} where v = 2"));
        for flow in ["covered", "listed", "group"] {
            let flow = format!("{flow} {n}");
            let c = &db.update(&flow, "normal")[0];
            assert_eq!((c.evaluated, c.upserted, c.failed), (1, 1, 0), "{ty} {flow}: {c:?}");
            db.verify_clean(&flow);
            db.update(&flow, "full_reprocess");
            db.verify_clean(&flow);
        }
    }
}

#[test]
fn every_kind_of_relation_can_be_a_source() {
    let mut db = TestDb::new("kinds");
    db.run(
        "create table d (id int primary key, body text); insert into d values (1, 'a'), (2, 'b');
         create view v as select id, body from d;
         create materialized view m as select id, body from d; create unique index on m (id);
         create table p (id int, part int, body text, primary key (id, part)) partition by list (part);
         create table p1 partition of p for values in (1); create table p2 partition of p for values in (2);
         insert into p values (1, 1, 'a'), (2, 2, 'b');
         create extension file_fdw; create server files foreign data wrapper file_fdw;
         create foreign table f (id int, body text) server files options (program 'printf \"1,a\\n2,b\\n\"', format 'csv')",
    );
    for (source, key) in [("v", "{id}"), ("m", "{id}"), ("p", "{id,part}"), ("f", "{id}")] {
        db.run(&format!(
            "select coco.create_flow('of {source}', '{source}', 'select id, body from {source}', 't_{source}', '{{id}}', source_key => '{key}')"
        ));
        let c = &db.update(&format!("of {source}"), "normal")[0];
        assert_eq!((c.seen, c.evaluated, c.upserted), (2, 2, 2), "{source}: {c:?}");
        assert_eq!(db.update(&format!("of {source}"), "normal")[0].evaluated, 0, "{source}");
        db.verify_clean(&format!("of {source}"));
    }
    db.run("update d set body = 'x' where id = 1; refresh materialized view m; delete from p where id = 1");
    assert_eq!(db.update("of v", "normal")[0].evaluated, 1);
    assert_eq!(db.update("of m", "normal")[0].evaluated, 1);
    assert_eq!(db.update("of p", "normal")[0].deleted, 1);
    // A view cannot promise that its key is not null; an update finds out.
    db.run("create or replace view v as select nullif(id, 1) as id, body from d");
    let c = &db.update("of v", "normal")[0];
    assert_eq!((c.failed, c.deleted), (1, 1), "{c:?}");
    let said: String = db
        .client
        .query_one(
            "select concat_ws(' ', sqlstate, message) from coco.errors where flow = 'of v'",
            &[],
        )
        .expect("an error")
        .get(0);
    assert_eq!(said, "22004 source \"v\" has a row whose key is NULL");
    db.verify_clean("of v");
}

#[test]
fn several_updates_at_once_wait_for_each_other_and_agree() {
    let mut db = TestDb::new("at_once");
    db.run(
        "create table d (id int primary key, n int); insert into d select i, 0 from generate_series(1, 200) i;
         select coco.create_flow('f', 'd', 'select id, n from d', 't', '{id}')",
    );
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let mut client = db.connect();
            std::thread::spawn(move || {
                for i in 0..25 {
                    let sql = format!(
                        "update d set n = {i} where id % 4 = {t}; select * from coco.update('f')"
                    );
                    client
                        .batch_execute(&sql)
                        .unwrap_or_else(|e| panic!("{}", support::explain(&e)));
                }
            })
        })
        .collect();
    for t in threads {
        t.join().expect("no thread fails");
    }
    db.update("f", "normal");
    db.verify_clean("f");
    assert_eq!(text(&mut db, "select count(*)::text from t where n = 24"), "200");
}

#[test]
fn an_update_that_waited_goes_by_what_it_waited_for() {
    let mut db = TestDb::new("waited");
    db.run(
        "create table d (id int primary key, n int); insert into d select i, i from generate_series(1, 5) i;
         select coco.create_flow('f', 'd', 'select id, n from d', 't', '{id}')",
    );
    let waits = "select count(*)::text from pg_locks where not granted and locktype = 'object'
        and database = (select oid from pg_database where datname = current_database())";
    for (first, evaluated, n) in [
        // A first update: then the target is empty no longer, and the logic known.
        ("select coco.update('f'); update d set n = 10 where id = 1", 1, "10"),
        ("select coco.set_query('f', null, 'select id, n + 1 as n from d')", 5, "11"),
    ] {
        let (mut one, mut two) = (db.connect(), db.connect());
        one.batch_execute(&format!("begin; {first}")).unwrap();
        let waiting = std::thread::spawn(move || support::update(&mut two, "f", "normal"));
        while text(&mut db, waits) == "0" {
            std::thread::yield_now();
        }
        one.batch_execute("commit").unwrap();
        let c = waiting.join().unwrap().unwrap_or_else(|e| panic!("{}", support::explain(&e)));
        assert_eq!((c[0].evaluated, c[0].failed), (evaluated, 0), "{c:?}");
        assert_eq!(text(&mut db, "select n::text from t where id = 1"), n);
        db.verify_clean("f");
    }
}

#[test]
fn a_preview_tells_what_an_update_then_does_and_writes_nothing() {
    let mut db = TestDb::new("preview");
    db.run(
        "create table d (id int primary key, words text);
         insert into d values (1, 'a b'), (2, 'c'), (3, 'd');
         select coco.create_flow('f', 'd', $$ select id, n, w from d, regexp_split_to_table(words, ' ') with ordinality as s(w, n) $$, 't', '{id,n}')",
    );
    db.update("f", "normal");
    db.run("update d set words = 'a x y' where id = 1; delete from d where id = 2; insert into d values (4, 'e')");
    let preview = "select string_agg(concat_ws(' ', change, key->>'id', key->>'n', old->>'w', new->>'w'), ', ' order by key->>'id', key->>'n') from coco.preview('f')";
    let mut tx = db.client.build_transaction().read_only(true).start().unwrap();
    let said: String = tx.query_one(preview, &[]).unwrap().get(0);
    tx.rollback().unwrap();
    assert_eq!(said, "update 1 2 b x, insert 1 3 y, delete 2 1 c, insert 4 1 e");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.deleted), (3, 1), "{c:?}");
    assert_eq!(text(&mut db, "select count(*)::text from coco.preview('f')"), "0");
}

/// A function takes 100 arguments: a row of more than 50 columns becomes an object in parts.
#[test]
fn rows_of_many_columns_are_shown_whole() {
    let mut db = TestDb::new("wide_rows");
    let columns: Vec<String> = (1..=120).map(|n| format!("m{n} int")).collect();
    db.run(&format!("create table d (id int primary key, {})", columns.join(", ")));
    db.run(
        "insert into d (id, m1, m120) values (1, 7, 8);
         select coco.create_flow('f', 'd', 'select * from d', 't', '{id}')",
    );
    let new = "select concat_ws(' ', change, new->>'m1', new->>'m120', (select count(*) from jsonb_object_keys(new)))
                 from coco.preview('f')";
    assert_eq!(text(&mut db, new), "insert 7 8 121");
    db.update("f", "normal");
    db.run("update d set m60 = 5");
    let old = "select concat_ws(' ', change, old->>'m120', new->>'m60', (select count(*) from jsonb_object_keys(old)))
                 from coco.preview('f')";
    assert_eq!(text(&mut db, old), "update 8 5 121");
    let one =
        "select concat_ws(' ', output->>'m60', (select count(*) from jsonb_object_keys(output)))
                 from coco.evaluate('f', '{\"id\": 1}')";
    assert_eq!(text(&mut db, one), "5 121");
}
