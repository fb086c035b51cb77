//! Memoised functions of this database: what is computed, and how often.

use crate::support;

use support::{TestDb, explain};

/// A database with functions that count their calls: `plain`, and `many`, whose batch function also
/// counts the inputs that it was given.
fn counting(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("memo_{name}"));
    db.run(
        "create sequence calls; create sequence inputs;
         create function plain(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return upper(t); end $$;
         select coco.memoize('plain(text)');
         create function many(t text) returns text language plpgsql as
           $$ begin raise exception 'called by itself'; end $$;
         create function many_of(t text[]) returns text[] language plpgsql as
           $$ begin
                perform nextval('public.calls');
                if '' = any (t) then raise exception 'an empty text' using errcode = '22023'; end if;
                return (select array_agg(upper(x)) from
                          (select x, nextval('public.inputs') from unnest(t) with ordinality as u(x, n) order by n) as y);
              end $$;
         select coco.memoize('many(text)', batch => 'many_of(text[])', batch_size => 10);
         create table d (id int primary key, body text)",
    );
    db
}

fn number(db: &mut TestDb, sql: &str) -> i64 {
    let row = db.client.query_one(&format!("select ({sql})::bigint"), &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

/// Calls since the last look.
fn calls(db: &mut TestDb) -> i64 {
    taken(db, "calls")
}

fn inputs(db: &mut TestDb) -> i64 {
    taken(db, "inputs")
}

fn taken(db: &mut TestDb, sequence: &str) -> i64 {
    let taken = number(
        db,
        &format!("select case when is_called then last_value else 0 end from {sequence}"),
    );
    db.run(&format!("select setval('{sequence}', 1, false)"));
    taken
}

fn entries(db: &mut TestDb) -> i64 {
    number(db, "select coalesce(sum(entries), 0) from coco.functions")
}

fn fails(db: &mut TestDb, sql: &str) -> String {
    match db.client.batch_execute(sql) {
        Ok(()) => panic!("{sql} does not fail"),
        Err(e) => explain(&e),
    }
}

#[test]
fn what_items_share_is_computed_once_and_goes_with_the_last_of_them() {
    let mut db = counting("shared");
    db.run(
        "insert into d select i, 'text ' || i % 3 from generate_series(1, 9) i;
         select coco.create_flow('f', 'd', 'select id, plain(body) as u, plain(''all'') as a from d', 't', '{id}')",
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 9);
    assert_eq!((calls(&mut db), entries(&mut db)), (4, 4));
    db.run("update d set body = 'text 0'");
    assert_eq!(db.update("f", "normal")[0].evaluated, 6);
    assert_eq!((calls(&mut db), entries(&mut db)), (0, 2));
    db.run("update d set body = 'new' where id = 1");
    db.update("f", "normal");
    assert_eq!((calls(&mut db), entries(&mut db)), (1, 3));
    db.verify_clean("f");
    assert_eq!(number(&mut db, "select count(*) from coco.preview('f')"), 0);
    assert_eq!(calls(&mut db), 0, "looking computes nothing that is there");
    db.run("delete from d where id < 9");
    db.update("f", "normal");
    assert_eq!((calls(&mut db), entries(&mut db)), (0, 2));
    let uses = "select sum(uses) from coco.memo_1_f";
    assert_eq!(number(&mut db, uses), 2);
    db.run("truncate d");
    db.update("f", "normal");
    assert_eq!(entries(&mut db), 0);
    db.run("select coco.drop_flow('f')");
    let left = "select count(*) from pg_class where relname like 'memo\\_%\\_f'";
    assert_eq!(number(&mut db, left), 0);
}

#[test]
fn a_random_history_computes_each_new_input_once() {
    for function in ["plain", "many"] {
        let mut db = counting(&format!("random_{function}"));
        db.run(&format!(
            "select coco.create_flow('f', 'd', 'select d.id, w.n, {function}(w.x) as u from d,
               unnest(string_to_array(d.body, '' '')) with ordinality as w(x, n)', 't', '{{id,n}}')"
        ));
        let seed = std::env::var("COCO_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let mut random: u64 = seed.unwrap_or_else(|| std::process::id().into());
        println!("COCO_TEST_SEED={random}");
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let words = "select distinct w from d, unnest(string_to_array(body, ' ')) as w";
        db.run("create table known (w text)");
        for round in 0..60 {
            for _ in 0..1 + next(12) {
                let id = next(20);
                let body: Vec<String> = (0..next(8)).map(|_| format!("w{}", next(40))).collect();
                match next(4) {
                    0 => db.run(&format!("delete from d where id = {id}")),
                    _ => db.run(&format!(
                        "insert into d values ({id}, '{}') on conflict (id) do update set body = excluded.body",
                        body.join(" ")
                    )),
                }
            }
            let new = number(
                &mut db,
                &format!("select count(*) from ({words} except select w from known) as n"),
            );
            let mode = if next(10) == 0 { "full_reprocess" } else { "normal" };
            let all = number(&mut db, &format!("select count(*) from ({words}) as n"));
            db.update("f", mode);
            let computed = if function == "plain" { calls(&mut db) } else { inputs(&mut db) };
            let expected = if mode == "normal" { new } else { all };
            assert_eq!(computed, expected, "{function}, round {round}, {mode}");
            assert_eq!(entries(&mut db), all, "{function}, round {round}");
            db.run(&format!("truncate known; insert into known {words}"));
            let listed =
                number(&mut db, "select count(*) from coco.tracking_1_f, unnest(memo_refs)");
            let uses = number(&mut db, "select coalesce(sum(uses), 0) from coco.memo_1_f");
            assert_eq!(uses, listed, "{function}, round {round}");
            if round % 10 == 9 {
                db.verify_clean("f");
            }
        }
    }
}

#[test]
fn other_code_or_another_version_computes_again() {
    let mut db = counting("logic");
    db.run(
        "insert into d select i, 'text ' || i from generate_series(1, 5) i;
         create function helper(t text) returns text language sql as 'select t || ''.''';
         create function dear(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return public.helper(t); end $$;
         select coco.memoize('dear(text)', version => '1');
         select coco.create_flow('f', 'd', 'select id, dear(body) as u from d', 't', '{id}')",
    );
    db.update("f", "normal");
    assert_eq!(calls(&mut db), 5);
    db.run("select coco.set_query('f', 't', 'select id, dear(body) || ''!'' as u from d')");
    assert_eq!(db.update("f", "normal")[0].evaluated, 5);
    assert_eq!(calls(&mut db), 0, "the query alone is another");
    db.run("create or replace function helper(t text) returns text language sql as 'select t || ''?'''");
    assert_eq!(db.update("f", "normal")[0].upserted, 5);
    assert_eq!((calls(&mut db), entries(&mut db)), (5, 5));
    db.run("select coco.memoize('dear(text)', version => '2')");
    assert_eq!(db.update("f", "normal")[0].evaluated, 5);
    assert_eq!((calls(&mut db), entries(&mut db)), (5, 5));
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    db.run("select coco.unmemoize('dear(text)')");
    assert_eq!(db.update("f", "normal")[0].evaluated, 5);
    assert_eq!((calls(&mut db), entries(&mut db)), (5, 0));
    db.verify_clean("f");
}

#[test]
fn an_input_of_the_same_fingerprint_is_not_the_same_input() {
    let mut db = counting("collision");
    db.run(
        "insert into d values (1, 'one');
         select coco.create_flow('f', 'd', 'select id, plain(body) as u from d', 't', '{id}')",
    );
    db.update("f", "normal");
    // As if another input had had the fingerprint of this one.
    db.run("update coco.memo_1_f set input = input || 'x'; insert into d values (2, 'one')");
    db.update("f", "normal");
    assert_eq!(number(&mut db, "select count(*) from t where u = 'ONE'"), 2);
    assert_eq!(calls(&mut db), 2);
    db.verify_clean("f");
}

#[test]
fn a_batch_function_is_called_once_for_many() {
    let mut db = counting("batch");
    db.run(
        "insert into d select i, 'text ' || i % 25 from generate_series(1, 50) i;
         select coco.create_flow('f', 'd', 'select id, many(body) as u from d', 't', '{id}')",
    );
    db.update("f", "normal");
    assert_eq!((calls(&mut db), inputs(&mut db)), (3, 25));
    assert_eq!(
        number(&mut db, "select count(*) from t join d using (id) where u = upper(body)"),
        50
    );
    let memo: serde_json::Value = {
        db.run("insert into d values (51, 'text 1'), (52, 'new')");
        let row = db.client.query_one("select memo from coco.update('f')", &[]).expect("an update");
        row.get(0)
    };
    let memo = &memo["public.many(text)"];
    assert_eq!((memo["calls"].as_i64(), memo["hits"].as_i64()), (Some(2), Some(1)), "{memo}");
    assert_eq!((memo["misses"].as_i64(), memo["requests"].as_i64()), (Some(1), Some(1)), "{memo}");
    db.verify_clean("f");
}

#[test]
fn an_input_that_a_batch_function_refuses_fails_the_items_that_ask_for_it_alone() {
    let mut db = counting("refused");
    db.run(
        "insert into d select i, case when i in (4, 9) then '' else 'text ' || i end
           from generate_series(1, 20) i;
         select coco.create_flow('f', 'd', 'select id, many(body) as u from d', 't', '{id}')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted, c.failed), (20, 18, 2), "{c:?}");
    assert_eq!(inputs(&mut db), 18);
    let errors =
        "select count(*) from coco.errors where sqlstate = '22023' and message = 'an empty text'";
    assert_eq!(number(&mut db, errors), 2);
    db.run("update d set body = 'text 1' where body = ''");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed, inputs(&mut db)), (2, 0, 0), "{c:?}");
    db.verify_clean("f");
}

#[test]
fn results_that_rest_on_each_other_are_asked_for_one_after_the_other() {
    for (n, query) in [
        "select id, many(many(body) || '!') as u from d",
        "select s.id, many(coalesce(s.x, 'nothing yet') || '!') as u
           from (select id, many(body) as x from d) as s",
        "with s as materialized (select id, many(body) as x from d)
         select id, many(coalesce(x, 'nothing yet') || '!') as u from s",
        "select d.id, many(coalesce(m, 'nothing yet') || '!') as u from d, many(d.body) as m",
        "select id, (select many(coalesce(m, 'nothing yet') || '!') from many(d.body) as m) as u from d",
    ]
    .iter()
    .enumerate()
    {
        let mut db = counting(&format!("nested_{n}"));
        db.run(&format!(
            "insert into d select i, 'text ' || i from generate_series(1, 7) i;
             select coco.create_flow('f', 'd', $q$ {query} $q$, 't', '{{id}}')"
        ));
        let c = &db.update("f", "normal")[0];
        assert_eq!((c.upserted, c.failed), (7, 0), "{query}");
        let right = "select count(*) from t join d using (id) where u = upper(body) || '!'";
        assert_eq!(number(&mut db, right), 7, "{query}");
        assert_eq!((inputs(&mut db), calls(&mut db)), (14, 2), "{query}");
        db.verify_clean("f");
        assert_eq!(entries(&mut db), 14, "{query}");
    }
}

#[test]
fn an_error_while_something_is_missing_is_none() {
    let mut db = counting("missing");
    db.run(
        "insert into d select i, repeat('x', i) from generate_series(1, 5) i;
         create function strictly(t text) returns int language plpgsql as
           $$ begin if t is null then raise exception 'nothing'; end if; return length(t); end $$;
         select coco.create_flow('f', 'd', 'select id, strictly(many(body)) as n, plain(body) as p from d', 't', '{id}')",
    );
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (5, 0), "{c:?}");
    assert_eq!(inputs(&mut db), 5);
    db.run("create or replace function strictly(t text) returns int language sql as 'select 1 / (length(t) - 3)'");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.failed, inputs(&mut db)), (1, 0), "{c:?}");
}

