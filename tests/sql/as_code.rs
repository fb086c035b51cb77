//! Flows as code: declarations that are run again, replaced, planned, and written out as SQL.

#[path = "as_code/definition.rs"]
mod definition;
#[path = "as_code/made_again.rs"]
mod made_again;
#[path = "as_code/tenants.rs"]
mod tenants;

use crate::support;

use std::sync::{Arc, Mutex};

use postgres::Client;
use support::{TestDb, explain};

fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
}

/// The first column of all rows, as text.
fn rows(client: &mut Client, sql: &str) -> Vec<String> {
    let sql = format!("select q.v::text from ({sql}) as q(v)");
    let rows = client.query(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    rows.iter().map(|r| r.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())).collect()
}

fn text(client: &mut Client, sql: &str) -> String {
    rows(client, sql).pop().unwrap_or_else(|| panic!("{sql}: no row"))
}

fn fails(client: &mut Client, sql: &str, sqlstate: &str) -> String {
    let e = client.batch_execute(sql).expect_err(sql);
    let explained = explain(&e);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {explained}");
    explained
}

/// A session whose messages are kept.
struct Hearing {
    client: Client,
    said: Arc<Mutex<Vec<String>>>,
}

impl Hearing {
    fn new(db: &TestDb) -> Hearing {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        let client = db.connect_hearing(move |notice| heard.lock().unwrap().push(notice));
        Hearing { client, said }
    }

    /// Runs statements, and returns what the server says of them.
    fn run(&mut self, sql: &str) -> Vec<String> {
        run(&mut self.client, sql);
        std::mem::take(&mut *self.said.lock().unwrap())
    }
}

/// Every row of the catalog that a declaration writes, with the transaction that wrote it.
const CATALOG: &str = "
    select 'flow ' || f.xmin::text || ' ' || f::text from coco_internal.flow f
    union all select 'source ' || s.xmin::text || ' ' || s::text from coco_internal.source s
    union all select 'target ' || t.xmin::text || ' ' || t::text from coco_internal.target t
    union all select 'tracking ' || t::text from coco.tracking t
    order by 1";

/// Flows of several shapes, declared so that the declaration can be run again.
const MIGRATION: &str = "
    create table if not exists documents (id int primary key, title text not null, body text,
      modified timestamptz not null default '2025-01-01', grp int not null default 0);
    create table if not exists authors (id int primary key, name text not null);
    create table if not exists letters (id int primary key, title text not null);
    -- a row, with an ordinal and a fingerprint
    select coco.create_flow('titles', or_replace => true, source => 'documents',
      query => $$ select id, upper(title) as title from documents $$,
      target => 'titles', key => '{id}',
      ordinal => 'modified', fingerprint => 'coco.normalize_text(title)');
    -- a group, scanned
    select coco.create_flow('groups', or_replace => true, source => 'documents', name => 'd',
      query => $$ select grp, count(*) as n from d group by grp $$,
      target => 'groups', key => '{grp}', source_key => '{grp}',
      capture => 'scan', refresh_interval => '5 minutes');
    -- a flow over another flow's target
    select coco.create_flow('lengths', or_replace => true, source => 'titles',
      query => $$ select id, length(title) as n from titles $$, target => 'lengths', key => '{id}');
    -- several parts
    select coco.create_flow('everything', or_replace => true);
    select coco.add_source('everything', 'documents', if_not_exists => true);
    select coco.add_source('everything', 'letters', if_not_exists => true);
    select coco.add_lookup('everything', 'authors', source => 'documents', if_not_exists => true,
      affects => $$ select d.id from documents d join authors a on a.id = d.grp $$);
    select coco.add_target('everything', 'everything',
      $$ select 'd' as kind, d.id, d.title || coalesce(a.name, '') as title
           from documents d left join authors a on a.id = d.grp
         union all select 'l', id, title from letters $$, '{kind,id}', if_not_exists => true);
    select coco.create_flow('once', 'documents', 'select id, body from documents', 'once', '{id}', if_not_exists => true);";

const FLOWS: [&str; 5] = ["titles", "groups", "lengths", "everything", "once"];

