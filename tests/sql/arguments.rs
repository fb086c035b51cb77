//! One treatment of arguments that are NULL, swapped or malformed, for every function that everybody may call.

use crate::support;

use postgres::Client;
use support::TestDb;

/// Arguments without a default that may be NULL: a NULL in a query gives a NULL, and `set_query` needs the target only
/// where there are several. `*` stands for every argument.
const MAY_BE_NULL: [(&str, &str); 10] = [
    ("split_file", "*"),
    ("extract_text", "*"),
    ("extract_pages", "*"),
    ("split_text", "*"),
    ("normalize_text", "*"),
    ("http_post", "*"),
    ("embed", "input"),
    ("generate", "prompt"),
    ("set_query", "target"),
    ("memo_call", "*"),
];

/// Arguments with a default that must not be NULL all the same.
const MUST_NOT_BE_NULL: [(&str, &str); 11] = [
    ("expect", "action"),
    ("create_flow", "search_path"),
    ("drop_flow", "keep_targets"),
    ("update", "mode"),
    ("preview", "mode"),
    ("preview", "max_rows"),
    ("diff", "max_rows"),
    ("estimate", "mode"),
    ("estimate", "sample"),
    ("verify", "repair"),
    ("wait", "timeout"),
];

/// Calls that would ask another server.
const LEFT_OUT: [(&str, &str); 2] = [("embed", "dimensions"), ("generate", "json_schema")];

struct Argument {
    function: String,
    name: String,
    kind: String,
    has_default: bool,
}

impl Argument {
    fn is_in(&self, list: &[(&str, &str)]) -> bool {
        list.iter().any(|(f, a)| self.function == *f && (*a == "*" || self.name == *a))
    }

    /// A value that the function accepts, or one that comes near.
    fn value(&self) -> &'static str {
        match (self.name.as_str(), self.kind.as_str()) {
            ("flow", _) => "'f'",
            ("lookup", _) => "'l'",
            ("source", _) if self.is_in(&[("create_flow", "source"), ("plan", "source")]) => "'d'",
            ("query", _) => "'select id, v from d'",
            ("target" | "name", _) if self.function == "lineage" => "'t'",
            ("target", _) => "'another'",
            ("key" | "source_key", "text[]") => "'{id}'",
            ("key" | "source_key", _) => "'{\"id\": 1}'",
            ("scope", _) => "'flow'",
            ("mode", _) => "'normal'",
            (_, "regclass") => "'d'",
            (_, "regprocedure") => "'once(int)'",
            (_, "text[]") => "'{x}'",
            (_, "integer" | "bigint") => "10",
            (_, "boolean") => "false",
            (_, "interval") => "'0'",
            (_, "jsonb") => "'{}'",
            _ => "'x'",
        }
    }
}

/// The named arguments of each function in the schema coco that everybody may call.
fn arguments(client: &mut Client) -> Vec<Argument> {
    let rows = client.query(
        "select p.proname::text, coalesce(p.proargnames[u.ord::int], ''), format_type(u.type, null),
                u.ord > p.pronargs - p.pronargdefaults
           from pg_proc p cross join lateral unnest(p.proargtypes::oid[]) with ordinality as u (type, ord)
          where p.pronamespace = 'coco'::regnamespace and has_function_privilege('public', p.oid, 'execute')
            and u.type not in ('\"any\"'::regtype, 'internal'::regtype)
            and p.oid = (select min(o.oid) from pg_proc o
                          where o.pronamespace = p.pronamespace and o.proname = p.proname)
          order by 1, u.ord",
        &[],
    );
    let rows = rows.unwrap_or_else(|e| panic!("{}", support::explain(&e)));
    rows.iter()
        .map(|r| Argument {
            function: r.get(0),
            name: r.get(1),
            kind: r.get(2),
            has_default: r.get(3),
        })
        .collect()
}

fn declared(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        "create table d (id int primary key, v int); insert into d values (1, 1);
         create table l (id int primary key);
         create function once(i int) returns int language sql immutable as 'select i';
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}');
         select coco.update('f')",
    );
    db
}

/// The SQLSTATE, message, DETAIL and HINT of a statement in a transaction that is rolled back; none if it succeeds.
fn failure(client: &mut Client, sql: &str) -> Option<[String; 4]> {
    let done = client.batch_execute(&format!("begin; {sql}"));
    let failure = done.err().map(|e| {
        let e = e.as_db_error().unwrap_or_else(|| panic!("{sql}: the session ended: {e}"));
        let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
        [e.code().code().to_owned(), e.message().to_owned(), text(e.detail()), text(e.hint())]
    });
    client.batch_execute("rollback").unwrap_or_else(|e| panic!("{sql}: {e}"));
    failure
}