#[test]
fn what_was_computed_for_an_item_that_fails_is_kept() {
    let mut db = counting("kept");
    db.run(
        "insert into d values (1, 'one'), (2, 'two');
         create table lid (closed bool); insert into lid values (true);
         create function pass(t text) returns text language plpgsql as
           $$ begin
                if t = 'TWO' and (select closed from public.lid) then raise exception 'closed'; end if;
                return t;
              end $$;
         select coco.create_flow('f', 'd', 'select id, pass(many(body)) as u from d', 't', '{id}')",
    );
    assert_eq!(db.update("f", "normal")[0].failed, 1);
    assert_eq!((inputs(&mut db), entries(&mut db)), (2, 2));
    db.run("update lid set closed = false");
    assert_eq!(db.update("f", "retry")[0].upserted, 1);
    assert_eq!((inputs(&mut db), entries(&mut db)), (0, 2));
    assert_eq!(
        number(&mut db, "select count(*) from coco.memo_1_f where kept_until is not null"),
        0
    );
    db.verify_clean("f");
}

#[test]
fn a_query_that_never_ends_is_told_so() {
    let mut db = counting("endless");
    db.run(
        "insert into d values (1, 'x');
         select coco.create_flow('f', 'd', $$
           select id, (with recursive r as (
                         select many(d.body || n) as x, n from (select 0 as n) as z
                         union all
                         select many(coalesce(x, '') || n), n + 1 from r where n < 300)
                       select max(x) from r where n = 300) as u from d $$, 't', '{id}')",
    );
    let said = fails(&mut db, "select * from coco.update('f')");
    assert!(said.contains("memoized functions are nested more than"), "{said}");
}

