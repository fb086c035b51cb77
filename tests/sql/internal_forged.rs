//! A superuser alters the columns of coco's own tables, or writes what he likes into them: coco says that it
//! cannot read this, or goes on. The server stays up.
#![cfg(feature = "http")]

use crate::{http, support};

use http::Receiver;
use postgres::Client;
use support::{TestDb, explain};

/// Types that a column is given, and a value of each: some are passed by value, and some by reference.
const TYPES: [(&str, &str); 10] = [
    ("bigint", "4702111234474983745"),
    ("int", "1094795585"),
    ("boolean", "true"),
    ("\"char\"", "'x'"),
    ("text", "'AAAAAAAAAAAAAAAA'"),
    ("name", "'AAAA'"),
    ("uuid", "'41414141-4141-4141-4141-414141414141'"),
    ("jsonb", "'{\"a\": [1, 2]}'"),
    ("bigint[]", "'{4702111234474983745}'"),
    ("float8", "1e300"),
];

/// Tables that coco has made for the flows of this database.
fn tables(client: &mut Client) -> Vec<String> {
    let sql = "
      select distinct c.oid::regclass::text from pg_class c
       where c.relkind = 'r' and c.relnamespace in (select oid from pg_namespace where nspname like 'coco%')
         and (c.oid in (select tracking from coco_internal.source) or c.oid in (select memo_table from coco_internal.flow)
              or c.oid in (select unnest(array[relation, outbox]) from coco_internal.target where server is not null)
              or c.relname ~ '^log_[0-9]+_[0-9]+$')
       order by 1";
    column(client, sql)
}

fn column(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    rows.iter().map(|r| r.get(0)).collect()
}

fn columns(client: &mut Client, table: &str) -> Vec<String> {
    column(
        client,
        &format!(
            "select quote_ident(attname) from pg_attribute
              where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped order by attnum"
        ),
    )
}

/// Statements that give a column another type and a value: views that read it are made again.
fn altered(client: &mut Client, table: &str, column_name: &str, to: &str, value: &str) -> String {
    let views: Vec<String> = column(
        client,
        &format!(
            "select distinct v.oid::regclass || ' ' || v.oid from pg_depend d
               join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
               join pg_class v on v.oid = r.ev_class
              where d.refobjid = '{table}'::regclass and d.deptype = 'n' order by 1"
        ),
    );
    let views: Vec<(&str, &str)> = views.iter().filter_map(|v| v.split_once(' ')).collect();
    let drop: String = views.iter().map(|(v, _)| format!("drop view {v};")).collect();
    // The catalog goes on knowing them.
    let known = [
        ("source", "tracking_view"),
        ("target", "ledger_view"),
        ("target", "outbox_view"),
        ("flow", "memo_view"),
    ];
    let mut make = String::new();
    for (view, oid) in views {
        make.push_str(&format!("create view {view} as select * from {table};"));
        for (catalog, column) in known {
            make.push_str(&format!(
                "update coco_internal.{catalog} set {column} = '{view}'::regclass where {column}::oid = {oid};"
            ));
        }
    }
    format!(
        "{drop}
         delete from {table} where ctid <> (select min(ctid) from {table});
         alter table {table} alter column {column_name} drop identity if exists;
         alter table {table} alter column {column_name} drop default;
         alter table {table} alter column {column_name} type {to} using ({value})::{to};
         {make}"
    )
}

/// Runs a statement in a savepoint. Whatever comes of it, the session is there afterwards; an error of an
/// assumption that was broken without notice (a panic) is none that coco may raise.
fn attempt(client: &mut Client, sql: &str, after: &str) -> bool {
    client.batch_execute("savepoint s").unwrap_or_else(|e| panic!("{after}: {}", explain(&e)));
    let done = client.batch_execute(sql);
    if let Err(e) = &done {
        let said =
            e.as_db_error().unwrap_or_else(|| panic!("{after}; {sql}: the server is gone: {e}"));
        assert!(!said.message().contains("panicked"), "{after}; {sql}: {}", explain(e));
    }
    client
        .batch_execute("rollback to savepoint s; release savepoint s")
        .unwrap_or_else(|e| panic!("{after}; {sql}: {}", explain(&e)));
    done.is_ok()
}

