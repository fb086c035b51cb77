//! Results of memoized functions that somebody else wrote, or that are of types that were defined anew: they
//! are computed again, and no bytes are ever taken for a value of a type that they are not of. And functions
//! that stand in for others without being theirs.

use crate::support;

use support::{TestDb, explain};

/// What functions return, and an expression for it of their argument.
const RESULTS: [(&str, &str); 16] = [
    ("int", "$1 + 1"),
    ("bigint", "$1 * 10000000000"),
    ("boolean", "$1 % 2 = 0"),
    ("float8", "$1 / 3.0::float8"),
    ("numeric", "$1 / 3.0"),
    ("uuid", "md5($1::text)::uuid"),
    ("timestamptz", "'epoch'::timestamptz + make_interval(days => $1)"),
    ("text", "repeat('long ', $1 * 2000)"),
    ("bytea", "decode(md5($1::text), 'hex')"),
    ("bigint[]", "array[$1, null, 7]::bigint[]"),
    ("real[]", "array[$1, 0.5]::real[]"),
    ("jsonb", "jsonb_build_object('n', $1)"),
    ("mood", "case when $1 % 2 = 0 then 'sad' else 'happy' end::public.mood"),
    ("pair", "row($1, 'x')::public.pair"),
    ("positive", "$1"),
    ("int4range", "int4range($1, null)"),
];

