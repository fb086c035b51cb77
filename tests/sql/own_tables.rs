//! coco's own tables: they belong to the extension's owner, hold nothing that runs a user's code, and what happens to
//! those of one flow keeps nobody from seeing the others.

#[cfg(feature = "http")]
use crate::http;
use crate::support;

use postgres::Client;
use support::{TestDb, explain};

/// A database in which two roles, each with a schema of its name, may use coco.
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

fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
}

fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

fn fails(client: &mut Client, sql: &str, sqlstate: &str) -> String {
    let e = client.batch_execute(sql).expect_err(sql);
    let code = e.code().map(|c| c.code().to_owned());
    assert_eq!(code.as_deref(), Some(sqlstate), "{sql}: {}", explain(&e));
    explain(&e)
}

/// A function that notes the role as which it runs, and a domain and casts that call it.
const WATCHED: &str = "
    create table trace (who text, what text);
    create function noted(what text) returns boolean language plpgsql as
      $$ begin insert into trace values (current_user, what); return true; end $$;
    create domain watched as int check (noted('check'));
    create type mood as enum ('sad', 'ok');
    create function mood_json(m mood) returns json language plpgsql as
      $$ begin perform noted('json'); return to_json(m::text); end $$;
    create cast (mood as json) with function mood_json(mood)";

#[test]
fn nobody_but_the_extensions_owner_uses_the_tables() {
    let mut db = with_roles("own_reach", ["own_reach_a", "own_reach_b"]);
    let mut a = db.connect_as("own_reach_a");
    run(
        &mut a,
        "set search_path = own_reach_a; create table d (id int primary key, v int); insert into d values (1, 1);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}', capture => 'trigger');
         select coco.update('f')",
    );
    let tables = "select string_agg(c.relname || ' ' || (pg_get_userbyid(c.relowner) = pg_get_userbyid(e.extowner))::text, ', ' order by c.relname)
                    from pg_class c, pg_extension e
                   where c.relnamespace = 'coco_internal'::regnamespace and c.relkind = 'r' and e.extname = 'coco'
                     and c.relname ~ '_[0-9]+$'";
    assert_eq!(
        text(&mut db.client, tables),
        "log_1_0 true, log_1_1 true, log_1_2 true, tracking_1 true"
    );
    let others = "select count(*)::text from pg_class c, pg_extension e
                   where c.relnamespace = 'coco_internal'::regnamespace and e.extname = 'coco'
                     and c.relowner <> e.extowner";
    assert_eq!(text(&mut db.client, others), "0");
    for table in ["tracking_1", "log_1_0", "flow", "target"] {
        fails(&mut a, &format!("select * from coco_internal.{table}"), "42501");
    }
    // She reads her rows, and that is all.
    assert_eq!(text(&mut a, "select string_agg(k1::text, ',') from coco.tracking_1_f"), "1");
    for change in [
        "update coco.tracking_1_f set k1 = 2",
        "delete from coco.tracking_1_f",
        "alter view coco.tracking_1_f rename to x",
        "drop view coco.tracking_1_f",
    ] {
        a.batch_execute(change).expect_err(change);
    }
    let mut b = db.connect_as("own_reach_b");
    fails(&mut b, "select * from coco.tracking_1_f", "42501");
}

#[test]
fn a_users_code_never_runs_as_the_extensions_owner() {
    let mut db = with_roles("own_code", ["own_code_a", "own_code_b"]);
    let mut a = db.connect_as("own_code_a");
    run(&mut a, "set search_path = own_code_a");
    run(&mut a, WATCHED);
    // The log is extended by a key of a domain, and has entries.
    run(
        &mut a,
        "create table d (id int primary key, k watched not null, m mood not null default 'ok');
         select coco.create_flow('rows', 'd', 'select id, k from d', 'rows', '{id}');
         insert into d values (1, 1), (2, 2);
         select coco.create_flow('groups', 'd', 'select k, count(*) as n from d group by k', 'groups', '{k}', source_key => '{k}');
         select coco.create_flow('moods', 'd', 'select m, 1 / (count(*) - 2) as n from d group by m', 'moods', '{m}', source_key => '{m}')",
    );
    for flow in ["rows", "groups", "moods"] {
        run(&mut a, &format!("select coco.update('{flow}')"));
    }
    run(&mut a, "insert into d values (3, 1); delete from d where id = 2");
    for flow in ["rows", "groups", "moods"] {
        run(&mut a, &format!("select coco.update('{flow}'); select coco.verify('{flow}', true)"));
    }
    // A superuser looks at all of it.
    for view in ["tracking", "errors", "status", "delivery_status", "metrics"] {
        db.run(&format!("select * from coco.{view}"));
    }
    db.run("select coco.report()");
    assert_eq!(
        text(&mut a, "select string_agg(k || ' ' || n, ', ' order by k) from groups"),
        "1 2"
    );
    assert_eq!(
        text(
            &mut db.client,
            "select coalesce(string_agg(distinct who, ', ' order by who), '') from own_code_a.trace"
        ),
        "own_code_a"
    );
    assert_eq!(
        text(
            &mut db.client,
            "select string_agg(format_type(atttypid, atttypmod), ', ' order by attnum) from pg_attribute
              where attrelid = 'coco_internal.log_1_0'::regclass and attnum > 1"
        ),
        "integer, integer, own_code_a.mood"
    );
}

