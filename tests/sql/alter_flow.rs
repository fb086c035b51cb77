//! `coco.rename_flow`, and what `coco.alter_flow` changes of sources, settings and targets: without
//! declaring the flow again, without missing a change, and without computing memoized results again.
//! Also what follows when users rename tables and columns.

use crate::support;

use postgres::Client;
use support::{TestDb, explain};

fn text(db: &mut TestDb, sql: &str) -> String {
    let row = db.client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())
}

fn number(db: &mut TestDb, sql: &str) -> i64 {
    let row = db.client.query_one(&format!("select ({sql})::bigint"), &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

fn fails(client: &mut Client, sql: &str, sqlstate: &str) -> String {
    let e = client.batch_execute(sql).expect_err(sql);
    let explained = explain(&e);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {explained}");
    explained
}

/// What one update of a flow with one source evaluates and writes.
fn evaluated(db: &mut TestDb, flow: &str) -> (i64, i64) {
    let counts = db.update(flow, "normal").remove(0);
    assert_eq!(counts.failed, 0, "{counts:?}");
    (counts.evaluated, counts.upserted)
}

/// A memoized function `plain` that returns its text in capitals, and counts its calls.
const PLAIN: &str = "create sequence calls;
    create function plain(t text) returns text language plpgsql as
      $$ begin perform nextval('public.calls'); return upper(t); end $$;
    select coco.memoize('plain(text)')";

fn calls(db: &mut TestDb) -> i64 {
    number(db, "select case when is_called then last_value else 0 end from calls")
}

/// The views in schema coco whose names end with a flow's name.
fn views_of(db: &mut TestDb, flow: &str) -> i64 {
    number(
        db,
        &format!(
            "select count(*) from pg_class
              where relnamespace = 'coco'::regnamespace and relkind = 'v'
                and relname ~ '^[a-z]+_[0-9]+_' and right(relname, length('{flow}') + 1) = '_{flow}'"
        ),
    )
}

/// The catalog rows that have a flow's name.
fn rows_of(db: &mut TestDb, flow: &str) -> i64 {
    number(
        db,
        &format!(
            "select count(*) from (select flow from coco.flow union all select flow from coco.source
                                   union all select flow from coco.target union all select flow from coco.logic
                                   union all select flow from coco.memo_stats) q where flow = '{flow}'"
        ),
    )
}

#[test]
fn a_renamed_flow_keeps_all_that_it_has() {
    let mut db = TestDb::new("rename");
    db.run(PLAIN);
    db.run(
        "create table d (id int primary key, body text not null, n int not null default 1);
         create table l (id int primary key, x int);
         insert into d select i, 'b' || i from generate_series(1, 10) i; insert into l values (1, 1);
         select coco.create_flow('f'); select coco.alter_flow('f', label => 'v1');
         select coco.add_source('f', 'd', ordinal => 'n');
         select coco.add_lookup('f', 'l', affects => 'select id from l');
         select coco.add_target('f', 't', 'select d.id, plain(d.body) as u, l.x from d left join l on l.id = d.id', '{id}')",
    );
    assert_eq!(evaluated(&mut db, "f"), (10, 10));
    assert_eq!((views_of(&mut db, "f"), calls(&mut db)), (6, 10));
    let rows = rows_of(&mut db, "f");

    let new = "g \"x\"";
    db.run("select coco.rename_flow('f', 'g \"x\"')");
    // Names and comments of query, ordinal, affects, memoized results and two tracking tables.
    assert_eq!((views_of(&mut db, "f"), views_of(&mut db, new)), (0, 6));
    assert_eq!((rows_of(&mut db, "f"), rows_of(&mut db, new)), (0, rows));
    let comments = "select count(*) from pg_description where description ~ 'flow ";
    assert_eq!(number(&mut db, &format!("{comments}f( |,|[.]|$)'")), 0);
    assert_eq!(number(&mut db, &format!("{comments}g \"x\"( |,|[.]|$)'")), 9);
    for view in ["flows", "sources", "lookups", "targets", "tracking", "functions", "status"] {
        let sql = format!("select string_agg(distinct flow, ',') from coco.{view}");
        assert_eq!(text(&mut db, &sql), new, "{view}");
    }
    // The history, the lineage and the results stay, and nothing is evaluated.
    assert_eq!(number(&mut db, "select count(*) from coco.history('g \"x\"')"), 1);
    let lineage = "select concat_ws(' ', flow, label, state) from coco.lineage('t', '{\"id\": 1}')";
    assert_eq!(text(&mut db, lineage), format!("{new} v1 produced"));
    assert_eq!(evaluated(&mut db, new), (0, 0));
    db.run("insert into d values (11, 'b1')");
    assert_eq!((evaluated(&mut db, new), calls(&mut db)), ((1, 1), 10));
    db.run("update l set x = 2");
    assert_eq!(evaluated(&mut db, new), (1, 1));
    db.verify_clean(new);

    // The former name is free, and belongs to another flow from now on.
    let e = fails(&mut db.client, "select coco.update('f')", "42704");
    assert!(e.contains("flow \"f\" does not exist"), "{e}");
    db.run("select coco.create_flow('f', 'd', 'select id, n from d', 'u', '{id}')");
    assert_eq!(evaluated(&mut db, "f"), (11, 11));
    assert_eq!(evaluated(&mut db, new), (0, 0));

    // Other calls know the new names.
    db.run("select coco.set_query('g \"x\"', 't', 'select d.id, plain(d.body) as u, l.x + 1 as x from d left join l on l.id = d.id')");
    assert_eq!((evaluated(&mut db, new).0, calls(&mut db)), (11, 10));
    db.run("select coco.alter_flow('g \"x\"', ordinal => '')");
    db.verify_clean(new);
    db.run("select coco.drop_flow('g \"x\"', false)");
    assert_eq!((views_of(&mut db, new), rows_of(&mut db, new)), (0, 0));
    db.verify_clean("f");
}

#[test]
fn errors_of_items_follow_a_renamed_flow() {
    let mut db = TestDb::new("rename_errors");
    db.run(
        "create table d (id int primary key, v int not null); insert into d values (1, 1), (2, 0);
         select coco.create_flow('f', 'd', 'select id, 1 / v as v from d', 't', '{id}'); select coco.update('f');
         select coco.rename_flow('f', 'g')",
    );
    let failing = "select concat_ws(' ', flow, source_key, sqlstate) from coco.errors";
    assert_eq!(text(&mut db, failing), "g {\"id\": 2} 22012");
    assert_eq!(text(&mut db, "select concat_ws(' ', flow, state) from coco.status"), "g degraded");
    db.run("update d set v = 1; select coco.retry('g')");
    assert_eq!(number(&mut db, "select count(*) from coco.errors"), 0);
    db.verify_clean("g");
}

#[test]
fn long_names_are_renamed_too() {
    let mut db = TestDb::new("rename_long");
    let long = "ä".repeat(31);
    db.run(&format!(
        "create table d (id int primary key); insert into d values (1);
         select coco.create_flow('{long}', 'd', 'select id from d', 't', '{{id}}'); select coco.update('{long}')"
    ));
    for (old, new) in [(long.as_str(), "s"), ("s", long.as_str()), (long.as_str(), "e")] {
        db.run(&format!("select coco.rename_flow('{old}', '{new}')"));
        assert_eq!(evaluated(&mut db, new), (0, 0), "{new}");
    }
    assert_eq!(views_of(&mut db, "e"), 2);
}

#[test]
fn two_flows_exchange_their_names_in_one_transaction() {
    let mut db = TestDb::new("rename_swap");
    db.run(
        "create table d (id int primary key, v int not null); insert into d values (1, 1), (2, 2);
         select coco.create_flow('a', 'd', 'select id, v from d', 'ta', '{id}');
         select coco.create_flow('b', 'd', 'select id, v * 10 as v from d', 'tb', '{id}');
         select coco.update('a'); select coco.update('b');
         begin; select coco.rename_flow('a', 'x'); select coco.rename_flow('b', 'a');
         select coco.rename_flow('x', 'b'); commit",
    );
    let targets = "select string_agg(flow || ' ' || target, ', ' order by flow) from coco.targets";
    assert_eq!(text(&mut db, targets), "a public.tb, b public.ta");
    assert_eq!((evaluated(&mut db, "a"), evaluated(&mut db, "b")), ((0, 0), (0, 0)));
    db.run("update d set v = 3 where id = 1");
    assert_eq!((evaluated(&mut db, "a"), evaluated(&mut db, "b")), ((1, 1), (1, 1)));
    db.verify_clean("a");
    db.verify_clean("b");
    // A rollback gives the names back.
    db.run("begin; select coco.rename_flow('a', 'c'); rollback");
    assert_eq!(evaluated(&mut db, "a"), (0, 0));
}

/// Makes roles, which are the cluster's: other tests of this suite may have made them.
fn roles(db: &mut TestDb) {
    for role in ["coco_renaming_alice", "coco_renaming_bob"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$;
             grant usage on schema coco to {role}; create schema {role} authorization {role}"
        ));
    }
}