#[test]
fn to_reprocess_in_full_computes_again_and_to_forget_does_when_evaluated() {
    let mut db = counting("reprocess");
    db.run(
        "insert into d select i, 'text ' || i % 4 from generate_series(1, 8) i;
         select coco.create_flow('f', 'd', 'select id, plain(body) as u, many(body) as m from d', 't', '{id}')",
    );
    db.update("f", "normal");
    assert_eq!((calls(&mut db), inputs(&mut db)), (5, 4));
    db.run("set coco.batch_size = 3");
    let c = &db.update("f", "full_reprocess")[0];
    assert_eq!((c.evaluated, c.upserted), (8, 0), "{c:?}");
    assert_eq!(inputs(&mut db), 4, "what it has computed itself it takes");
    assert_eq!(entries(&mut db), 8);
    calls(&mut db);
    db.update("f", "reexport");
    assert_eq!((calls(&mut db), inputs(&mut db)), (0, 0));
    assert_eq!(number(&mut db, "select coco.clear_memo('f', 'many(text)')"), 4);
    assert_eq!(entries(&mut db), 4);
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    db.update("f", "reexport");
    assert_eq!(inputs(&mut db), 4);
    db.verify_clean("f");
    assert_eq!(number(&mut db, "select coco.clear_memo('f')"), 8);
}