/// What is done after a column was altered.
const DONE: [&str; 10] = [
    "update d set body = body || 'x' where id = 1; insert into d values (9, 'new'); select * from coco.update('f')",
    "update d set k = k",
    "delete from d where id = 2; select * from coco.update('f')",
    "select * from coco.update('f', 'reexport')",
    "select * from coco.update('f', 'full_reprocess')",
    "update d set body = 'y'; select * from coco.preview('f')",
    "select * from coco.verify('f', true)",
    "select * from coco.lineage('t', '{\"id\": 1}'); select * from coco.outputs('f', '{\"id\": 1}')",
    "select * from coco.status; select * from coco.tracking; select * from coco.errors; select * from coco.functions; select * from coco.metrics",
    "select * from coco.set_query('f', null, 'select id, upper(body) as v from d'); select * from coco.update('f')",
];

#[test]
fn columns_of_other_types_are_errors_in_a_flow_of_this_database() {
    let mut db = TestDb::new("internal_forged_here");
    db.run(
        "create table d (id int primary key, body text, k int);
         insert into d select i, 'b' || i, i from generate_series(1, 5) i;
         create function f(t text) returns text language sql immutable as 'select upper(t)';
         select coco.memoize('f(text)');
         select coco.create_flow('f', 'd', 'select id, f(body) as v from d', 't', '{id}', capture => 'trigger')",
    );
    db.update("f", "normal");
    db.run("update d set body = body || '!' where id = 3");
    let (mut altered_ones, mut refused, mut tried) = (0, 0, 0);
    for table in tables(&mut db.client) {
        for name in columns(&mut db.client, &table) {
            for (to, value) in TYPES {
                let alter = altered(&mut db.client, &table, &name, to, value);
                db.run("begin");
                let after = format!("{table}.{name} {to}");
                let is_altered = {
                    db.run("savepoint a");
                    let done = db.client.batch_execute(&alter).is_ok();
                    if !done {
                        db.run("rollback to savepoint a");
                    }
                    done
                };
                if is_altered {
                    altered_ones += 1;
                    for sql in DONE {
                        tried += 1;
                        refused += u32::from(!attempt(&mut db.client, sql, &after));
                    }
                }
                db.run("rollback");
            }
        }
    }
    println!("{altered_ones} columns altered, {tried} statements, {refused} errors");
    assert!(altered_ones > 100, "{altered_ones}");
    // Nothing of it was kept, neither in tables nor in this session.
    db.update("f", "reexport");
    db.verify_clean("f");
}

#[test]
fn values_that_coco_did_not_write_are_errors_or_are_mended() {
    let mut db = TestDb::new("internal_forged_values");
    db.run(
        "create table d (id int primary key, body text, k int);
         insert into d select i, 'b' || i, i from generate_series(1, 5) i;
         create function f(t text) returns text language sql immutable as 'select upper(t)';
         select coco.memoize('f(text)');
         select coco.create_flow('f', 'd', 'select id, f(body) as v from d', 't', '{id}', capture => 'trigger')",
    );
    db.update("f", "normal");
    db.run("update d set body = body || '!' where id = 3");
    for table in tables(&mut db.client) {
        for name in columns(&mut db.client, &table) {
            let is = format!(
                "select format_type(atttypid, atttypmod) from pg_attribute
                  where attrelid = '{table}'::regclass and quote_ident(attname) = '{name}'"
            );
            let is = column(&mut db.client, &is).remove(0);
            for value in hostile(&is) {
                let forge = format!("update {table} set {name} = {value}");
                let insert = format!("insert into {table} ({name}) values ({value})");
                for forge in [forge, insert] {
                    db.run("begin; savepoint a");
                    if db.client.batch_execute(&forge).is_err() {
                        db.run("rollback");
                        continue;
                    }
                    for sql in DONE {
                        attempt(&mut db.client, sql, &forge);
                    }
                    db.run("rollback");
                }
            }
        }
    }
    db.update("f", "reexport");
    db.verify_clean("f");
}

