//! Target tables: made, adopted, altered, dropped, edited, given up.

use crate::support;

use support::{TestDb, explain};

fn text(db: &mut TestDb, sql: &str) -> String {
    let row = db.client.query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)))
        .get::<_, Option<String>>(0)
        .unwrap_or_default()
}

const COLUMNS: &str =
    "select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum)
  from pg_attribute where attrelid = 't'::regclass and attnum > 0 and not attisdropped";

fn flow(name: &str, query: &str, key: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        "create table d (id int primary key, a int, b text);
            insert into d select i, i, 'b' || i from generate_series(1, 20) i",
    );
    db.run(&format!("select coco.create_flow('f', 'd', $q${query}$q$, 't', '{key}')"));
    assert_eq!(db.update("f", "normal")[0].upserted, 20);
    db
}

#[test]
fn set_query_alters_cocos_own_table_to_fit_and_writes_its_rows_again() {
    let mut db = flow("altered", "select id, a from d", "{id}");
    for (query, columns) in [
        ("select id, a, b from d", "id integer, a integer, b text"),
        ("select id, b from d", "id integer, b text"),
        ("select id, a::numeric(10,2) as b from d", "id integer, b numeric(10,2)"),
        ("select id::bigint as id, b, a from d", "id bigint, b text, a integer"),
        ("select id::text as id, a from d", "id text, a integer"),
        ("select id, a from d", "id integer, a integer"),
    ] {
        db.run(&format!("select coco.set_query('f', null, $q${query}$q$)"));
        assert_eq!(text(&mut db, COLUMNS), columns, "{query}");
        let c = &db.update("f", "normal")[0];
        assert_eq!((c.evaluated, c.failed), (20, 0), "{query}: {c:?}");
        db.verify_clean("f");
        assert_eq!(text(&mut db, "select count(*)::text from t"), "20");
    }
    // The same rows from another text: evaluated, and none written.
    db.run("select coco.set_query('f', 't', 'select d.id, d.a from d')");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.deleted), (20, 0, 0), "{c:?}");
}

#[test]
fn rows_stay_their_items_when_a_query_changes_how_they_are_found() {
    let mut db = flow("ownership", "select id, a from d", "{id}");
    for query in [
        "select id + 0 as id, a from d",
        "select id, a from d",
        "select id + 10 as id, a from d",
        "select id, a from d",
    ] {
        db.run(&format!("select coco.set_query('f', null, $q${query}$q$)"));
        let c = &db.update("f", "normal")[0];
        assert_eq!((c.evaluated, c.failed), (20, 0), "{query}: {c:?}");
        db.verify_clean("f");
        db.run("delete from d where id = 20");
        db.update("f", "normal");
        db.verify_clean("f");
        db.run("insert into d values (20, 20, 'b20')");
        db.update("f", "normal");
        db.verify_clean("f");
    }
}

#[test]
fn a_query_that_goes_and_comes_back_before_an_update_loses_no_row() {
    let mut db = flow("detour", "select id + 0 as id, a from d", "{id}");
    db.run("update d set id = id + 100");
    for detour in [
        "select id, a from d",
        "select id + 0 as id, a, b from d",
        "select id::text as id, a from d",
    ] {
        db.run("update d set id = id + 100");
        db.run(&format!("select coco.set_query('f', null, $q${detour}$q$)"));
        db.run("select coco.set_query('f', null, 'select id + 0 as id, a from d')");
        db.update("f", "normal");
        db.verify_clean("f");
        assert_eq!(
            text(&mut db, "select count(*)::text from t where a is not null"),
            "20",
            "{detour}"
        );
    }
    // Rows that only the list knows, dropped on a way where the key is the source's.
    db.run("select coco.set_query('f', null, 'select id + 7 as id, a from d')");
    db.update("f", "normal");
    db.run(
        "select coco.set_query('f', null, 'select id, a from d');
            select coco.set_query('f', null, 'select id + 7 as id, a from d')",
    );
    db.update("f", "normal");
    db.verify_clean("f");
}