#[test]
fn only_its_owner_renames_a_flow_and_only_to_a_free_name() {
    let mut db = TestDb::new("rename_rights");
    roles(&mut db);
    for role in ["coco_renaming_alice", "coco_renaming_bob"] {
        db.connect_as(role)
            .batch_execute(&format!(
                "set search_path = {role}; create table d (id int primary key); insert into d values (1);
                 select coco.create_flow('{role}', 'd', 'select id from d', 't', '{{id}}'); select coco.update('{role}')"
            ))
            .unwrap_or_else(|e| panic!("{}", explain(&e)));
    }
    let mut bob = db.connect_as("coco_renaming_bob");
    let rename = |old: &str, new: &str| format!("select coco.rename_flow('{old}', '{new}')");
    let (hers, his) = ("coco_renaming_alice", "coco_renaming_bob");
    let e = fails(&mut bob, &rename(hers, "mine"), "42501");
    assert!(e.contains("must be owner of flow"), "{e}");
    // The name of another role's flow is taken, and no more is said of it.
    for taken in [hers, his] {
        let e = fails(&mut bob, &rename(his, taken), "42710");
        assert!(e.contains(&format!("flow \"{taken}\" already exists")), "{e}");
    }
    fails(&mut bob, &rename("nowhere", "x"), "42704");
    for empty in ["", " "] {
        fails(&mut bob, &rename(his, empty), "22023");
    }
    fails(&mut bob, &rename(his, &"x".repeat(64)), "42622");
    // A name is data, whatever is in it.
    let odd = "''; drop table d; --";
    bob.batch_execute(&rename(his, odd)).unwrap_or_else(|e| panic!("{}", explain(&e)));
    bob.batch_execute(&format!("select coco.update('{odd}'); select coco.drop_flow('{odd}')"))
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    assert_eq!(evaluated(&mut db, hers), (0, 0));
}