#[test]
fn results_are_of_any_type() {
    let mut db = TestDb::new("memo_types");
    db.run(
        "create extension vector;
         create type mood as enum ('sad', 'happy'); create type pair as (a int, b text);
         create domain positive as int check (value > 0);
         create sequence calls;
         create table d (id int primary key, body text);
         insert into d select i, repeat(md5(i::text), i * 300) from generate_series(1, 6) i",
    );
    for (n, (result, expression)) in [
        ("int", "$1 + 1"),
        ("bigint", "$1 * 10000000000"),
        ("boolean", "$1 % 2 = 0"),
        ("float8", "$1 / 3.0::float8"),
        ("numeric", "$1 / 3.0"),
        ("uuid", "md5($1::text)::uuid"),
        ("interval", "make_interval(days => $1)"),
        ("timestamptz", "'epoch'::timestamptz + make_interval(days => $1)"),
        ("name", "('n' || $1)::name"),
        ("text", "repeat('long ', $1 * 5000)"),
        ("text", "null::text"),
        ("text[]", "array['a', null, $1::text]"),
        ("jsonb", "jsonb_build_object('n', $1)"),
        ("json", "json_build_object('n', $1)"),
        ("bytea", "decode(md5($1::text), 'hex')"),
        ("mood", "case when $1 % 2 = 0 then 'sad' else 'happy' end::public.mood"),
        ("mood[]", "array['sad', 'happy']::public.mood[]"),
        ("pair", "row($1, 'x')::public.pair"),
        ("pair[]", "array[row($1, 'x')::public.pair, null]"),
        ("positive", "$1"),
        ("vector", "('[' || $1 || ',2]')::public.vector"),
        ("regclass", "'public.d'::regclass"),
        ("int4range", "int4range($1, null)"),
        ("bit(3)", "b'101'"),
        ("xid8", "'7'::xid8"),
    ]
    .iter()
    .enumerate()
    {
        db.run(&format!(
            "create function f{n}(int, text) returns {result} language plpgsql as
               $$ begin perform nextval('public.calls'); return {expression}; end $$;
             select coco.memoize('f{n}(int, text)');
             select coco.create_flow('flow{n}', 'd', 'select id, f{n}(id, body) as r from d', 't{n}', '{{id}}')"
        ));
        assert_eq!(db.update(&format!("flow{n}"), "normal")[0].upserted, 6, "{result}");
        let right =
            format!("select count(*) from t{n} where row(r)::record *= row(f{n}(id, ''))::record");
        assert_eq!(number(&mut db, &right), 6, "{result} {expression}");
        calls(&mut db);
        let c = &db.update(&format!("flow{n}"), "reexport")[0];
        assert_eq!((c.evaluated, calls(&mut db)), (6, 0), "{result}");
        assert_eq!(number(&mut db, &right), 6, "{result} {expression}");
        db.verify_clean(&format!("flow{n}"));
    }
}

