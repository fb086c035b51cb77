//! Rights: a flow is its owner's, runs as its owner, and gives nobody more than that.

use crate::support;

use postgres::Client;
use support::{TestDb, explain};

fn roles(db: &mut TestDb) {
    // Roles are the cluster's, not the database's: other tests may have made them.
    for role in ["coco_alice", "coco_bob"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$"
        ));
    }
    db.run(
        "grant usage on schema coco to coco_alice, coco_bob;
         create schema alice authorization coco_alice; create schema bob authorization coco_bob",
    );
}

fn fails(client: &mut Client, sql: &str, sqlstate: &str) -> String {
    let e = client.batch_execute(sql).expect_err(sql);
    assert_eq!(
        e.code().map(|c| c.code().to_owned()).as_deref(),
        Some(sqlstate),
        "{sql}: {}",
        explain(&e)
    );
    explain(&e)
}

fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

#[test]
fn a_flow_is_seen_and_touched_by_its_owner_alone() {
    let mut db = TestDb::new("rights_owner");
    roles(&mut db);
    let mut alice = db.connect_as("coco_alice");
    let mut bob = db.connect_as("coco_bob");
    alice
        .batch_execute(
            "set search_path = alice;
             create table d (id int primary key, v int); insert into d values (1, 1), (2, 0);
             select coco.create_flow('a', 'd', 'select id, current_user::text as who, 1 / v as q from d', 't', '{id}');
             select * from coco.update('a')",
        )
        .unwrap();
    for sql in [
        "select * from coco.update('a')",
        "select * from coco.retry('a')",
        "select * from coco.preview('a')",
        "select * from coco.verify('a')",
        "select coco.set_query('a', null, 'select 1')",
        "select coco.add_source('a', 'pg_class', key => '{oid}')",
        "select coco.add_target('a', 'x', 'select 1', '{id}')",
        "select coco.drop_flow('a')",
    ] {
        assert!(fails(&mut bob, sql, "42501").contains("must be owner of flow \"a\""), "{sql}");
    }
    for view in ["flows", "sources", "targets", "tracking", "errors", "status"] {
        let count = format!("select count(*)::text from coco.{view}");
        assert_eq!(text(&mut bob, &count), "0", "{view}");
        assert_ne!(text(&mut alice, &count), "0", "{view}");
    }
    for table in ["flow", "source", "target", "logic"] {
        fails(&mut bob, &format!("select * from coco_internal.{table}"), "42501");
        fails(&mut alice, &format!("update coco_internal.{table} set flow = 'b'"), "42501");
    }
    let tracking = text(&mut db.client, "select tracking_table::text from coco.sources");
    fails(&mut bob, &format!("select * from {tracking}"), "42501");
    fails(&mut bob, "create table coco.mine ()", "42501");

    // A superuser may, and the query still runs as its owner, under the owner's search path.
    db.run("update alice.d set v = 2 where id = 1");
    assert_eq!(db.update("a", "normal")[0].upserted, 1);
    assert_eq!(
        text(&mut db.client, "select string_agg(distinct who, ',') from alice.t"),
        "coco_alice"
    );
    assert_eq!(
        text(
            &mut db.client,
            "select tableowner::text from pg_tables where schemaname = 'alice' and tablename = 't'"
        ),
        "coco_alice"
    );
    // So may a member.
    db.run("grant coco_alice to coco_bob");
    bob.batch_execute("select * from coco.update('a')")
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    db.run("revoke coco_alice from coco_bob");
}

#[test]
fn without_usage_on_the_schema_nothing_of_coco_can_be_called() {
    let mut db = TestDb::new("rights_usage");
    roles(&mut db);
    db.run("revoke usage on schema coco from coco_bob");
    let mut bob = db.connect_as("coco_bob");
    fails(&mut bob, "select coco.create_flow('b')", "42501");
    fails(&mut bob, "select * from coco.flows", "42501");
}

#[test]
fn a_flow_reads_and_writes_only_what_its_owner_may() {
    let mut db = TestDb::new("rights_reach");
    roles(&mut db);
    db.run(
        "create table public.secret (id int primary key, s text); insert into public.secret values (1, 'x');
         create table public.open (id int primary key); grant select on public.open to coco_alice;
         create table public.full (id int primary key); grant select on public.full to coco_alice;
         insert into public.open values (1)",
    );
    let mut alice = db.connect_as("coco_alice");
    fails(
        &mut alice,
        "select coco.create_flow('x', 'public.secret', 'select id from secret', 'alice.x', '{id}')",
        "42501",
    );
    assert!(fails(&mut alice, "select coco.create_flow('x', 'public.open', 'select id from open', 'public.full', '{id}')", "42501").contains("GRANT SELECT, INSERT"));
    fails(
        &mut alice,
        "select coco.create_flow('x', 'public.open', 'select id from open', 'pg_catalog.x', '{id}')",
        "42501",
    );
    // Reading what she may not is found when it runs, and ends the update: no item is to blame.
    alice
        .batch_execute("select coco.create_flow('y', 'public.open', 'select id, (select s from public.secret) as s from open', 'alice.y', '{id}')")
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    assert!(fails(&mut alice, "select * from coco.update('y')", "42501").contains("secret"));
    // Also for a superuser who runs it.
    assert!(fails(&mut db.client, "select * from coco.update('y')", "42501").contains("secret"));
    assert_eq!(text(&mut alice, "select count(*)::text from coco.errors"), "0");
}