#[test]
fn a_name_that_another_session_is_declaring_is_taken() {
    let mut db = TestDb::new("rename_race");
    db.run(
        "create table d (id int primary key);
         select coco.create_flow('f', 'd', 'select id from d', 't', '{id}')",
    );
    let mut other = db.connect();
    other.batch_execute("begin; select coco.create_flow('g')").expect("declared");
    let mut waiting = db.connect();
    let renamed = std::thread::spawn(move || {
        fails(&mut waiting, "select coco.rename_flow('f', 'g')", "42710")
    });
    let waits = "select exists (select from pg_locks where not granted and locktype = 'transactionid'
                                   and pid in (select pid from pg_stat_activity where datname = current_database()))::int";
    support::server::until("the session waits", || number(&mut db, waits) == 1);
    other.batch_execute("commit").expect("committed");
    let e = renamed.join().expect("it failed as it should");
    assert!(e.contains("flow \"g\" already exists"), "{e}");
    db.update("f", "normal");
}

#[test]
fn a_new_fingerprint_evaluates_again_and_computes_nothing_again() {
    let mut db = TestDb::new("alter_fingerprint");
    db.run(PLAIN);
    db.run(
        "create table d (id int primary key, body text not null, extra text);
         insert into d select i, 'a' || i from generate_series(1, 3) i;
         select coco.create_flow('f', 'd', 'select id, plain(body) as u from d', 't', '{id}')",
    );
    assert_eq!((evaluated(&mut db, "f"), calls(&mut db)), ((3, 3), 3));
    db.run("select coco.alter_flow('f', fingerprint => 'lower(body)')");
    assert_eq!((evaluated(&mut db, "f"), calls(&mut db)), ((3, 0), 3));
    // The same expression again is no change.
    db.run("select coco.alter_flow('f', source => 'd', fingerprint => 'lower(body)')");
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
    db.run("update d set body = upper(body)");
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
    assert_eq!(text(&mut db, "select fingerprint from coco.sources"), "lower(body)");
    // Without it, the content counts again.
    db.run("select coco.alter_flow('f', fingerprint => '')");
    assert_eq!((evaluated(&mut db, "f"), calls(&mut db)), ((3, 0), 6));
    assert_eq!(text(&mut db, "select fingerprint from coco.sources"), "NULL");
    assert_eq!(number(&mut db, "select count(expressions) from coco.source"), 0);
    assert_eq!(
        number(&mut db, "select count(*) from pg_class where relname like 'source\\_%\\_f'"),
        0
    );
    // To remove what is not declared is no change.
    db.run("select coco.alter_flow('f', fingerprint => '', ordinal => '')");
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
    db.verify_clean("f");

    for (argument, sqlstate) in [
        ("fingerprint => 'nothing'", "42703"),
        ("fingerprint => 'random()'", "22023"),
        ("fingerprint => 'body; drop table d'", "42601"),
        ("fingerprint => '(select count(*) from d x)'", "0A000"),
        ("ordinal => 'body'", "42804"),
        ("ordinal => 'id', source => 'x'", "42704"),
    ] {
        fails(&mut db.client, &format!("select coco.alter_flow('f', {argument})"), sqlstate);
    }
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
}

