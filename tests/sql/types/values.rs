//! Types with values that are easily mistaken for another, lost, or refused.

pub struct Type {
    pub name: &'static str,
    pub sql: &'static str,
    /// As SQL writes them, before a cast to the type. Those after the first `distinct` equal none before them.
    pub values: &'static [&'static str],
    /// Whether values can be a key: there is a default order for them.
    pub key: bool,
    /// Whether a source's key may be refused: the type is a composite, or a range of a user's.
    pub may_be_refused: bool,
}

const fn t(
    name: &'static str,
    sql: &'static str,
    key: bool,
    values: &'static [&'static str],
) -> Type {
    Type { name, sql, values, key, may_be_refused: false }
}

const fn made(name: &'static str, sql: &'static str, values: &'static [&'static str]) -> Type {
    Type { name, sql, values, key: true, may_be_refused: true }
}

pub const MAKE: &str = "create type pair as (a int, b text, c numeric);
  create type mood as enum ('', 'a', 'B', 'q''uo\"te');
  create domain code as varchar(20) check (value <> 'zzz');
  create type floats as range (subtype = float8);
  create extension if not exists citext; create extension if not exists hstore; create extension if not exists ltree;";

pub const TYPES: [Type; 48] = [
    t("bool", "bool", true, &["'t'", "'f'"]),
    t("int2", "int2", true, &["0", "-32768", "32767", "1"]),
    t("int4", "int4", true, &["0", "-2147483648", "2147483647", "1"]),
    t("int8", "int8", true, &["0", "'-9223372036854775808'", "9223372036854775807", "1"]),
    t(
        "numeric",
        "numeric",
        true,
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "0",
            "1.0",
            "1.00",
            "1e100",
            "-1e-50",
            "12345678901234567890.123456789",
        ],
    ),
    t("numeric_typmod", "numeric(8, 2)", true, &["'NaN'", "0", "1.005", "-999999.99"]),
    t("float4", "float4", true, &["'NaN'", "'-0'", "0", "'Infinity'", "1e-45", "0.1", "16777217"]),
    t(
        "float8",
        "float8",
        true,
        &["'NaN'", "'-0'", "0", "'-Infinity'", "5e-324", "0.1", "1e308", "9007199254740993"],
    ),
    t(
        "text",
        "text",
        true,
        &[
            "''",
            "' '",
            "'a''b\"c\\d'",
            "E'\\t\\n\\r\\x01\\x7f'",
            "'NULL'",
            "'{a,b}'",
            "'(1,2)'",
            "'é\u{301}'",
            "'\u{1f600}'",
            "repeat('x', 8000)",
        ],
    ),
    t(
        "text_c",
        "text collate \"C\"",
        true,
        &["''", "'a'", "'B'", "'É'", "'$1'", "'%s %I'", "'--'"],
    ),
    t("varchar", "varchar(12)", true, &["''", "' a '", "'a\"b'", "'\\'"]),
    t("bpchar", "char(5)", true, &["''", "'a'", "'ab   '", "'''\"\\'"]),
    t("char", "\"char\"", true, &["''", "'a'", "'\\200'", "'\\'"]),
    t("name", "name", true, &["''", "'a b'", "'\"'", "'pg_class'"]),
    t(
        "bytea",
        "bytea",
        true,
        &["''", "'\\x00'", "'\\x5c00ff'", "decode(repeat('00', 3000), 'hex')"],
    ),
    t(
        "date",
        "date",
        true,
        &["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'2000-02-29'"],
    ),
    t("time", "time", true, &["'00:00'", "'24:00'", "'23:59:59.999999'"]),
    t("timetz", "timetz", true, &["'00:00+00'", "'00:00+01'", "'24:00-15:59'"]),
    t(
        "timestamp",
        "timestamp",
        true,
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 00:00 BC'",
            "'294276-12-31 23:59:59.999999'",
            "'epoch'",
        ],
    ),
    t(
        "timestamptz",
        "timestamptz",
        true,
        &[
            "'infinity'",
            "'-infinity'",
            "'1883-11-18 12:00+00'",
            "'294276-12-31 23:59:59.999999+00'",
            "'2021-10-31 02:30+02'",
        ],
    ),
    t(
        "interval",
        "interval",
        true,
        &["'1 mon'", "'30 days'", "'720:00'", "'-1 day 25:00'", "'178000000 years'", "'0'"],
    ),
    t(
        "uuid",
        "uuid",
        true,
        &["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    ),
    t("inet", "inet", true, &["'::1'", "'10.0.0.1'", "'10.0.0.1/8'", "'::ffff:1.2.3.4'"]),
    t("cidr", "cidr", true, &["'10.0.0.0/8'", "'::/0'", "'10/9'"]),
    t("macaddr", "macaddr", true, &["'00:00:00:00:00:00'", "'08-00-2b-01-02-03'"]),
    t("bit", "bit(3)", true, &["B'000'", "B'101'"]),
    t("varbit", "bit varying", true, &["B''", "B'0'", "B'000'", "B'1'"]),
    t(
        "json",
        "json",
        false,
        &["'null'", "'{}'", "'{\"a\": 1, \"a\" :2}'", "'  1.0 '", "'\"\\u0041\"'"],
    ),
    t(
        "jsonb",
        "jsonb",
        true,
        &[
            "'null'",
            "'{}'",
            "'1.0'",
            "'1.00'",
            "'\"\"'",
            "'{\"a\": [1.10, null]}'",
            "'\"\\\"\\\\\"'",
        ],
    ),
    t("money", "money", true, &["'0'", "'-92233720368547758.08'", "'1234.5'"]),
    t("oid", "oid", true, &["0", "4294967295", "1"]),
    t("pg_lsn", "pg_lsn", true, &["'0/0'", "'FFFFFFFF/FFFFFFFF'"]),
    t("point", "point", false, &["'(0,0)'", "'(-0,NaN)'", "'(1e300,Infinity)'"]),
    t("tsvector", "tsvector", true, &["''", "'a:1A ''b c'':2'", "'''\\\\'''"]),
    t("tsquery", "tsquery", true, &["''", "'a & !b'", "'''x'':*A'"]),
    t(
        "int4range",
        "int4range",
        true,
        &["'empty'", "'(,)'", "'[1,5)'", "'[-2147483648,2147483646]'"],
    ),
    t("numrange", "numrange", true, &["'empty'", "'[1.0,2]'", "'[1.00,2]'", "'(,NaN]'"]),
    t("tstzrange", "tstzrange", true, &["'empty'", "'[-infinity,infinity]'", "'[2000-01-01,)'"]),
    t("multirange", "nummultirange", true, &["'{}'", "'{[1,2),(3,4]}'", "'{(,)}'"]),
    t(
        "texts",
        "text[]",
        true,
        &[
            "'{}'",
            "'{NULL}'",
            "'{\"\",\" \",\"NULL\",\"a\\\"b\\\\\"}'",
            "'{{a,b},{c,d}}'",
            "'[2:3]={x,y}'",
        ],
    ),
    t(
        "numerics",
        "numeric[]",
        true,
        &["'{}'", "'{NaN,NULL}'", "'{1.0}'", "'{1.00}'", "'{{1},{2}}'"],
    ),
    made("mood", "mood", &["'a'", "'B'", "''", "'q''uo\"te'"]),
    made("moods", "mood[]", &["'{}'", "'{NULL,\"\"}'", "'{a,B}'"]),
    made(
        "pair",
        "pair",
        &[
            "'(1,,)'",
            "'(,,)'",
            "'(1,\"a\"\"b\\\\,\",1.0)'",
            "'(1,\"a\"\"b\\\\,\",1.00)'",
            "'(,\"\",NaN)'",
        ],
    ),
    made("code", "code", &["''", "'a'", "'A '", "'zz'"]),
    made("floats", "floats", &["'empty'", "'[-0,NaN]'", "'(,1e-300]'"]),
    t("citext", "citext", true, &["'Ab'", "'aB'", "''", "'é'"]),
    t("hstore", "hstore", true, &["''", "'a=>1'", "'a=>NULL'", "'\"a\\\"b\"=>\"\"'"]),
];
