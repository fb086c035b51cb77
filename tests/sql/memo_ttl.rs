//! Results of memoized functions that expire.

use crate::support;

use support::TestDb;

fn rows(db: &mut TestDb, sql: &str) -> Vec<String> {
    let sql = format!("select q::text from ({sql}) as q(q)");
    let rows = db.client.query(&sql, &[]);
    let rows = rows.unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)));
    rows.iter().map(|r| r.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())).collect()
}

/// A flow over two items whose results count for an hour.
fn declared(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        "create sequence calls;
         create function plain(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return upper(t); end $$;
         select coco.memoize('plain(text)', ttl => '1 hour');
         create table d (id int primary key, body text, n int not null default 0);
         insert into d values (1, 'a'), (2, 'b');
         select coco.create_flow('f', 'd', 'select id, n, plain(body) as u from d', 't', '{id}')",
    );
    db
}

/// Calls since the last look.
fn calls(db: &mut TestDb) -> String {
    let calls = rows(db, "select case when is_called then last_value else 0 end from calls");
    db.run("select setval('calls', 1, false)");
    calls[0].clone()
}

/// Makes all stored results of a flow two hours older.
fn age(db: &mut TestDb, flow: &str) {
    db.run(&format!(
        "do $$ declare results text;
         begin
           select memo_table::text into results from coco_internal.flow where flow = '{flow}';
           execute format('update %s set made = made - interval ''2 hours''', results);
         end $$"
    ));
}

const SHOWN: &str =
    "select concat_ws(' ', flow, ttl, entries, expired) from coco.functions order by flow";

#[test]
fn an_expired_result_is_computed_again_when_an_item_needs_it() {
    let mut db = declared("ttl_item");
    assert_eq!(db.update("f", "normal")[0].upserted, 2);
    assert_eq!(calls(&mut db), "2");
    assert_eq!(rows(&mut db, SHOWN), ["f 01:00:00 2 0"]);
    age(&mut db, "f");
    assert_eq!(rows(&mut db, SHOWN), ["f 01:00:00 2 2"]);
    // The age alone evaluates nothing.
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    assert_eq!(calls(&mut db), "0");
    db.run("update d set n = 1 where id = 1");
    assert_eq!(db.update("f", "normal")[0].evaluated, 1);
    assert_eq!(calls(&mut db), "1");
    assert_eq!(rows(&mut db, SHOWN), ["f 01:00:00 2 1"]);
    db.verify_clean("f");
}

#[test]
fn a_refresh_computes_what_has_expired_and_writes_what_differs() {
    let mut db = declared("ttl_refresh");
    db.update("f", "normal");
    age(&mut db, "f");
    db.run("update d set n = 1 where id = 1");
    db.update("f", "normal");
    calls(&mut db);
    let counts = &db.update("f", "refresh")[0];
    assert_eq!((counts.evaluated, counts.upserted), (2, 0));
    assert_eq!(calls(&mut db), "1", "the result of the other item");
    assert_eq!(rows(&mut db, SHOWN), ["f 01:00:00 2 0"]);
    db.update("f", "refresh");
    assert_eq!(calls(&mut db), "0");
    db.update("f", "full_reprocess");
    assert_eq!(calls(&mut db), "2");
    assert_eq!(
        rows(&mut db, "select reason from coco.history('f') order by run_id desc limit 2"),
        ["full_reprocess", "refresh"]
    );
}

#[test]
fn another_flow_does_not_reuse_an_expired_result() {
    let mut db = declared("ttl_reuse");
    db.update("f", "normal");
    db.run(
        "select coco.create_flow('g', 'd', 'select id, plain(body) as u from d', 'g_t', '{id}')",
    );
    calls(&mut db);
    db.update("g", "normal");
    assert_eq!(calls(&mut db), "0", "the results are fresh");
    age(&mut db, "f");
    age(&mut db, "g");
    db.run(
        "select coco.create_flow('h', 'd', 'select id, plain(body) as u from d', 'h_t', '{id}')",
    );
    db.update("h", "normal");
    assert_eq!(calls(&mut db), "2");
}

#[test]
fn a_function_gets_and_loses_its_ttl_without_losing_its_results() {
    let mut db = declared("ttl_changed");
    db.update("f", "normal");
    age(&mut db, "f");
    calls(&mut db);
    db.run("select coco.memoize('plain(text)')");
    assert_eq!(rows(&mut db, SHOWN), ["f 2 0"]);
    db.run("update d set n = 1 where id = 1");
    assert_eq!(db.update("f", "normal")[0].evaluated, 1);
    assert_eq!(calls(&mut db), "0");
    db.run("select coco.memoize('plain(text)', ttl => '1 day')");
    assert_eq!(rows(&mut db, SHOWN), ["f 1 day 2 0"]);
    let explained = "select detail ~ 'used\\s+for\\s+1\\s+day' from coco.explain('f') where section = 'memoized function'";
    assert_eq!(rows(&mut db, explained), ["true"]);
    for ttl in ["0", "-1 s"] {
        let sql = format!("select coco.memoize('plain(text)', ttl => '{ttl}')");
        let e = db.client.batch_execute(&sql).expect_err(&sql);
        let e = e.as_db_error().expect("an error of the server");
        assert_eq!(
            (e.code().code(), e.message()),
            ("22023", "argument \"ttl\" must be greater than 0")
        );
    }
}
