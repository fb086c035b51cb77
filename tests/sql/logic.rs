//! The logic fingerprint: whatever a query reaches, when it changes, evaluates again.

use crate::support;

use support::{Counts, TestDb};

fn counts(db: &mut TestDb) -> Counts {
    db.update("f", "normal").remove(0)
}

/// Declares a flow of three items over `expression`, and updates it.
fn flow(name: &str, setup: &str, expression: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        "create table d (id int primary key, a int, t text);
            insert into d values (1, 1, 'One'), (2, 2, 'Two'), (3, 3, 'Three')",
    );
    db.run(setup);
    db.run(&format!(
        "select coco.create_flow('f', 'd', $q$ select id, {expression} as x from d $q$, 't', '{{id}}')"
    ));
    let c = counts(&mut db);
    assert_eq!((c.evaluated, c.upserted, c.failed), (3, 3, 0), "{c:?}");
    db
}

/// The same definition evaluates nothing; another evaluates all, and writes `written` rows.
fn replaced(db: &mut TestDb, same: &str, other: &str, written: i64) {
    db.run(same);
    let c = counts(db);
    assert_eq!((c.seen, c.evaluated), (0, 0), "the same again: {c:?}");
    db.run(other);
    let c = counts(db);
    assert_eq!((c.evaluated, c.upserted, c.deleted), (3, written, 0), "another: {c:?}");
    db.verify_clean("f");
    assert_eq!(counts(db).evaluated, 0);
}

#[test]
fn a_function_of_the_query_whose_replacement_changes_one_row_writes_one() {
    let of = |b: &str| {
        format!(
            "create or replace function f(i int) returns int language sql immutable as $$ select {b} $$"
        )
    };
    let mut db = flow("logic_direct", &of("i"), "f(a)");
    replaced(&mut db, &of("i"), &of("case when i = 2 then 20 else i end"), 1);
}

#[test]
fn a_function_called_from_an_sql_standard_body() {
    let of = |b: &str| {
        format!("create or replace function inner_f(i int) returns int immutable return {b}")
    };
    let setup = of("i") + "; create function f(i int) returns int immutable return inner_f(i) + 1";
    let mut db = flow("logic_standard", &setup, "f(a)");
    replaced(&mut db, &of("i"), &of("i * 2"), 3);
}

#[test]
fn a_function_named_in_a_plpgsql_body_two_calls_down() {
    let of = |b: &str| {
        format!(
            "create or replace function \"Inner F\"(i int) returns int language plpgsql as $$ begin return {b}; end $$"
        )
    };
    let setup = of("i")
        + "; create function mid(i int) returns int language sql as $$ select \"Inner F\"($1) $$;
           create function f(i int) returns int language plpgsql as $$ begin return MID(i); end $$";
    let mut db = flow("logic_plpgsql", &setup, "f(a)");
    replaced(&mut db, &of("i"), &of("i * 2"), 3);
}

#[test]
fn the_function_of_an_operator_also_inside_a_string_body() {
    let of = |b: &str| {
        format!(
            "create or replace function glue(x text, y text) returns text language sql immutable as $$ select {b} $$"
        )
    };
    let setup = of("x || y")
        + "; create operator ~+~ (leftarg = text, rightarg = text, function = glue);
           create function f(t text) returns text language plpgsql as $$ begin return t ~+~ 'b'; end $$";
    let mut db = flow("logic_operator", &setup, "t ~+~ 'a' || f(t)");
    replaced(&mut db, &of("x || y"), &of("y || x"), 3);
}

#[test]
fn the_function_of_a_cast() {
    let of = |b: &str| {
        format!(
            "create or replace function to_pair(i int) returns pair language sql immutable as $$ select row({b})::pair $$"
        )
    };
    let setup = "create type pair as (x int, y int); ".to_owned()
        + &of("i, i")
        + "; create cast (int as pair) with function to_pair(int)";
    let mut db = flow("logic_cast", &setup, "(a::pair).y");
    replaced(&mut db, &of("i, i"), &of("i, i + 1"), 3);
}

