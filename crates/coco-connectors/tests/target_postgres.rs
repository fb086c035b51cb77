//! Tests of the connector to another PostgreSQL server.

mod proxy;
mod remote_db;

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::server::{Server, Stop, comes};
use coco_connectors::targets::Prepared;
use coco_connectors::targets::options::Access;
use coco_core::change::{Change, DeliveryError, ErrorScope, TargetSchema, Values};
use remote_db::{DrivenTarget, RemoteDb, access, connector, schema};

const DOCS: [(&str, &str); 3] = [("id", "bigint"), ("title", "text"), ("price", "numeric(10,2)")];

fn docs() -> TargetSchema {
    schema("docs", &DOCS, &["id"])
}

const ALL_DOCS: &str = "select d::text from docs d order by id";

fn delivery_error<T>(result: Result<T, DeliveryError>) -> DeliveryError {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => error,
    }
}

/// Returns all texts of an error.
fn said(error: &DeliveryError) -> String {
    format!("{error:?}")
}

#[test]
fn rows_come_change_and_go() {
    let mut remote = RemoteDb::new("rows_come");
    let mut docs = remote.open(&docs());
    assert_eq!(docs.exists(), Ok(false));
    assert_eq!(docs.exists(), Ok(false), "to look makes nothing");
    assert_eq!(docs.prepare(), Ok(Prepared::Made));
    assert_eq!(docs.exists(), Ok(true));
    let two = remote.rows(&docs.schema, "values (1, 'one', 1.5), (2, 'two', null)");
    docs.applied(&two);
    assert_eq!(remote.sql.rows(ALL_DOCS), ["(1,one,1.50)", "(2,two,)"]);

    // The same batch again, and again in another session that finds the table.
    docs.applied(&two);
    let mut again = remote.open(&docs.schema);
    assert_eq!(again.prepare(), Ok(Prepared::Found));
    again.applied(&two);
    assert_eq!(remote.sql.rows(ALL_DOCS), ["(1,one,1.50)", "(2,two,)"]);

    let mut mixed = remote.rows(&docs.schema, "values (2, 'zwei', 2.25), (3, null, 3)");
    mixed.extend(remote.deletions(&docs.schema, "values (1), (99)"));
    docs.applied(&mixed);
    assert_eq!(remote.sql.rows(ALL_DOCS), ["(2,zwei,2.25)", "(3,,3.00)"]);
    docs.applied(&mixed);
    again.applied(&mixed);
    assert_eq!(remote.sql.rows(ALL_DOCS), ["(2,zwei,2.25)", "(3,,3.00)"]);

    docs.applied(&remote.deletions(&docs.schema, "values (2), (3)"));
    docs.applied(&[]);
    assert_eq!(remote.sql.number("select count(*) from docs"), 0);

    docs.remove().expect("it goes");
    docs.remove().expect("nothing there is no error");
    assert!(remote.sql.holds("select to_regclass('docs') is null"));
    let mut made = remote.open(&docs.schema);
    assert_eq!(made.prepare(), Ok(Prepared::Made));
}

#[test]
fn rows_that_come_before_they_are_noted_are_seen_after() {
    let mut remote = RemoteDb::new("filled");
    let mut docs = remote.ready(&docs());
    let rows = remote.rows(&docs.schema, "select n, 'row ' || n, n from generate_series(1, 500) n");
    let mut reader = remote.server.connect(&remote.name);
    let mut is_seen = |rows| assert_eq!(reader.number("select count(*) from docs"), rows);
    assert_eq!(docs.load_stream(&rows, false, || is_seen(0)), Ok(false));
    is_seen(0);
    assert_eq!(docs.load_stream(&rows, true, || is_seen(0)), Ok(true));
    is_seen(500);
    // Existing rows are left to `apply`.
    assert_eq!(docs.load_stream(&rows[..1], true, || is_seen(500)), Ok(false));
    docs.applied(&rows);
    is_seen(500);
    // Rejected rows are, too.
    remote.sql.run("truncate docs; alter table docs add check (id <> 7)");
    let mut again = remote.ready(&docs.schema);
    assert_eq!(again.load_stream(&rows, true, || is_seen(0)), Ok(false));
    is_seen(0);
    let rejected = again.apply(&rows).expect("an answer");
    assert_eq!(
        rejected.iter().map(|r| (r.change, r.sqlstate.as_str())).collect::<Vec<_>>(),
        [(6, "23514")]
    );
    is_seen(499);
    // Malformed rows are not written.
    remote.sql.run("truncate docs");
    let mut again = remote.ready(&docs.schema);
    let mut malformed = rows[..3].to_vec();
    malformed[1].row = Some(Values::Binary(vec![0, 0, 0, 9, 1]));
    assert_eq!(again.load_stream(&malformed, true, || is_seen(0)), Ok(false));
    is_seen(0);
    assert_eq!(again.apply(&malformed).expect("an answer").len(), 1);
    is_seen(2);
}

#[test]
fn what_is_the_same_is_not_written() {
    let mut remote = RemoteDb::new("same_not_written");
    let mut docs = remote.ready(&docs());
    let query = "select n, 'row ' || n, n * 1.5 from generate_series(1, 100) n";
    docs.applied(&remote.rows(&docs.schema, query));
    remote.sql.run("create table before as select xmin::text as x, id from docs");
    let query = "select n, case n % 10 when 0 then 'new' else 'row ' || n end, n * 1.5
                   from generate_series(1, 100) n";
    docs.applied(&remote.rows(&docs.schema, query));
    let written = "select count(*) from docs join before using (id) where docs.xmin::text <> x";
    assert_eq!(remote.sql.number(written), 10);
    assert_eq!(remote.sql.number("select count(*) from docs where title = 'new'"), 10);
}

#[test]
fn what_is_equal_and_not_the_same_is_written() {
    let mut remote = RemoteDb::new("equal_not_same");
    let numbers =
        schema("n", &[("k", "numeric"), ("v", "numeric"), ("f", "double precision")], &["k"]);
    let mut numbers = remote.ready(&numbers);
    numbers.applied(&remote.rows(&numbers.schema, "values (1.0, 2.0, '0'::float8)"));
    numbers.applied(&remote.rows(&numbers.schema, "values (1.00, 2.00, '-0'::float8)"));
    assert_eq!(remote.sql.rows("select n::text from n"), ["(1.00,2.00,-0)"]);
    numbers.applied(&remote.deletions(&numbers.schema, "values (1.000)"));
    assert_eq!(remote.sql.number("select count(*) from n"), 0);
}