#[test]
fn an_expression_that_stays_keeps_the_objects_to_which_it_was_bound() {
    let mut db = TestDb::new("alter_kept_expression");
    db.run(
        "create table d (id int primary key, body text not null, n int not null);
         insert into d values (1, 'a', 1), (2, 'b', 1);
         create schema one; create schema other;
         create function one.rev(int) returns int language sql immutable as 'select $1';
         create function other.rev(int) returns int language sql immutable as 'select -$1';
         set search_path = public, one;
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', ordinal => 'rev(n)');
         reset search_path; select coco.update('f');
         select coco.alter_flow('f', search_path => 'other, public')",
    );
    let definition = "select pg_get_viewdef(expressions) from coco.source";
    for fingerprint in ["lower(body)", "", "upper(body)"] {
        db.run(&format!("select coco.alter_flow('f', fingerprint => '{fingerprint}')"));
        let bound = text(&mut db, definition);
        assert!(bound.contains("one.rev(") && !bound.contains("other"), "{bound}");
        assert_eq!(bound.contains("AS fingerprint"), !fingerprint.is_empty(), "{bound}");
        assert_eq!(evaluated(&mut db, "f").0, 2);
        db.run("update d set body = body || '!', n = n + 1");
        assert_eq!(evaluated(&mut db, "f"), (2, 2));
    }
    // One that is specified is bound now, under the flow's search path, and the other one stays.
    db.run("select coco.alter_flow('f', ordinal => 'rev(n) + 0')");
    let bound = text(&mut db, definition);
    assert!(bound.contains("other.rev(") && bound.contains("upper"), "{bound}");
    db.run("select coco.alter_flow('f', ordinal => '')");
    let bound = text(&mut db, definition);
    assert!(!bound.contains("rev") && bound.contains("upper"), "{bound}");
    db.update("f", "normal");
    db.verify_clean("f");
}