#[test]
fn keys_of_domains_are_followed_and_others_of_the_users_are_refused() {
    let mut db = TestDb::new("own_keys");
    db.run(
        "create domain code as varchar(4); create domain ids as int[]; create domain deep as code;
         create type pair as (a int, b int); create type span as range (subtype = text);
         create type mood as enum ('sad', 'ok');
         create table d (id int primary key, c code not null, i ids not null, e deep not null, m mood not null,
                         ms mood[] not null, r int4range not null, p pair not null, s span not null,
                         ps pair[] not null, cs code[] not null, v int);
         insert into d select i, 'c' || i, array[i], 'e' || i, 'ok', '{sad}', int4range(0, i), (1, i)::pair, span('a', 'b'),
                              array[(1, i)::pair], array['x'::code], i
           from generate_series(1, 3) i",
    );
    for (n, key) in ["c", "i", "e", "m", "ms", "r"].iter().enumerate() {
        for capture in ["scan", "trigger"] {
            let flow = format!("{key}_{capture}");
            // The key as a column of the query; of a group that uses no other column; of rows.
            db.run(&format!(
                "select coco.create_flow('{flow}', 'd', 'select {key}, sum(v) as v from d group by {key}', '{flow}', '{{{key}}}',
                                         source_key => '{{{key}}}', capture => '{capture}')"
            ));
            db.update(&flow, "normal");
            db.verify_clean(&flow);
            db.run(&format!(
                "update d set v = v + {n} + 1 where id = 2; delete from d where id = 3"
            ));
            db.update(&flow, "normal");
            db.verify_clean(&flow);
            assert_eq!(db.update(&flow, "normal")[0].evaluated, 0, "{flow}");
            db.run(&format!("select * from coco.lineage('{flow}', (select to_jsonb(t) - 'v' from {flow} t limit 1))"));
            db.run(
                "insert into d select 3, 'c3', array[3], 'e3', 'ok', '{sad}', int4range(0, 3), (1, 3)::pair, span('a', 'b'),
                                      array[(1, 3)::pair], array['x'::code], 3",
            );
        }
    }
    for key in ["p", "s", "ps", "cs"] {
        let declared = format!(
            "select coco.create_flow('no', 'd', 'select {key}, count(*) as n from d group by {key}', 'no', '{{{key}}}', source_key => '{{{key}}}')"
        );
        let said = fails(&mut db.client, &declared, "0A000");
        assert!(said.contains(&format!("key column \"{key}\"")), "{said}");
    }
}

#[test]
fn a_key_whose_type_has_changed_is_said_so() {
    let mut db = TestDb::new("own_retyped");
    db.run(
        "create table d (id int primary key, v text); insert into d values (1, 'a');
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}')",
    );
    db.update("f", "normal");
    db.run("alter table d add column id2 bigint; update d set id2 = id; alter table d drop constraint d_pkey;
            alter table d rename id to old; alter table d rename id2 to id; alter table d alter old drop not null;
            alter table d add primary key (id)");
    let said = fails(&mut db.client, "select coco.update('f')", "42804");
    assert!(said.contains("has type bigint, but had type integer before"), "{said}");
    // Another flow on the table has the log follow the new type.
    db.run("select coco.create_flow('g', 'd', 'select id, v from d', 'u', '{id}', capture => 'trigger')");
    db.update("g", "normal");
    db.update("g", "normal");
    db.run("insert into d (id, v) values (5000000000, 'b')");
    let c = &db.update("g", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (1, 1), "{c:?}");
    db.verify_clean("g");
}