/// A value of each built-in type that a column can have.
const VALUES: [(&str, &str); 37] = [
    ("smallint", "-32768"),
    ("integer", "2147483647"),
    ("bigint", "-9223372036854775808"),
    ("numeric", "123456789012345678901234567890.000000000012345678900"),
    ("numeric(10,2)", "-12345678.90"),
    ("real", "1.1754944e-38"),
    ("double precision", "NaN"),
    ("boolean", "true"),
    ("text", "Grüße, 世界 \\ \" ' \t"),
    ("character varying(5)", "äöüß€"),
    ("character(4)", "ab"),
    ("\"char\"", "x"),
    ("name", "a name"),
    ("bytea", "\\x0001ff00"),
    ("uuid", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
    ("json", "{\"b\": 1,  \"a\": [1, 2.50, null]}"),
    ("jsonb", "{\"b\": 1, \"a\": [1, 2.50, null]}"),
    ("timestamp with time zone", "2026-03-04 05:06:07.891234+00"),
    ("timestamp(3) without time zone", "infinity"),
    ("date", "0044-03-15 BC"),
    ("time without time zone", "23:59:59.999999"),
    ("time with time zone", "12:00:00+05:30"),
    ("interval", "1 year -2 mons +3 days 04:05:06.7"),
    ("inet", "fe80::1/64"),
    ("cidr", "10.1.0.0/16"),
    ("macaddr", "08:00:2b:01:02:03"),
    ("bit(5)", "10110"),
    ("bit varying", "1"),
    ("point", "(1.5,-2)"),
    ("tsvector", "'cat':3 'fat':2"),
    ("int4range", "[1,10)"),
    ("oid", "4294967295"),
    ("integer[]", "{1,NULL,3}"),
    ("text[]", "{{a,\"b, c\"},{NULL,\"\"}}"),
    ("numeric(6,2)[]", "{1.50,-2.00}"),
    ("timestamp with time zone[]", "{\"2026-01-01 00:00:00+00\"}"),
    ("jsonb[]", "{\"{\\\"a\\\": 1}\"}"),
];

#[test]
fn every_type_comes_as_it_was() {
    let mut remote = RemoteDb::new("every_type");
    let mut columns = vec![("id".to_owned(), "bigint")];
    columns.extend(VALUES.iter().enumerate().map(|(n, (t, _))| (format!("v{n}"), *t)));
    let columns: Vec<(&str, &str)> = columns.iter().map(|(n, t)| (n.as_str(), *t)).collect();
    let schema = schema("types", &columns, &["id"]);
    assert_eq!((connector().check)(&schema), Ok(()));
    let casts: Vec<String> =
        VALUES.iter().map(|(t, v)| format!("'{}'::{t}", v.replace('\'', "''"))).collect();
    let nulls: Vec<String> = VALUES.iter().map(|(t, _)| format!("null::{t}")).collect();
    let (casts, nulls) = (casts.join(", "), nulls.join(", "));
    // Directly into the table, and through the temporary table over other values.
    for query in [
        format!("select 1, {casts} union all select 2, {nulls}"),
        format!("select 1, {nulls} union all select 2, {casts}"),
        format!("select 1, {casts} union all select 2, {casts}"),
    ] {
        let mut types = remote.open(&schema);
        types.prepare().unwrap_or_else(|t| panic!("{t:?}"));
        let rows = remote.rows(&schema, &query);
        types.applied(&rows);
        let found = remote.rows(&schema, "select * from types order by id");
        assert_eq!(found, rows);
        types.applied(&rows);
    }
    assert_eq!(remote.sql.number("select count(*) from types"), 2);
}

/// Reports whether an extension is available on the server.
fn has(remote: &mut RemoteDb, extension: &str) -> bool {
    let sql =
        format!("select exists (select from pg_available_extensions where name = '{extension}')");
    remote.sql.holds(&sql)
}

#[test]
fn vectors_come_with_their_extension_if_the_server_has_it() {
    let mut remote = RemoteDb::new("vectors");
    let three = schema("v", &[("id", "integer"), ("embedding", "public.vector(3)")], &["id"]);
    let mut vectors = remote.open(&three);
    if !has(&mut remote, "vector") {
        let lacks = delivery_error(vectors.prepare());
        assert_eq!((lacks.scope, lacks.sqlstate.as_str()), (ErrorScope::Target, "42704"));
        assert!(lacks.hint.is_some_and(|h| h.contains("pgvector")));
        return;
    }
    assert_eq!(vectors.prepare(), Ok(Prepared::Made));
    let query = "values (1, '[1,2.5,-3]'::vector), (2, null)";
    vectors.applied(&remote.rows(&three, query));
    vectors.applied(&remote.rows(&three, "values (1, '[1,2,3]'::vector), (3, '[0,0,0]')"));
    assert_eq!(
        remote.sql.rows("select v::text from v order by id"),
        ["(1,\"[1,2,3]\")", "(2,)", "(3,\"[0,0,0]\")"]
    );

    // A column with another dimension fits no row.
    let four = schema("v", &[("id", "integer"), ("embedding", "public.vector(4)")], &["id"]);
    let other = delivery_error(remote.open(&four).prepare());
    assert_eq!((other.scope, other.sqlstate.as_str()), (ErrorScope::Target, "42804"));
    assert_eq!(
        other.detail.as_deref(),
        Some("Column \"embedding\" is vector(3), the query gives vector(4).")
    );
    // A column without a dimension fits, and so does another schema; a row can still be rejected.
    remote.sql.run("create schema elsewhere; alter extension vector set schema elsewhere;
                   create table w (id int primary key, embedding elsewhere.vector check (elsewhere.vector_dims(embedding) = 3))");
    let any = schema("w", &[("id", "integer"), ("embedding", "public.vector(4)")], &["id"]);
    let mut any = remote.ready(&any);
    let rows =
        remote.rows(&any.schema, "values (1, '[1,2,3,4]'::elsewhere.vector), (2, '[1,2,3]')");
    let rejected = any.apply(&rows).expect("the others arrive");
    assert_eq!(
        rejected.iter().map(|r| (r.change, r.sqlstate.as_str())).collect::<Vec<_>>(),
        [(0, "23514")]
    );
    assert_eq!(remote.sql.rows("select id from w"), ["2"]);
}

#[test]
fn types_of_users_are_found_by_name() {
    let mut remote = RemoteDb::new("user_types");
    remote.sql.run(
        "create schema kinds;
         create type kinds.\"Odd mood\" as enum ('sad', 'it''s ok');
         create domain kinds.percent as integer check (value between 0 and 100)",
    );
    let columns = [("id", "integer"), ("m", "public.\"Odd mood\""), ("p", "public.percent")];
    let moods = schema("moods", &columns, &["id"]);
    let mut moods = remote.ready(&moods);
    let query = "values (1, 'sad'::kinds.\"Odd mood\", 5::kinds.percent), (2, 'it''s ok', null)";
    moods.applied(&remote.rows(&moods.schema, query));
    assert_eq!(remote.sql.rows("select m::text from moods order by id"), ["sad", "it's ok"]);

    // Labels and values that exist only in this database are rejected when they are staged. All
    // other rows are delivered.
    remote.sql.run(
        "create schema here;
         create type here.\"Odd mood\" as enum ('sad', 'new');
         create domain here.percent as integer",
    );
    let query = "select n, case when n in (4, 8) then 'new' else 'sad' end::here.\"Odd mood\",
                        case n when 6 then 101 else n end::here.percent
                   from generate_series(1, 10) n";
    let mut rows = remote.rows(&moods.schema, query);
    rows.extend(remote.deletions(&moods.schema, "values (77)"));
    let rejected = moods.apply(&rows).expect("the others arrive");
    let rejected: Vec<_> = rejected.iter().map(|r| (r.change, &r.sqlstate[..2])).collect();
    assert_eq!(rejected, [(3, "22"), (5, "23"), (7, "22")]);
    let there_now = remote.sql.rows("select id from moods order by id");
    assert_eq!(there_now, ["1", "2", "3", "5", "7", "9", "10"]);
}

#[test]
fn types_that_mean_something_else_there_are_refused() {
    let mut remote = RemoteDb::new("refused_types");
    let of = |type_name| schema("t", &[("id", "integer"), ("v", type_name)], &["id"]);
    for early in ["public.mood[]", "public.pair[]", "regclass", "regtype[]"] {
        let message = (connector().check)(&of(early)).expect_err(early);
        assert!(message.contains("cast it"), "{message}");
    }
    remote.sql.run(
        "create type pair as (a integer, b text);
         create type mood as enum ('sad');
         create domain moods as mood[];
         create table t (id integer primary key, v pair)",
    );
    for (target, late) in [("t", "public.pair"), ("new", "public.pair"), ("new", "public.moods")] {
        let mut schema = of(late);
        schema.target = target.to_owned();
        let found = delivery_error(remote.open(&schema).prepare());
        assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Target, "0A000"), "{late}");
    }
    assert!(remote.sql.holds("select to_regclass('new') is null"));
    let missing = delivery_error(
        remote
            .open(&{
                let mut s = of("public.nowhere");
                s.target = "new".to_owned();
                s
            })
            .prepare(),
    );
    assert_eq!((missing.scope, missing.sqlstate.as_str()), (ErrorScope::Target, "42704"));
    assert!(missing.hint.is_some());
}