#[test]
fn a_null_is_an_error_where_a_value_is_needed() {
    let mut db = declared("arguments_null");
    let all = arguments(&mut db.client);
    let functions: std::collections::BTreeSet<&str> =
        all.iter().map(|a| a.function.as_str()).collect();
    assert!(functions.len() >= 25, "{functions:?}");
    let mut wrong = Vec::new();
    for tested in &all {
        if tested.is_in(&LEFT_OUT) {
            continue;
        }
        let given: Vec<String> = all
            .iter()
            .filter(|a| a.function == tested.function)
            .filter(|a| !a.has_default || a.name == tested.name)
            .map(|a| {
                let value = if a.name == tested.name { "NULL" } else { a.value() };
                format!("\"{}\" => {value}", a.name)
            })
            .collect();
        let sql = format!("select * from coco.\"{}\"({})", tested.function, given.join(", "));
        let found = failure(&mut db.client, &sql);
        let is_needed = match tested.has_default {
            true => tested.is_in(&MUST_NOT_BE_NULL),
            false => !tested.is_in(&MAY_BE_NULL),
        };
        let message = format!("argument \"{}\" must not be NULL", tested.name);
        match found {
            None if is_needed => wrong.push(format!("{sql} succeeds")),
            Some([code, said, ..]) if is_needed && (code != "22004" || said != message) => {
                wrong.push(format!("{sql}: {code} {said}"));
            }
            Some([code, said, ..]) if code == "XX000" => {
                wrong.push(format!("{sql}: {code} {said}"));
            }
            Some([_, said, detail, _]) if detail.contains("pgrx") => {
                wrong.push(format!("{sql}: {said}: {detail}"));
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    db.verify_clean("f");
}

#[test]
fn what_is_malformed_is_named() {
    let mut db = declared("arguments_malformed");
    // Each call with its SQLSTATE, a part of its message, and a part of its HINT.
    let cases = [
        ("coco.update('normal', 'f')", "22023", "argument \"mode\": \"f\"", "Swap the arguments"),
        ("coco.preview('retry', 'f')", "22023", "argument \"mode\": \"f\"", "Swap the arguments"),
        (
            "coco.update('f', 'fast')",
            "22023",
            "argument \"mode\": \"fast\"",
            "Valid values are normal",
        ),
        ("coco.update('none')", "42704", "flow \"none\" does not exist", "coco.flows"),
        ("coco.preview('f', max_rows => -1)", "22023", "argument \"max_rows\" (-1)", ""),
        ("coco.wait('f', '-1 s')", "22023", "argument \"timeout\" is negative", "Use '0'"),
        ("coco.lineage('t', '[1]')", "22023", "argument \"key\" is not a JSON object", "id"),
        ("coco.lineage('t', '\"f\"')", "22023", "argument \"key\" is not a JSON object", "id"),
        ("coco.lineage('t', 'null')", "22023", "argument \"key\" is not a JSON object", "id"),
        (
            "coco.lineage('t', '{}')",
            "22023",
            "argument \"key\" has no value for key column \"id\"",
            "id",
        ),
        ("coco.lineage('t', '{\"id\": null}')", "22023", "argument \"key\" has no value", "id"),
        ("coco.lineage('t', '{\"x\": 1}')", "42703", "argument \"key\"", "id"),
        (
            "coco.lineage('f', '{\"id\": 1}')",
            "42704",
            "target \"f\" does not exist",
            "coco.targets",
        ),
        ("coco.outputs('f', '{\"x\": 1}')", "42703", "argument \"source_key\"", "id"),
        ("coco.outputs('f', '3')", "22023", "argument \"source_key\" is not a JSON object", "id"),
        ("coco.outputs('f', '{\"id\": 1}', 'x')", "42704", "has no source \"x\"", "coco.sources"),
        (
            "coco.create_flow('g', 'd', 'select id from d', 'u', '{id,NULL}')",
            "22004",
            "argument \"key\" must not contain NULL",
            "",
        ),
        (
            "coco.create_flow('g', 'd', 'select id from d', 'u', '{}')",
            "22023",
            "argument \"key\" is empty",
            "",
        ),
        (
            "coco.create_flow('g', 'd', 'select id from d', 'u', '{id}', source_key => '{NULL}')",
            "22004",
            "argument \"source_key\" must not contain NULL",
            "",
        ),
        (
            "coco.create_flow('g', 'd', 'select id from d', 'u', '{id}', refresh_interval => '-1 s')",
            "22023",
            "argument \"refresh_interval\" is negative",
            "",
        ),
        (
            "coco.create_flow('g', 'd', 'select id from d', 'u', '{id}', capture => 'all')",
            "22023",
            "argument \"capture\": \"all\"",
            "",
        ),
        (
            "coco.create_flow('g', 'd', 'select id from d', 'u', '{id}', options => '{}')",
            "22023",
            "argument \"options\" requires argument \"server\"",
            "",
        ),
        ("coco.create_flow('')", "22023", "argument \"flow\" is empty", ""),
        (
            "coco.create_flow('g', query => 'select 1')",
            "22023",
            "argument \"source\" is missing",
            "",
        ),
        ("coco.alter_flow('f', batch_size => -1)", "22023", "argument \"batch_size\" (-1)", ""),
        (
            "coco.memoize('once(int)', batch => 'once(int)', batch_size => 0)",
            "22023",
            "argument \"batch_size\" (0)",
            "",
        ),
        (
            "coco_internal.metric_rows('all')",
            "22023",
            "argument \"scope\": \"all\"",
            "Valid values are",
        ),
        ("coco.split_text('a', 0)", "22023", "\"size\" (0)", ""),
        ("coco.embed('x', 'none', 'm', 0)", "22023", "argument \"dimensions\" (0)", ""),
    ];
    for (call, code, message, hint) in cases {
        let sql = format!("select * from {call}");
        let Some([found_code, found, _, found_hint]) = failure(&mut db.client, &sql) else {
            panic!("{call} succeeds")
        };
        assert_eq!(found_code, code, "{call}: {found}");
        assert!(found.contains(message), "{call}: {found}");
        assert!(found_hint.contains(hint), "{call}: {found}: {found_hint}");
    }
}
