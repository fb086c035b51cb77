//! `coco.rename_flow`, and names of tables and columns that users change.

use super::{PLAIN, calls, evaluated, fails, number, roles, text};
use crate::support::{self, TestDb, explain};

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
            "select count(*) from (select flow from coco_internal.flow union all select flow from coco_internal.source
                                   union all select flow from coco_internal.target union all select flow from coco_internal.logic
                                   union all select flow from coco_internal.memo_stats) q where flow = '{flow}'"
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
    let stored =
        "select string_agg(schema || '.' || name, ', ' order by flow) from coco_internal.target";
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