#[test]
fn names_are_read_as_in_sql() {
    let mut remote = RemoteDb::new("names");
    let mut odd = schema(
        "\"My \"\"schema\"\" ünï\".\"a.b; drop table x\"",
        &[
            ("n", "integer"),
            ("t", "text"),
            ("Ünï \"c1\" %s", "text"),
            ("c1", "integer"),
            ("s", "json"),
        ],
        &["t", "Ünï \"c1\" %s"],
    );
    let lacks = delivery_error(remote.open(&odd).prepare());
    assert_eq!((lacks.scope, lacks.sqlstate.as_str()), (ErrorScope::Target, "3F000"));
    assert!(lacks.hint.is_some_and(|h| h.contains("CREATE SCHEMA")));
    remote.sql.run("create schema \"My \"\"schema\"\" ünï\"");
    for round in 0..2 {
        let mut target = remote.ready(&odd);
        let query =
            format!("values (1, 'a', '1', {round}, '{{}}'::json), (null, 'b', '2', 7, null)");
        target.applied(&remote.rows(&odd, &query));
        target.applied(&remote.deletions(&odd, "values ('b', '2')"));
        let found = remote
            .sql
            .rows("select x::text from \"My \"\"schema\"\" ünï\".\"a.b; drop table x\" x");
        assert_eq!(found, [format!("(1,a,1,{round},{{}})")]);
    }

    // Unquoted names are folded. Without a schema, the role's own search path applies.
    odd.target = "MyTable".to_owned();
    remote.sql.run(
        "create schema mine; alter role postgres in database names set search_path = nowhere, mine",
    );
    remote.ready(&odd);
    assert!(remote.sql.holds("select to_regclass('mine.mytable') is not null"));
    assert_eq!(remote.open(&odd).prepare(), Ok(Prepared::Found));
    for wrong in ["", "a.b.c", "a b", "\"", "1x"] {
        odd.target = wrong.to_owned();
        assert!((connector().check)(&odd).is_err(), "{wrong}");
    }
}

#[test]
fn a_table_that_does_not_fit_is_told_apart() {
    let mut remote = RemoteDb::new("not_fit");
    let mut refuses = |definition: &str, sqlstate: &str, says: &str| {
        remote.sql.run(&format!("drop table if exists docs cascade; {definition}"));
        let found = delivery_error(remote.open(&docs()).prepare());
        assert_eq!(
            (found.scope, found.sqlstate.as_str()),
            (ErrorScope::Target, sqlstate),
            "{definition}"
        );
        assert!(said(&found).contains(says), "{definition}: {}", said(&found));
        assert!(found.hint.is_some(), "{definition}");
    };
    refuses(
        "create table docs (id bigint primary key, title text)",
        "42804",
        "no column \\\"price\\\" numeric(10,2)",
    );
    refuses(
        "create table docs (id integer primary key, title text, price numeric(10,2))",
        "42804",
        "\\\"id\\\" is integer, the query gives bigint",
    );
    // Such a column would silently round.
    refuses(
        "create table docs (id bigint primary key, title text, price numeric(10,1))",
        "42804",
        "is numeric(10,1), the query gives",
    );
    refuses(
        "create table docs (id bigint unique, title text, price numeric(10,2))",
        "42804",
        "\\\"id\\\" is nullable",
    );
    refuses(
        "create table docs (id bigint primary key, title text, price numeric(10,2), x text not null)",
        "42804",
        "\\\"x\\\" is not null",
    );
    refuses(
        "create table docs (id bigint primary key, title text generated always as ('x') stored, price numeric(10,2))",
        "42804",
        "\\\"title\\\" is generated",
    );
    refuses(
        "create table docs (id bigint not null, title text not null, price numeric(10,2), primary key (id, title))",
        "42P16",
        "ADD PRIMARY KEY (\\\"id\\\")",
    );
    refuses(
        "create table docs (id bigint not null, title text, price numeric(10,2)); create unique index on docs (id) where id > 0",
        "42P16",
        "no unique index",
    );
    refuses(
        "create table docs (id bigint primary key deferrable, title text, price numeric(10,2))",
        "42P16",
        "deferrable",
    );
    refuses(
        "create view docs as select 1 as id, ''::text as title, 1::numeric(10,2) as price; create table x ()",
        "42809",
        "not a table",
    );
}

#[test]
fn a_table_that_fits_is_taken_as_it_is() {
    let mut remote = RemoteDb::new("adopted");
    remote.sql.run(
        "create table docs (extra text default 'x', price numeric, title text,
                            n integer generated always as identity, id bigint not null);
         create unique index on docs (id) include (title);
         insert into docs (id, title) values (1, 'theirs'), (7, 'stays')",
    );
    let mut docs = remote.open(&docs());
    assert_eq!(docs.prepare(), Ok(Prepared::Found));
    docs.applied(&remote.rows(&docs.schema, "values (1, 'ours', 1.25), (2, 'two', 2)"));
    assert_eq!(
        remote.sql.rows("select row(id, title, price, extra)::text from docs order by id"),
        ["(1,ours,1.25,x)", "(2,two,2.00,x)", "(7,stays,,x)"]
    );
}