#[test]
fn a_migration_that_is_run_again_changes_nothing() {
    let mut db = TestDb::new("migrated");
    let mut session = Hearing::new(&db);
    session.run(MIGRATION);
    run(
        &mut session.client,
        "insert into documents select i, 't' || i, 'b', '2025-01-01', i % 3 from generate_series(1, 20) i;
         insert into authors values (1, 'A'); insert into letters values (1, 'l')",
    );
    for flow in FLOWS {
        db.update(flow, "normal");
    }
    let before = rows(&mut db.client, CATALOG);
    assert!(before.len() > 60, "{}", before.join("\n"));
    for _ in 0..2 {
        let said = session.run(MIGRATION);
        let other: Vec<&String> = said.iter().filter(|s| !s.ends_with("skipping")).collect();
        assert!(other.is_empty(), "{other:?}");
        assert_eq!(rows(&mut db.client, CATALOG), before);
        for flow in FLOWS {
            let counts = db.update(flow, "normal");
            assert!(counts.iter().all(|c| c.evaluated == 0 && c.upserted == 0), "{counts:?}");
        }
    }
}

fn declare(db: &mut TestDb) {
    db.run(
        "create table d (id int primary key, v int not null, t text);
         insert into d select i, i, 't' || i from generate_series(1, 10) i;
         select coco.create_flow('f', 'd', 'select id, v * 2 as v from d where v > 0', 't', '{id}')",
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 10);
}

fn replace(query: &str, more: &str) -> String {
    format!(
        "select coco.create_flow('f', 'd', $q${query}$q$, 't', '{{id}}', or_replace => true{more})"
    )
}

