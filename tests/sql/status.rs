//! `coco.status`: what a flow is doing, what is wrong, and what to do about it, on a screen of 100 columns.

use crate::support;

use std::process::Command;

use support::server::{Server, Session};

/// The widest screen on which the view must fit.
const COLUMNS: usize = 100;

fn state(db: &mut Session, flow: &str) -> String {
    db.text(&format!("select state from coco.status where flow = '{flow}'"))
}

/// The state, and whether pending, lag and hint are known.
fn known(db: &mut Session, flow: &str) -> String {
    db.text(&format!(
        "select concat_ws(' ', state, coalesce(pending::text, 'unknown'), coalesce(lag::text, 'unknown'),
                          case when hint is null then 'no hint' else 'hint' end)
           from coco.status where flow = '{flow}'"
    ))
}

#[test]
fn a_flow_that_is_not_live_says_whether_it_is_up_to_date() {
    let server = Server::start(&[]);
    let mut db = server.database("status_states");
    db.run(
        "create table d (id int primary key, v int); insert into d values (1, 1);
         create view w as select * from d;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}');
         select coco.create_flow('scan', 'w', 'select id, v from w', 'u', '{id}', source_key => '{id}')",
    );
    assert_eq!(known(&mut db, "f"), "never updated unknown unknown hint");
    assert_eq!(known(&mut db, "scan"), "never updated unknown unknown hint");
    db.run("begin; select coco.update('f'); rollback");
    assert_eq!(state(&mut db, "f"), "never updated");
    db.run("select coco.update('f'); select coco.update('scan')");
    assert_eq!(known(&mut db, "f"), "up to date 0 00:00:00 no hint");
    // Nobody knows what a view returns now, so there is no 0.
    assert_eq!(known(&mut db, "scan"), "unknown unknown unknown hint");
    db.run("insert into d values (2, 2)");
    assert_eq!(state(&mut db, "f"), "behind");
    assert_eq!(db.number("select pending from coco.status where flow = 'f'"), 1);
    assert!(db.holds("select hint like '%coco.update(''f'')%' from coco.status where flow = 'f'"));
    assert!(db.holds("select lag = date_trunc('second', lag) from coco.status where flow = 'f'"));
    assert!(db.holds("select lag > '0' from coco.status_detail where flow = 'f'"));
    db.run("select coco.update('f')");
    assert_eq!(state(&mut db, "f"), "up to date");
    // Another query needs an update, too, unless the transaction that declares it updates the flow.
    db.run("select coco.set_query('f', null, 'select id, v + 1 as v from d')");
    assert_eq!(state(&mut db, "f"), "behind");
    db.run("select coco.update('f')");
    assert_eq!(state(&mut db, "f"), "up to date");
    db.run("begin; select coco.set_query('f', null, 'select id, v from d'); select coco.update('f'); commit");
    assert_eq!(state(&mut db, "f"), "up to date");
    // A run that left the history counts as well.
    db.run("set coco.history_limit = 0; select coco.update('f')");
    assert_eq!(state(&mut db, "f"), "up to date");
}

/// One flow in each state that needs attention, and two that are well.
fn in_all_states(db: &mut Session) {
    db.run(
        "create table d (id int primary key, v int); insert into d values (1, 0), (2, 1);
         create table gone (id int primary key, v int); create table lost (id int primary key, v int);
         create function f(i int) returns int language sql immutable as 'select i';
         select coco.create_flow('a well', 'd', 'select id, v from d', 't1', '{id}');
         select coco.create_flow('b never', 'd', 'select id, v from d', 't2', '{id}');
         select coco.create_flow('c behind', 'gone', 'select id, v from gone', 't3', '{id}');
         select coco.create_flow('d empty');
         select coco.create_flow('e paused', 'd', 'select id, v from d', 't5', '{id}');
         select coco.create_flow('f items', 'd', 'select id, 1 / v as v from d', 't6', '{id}');
         select coco.create_flow('g target', 'd', 'select id, v from d', 't7', '{id}');
         select coco.create_flow('h source', 'lost', 'select id, v from lost', 't8', '{id}');
         select coco.create_flow('i query', 'd', 'select id, f(v) as v from d', 't9', '{id}');
         select coco.create_flow('j live', 'd', 'select id, v from d', 't10', '{id}');
         select coco.create_flow('k well', 'd', 'select id, v from d', 't11', '{id}')",
    );
    db.run("select coco.update(flow) from coco.flows where flow not in ('b never', 'd empty')");
    db.run("insert into gone values (1, 1); select coco.alter_flow('e paused', paused => true)");
    db.run("drop table t7; drop table lost cascade; drop function f(int) cascade");
    // As after a restart without the library in shared_preload_libraries.
    db.run("update coco_internal.flow set live = true where flow = 'j live'");
}

