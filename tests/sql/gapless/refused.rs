//! Changes that coco refuses, and what other roles cannot do with versions.

use super::{FLOWS, fails, text, with_flow};
use crate::support::{TestDb, explain};

const CHANGE: &str =
    "select coco.set_query('f', null, 'select id, v + 1 as v from d', gapless => true)";

#[test]
fn a_target_with_objects_that_cannot_be_moved_is_refused() {
    let mut db = with_flow("dependents");
    for (create, drop, named) in [
        (
            "create materialized view m as select id from t",
            "drop materialized view m",
            "materialized view public.m",
        ),
        (
            "create table child (id int references t)",
            "drop table child",
            "constraint child_id_fkey on table public.child",
        ),
        (
            "create function n() returns bigint language sql begin atomic select count(*) from t; end",
            "drop function n()",
            "function public.n()",
        ),
        (
            "create rule r as on delete to t do also select 1",
            "drop rule r on t",
            "rule r on table public.t",
        ),
        ("create view w as select x from t as x", "drop view w", "view public.w"),
        (
            "create table other (id int); alter table other enable row level security;
             create policy p on other using (exists (select from t))",
            "drop table other",
            "policy p on table public.other",
        ),
        (
            "select coco.create_flow('g', 't', 'select id, v from t', 'g_t', '{id}')",
            "select coco.drop_flow('g', false)",
            "view coco.query_",
        ),
        (
            "create publication part for table t where (id > 1)",
            "drop publication part",
            "publication part",
        ),
    ] {
        db.run(create);
        let e = fails(&mut db.client, CHANGE, "2BP01");
        assert!(e.contains("cannot replace target public.t") && e.contains(named), "{create}: {e}");
        db.run(drop);
    }
    assert_eq!(text(&mut db.client, FLOWS), "f public.t");
    // A view is moved only if its columns stay as they are.
    db.run("create view w as select id, v from t");
    let e = fails(
        &mut db.client,
        "select coco.set_query('f', null, 'select id, v::text as v from d', gapless => true)",
        "2BP01",
    );
    assert!(e.contains("view public.w, which uses a column that changes"), "{e}");
    // What comes into the way later is found at the swap.
    db.run(CHANGE);
    db.run("create materialized view m as select id from t");
    db.update("f", "normal");
    let found = text(&mut db.client, "select waits_for from coco.versions");
    assert!(found.contains("other objects depend on it"), "{found}");
    fails(&mut db.client, "select coco.swap('f')", "2BP01");
    db.run("drop materialized view m; select coco.update('f')");
    assert_eq!(text(&mut db.client, "select v from w where id = 1"), "2");
}

#[test]
fn tables_that_cannot_be_exchanged_are_refused() {
    let mut db = with_flow("tables");
    db.run("alter table t add column mine int");
    let e = fails(&mut db.client, CHANGE, "0A000");
    assert!(e.contains("columns that the query does not return") && e.contains("mine"), "{e}");
    db.run("alter table t drop column mine");
    db.run("create table \"t@old\" ()");
    let e = fails(&mut db.client, CHANGE, "42P07");
    assert!(e.contains("t@old"), "{e}");
    db.run("drop table \"t@old\"");
    db.run(CHANGE);
}

#[test]
fn arguments_and_names_are_checked() {
    let mut db = with_flow("arguments");
    for (sql, sqlstate, message) in [
        (
            "select coco.set_query('f', null, 'select id from d', swap => 'manual')",
            "22023",
            "argument \"swap\" requires",
        ),
        (
            "select coco.set_query('f', null, 'select id from d', keep_old => '1 h')",
            "22023",
            "argument \"keep_old\" requires",
        ),
        (
            "select coco.set_query('f', null, 'select id from d', key => '{id}')",
            "22023",
            "argument \"key\" requires",
        ),
        (
            "select coco.set_query('f', null, 'select id from d', gapless => true, swap => 'soon')",
            "22023",
            "argument \"swap\": \"soon\"",
        ),
        (
            "select coco.set_query('f', null, 'select id from d', gapless => true, keep_old => '-1 s')",
            "22023",
            "is negative",
        ),
        (
            "select coco.set_query('f', null, 'select id from d', gapless => true, key => '{v}')",
            "42703",
            "key column \"v\"",
        ),
        (
            "select coco.set_query('f', null, 'select nothing from d', gapless => true)",
            "42703",
            "nothing",
        ),
        (
            "select coco.set_query('nowhere', null, 'select id from d', gapless => true)",
            "42704",
            "nowhere",
        ),
        ("select coco.create_flow('g@new')", "42939", "is reserved"),
        ("select coco.create_flow('g@old')", "42939", "is reserved"),
        ("select coco.swap('nowhere')", "42704", "nowhere"),
    ] {
        let e = fails(&mut db.client, sql, sqlstate);
        assert!(e.contains(message), "{sql}: {e}");
    }
    assert_eq!(text(&mut db.client, FLOWS), "f public.t");
    assert_eq!(text(&mut db.client, "select count(*) from coco.flows"), "1");
    db.run(CHANGE);
    for sql in [CHANGE, "select coco.set_query('f', null, 'select id, v from d')"] {
        let e = fails(&mut db.client, sql, "55000");
        assert!(e.contains("already has a new version") && e.contains("coco.discard"), "{e}");
    }
    let e = fails(&mut db.client, &CHANGE.replace("'f'", "'f@new'"), "55000");
    assert!(e.contains("is itself a version of flow \"f\""), "{e}");
    let long = "f".repeat(60);
    db.run(&format!(
        "select coco.create_flow('{long}', 'd', 'select id, v from d', 'u', '{{id}}')"
    ));
    let e = fails(&mut db.client, &CHANGE.replace("'f'", &format!("'{long}'")), "42622");
    assert!(e.contains("too long"), "{e}");
    // A new owner, or another target, does not reach a version.
    db.run("select coco.add_target('f', 'more', 'select id from d', '{id}')");
    let e = fails(&mut db.client, "select coco.swap('f')", "55000");
    assert!(e.contains("have different targets"), "{e}");
}