#[test]
fn ordinals_of_another_expression_are_not_compared() {
    let mut db = TestDb::new("alter_ordinal");
    db.run(
        "create table d (id int primary key, v int not null, n int not null, m int not null);
         insert into d values (1, 1, 5, 1), (2, 2, 5, 1);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}', ordinal => 'n')",
    );
    assert_eq!(evaluated(&mut db, "f"), (2, 2));
    // The ordinal says that nothing has changed.
    db.run("update d set v = 10, m = 2 where id = 1");
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
    // The new one has smaller values; what the old one hid is found.
    db.run("select coco.alter_flow('f', ordinal => 'm')");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    assert_eq!(text(&mut db, "select v::text from t where id = 1"), "10");
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
    db.run("update d set v = 11, m = 3 where id = 1; update d set v = 0, m = 0 where id = 2");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    // Without an ordinal, the content decides again.
    db.run("select coco.alter_flow('f', ordinal => '')");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    db.run("update d set v = 12 where id = 1");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    db.verify_clean("f");
    // A first ordinal.
    db.run("select coco.alter_flow('f', ordinal => 'm'); update d set v = 13, m = 4 where id = 1");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    db.run("update d set v = 14 where id = 1");
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
}

#[test]
fn an_ordinal_is_neither_given_to_groups_nor_taken_from_a_key_that_it_promises() {
    let mut db = TestDb::new("alter_ordinal_groups");
    db.run(
        "create table d (id int primary key, c int not null, v int not null, n int not null);
         insert into d values (1, 1, 1, 1), (2, 1, 2, 1); create view w as select * from d;
         create table l (id int primary key);
         select coco.create_flow('g', 'd', 'select c, sum(v) as v from d group by c', 'tg', '{c}', source_key => '{c}');
         select coco.create_flow('w', 'w', 'select id, v from w', 'tw', '{id}', source_key => '{id}', ordinal => 'n');
         select coco.add_lookup('w', 'l');
         select coco.update('g'); select coco.update('w')",
    );
    let e = fails(&mut db.client, "select coco.alter_flow('g', ordinal => 'n')", "0A000");
    assert!(e.contains("not supported for groups"), "{e}");
    let e = fails(&mut db.client, "select coco.alter_flow('w', ordinal => '')", "0A000");
    assert!(e.contains("cannot remove the ordinal of source \"w\""), "{e}");
    for argument in ["ordinal => 'id'", "fingerprint => 'id'"] {
        let sql = format!("select coco.alter_flow('w', source => 'l', {argument})");
        let e = fails(&mut db.client, &sql, "0A000");
        assert!(e.contains("lookup \"l\" cannot have"), "{e}");
    }
    db.run("select coco.alter_flow('w', ordinal => 'n + v'); update d set v = 5 where id = 1");
    assert_eq!(evaluated(&mut db, "w"), (1, 1));
    db.run("select coco.alter_flow('g', fingerprint => 'v')");
    db.update("g", "normal");
    db.verify_clean("g");
    db.verify_clean("w");
}

