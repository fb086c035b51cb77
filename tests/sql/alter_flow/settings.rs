//! What `coco.alter_flow` changes of settings and targets, all of it or nothing.

use super::{evaluated, fails, text};
use crate::support::TestDb;

#[test]
fn settings_are_part_of_the_logic_and_checked() {
    let mut db = TestDb::new("alter_settings");
    db.run(
        "set timezone = 'UTC';
         create table d (id int primary key, seen timestamptz not null); insert into d values (1, '2025-01-01 00:00+00');
         select coco.create_flow('f', 'd', 'select id, seen::text as seen from d', 't', '{id}')",
    );
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    db.run("select coco.alter_flow('f', settings => '{\"timezone\": \"Asia/Tokyo\"}')");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    assert_eq!(text(&mut db, "select seen from t"), "2025-01-01 09:00:00+09");
    let stored = "select concat_ws(' ', settings ->> 'TimeZone', settings ? 'lc_time', settings ? 'timezone') from coco.flows";
    assert_eq!(text(&mut db, stored), "Asia/Tokyo t f");
    db.run("select coco.alter_flow('f', settings => '{\"TimeZone\": \"Asia/Tokyo\"}')");
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
    for settings in [
        "{\"work_mem\": \"1GB\"}",
        "{\"role\": \"postgres\"}",
        "{\"search_path\": \"public\"}",
        "{\"session_preload_libraries\": \"x\"}",
        "{\"TimeZone\": \"Nowhere/Land\"}",
        "{\"TimeZone\": \"UTC''; drop table t; --\"}",
        "{\"default_text_search_config\": \"a.b.c.d\"}",
        "{\"TimeZone\": \"UTC\", \"lc_time\": \"no such locale\"}",
        "{\"TimeZone\": 5}",
        "{\"TimeZone\": null}",
        "[\"TimeZone\"]",
        "\"UTC\"",
    ] {
        let sql = format!("select coco.alter_flow('f', settings => '{settings}')");
        let e = fails(&mut db.client, &sql, "22023");
        assert!(!e.contains("hint: -"), "{e}");
    }
    fails(&mut db.client, "select coco.alter_flow('f', search_path => 'a b')", "22023");
    assert_eq!(text(&mut db, stored), "Asia/Tokyo t f");
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
}

#[test]
fn a_search_path_serves_the_functions_that_a_query_calls() {
    let mut db = TestDb::new("alter_search_path");
    db.run(
        "create table d (id int primary key); insert into d values (1);
         create schema one; create schema other;
         create function one.word() returns text language sql stable as $$ select 'one' $$;
         create function other.word() returns text language sql stable as $$ select 'other' $$;
         create function pick() returns text language plpgsql stable as $$ begin return word(); end $$;
         create function one.direct() returns text language sql stable as $$ select 'one' $$;
         create function other.direct() returns text language sql stable as $$ select 'other' $$;
         set search_path = public, one;
         select coco.create_flow('f', 'd', 'select id, pick() as p, direct() as d from d', 'public.t', '{id}');
         reset search_path; select coco.update('f')",
    );
    let row = "select p || ' ' || d from t";
    assert_eq!(text(&mut db, row), "one one");
    db.run("select coco.alter_flow('f', search_path => 'public, other')");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    // The query itself is bound, and its names mean what they meant.
    assert_eq!(text(&mut db, row), "other one");
    let shown = "select search_path || '; ' || (settings ->> 'search_path') from coco.flows";
    assert_eq!(text(&mut db, shown), "public, other; public, other");
    db.verify_clean("f");
}

#[cfg(feature = "connectors")]
#[test]
fn options_of_a_target_are_checked_and_those_that_name_objects_stay() {
    let mut db = TestDb::new("alter_options");
    db.run(
        "create table d (id int primary key, v int not null);
         create server k foreign data wrapper coco_kafka options (bootstrap_servers 'localhost:1');
         create server n foreign data wrapper coco_neo4j options (url 'bolt://localhost:1');
         create user mapping for current_user server n options (user 'u', password 'p');
         select coco.create_flow('k', 'd', 'select id, v from d', 'topic', '{id}', server => 'k', options => '{\"partitions\": 3}');
         select coco.create_flow('n', 'd', 'select id, v from d', 'Node', '{id}', server => 'n', options => '{\"label\": \"L\"}');
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}')",
    );
    let options = |db: &mut TestDb, flow: &str| {
        text(db, &format!("select options::text from coco.targets where flow = '{flow}'"))
    };
    db.run("select coco.alter_flow('k', options => '{\"partitions\": 6, \"cleanup_policy\": \"delete\"}')");
    assert_eq!(options(&mut db, "k"), "{\"partitions\": 6, \"cleanup_policy\": \"delete\"}");
    db.run("select coco.alter_flow('n', target => 'Node', options => '{\"label\": \"L\", \"temporal\": \"true\"}')");
    for (call, sqlstate) in [
        ("'k', options => '{\"partitions\": 0}'", "HV024"),
        ("'k', options => '{\"cleanup_policy\": \"delete''; drop table d\"}'", "HV024"),
        ("'k', options => '{\"bootstrap_servers\": \"evil:1\"}'", "HV00D"),
        ("'k', options => '[]'", "22023"),
        ("'k', target => 'topic'", "22023"),
        ("'k', target => 'other', options => '{}'", "42704"),
        ("'f', options => '{}'", "22023"),
        ("'f', target => 't', options => '{}'", "22023"),
        ("'n', options => '{\"label\": \"M\"}'", "0A000"),
        ("'n', options => '{}'", "0A000"),
    ] {
        let e = fails(&mut db.client, &format!("select coco.alter_flow({call})"), sqlstate);
        assert!(!e.contains("evil"), "{e}");
    }
    assert_eq!(options(&mut db, "k"), "{\"partitions\": 6, \"cleanup_policy\": \"delete\"}");
    assert_eq!(options(&mut db, "n"), "{\"label\": \"L\", \"temporal\": \"true\"}");
    db.run("select coco.alter_flow('k', options => '{}')");
    assert_eq!(options(&mut db, "k"), "{}");
}

#[test]
fn a_flow_gets_all_changes_of_one_call_or_none() {
    let mut db = TestDb::new("alter_all");
    db.run(
        "create table d (id int primary key, v int not null, n int not null); insert into d values (1, 1, 1);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}'); select coco.update('f')",
    );
    let state =
        "select concat_ws(' ', f.label, f.search_path, s.ordinal, s.capture, s.refresh_interval)
                   from coco.flows f join coco.sources s using (flow)";
    let before = text(&mut db, state);
    let e = fails(
        &mut db.client,
        "select coco.alter_flow('f', label => 'x', ordinal => 'n', search_path => 'pg_catalog', capture => 'no')",
        "22023",
    );
    assert!(e.contains("capture"), "{e}");
    assert_eq!(text(&mut db, state), before);
    db.run("select coco.alter_flow('f', label => 'x', ordinal => 'n', search_path => 'public', capture => 'scan', refresh_interval => '1 s')");
    assert_eq!(text(&mut db, state), "x public n scan 00:00:01");
    db.run("update d set v = 2, n = 2");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    db.verify_clean("f");
    // Nothing to change is no error.
    db.run("select coco.alter_flow('f')");
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
}
