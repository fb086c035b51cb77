//! Rows and columns of coco's own tables that a superuser forged: whatever is in them, a process ends by no signal.

use super::{Run, tries};
use crate::ground::{DATABASE, Ground};

/// Flows of each kind, in the database that each round begins with a copy of.
pub fn declare(ground: &mut Ground) {
    ground.admin.run("create server hook foreign data wrapper coco_http options (url 'http://127.0.0.1:9/', connect_timeout '1'); grant usage on foreign server hook to mallory");
    ground.role("mallory").run(
        "create user mapping for mallory server hook options (bearer_token 'x');
         create table t (id int primary key, k text not null, n numeric); insert into t select i, 'k' || i % 5, i from generate_series(1, 40) i;
         create table l (k text primary key, r int); insert into l values ('k1', 1), ('k2', 2);
         create function f(text) returns text[] language sql immutable as 'select array[$1, null]'; select coco.memoize('mal.f(text)');
         select coco.create_flow('row', 'mal.t', 'select id, f(k) as k, n from t', 'mal.row_t', '{id}');
         select coco.create_flow('group', 'mal.t', 'select k, sum(n) as n from t group by k', 'mal.group_t', '{k}', source_key => '{k}');
         select coco.create_flow('listed', 'mal.t', 'select id * 10 as x, w from t, unnest(array[k, ''b'']) w', 'mal.listed_t', '{x,w}');
         select coco.create_flow('looked'); select coco.add_source('looked', 't'); select coco.add_lookup('looked', 'l', affects => 'select id from l join t using (k)');
         select coco.add_target('looked', 'mal.looked_t', 'select t.id, r from t left join l using (k)', '{id}');
         select coco.create_flow('sent', 'mal.t', 'select id, k, n from t', 'sent', '{id}', server => 'hook');
         select * from coco.update('row'); select * from coco.update('group'); select * from coco.update('listed'); select * from coco.update('looked');
         update t set n = n + 1 where id < 10; update l set r = 5",
    );
}

const OWN: &str = "select c.oid::regclass::text || '|' || a.attname || '|' || format_type(a.atttypid, a.atttypmod)
  from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
  where n.nspname in ('coco', 'coco_internal') and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped order by 1";

const FLOWS: [(&str, &str, &str); 4] = [
    ("row", "mal.row_t", "select id, mal.f(k) as k, n from mal.t"),
    ("group", "mal.group_t", "select k, sum(n) as n from mal.t group by k"),
    ("listed", "mal.listed_t", "select id * 10 as x, w from mal.t, unnest(array[k, 'b']) w"),
    ("looked", "mal.looked_t", "select t.id, r from mal.t t left join mal.l using (k)"),
];

