//! Types of arguments and results, and the names that a function resolves.

use super::{calls, number};
use crate::support::TestDb;

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