#[test]
fn a_partitioned_table_takes_rows() {
    let mut remote = RemoteDb::new("partitioned");
    remote.sql.run(
        "create table docs (price numeric(10,2), title text, id bigint primary key) partition by range (id);
         create table low partition of docs for values from (0) to (10);
         create table high (id bigint not null, price numeric(10,2), title text);
         alter table docs attach partition high for values from (10) to (20)",
    );
    let mut docs = remote.ready(&docs());
    let query = "select n, 'a', n from generate_series(8, 12) n";
    docs.applied(&remote.rows(&docs.schema, query));
    docs.applied(&remote.rows(&docs.schema, &query.replace("'a'", "'b'")));
    docs.applied(&remote.deletions(&docs.schema, "values (9), (11)"));
    let rows = remote.rows(&docs.schema, "values (5, 'c', 1), (99, 'nowhere', 1), (15, 'c', 1)");
    let rejected = docs.apply(&rows).expect("the others arrive");
    assert_eq!(rejected.iter().map(|r| r.change).collect::<Vec<_>>(), [1]);
    assert_eq!(
        remote.sql.rows("select id || title from docs order by id"),
        ["5c", "8b", "10b", "12b", "15c"]
    );
}

#[test]
fn keys_of_several_columns_and_of_other_operators() {
    let mut remote = RemoteDb::new("keys");
    if has(&mut remote, "citext") {
        remote.sql.run("create schema ext; create extension citext schema ext");
        let words = schema("words", &[("n", "integer"), ("word", "public.citext")], &["word"]);
        let mut words = remote.ready(&words);
        words.applied(&remote.rows(&words.schema, "values (1, 'One'::ext.citext), (2, 'two')"));
        words.applied(&remote.rows(&words.schema, "values (3, 'ONE'::ext.citext)"));
        words.applied(&remote.deletions(&words.schema, "values ('TWO'::ext.citext)"));
        assert_eq!(remote.sql.rows("select words::text from words"), ["(3,ONE)"]);
        // Two keys here that are one key on the server can only be fixed in the declaration.
        let twice = remote.rows(&words.schema, "values (4, 'x'::ext.citext), (5, 'X')");
        let found = delivery_error(words.apply(&twice));
        assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Target, "21000"));
    }
    let parts = schema("parts", &[("v", "text"), ("b", "text"), ("a", "integer[]")], &["a", "b"]);
    remote
        .sql
        .run("create table parts (v text, b text collate \"C\", a integer[], primary key (b, a))");
    let mut parts = remote.ready(&parts);
    parts
        .applied(&remote.rows(&parts.schema, "values ('x', 'b', '{1}'::int[]), ('y', 'b', '{2}')"));
    parts.applied(&remote.rows(&parts.schema, "values ('z', 'b', '{1}'::int[])"));
    parts.applied(&remote.deletions(&parts.schema, "values ('{2}'::int[], 'b')"));
    assert_eq!(remote.sql.rows("select parts::text from parts"), ["(z,b,{1})"]);
    let all_key = schema("tags", &[("a", "integer"), ("b", "text")], &["a", "b"]);
    let mut tags = remote.ready(&all_key);
    for _ in 0..2 {
        tags.applied(&remote.rows(&all_key, "values (1, 'x'), (1, 'y')"));
    }
    assert_eq!(remote.sql.number("select count(*) from tags"), 2);
}

fn refused_places(docs: &mut DrivenTarget, changes: &[Change]) -> Vec<(usize, String)> {
    let rejected = docs.apply(changes).unwrap_or_else(|t| panic!("{t:?}"));
    rejected.into_iter().map(|r| (r.change, r.sqlstate)).collect()
}

#[test]
fn rows_that_are_refused_keep_no_other_from_arriving() {
    let mut remote = RemoteDb::new("refused");
    remote.sql.run(
        "create table docs (id bigint primary key, title text unique, price numeric(10,2) check (price < 1000));
         create table notes (doc bigint references docs deferrable initially deferred);
         create function picky() returns trigger language plpgsql as $$
           begin
             if new.title = 'raise' then raise exception 'not this one'; end if;
             return new;
           end $$;
         create trigger picky before insert or update on docs for each row execute function picky()",
    );
    let mut docs = remote.ready(&docs());
    let some = "select n, case n when 20 then 'raise' when 30 then repeat(md5('x') || md5('y'), 900) else 't' || n end,
                       case n when 10 then 1000 else n end
                  from generate_series(0, 99) n";
    let long = some.replace(
        "repeat(md5('x') || md5('y'), 900)",
        "(select string_agg(md5(i::text), '') from generate_series(1, 900) i)",
    );
    let rows = remote.rows(&docs.schema, &long);
    let expected = [(10, "23514"), (20, "P0001"), (30, "54000")].map(|(n, s)| (n, s.to_owned()));
    // By a direct copy, and then as existing rows.
    assert_eq!(refused_places(&mut docs, &rows), expected);
    assert_eq!(remote.sql.number("select count(*) from docs"), 97);
    assert_eq!(refused_places(&mut docs, &rows), expected);
    assert_eq!(remote.sql.number("select count(*) from docs"), 97);

    // Deletions that a deferred constraint forbids, among others. A value of a unique column other
    // than the key is free again after its row is deleted.
    remote.sql.run("insert into notes values (5), (7)");
    let mut mixed = remote.deletions(&docs.schema, "select n from generate_series(4, 8) n");
    mixed.extend(remote.rows(&docs.schema, "values (200, 't4', 1), (201, 't5', 1)"));
    let expected = [(1, "23503"), (3, "23503"), (6, "23505")].map(|(n, s)| (n, s.to_owned()));
    assert_eq!(refused_places(&mut docs, &mixed), expected);
    let left =
        remote.sql.rows("select id from docs where id between 4 and 8 or id >= 200 order by id");
    assert_eq!(left, ["5", "7", "200"]);
    assert_eq!(refused_places(&mut docs, &mixed), expected);

    // All changes.
    let rows = remote.rows(&docs.schema, "select n, 'raise', 1 from generate_series(300, 364) n");
    let rejected = docs.apply(&rows).expect("no trouble");
    assert_eq!(rejected.iter().map(|r| r.change).collect::<Vec<_>>(), (0..65).collect::<Vec<_>>());
    assert!(rejected.iter().all(|r| r.message == "not this one"));
    docs.applied(&remote.rows(&docs.schema, "values (300, 'fine', 1)"));
}

