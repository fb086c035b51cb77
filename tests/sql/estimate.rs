//! `coco.estimate`: exact where the sample is everything, within its bounds elsewhere, and without a trace.

use crate::support;

use support::{TestDb, explain};

/// One figure: its estimate, and its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figure {
    estimate: f64,
    low: f64,
    high: f64,
}

impl Figure {
    fn exact(value: i64) -> Figure {
        let value = value as f64;
        Figure { estimate: value, low: value, high: value }
    }

    fn contains(self, value: i64) -> bool {
        self.low <= value as f64 && value as f64 <= self.high
    }
}

/// The figure of a measure, from a call with these arguments.
fn figure(db: &mut TestDb, arguments: &str, measure: &str) -> Figure {
    let sql = format!(
        "select estimate, low, high from coco.estimate({arguments}) where measure = '{measure}'"
    );
    let row = db.client.query_one(&sql, &[]);
    let row = row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    Figure { estimate: row.get(0), low: row.get(1), high: row.get(2) }
}

fn text(db: &mut TestDb, sql: &str) -> String {
    let row = db.client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

fn fails(db: &mut TestDb, sql: &str, sqlstate: &str) -> String {
    let e = db.client.batch_execute(sql).expect_err(sql);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {}", explain(&e));
    explain(&e)
}

/// The numbers of rows of all of coco's tables and of the targets, as one text.
fn everything(db: &mut TestDb) -> String {
    let tables = "select string_agg(format('select %L, count(*) from %s', c.oid::regclass, c.oid::regclass), ' union all ' order by c.oid)
                    from pg_class c where c.relkind in ('r', 'v')
                     and (c.relnamespace in ('coco_internal'::regnamespace, 'public'::regnamespace)
                          or c.relnamespace = 'coco'::regnamespace and c.relkind = 'r')";
    let counts = text(db, tables);
    text(db, &format!("select string_agg(t::text, ' ' order by t::text) from ({counts}) as t"))
}

/// Estimates the next update, makes it, and compares the two exactly.
fn estimated_exactly(db: &mut TestDb, flow: &str) {
    let arguments = format!("'{flow}'");
    let before = everything(db);
    let evaluated = figure(db, &arguments, "evaluated");
    let upserted = figure(db, &arguments, "upserted");
    let deleted = figure(db, &arguments, "deleted");
    let failed = figure(db, &arguments, "failed");
    assert_eq!(everything(db), before, "an estimate leaves nothing");
    let counts = &db.update(flow, "normal")[0];
    let of = |value: i64| Figure::exact(value);
    assert_eq!(
        (evaluated, upserted, deleted, failed),
        (of(counts.evaluated), of(counts.upserted), of(counts.deleted), of(counts.failed)),
        "{counts:?}"
    );
    db.verify_clean(flow);
}

#[test]
fn a_small_flow_is_estimated_exactly() {
    let mut db = TestDb::new("estimate_small");
    db.run(
        "create table d (id int primary key, v int, w int);
         insert into d select i, i, 0 from generate_series(1, 200) i;
         create function twice(i int) returns int language sql immutable as 'select i * 2';
         select coco.create_flow('f', 'd', 'select id, n, twice(v) as v from d, generate_series(1, 1 + id % 3) n', 't', '{id,n}')",
    );
    // The first update, then nothing, then changes of rows.
    estimated_exactly(&mut db, "f");
    assert_eq!(figure(&mut db, "'f'", "evaluated"), Figure::exact(0));
    db.run("update d set v = -v where id <= 20; delete from d where id > 190; insert into d values (500, 1, 1)");
    estimated_exactly(&mut db, "f");
    // A column that no query uses.
    db.run("update d set w = 1");
    estimated_exactly(&mut db, "f");
    // A function that differs for some items only.
    db.run("create or replace function twice(i int) returns int language sql immutable as 'select case when i > 100 then i else i * 2 end'");
    estimated_exactly(&mut db, "f");
    db.run("truncate d");
    estimated_exactly(&mut db, "f");
}

#[test]
fn a_captured_source_and_a_lookup_are_estimated_exactly() {
    let mut db = TestDb::new("estimate_lookup");
    db.run(
        "create table d (id int primary key, kind int, v int);
         create table kinds (kind int primary key, factor int);
         insert into kinds values (0, 1), (1, 10);
         insert into d select i, i % 2, i from generate_series(1, 100) i;
         select coco.create_flow('f');
         select coco.add_source('f', 'd', capture => 'trigger');
         select coco.add_lookup('f', 'kinds', affects => 'select d.id from public.d d join kinds k using (kind)');
         select coco.add_target('f', 't', 'select d.id, d.v * k.factor as v from d join public.kinds k using (kind)', '{id}')",
    );
    estimated_exactly(&mut db, "f");
    db.run("update d set v = 0 where id = 7");
    estimated_exactly(&mut db, "f");
    db.run("update kinds set factor = 100 where kind = 1");
    estimated_exactly(&mut db, "f");
}

#[test]
fn another_query_is_estimated_before_it_is_set() {
    let mut db = TestDb::new("estimate_query");
    db.run(
        "create table d (id int primary key, v int);
         insert into d select i, i from generate_series(1, 300) i;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}');
         select coco.update('f')",
    );
    let queries = [
        // Some rows differ, some are no longer there, a column comes, and one goes.
        "select id, case when id <= 50 then -v else v end as v from d",
        "select id, v from d where id > 100",
        "select id, v, ''x''::text as more from d",
        "select id, v from d",
    ];
    for query in queries {
        let before = everything(&mut db);
        let arguments = format!("'f', '{query}'");
        let upserted = figure(&mut db, &arguments, "upserted");
        let deleted = figure(&mut db, &arguments, "deleted");
        assert_eq!(everything(&mut db), before, "{query}");
        db.run(&format!("select coco.set_query('f', 't', '{query}')"));
        let counts = &db.update("f", "normal")[0];
        assert_eq!(
            (upserted, deleted),
            (Figure::exact(counts.upserted), Figure::exact(counts.deleted)),
            "{query}: {counts:?}"
        );
        db.verify_clean("f");
    }
    let said = fails(&mut db, "select * from coco.estimate('f', target => 't')", "22023");
    assert!(said.contains("require argument \"query\""), "{said}");
    let said = fails(&mut db, "select * from coco.estimate('f', sample => 99)", "22023");
    assert!(said.contains("argument \"sample\" (99) must be at least 100"), "{said}");
    fails(&mut db, "select * from coco.estimate('f', 'select nothing from d')", "42703");
}

