//! No error has a backtrace in its DETAIL, whatever the environment of the server.

use crate::support;

use support::server::{Server, Session};

/// The message and DETAIL of a statement that fails.
fn said(db: &mut Session, sql: &str) -> String {
    let e = db.0.batch_execute(sql).expect_err(sql);
    let e = e.as_db_error().unwrap_or_else(|| panic!("{sql}: the session ended"));
    format!("{}\n{}", e.message(), e.detail().unwrap_or_default())
}

fn has_backtrace(text: &str) -> bool {
    ["stack backtrace", "pgrx", "libcoco", "coco.so", "rust_begin_unwind", ".rs:", "<unknown>"]
        .iter()
        .any(|sign| text.contains(sign))
}

fn errors_have_no_backtrace(server: &Server) {
    let mut db = server.database("traces");
    db.run(
        "create table d (id int primary key, v int not null); insert into d values (1, 0), (2, 1);
         create table lost (v int); create role traces_owner login;
         grant usage on schema coco to traces_owner; grant usage, create on schema public to traces_owner;
         alter table d owner to traces_owner; grant select on lost to traces_owner;
         create function fail() returns trigger language plpgsql as $$
           begin raise exception 'no write' using detail = 'A detail of the user''s own.'; end $$;
         set role traces_owner;
         select coco.create_flow('f', 'd', 'select id, 1 / v as v from d', 't', '{id}');
         select coco.create_flow('g', 'd', 'select id, v + (select count(*) from lost) as n from d', 'u', '{id}');
         reset role; select coco.update('f'); select coco.update('g')",
    );
    db.run("revoke select on lost from traces_owner");
    db.run("update d set v = v + 1");
    for sql in [
        // coco's own error; one of PostgreSQL's in a statement of coco's; one in a user's query, and in her trigger.
        "select coco.update('none')",
        "select coco.update('f', 'fast')",
        "select coco.create_flow('h', 'd', 'select id, nothing from d', 'w', '{id}')",
        "select coco.create_flow('h', 'd', 'select from where', 'w', '{id}')",
        "select coco.update('g')",
        "select coco.lineage('t', '{\"id\": \"x\"}')",
        "select coco.split_text('a', 0)",
        "select coco.update(NULL)",
    ] {
        let found = said(&mut db, sql);
        assert!(!has_backtrace(&found), "{sql}: {found}");
    }
    db.run("create trigger fails before insert on d for each row execute function fail()");
    let found = said(&mut db, "insert into d values (3, 3)");
    assert_eq!(found, "no write\nA detail of the user's own.");
    // The recorded errors of items, and those of workers.
    db.run("update d set v = 0 where id = 2; select coco.update('f')");
    let recorded =
        db.text("select string_agg(concat_ws(' ', message, detail), ';') from coco.errors");
    assert!(recorded.contains("division by zero") && !has_backtrace(&recorded), "{recorded}");
    db.run("update d set v = 5; select coco.start('g')");
    db.until("select exists (select from coco_internal.flow_error where sqlstate = '42501')");
    let recorded = db.text("select concat_ws(' ', message, detail) from coco_internal.flow_error");
    assert!(!has_backtrace(&recorded), "{recorded}");
    db.run("select coco.stop('g')");
    assert!(!has_backtrace(&server.log()), "{}", server.log());
}

#[test]
fn a_preloaded_library_captures_none() {
    let server = Server::in_environment(
        &["shared_preload_libraries = 'coco'"],
        &[("RUST_BACKTRACE", "full")],
    );
    errors_have_no_backtrace(&server);
}

#[test]
fn a_library_that_a_session_loads_captures_none() {
    let server =
        Server::in_environment(&[], &[("RUST_BACKTRACE", "1"), ("RUST_LIB_BACKTRACE", "1")]);
    errors_have_no_backtrace(&server);
}