#[test]
fn no_change_is_lost_between_capture_modes() {
    let mut db = TestDb::new("alter_capture");
    db.run(
        "create table d (id int primary key, v int not null); insert into d values (1, 1), (2, 2), (3, 3);
         create table l (id int primary key, x int); insert into l values (1, 1);
         create view w as select * from d;
         select coco.create_flow('f'); select coco.add_source('f', 'd');
         select coco.add_lookup('f', 'l', affects => 'select id from l');
         select coco.add_target('f', 't', 'select d.id, d.v, l.x from d left join l on l.id = d.id', '{id}');
         select coco.update('f')",
    );
    let triggers = |db: &mut TestDb, table: &str| {
        number(
            db,
            &format!(
                "select count(*) from pg_trigger where tgrelid = '{table}'::regclass and tgname like 'coco%'"
            ),
        )
    };
    assert!(triggers(&mut db, "d") > 0 && triggers(&mut db, "l") > 0);
    for (source, change) in
        [("d", "update d set v = v + 100 where id = 1"), ("l", "update l set x = x + 100")]
    {
        let mode = |mode: &str| {
            format!("select coco.alter_flow('f', source => '{source}', capture => '{mode}')")
        };
        for capture in ["scan", "trigger", "scan", "always", "trigger", "scan", "auto"] {
            // A change that the previous mode has recorded, or not, and one after it.
            db.run(change);
            db.run(&mode(capture));
            assert_eq!(evaluated(&mut db, "f"), (1, 1), "{source} {capture}");
            assert_eq!(triggers(&mut db, source) > 0, capture != "scan", "{source} {capture}");
            db.run(change);
            assert_eq!(evaluated(&mut db, "f"), (1, 1), "{source} {capture}");
            db.verify_clean("f");
        }
    }
    let modes =
        "select (select capture from coco.sources) || ' ' || (select capture from coco.lookups)";
    assert_eq!(text(&mut db, modes), "trigger trigger");

    // Two flows share the triggers of a table: they stay as long as one needs them.
    db.run("select coco.create_flow('g', 'd', 'select id from d', 'u', '{id}'); select coco.alter_flow('g', capture => 'scan')");
    assert!(triggers(&mut db, "d") > 0);
    db.run("select coco.create_flow('w', 'w', 'select id, v from w', 'tw', '{id}', source_key => '{id}')");
    for (call, sqlstate) in [
        ("'w', capture => 'trigger'", "0A000"),
        ("'f', source => 'd', capture => 'sometimes'", "22023"),
        ("'f', source => 'd'", "22023"),
        ("'f', source => 'd', refresh_interval => '-1 s'", "22023"),
    ] {
        fails(&mut db.client, &format!("select coco.alter_flow({call})"), sqlstate);
    }
    db.run("select coco.alter_flow('w', refresh_interval => '5 minutes')");
    let interval = "select refresh_interval::text from coco.sources where flow = 'w'";
    assert_eq!(text(&mut db, interval), "00:05:00");
}

#[test]
fn of_several_sources_the_one_to_alter_is_named() {
    let mut db = TestDb::new("alter_sources");
    db.run(
        "create table a (id int primary key, v int); create table b (id int primary key, v int);
         insert into a values (1, 1); insert into b values (2, 2);
         select coco.create_flow('f'); select coco.add_source('f', 'a'); select coco.add_source('f', 'b');
         select coco.add_target('f', 't', 'select id, v from a union all select id, v from b', '{id}');
         select coco.update('f')",
    );
    let e = fails(&mut db.client, "select coco.alter_flow('f', capture => 'scan')", "22023");
    assert!(e.contains("argument \"source\" is missing") && e.contains("a, b"), "{e}");
    db.run("select coco.alter_flow('f', source => 'b', ordinal => 'v', capture => 'scan')");
    let shown = "select string_agg(concat_ws(' ', source, capture, ordinal), ', ' order by source) from coco.sources";
    assert_eq!(text(&mut db, shown), "a trigger, b scan v");
    let counts = db.update("f", "normal");
    assert_eq!(counts.iter().map(|c| c.evaluated).sum::<i64>(), 0, "{counts:?}");
    db.verify_clean("f");
}

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