#[test]
fn rows_swap_a_value_that_is_unique_beside_the_key() {
    let mut remote = RemoteDb::new("swaps");
    remote.sql.run(
        "create table docs (id bigint primary key, title text unique, price numeric(10,2) check (price < 1000));
         create table children (doc bigint references docs on delete cascade)",
    );
    let mut docs = remote.ready(&docs());
    docs.applied(&remote.rows(&docs.schema, "select n, 't' || n, 1 from generate_series(0, 99) n"));
    remote.sql.run("insert into children values (50)");
    let swap =
        "select n, case n when 1 then 't2' when 2 then 't3' when 3 then 't1' else 't' || n end, 2
                  from generate_series(0, 99) n";
    docs.applied(&remote.rows(&docs.schema, swap));
    let title = "select string_agg(title, ' ' order by id) from docs where id between 1 and 3";
    assert_eq!(remote.sql.rows(title), ["t2 t3 t1"]);
    // A row that does not change the value is updated.
    assert_eq!(remote.sql.number("select count(*) from children"), 1);
    docs.applied(
        &remote.rows(&docs.schema, "select n, 't' || n + 1, 2 from generate_series(1, 99) n"),
    );
    assert_eq!(remote.sql.rows(title), ["t2 t3 t4"]);

    // Together with rejected rows: for a value, for a value of an unrelated row, and for values
    // that rejected rows keep.
    let rows = "values (1, 't4', 1), (3, 't2', 1), (5, 't7', 1000), (10, 't6', 1), (20, 't0', 1), (30, 't21', 1), (40, 't31', 1)";
    let expected = [(2, "23514"), (3, "23505"), (4, "23505"), (5, "23505"), (6, "23505")];
    let expected = expected.map(|(n, s)| (n, s.to_owned()));
    let rows = remote.rows(&docs.schema, rows);
    assert_eq!(refused_places(&mut docs, &rows), expected);
    assert_eq!(remote.sql.rows(title), ["t4 t3 t2"]);
    assert_eq!(remote.sql.number("select count(*) from docs"), 100);
}

#[test]
fn rows_out_of_form_are_refused_alone() {
    let mut remote = RemoteDb::new("malformed");
    let mut docs = remote.ready(&docs());
    let mut rows = remote.rows(&docs.schema, "select n, 'x', 1 from generate_series(0, 4) n");
    let Some(Values::Binary(bytes)) = rows[1].row.as_mut() else { panic!("no bytes") };
    bytes.truncate(9);
    rows[3].row = Some(Values::Json("{}".to_owned()));
    let expected = [(1, "22P03"), (3, "22P03")].map(|(n, s)| (n, s.to_owned()));
    assert_eq!(refused_places(&mut docs, &rows), expected);
    // In the right form, but not a value of its type.
    let mut rows = remote.rows(&docs.schema, "select n, 'xx', 1 from generate_series(0, 4) n");
    let Some(Values::Binary(bytes)) = rows[2].row.as_mut() else { panic!("no bytes") };
    bytes[16] = 0xff;
    assert_eq!(refused_places(&mut docs, &rows), [(2, "22021".to_owned())]);
    assert_eq!(
        remote.sql.rows("select id || title from docs order by id"),
        ["0xx", "1xx", "2x", "3xx", "4xx"]
    );
}

#[test]
fn whole_batches_of_all_kinds() {
    let mut remote = RemoteDb::new("large");
    let mut docs = remote.ready(&docs());
    let most = connector().batch.changes as i64;
    for n in 0..3 {
        let (from, to) = (n * most, (n + 1) * most - 1);
        let query =
            format!("select n, repeat('x', 200), n % 100 from generate_series({from}, {to}) n");
        docs.applied(&remote.rows(&docs.schema, &query));
    }
    assert_eq!(remote.sql.number("select count(*) from docs"), 3 * most);
    // Some rows are new, some changed, some unchanged, some deleted, one rejected.
    remote.sql.run("alter table docs add check (price <> 666)");
    let query = format!(
        "select n, case when n % 2 = 0 then 'y' else repeat('x', 200) end,
                case n when {most} + 17 then 666 else n % 100 end
           from generate_series({most} * 5 / 2, {most} * 7 / 2 - 1001) n
         union all select {most} + 17, 'y', 666"
    );
    let mut rows = remote.rows(&docs.schema, &query);
    rows.extend(remote.deletions(&docs.schema, "select n from generate_series(0, 998) n"));
    assert_eq!(rows.len(), most as usize);
    let expected = vec![(most as usize - 1000, "23514".to_owned())];
    assert_eq!(refused_places(&mut docs, &rows), expected);
    assert_eq!(remote.sql.number("select count(*) from docs"), most * 7 / 2 - 1000 - 999);
    assert_eq!(remote.sql.number("select count(*) from docs where title = 'y'"), (most - 1000) / 2);
    assert_eq!(refused_places(&mut docs, &rows), expected);
}

#[test]
fn new_rows_are_copied_also_after_others() {
    let mut remote = RemoteDb::new("new_again");
    // A direct copy follows only the lock in its transaction; rows through the temporary table
    // follow other commands. A statement trigger distinguishes them.
    remote.sql.run(
        "create table docs (id bigint primary key, title text, price numeric(10,2));
         create table how (query text);
         create function note() returns trigger language plpgsql as $$
           begin insert into public.how values (left(current_query(), 4)); return null; end $$;
         create trigger note before insert on docs execute function note()",
    );
    let mut docs = remote.ready(&docs());
    let mut write = |from: i64, to: i64| {
        let query = format!("select n, 'x', 1 from generate_series({from}, {to}) n");
        docs.applied(&remote.rows(&docs.schema, &query));
        let how = remote.sql.rows("select query from how");
        remote.sql.run("truncate how");
        how
    };
    // The first batch into an empty table, then new rows, then some existing ones, then new rows,
    // of which the first batch shows that they are new.
    assert_eq!(write(1, 10), ["copy"]);
    assert_eq!(write(11, 20), ["copy"]);
    assert_eq!(write(15, 25), ["with"]);
    assert_eq!(write(30, 35), ["with"]);
    assert_eq!(write(40, 45), ["copy"]);
    assert_eq!(remote.sql.number("select count(*) from docs"), 37);
}

#[test]
fn row_level_security_is_obeyed() {
    let mut remote = RemoteDb::new("security");
    remote.sql.run(
        "create role guarded login;
         create table docs (id bigint primary key, title text, price numeric(10,2));
         alter table docs enable row level security;
         create policy mine on docs to guarded using (id < 100) with check (id < 100);
         grant all on docs to guarded",
    );
    let mut access = remote.access();
    access.user.0.insert("user".to_owned(), "guarded".to_owned());
    let mut docs = remote.open_with(access, &docs()).expect("it opens");
    docs.prepare().unwrap_or_else(|t| panic!("{t:?}"));
    docs.applied(&remote.rows(&docs.schema, "values (1, 'x', 1)"));
    docs.applied(&remote.rows(&docs.schema, "values (1, 'y', 1), (2, 'z', 2)"));
    assert_eq!(remote.sql.rows("select title from docs order by id"), ["y", "z"]);
    let outside = delivery_error(docs.apply(&remote.rows(&docs.schema, "values (100, 'x', 1)")));
    assert_eq!((outside.scope, outside.sqlstate.as_str()), (ErrorScope::Target, "42501"));
    drop(docs);
    remote.sql.run("drop owned by guarded; drop role guarded");
}