#[test]
fn a_view_that_the_query_reads_and_the_function_in_it() {
    let view = |b: &str| format!("create or replace view v as select {b} as factor");
    let of = |b: &str| {
        format!(
            "create or replace function g() returns int language sql immutable as $$ select {b} $$"
        )
    };
    let setup = of("1") + "; " + &view("g()");
    let mut db = flow("logic_view", &setup, "a * (select factor from v)");
    replaced(&mut db, &view("g()"), &view("g() + 1"), 3);
    replaced(&mut db, &of("1"), &of("5"), 3);
}

#[test]
fn an_aggregate_of_ones_own() {
    let of = |b: &str| {
        format!(
            "create or replace function step(s int, i int) returns int language sql immutable as $$ select {b} $$"
        )
    };
    let setup =
        of("s + i") + "; create aggregate total(int) (sfunc = step, stype = int, initcond = '0')";
    let mut db = flow("logic_aggregate", &setup, "(select total(i) from generate_series(1, a) i)");
    replaced(&mut db, &of("s + i"), &of("s + i + i"), 3);
}

#[test]
fn a_function_that_the_query_does_not_reach_evaluates_nothing() {
    let mut db = flow(
        "logic_unrelated",
        "create function f(i int) returns int language sql as $$ select i $$",
        "f(a)",
    );
    db.run("create or replace function unrelated() returns int language sql as $$ select 1 $$");
    assert_eq!(counts(&mut db).evaluated, 0);
}

/// Changes the values of rows without writing any, and expects the next update to find it.
fn changed(db: &mut TestDb, change: &str, written: i64) {
    assert_eq!(counts(db).evaluated, 0);
    db.run(change);
    let c = counts(db);
    assert_eq!((c.evaluated, c.upserted), (3, written), "{change}: {c:?}");
    db.verify_clean("f");
    assert_eq!(counts(db).evaluated, 0);
}

#[test]
fn a_label_of_an_enum_and_an_attribute_of_a_composite() {
    let mut db = flow(
        "logic_labels",
        "create type mood as enum ('sad', 'ok'); create type pair as (x mood, y int);
         alter table d add m mood default 'sad', add p pair[] default '{\"(ok,1)\"}'",
        "concat(m, to_jsonb(p))",
    );
    changed(&mut db, "alter type mood rename value 'sad' to 'blue'", 3);
    changed(&mut db, "alter type pair rename attribute y to z", 3);
    changed(&mut db, "alter type mood rename value 'ok' to 'fine'", 3);
}

#[test]
fn the_expression_of_a_column_that_is_generated_when_it_is_read() {
    let mut db = TestDb::new("logic_version");
    let version: i32 = db
        .client
        .query_one("select current_setting('server_version_num')::int", &[])
        .expect("it says so")
        .get(0);
    if version < 180000 {
        return;
    }
    for (name, expression) in [("logic_virtual", "g"), ("logic_virtual_row", "to_jsonb(d)->'g'")] {
        let setup = "alter table d add g int generated always as (a * 2) virtual, add h int generated always as (a) virtual";
        let mut db = flow(name, setup, expression);
        changed(&mut db, "alter table d alter g set expression as (a * 3)", 3);
        db.run("alter table d alter h set expression as (a * 3)");
        let evaluated = counts(&mut db).evaluated;
        // A row that is read as a whole has it.
        assert_eq!(evaluated, if expression == "g" { 0 } else { 3 });
    }
}

#[test]
fn a_text_search_configuration_and_its_dictionaries() {
    let mut db = flow(
        "logic_search",
        "create text search dictionary stop (template = pg_catalog.simple);
         create text search configuration c (copy = pg_catalog.simple);
         create function of_text(t text) returns tsvector language sql immutable as $$ select to_tsvector('public.c', t) $$",
        "array[to_tsvector('c', t), of_text(t)]",
    );
    changed(&mut db, "alter text search configuration c alter mapping replace simple with stop", 0);
    changed(&mut db, "alter text search dictionary stop (accept = false)", 3);
    changed(
        &mut db,
        "alter text search configuration c alter mapping replace stop with english_stem",
        3,
    );
}