#[test]
fn names_of_target_tables_follow_the_tables() {
    let mut db = TestDb::new("renamed_targets");
    db.run(
        "create table d (id int primary key, v int not null); insert into d values (1, 1), (2, 2);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}'); select coco.update('f');
         alter table t rename to was_t",
    );
    let shown = "select string_agg(flow || ' ' || target, ', ' order by flow) from coco.targets";
    assert_eq!(text(&mut db, shown), "f public.was_t");
    // The former name is free at once.
    db.run("select coco.create_flow('g', 'd', 'select id, v * 10 as v from d', 't', '{id}')");
    assert_eq!(evaluated(&mut db, "g"), (2, 2));
    assert_eq!(text(&mut db, shown), "f public.was_t, g public.t");
    let lineage =
        |table: &str| format!("select flow from coco.lineage('{table}', '{{\"id\": 1}}')");
    assert_eq!(text(&mut db, &lineage("was_t")), "f");
    assert_eq!(text(&mut db, &lineage("public.t")), "g");

    // Two tables exchange their names, and one moves to another schema.
    db.run("begin; alter table t rename to x; alter table was_t rename to t; alter table x rename to was_t; commit");
    assert_eq!((evaluated(&mut db, "f"), evaluated(&mut db, "g")), ((0, 0), (0, 0)));
    assert_eq!(text(&mut db, shown), "f public.t, g public.was_t");
    let stored = "select string_agg(schema || '.' || name, ', ' order by flow) from coco.target";
    assert_eq!(text(&mut db, stored), "public.t, public.was_t");
    db.run("create schema s; alter table was_t set schema s; update d set v = 3 where id = 1");
    assert_eq!((evaluated(&mut db, "f"), evaluated(&mut db, "g")), ((1, 1), (1, 1)));
    assert_eq!(text(&mut db, shown), "f public.t, g s.was_t");
    db.verify_clean("f");
    db.verify_clean("g");

    // A dropped table is made again under its last name; its name is reserved meanwhile.
    db.run("drop table s.was_t");
    let sql = "select coco.create_flow('h', 'd', 'select id, v from d', 's.was_t', '{id}')";
    let e = fails(&mut db.client, sql, "55006");
    assert!(e.contains("already belongs to flow \"g\""), "{e}");
    assert_eq!(evaluated(&mut db, "g"), (2, 2));
    assert_eq!(text(&mut db, "select to_regclass('s.was_t')::text"), "s.was_t");
    db.verify_clean("g");
    // A table that takes a dropped target's name does not hinder the others.
    db.run("drop table s.was_t; alter table t rename to was_t; alter table was_t set schema s; update d set v = 4 where id = 1");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    assert_eq!(text(&mut db, shown), "f s.was_t, g s.was_t");
    let e = fails(&mut db.client, "select coco.update('g')", "55006");
    assert!(e.contains("table s.was_t is already another target"), "{e}");
    db.run("alter table s.was_t rename to t");
    assert_eq!(evaluated(&mut db, "g"), (2, 2));
    assert_eq!(text(&mut db, shown), "f s.t, g s.was_t");
    db.verify_clean("f");
    db.verify_clean("g");
}

#[test]
fn used_columns_follow_renamed_columns() {
    let mut db = TestDb::new("renamed_columns");
    db.run(
        "create table d (id int primary key, v int not null, n int not null); insert into d values (1, 1, 1);
         create table l (id int primary key, x int, y int); insert into l values (1, 1, 1);
         select coco.create_flow('f'); select coco.add_source('f', 'd', ordinal => 'n', fingerprint => 'v');
         select coco.add_lookup('f', 'l', affects => 'select id from l');
         select coco.add_target('f', 't', 'select d.id, d.v, l.x from d left join l on l.id = d.id', '{id}');
         select coco.update('f');
         alter table d rename v to w; alter table d rename n to o; alter table l rename x to z",
    );
    assert_eq!(evaluated(&mut db, "f"), (0, 0));
    let used = "select (select used_columns::text from coco.sources) || (select used_columns::text from coco.lookups)";
    assert_eq!(text(&mut db, used), "{id,w}{id,z}");
    db.run("update d set w = 2, o = 2");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    // An expression that stays follows, too, although its text names the former column.
    db.run("select coco.alter_flow('f', fingerprint => 'w + 1'); update d set w = 3, o = 3");
    assert_eq!(evaluated(&mut db, "f"), (1, 1));
    db.verify_clean("f");
}