#[test]
fn an_adopted_table_is_never_altered() {
    let mut db = TestDb::new("adopted");
    db.run(
        "create table d (id int primary key, a int); insert into d values (1, 1);
            create table t (extra text default 'kept', a int, id int unique not null);
            insert into t values ('mine', 5, 99);
            select coco.create_flow('f', 'd', 'select id, a from d', 't', '{id}')",
    );
    let before = text(&mut db, COLUMNS);
    db.update("f", "normal");
    assert_eq!(
        text(&mut db, "select string_agg(concat_ws(' ', extra, a, id), ', ' order by id) from t"),
        "kept 1 1, mine 5 99"
    );
    let e = db
        .client
        .batch_execute("select coco.set_query('f', null, 'select id, a, 1 as c from d')")
        .expect_err("it lacks c");
    assert!(explain(&e).contains("The table has no column c integer"), "{}", explain(&e));
    assert_eq!(text(&mut db, COLUMNS), before);
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert_eq!(text(&mut db, "select count(*)::text from t"), "2");
}

#[test]
fn a_dropped_target_is_made_and_filled_again() {
    let mut db = flow("dropped", "select id, a from d", "{id}");
    db.run("drop table t");
    assert_eq!(text(&mut db, "select state from coco.status"), "target dropped");
    let e = support::verify(&mut db.client, "f", false).expect_err("there is nothing to verify");
    assert!(explain(&e).contains("target public.t of flow \"f\" was dropped"), "{}", explain(&e));
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (20, 20), "{c:?}");
    db.verify_clean("f");
    assert_eq!(text(&mut db, "select state from coco.status"), "up to date");
}

#[test]
fn a_query_that_lost_what_it_reads_says_so_and_can_be_given_another() {
    let mut db = flow("broken", "select id, a from d", "{id}");
    db.run(
        "create function f(int) returns int language sql as 'select $1';
            select coco.set_query('f', null, 'select id, f(a) as a from d');
            drop function f(int) cascade",
    );
    assert_eq!(text(&mut db, "select state from coco.status"), "query broken");
    let e = support::update(&mut db.client, "f", "normal").expect_err("the function is gone");
    assert!(
        explain(&e).contains("reads an object that was dropped (55000)")
            && explain(&e).contains("coco.set_query"),
        "{}",
        explain(&e)
    );
    db.run("select coco.set_query('f', null, 'select id, a from d')");
    db.update("f", "normal");
    db.verify_clean("f");

    // What is renamed is the same.
    db.run("alter table d rename a to renamed");
    assert_eq!(text(&mut db, "select state from coco.status"), "up to date");
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    db.verify_clean("f");
    db.run("select coco.set_query('f', null, 'select id, renamed as a from d')");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (20, 0), "{c:?}");
    // What is used cannot be dropped; what is not comes and goes.
    let e =
        db.client.batch_execute("alter table d drop renamed").expect_err("a view depends on it");
    assert!(explain(&e).contains("coco.query_1_f depends on column renamed"), "{}", explain(&e));
    db.run("alter table d drop b; alter table d add c int");
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
}

#[test]
fn an_edited_target_is_found_and_mended() {
    for (name, query) in [
        ("edited_covered", "select id, a from d"),
        ("edited_listed", "select id + 0 as id, a from d"),
    ] {
        let mut db = flow(name, query, "{id}");
        db.run("update t set a = -1 where id = 3; delete from t where id = 4; insert into t values (99, 1)");
        let all = [
            "public.t different {\"id\": 3}",
            "public.t extra {\"id\": 99}",
            "public.t missing {\"id\": 4}",
        ];
        let found = |db: &mut TestDb, repair| {
            let mut found = support::verify(&mut db.client, "f", repair)
                .unwrap_or_else(|e| panic!("{}", explain(&e)));
            found.sort();
            found
        };
        assert_eq!(found(&mut db, false), all);
        assert_eq!(db.update("f", "normal")[0].evaluated, 0);
        assert_eq!(found(&mut db, true), all);
        db.verify_clean("f");
        db.run("truncate t");
        assert_eq!(found(&mut db, true).len(), 20);
        db.verify_clean("f");
        // What merely has not been updated yet is mended too.
        db.run("update d set a = a + 1 where id < 3");
        assert_eq!(found(&mut db, true).len(), 2);
        db.verify_clean("f");
    }
}

