//! The types of columns, and names.

use super::remote_db::{RemoteDb, connector, schema};
use super::{delivery_error, has};
use coco_connectors::targets::Prepared;
use coco_core::change::ErrorScope;

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