fn hostile(type_name: &str) -> &'static [&'static str] {
    match type_name {
        "bigint" => &["null", "0", "-1", "9223372036854775807", "-9223372036854775808"],
        "integer" => &["null", "0", "-1", "2147483647", "-2147483648"],
        "xid8" => &["null", "'0'", "'18446744073709551615'"],
        "bigint[]" => &[
            "null",
            "'{}'",
            "'{null}'",
            "'{1,2,3,9223372036854775807}'",
            "'{{1,2},{3,4}}'",
            "'[5:6]={1,2}'",
        ],
        "uuid" => &["null", "'00000000-0000-0000-0000-000000000000'"],
        "jsonb" => &[
            "null",
            "'null'",
            "'[]'",
            "'{}'",
            "'7'",
            "'\"x\"'",
            "'{\"1\": 7}'",
            "'{\"1\": [[1]]}'",
            "'{\"1\": {\"a\": null}}'",
            "'[[[[]]]]'",
            "'1e400'",
            "'{\"1\": 1e400}'",
            "(repeat('[', 2000) || repeat(']', 2000))::jsonb",
        ],
        "bytea" => &["null", "''", "'\\xff'", "decode(repeat('00', 3000), 'hex')"],
        "boolean" => &["null", "true", "false"],
        "timestamp with time zone" => &["null", "'infinity'", "'-infinity'", "'4714-11-24 BC'"],
        "text" => &["null", "''", "'x'"],
        _ => &["null"],
    }
}

#[test]
fn columns_of_other_types_are_errors_in_a_flow_to_another_server() {
    let receiver = Receiver::start();
    let mut db = TestDb::new("internal_forged_there");
    db.run(&format!(
        "create server hook foreign data wrapper coco_http options (url '{}', request_timeout '20', connect_timeout '5');
         create user mapping for postgres server hook;
         create server far foreign data wrapper coco_postgres options (host '127.0.0.1', port '1', dbname 'none', connect_timeout '1');
         create user mapping for postgres server far options (user 'u', password 'p');
         create table d (id int primary key, body text);
         insert into d select i, 'b' || i from generate_series(1, 5) i",
        receiver.url()
    ));
    let started = "select pg_postmaster_start_time()::text";
    let started_before = column(&mut db.client, started);
    for server in ["hook", "far"] {
        let declare = format!(
            "select coco.create_flow('f', 'd', 'select id, body as v from d', 'out', '{{id}}', server => '{server}')"
        );
        db.run(&declare);
        // What is not sent stays in the outbox.
        let _ = support::update(&mut db.client, "f", "normal");
        for place in 0..tables(&mut db.client).len() {
            let table = tables(&mut db.client).remove(place);
            for name in columns(&mut db.client, &table) {
                for (to, value) in
                    TYPES.iter().filter(|(to, _)| ["bigint", "text", "boolean"].contains(to))
                {
                    // Another one each time: the flow is declared anew.
                    let table = tables(&mut db.client).remove(place);
                    let alter = altered(&mut db.client, &table, &name, to, value);
                    let after = format!("{server}: {table}.{name} {to}");
                    if db.client.batch_execute(&alter).is_err() {
                        continue;
                    }
                    // A writer of the table is told as well, where its change cannot be noted.
                    if let Err(e) = db.client.batch_execute("update d set body = body || 'x'") {
                        assert!(e.as_db_error().is_some(), "{after}: the server is gone: {e}");
                    }
                    for mode in ["normal", "reexport"] {
                        if let Err(e) = support::update(&mut db.client, "f", mode) {
                            let said = e
                                .as_db_error()
                                .unwrap_or_else(|| panic!("{after}: the server is gone: {e}"));
                            assert!(
                                !said.message().contains("panicked")
                                    && !said.message().contains("ended unexpectedly"),
                                "{after}: {}",
                                explain(&e)
                            );
                        }
                    }
                    assert_eq!(column(&mut db.client, started), started_before, "{after}");
                    db.run("select coco.drop_flow('f')");
                    db.run(&declare);
                    let _ = support::update(&mut db.client, "f", "normal");
                }
            }
        }
        db.run("select coco.drop_flow('f')");
    }
    assert_eq!(column(&mut db.client, started), started_before);
}