/// A copy of the database, some forgeries, and everything that can be called.
pub fn round(ground: &mut Ground, run: &mut Run, number: usize) {
    let name = format!("round_{number}");
    let mut server = ground.server.connect("postgres");
    server.run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{DATABASE}' and backend_type like 'coco%'"));
    // The copy needs a database that nobody is connected to.
    ground.admin = ground.server.connect("postgres");
    let mut copied = false;
    for _ in 0..100 {
        copied =
            server.0.batch_execute(&format!("create database {name} template {DATABASE}")).is_ok();
        if copied {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(copied, "the database cannot be copied");
    let mut admin = ground.server.connect(&name);
    admin.run("set statement_timeout = '15s'; set client_min_messages = error");
    let columns = admin.rows(OWN);
    let mut log = Vec::new();
    let mut only_values = true;
    for _ in 0..run.rng.usize(1..4) {
        let chosen = columns[run.rng.usize(..columns.len())].clone();
        let parts: Vec<&str> = chosen.split('|').collect();
        let (table, column, ty) =
            (parts[0], format!("\"{}\"", parts[1].replace('"', "\"\"")), parts[2]);
        let sql = match run.rng.u32(..10) {
            0 => {
                only_values = false;
                let to = [
                    "bigint", "bytea", "text", "int[]", "uuid", "jsonb", "boolean", "numeric",
                    "text[]", "record",
                ][run.rng.usize(..10)];
                format!(
                    "alter table {table} alter column {column} drop default; alter table {table} alter column {column} type {to} using null"
                )
            }
            1 => {
                only_values = false;
                format!("alter table {table} drop column {column} cascade")
            }
            2 => format!("delete from {table} where random() < 0.5"),
            3 => format!("update {table} set {column} = null"),
            4 => format!(
                "alter table {table} disable trigger all; insert into {table} select * from {table} limit 1"
            ),
            5 => format!(
                "with o as (select {column} as c, row_number() over () as n from {table}) update {table} t set {column} = (select c from o order by random() limit 1) where random() < 0.5"
            ),
            _ => {
                let value = garbage(run, ty);
                format!("update {table} set {column} = {value} where random() < 0.7")
            }
        };
        only_values &= table.contains("tracking_") || table.contains("memo_");
        log.push(sql.clone());
        tries(&mut admin, &sql, run.seed, &log);
    }
    for sql in [
        "select * from coco.status",
        "select * from coco.errors",
        "select * from coco.tracking",
        "select * from coco.metrics",
        "select * from coco.delivery_status",
        "select * from coco.functions",
        "select coco.report()",
        "select coco.diagram()",
    ] {
        log.push(sql.to_owned());
        tries(&mut admin, sql, run.seed, &log);
    }
    for flow in ["row", "group", "listed", "looked", "sent"] {
        for call in [
            "select * from coco.explain('@')",
            "select * from coco.preview('@')",
            "select * from coco.update('@')",
            "select * from coco.verify('@')",
            "select * from coco.outputs('@', '{\"id\": 1}')",
            "select * from coco.lineage('mal.@_t', '{\"id\": 1}')",
            "select * from coco.history('@')",
            "select * from coco.update('@', 'full_reprocess')",
            "select * from coco.verify('@', true)",
            "select coco.clear_memo('@')",
        ] {
            if flow == "sent" && (call.contains("update") || call.contains("true")) {
                continue;
            }
            let sql = call.replace('@', flow);
            log.push(sql.clone());
            tries(&mut admin, &sql, run.seed, &log);
        }
    }
    log.push("start".to_owned());
    for sql in [
        "select coco.start('row')",
        "select coco.start('sent')",
        "select coco.wait('row', '1 s')",
        "select coco.wait('sent', '1 s')",
        "select coco.stop('row')",
        "select coco.stop('sent')",
    ] {
        tries(&mut admin, sql, run.seed, &log);
    }
    ground_alive(ground, run, &log);
    if only_values {
        for (flow, target, query) in FLOWS {
            let repaired = tries(
                &mut admin,
                &format!(
                    "select * from coco.update('{flow}', 'full_reprocess'); select * from coco.verify('{flow}', true)"
                ),
                run.seed,
                &log,
            ) && tries(
                &mut admin,
                &format!("select * from coco.update('{flow}')"),
                run.seed,
                &log,
            );
            let failing =
                admin.number(&format!("select count(*) from coco.errors where flow = '{flow}'"));
            if !repaired || failing > 0 {
                continue;
            }
            let wrong = admin.number(&format!(
                "select count(*) from ((select (q.*)::text from ({query}) q except all select (t.*)::text from {target} t)
                 union all (select (t.*)::text from {target} t except all select (q.*)::text from ({query}) q)) d"
            ));
            assert_eq!(
                wrong,
                0,
                "COCO_TEST_SEED={}\n{}\n{flow} differs after a repair",
                run.seed,
                log.join("\n")
            );
        }
    }
    drop(admin);
    server.run(&format!("drop database {name} with (force)"));
    ground.admin = ground.server.connect(DATABASE);
}

fn ground_alive(ground: &Ground, run: &Run, log: &[String]) {
    let server = ground.server.log();
    if ["terminated by signal", "PANIC:", "panicked at"].iter().any(|bad| server.contains(bad)) {
        panic!("COCO_TEST_SEED={}\n{}", run.seed, log.join("\n"));
    }
}

/// A value of a type that nobody means.
fn garbage(run: &mut Run, ty: &str) -> String {
    let of = |run: &mut Run, values: &[&str]| values[run.rng.usize(..values.len())].to_owned();
    let value = match ty {
        "bytea" => {
            let bytes: Vec<String> =
                (0..run.rng.usize(..64)).map(|_| format!("{:02x}", run.rng.u8(..))).collect();
            return format!("'\\x{}'", bytes.concat());
        }
        "integer" | "smallint" => of(run, &["0", "-1", "1", "2147483647", "-2147483648", "99"]),
        "bigint" => of(
            run,
            &["0", "-1", "'9223372036854775807'", "'-9223372036854775808'", "4702111234474983745"],
        ),
        "boolean" => of(run, &["true", "false"]),
        "jsonb" => of(
            run,
            &[
                "'null'",
                "'{}'",
                "'[]'",
                "'[[1,2],{\"a\":null}]'",
                "'\"x\"'",
                "'1e400'",
                "'{\"target_keys\": 5}'",
            ],
        ),
        "uuid" => of(run, &["gen_random_uuid()", "'00000000-0000-0000-0000-000000000000'"]),
        "oid" | "regclass" | "regrole" | "regnamespace" | "regprocedure" => {
            of(run, &["0", "1", "1259", "4294967295", "16384"])
        }
        "pg_snapshot" => of(run, &["'1:1:'", "'1:9223372036854775807:5,6'", "'3:3:'"]),
        "xid8" => of(run, &["'0'", "'18446744073709551615'", "'3'"]),
        "text[]" => {
            of(run, &["'{}'", "'{NULL}'", "'{{a,b},{c,d}}'", "'[5:6]={a,b}'", "'{no,such,column}'"])
        }
        "interval" => of(run, &["'-1 s'", "'infinity'", "'178000000 years'"]),
        "timestamp with time zone" => {
            of(run, &["'infinity'", "'-infinity'", "'294276-01-01'", "now()"])
        }
        _ => of(
            run,
            &["''", "'x'", "'{}'", "'1'", "null", "repeat('x', 100000)", "E'\\x01'", "'select 1'"],
        ),
    };
    format!("({value})::{ty}")
}
