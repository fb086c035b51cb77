//! A library that meets the extension of version 0.1.0: it says so, does not crash, and does not fail writers.
//! `tests/workers/live.rs` has the same for a live flow and its worker.

use crate::support::{TestDb, explain};

use postgres::Client;

/// A database with the schema of version 0.1.0, as one has it where the library was replaced.
fn old_database(name: &str) -> (TestDb, Client) {
    let mut db = TestDb::new(name);
    db.run("drop extension coco");
    db.run(include_str!("upgrade/coco--0.1.0.sql"));
    db.run(
        "set allow_system_table_mods = on;
         insert into pg_catalog.pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
         values (4000000000, 'coco', current_user::regrole, 'public'::regnamespace, false, '0.1.0');
         reset allow_system_table_mods;
         alter extension coco add schema coco",
    );
    let client = db.connect();
    (db, client)
}

/// A value for an argument, which a function that runs would take.
fn value_of(argument: &str) -> String {
    let value = match argument {
        "text" => "'f'",
        "text[]" => "'{a}'",
        "jsonb" => "'{}'",
        "integer" => "1",
        "bigint" => "1",
        "boolean" => "true",
        "interval" => "'1 s'",
        "regclass" => "'pg_class'",
        "regprocedure" => "'now()'",
        "regrole" => "current_user",
        _ => "null",
    };
    format!("{value}::{argument}")
}

#[test]
fn functions_of_an_old_extension_name_both_versions() {
    let (_db, mut client) = old_database("old_functions");
    let functions = client
        .query(
            "select p.proname::text, array(select format_type(a.type, null)
                                             from unnest(p.proargtypes::oid[]) with ordinality as a (type, n) order by a.n)
               from pg_proc p join pg_language l on l.oid = p.prolang
              where p.pronamespace = 'coco'::regnamespace and l.lanname = 'c'
                and p.prorettype not in ('trigger'::regtype, 'internal'::regtype)
                and not p.proargtypes::oid[] && array['\"any\"'::regtype::oid, 'internal'::regtype::oid, 'oid'::regtype::oid]
              order by 1",
            &[],
        )
        .expect("the functions");
    assert!(functions.len() > 30, "{} functions", functions.len());
    let says = format!(
        "coco's library is version {}, the extension in this database is 0.1.0",
        env!("CARGO_PKG_VERSION")
    );
    let mut silent = vec![];
    for function in functions {
        let (name, arguments): (String, Vec<String>) = (function.get(0), function.get(1));
        let values: Vec<String> = arguments.iter().map(|a| value_of(a)).collect();
        let call = format!("select from coco.{name}({})", values.join(", "));
        let said = match client.batch_execute(&call) {
            Ok(()) => String::new(),
            Err(error) => explain(&error),
        };
        if !said.contains(&says) {
            silent.push(name);
        }
    }
    for name in [
        "add_lookup",
        "add_source",
        "add_target",
        "alter_flow",
        "create_flow",
        "diagram",
        "drop_flow",
        "memoize",
        "report",
        "set_query",
        "start",
        "update",
        "verify",
    ] {
        assert!(!silent.iter().any(|other| other == name), "{name} does not name the versions");
    }
    let error = client.batch_execute("select coco.start('f')").expect_err("another version");
    assert_eq!(error.code().map(|code| code.code()), Some("55000"));
    assert!(explain(&error).contains("DROP EXTENSION coco CASCADE"), "{}", explain(&error));
}

#[test]
fn writers_of_an_old_extension_go_on_and_are_captured() {
    let (mut db, mut client) = old_database("old_writers");
    db.run(
        "create table public.d (id int primary key, v int);
         insert into coco.capture (relation, columns, always) values ('public.d', '{id}', false);
         create table coco.log_1_0 (xid xid8 not null, id int);
         create index on coco.log_1_0 (xid);
         create trigger coco_capture_1_insert after insert on public.d referencing new table as n
           for each statement execute function coco.capture('1')",
    );
    client.batch_execute("insert into public.d values (1, 1), (2, 2)").expect("a writer");
    let row =
        client.query_one("select string_agg(id::text, ' ' order by id) from coco.log_1_0", &[]);
    assert_eq!(row.expect("the log").get::<_, String>(0), "1 2");
    client
        .batch_execute("drop extension coco cascade; insert into public.d values (3, 3)")
        .expect("it goes");
}