#[test]
fn arguments_of_another_type_or_collation_are_others() {
    let mut db = TestDb::new("memo_kinds");
    db.run(
        "create sequence calls;
         create function kind(x anyelement) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return pg_typeof(x) || ' ' || x; end $$;
         select coco.memoize('kind(anyelement)');
         create function loud(a text) returns text language plpgsql as
           $$ begin return upper(a); end $$;
         select coco.memoize('loud(text)');
         create collation mine (provider = libc, locale = 'C.UTF-8');
         create table d (id int primary key);
         insert into d values (1);
         select coco.create_flow('f', 'd', $$
           select id, kind(1) as i, kind('2000-01-02'::date) as d, kind(true) as b, kind(null::int) as n,
                  loud('\u{e4}' collate \"C\") as c, loud('\u{e4}' collate mine) as e from d $$,
           't', '{id}')",
    );
    db.update("f", "normal");
    let row = db.client.query_one("select i, d, b, n, c, e from t", &[]).expect("a row");
    let all: Vec<Option<String>> = (0..6).map(|n| row.get(n)).collect();
    let expected = ["integer 1", "date 2000-01-02", "boolean true", "", "\u{e4}", "\u{c4}"];
    let expected = expected.map(|e| (!e.is_empty()).then(|| e.to_owned()));
    assert_eq!(all, expected);
    db.verify_clean("f");
}

#[test]
fn functions_find_what_they_name_as_they_do_by_themselves() {
    let mut db = TestDb::new("memo_names");
    db.run(
        "create schema app; create schema evil;
         create function evil.has_function_privilege(pg_catalog.oid, pg_catalog.text) returns bool language sql as 'select false';
         set search_path = app, evil, pg_catalog;
         create table s (id int primary key, body pg_catalog.text); insert into s values (1, 'a'), (2, 'b');
         create function other(t pg_catalog.text) returns pg_catalog.text language sql as $$ select upper(t) $$;
         create function spoken(t pg_catalog.text) returns pg_catalog.text language plpgsql as $$ begin return other(t) || 1; end $$;
         create function written(t pg_catalog.text) returns pg_catalog.text language sql as $$ select other(t) || 2 $$;
         create function many(t pg_catalog.text) returns pg_catalog.text language sql as $$ select null::pg_catalog.text $$;
         create function many_of(t pg_catalog.text[]) returns pg_catalog.text[] language sql
           as $$ select array_agg(other(x) || 3 order by n) from unnest(t) with ordinality as u(x, n) $$;
         select coco.memoize('spoken(pg_catalog.text)'), coco.memoize('written(pg_catalog.text)'),
                coco.memoize('many(pg_catalog.text)', batch => 'many_of(pg_catalog.text[])', batch_size => 10);
         select coco.create_flow('f', 's', 'select id, spoken(body) as a, written(body) as b, many(body) as c from s', 'app.t', '{id}')",
    );
    let counts = db.update("f", "normal");
    assert_eq!((counts[0].upserted, counts[0].failed), (2, 0));
    db.verify_clean("f");
    db.run("update s set body = 'c' where id = 2; reset search_path");
    assert_eq!(
        number(&mut db, "select count(*) from coco.preview('f') where change = 'update'"),
        1
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 1);
    assert_eq!(
        number(
            &mut db,
            "select count(*) from app.t where (a, b, c) = ('A1', 'A2', 'A3') or (a, b, c) = ('C1', 'C2', 'C3')"
        ),
        2
    );
}

#[test]
fn what_a_view_calls_is_memoised_and_groups_several_targets_and_sources_are_fine() {
    let mut db = counting("shapes");
    db.run(
        "create table words (w text primary key, kind text not null);
         insert into words select 'w' || i, 'k' || i % 3 from generate_series(1, 12) i;
         create view loud as select w, kind, many(w) as u from words;
         create table e (id int primary key, body text);
         insert into d select i, 'w' || i from generate_series(1, 6) i;
         insert into e select i, 'w' || (i + 3) from generate_series(1, 6) i;
         -- a view that the query reads
         select coco.create_flow('viewed', 'd', 'select d.id, l.u from d join loud as l on l.w = d.body', 't1', '{id}');
         -- a group
         select coco.create_flow('grouped', 'words', 'select kind, many(string_agg(w, '','' order by w)) as u from words group by kind',
           't2', '{kind}', source_key => '{kind}');
         -- two targets of one flow, over two sources
         select coco.create_flow('both');
         select coco.add_source('both', 'd'); select coco.add_source('both', 'e');
         select coco.add_target('both', 't3', 'select ''d'' as s, id, many(body) as u from d union all select ''e'', id, many(body) from e', '{s,id}');
         select coco.add_target('both', 't4', 'select ''d'' as s, id, many(body || ''!'') as u, many(body) as v from d
                                               union all select ''e'', id, many(body || ''!''), many(body) from e', '{s,id}')",
    );
    // The last flow reuses what the first one has computed.
    for (flow, expected, entries) in [("viewed", 6, 6), ("grouped", 3, 3), ("both", 12, 18)] {
        db.update(flow, "normal");
        assert_eq!(inputs(&mut db), expected, "{flow}");
        let kept = format!("select sum(entries) from coco.functions where flow = '{flow}'");
        assert_eq!(number(&mut db, &kept), entries, "{flow}");
        db.verify_clean(flow);
        let c = db.update(flow, "reexport");
        assert_eq!(c.iter().map(|c| c.failed).sum::<i64>(), 0);
        assert_eq!(inputs(&mut db), 0, "{flow}");
    }
    db.run("update words set kind = 'k1' where w = 'w3'; delete from e where id > 3; update d set body = 'w12' where id = 1");
    for (flow, expected) in [("viewed", 1), ("grouped", 2), ("both", 1)] {
        db.update(flow, "normal");
        assert_eq!(inputs(&mut db), expected, "{flow}");
        db.verify_clean(flow);
    }
    let right = "select count(*) from (select w from (values ('w12'), ('w2'), ('w3'), ('w4'), ('w5'), ('w6')) as v(w)) as d";
    assert_eq!(
        number(&mut db, "select sum(entries) from coco.functions where flow = 'both'"),
        2 * number(&mut db, right)
    );
}

#[test]
fn a_batch_of_results_too_large_to_be_held_is_done_in_parts() {
    let mut db = counting("large");
    db.run(
        "insert into d select i, i || repeat(' x', 100000) from generate_series(1, 500) i;
         create function big(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return md5(t); end $$;
         create function big_of(t text[]) returns text[] language plpgsql as
           $$ begin perform nextval('public.calls'); return (select array_agg(md5(x) order by n) from unnest(t) with ordinality as u(x, n)); end $$;
         select coco.memoize('big(text)', batch => 'big_of(text[])', batch_size => 100000);
         select coco.create_flow('f', 'd', 'select id, big(body) as u from d', 't', '{id}')",
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 500);
    // 100 MB in one batch of items: two halves of it, at least.
    let parts = calls(&mut db);
    assert!((2..20).contains(&parts), "{parts}");
    assert_eq!(
        number(&mut db, "select count(*) from t join d using (id) where u = md5(body)"),
        500
    );
    assert_eq!(entries(&mut db), 500);
    assert_eq!(db.update("f", "reexport")[0].upserted, 500);
    assert_eq!(calls(&mut db), 0);
}

#[test]
fn who_may_memoise_what() {
    let mut db = counting("rights");
    db.run(
        "do $$ begin if exists (select from pg_roles where rolname = 'memo_user') then
           drop owned by memo_user; drop role memo_user; end if; end $$;
         create role memo_user login; grant usage on schema coco to memo_user;
         grant create on schema public to memo_user;
         create function rows_of(int) returns setof int language sql as 'select 1';
         create procedure proc() language sql as 'select 1';
         create function odd_batch(text) returns text[] language sql as 'select null::text[]';
         create function secret(t text) returns text language sql as 'select t';
         revoke execute on function secret from public;
         select coco.memoize('secret(text)');
         insert into d values (1, 'x'); grant select, trigger on d to memo_user",
    );
    for (sql, expected) in [
        ("select coco.memoize('rows_of(int)')", "cannot be memoized (42809)"),
        ("select coco.memoize('proc()')", "cannot be memoized (42809)"),
        ("select coco.memoize('max(int)')", "cannot be memoized (42809)"),
        (
            "select coco.memoize('plain(text)', batch => 'odd_batch(text)')",
            "is not a batch function",
        ),
        (
            "select coco.memoize('plain(text)', batch => 'many_of(text[])', batch_size => 0)",
            "must be greater than 0",
        ),
        ("select coco.memoize(null)", "argument \"function\" must not be NULL"),
        ("select coco.unmemoize('upper(text)')", "is not memoized"),
        ("select coco.memo_call(null::internal, 1)", "cannot cast"),
        ("select coco.memo_call(null)", "does not exist"),
    ] {
        let said = fails(&mut db, sql);
        assert!(said.contains(expected), "{sql}: {said}");
    }
    let mut theirs = db.connect_as("memo_user");
    let said = theirs.batch_execute("select coco.memoize('plain(text)')").expect_err("not theirs");
    assert!(explain(&said).contains("must be owner of function"), "{}", explain(&said));
    // What a flow's owner may not execute is not executed by way of the memo either.
    theirs
        .batch_execute("select coco.create_flow('g', 'd', 'select id, secret(body) as u from d', 'tg', '{id}')")
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    let said = theirs.batch_execute("select coco.update('g')").expect_err("no right to execute");
    let said = explain(&said);
    assert!(said.contains("42501") && said.contains("secret(text)"), "{said}");
    db.run("grant execute on function secret to memo_user");
    theirs.batch_execute("select coco.update('g')").unwrap_or_else(|e| panic!("{}", explain(&e)));
    db.run("revoke execute on function secret from memo_user; update d set body = 'y'");
    let said = theirs.batch_execute("select coco.update('g')").expect_err("no right any more");
    assert!(explain(&said).contains("42501"), "{}", explain(&said));
    drop(theirs);
    db.run("select coco.drop_flow('g'); drop owned by memo_user; drop role memo_user");
}

#[test]
fn a_restored_flow_has_its_results() {
    let mut db = counting("dumped");
    db.run(
        "insert into d select i, 'text ' || i from generate_series(1, 30) i;
         select coco.create_flow('f', 'd', 'select id, many(body) as u, plain(body) as p from d', 't', '{id}')",
    );
    db.update("f", "normal");
    let restored = TestDb::new("memo_restored");
    let bin = std::env::var("COCO_TEST_PG_BIN").expect("COCO_TEST_PG_BIN");
    let mut restored = restored;
    restored.run("drop extension coco cascade");
    let piped = format!(
        "{bin}/pg_dump '{}' | {bin}/psql -qX -v ON_ERROR_STOP=1 '{}' > /dev/null",
        db.url(),
        restored.url()
    );
    let status = std::process::Command::new("sh").args(["-c", &piped]).status().expect("sh");
    assert!(status.success());
    restored.run("select setval('calls', 1, false); select setval('inputs', 1, false)");
    assert_eq!(restored.update("f", "normal")[0].evaluated, 0);
    assert_eq!(restored.update("f", "reexport")[0].upserted, 30);
    assert_eq!((calls(&mut restored), inputs(&mut restored)), (0, 0));
    restored.run("update d set body = 'new' where id = 1");
    restored.update("f", "normal");
    assert_eq!((inputs(&mut restored), entries(&mut restored)), (1, 60));
    restored.verify_clean("f");
}