#[test]
fn flows_that_need_attention_come_first_and_say_what_to_do() {
    let server = Server::start(&[]);
    let mut db = server.database("status_order");
    in_all_states(&mut db);
    let found = db.rows(
        "select concat_ws(', ', flow, state, case when last_error is null then 'no error' end,
                          case when hint is null then 'no hint' end) from coco.status",
    );
    assert_eq!(
        found,
        [
            "g target, target dropped",
            "h source, source dropped",
            "i query, query broken",
            "f items, degraded",
            "b never, never updated, no error",
            "c behind, behind, no error",
            "d empty, incomplete",
            "e paused, paused, no error",
            "j live, no worker",
            "a well, up to date, no error, no hint",
            "k well, up to date, no error, no hint",
        ]
    );
    let health = db.rows("select distinct health from coco.status_detail order by 1");
    assert_eq!(health, ["broken", "degraded", "stale", "well"]);
    for (flow, part) in [
        ("b never", "SELECT * FROM coco.update('b never')"),
        ("c behind", "SELECT coco.start('c behind')"),
        ("d empty", "coco.add_target"),
        ("e paused", "SELECT coco.alter_flow('e paused', paused => false)"),
        ("f items", "SELECT * FROM coco.errors WHERE flow = 'f items'"),
        ("g target", "SELECT * FROM coco.update('g target')"),
        ("h source", "SELECT coco.drop_flow('h source')"),
        ("i query", "coco.set_query"),
        ("j live", "shared_preload_libraries"),
    ] {
        let hint = db.text(&format!("select hint from coco.status where flow = '{flow}'"));
        assert!(hint.contains(part), "{flow}: {hint}");
    }
    assert_eq!(
        db.text("select last_error from coco.status where flow = 'g target'"),
        "target public.t7 no longer exists"
    );
    // What cannot be read is not 0.
    assert_eq!(db.text("select failed_items from coco.status where flow = 'h source'"), "NULL");
    assert_eq!(db.text("select failed_items from coco.status where flow = 'a well'"), "0");
    assert_eq!(db.text("select failed_items from coco.status where flow = 'f items'"), "1");
    let table = db.text("select tracking_table::text from coco.sources where flow = 'a well'");
    db.run(&format!("drop table {table} cascade"));
    assert_eq!(db.text("select failed_items from coco.status where flow = 'a well'"), "NULL");
    // The report has them all, the broken ones first.
    let report = db.text("select coco.report()");
    let place = |name: &str| {
        let row = report.find(&format!("<th scope=\"row\">{name}<br>"));
        row.unwrap_or_else(|| panic!("no row of {name}"))
    };
    assert!(place("i query") < place("f items") && place("f items") < place("b never"));
    assert!(place("j live") < place("k well"));
    assert!(report.contains("select id, 1 / v as v from d"), "the declaration is in the report");
}