#[test]
fn rights_that_are_missing_are_named() {
    let mut remote = RemoteDb::new("rights_there");
    remote.sql.run(
        "create role \"Poor one\" login;
         revoke all on schema public from public;
         revoke temporary on database rights_there from public",
    );
    let mut access = remote.access();
    access.user.0.insert("user".to_owned(), "Poor one".to_owned());
    let prepare = || remote.open_with(access.clone(), &docs()).and_then(|mut docs| docs.prepare());
    let mut sql = remote.server.connect(&remote.name);
    let mut lacks = |grant: &str, scope: ErrorScope, sqlstate: &str, says: &str| {
        sql.run(grant);
        let found = delivery_error(prepare());
        assert_eq!((found.scope, found.sqlstate.as_str()), (scope, sqlstate), "{found:?}");
        assert!(said(&found).contains(says), "{found:?}");
    };
    lacks("select", ErrorScope::Target, "3F000", "no schema");
    lacks("grant usage on schema public to \"Poor one\"", ErrorScope::Target, "42501", "GRANT");
    lacks(
        "create table docs (id bigint primary key, title text, price numeric(10,2))",
        ErrorScope::Target,
        "42501",
        "GRANT SELECT, INSERT, UPDATE, DELETE",
    );
    lacks(
        "grant all on docs to \"Poor one\"",
        ErrorScope::Server,
        "42501",
        "GRANT TEMPORARY ON DATABASE rights_there TO \\\"Poor one\\\"",
    );
    sql.run("grant temporary on database rights_there to \"Poor one\"");
    assert_eq!(prepare(), Ok(Prepared::Found));
    sql.run("drop owned by \"Poor one\"; drop role \"Poor one\"");
}

const SECRET: &str = "s3cret pass/word'@";

/// A server that requires a password from all roles except `postgres` and `open_door`.
fn asking(settings: &[&str]) -> (Arc<Server>, RemoteDb) {
    let server = Arc::new(Server::start(settings));
    let rules =
        "local all postgres trust\nlocal all open_door trust\nlocal all all scram-sha-256\n";
    fs::write(server.directory().join("data/pg_hba.conf"), rules).expect("pg_hba.conf is written");
    server.reload(&[]);
    let mut remote = RemoteDb::on(server.clone(), "asking");
    remote.sql.run(&format!(
        "create role ada login password '{}'; create role open_door login;
         grant all on schema public to ada, open_door",
        SECRET.replace('\'', "''")
    ));
    (server, remote)
}

fn as_user(
    remote: &RemoteDb,
    user: &[(&str, &str)],
    trusted: bool,
) -> Result<DrivenTarget, DeliveryError> {
    let server = remote.access().server;
    let Access { user, .. } = access(&[], user, trusted);
    remote.open_with(Access { server, user, trusted }, &docs())
}

#[test]
fn who_is_no_superuser_must_prove_who_they_are() {
    let (_server, remote) = asking(&[]);
    let prepared = |user: &[(&str, &str)], trusted| as_user(&remote, user, trusted)?.prepare();
    // Authenticated by the password.
    let ada = [("user", "ada"), ("password", SECRET)];
    assert_eq!(prepared(&ada, false), Ok(Prepared::Made));
    assert_eq!(prepared(&ada, true), Ok(Prepared::Found));
    // Without a password, there is no attempt; with one that the server does not ask for, the login
    // is rejected.
    let without = delivery_error(as_user(&remote, &[("user", "open_door")], false));
    assert_eq!((without.scope, without.sqlstate.as_str()), (ErrorScope::Server, "2F003"));
    for user in ["open_door", "postgres"] {
        let unasked = delivery_error(prepared(&[("user", user), ("password", SECRET)], false));
        assert_eq!((unasked.scope, unasked.sqlstate.as_str()), (ErrorScope::Server, "2F003"));
        assert!(unasked.hint.as_ref().is_some_and(|h| h.contains("password_required")));
        assert!(!said(&unasked).contains(SECRET));
    }
    // Except for roles that a superuser has exempted, and superusers.
    assert_eq!(
        prepared(&[("user", "postgres"), ("password_required", "false")], false),
        Ok(Prepared::Found)
    );
    assert_eq!(prepared(&[("user", "postgres")], true), Ok(Prepared::Found));
    let required = connector().options.iter().find(|s| s.name == "password_required");
    assert!(required.is_some_and(|s| s.superuser && (s.check)("maybe").is_err()));
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let (server, mut remote) = asking(&[]);
    let prepared = |user: &[(&str, &str)]| as_user(&remote, user, true)?.prepare();
    for (user, sqlstate) in [
        (&[("user", "ada"), ("password", "wr0ng secret")][..], "28P01"),
        (&[("user", "nobody there"), ("password", "wr0ng secret")], "28P01"),
        (&[("user", "ada")], "28000"),
    ] {
        let found = delivery_error(prepared(user));
        assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Server, sqlstate));
        assert!(found.hint.is_some() && !said(&found).contains("wr0ng"), "{found:?}");
        let untrusted = delivery_error(as_user(&remote, user, false).and_then(|mut t| t.prepare()));
        assert!(!said(&untrusted).contains("wr0ng"), "{untrusted:?}");
    }
    let mut elsewhere = remote.access();
    elsewhere.server.0.insert("dbname".to_owned(), "no such database".to_owned());
    let found = delivery_error(remote.open_with(elsewhere, &docs()).and_then(|mut t| t.prepare()));
    assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Server, "3D000"));
    let full = as_user(&remote, &[("user", "ada"), ("password", SECRET)], true);
    remote.sql.run("alter role ada connection limit 0");
    let full = delivery_error(full.and_then(|mut t| t.prepare()));
    assert_eq!((full.scope, full.sqlstate.as_str()), (ErrorScope::Server, "53300"));
    // The password is not in the server's log either, as far as coco can influence it.
    assert!(!server.log().contains(SECRET) || server.log().matches(SECRET).count() == 0);
}

fn over(remote: &RemoteDb, address: std::net::SocketAddr, more: &[(&str, &str)]) -> Access {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut all = vec![("host", host.as_str()), ("port", &port), ("dbname", &remote.name)];
    all.extend(more);
    access(&all, &[("user", "postgres"), ("password", SECRET)], true)
}

#[test]
fn who_cannot_be_reached_is_the_servers_trouble() {
    let remote = RemoteDb::new("unreached");
    let prepared = |access: Access| remote.open_with(access, &docs()).and_then(|mut t| t.prepare());
    // A port that was just free, a host that does not exist, and a server that sends nothing.
    let free = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("it");
    let silent = proxy::silent(&remote);
    let unknown =
        access(&[("host", "no-such-host.invalid")], &[("user", "x"), ("password", SECRET)], true);
    let no_socket =
        access(&[("host", "/nowhere at all")], &[("user", "x"), ("password", SECRET)], true);
    for access in [
        over(&remote, free, &[]),
        over(&remote, silent, &[("connect_timeout", "1")]),
        unknown,
        no_socket,
    ] {
        let found = delivery_error(prepared(access));
        assert_eq!(
            (found.scope, found.sqlstate.as_str()),
            (ErrorScope::Server, "08001"),
            "{found:?}"
        );
        assert!(found.hint.is_some() && !said(&found).contains(SECRET), "{found:?}");
    }
}

