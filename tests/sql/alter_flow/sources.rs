//! What `coco.alter_flow` changes of sources: fingerprints, ordinals and capture modes.

use super::{PLAIN, calls, evaluated, fails, number, text};
use crate::support::TestDb;

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
    assert_eq!(number(&mut db, "select count(expressions) from coco_internal.source"), 0);
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
    let definition = "select pg_get_viewdef(expressions) from coco_internal.source";
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