#[test]
fn items_that_fail_are_counted() {
    let mut db = TestDb::new("estimate_failing");
    db.run(
        "create table d (id int primary key, v int);
         insert into d select i, i from generate_series(1, 60) i;
         update d set v = 0 where id in (3, 30, 59);
         select coco.create_flow('f', 'd', 'select id, 100 / v as v from d', 't', '{id}')",
    );
    assert_eq!(figure(&mut db, "'f'", "failed"), Figure::exact(3));
    assert_eq!(figure(&mut db, "'f'", "upserted"), Figure::exact(57));
}

#[test]
fn the_truth_of_a_large_table_lies_within_the_bounds() {
    let mut db = TestDb::new("estimate_large");
    db.run(
        "create table d (id int primary key, v int);
         insert into d select i, i from generate_series(1, 20000) i;
         select coco.create_flow('f', 'd',
           'select id, n, v from d, generate_series(1, 1 + id % 4) n', 't', '{id,n}', capture => 'scan')",
    );
    let rows = figure(&mut db, "'f', sample => 2000", "rows");
    assert!(rows.contains(50_000) && rows.low < rows.high, "{rows:?}");
    assert!((rows.estimate - 50_000.0).abs() < 5_000.0, "{rows:?}");
    assert_eq!(rows, figure(&mut db, "'f', sample => 2000", "rows"), "the same each time");
    let counts = &db.update("f", "normal")[0];
    assert_eq!((counts.evaluated, counts.upserted), (20_000, 50_000));
    // A quarter of the items changes; coco finds them by a scan.
    db.run("update d set v = 0 where id % 4 = 0");
    let evaluated = figure(&mut db, "'f', sample => 2000", "evaluated");
    assert!(evaluated.contains(5_000) && evaluated.low < evaluated.high, "{evaluated:?}");
    let all = figure(&mut db, "'f', sample => 20000", "evaluated");
    assert_eq!(all, Figure::exact(5_000));
}

#[test]
fn missing_results_are_counted_and_not_computed() {
    let mut db = TestDb::new("estimate_memo");
    db.run(
        "create sequence calls;
         create function plain(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return upper(t); end $$;
         select coco.memoize('plain(text)');
         create table d (id int primary key, body text);
         insert into d select i, 'text ' || i % 40 from generate_series(1, 100) i;
         select coco.create_flow('f', 'd', 'select id, plain(body) as body from d', 't', '{id}')",
    );
    assert_eq!(figure(&mut db, "'f'", "memo_misses"), Figure::exact(40));
    assert_eq!(figure(&mut db, "'f'", "memo_hits"), Figure::exact(0));
    assert_eq!(text(&mut db, "select is_called::text from calls"), "false", "nothing is computed");
    db.update("f", "normal");
    db.run("update d set body = 'new' where id <= 10; update d set body = 'text 1' where id = 11");
    assert_eq!(figure(&mut db, "'f'", "memo_misses"), Figure::exact(1));
    assert_eq!(figure(&mut db, "'f'", "memo_hits"), Figure::exact(1));
    assert_eq!(figure(&mut db, "'f'", "requests"), Figure::exact(0));
    db.update("f", "normal");
    db.verify_clean("f");
}

#[test]
fn only_the_owner_estimates() {
    let mut db = TestDb::new("estimate_owner");
    db.run(
        "create table d (id int primary key); select coco.create_flow('f', 'd', 'select id from d', 't', '{id}');
         do $$ begin create role estimate_other login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to estimate_other",
    );
    let mut other = db.connect_as("estimate_other");
    for sql in ["select * from coco.estimate('f')", "select coco.allow('f')"] {
        let e = other.batch_execute(sql).expect_err(sql);
        assert_eq!(e.code().map(|c| c.code()), Some("42501"), "{sql}: {}", explain(&e));
    }
}