#[test]
fn a_server_that_goes_and_comes_back() {
    let server = Arc::new(Server::start(&[]));
    let remote = RemoteDb::on(server.clone(), "comes_back");
    let mut docs = remote.ready(&docs());
    let one = remote.rows(&docs.schema, "values (1, 'one', 1)");
    let two = remote.rows(&docs.schema, "values (1, 'eins', 1), (2, 'two', 2)");
    docs.applied(&one);
    server.stop(Stop::Immediate);
    let lost = delivery_error(docs.apply(&two));
    assert_eq!(lost.scope, ErrorScope::Server);
    assert!(["08006", "57P01", "57P02"].contains(&lost.sqlstate.as_str()), "{lost:?}");
    let gone = delivery_error(remote.open(&docs.schema).prepare());
    assert_eq!((gone.scope, gone.sqlstate.as_str()), (ErrorScope::Server, "08001"));
    server.start_again();
    let mut docs = remote.ready(&docs.schema);
    docs.applied(&two);
    assert_eq!(server.connect("comes_back").rows(ALL_DOCS), ["(1,eins,1.00)", "(2,two,2.00)"]);
}

#[test]
fn a_standby_takes_nothing() {
    let server = Arc::new(Server::start(&["max_wal_senders = 4", "wal_level = replica"]));
    let mut remote = RemoteDb::on(server.clone(), "standby_there");
    remote.sql.run("create table docs (id bigint primary key, title text, price numeric(10,2))");
    let standby = server.standby();
    let mut access = remote.access();
    access.server.0.insert("host".to_owned(), standby.directory().display().to_string());
    let mut docs = remote.open_with(access, &docs()).expect("it opens");
    docs.prepare().unwrap_or_else(|t| panic!("{t:?}"));
    let found = delivery_error(docs.apply(&remote.rows(&docs.schema, "values (1, 'x', 1)")));
    assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Server, "25006"), "{found:?}");
    assert!(found.hint.is_some_and(|h| h.contains("primary")));
}

#[test]
fn a_slow_server_is_waited_for_and_a_silent_one_not_for_ever() {
    let mut remote = RemoteDb::new("slow");
    let delay = Arc::new(AtomicU64::new(150));
    let address = proxy::slow(&remote, delay.clone());
    let access = over(&remote, address, &[("statement_timeout", "1"), ("connect_timeout", "30")]);
    let mut docs = remote.open_with(access.clone(), &docs()).expect("it opens");
    docs.prepare().unwrap_or_else(|t| panic!("{t:?}"));
    let rows = remote.rows(&docs.schema, "values (1, 'one', 1)");
    docs.applied(&rows);
    docs.applied(&rows);
    delay.store(3_600_000, Ordering::Relaxed);
    let newer = remote.rows(&docs.schema, "values (1, 'newer', 1)");
    let found = delivery_error(docs.apply(&newer));
    assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Server, "08006"), "{found:?}");
    assert!(found.hint.is_some_and(|h| h.contains("statement_timeout")));
    drop(docs);
    // Another session succeeds when the first has released its lock.
    remote.ready(&self::docs()).applied(&newer);
    assert_eq!(remote.sql.rows(ALL_DOCS), ["(1,newer,1.00)"]);
}

#[test]
fn a_lock_is_waited_for_until_the_statements_time_is_over() {
    let mut remote = RemoteDb::new("locked");
    let mut access = remote.access();
    access.server.0.insert("statement_timeout".to_owned(), "1".to_owned());
    let mut docs = remote.open_with(access.clone(), &docs()).expect("it opens");
    docs.prepare().unwrap_or_else(|t| panic!("{t:?}"));
    let rows = remote.rows(&docs.schema, "values (1, 'one', 1)");
    remote.sql.run("begin; lock table docs in exclusive mode");
    let found = delivery_error(docs.apply(&rows));
    assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Target, "57014"), "{found:?}");
    assert!(found.hint.is_some_and(|h| h.contains("pg_locks")));
    // Released in time.
    let mut docs = remote.open(&docs.schema);
    std::thread::scope(|scope| {
        remote.sql.run("commit");
        docs.prepare().unwrap_or_else(|t| panic!("{t:?}"));
        remote.sql.run("begin; lock table docs in exclusive mode");
        let applied = scope.spawn(|| docs.applied(&rows));
        let mut watch = remote.server.connect(&remote.name);
        watch.until("select exists (select from pg_locks where not granted and relation = 'docs'::regclass)");
        remote.sql.run("commit");
        applied.join().expect("it arrives");
    });
    assert_eq!(remote.sql.number("select count(*) from docs"), 1);
}

#[test]
fn a_batch_that_is_cut_off_in_the_middle_is_applied_again() {
    let mut remote = RemoteDb::new("cut_off");
    let mut docs = remote.ready(&docs());
    docs.applied(&remote.rows(&docs.schema, "values (1, 'old', 1), (2, 'old', 1)"));
    // The third row ends the session, after this many other rows.
    remote.sql.run(
        "create function cut() returns trigger language plpgsql as $$
           begin
             if new.id = 3 then perform pg_terminate_backend(pg_backend_pid()); end if;
             return new;
           end $$;
         create trigger cut before insert on docs for each row execute function cut()",
    );
    let mut all = remote.rows(&docs.schema, "select n, 'new', n from generate_series(2, 50) n");
    all.extend(remote.deletions(&docs.schema, "values (1)"));
    let fresh = remote.rows(&docs.schema, "select n, 'new', n from generate_series(3, 50) n");
    for changes in [&all, &fresh] {
        let mut docs = remote.ready(&docs.schema);
        let cut = delivery_error(docs.apply(changes));
        assert_eq!((cut.scope, cut.sqlstate.as_str()), (ErrorScope::Server, "57P01"), "{cut:?}");
        assert_eq!(remote.sql.rows(ALL_DOCS), ["(1,old,1.00)", "(2,old,1.00)"]);
    }
    remote.sql.run("drop trigger cut on docs");
    let mut docs = remote.ready(&docs.schema);
    docs.applied(&all);
    assert_eq!(remote.sql.number("select count(*) from docs where title = 'new'"), 49);
    assert_eq!(remote.sql.number("select count(*) from docs"), 49);
}

#[test]
fn what_others_are_in_the_way_of_is_tried_again() {
    let mut remote = RemoteDb::new("contended");
    // A sequence also counts rolled-back rows.
    remote.sql.run(
        "create table docs (id bigint primary key, title text, price numeric(10,2));
         create sequence attempt;
         create function contend() returns trigger language plpgsql as $$
           begin
             if nextval('public.attempt') <= new.price then
               raise exception 'in the way' using errcode = 'serialization_failure';
             end if;
             return null;
           end $$;
         create trigger contend after insert on docs for each row execute function contend()",
    );
    let mut docs = remote.ready(&docs());
    docs.applied(&remote.rows(&docs.schema, "values (1, 'x', 2)"));
    assert_eq!(remote.sql.number("select last_value from attempt"), 3);
    let found = delivery_error(docs.apply(&remote.rows(&docs.schema, "values (2, 'x', 99)")));
    assert_eq!((found.scope, found.sqlstate.as_str()), (ErrorScope::Target, "40001"));
    assert_eq!(remote.sql.rows("select id from docs"), ["1"]);
}