#[test]
fn an_owner_that_changes_takes_the_views_along() {
    let mut db = with_roles("own_owner", ["own_owner_a", "own_owner_b"]);
    for role in ["own_owner_a", "own_owner_b"] {
        let mut client = db.connect_as(role);
        run(
            &mut client,
            &format!(
                "set search_path = {role}; create table d (id int primary key); insert into d values (1);
                 select coco.create_flow('{role}', 'd', 'select id from d', 't', '{{id}}'); select coco.update('{role}')"
            ),
        );
    }
    // What belongs to a role is given away, its flow is not: the others' rows are there all the same.
    db.run("reassign owned by own_owner_a to own_owner_b");
    for view in ["status", "errors", "tracking", "metrics", "delivery_status"] {
        db.run(&format!("select * from coco.{view}"));
        let mut b = db.connect_as("own_owner_b");
        run(&mut b, &format!("select * from coco.{view}"));
    }
    db.run("select coco.report()");
    db.run("select coco.alter_flow('own_owner_a', owner => 'own_owner_b')");
    let mut b = db.connect_as("own_owner_b");
    run(&mut b, "insert into own_owner_a.d values (2)");
    let mut a = db.connect_as("own_owner_a");
    fails(&mut a, "select * from coco.tracking_1_own_owner_a", "42501");
    db.run("grant usage on schema own_owner_a to own_owner_b");
    run(&mut b, "select coco.update('own_owner_a')");
    assert_eq!(text(&mut b, "select count(*)::text from coco.tracking_1_own_owner_a"), "2");
    // A grant that is gone comes back with the next update.
    db.run("revoke all on coco.tracking_1_own_owner_a from own_owner_b; insert into own_owner_a.d values (3)");
    run(&mut b, "select coco.update('own_owner_a')");
    assert_eq!(text(&mut b, "select count(*)::text from own_owner_a.t"), "3");
}

/// Else a log or an outbox is never emptied while a session stays in its transaction, or looks again and again.
#[test]
fn a_look_at_what_is_pending_keeps_no_lock_on_the_log() {
    let mut db = TestDb::new("own_log_locks");
    db.run(
        "create table d (id int primary key);
         create function once(n int) returns int language sql immutable as 'select n';
         select coco.memoize('once(int)');
         select coco.create_flow('f', 'd', 'select id, once(id) as o from d', 'f', '{id}', capture => 'trigger')",
    );
    db.update("f", "normal");
    db.update("f", "normal");
    db.run("insert into d values (1)");
    let mut looking = db.connect();
    run(&mut looking, "begin");
    let locks = "select coalesce(string_agg(c.relname, ','), 'none')
       from pg_locks l join pg_class c on c.oid = l.relation
      where l.pid = pg_backend_pid() and c.relnamespace = 'coco_internal'::regnamespace
        and c.relname ~ '^(log|tracking|ledger|outbox|memo)_[0-9]'";
    for (look, found) in [
        ("select pending::text from coco.status", "1"),
        ("select value::text from coco.metrics where metric = 'coco_source_pending_changes'", "1"),
        ("select (value > 0)::text from coco.metrics where metric = 'coco_log_bytes'", "true"),
        ("select count(*)::text from coco.errors", "0"),
        ("select count(*)::text from coco.tracking", "0"),
        ("select count(*)::text from coco.delivery_status", "0"),
        ("select entries::text from coco.functions", "0"),
        ("select (count(*) > 0)::text from coco.metrics", "true"),
    ] {
        assert_eq!(text(&mut looking, look), found, "{look}");
        assert_eq!(text(&mut looking, locks), "none", "after {look}");
    }
    run(&mut looking, "rollback");
}