/// Roles that may use coco, each with a schema of its name.
fn with_roles(name: &str, roles: [&str; 2]) -> TestDb {
    let mut db = TestDb::new(name);
    for role in roles {
        // Roles are the cluster's: a test that ran before may have left them.
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$;
             grant usage on schema coco to {role}; create schema {role} authorization {role}"
        ));
    }
    db
}

#[test]
fn other_roles_neither_see_nor_move_a_version() {
    let mut db = with_roles("gapless_roles", ["gapless_a", "gapless_b"]);
    let mut a = db.connect_as("gapless_a");
    let mut b = db.connect_as("gapless_b");
    let run = |client: &mut postgres::Client, sql: &str| {
        client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    };
    run(
        &mut a,
        "set search_path = gapless_a; create table d (id int primary key, v int); insert into d values (1, 1);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}'); select coco.update('f');
         grant usage on schema gapless_a to gapless_b; grant select on t to gapless_b",
    );
    // A view of another role stays with that role's table: it is not moved, and is in the way.
    run(&mut b, "create view gapless_b.w as select id, v from gapless_a.t");
    let e = fails(&mut a, CHANGE, "2BP01");
    assert!(e.contains("gapless_b.w, which belongs to another role"), "{e}");
    run(&mut b, "drop view gapless_b.w");
    run(&mut a, &CHANGE.replace("gapless => true", "gapless => true, swap => 'manual'"));
    run(&mut a, "select coco.update('f')");
    assert_eq!(text(&mut b, "select count(*) from coco.versions"), "0");
    for call in ["swap", "rollback", "discard", "diff", "update"] {
        for flow in ["f", "f@new"] {
            let e = fails(&mut b, &format!("select * from coco.{call}('{flow}')"), "42501");
            assert!(e.contains("must be owner of flow"), "{e}");
        }
    }
    fails(&mut b, "select * from gapless_a.\"t@new\"", "42501");
    fails(&mut b, "select * from coco_internal.version", "42501");
    // A table that its owner does not own cannot be exchanged.
    db.run("create table gapless_a.x (id int primary key, v int); grant all on gapless_a.x to gapless_a");
    run(&mut a, "select coco.create_flow('x', 'd', 'select id, v from d', 'x', '{id}')");
    let e = fails(&mut a, &CHANGE.replace("'f'", "'x'"), "42501");
    assert!(e.contains("must be owner of target gapless_a.x"), "{e}");
}

#[test]
fn code_of_the_owner_runs_as_the_owner() {
    let mut db = with_roles("gapless_code", ["gapless_code_a", "gapless_code_b"]);
    let mut a = db.connect_as("gapless_code_a");
    let run = |client: &mut postgres::Client, sql: &str| {
        client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    };
    run(
        &mut a,
        "set search_path = gapless_code_a;
         create table trace (who text, what text);
         create function noted(what text) returns boolean language plpgsql as
           $$ begin insert into gapless_code_a.trace values (current_user, what); return true; end $$;
         create function pure(what text) returns boolean language plpgsql immutable as
           $$ begin return gapless_code_a.noted(what); end $$;
         create function noted_row() returns trigger language plpgsql as
           $$ begin perform gapless_code_a.noted('trigger'); return new; end $$;
         create domain watched as int check (gapless_code_a.noted('domain'));
         create table d (id int primary key, v watched); insert into d values (1, 1);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}'); select coco.update('f');
         create index on t (pure(id::text));
         alter table t add constraint checked check (noted('check'));
         create trigger tr before insert or update on t for each row execute function noted_row();
         alter table t enable row level security;
         create policy p on t using (noted('policy'));
         create view w as select id, noted('view') as n from t;
         create statistics st on (pure(id::text)), id from t",
    );
    // A superuser swaps it.
    db.run(
        "select coco.set_query('f', null, 'select id, (v + 1)::gapless_code_a.watched as v from d', gapless => true,
                               keep_old => '1 h');
         select coco.update('f'); select coco.diff('f'); select coco.rollback('f'); select coco.update('f')",
    );
    assert_eq!(text(&mut a, "select string_agg(distinct who, ', ') from trace"), "gapless_code_a");
    assert_eq!(text(&mut a, "select v from t"), "1");
}