#[test]
fn a_table_that_changes_meanwhile_is_looked_at_again() {
    let mut remote = RemoteDb::new("changes");
    let times = schema("times", &[("id", "bigint"), ("at", "bigint")], &["id"]);
    let mut target = remote.ready(&times);
    target.applied(&remote.rows(&times, "values (1, 1)"));
    // A type as long as bigint: a copy would accept one for the other.
    remote.sql.run("alter table times alter at type timestamptz using to_timestamp(at)");
    let rows = remote.rows(&times, "values (2, 2)");
    let altered = delivery_error(target.apply(&rows));
    assert_eq!((altered.scope, altered.sqlstate.as_str()), (ErrorScope::Target, "55000"));
    assert_eq!(delivery_error(remote.open(&times).prepare()).sqlstate, "42804");

    remote.sql.run("drop table times");
    let mut target = remote.ready(&times);
    target.applied(&rows);
    remote.sql.run("drop table times");
    let dropped = delivery_error(target.apply(&rows));
    assert_eq!((dropped.scope, dropped.sqlstate.as_str()), (ErrorScope::Target, "42P01"));
    let mut target = remote.open(&times);
    assert_eq!(target.prepare(), Ok(Prepared::Made));
    target.applied(&rows);
    remote.sql.run("alter table times rename to old; create table times (like old including all)");
    assert_eq!(delivery_error(target.apply(&rows)).sqlstate, "55000");
    assert_eq!(remote.sql.number("select count(*) from times"), 0);
}

#[test]
fn what_others_need_is_not_removed() {
    let mut remote = RemoteDb::new("needed");
    let mut docs = remote.ready(&docs());
    remote.sql.run("create view titles as select title from docs");
    let needed = delivery_error(docs.remove());
    assert_eq!((needed.scope, needed.sqlstate.as_str()), (ErrorScope::Target, "2BP01"));
    assert!(needed.detail.is_some_and(|d| d.contains("titles")));
    remote.sql.run("drop view titles");
    // By a session without `prepare`, and without the schema.
    remote.open(&docs.schema).remove().expect("it goes");
    remote.open(&schema("nowhere.docs", &DOCS, &["id"])).remove().expect("nothing there");
    assert!(remote.sql.holds("select to_regclass('docs') is null"));
}

#[test]
fn a_session_says_who_it_is_and_leaves_durability_alone() {
    let mut remote = RemoteDb::new("sessions");
    remote.sql.run(
        "alter database sessions set synchronous_commit = remote_write;
         alter database sessions set default_transaction_read_only = on;
         alter database sessions set standard_conforming_strings = off;
         set default_transaction_read_only = off;
         create table docs (id bigint primary key, title text, price numeric(10,2));
         create function note() returns trigger language plpgsql as $$
           begin
             new.title = concat_ws('|', current_setting('application_name'), current_setting('search_path'),
               current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'),
               current_setting('synchronous_commit'));
             return new;
           end $$;
         create trigger note before insert on docs for each row execute function note()",
    );
    let mut docs = remote.ready(&docs());
    docs.applied(&remote.rows(&docs.schema, "values (1, 'x', 1)"));
    assert_eq!(
        remote.sql.rows("select title from docs"),
        ["coco|pg_catalog, pg_temp|20s|20s|remote_write"]
    );
    // Dropping a target closes its session.
    let sessions = "select count(*) from pg_stat_activity where application_name = 'coco' and datname = 'sessions'";
    assert_eq!(remote.sql.number(sessions), 1);
    drop(docs);
    remote.sql.until(&format!("select ({sessions}) = 0"));
}

#[test]
fn tls_is_as_sslmode_says() {
    let remote = RemoteDb::new("tls");
    let authority = proxy::Authority::new();
    let (pem, other) = (authority.pem(), proxy::Authority::new().pem());
    let here = proxy::tls(&remote, &authority, "127.0.0.1");
    let elsewhere = proxy::tls(&remote, &authority, "db.example.com");
    let plain = proxy::slow(&remote, Arc::new(AtomicU64::new(0)));
    let prepared = |address, options: &[(&str, &str)]| {
        remote
            .open_with(over(&remote, address, options), &docs())
            .and_then(|mut t| t.prepare())
            .map(|_| ())
    };
    let pem = pem.as_str();
    for (address, options) in [
        (here, &[("sslmode", "prefer")][..]),
        (here, &[("sslmode", "require")]),
        (here, &[("sslmode", "require"), ("sslrootcert", pem)]),
        (here, &[("sslmode", "verify-ca"), ("sslrootcert", pem)]),
        (here, &[("sslmode", "verify-full"), ("sslrootcert", pem)]),
        (elsewhere, &[("sslmode", "verify-ca"), ("sslrootcert", pem)]),
        (plain, &[("sslmode", "prefer")]),
        (plain, &[("sslmode", "disable")]),
    ] {
        assert_eq!(prepared(address, options), Ok(()), "{options:?}");
    }
    for (address, options, says) in [
        (elsewhere, &[("sslmode", "verify-full"), ("sslrootcert", pem)][..], "not valid for name"),
        (here, &[("sslmode", "verify-full"), ("sslrootcert", &other)], "certificate"),
        (here, &[("sslmode", "verify-ca"), ("sslrootcert", &other)], "certificate"),
        (here, &[("sslmode", "require"), ("sslrootcert", &other)], "certificate"),
        // Without sslrootcert, only the system's certificates are trusted.
        (here, &[("sslmode", "verify-full")], "certificate"),
        (plain, &[("sslmode", "require")], "does not support TLS"),
        (plain, &[("sslmode", "verify-full"), ("sslrootcert", pem)], "does not support TLS"),
    ] {
        let found = delivery_error(prepared(address, options));
        assert_eq!(
            (found.scope, found.sqlstate.as_str()),
            (ErrorScope::Server, "08001"),
            "{found:?}"
        );
        assert!(said(&found).contains(says) && !said(&found).contains(SECRET), "{found:?}");
    }
    let useless = delivery_error(prepared(here, &[("sslmode", "prefer"), ("sslrootcert", pem)]));
    assert_eq!(useless.sqlstate, "HV024");
}

#[test]
fn options_show_no_secrets() {
    let secret: Vec<&str> =
        connector().options.iter().filter(|s| s.secret).map(|s| s.name).collect();
    assert_eq!(secret, ["password"]);
    let access = access(&[("host", "db")], &[("user", "ada"), ("password", SECRET)], false);
    assert!(!format!("{access:?}").contains(SECRET));
    for spec in connector().options {
        assert!(spec.description.ends_with('.'), "{}", spec.name);
        // The text of a check contains no value.
        if let Err(said) = (spec.check)("x\0@SECRET") {
            assert!(!said.contains("SECRET"), "{}", spec.name);
        }
    }
}

#[test]
fn changes_come_only_after_it_is_prepared() {
    let remote = RemoteDb::new("unprepared");
    let early = delivery_error(remote.open(&docs()).apply(&[]));
    assert_eq!((early.scope, early.sqlstate.as_str()), (ErrorScope::Target, "55000"));
    assert!(comes(std::time::Duration::ZERO, || true));
}