#[test]
fn the_views_wait_for_no_flow() {
    let mut db = TestDb::new("own_views");
    db.run(
        "create table d (id int primary key, v int); insert into d values (1, 0), (2, 1);
         create table e (id int primary key, v int); insert into e values (1, 0), (2, 1);
         create function large(n int) returns int language sql immutable as 'select n * 100';
         select coco.memoize('large(int)');
         select coco.create_flow('f', 'd', 'select id, 1 / v as q, large(id) as l from d', 'f', '{id}', capture => 'trigger');
         select coco.create_flow('g', 'e', 'select id, 1 / v as q, large(id) as l from e', 'g', '{id}', capture => 'trigger')",
    );
    for flow in ["f", "g"] {
        db.update(flow, "normal");
        db.update(flow, "normal");
    }
    let mut looking = db.connect();
    run(&mut looking, "set statement_timeout = '30s'");
    assert_eq!(
        text(&mut looking, "select string_agg(flow, ',' order by flow) from coco.errors"),
        "f,g"
    );
    let mut other = db.connect();
    // All that a flow has is locked, until its transaction ends.
    for change in [
        "select coco.drop_flow('f')",
        "lock table coco_internal.tracking_1 in access exclusive mode",
        "lock table d in access exclusive mode",
        "lock table f in access exclusive mode",
        "lock table coco_internal.log_1_0 in access exclusive mode",
    ] {
        run(&mut other, "begin");
        run(&mut other, change);
        for view in [
            "status",
            "errors",
            "tracking",
            "delivery_status",
            "metrics",
            "progress",
            "workers",
            "sources",
            "functions",
            "kept_results",
        ] {
            run(&mut looking, &format!("select * from coco.{view}"));
        }
        run(&mut looking, "select coco.report()");
        let flows =
            text(&mut looking, "select string_agg(flow, ',' order by flow) from coco.status");
        assert_eq!(flows, "f,g", "{change}");
        assert!(
            text(&mut looking, "select string_agg(flow, ',') from coco.errors").contains('g'),
            "{change}"
        );
        run(&mut other, "rollback");
    }
    let functions =
        "select string_agg(flow, ',' order by flow) from coco.functions where entries > 0";
    assert_eq!(text(&mut looking, functions), "f,g");
    let memo = text(
        &mut looking,
        "select min(relname) from pg_class where relnamespace = 'coco_internal'::regnamespace
            and relkind = 'r' and relname like 'memo%'",
    );
    run(&mut other, &format!("begin; lock table coco_internal.{memo} in access exclusive mode"));
    assert_eq!(text(&mut looking, functions), "g");
    run(&mut other, "rollback");
    db.run(&format!("drop table coco_internal.{memo} cascade"));
    assert_eq!(text(&mut looking, functions), "g");
    db.run("drop table coco_internal.tracking_1 cascade");
    assert_eq!(text(&mut looking, "select string_agg(flow, ',') from coco.errors"), "g");
    assert_eq!(
        text(&mut looking, "select string_agg(flow, ',' order by flow) from coco.status"),
        "f,g"
    );
    run(&mut looking, "select coco.report(); select coco.drop_flow('f')");
}

#[cfg(feature = "http")]
#[test]
fn an_outbox_keeps_values_that_run_no_code() {
    let receiver = http::Receiver::start();
    let mut db = with_roles("own_outbox", ["own_outbox_a", "own_outbox_b"]);
    db.run(&format!(
        "create server hooks foreign data wrapper coco_http options (url '{}');
         grant usage on foreign server hooks to own_outbox_a;
         create user mapping for own_outbox_a server hooks options (bearer_token 'x')",
        receiver.url()
    ));
    let mut a = db.connect_as("own_outbox_a");
    run(&mut a, "set search_path = own_outbox_a");
    run(&mut a, WATCHED);
    run(
        &mut a,
        "create type pair as (b int, a text);
         create table d (id int primary key, w watched, m mood, p pair, ps pair[]);
         insert into d values (1, 7, 'ok', (1, 'x')::pair, array[(2, 'y')::pair]), (2, null, null, null, null);
         select coco.create_flow('f', 'd', 'select id, w, m, p, ps from d', 'out', '{id}', server => 'hooks')",
    );
    let update = "select coco.update('f')";
    run(&mut a, update);
    let one = || receiver.rows("f", "out")["{\"id\":1}"].clone();
    let row: serde_json::Value = serde_json::from_str(&one()).expect("JSON");
    assert_eq!(
        row,
        serde_json::json!({"id": 1, "w": 7, "m": "ok", "p": {"b": 1, "a": "x"}, "ps": [{"b": 2, "a": "y"}]})
    );
    assert_eq!(
        text(
            &mut db.client,
            "select string_agg(format_type(atttypid, null), ' ' order by attnum) from pg_attribute
              where attrelid = 'coco_internal.outbox_1'::regclass and attname ~ '^c[0-9]'"
        ),
        "integer integer own_outbox_a.mood json json"
    );
    fails(&mut a, "alter table coco.outbox_1_f alter column c2 type bigint", "42501");
    fails(&mut a, "insert into coco.outbox_1_f (version) values (1)", "42501");
    // By batches, and after another query.
    run(&mut a, "update d set p = (5, 'z'), w = 8 where id = 1");
    run(&mut a, update);
    assert!(one().contains("\"z\""), "{}", one());
    run(&mut a, "select coco.set_query('f', null, 'select id, w::text as w, p from d')");
    run(&mut a, update);
    run(&mut a, "delete from d where id = 2");
    run(&mut a, update);
    assert_eq!(receiver.rows("f", "out").len(), 1);
    assert_eq!(text(&mut a, "select count(*)::text from coco.verify('f')"), "0");
    let said = fails(
        &mut a,
        "select coco.create_flow('no', 'd', 'select p, count(*) as n from d group by p', 'no', '{p}', source_key => '{id}', server => 'hooks')",
        "0A000",
    );
    assert!(said.contains("cannot be sent"), "{said}");
    assert_eq!(
        text(&mut db.client, "select string_agg(distinct who, ', ') from own_outbox_a.trace"),
        "own_outbox_a"
    );
}