#[test]
fn dropping_a_flow_leaves_nothing_of_coco_behind() {
    let mut db = flow("given_up", "select id, a from d", "{id}");
    db.run("select coco.drop_flow('f')");
    assert_eq!(text(&mut db, "select count(*)::text from t"), "20");
    db.run("select coco.create_flow('f', 'd', 'select id, a from d', 't', '{id}')");
    // The rows that are still there are adopted, and none is written again.
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (20, 0), "{c:?}");
    db.run("select coco.drop_flow('f'); drop table t");
    let left = "select string_agg(c.oid::regclass::text, ', ') from pg_class c
      left join pg_depend e on e.classid = 'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e'
      where relnamespace = 'coco'::regnamespace and relkind in ('r', 'v') and e.objid is null";
    assert_eq!(text(&mut db, left), "");
    db.run("drop extension coco");
}

#[test]
fn several_targets_of_one_flow_are_kept_together() {
    let mut db = flow("several", "select id, a from d", "{id}");
    db.run("select coco.add_target('f', 'words', $$ select id, n, w from d, regexp_split_to_table(b, '') with ordinality as s(w, n) $$, '{id,n}')");
    let c = &db.update("f", "normal")[0];
    assert_eq!(c.evaluated, 20, "{c:?}");
    db.verify_clean("f");
    db.run("update d set b = 'zz' where id = 1; delete from d where id = 2");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.deleted), (1, 3), "{c:?}");
    db.verify_clean("f");
    // All or nothing: what one target refuses is not written to the other.
    db.run("alter table words add check (w <> '!'); update d set b = '!', a = 77 where id = 3");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.failed, c.upserted), (1, 0), "{c:?}");
    assert_eq!(text(&mut db, "select a::text from t where id = 3"), "3");
}

/// Many rows go into a plain table another way than few, and than into one that is more.
#[test]
fn many_rows_are_written_as_insert_writes_them() {
    let mut db = TestDb::new("many_rows");
    db.run(
        "create table s (id int primary key, n int, body text);
         insert into s select i, i % 1000, md5(i::text) from generate_series(1, 5000) i;
         -- Too large for a page, and for compression.
         update s set body = (select string_agg(md5(s.id::text || j), '') from generate_series(1, 400) j) where id % 100 = 0;
         update s set body = 'same' where id in (4000, 4001);
         update s set n = 666 where id = 77;
         update s set n = 0 where n = 666 and id <> 77;
         create table plain (gone int, more text, body text not null, n int check (n <> 666), id int primary key);
         alter table plain drop gone;
         create table checked (body text, more text, n int check (n <> 666), id int primary key);
         create unique index on checked (left(body, 50));
         create index on checked (upper(left(body, 5))) where n > 500;
         create table short (id int primary key, n int, body varchar(40));
         create table own (own int generated always as identity, id int primary key, n int,
                           made int generated always as (n + 1) stored, body text, set timestamptz default now());
         create table watched (id int primary key, n int, body text);
         create function one_more() returns trigger language plpgsql as 'begin new.n := new.n + 1; return new; end';
         create trigger one_more before insert on watched for each row execute function one_more();
         create table parts (id int primary key, n int, body text) partition by range (id);
         create table low partition of parts for values from (0) to (2500);
         create table high partition of parts for values from (2500) to (10000);",
    );
    for (table, failed) in
        [("plain", 1), ("checked", 2), ("short", 49), ("own", 0), ("watched", 0), ("parts", 0)]
    {
        db.run(&format!(
            "select coco.create_flow('{table}', 's', 'select id, n, body{} from s', '{table}', '{{id}}')",
            if table == "short" { "::varchar" } else { "" }
        ));
        let c = &db.update(table, "normal")[0];
        assert_eq!((c.upserted, c.failed), (5000 - failed, failed), "{table}: {c:?}");
        let more = i64::from(table == "watched");
        let wrong = db.client.query_one(
            &format!(
                "select count(*) from {table} t join s using (id)
                  where (t.n, t.body) is distinct from (s.n + {more}::int, s.body)"
            ),
            &[],
        );
        assert_eq!(wrong.unwrap().get::<_, i64>(0), 0, "{table}");
        if more == 0 {
            db.verify_clean(table);
        }
    }
    let states = db
        .client
        .query_one(
            "select string_agg(distinct flow || ' ' || sqlstate, ', ' order by flow || ' ' || sqlstate) from coco.errors",
            &[],
        )
        .unwrap();
    assert_eq!(
        states.get::<_, String>(0),
        "checked 23505, checked 23514, plain 23514, short 22001"
    );
    // Its indexes have what it has.
    db.run("set enable_seqscan = off");
    let count = "select count(*) from checked where upper(left(body, 5)) >= '' and n > 500";
    let by_index = db.client.query_one(count, &[]).unwrap().get::<_, i64>(0);
    db.run("reset enable_seqscan; set enable_indexscan = off; set enable_bitmapscan = off");
    assert_eq!(db.client.query_one(count, &[]).unwrap().get::<_, i64>(0), by_index);
    assert!(by_index > 2000);
}