#[test]
fn the_view_fits_on_a_screen() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("status_width");
    db.run(
        "create table d (id int primary key, v int); insert into d select i, i from generate_series(1, 100) i;
         select coco.create_flow('sixteen_letters_', 'd', 'select id, v from d', 't', '{id}');
         select coco.create_flow('a_name_of_20_letters', 'd', 'select id, v from d', 'u', '{id}');
         select coco.update('sixteen_letters_'); select coco.start('a_name_of_20_letters')",
    );
    db.settle("a_name_of_20_letters");
    let widest = |condition: &str| {
        let bin = std::env::var("COCO_TEST_PG_BIN").expect("COCO_TEST_PG_BIN");
        let query = format!("select * from coco.status where {condition}");
        let printed = Command::new(format!("{bin}/psql"))
            .args(["-X", "-P", "pager=off", "-d", &server.url("status_width"), "-c", &query])
            .output()
            .expect("psql runs");
        assert!(printed.status.success(), "{printed:?}");
        let text = String::from_utf8(printed.stdout).expect("UTF-8");
        assert_eq!(text.lines().count(), 5, "{text}");
        text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
    };
    assert!(widest("state = 'up to date'") <= COLUMNS);
    assert!(widest("state = 'live'") <= COLUMNS);
}

#[test]
fn the_error_of_a_sessions_update_is_told_until_an_update_succeeds() {
    let server = Server::preloaded(&[]);
    let mut db = server.database("status_failed");
    db.run(
        "create table d (id int primary key, v int); insert into d values (1, 1);
         create table rates (v int); insert into rates values (2);
         create role status_owner; grant usage on schema coco to status_owner;
         create role status_other; grant usage on schema coco to status_other;
         grant create, usage on schema public to status_owner;
         alter table d owner to status_owner; grant select on rates to status_owner;
         set role status_owner;
         select coco.create_flow('f', 'd', 'select id, v * (select v from rates) as v from d', 't', '{id}');
         reset role; select coco.update('f'); revoke select on rates from status_owner",
    );
    db.run("update d set v = 2");
    let e = db.fails("select coco.update('f')");
    assert_eq!(e, "42501 permission denied for table rates");
    let said = "select concat_ws('; ', state, last_error, hint) from coco.status where flow = 'f'";
    assert_eq!(
        db.text(said),
        "failed; permission denied for table rates; Correct the cause, then: SELECT * FROM coco.update('f')"
    );
    assert_eq!(db.text("select health from coco.status_detail where flow = 'f'"), "broken");
    assert!(db.holds(
        "select failed_at <= now() and sqlstate = '42501' from coco_internal.session_error_rows()"
    ));
    // Other sessions see it; other roles do not.
    let mut other = server.connect("status_failed");
    assert_eq!(other.text("select state from coco.status"), "failed");
    other.run("set role status_other");
    assert_eq!(other.number("select count(*) from coco.status"), 0);
    // An error that a block catches is one as well; a later error replaces it.
    db.run("do $$ begin perform coco.update('f'); exception when others then null; end $$");
    assert_eq!(db.number("select count(*) from coco_internal.session_error_rows()"), 1);
    // Whoever may not update the flow, and whoever names no flow, leaves nothing.
    assert!(other.fails("select coco.update('f')").starts_with("42501 "));
    assert!(db.text(said).contains("permission denied for table rates"));
    db.run("grant select on rates to status_owner");
    db.run("select coco.update('f')");
    assert_eq!(db.text(said), "up to date");
    // A live flow has a worker, which tells its own errors.
    db.run("revoke select on rates from status_owner");
    db.run("update d set v = 3");
    db.fails("select coco.update('f')");
    db.run("grant select on rates to status_owner");
    db.run("select coco.start('f')");
    db.settle("f");
    assert_eq!(state(&mut db, "f"), "live");
    db.run("select coco.stop('f')");
    assert_eq!(state(&mut db, "f"), "up to date");
    // So is an error that coco finds before the update begins.
    db.run("alter table t rename column v to w");
    let e = db.fails("select coco.update('f')");
    assert!(e.contains("has no column \"v\""), "{e}");
    assert!(db.text(said).starts_with("failed; target public.t of flow \"f\" has no column"));
    db.run("alter table t rename column w to v");
    db.run("select coco.update('f')");
    assert_eq!(db.text(said), "up to date");
}