fn number(db: &mut TestDb, sql: &str) -> i64 {
    let row = db.client.query_one(&format!("select ({sql})::bigint"), &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

fn fails(db: &mut TestDb, sql: &str) -> String {
    match db.client.batch_execute(sql) {
        Ok(()) => panic!("{sql} does not fail"),
        Err(e) => explain(&e),
    }
}

/// A database with a flow `flow<n>` for each of the results, updated once.
fn with_results(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("memo_forged_{name}"));
    db.run(
        "create type mood as enum ('sad', 'happy'); create type pair as (a int, b text);
         create domain positive as int check (value > 0);
         create table d (id int primary key, k int not null);
         insert into d select i, i from generate_series(1, 4) i",
    );
    for (n, (result, expression)) in RESULTS.iter().enumerate() {
        db.run(&format!(
            "create function f{n}(int) returns {result} language sql immutable as $$ select {expression} $$;
             select coco.memoize('f{n}(int)');
             select coco.create_flow('flow{n}', 'd', 'select id, f{n}(k) as r from d', 't{n}', '{{id}}')"
        ));
        db.update(&format!("flow{n}"), "normal");
    }
    db
}

/// The table of a flow's results.
fn memo(db: &mut TestDb, flow: &str) -> String {
    let sql = "select memo_table::text from coco_internal.flow where flow = $1";
    db.client.query_one(sql, &[&flow]).unwrap_or_else(|e| panic!("{}", explain(&e))).get(0)
}

fn is_right(db: &mut TestDb, n: usize, after: &str) {
    let flow = format!("flow{n}");
    let counts = &db.update(&flow, "reexport")[0];
    assert_eq!(counts.failed, 0, "{} {after}: {counts:?}", RESULTS[n].0);
    let right = format!(
        "select count(*) from t{n} join d using (id) where row(r)::record *= row(f{n}(k))::record"
    );
    assert_eq!(
        number(db, &right),
        number(db, "select count(*) from d"),
        "{} {after}",
        RESULTS[n].0
    );
    db.verify_clean(&flow);
}

#[test]
fn a_forged_result_is_computed_again() {
    let mut db = with_results("bytes");
    for n in 0..RESULTS.len() {
        let memo = memo(&mut db, &format!("flow{n}"));
        for forged in [
            "result = ''",
            "result = '\\x00'",
            "result = null",
            // An array header that claims 100 million elements; addresses; a record of any type.
            "result = '\\x0100000000000000140000000060f50501000000'",
            "result = '\\x01000000ffffffff000000ff'",
            "result = decode(repeat('ff', 5000), 'hex')",
            "result = decode(repeat('41', 8), 'hex')",
            "result = substr(result, 1, length(result) - 1)",
            "result = result || '\\x00'",
            // Right for another input, or under another seal.
            "result = (select m.result from {memo} m where m.entry <> {memo}.entry order by m.entry limit 1)",
            "seal = seal + 1",
            "seal = 0",
            "input = input || '\\x00'",
            "input = ''",
            "fingerprint = fingerprint + 1",
            "function = function + 1",
            "uses = 0",
            "uses = -5",
            "made = 'infinity'",
            "kept_until = '-infinity'",
        ] {
            let forged = forged.replace("{memo}", &memo);
            db.run(&format!("update {memo} set {forged}"));
            is_right(&mut db, n, &forged);
            // Also where an item is read alone, and by one that has not used it before.
            db.run(&format!("update {memo} set {forged}; insert into d values (100, 1)"));
            let preview = format!("select count(*) from coco.preview('flow{n}')");
            assert_eq!(number(&mut db, &preview), 1, "{forged}");
            is_right(&mut db, n, &forged);
            db.run("delete from d where id = 100");
            db.update(&format!("flow{n}"), "normal");
        }
        db.run(&format!("delete from {memo}"));
        is_right(&mut db, n, "deleted");
    }
}

#[test]
fn results_of_one_type_are_not_taken_for_another() {
    let mut db = with_results("types");
    // Each flow's results under the numbers and seals of another's.
    for n in 0..RESULTS.len() {
        let (here, there) = (format!("flow{n}"), format!("flow{}", (n + 1) % RESULTS.len()));
        let (to, from) = (memo(&mut db, &here), memo(&mut db, &there));
        db.run(&format!(
            "update {to} as m set result = o.result, seal = o.seal from {from} as o where o.input = m.input"
        ));
        is_right(&mut db, n, &there);
    }
}

#[test]
fn results_of_a_type_that_is_defined_anew_are_computed_again() {
    let mut db = with_results("defined");
    let flow = |result: &str| RESULTS.iter().position(|(r, _)| *r == result).expect("a flow");
    for (result, change) in [
        ("pair", "alter type pair rename attribute b to c"),
        ("mood", "alter type mood add value 'meh'"),
        (
            "mood",
            "alter type mood rename value 'sad' to 'blue';
                  create or replace function f12(int) returns mood language sql immutable as
                    $$ select case when $1 % 2 = 0 then 'blue' else 'happy' end::public.mood $$",
        ),
        ("positive", "alter domain positive add check (value < 1000)"),
    ] {
        db.run(change);
        is_right(&mut db, flow(result), change);
    }
}

#[test]
fn results_are_the_same_whatever_the_clients_encoding_is() {
    let mut db = TestDb::new("memo_forged_encoding");
    db.run(
        "create sequence calls;
         create type word as (w text, n int);
         create function f(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return t || ' € ž'; end $$;
         create function g(t text) returns word language plpgsql as
           $$ begin perform nextval('public.calls'); return row(t || ' € ž', 1)::public.word; end $$;
         select coco.memoize('f(text)'); select coco.memoize('g(text)');
         create table d (id int primary key, k text not null); insert into d values (1, 'ä');
         select coco.create_flow('x', 'd', 'select id, f(k) as f, g(k) as g from d', 't', '{id}')",
    );
    for encoding in ["latin1", "utf8", "latin1", "win1250"] {
        db.run(&format!("set client_encoding = {encoding}"));
        db.run("select * from coco.update('x', 'reexport')");
        db.run("reset client_encoding");
        let right = "select count(*) from t where f = 'ä € ž' and (g).w = 'ä € ž'";
        assert_eq!(number(&mut db, right), 1, "{encoding}");
        assert_eq!(number(&mut db, "select last_value from calls"), 2, "{encoding}");
    }
}

/// A database with a memoized `f(text)` whose batch function is `g(text[])`, and a flow that was updated once.
fn with_batch(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("memo_forged_{name}"));
    db.run(
        "create table d (id int primary key, k text not null); insert into d values (1, 'a');
         create function f(text) returns text language sql immutable as 'select $1';
         create function g(text[]) returns text[] language sql immutable as 'select $1';
         select coco.memoize('f(text)', batch => 'g(text[])');
         select coco.create_flow('x', 'd', 'select id, f(k) as v, octet_length(f(k)) as l from d', 't', '{id}')",
    );
    db.update("x", "normal");
    db
}

/// Updates the flow after its batch function became another one: the item fails, with an error that says this.
fn refuses_the_batch_function(db: &mut TestDb, id: i32, made: &str, said: &str) {
    db.run(&format!("{made}; insert into d values ({id}, 'k{id}')"));
    let counts = &db.update("x", "normal")[0];
    let found = db.client.query("select sqlstate || ' ' || message from coco.errors", &[]);
    let found = found.unwrap_or_else(|e| panic!("{}", explain(&e)));
    let errors: Vec<String> = found.iter().map(|r| r.get(0)).collect();
    assert!(counts.failed > 0 && !errors.is_empty(), "{made}: {counts:?}");
    assert!(errors.iter().all(|e| e.contains(said)), "{made}: {errors:?}");
    db.run(&format!(
        "delete from d where id = {id}; drop routine if exists g(text[]);
         create function g(text[]) returns text[] language sql immutable as 'select $1'"
    ));
    assert_eq!(db.update("x", "normal")[0].failed, 0, "{made}");
    db.verify_clean("x");
}

#[test]
fn a_batch_function_that_became_another_is_not_called() {
    let mut db = with_batch("batch");
    let again = "drop function g(text[]); create function g(text[]) returns";
    for (n, (made, said)) in [
        (format!("{again} bigint[] language sql immutable as 'select array_agg(5000::bigint << 2) from unnest($1)'"),
         "is not a batch function"),
        (format!("{again} text language sql immutable as 'select $1[1]'"), "is not a batch function"),
        (format!("{again} setof text[] language sql immutable as 'select $1'"), "is not a batch function"),
        ("drop function g(text[])".to_owned(), "no longer exists"),
        ("drop function g(text[]); create procedure g(text[]) language sql as 'select 1'".to_owned(),
         "is not a batch function"),
        (format!("{again} text[] language sql immutable as 'select array[$1, $1]'"), "2 dimensions"),
        (format!("{again} text[] language sql immutable as 'select $1 || array[''x'']'"),
         "returned 3 results for 2 inputs"),
        (format!("{again} text[] language sql immutable as 'select null::text[]'"), "returned 0 results"),
    ]
    .into_iter()
    .enumerate()
    {
        refuses_the_batch_function(&mut db, 10 + n as i32, &made, said);
    }
}

#[test]
fn a_function_is_memoized_only_as_the_one_that_was_noted() {
    let mut db = with_batch("owner");
    db.run(
        "do $$ begin if exists (select from pg_roles where rolname = 'forged_user') then
           drop owned by forged_user; drop role forged_user; end if; end $$;
         create role forged_user login; grant create on schema public to forged_user",
    );
    // Somebody else's batch function of the same name.
    let made = "drop function g(text[]); set role forged_user;
                create function g(text[]) returns text[] language sql as
                  $$ select array_agg(current_user || x) from unnest($1) x $$;
                reset role";
    refuses_the_batch_function(&mut db, 2, made, "has another owner");
    // Somebody else's function of the same name, where the flow's query is bound to it anew.
    db.run(
        "select coco.drop_flow('x'); drop function f(text); drop table t; set role forged_user;
         create function f(text) returns text language sql immutable as 'select upper($1)'; reset role;
         select coco.create_flow('y', 'd', 'select id, f(k) as v from d', 't', '{id}')",
    );
    db.update("y", "normal");
    assert_eq!(
        number(&mut db, "select count(*) from t where v = 'A'"),
        1,
        "it is called by itself"
    );
    assert_eq!(number(&mut db, "select count(*) from coco.functions where current"), 0);
    let warned = "select count(*) from coco.explain('y') where section = 'warning'
                   and detail like '%owner has changed%'";
    assert_eq!(number(&mut db, warned), 1);
    db.run("select coco.memoize('f(text)')");
    db.update("y", "reexport");
    assert_eq!(number(&mut db, "select count(*) from coco.functions where current"), 1);
    db.run(
        "select coco.drop_flow('y'); drop table t; drop function f(text);
            drop owned by forged_user; drop role forged_user",
    );
}

#[test]
fn columns_that_are_called_as_coco_calls_its_own_are_the_users() {
    let mut db = TestDb::new("memo_forged_item");
    db.run(
        "create sequence calls;
         create table d (id int primary key, k text not null); insert into d values (1, 'a'), (2, 'b');
         create function f(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return upper(t); end $$;
         create function h(t text) returns text language plpgsql as
           $$ declare r text; begin
                select f(t || x.coco_item) into r from (select 7 as coco_item offset 0) as x; return r; end $$;
         create view decoys as select n as coco_item from generate_series(1, 2) n;
         select coco.memoize('f(text)')",
    );
    for (n, (from, column)) in [
        (", (select 1 as coco_item offset 0) a, (select 2 as coco_item offset 0) b", "f(k)"),
        (", (select null::int as coco_item offset 0) a, (select null::int as coco_item) b", "f(k)"),
        (", (select min(null::int) as coco_item) a", "f(k)"),
        (", lateral (select f(k) as v, 5 as coco_item offset 0) a", "a.v"),
        (", decoys", "f(k || coco_item)"),
        (", (with coco_batch as (select 0 as no) select b.no as coco_item from coco_batch b offset 0) a", "f(k || a.coco_item)"),
        (", (select 1 as coco_item union all select 2) a", "f(k || coco_item)"),
        ("", "h(k)"),
        ("", "(select f(k || x.coco_item) from (select 9 as coco_item offset 0) x)"),
    ]
    .into_iter()
    .enumerate()
    {
        let item = "row_number() over (order by 1)";
        db.run(&format!(
            "select coco.create_flow('x{n}', 'd', 'select d.id, {column} as v, {item} as n from d{from}', 't{n}', '{{id,n}}')"
        ));
        let counts = db.update(&format!("x{n}"), "normal")[0].clone();
        assert_eq!((counts.evaluated, counts.failed), (2, 0), "{from}");
        let differs = format!(
            "select count(*) from (
               (select q.id, q.v from d as i, lateral (with d as (select i.*) select d.id, {column} as v from d{from}) q
                except all select id, v from t{n})
               union all
               (select id, v from t{n} except all
                select q.id, q.v from d as i, lateral (with d as (select i.*) select d.id, {column} as v from d{from}) q)) x"
        );
        assert_eq!(number(&mut db, &differs), 0, "{from}");
        db.verify_clean(&format!("x{n}"));
    }
    let said = fails(&mut db, "select coco_internal.memo_call(null::internal)");
    assert!(said.contains("cannot cast") || said.contains("does not exist"), "{said}");
}