#[test]
fn rows_are_updated_inserted_and_left_in_one_batch() {
    let mut db = TestDb::new("mixed");
    db.run(
        "create table d (id int primary key, a int);
         insert into d select i, i from generate_series(1, 20) i;
         select coco.create_flow('f', 'd', 'select id, a / 2 as half from d where a > 0', 't', '{id}')",
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 20);
    db.run(
        "create table before as select ctid::text as place, * from t;
         update d set a = a * 2 where id in (2, 3);    -- differ
         update d set a = 5 where id = 4;              -- the same row comes out
         update d set a = -1 where id in (5, 6);       -- no row any more
         insert into d values (21, 21), (22, 22);
         delete from d where id = 7;
         delete from t where id = 8; update d set a = 9 where id = 8",
    );
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.evaluated, c.upserted, c.deleted), (8, 5, 3), "{c:?}");
    db.verify_clean("f");
    // Nothing but that was written.
    let left = "select string_agg(id::text, ',' order by id) from t join before b using (id) where t.ctid::text = b.place";
    assert_eq!(text(&mut db, left), "1,4,9,10,11,12,13,14,15,16,17,18,19,20");
    // Rows that came to be there by another way.
    db.run("update d set a = 10 where id in (5, 6); insert into t values (5, 1)");
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.evaluated, c.upserted), (2, 2), "{c:?}");
    db.verify_clean("f");
}

#[test]
fn a_target_with_rules_is_written_by_them() {
    let mut db = TestDb::new("rules");
    db.run(
        "create table d (id int primary key, a int);
         insert into d select i, i from generate_series(1, 3) i;
         create table t (id int primary key, a int);
         create table noted (what text, id int);
         create rule note_update as on update to t do also insert into noted values ('update', new.id);
         create rule keep as on update to t where old.id = 2 do instead nothing;
         select coco.create_flow('f', 'd', 'select id, a from d', 't', '{id}')",
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 3);
    db.run("update d set a = a + 10; insert into d values (4, 4)");
    db.update("f", "normal");
    let rows = "select string_agg(id || ':' || a, ' ' order by id) from t";
    assert_eq!(text(&mut db, rows), "1:11 2:2 3:13 4:4");
    let noted = "select string_agg(what || ' ' || id, ', ' order by id) from noted";
    assert_eq!(text(&mut db, noted), "update 1, update 2, update 3");
}