#[test]
fn an_existing_flow_is_skipped_whoever_owns_it() {
    let mut db = TestDb::new("as_code_skip");
    declare(&mut db);
    db.run("do $$ begin create role coco_as_code login; exception when duplicate_object or unique_violation then null; end $$;
            grant usage on schema coco to coco_as_code");
    let before = rows(&mut db.client, CATALOG);
    let mut session = Hearing::new(&db);
    // Nothing else is looked at, as CREATE TABLE IF NOT EXISTS does.
    for role in ["postgres", "coco_as_code"] {
        let said = session.run(&format!(
            "set role {role}; select coco.create_flow('f', if_not_exists => true); reset role"
        ));
        assert_eq!(said, ["flow \"f\" already exists, skipping"]);
    }
    let declared = "'d', 'select nothing', 'u', '{none}', if_not_exists => true";
    assert_eq!(session.run(&format!("select coco.create_flow('f', {declared})")).len(), 1);
    assert_eq!(rows(&mut db.client, CATALOG), before);
    let both = "select coco.create_flow('f', if_not_exists => true, or_replace => true)";
    assert!(fails(&mut db.client, both, "22023").contains("cannot both be true"));
    let mut other = db.connect_as("coco_as_code");
    let mine = "select coco.create_flow('f', or_replace => true)";
    assert!(fails(&mut other, mine, "42501").contains("must be owner of flow \"f\""));
    // What does not exist is made.
    assert!(session.run("select coco.create_flow('g', or_replace => true)").is_empty());
    assert!(session.run("select coco.create_flow('h', if_not_exists => true)").is_empty());
    assert_eq!(text(&mut db.client, "select count(*) from coco.flows"), "3");
}

#[test]
fn parts_that_exist_are_skipped() {
    let mut db = TestDb::new("as_code_parts");
    db.run(
        "create table d (id int primary key, v int); create table l (id int primary key);
         select coco.create_flow('f')",
    );
    let parts = "select coco.add_source('f', 'd', if_not_exists => true);
         select coco.add_lookup('f', 'l', affects => 'select id from l', if_not_exists => true);
         select coco.add_target('f', 't', 'select id from d', '{id}', if_not_exists => true)";
    let mut session = Hearing::new(&db);
    assert!(session.run(parts).is_empty());
    assert_eq!(
        session.run(parts),
        [
            "source \"d\" of flow \"f\" already exists, skipping",
            "lookup \"l\" of flow \"f\" already exists, skipping",
            "target t of flow \"f\" already exists, skipping",
        ]
    );
    // A source's name is not a lookup's; and a table of another flow is not the flow's target.
    fails(&mut db.client, "select coco.add_lookup('f', 'd', if_not_exists => true)", "42710");
    db.run("select coco.create_flow('g', 'd', 'select id from d', 'u', '{id}')");
    let taken =
        "select coco.add_target('f', 'u', 'select id from d', '{id}', if_not_exists => true)";
    fails(&mut db.client, taken, "55006");
}

#[test]
fn a_query_is_compared_as_it_is_bound() {
    let mut db = TestDb::new("as_code_query");
    declare(&mut db);
    db.run("create schema s; create function s.twice(int) returns int language sql immutable as 'select $1 * 2'");
    let mut session = Hearing::new(&db);
    for same in [
        "select id, v * 2 as v from d where v > 0",
        "-- twice\nselect id,\n  v * 2 as v /* of all */ from d\n where v > 0;",
        "SELECT \"d\".id, d.v * 2 v FROM d WHERE (v > 0)",
        "select x.id, x.v * 2 as v from d x where x.v > 0",
        "select id, v * 2 as v from public.d where v > 0",
        "select id, v operator(pg_catalog.*) 2 as v from d where v > 0",
    ] {
        let before = rows(&mut db.client, CATALOG);
        let said = session.run(&replace(same, ""));
        assert!(said.is_empty(), "{same}: {said:?}");
        assert_eq!(rows(&mut db.client, CATALOG), before, "{same}");
        assert_eq!(db.update("f", "normal")[0].evaluated, 0, "{same}");
    }
    for other in [
        "select id, v * 3 as v from d where v > 0",
        "select id, 2 * v as v from d where v > 0",
        "select id, v * 2 as v from d",
        "select id, s.twice(v) as v from d",
        "select id, v * 2 as v, t from d",
        "select id, v * 2 as v from d where v > 0",
    ] {
        let said = session.run(&replace(other, ""));
        assert_eq!(said.first().map(String::as_str), Some("changing flow \"f\""), "{other}");
        assert_eq!(db.update("f", "normal")[0].evaluated, 10, "{other}");
        db.verify_clean("f");
        assert!(session.run(&replace(other, "")).is_empty(), "{other}");
        assert_eq!(db.update("f", "normal")[0].evaluated, 0, "{other}");
    }
    // The same text may mean something else.
    let call = "select id, twice(v) as v from d";
    db.run(&replace(call, ", search_path => 's, public'"));
    db.run("create schema first; create function first.twice(int) returns int language sql immutable as 'select $1 * 4'");
    let said = session.run(&replace(call, ", search_path => 'first, s, public'"));
    assert_eq!(said.first().map(String::as_str), Some("changing flow \"f\""));
    assert_eq!(db.update("f", "normal")[0].upserted, 10);
}

#[test]
fn one_notice_has_a_line_for_each_difference() {
    let mut db = TestDb::new("as_code_notice");
    declare(&mut db);
    let plan = |query: &str, more: &str| {
        format!(
            "select concat_ws('|', object, name, change, effect) from coco.plan('f', 'd', $q${query}$q$, 't', '{{id}}'{more})"
        )
    };
    let query = "select id, v * 2 as v from d where v > 0";
    assert!(rows(&mut db.client, &plan(query, "")).is_empty());
    let found = rows(
        &mut db.client,
        &plan(
            "select id, v from d",
            ", ordinal => 'v', fingerprint => 't', capture => 'scan', refresh_interval => '1 hour'",
        ),
    );
    assert_eq!(
        found,
        [
            "source|d|ordinal v is added|no item is evaluated because of this",
            "source|d|fingerprint t is added|the next update evaluates every item",
            "source|d|capture trigger becomes scan|no item is evaluated because of this",
            "source|d|refresh interval 00:01:00 becomes 01:00:00|no item is evaluated because of this",
            "target|public.t|query changes|the next update evaluates every item",
        ]
    );
    let path = rows(
        &mut db.client,
        &plan(query, ", search_path => 'public', settings => '{\"TimeZone\": \"Asia/Tokyo\"}'"),
    );
    assert_eq!(path.len(), 2, "{path:?}");
    assert!(path[0].contains("search_path \"$user\", public becomes public"), "{path:?}");
    assert!(path[1].contains("TimeZone") && path[1].contains("becomes Asia/Tokyo"), "{path:?}");
    let again = "the flow is declared again, and the next update evaluates every item";
    db.run("create table e (id int primary key, v int)");
    for (call, expected) in [
        (
            "coco.plan('f', 'e', 'select id from e', 't', '{id}')",
            "source|d|relation public.d becomes public.e",
        ),
        (
            "coco.plan('f', 'd', 'select v from x', 't', '{v}', source_key => '{v}', name => 'x')",
            "source|d|name d becomes x",
        ),
        (
            "coco.plan('f', 'd', 'select v from d group by v', 't', '{id}', source_key => '{v}')",
            "source|d|key (id) becomes (v)",
        ),
        (
            "coco.plan('f', 'd', 'select id, v from d', 'u', '{id}')",
            "target|public.t|table public.t becomes public.u, and public.t is no longer a target",
        ),
        (
            "coco.plan('f', 'd', 'select id, v from d', 't', '{id,v}')",
            "target|public.t|key (id) becomes (id, v)",
        ),
        ("coco.plan('g', 'd', 'select id, v from d', 'u', '{id}')", "flow|g|is created"),
    ] {
        let found = rows(
            &mut db.client,
            &format!("select concat_ws('|', object, name, change, effect) from {call}"),
        );
        let first = found.first().unwrap_or_else(|| panic!("{call}: no difference"));
        assert!(first.starts_with(expected), "{call}: {first}");
        assert!(first.ends_with(again) || expected.starts_with("flow|g"), "{call}: {first}");
    }
    fails(
        &mut db.client,
        "select * from coco.plan('f', 'd', 'select nothing from d', 't', '{id}')",
        "42703",
    );
}

#[test]
fn a_plan_writes_nothing_and_keeps_no_lock() {
    let mut db = TestDb::new("as_code_plan");
    declare(&mut db);
    let before = rows(&mut db.client, CATALOG);
    db.run("begin read only");
    let plan = "select count(*) from coco.plan('f', 'd', 'select id, v from d', 'u', '{id}', source_key => '{v}')";
    assert_eq!(text(&mut db.client, plan), "2");
    let plan = "select change from coco.plan('f', 'd', 'select id, v from d', 't', '{id}')";
    assert_eq!(rows(&mut db.client, plan), ["query changes"]);
    assert_eq!(text(&mut db.client, "select count(*) from coco.definitions()"), "1");
    let locks = "select string_agg(relation::regclass::text, ' ') from pg_locks
                  where pid = pg_backend_pid() and relation in ('d'::regclass, 't'::regclass)";
    assert_eq!(text(&mut db.client, locks), "NULL");
    db.run("commit");
    assert_eq!(rows(&mut db.client, CATALOG), before);
    assert_eq!(text(&mut db.client, "select to_regclass('u')"), "NULL");
}

/// What `coco.alter_flow` changes.
#[test]
fn properties_of_sources_are_altered() {
    let mut db = TestDb::new("as_code_altered");
    declare(&mut db);
    let query = "select id, v * 2 as v from d where v > 0";
    let source =
        "select concat_ws('|', ordinal, fingerprint, capture, refresh_interval) from coco.sources";
    db.run(&replace(query, ", ordinal => 'v', fingerprint => 'v::text || t', capture => 'scan', refresh_interval => '1 hour'"));
    assert_eq!(text(&mut db.client, source), "v|v::text || t|scan|01:00:00");
    db.update("f", "normal");
    // Blanks do not count here either.
    let mut session = Hearing::new(&db);
    let same = ", ordinal => ' (v) ', fingerprint => 'v::text||d.t', capture => 'scan', refresh_interval => '60 minutes'";
    assert!(session.run(&replace(query, same)).is_empty());
    db.run(&replace(
        query,
        ", search_path => 'public', settings => '{\"TimeZone\": \"Asia/Tokyo\"}'",
    ));
    assert_eq!(
        text(
            &mut db.client,
            "select search_path || ' ' || (settings->>'TimeZone') from coco.flows"
        ),
        "public Asia/Tokyo"
    );
    assert_eq!(text(&mut db.client, source).split('|').next(), Some("trigger"));
    // Settings that a declaration does not contain stay, whatever the session has.
    db.run("set timezone = 'America/Lima'");
    db.run(&replace(query, ", search_path => 'public'"));
    assert_eq!(text(&mut db.client, "select settings->>'TimeZone' from coco.flows"), "Asia/Tokyo");
    db.update("f", "normal");
    db.verify_clean("f");
}

#[test]
fn settings_are_checked() {
    let mut db = TestDb::new("as_code_settings");
    let create = |settings: &str| format!("select coco.create_flow('f', settings => '{settings}')");
    for (settings, expected) in [
        ("[]", "argument \"settings\" is not a JSON object of texts"),
        ("{\"work_mem\": \"1GB\"}", "setting \"work_mem\" is not a setting of flows"),
        ("{\"search_path\": \"s\"}", "setting \"search_path\" is not a setting of flows"),
        ("{\"TimeZone\": 1}", "argument \"settings\" is not a JSON object of texts"),
        ("{\"TimeZone\": \"Nowhere/Land\"}", "invalid value for setting \"TimeZone\""),
    ] {
        let e = fails(&mut db.client, &create(settings), "22023");
        assert!(e.contains(expected), "{settings}: {e}");
    }
    db.run(&create("{\"timezone\": \"utc\"}"));
    assert_eq!(text(&mut db.client, "select settings->>'TimeZone' from coco.flows"), "UTC");
    assert_eq!(
        text(
            &mut db.client,
            "select settings->>'lc_time' = current_setting('lc_time') from coco.flows"
        ),
        "true"
    );
}

#[test]
fn a_flow_of_several_parts_is_not_replaced_by_a_declaration_of_one() {
    let mut db = TestDb::new("as_code_several");
    db.run(
        "create table d (id int primary key, v int); create table l (id int primary key);
         select coco.create_flow('two', 'd', 'select id from d', 't1', '{id}');
         select coco.add_target('two', 't2', 'select id from d', '{id}');
         select coco.create_flow('looks'); select coco.add_source('looks', 'd');
         select coco.add_lookup('looks', 'l', affects => 'select id from l');
         select coco.add_target('looks', 't3', 'select d.id from d left join l using (id)', '{id}')",
    );
    let two =
        "select coco.create_flow('two', 'd', 'select id from d', 't1', '{id}', or_replace => true)";
    let e = fails(&mut db.client, two, "0A000");
    assert!(
        e.contains("1 sources, 0 lookups and 2 targets") && e.contains("coco.set_query"),
        "{e}"
    );
    // A query can be changed in place; a lookup would be lost if the flow were declared again.
    db.run("select coco.create_flow('looks', 'd', 'select d.id, v from d left join l using (id)', 't3', '{id}', or_replace => true)");
    assert_eq!(text(&mut db.client, "select count(*) from coco.lookups"), "1");
    let other = "select coco.create_flow('looks', 'd', 'select d.id from d left join l using (id)', 't4', '{id}', or_replace => true)";
    fails(&mut db.client, other, "0A000");
    // An incomplete flow is completed.
    db.run(
        "select coco.create_flow('begun'); select coco.add_source('begun', 'd');
         select coco.create_flow('begun', 'd', 'select id from d', 't5', '{id}', or_replace => true)",
    );
    assert_eq!(db.update("begun", "normal")[0].failed, 0);
}

#[test]
fn a_flow_that_lost_a_part_is_declared_again() {
    let mut db = TestDb::new("as_code_lost");
    declare(&mut db);
    let query = "select id, v * 2 as v from d where v > 0";
    db.run("drop table d cascade; create table d (id int primary key, v int not null); insert into d values (1, 1), (2, 2)");
    db.run(&replace(query, ""));
    assert_eq!(db.update("f", "normal")[0].evaluated, 2);
    db.run("select * from coco.verify('f', repair => true)");
    db.verify_clean("f");
    // A function of the query is dropped with it.
    db.run("create function g(int) returns int language sql immutable as 'select $1'");
    let calls = "select id, g(v) as v from d";
    db.run(&replace(calls, ""));
    db.update("f", "normal");
    db.run("drop function g cascade; create function g(int) returns int language sql immutable as 'select $1 + 1'");
    db.run(&replace(calls, ""));
    assert_eq!(db.update("f", "normal")[0].upserted, 2);
    db.verify_clean("f");
}