#[test]
fn code_in_a_flow_cannot_take_the_rights_of_those_who_run_it() {
    let mut db = TestDb::new("rights_escape");
    roles(&mut db);
    db.run("create table public.trace (who text); grant insert on public.trace to public");
    let mut alice = db.connect_as("coco_alice");
    alice
        .batch_execute(
            "set search_path = alice;
             create table d (id int primary key); insert into d values (1);
             create function leak(i int) returns int language plpgsql as
               $$ begin insert into public.trace values (current_user); return i; end $$;
             create function climb(i int) returns int language plpgsql as
               $$ begin set role postgres; return i; end $$;
             create function checked(i int) returns boolean language plpgsql as
               $$ begin insert into public.trace values (current_user); return true; end $$;
             create domain watched as int check (checked(value));
             create type pair as (w watched, x int);
             select coco.create_flow('leak', 'd', $$ select leak(id) as id from d $$, 'leak', '{id}');
             select coco.create_flow('climb', 'd', $$ select climb(id) as id from d $$, 'climb', '{id}')",
        )
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    db.update("leak", "normal");
    db.run("select * from coco.preview('leak', 'full_reprocess'); select * from coco.verify('leak', true)");
    fails(&mut db.client, "select * from coco.update('climb')", "42501");
    // A literal of a type whose input runs a check is evaluated while a query is analyzed.
    alice
        .batch_execute("select coco.create_flow('typed', 'd', $$ select id, ('(1,2)'::pair).x from d $$, 'typed', '{id}', fingerprint => '(''(1,2)''::pair).x')")
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    db.run("select coco.set_query('typed', null, $$ select id, ('(1,3)'::alice.pair).x from d $$)");
    db.update("typed", "normal");
    db.run("select * from alice.typed");
    assert_eq!(
        text(&mut db.client, "select string_agg(distinct who, ',') from public.trace"),
        "coco_alice"
    );
}

#[test]
fn a_fingerprint_is_the_same_whatever_the_search_path_is() {
    let mut db = TestDb::new("rights_fingerprint");
    // Before PostgreSQL 16, the setting has another name.
    let parallel_name = "select name from pg_settings where name in ('debug_parallel_query', 'force_parallel_mode')";
    let parallel_name = text(&mut db.client, parallel_name);
    db.run("create schema other; create table other.t (id int); create type other.pair as (a regclass, b int)");
    // A regclass says its schema where that is not on the path.
    for value in [
        "'other.t'::regclass",
        "array['other.t'::regclass]",
        "row('other.t'::regclass, 1)::other.pair",
    ] {
        let mut all = Vec::new();
        for path in ["pg_catalog", "other", "other, pg_catalog"] {
            for parallel in ["off", "on"] {
                db.run(&format!("set search_path = {path}; set {parallel_name} = {parallel}"));
                all.push(text(
                    &mut db.client,
                    &format!("select coco.fingerprint({value}, n)::text from pg_catalog.generate_series(1, 1) as n"),
                ));
                assert_eq!(text(&mut db.client, "select current_setting('search_path')"), path);
            }
        }
        assert!(all.iter().all(|one| *one == all[0]), "{value}: {all:?}");
    }
}

#[test]
fn everything_of_coco_pins_its_search_path_and_says_what_it_is() {
    let mut db = TestDb::new("rights_pinned");
    // The trigger function finds nothing by name: see tests/sql/capture. What stands for calls of a memoized
    // function has it run as it would by itself: see tests/sql/memo/types.rs. The third pins it where it matters: below.
    let functions = "select string_agg(p.oid::regprocedure::text, ', ') from pg_proc p
      where pronamespace in ('coco'::regnamespace, 'coco_internal'::regnamespace)
        and p.proname not in ('capture', 'memo_call', 'fingerprint') and (obj_description(p.oid, 'pg_proc') is null
        -- a body in SQL's standard form is bound when it is made, and looks nothing up
        or prosqlbody is null and (proconfig is null
          or not proconfig @> '{\"search_path=pg_catalog, pg_temp\"}'))";
    assert_eq!(text(&mut db.client, functions), "");
    let relations = "select string_agg(c.oid::regclass::text, ', ') from pg_class c
      where relnamespace in ('coco'::regnamespace, 'coco_internal'::regnamespace) and relkind in ('r', 'v')
        and obj_description(c.oid, 'pg_class') is null";
    assert_eq!(text(&mut db.client, relations), "");
    // Names that only a caller without a path could be fooled by.
    db.run("create table d (id int primary key); insert into d values (1);
            create schema evil; create function evil.fingerprint(variadic \"any\") returns uuid language internal as 'gen_random_uuid';
            create function evil.eq(int, int) returns boolean language sql as 'select false';
            create operator evil.= (leftarg = int, rightarg = int, function = evil.eq);
            set search_path = evil, public, pg_catalog;
            select coco.create_flow('f', 'd', 'select id from d', 'public.t', '{id}', capture => 'scan');
            select coco.create_flow('captured', 'd', 'select id from d', 'public.u', '{id}', capture => 'trigger')");
    assert_eq!(db.update("f", "normal")[0].upserted, 1);
    assert_eq!(db.update("f", "normal")[0].unchanged, 1);
    db.verify_clean("f");
    assert_eq!(db.update("captured", "normal")[0].upserted, 1);
    db.run("insert into d values (2)");
    assert_eq!(db.update("captured", "normal")[0].upserted, 1);
    assert_eq!(db.update("captured", "normal")[0].seen, 0);
    db.verify_clean("captured");
}
