//! Capture: whatever changes a captured table, and however, the next update finds it, and looks at
//! nothing else; and no writer notices.

use crate::support;

use std::sync::{Arc, Mutex};

use postgres::Client;
use support::server::until;
use support::{TestDb, explain};

fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
}

fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
}

fn refused(client: &mut Client, sql: &str, code: &str) {
    let e = client.batch_execute(sql).expect_err(sql);
    assert!(explain(&e).contains(&format!("({code})")), "{sql}: {}", explain(&e));
}

/// A table of ten rows, and the flow `f` that has been updated once.
fn ten_rows(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("capture_{name}"));
    db.run(
        "create table d (id int primary key, body text, unused int);
         insert into d select i, 'row ' || i, 0 from generate_series(1, 10) i;
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "f"), [10, 10, 10, 0]);
    db
}

/// Updates a flow: seen, evaluated, upserted, deleted. The target is right then, and nothing is
/// left to look at.
fn looked_at(db: &mut TestDb, flow: &str) -> [i64; 4] {
    let c = db.update(flow, "normal").remove(0);
    assert_eq!(c.failed, 0, "{c:?}");
    db.verify_clean(flow);
    let again = db.update(flow, "normal").remove(0);
    assert_eq!((again.seen, again.evaluated), (0, 0), "an update right after another: {again:?}");
    [c.seen, c.evaluated, c.upserted, c.deleted]
}

/// As [`looked_at`], and what is found may take a scan or two.
fn comes_right(db: &mut TestDb, flow: &str) {
    let c = db.update(flow, "normal").remove(0);
    assert_eq!(c.failed, 0, "{c:?}");
    db.verify_clean(flow);
}

// Statements

#[test]
fn an_insert_is_found() {
    let mut db = ten_rows("insert");
    db.run("insert into d values (11, 'a'), (12, 'b')");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    db.run("insert into d select i, 'more', 1 from generate_series(100, 2099) i");
    assert_eq!(looked_at(&mut db, "f"), [2000, 2000, 2000, 0]);
}

#[test]
fn an_update_is_found() {
    let mut db = ten_rows("update");
    db.run("update d set body = 'a' where id in (3, 4)");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    db.run("update d set body = 'a' where id in (3, 4, 5)");
    assert_eq!(looked_at(&mut db, "f"), [3, 1, 1, 0]);
}

#[test]
fn a_delete_is_found() {
    let mut db = ten_rows("delete");
    db.run("delete from d where id > 7");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 3]);
    db.run("delete from d where id > 100");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

#[test]
fn a_truncate_is_found() {
    let mut db = ten_rows("truncate");
    db.run("truncate d; insert into d values (1, 'row 1', 5), (11, 'new', 5)");
    assert_eq!(looked_at(&mut db, "f"), [2, 1, 1, 9]);
    db.run(
        "begin; insert into d values (12, 'x'); truncate d; insert into d values (13, 'y'); commit",
    );
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 2]);
    db.run("begin; truncate d; rollback");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

#[test]
fn a_copy_is_found() {
    use std::io::Write;
    let mut db = ten_rows("copy");
    let mut copy = db.client.copy_in("copy d (id, body) from stdin").expect("copy");
    for id in 100..1700 {
        writeln!(copy, "{id}\tcopied").expect("a line");
    }
    copy.finish().expect("copied");
    assert_eq!(looked_at(&mut db, "f"), [1600, 1600, 1600, 0]);
}

#[test]
fn a_merge_is_found() {
    let mut db = ten_rows("merge");
    if text(&mut db.client, "select current_setting('server_version_num')").as_str() < "150000" {
        return;
    }
    db.run(
        "merge into d using (values (1, 'set'), (2, null), (3, 'row 3'), (11, 'new')) as s (id, body)
            on d.id = s.id
          when matched and s.body is null then delete
          when matched then update set body = s.body
          when not matched then insert values (s.id, s.body, 0)",
    );
    assert_eq!(looked_at(&mut db, "f"), [3, 2, 2, 1]);
}

#[test]
fn an_insert_on_conflict_is_found_as_what_it_does() {
    let mut db = ten_rows("conflict");
    db.run("insert into d values (1, 'a'), (11, 'b') on conflict (id) do update set body = excluded.body");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    db.run("insert into d values (1, 'c'), (12, 'd') on conflict do nothing");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("insert into d values (1, 'c') on conflict (id) do update set body = excluded.body where d.id > 1");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

#[test]
fn several_changes_of_a_table_in_one_statement_are_found() {
    let mut db = ten_rows("with");
    db.run(
        "with a as (update d set body = 'a' where id in (1, 2) returning id),
              b as (update d set id = id + 100 where id in (3, 4) returning id),
              c as (insert into d values (50, 'c') returning id)
         delete from d where id in (5, 6)",
    );
    assert_eq!(looked_at(&mut db, "f"), [5, 5, 5, 4]);
}

#[test]
fn another_key_is_a_row_gone_and_a_row_come() {
    let mut db = ten_rows("key");
    db.run("update d set id = 100 where id = 1");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 1]);
    // keys that change hands
    db.run("update d set id = id + 1000; update d set id = id - 999");
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

#[test]
fn a_change_of_nothing_that_is_used_evaluates_nothing() {
    let mut db = ten_rows("unused");
    db.run("update d set unused = 1 where id < 5; update d set body = body where id = 7");
    let c = &db.update("f", "normal")[0];
    assert_eq!((c.seen, c.unchanged, c.evaluated, c.upserted), (5, 5, 0, 0), "{c:?}");
}

#[test]
fn an_ordinal_decides_about_what_is_found() {
    let mut db = TestDb::new("capture_ordinal");
    db.run(
        "create table d (id int primary key, body text, version int not null);
         insert into d select i, 'a', 5 from generate_series(1, 10) i;
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', ordinal => 'version', capture => 'trigger')",
    );
    looked_at(&mut db, "f");
    db.run("update d set version = 6 where id = 1; update d set version = 6, body = 'b' where id = 2;
            update d set version = 4, body = 'old' where id = 3; update d set body = 'unsaid' where id = 4");
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.skipped, c.unchanged, c.evaluated, c.upserted), (4, 2, 1, 1, 1), "{c:?}");
    assert_eq!(db.update("f", "normal")[0].seen, 0);
    let written = "select string_agg(distinct body, ',' order by body) from t";
    assert_eq!(text(&mut db.client, written), "a,b");
}

#[test]
fn what_foreign_keys_cascade_is_found() {
    let mut db = TestDb::new("capture_cascade");
    db.run(
        "create table owner (id int primary key);
         insert into owner select generate_series(1, 4);
         create table d (id int primary key, owner int references owner on delete cascade on update cascade,
                         backup int references owner on delete set null);
         insert into d select i, 1 + i % 2, 3 + i % 2 from generate_series(1, 10) i;
         select coco.create_flow('f', 'd', 'select id, owner, backup from d', 't', '{id}')",
    );
    looked_at(&mut db, "f");
    db.run("delete from owner where id = 1");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 5]);
    db.run("update owner set id = 20 where id = 2");
    assert_eq!(looked_at(&mut db, "f"), [5, 5, 5, 0]);
    db.run("delete from owner where id = 4");
    assert_eq!(looked_at(&mut db, "f"), [5, 5, 5, 0]);
    db.run("truncate owner cascade");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 5]);
}

#[test]
fn what_a_tables_own_foreign_key_cascades_is_found() {
    let mut db = TestDb::new("capture_tree");
    db.run(
        "create table d (id int primary key, up int references d on delete cascade on update cascade);
         insert into d select i, nullif(i / 2, 0) from generate_series(1, 31) i;
         select coco.create_flow('f', 'd', 'select id, up from d', 't', '{id}', capture => 'trigger')",
    );
    looked_at(&mut db, "f");
    db.run("update d set id = 200 where id = 2");
    assert_eq!(looked_at(&mut db, "f"), [3, 3, 3, 1]);
    db.run("delete from d where id = 3");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 15]);
    db.run(
        "with gone as (delete from d where id = 4 returning id) update d set id = 100 where id = 1",
    );
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

#[test]
fn deferred_constraints_and_their_triggers_are_no_hindrance() {
    let mut db = TestDb::new("capture_deferred");
    db.run(
        "create table d (id int primary key deferrable initially deferred, body text);
         insert into d values (1, 'a'), (2, 'b');
         create function late() returns trigger language plpgsql as $$ begin
           update d set body = body || '!' where id = new.id and body not like '%!'; return null; end $$;
         create constraint trigger late after insert on d deferrable initially deferred
           for each row execute function late();
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')",
    );
    looked_at(&mut db, "f");
    db.run("update d set id = 3 - id");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    // The trigger fires when the transaction commits, after its own update.
    db.run("begin; insert into d values (3, 'c'); select coco.update('f'); commit");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    assert_eq!(text(&mut db.client, "select body from t where id = 3"), "c!");
}

#[test]
fn what_a_tables_own_triggers_write_is_found() {
    let mut db = ten_rows("triggers");
    db.run(
        "create function before() returns trigger language plpgsql as $$ begin
           new.body := new.body || ' (set)'; if new.id = 10 then return null; end if; return new; end $$;
         create function after() returns trigger language plpgsql as $$ begin
           if new.id < 100 then insert into d values (new.id + 100, new.body);
             delete from d where id = new.id + 1; end if; return null; end $$;
         create function aaa() returns trigger language plpgsql as $$ begin
           update d set body = 'last' where id = 9 and body <> 'last (set)'; return null; end $$;
         create trigger before before update on d for each row execute function before();
         create trigger after after update on d for each row execute function after();
         create trigger aaa after insert on d for each statement execute function aaa();
         create trigger zzz after insert on d for each statement execute function aaa()",
    );
    db.run("update d set body = 'x' where id in (1, 10)");
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    assert_eq!(
        text(
            &mut db.client,
            "select string_agg(id || ' ' || body, ',' order by id) from t where id in (1, 2, 9, 10, 101)"
        ),
        "1 x (set),9 last (set),101 x (set)"
    );
}

#[test]
fn an_update_that_a_trigger_of_the_table_calls_loses_nothing() {
    let mut db = ten_rows("called");
    db.run(
        "create function follow() returns trigger language plpgsql as $$ begin
           perform coco.update('f'); return null; end $$;
         create trigger aaa after insert or update or delete on d for each statement execute function follow();
         create trigger row_too after insert on d for each row execute function follow();
         create trigger zzz after insert or update or delete on d for each statement execute function follow()",
    );
    db.run("insert into d values (11, 'a'), (12, 'b'); update d set body = 'c' where id < 3; delete from d where id = 12");
    db.verify_clean("f");
    comes_right(&mut db, "f");
}

#[test]
fn generated_and_identity_columns_are_keys_and_content() {
    let mut db = TestDb::new("capture_generated");
    db.run(
        "create table d (id int generated always as identity primary key, n int,
                         twice int generated always as (n * 2) stored not null unique);
         insert into d (n) select generate_series(1, 5);
         select coco.create_flow('id', 'd', 'select id, twice from d', 'a', '{id}', capture => 'trigger');
         select coco.create_flow('twice', 'd', 'select twice, n, id from d', 'b', '{twice}', source_key => '{twice}', capture => 'trigger')",
    );
    looked_at(&mut db, "id");
    looked_at(&mut db, "twice");
    db.run("insert into d (n) values (6); update d set n = 50 where n = 5");
    assert_eq!(looked_at(&mut db, "id"), [2, 2, 2, 0]);
    assert_eq!(looked_at(&mut db, "twice"), [2, 2, 2, 1]);
}

#[test]
fn keys_of_many_types_and_columns_are_followed() {
    let mut db = TestDb::new("capture_types");
    db.run(
        "create table d (a text collate \"C\", gone int, b uuid default gen_random_uuid(), c numeric, e timestamptz default now(), body text, primary key (c, a, b, e));
         alter table d drop column gone;
         insert into d (a, c, body) select 'k' || i, i / 10.0, 'x' from generate_series(1, 20) i;
         select coco.create_flow('f', 'd', 'select a, b, c, e, body from d', 't', '{a,b,c,e}', capture => 'trigger')",
    );
    looked_at(&mut db, "f");
    db.run("update d set body = 'y' where a = 'k3'; delete from d where a = 'k4'; insert into d (a, c, body) values ('', 'NaN', 'z')");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 1]);
    // Equal, and written otherwise.
    db.run("update d set c = 0.50, body = 'w' where a = 'k5'");
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

#[test]
fn group_items_are_followed_by_their_own_key_also_a_large_one() {
    let mut db = TestDb::new("capture_groups");
    db.run(
        "create table d (id int primary key, label text not null, n int);
         alter table d alter label set storage external;
         insert into d select i, repeat(chr(96 + i % 5), 20000) || i % 5, i from generate_series(1, 50) i;
         select coco.create_flow('f', 'd', 'select md5(label) as label, sum(n) as n from d group by d.label', 't', '{label}', source_key => '{label}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "f"), [5, 5, 5, 0]);
    db.run("update d set n = 1000 where id = 1");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("update d set label = repeat('z', 30000) where id = 2");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    db.run("delete from d where label like 'z%'; truncate d");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 6]);
}

#[test]
fn flows_with_different_keys_share_a_log() {
    let mut db = ten_rows("two_keys");
    db.run("insert into d values (0, 'row 1', 1); alter table d alter body set not null");
    db.run("select coco.create_flow('g', 'd', 'select body, count(*) as n from d group by body', 'u', '{body}', source_key => '{body}', capture => 'trigger')");
    assert_eq!(text(&mut db.client, "select count(*)::text from coco.capture"), "1");
    // The other flow goes on where it was.
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    looked_at(&mut db, "g");
    db.run("update d set body = 'row 2' where id = 0");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("delete from d where id = 10");
    assert_eq!(looked_at(&mut db, "g"), [2, 2, 2, 1]);
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 1]);
}

#[test]
fn a_key_added_within_a_transaction_that_has_written_loses_nothing() {
    let mut db = ten_rows("extended");
    db.run("alter table d alter body set not null");
    db.run(
        "begin; insert into d values (11, 'a');
         select coco.create_flow('g', 'd', 'select body, count(*) as n from d group by body', 'u', '{body}', source_key => '{body}', capture => 'trigger');
         select coco.update('g'); insert into d values (12, 'a'); commit",
    );
    comes_right(&mut db, "g");
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "g"), [0, 0, 0, 0]);
}

// Parts

fn partitioned(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("capture_{name}"));
    db.run(
        "create table p (id int, part int, body text, primary key (id, part)) partition by list (part);
         create table p1 partition of p for values in (1);
         create table p2 (body text, part int not null, gone int, id int not null);
         alter table p2 drop column gone;
         alter table p attach partition p2 for values in (2);
         insert into p select i, 1 + i % 2, 'row ' || i from generate_series(1, 10) i;
         select coco.create_flow('f', 'p', 'select id, part, body from p', 't', '{id,part}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "f"), [10, 10, 10, 0]);
    db
}

#[test]
fn changes_of_a_partitioned_table_and_of_its_partitions_are_found() {
    let mut db = partitioned("partitions");
    db.run("insert into p values (11, 1, 'a'), (12, 2, 'b'); update p set body = 'x' where id = 1");
    assert_eq!(looked_at(&mut db, "f"), [3, 3, 3, 0]);
    db.run("insert into p1 values (13, 1, 'a'); update p2 set body = 'y' where id = 12; delete from p2 where id = 3");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 1]);
    db.run("delete from p where id > 10; truncate p");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 12]);
}

#[test]
fn rows_that_move_between_partitions_are_found() {
    let mut db = partitioned("moves");
    db.run("update p set part = 3 - part where id in (1, 2)");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 2]);
}

#[test]
fn partitions_that_come_and_go_are_found_with_their_rows() {
    let mut db = partitioned("attach");
    db.run("create table p3 (id int not null, part int not null, body text, primary key (id, part)); insert into p3 values (1, 3, 'a'), (2, 3, 'b');
            alter table p attach partition p3 for values in (3)");
    assert_eq!(looked_at(&mut db, "f"), [12, 2, 2, 0]);
    db.run("update p3 set body = 'c' where id = 1");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("alter table p detach partition p3; update p3 set body = 'd'; insert into p3 values (3, 3, 'e')");
    assert_eq!(looked_at(&mut db, "f"), [10, 0, 0, 2]);
    db.run("update p3 set body = 'd'");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    db.run("alter table p attach partition p3 for values in (3)");
    assert_eq!(looked_at(&mut db, "f"), [13, 3, 3, 0]);
    db.run("drop table p3");
    assert_eq!(looked_at(&mut db, "f"), [10, 0, 0, 3]);
    db.run(
        "create table p4 partition of p for values in (4); insert into p4 values (1, 4, 'late')",
    );
    assert_eq!(looked_at(&mut db, "f"), [11, 1, 1, 0]);
    db.run("insert into p4 values (2, 4, 'later')");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("truncate p1");
    assert_eq!(looked_at(&mut db, "f"), [7, 0, 0, 5]);
    // What was truncated before, within one transaction, is truncated without a sign.
    db.run("begin; truncate p2; insert into p2 (id, part, body) values (1, 2, 'x'); select coco.update('f'); truncate p2; commit");
    assert_eq!(looked_at(&mut db, "f")[3], 1);
}

#[test]
fn a_partition_detached_concurrently_is_gone_at_once() {
    let mut db = partitioned("detach");
    // Somebody who still reads the partition keeps the detaching from ending.
    let (mut reader, mut detacher) = (db.connect(), db.connect());
    run(&mut reader, "begin isolation level repeatable read; select from p");
    let detaching = std::thread::spawn(move || {
        run(&mut detacher, "alter table p detach partition p1 concurrently")
    });
    let pending = "select count(*)::text from pg_inherits where inhdetachpending";
    while text(&mut db.client, pending) != "1" {
        std::thread::yield_now();
    }
    comes_right(&mut db, "f");
    assert_eq!(text(&mut db.client, "select count(*)::text from t"), "5");
    run(&mut reader, "commit");
    detaching.join().expect("detached");
    comes_right(&mut db, "f");
}

#[test]
fn changes_of_an_inheritance_tree_are_found() {
    let mut db = TestDb::new("capture_inheritance");
    db.run(
        "create table d (id int primary key, body text);
         create table c (extra int, primary key (id)) inherits (d);
         insert into d values (1, 'a'); insert into c values (2, 'b', 0);
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    db.run("update d set body = 'x' where id = 2; insert into c values (3, 'c', 0)");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    db.run("truncate only c; insert into c values (5, 'e', 0)");
    assert_eq!(looked_at(&mut db, "f"), [2, 1, 1, 2]);
    // A child that comes later has no trigger: it is scanned.
    db.run("create table late () inherits (d); insert into late values (4, 'd')");
    comes_right(&mut db, "f");
    db.run("update late set body = 'x'; alter table c no inherit d");
    comes_right(&mut db, "f");
    db.run("delete from late; drop table late");
    comes_right(&mut db, "f");
}

#[test]
fn a_table_that_becomes_a_part_is_scanned() {
    let mut db = ten_rows("becomes_part");
    db.run(
        "create table whole (id int primary key, body text, unused int) partition by range (id);
         alter table whole attach partition d for values from (0) to (1000);
         insert into whole values (50, 'x'); update whole set body = 'y' where id = 1",
    );
    comes_right(&mut db, "f");
    db.run("delete from whole where id = 50");
    comes_right(&mut db, "f");
    db.run("create table other (like d including all); insert into other values (2000, 'o'); drop table other;
            alter table whole detach partition d; update d set body = 'z' where id = 2");
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

#[test]
fn a_partition_can_be_a_source_beside_its_table() {
    let mut db = partitioned("part_source");
    db.run(
        "select coco.create_flow('part', 'p1', 'select id, body from p1', 'u', '{id}', source_key => '{id,part}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "part")[..3], [5, 5, 5]);
    comes_right(&mut db, "f");
    db.run("update p set body = 'x' where id in (1, 2); insert into p1 values (20, 1, 'y')");
    assert_eq!(looked_at(&mut db, "part"), [2, 2, 2, 0]);
    assert_eq!(looked_at(&mut db, "f"), [3, 3, 3, 0]);
    db.run("truncate p");
    comes_right(&mut db, "part");
    comes_right(&mut db, "f");
    assert_eq!(
        text(
            &mut db.client,
            "select count(*)::text from (select from t union all select from u) x"
        ),
        "0"
    );
    db.run("select coco.drop_flow('part'); insert into p values (1, 1, 'a')");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_partitioned_table_can_be_a_source_beside_its_partition() {
    let mut db = partitioned("whole_source");
    db.run(
        "select coco.drop_flow('f', keep_targets => false);
         select coco.create_flow('part', 'p1', 'select id, body from p1', 'u', '{id}', source_key => '{id,part}', capture => 'trigger');
         select coco.create_flow('f', 'p', 'select id, part, body from p', 't', '{id,part}', capture => 'trigger')",
    );
    comes_right(&mut db, "part");
    comes_right(&mut db, "f");
    db.run("update p set body = 'x' where id in (1, 2)");
    assert_eq!(looked_at(&mut db, "part"), [1, 1, 1, 0]);
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
}

// Replication

#[test]
fn replicas_roles_changes_are_found_with_always() {
    let mut db = ten_rows("replica");
    db.run(
        "create table e (id int primary key, body text); insert into e values (1, 'a');
         select coco.create_flow('always', 'e', 'select id, body from e', 'u', '{id}', capture => 'always')",
    );
    looked_at(&mut db, "always");
    db.run("set session_replication_role = replica;
            update d set body = 'x' where id = 1; update e set body = 'x'; insert into e values (2, 'b');
            reset session_replication_role");
    assert_eq!(looked_at(&mut db, "always"), [2, 2, 2, 0]);
    // Without it they go by, until all is read again.
    assert_eq!(db.update("f", "normal")[0].seen, 0);
    assert_eq!(support::verify(&mut db.client, "f", true).expect("verify").len(), 1);
    db.verify_clean("f");
    // A flow that wants it gives it to the table.
    db.run("select coco.create_flow('too', 'd', 'select id, body from d', 'v', '{id}', capture => 'always')");
    comes_right(&mut db, "too");
    comes_right(&mut db, "f");
    db.run("set session_replication_role = replica; update d set body = 'y' where id = 1; reset session_replication_role");
    assert_eq!(looked_at(&mut db, "too"), [1, 1, 1, 0]);
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

/// Waits until a query gives this.
fn wait_for(client: &mut Client, sql: &str, expected: &str) {
    let began = std::time::Instant::now();
    loop {
        let found = text(client, sql);
        if found == expected {
            return;
        }
        assert!(began.elapsed().as_secs() < 60, "{sql} should give {expected}, gives {found}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn what_a_subscription_applies_is_found_with_always() {
    let remove = "do $$ begin perform pg_drop_replication_slot('coco_capture_test'); exception when undefined_object then null; end $$";
    let unsubscribe = "do $$ begin if exists (select from pg_subscription where subname = 'coco_capture_test') then
         alter subscription coco_capture_test disable; alter subscription coco_capture_test set (slot_name = none); end if; end $$;
         drop subscription if exists coco_capture_test";
    // Of a run that was ended.
    let mut postgres = support::connect_to("postgres");
    if let Some(mut left) = support::try_connect_to("coco_test_capture_subscriber") {
        run(&mut left, unsubscribe);
    }
    run(&mut postgres, remove);
    let mut publisher = TestDb::new("capture_publisher");
    let mut db = TestDb::new("capture_subscriber");
    let table = "create table d (id int primary key, body text)";
    publisher.run(table);
    publisher.run("insert into d values (1, 'a'); create publication p for table d");
    publisher.run("select pg_create_logical_replication_slot('coco_capture_test', 'pgoutput')");
    db.run(table);
    db.run("select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'always')");
    looked_at(&mut db, "f");
    db.run(&format!(
        "create subscription coco_capture_test connection '{}' publication p with (create_slot = false, slot_name = 'coco_capture_test')",
        publisher.url()
    ));
    let rows = "select coalesce(string_agg(id || body, ',' order by id), '') from d";
    wait_for(&mut db.client, rows, "1a");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    publisher.run("insert into d values (2, 'b'), (3, 'c'); update d set body = 'x' where id = 1; delete from d where id = 3");
    wait_for(&mut db.client, rows, "1x,2b");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    publisher.run("truncate d; insert into d values (5, 'e')");
    wait_for(&mut db.client, rows, "5e");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 2]);
    db.run(unsubscribe);
    wait_for(
        &mut postgres,
        "select count(*)::text from pg_replication_slots where slot_name = 'coco_capture_test' and active",
        "0",
    );
    run(&mut postgres, remove);
}

// Rights

fn role(db: &mut TestDb, name: &str) {
    db.run(&format!(
        "do $$ begin create role {name} login; exception when duplicate_object then null; end $$"
    ));
}

#[test]
fn writers_need_no_right_on_anything_of_cocos() {
    let mut db = ten_rows("writers");
    role(&mut db, "coco_capture_writer");
    db.run(
        "grant select, insert, update, delete, truncate on d to coco_capture_writer;
         create schema odd; grant usage on schema odd to coco_capture_writer;
         create function odd.no(int, int) returns boolean language sql as 'select false';
         create function odd.no(name, name) returns boolean language sql as 'select false';
         create function odd.no(text, text) returns boolean language sql as 'select false';
         create operator odd.= (function = odd.no, leftarg = int, rightarg = int);
         create operator odd.= (function = odd.no, leftarg = name, rightarg = name);
         create operator odd.= (function = odd.no, leftarg = text, rightarg = text)",
    );
    let mut writer = db.connect_as("coco_capture_writer");
    run(&mut writer, "set search_path = odd, public, pg_catalog");
    refused(&mut writer, "select coco.update('f')", "42501");
    run(&mut writer, "insert into d values (11, 'a')");
    run(&mut writer, "update d set body = 'b' where id operator(pg_catalog.=) 1");
    run(&mut writer, "delete from d where id operator(pg_catalog.=) 2");
    refused(&mut writer, "select * from coco_internal.log_1_0", "42501");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 1]);
    run(&mut writer, "truncate d");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 10]);
    db.run("drop owned by coco_capture_writer");
}

/// DROP EXTENSION waits for a writer that has read the table, and the writer then writes to its change log.
#[test]
fn a_writer_is_not_the_victim_of_drop_extension() {
    let mut db = ten_rows("drop_extension");
    db.run("create table e (id int primary key); select coco.create_flow('g', 'e', 'select id from e', 'e_t', '{id}')");
    let (mut writer, mut dropper) = (db.connect(), db.connect());
    run(&mut writer, "begin; select count(*) from e; select count(*) from d");
    let pid: i32 = dropper.query_one("select pg_backend_pid()", &[]).expect("a pid").get(0);
    let dropping = std::thread::spawn(move || dropper.batch_execute("drop extension coco cascade"));
    let waits = "select exists (select from pg_locks where pid = $1 and not granted)";
    while !db.client.query_one(waits, &[&pid]).expect("locks").get::<_, bool>(0) {
        assert!(!dropping.is_finished(), "nothing is waited for");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    run(&mut writer, "insert into d values (11, 'a', 0)");
    run(&mut writer, "insert into e values (1)");
    run(&mut writer, "commit");
    dropping.join().expect("a thread").expect("it is dropped");
    assert_eq!(text(&mut db.client, "select count(*)::text from d"), "11");
    assert_eq!(
        text(&mut db.client, "select count(*)::text from pg_extension where extname = 'coco'"),
        "0"
    );
}

#[test]
fn a_flows_search_path_reaches_nothing_that_runs_as_the_extensions_owner() {
    let mut db = TestDb::new("capture_path");
    role(&mut db, "coco_capture_sly");
    db.run(
        "grant create, usage on schema public to coco_capture_sly; grant usage on schema coco to coco_capture_sly;
         create table spied (who text); grant insert on spied to public;
         grant create on database coco_test_capture_path to coco_capture_sly",
    );
    let mut sly = db.connect_as("coco_capture_sly");
    let mut define = String::from("create schema sly;");
    for (name, types, result) in [
        ("=", "int, int", "int4eq"),
        ("=", "name, name", "nameeq"),
        ("=", "oid, oid", "oideq"),
        ("=", "text, text", "texteq"),
        (">=", "xid8, xid8", "xid8ge"),
        ("&", "int, int", "int4and"),
    ] {
        let (left, right) = types.split_once(", ").expect("two types");
        let returns = if name == "&" { "int" } else { "boolean" };
        define.push_str(&format!(
            "create function sly.{result}({types}) returns {returns} language plpgsql as $$ begin
               if current_user <> 'coco_capture_sly' then insert into public.spied values (current_user); end if;
               return pg_catalog.{result}($1, $2); end $$;
             create operator sly.{name} (function = sly.{result}, leftarg = {left}, rightarg = {right});"
        ));
    }
    define.push_str(
        "create function sly.md5(text) returns text language plpgsql as $$ begin
           if current_user <> 'coco_capture_sly' then insert into public.spied values (current_user); end if;
           return pg_catalog.md5($1); end $$;
         create table d (id int primary key, body text); insert into d values (1, 'a');
         set search_path = sly, pg_catalog, public;
         select coco.create_flow('f', 'public.d', 'select id, body from d', 'public.t', '{id}', capture => 'trigger')",
    );
    run(&mut sly, &define);
    for _ in 0..3 {
        db.run("select coco.update('f'); insert into d select max(id) + 1, 'b' from d");
    }
    run(&mut sly, "select coco.update('f')");
    assert_eq!(text(&mut db.client, "select count(*)::text from spied"), "0");
    assert_eq!(text(&mut db.client, "select count(*)::text from t"), "4");
    db.run("select coco.drop_flow('f'); drop schema sly cascade; drop owned by coco_capture_sly cascade");
}

#[test]
fn a_table_whose_triggers_are_not_the_owners_to_make_is_scanned() {
    let mut db = TestDb::new("capture_right");
    role(&mut db, "coco_capture_reader");
    db.run(
        "create table d (id int primary key, body text); insert into d values (1, 'a');
         create unlogged table u (id int primary key, body text);
         grant select on d, u to coco_capture_reader;
         grant usage on schema coco to coco_capture_reader; grant create on schema public to coco_capture_reader",
    );
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = heard.clone();
    let mut client = db.connect_hearing(move |m| hear.lock().expect("unharmed").push(m));
    run(&mut client, "set session authorization coco_capture_reader");
    let flow = |capture: &str| {
        format!(
            "select coco.create_flow('f', 'd', 'select id, body from d', 't', '{{id}}'{capture})"
        )
    };
    refused(&mut client, &flow(", capture => 'trigger'"), "42501");
    refused(&mut client, &flow(", capture => 'always'"), "42501");
    refused(&mut client, &flow(", capture => 'never'"), "22023");
    run(&mut client, &flow(""));
    let said = heard.lock().expect("unharmed").join("\n");
    assert!(said.contains("changes of public.d are not captured"), "{said}");
    assert_eq!(text(&mut client, "select seen::text from coco.update('f')"), "1");
    assert_eq!(text(&mut client, "select seen::text from coco.update('f')"), "1");
    refused(
        &mut client,
        "select coco.create_flow('u', 'u', 'select id, body from u', 'v', '{id}', capture => 'trigger')",
        "0A000",
    );
    db.run("grant trigger on d to coco_capture_reader");
    run(&mut client, "select coco.drop_flow('f')");
    run(&mut client, &flow(", capture => 'trigger'"));
    run(&mut client, "select coco.update('f')");
    assert_eq!(text(&mut client, "select seen::text from coco.update('f')"), "0");
    run(&mut client, "select coco.drop_flow('f')");
    drop(client);
    db.run("drop owned by coco_capture_reader cascade");
}

#[test]
fn keys_that_row_security_hides_from_the_flows_owner_are_absent() {
    let mut db = TestDb::new("capture_rls");
    role(&mut db, "coco_capture_secured");
    db.run(
        "create table d (id int primary key, body text, secret boolean default false);
         insert into d values (1, 'a', false), (2, 'b', true), (3, 'c', false);
         alter table d enable row level security;
         create policy p on d to coco_capture_secured using (not secret);
         grant select, trigger on d to coco_capture_secured;
         grant usage on schema coco to coco_capture_secured; grant create on schema public to coco_capture_secured",
    );
    let mut client = db.connect_as("coco_capture_secured");
    run(
        &mut client,
        "select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger'); select coco.update('f')",
    );
    let rows = "select string_agg(id || body, ',' order by id) from t";
    assert_eq!(text(&mut client, rows), "1a,3c");
    db.run("update d set body = 'x'; update d set secret = not secret where id in (1, 2); insert into d values (4, 'd', true), (5, 'e', false)");
    run(&mut client, "select coco.update('f')");
    assert_eq!(text(&mut client, rows), "2x,3x,5e");
    assert_eq!(text(&mut client, "select seen::text from coco.update('f')"), "0");
    run(&mut client, "select coco.drop_flow('f')");
    drop(client);
    db.run("drop owned by coco_capture_secured cascade");
}

// Transactions

#[test]
fn what_is_rolled_back_is_not_looked_at() {
    let mut db = ten_rows("rollback");
    db.run("begin; update d set body = 'x'; insert into d values (11, 'a'); rollback");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    db.run(
        "begin; savepoint a; update d set body = 'x'; rollback to a; update d set body = 'y' where id = 1;
         savepoint b; delete from d where id = 2; savepoint c; insert into d values (12, 'c'); rollback to c; release b; commit",
    );
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 1]);
}

#[test]
fn a_prepared_transaction_is_found_when_it_commits() {
    let mut db = ten_rows("prepared");
    db.run("begin; update d set body = 'x' where id = 1; prepare transaction 'coco_capture_1'");
    db.run("begin; update d set body = 'x' where id = 2; prepare transaction 'coco_capture_2'");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    db.run("update d set body = 'y' where id = 3");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("commit prepared 'coco_capture_1'");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("rollback prepared 'coco_capture_2'");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    // An update itself, prepared: the next waits for it.
    db.run("update d set body = 'z' where id = 4");
    db.run("begin; select coco.update('f'); update d set body = 'z' where id = 5; prepare transaction 'coco_capture_3'");
    let mut other = db.connect();
    refused(&mut other, "set lock_timeout = 100; select coco.update('f')", "55P03");
    db.run("commit prepared 'coco_capture_3'");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_transaction_that_stays_open_over_many_updates_is_found_when_it_commits() {
    let mut db = ten_rows("open");
    let (mut one, mut two) = (db.connect(), db.connect());
    run(&mut one, "begin; update d set body = 'one' where id = 1");
    for n in 0..5 {
        db.run(&format!("update d set body = 'n{n}' where id = 3"));
        assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
        if n == 2 {
            run(&mut two, "begin; savepoint s; update d set body = 'two' where id = 2; release s");
        }
        run(&mut one, &format!("savepoint s{n}; insert into d values (20 + {n}, 'x')"));
    }
    run(&mut one, "commit");
    assert_eq!(looked_at(&mut db, "f"), [6, 6, 6, 0]);
    run(&mut two, "commit");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_transaction_that_writes_on_after_its_own_update_is_found_again() {
    let mut db = ten_rows("writes_on");
    let seen = |db: &mut TestDb| -> i64 {
        db.client.query_one("select seen from coco.update('f')", &[]).expect("an update").get(0)
    };
    db.run("begin; update d set body = 'a' where id = 1");
    assert_eq!(seen(&mut db), 1);
    db.run("update d set body = 'b' where id = 2");
    assert_eq!(seen(&mut db), 2);
    db.run("savepoint s; update d set body = 'c' where id = 3");
    assert_eq!(seen(&mut db), 3);
    db.run("rollback to s");
    assert_eq!(seen(&mut db), 2);
    db.run("savepoint s; select coco.update('f'); release s; update d set body = 'd' where id = 4; commit");
    assert_eq!(
        text(&mut db.client, "select string_agg(body, ',' order by id) from t where id < 5"),
        "a,b,row 3,row 4"
    );
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.evaluated, c.upserted), (1, 1), "{c:?}");
    db.verify_clean("f");
    // An update that is undone has not been.
    db.run("update d set body = 'e' where id = 5; begin; savepoint s; select coco.update('f'); rollback to s; commit");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_caller_that_reads_as_of_earlier_is_refused_and_loses_nothing() {
    for level in ["repeatable read", "serializable"] {
        let mut db = ten_rows(&level.replace(' ', "_"));
        let mut old = db.connect();
        run(&mut old, &format!("begin isolation level {level}; select from d"));
        db.run("update d set body = 'x' where id = 1");
        assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
        db.run("update d set body = 'y' where id = 2");
        refused(&mut old, "select coco.update('f')", "40001");
        run(&mut old, "rollback");
        assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
        // One whose view is not stale for the flow is let through, and leaves what it does not see.
        run(&mut old, &format!("begin isolation level {level}; select from d"));
        db.run("update d set body = 'z' where id = 3");
        assert_eq!(text(&mut old, "select seen::text from coco.update('f')"), "0");
        run(&mut old, "update d set body = 'w' where id = 4");
        assert_eq!(text(&mut old, "select seen::text from coco.update('f')"), "1");
        run(&mut old, "commit");
        let c = db.update("f", "normal").remove(0);
        assert_eq!((c.evaluated, c.upserted), (1, 1), "{c:?}");
        db.verify_clean("f");
        assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
    }
}

#[test]
fn a_first_update_that_another_was_before_is_refused() {
    let mut db = TestDb::new("capture_first_old");
    db.run(
        "create table d (id int primary key, body text); insert into d values (1, 'a');
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')",
    );
    let mut old = db.connect();
    run(&mut old, "begin isolation level repeatable read; select from d");
    looked_at(&mut db, "f");
    refused(&mut old, "select coco.update('f')", "40001");
}

#[test]
fn a_flow_declared_in_a_transaction_that_reads_as_of_earlier_loses_nothing() {
    let mut db = TestDb::new("capture_declared_old");
    db.run("create table d (id int primary key, body text); insert into d values (1, 'a')");
    let mut old = db.connect();
    run(&mut old, "begin isolation level repeatable read; select from d");
    db.run("insert into d values (2, 'b')");
    run(
        &mut old,
        "select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger');
         select coco.update('f'); commit",
    );
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

#[test]
fn writers_of_one_key_are_all_found() {
    let mut db = ten_rows("one_key");
    let writers: Vec<_> = (0..4)
        .map(|w| {
            let mut client = db.connect();
            std::thread::spawn(move || {
                for i in 0..50 {
                    run(&mut client, &format!("insert into d values (99, '{w} {i}') on conflict (id) do update set body = excluded.body"));
                    if i % 10 == 0 {
                        run(&mut client, "delete from d where id = 99");
                    }
                }
            })
        })
        .collect();
    while writers.iter().any(|w| !w.is_finished()) {
        db.update("f", "normal");
    }
    for w in writers {
        w.join().expect("no writer fails");
    }
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

// Cost

#[test]
fn an_update_reads_neither_all_of_the_source_nor_all_that_is_tracked() {
    let mut db = TestDb::new("capture_cost");
    db.run(
        "create table d (id int primary key, grp int not null, body text);
         insert into d select i, i / 10, md5(i::text) from generate_series(1, 50000) i;
         create index on d (grp); analyze d;
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger');
         select coco.create_flow('g', 'd', 'select grp, string_agg(body, chr(32) order by id) as body from d group by grp', 'u', '{grp}', source_key => '{grp}', capture => 'trigger')",
    );
    assert_eq!(looked_at(&mut db, "f")[0], 50_000);
    assert_eq!(looked_at(&mut db, "g")[0], 5_001);
    for flow in ["f", "g"] {
        db.run("update d set body = md5(body) where id in (17, 40000)");
        // A session that has counted nothing before.
        let mut client = db.connect();
        run(&mut client, "begin");
        let c = support::update(&mut client, flow, "normal").expect("an update").remove(0);
        assert_eq!((c.seen, c.upserted), (2, 2), "{flow}: {c:?}");
        let read = "select string_agg(c.oid::regclass || ' ' || pg_stat_get_xact_tuples_returned(c.oid), ', ')
              from pg_class c where c.relkind = 'r' and pg_stat_get_xact_tuples_returned(c.oid) > 10
               and (c.oid in (select tracking from coco.source) or c.relname in ('d', 't', 'u'))";
        let read: Option<String> = client.query_one(read, &[]).expect("counts").get(0);
        assert_eq!(read, None, "{flow} reads rows it does not need");
        run(&mut client, "commit");
    }
}

/// The log keeps what another flow has not followed: an update reads by an index what is new to its own flow.
#[test]
fn what_another_flow_has_not_followed_is_not_read_again() {
    let mut db = TestDb::new("capture_held");
    db.run(
        "create table d (id int primary key, v int not null default 0);
         insert into d select generate_series(1, 100); analyze d;
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}', capture => 'trigger');
         select coco.create_flow('g', 'd', 'select id, v from d', 'u', '{id}', capture => 'trigger')",
    );
    for flow in ["f", "g", "f", "g"] {
        looked_at(&mut db, flow);
    }
    for _ in 0..3 {
        db.run("insert into d select generate_series(1000, 20000); delete from d where id >= 1000");
        looked_at(&mut db, "f");
    }
    db.run("update d set v = 1 where id = 7");
    let mut client = db.connect();
    run(&mut client, "begin");
    let c = support::update(&mut client, "f", "normal").expect("an update").remove(0);
    assert_eq!((c.seen, c.upserted), (1, 1), "{c:?}");
    let read = "select sum(pg_stat_get_xact_tuples_returned(c.oid))::bigint from pg_class c
                 where c.relnamespace = 'coco_internal'::regnamespace and c.relname like 'log%'";
    let read: i64 = client.query_one(read, &[]).expect("counts").get(0);
    assert!(read < 100, "{read} entries are read for one change");
    run(&mut client, "commit");
}

/// Else the server would not find the deadlock of the two, and both would wait for ever.
#[test]
fn a_session_that_waits_for_a_log_is_seen_to_wait() {
    let mut db = TestDb::new("capture_seen_to_wait");
    db.run(
        "create table d (id int primary key); insert into d values (1);
         select coco.create_flow('f', 'd', 'select id from d', 't', '{id}', capture => 'trigger')",
    );
    looked_at(&mut db, "f");
    looked_at(&mut db, "f");
    db.run("insert into d values (2)");
    let mut holding = db.connect();
    run(
        &mut holding,
        "begin; lock table coco_internal.log_1_0, coco_internal.log_1_1, coco_internal.log_1_2 in access exclusive mode",
    );
    let mut updating = db.connect();
    let update = std::thread::spawn(move || support::update(&mut updating, "f", "normal"));
    let waits = "select count(*)::text from pg_locks l join pg_class c on c.oid = l.relation
                  where not l.granted and c.relname like 'log_1%'";
    until("it waits for a lock", || text(&mut db.client, waits) == "1");
    run(&mut holding, "rollback");
    let counts = update.join().expect("no panic").expect("an update");
    assert_eq!(counts[0].seen, 1);
}

#[test]
fn items_that_fail_are_tried_again_when_they_are_due_and_count_until_then() {
    let mut db = TestDb::new("capture_failing");
    db.run(
        "create table d (id int primary key, n int); insert into d values (1, 1), (2, 0), (3, 3);
         select coco.create_flow('f', 'd', 'select id, 6 / n as n from d', 't', '{id}', capture => 'trigger')",
    );
    assert_eq!(db.update("f", "normal")[0].failed, 1);
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.evaluated, c.failed), (1, 0, 1), "{c:?}");
    db.run("update d set n = 2 where id = 1");
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.evaluated, c.failed), (2, 1, 1), "{c:?}");
    let c = db.update("f", "retry").remove(0);
    assert_eq!((c.seen, c.evaluated, c.failed), (1, 1, 1), "{c:?}");
    db.run("update d set n = 6 where id = 2");
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.evaluated, c.upserted, c.failed), (1, 1, 1, 0), "{c:?}");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}

// The log

/// Two flows on a table, of which each change of all rows fills a segment of the log.
fn rotating(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("capture_{name}"));
    db.run(
        "set coco.log_segment_size = '64kB';
         create table d (id int primary key, n int);
         insert into d select i, 0 from generate_series(1, 3000) i;
         select coco.create_flow('f', 'd', 'select id, n from d', 't', '{id}', capture => 'trigger');
         select coco.create_flow('g', 'd', 'select id, -n as n from d', 'u', '{id}', capture => 'trigger');
         select coco.update('f')",
    );
    db
}

/// Changes most rows and follows them, often enough for each segment to be emptied twice, if nothing
/// keeps it. Returns how many segments it went through.
fn rotate(db: &mut TestDb) -> usize {
    let mut segments = std::collections::BTreeSet::new();
    for n in 0..12 {
        db.run(&format!("update d set n = n + 1 where id % 12 <> {n}"));
        db.update("f", "normal");
        segments.insert(text(&mut db.client, "select segment::text from coco.capture"));
    }
    segments.len()
}

fn log_size(db: &mut TestDb) -> i64 {
    let sql =
        "select sum(pg_relation_size(oid))::bigint from pg_class where relname ~ '^log_1_[012]$'";
    db.client.query_one(sql, &[]).expect("a size").get(0)
}

#[test]
fn a_log_that_is_followed_does_not_grow() {
    let mut db = rotating("rotation");
    db.update("g", "normal");
    for _ in 0..12 {
        db.run("update d set n = n + 1");
        db.update("g", "normal");
        db.update("f", "normal");
    }
    assert!(log_size(&mut db) < 3 * 3000 * 60, "{}", log_size(&mut db));
    // One that falls behind keeps what it has not followed.
    let before = log_size(&mut db);
    rotate(&mut db);
    assert!(log_size(&mut db) > before + 12 * 64 * 1024);
    assert_eq!(looked_at(&mut db, "g")[0], 3000);
    for _ in 0..3 {
        db.run("update d set n = n + 1");
        assert_eq!(looked_at(&mut db, "f")[0], 3000);
        assert_eq!(looked_at(&mut db, "g")[0], 3000);
    }
    assert!(log_size(&mut db) < 3 * 3000 * 60, "{}", log_size(&mut db));
}

#[test]
fn what_open_transactions_write_survives_the_rotation_of_the_log() {
    let mut db = rotating("rotation_open");
    db.update("g", "normal");
    let (mut one, mut two) = (db.connect(), db.connect());
    assert_eq!(rotate(&mut db), 2);
    db.update("g", "normal");
    run(&mut one, "begin; insert into d select i, 0 from generate_series(10001, 13000) i");
    rotate(&mut db);
    run(
        &mut two,
        "begin; savepoint s; insert into d values (20001, 0); rollback to s; insert into d values (20002, 0)",
    );
    run(&mut one, "insert into d values (10000, 0)");
    db.update("g", "normal");
    rotate(&mut db);
    run(&mut one, "commit");
    comes_right(&mut db, "f");
    run(&mut two, "insert into d values (20003, 0); prepare transaction 'coco_capture_rotation'");
    rotate(&mut db);
    run(&mut two, "commit prepared 'coco_capture_rotation'");
    rotate(&mut db);
    comes_right(&mut db, "f");
    comes_right(&mut db, "g");
}

#[test]
fn a_first_update_that_is_not_committed_yet_keeps_the_log() {
    let mut db = rotating("rotation_first");
    let mut first = db.connect();
    run(&mut first, "begin; select coco.update('g')");
    rotate(&mut db);
    rotate(&mut db);
    db.run("update d set n = 0 where id = 1; select coco.update('f')");
    run(&mut first, "commit");
    db.update("g", "normal");
    db.verify_clean("g");
    assert_eq!(looked_at(&mut db, "g")[0], 0);
}

#[test]
fn a_first_update_that_reads_as_of_earlier_does_not_rely_on_a_log_emptied_since() {
    let mut db = rotating("rotation_old");
    let mut old = db.connect();
    run(&mut old, "begin isolation level repeatable read; select from d");
    rotate(&mut db);
    rotate(&mut db);
    run(&mut old, "select coco.update('g'); commit");
    comes_right(&mut db, "g");
    assert_eq!(looked_at(&mut db, "g")[0], 0);
}

#[test]
fn an_update_that_has_emptied_a_segment_and_is_open_holds_up_nobody() {
    let mut db = rotating("rotation_waits");
    db.update("g", "normal");
    let mut emptying = db.connect();
    let held = "select count(*)::text from pg_locks where mode = 'AccessExclusiveLock' and granted
        and relation in (select oid from pg_class where relname ~ '^log_1_[012]$')";
    let mut found = false;
    for _ in 0..20 {
        db.run("update d set n = n + 1");
        db.update("g", "normal");
        run(&mut emptying, "set coco.log_segment_size = '64kB'; begin; select coco.update('f')");
        if text(&mut db.client, held) != "0" {
            found = true;
            db.run("set lock_timeout = 5000");
            for _ in 0..3 {
                db.run("update d set n = n + 1; insert into d select max(id) + 1, 0 from d");
                let c = db.update("g", "normal").remove(0);
                assert!(c.seen > 3000, "{c:?}");
            }
            run(&mut emptying, "rollback");
            break;
        }
        run(&mut emptying, "commit");
    }
    assert!(found, "no update emptied a segment");
    comes_right(&mut db, "f");
    comes_right(&mut db, "g");
}

// What becomes of the table

#[test]
fn changes_while_triggers_were_disabled_are_found() {
    let mut db = ten_rows("disabled");
    db.run("alter table d disable trigger user; update d set body = 'x' where id = 1; alter table d enable trigger user");
    assert_eq!(looked_at(&mut db, "f"), [10, 1, 1, 0]);
    db.run("begin; alter table d disable trigger user; delete from d where id = 2; alter table d enable trigger user; commit");
    assert_eq!(looked_at(&mut db, "f"), [9, 0, 0, 1]);
    db.run("alter table d disable trigger user; update d set body = 'y' where id = 1");
    comes_right(&mut db, "f");
    db.run("update d set body = 'z' where id = 3");
    comes_right(&mut db, "f");
    db.run("alter table d enable trigger user; update d set body = 'z' where id = 4");
    assert_eq!(looked_at(&mut db, "f"), [9, 1, 1, 0]);
    db.run("update d set body = 'z' where id = 5");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_trigger_dropped_by_hand_costs_scans_and_no_change() {
    let mut db = ten_rows("dropped_trigger");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = heard.clone();
    let mut client = db.connect_hearing(move |m| hear.lock().expect("unharmed").push(m));
    db.run("do $$ begin execute (select format('drop trigger %I on d', tgname) from pg_trigger where tgrelid = 'd'::regclass and tgname like '%update'); end $$;
            update d set body = 'x' where id = 1");
    let c = support::update(&mut client, "f", "normal").expect("an update").remove(0);
    assert_eq!((c.seen, c.upserted), (10, 1), "{c:?}");
    let said = heard.lock().expect("unharmed").join("\n");
    assert!(said.contains("not every change of"), "{said}");
    db.run("update d set body = 'y' where id = 2; insert into d values (11, 'a')");
    comes_right(&mut db, "f");
    // Another flow puts it back.
    db.run("select coco.create_flow('g', 'd', 'select id, body from d', 'u', '{id}', capture => 'trigger')");
    comes_right(&mut db, "f");
    comes_right(&mut db, "g");
    db.run("update d set body = 'z' where id = 2");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    assert_eq!(looked_at(&mut db, "g"), [1, 1, 1, 0]);
}

#[test]
fn renaming_and_moving_a_table_disturbs_nothing() {
    let mut db = ten_rows("renamed");
    db.run("alter table d rename to \"Odd name\"; create schema s; alter table \"Odd name\" set schema s;
            update s.\"Odd name\" set body = 'x' where id = 1; create table d (id int); insert into d values (77)");
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.evaluated), (1, 1), "{c:?}");
    assert_eq!(text(&mut db.client, "select body from t where id = 1"), "x");
}

#[test]
fn other_columns_that_come_and_go_disturb_nothing() {
    let mut db = ten_rows("columns");
    let mut writer = db.connect();
    run(&mut writer, "update d set body = 'w' where id = 1");
    db.run("alter table d add more int, add again int default 5; alter table d drop column unused");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    run(&mut writer, "insert into d values (11, 'a', 1, 2); update d set body = 'b' where id = 2");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    db.run("alter table d add much text default repeat('x', 10); cluster d using d_pkey");
    comes_right(&mut db, "f");
    run(&mut writer, "update d set more = 3");
    let c = db.update("f", "normal").remove(0);
    assert_eq!((c.seen, c.evaluated), (11, 0), "{c:?}");
}

#[test]
fn a_renamed_key_column_does_not_reach_writers() {
    let mut db = ten_rows("renamed_key");
    let mut writer = db.connect();
    run(&mut writer, "insert into d values (11, 'a')");
    db.run("alter table d rename id to number");
    run(
        &mut writer,
        "insert into d values (12, 'a'); update d set number = 20 where number = 1; delete from d where number = 2",
    );
    run(&mut writer, "begin; savepoint s; truncate d; rollback to s; commit");
    db.run("insert into d values (13, 'b')");
    db.run("alter table d rename number to id");
    run(&mut writer, "insert into d values (14, 'b')");
    comes_right(&mut db, "f");
    db.run("update d set body = 'z' where id = 14");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn another_type_of_a_key_column_does_not_reach_writers() {
    let mut db = ten_rows("key_type");
    // Once there is a target, its view holds the column fast.
    refused(&mut db.client, "alter table d alter id type bigint", "0A000");
    db.run("select coco.drop_flow('f'); select coco.create_flow('f'); select coco.add_source('f', 'd', capture => 'trigger')");
    let mut writer = db.connect();
    run(&mut writer, "insert into d values (11, 'c')");
    db.run("alter table d alter id type bigint");
    run(
        &mut writer,
        "insert into d values (5000000000, 'd'); update d set id = 70 where id = 1; delete from d where id = 2",
    );
    db.run("alter table d alter id type text using id::text collate \"C\"");
    run(
        &mut writer,
        "insert into d values ('x', 'x'); update d set id = 'y' where id = 'x'; truncate d",
    );
    db.run("alter table d drop column id");
    run(&mut writer, "insert into d values ('x'); delete from d");
}

#[test]
fn a_dropped_source_leaves_nothing_in_the_way() {
    let mut db = ten_rows("dropped");
    refused(&mut db.client, "drop table d", "2BP01");
    db.run("drop table d cascade; create table d (id int primary key, body text); insert into d values (1, 'a')");
    assert!(support::update(&mut db.client, "f", "normal").is_err());
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert_eq!(
        text(&mut db.client, "select count(*)::text from pg_class where relname like 'log\\_%'"),
        "0"
    );
    db.run("select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

const LEFT: &str = "select (select count(*) from pg_trigger where tgname like 'coco%')
    || ' triggers, ' || (select count(*) from pg_class where relname ~ '^log_' and relkind = 'r') || ' segments, '
    || (select count(*) from coco.capture) || ' captures'";

#[test]
fn the_last_flow_takes_triggers_and_log_along() {
    let mut db = ten_rows("drop_flow");
    db.run("select coco.create_flow('g', 'd', 'select id, body from d', 'u', '{id}', capture => 'trigger')");
    let mut writer = db.connect();
    run(&mut writer, "insert into d values (11, 'a')");
    looked_at(&mut db, "g");
    db.run("select coco.drop_flow('f')");
    run(&mut writer, "insert into d values (12, 'a')");
    assert_eq!(looked_at(&mut db, "g"), [1, 1, 1, 0]);
    db.run("select coco.drop_flow('g')");
    assert_eq!(text(&mut db.client, LEFT), "0 triggers, 0 segments, 0 captures");
    run(&mut writer, "insert into d values (13, 'a')");
}

#[test]
fn a_flow_is_dropped_while_its_table_is_in_use() {
    let mut db = ten_rows("drop_in_use");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = heard.clone();
    let mut client = db.connect_hearing(move |m| hear.lock().expect("unharmed").push(m));
    let mut writer = db.connect();
    run(&mut writer, "begin; insert into d values (11, 'a')");
    run(&mut client, "set lock_timeout = 5000; select coco.drop_flow('f', keep_targets => false)");
    let said = heard.lock().expect("unharmed").join("\n");
    assert!(
        said.contains("could not drop trigger") && said.contains("the table is in use"),
        "{said}"
    );
    run(
        &mut writer,
        "insert into d values (12, 'a'); update d set body = 'x'; truncate d; insert into d values (13, 'b'); commit",
    );
    run(&mut writer, "insert into d values (14, 'a')");
    db.run("insert into d values (15, 'a')");
    // What was left is in nobody's way.
    db.run("select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')");
    run(&mut writer, "insert into d values (16, 'a')");
    comes_right(&mut db, "f");
    run(&mut writer, "insert into d values (17, 'a')");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
    db.run("select coco.drop_flow('f')");
    assert_eq!(text(&mut db.client, LEFT), "0 triggers, 0 segments, 0 captures");
}

#[test]
fn a_flow_is_dropped_while_a_partition_is_in_use() {
    let mut db = partitioned("drop_partition_in_use");
    let mut writer = db.connect();
    run(&mut writer, "begin; insert into p2 (id, part, body) values (50, 2, 'a')");
    db.run("set lock_timeout = 5000; begin; select coco.drop_flow('f')");
    // Not even while the transaction that drops it is open.
    run(
        &mut writer,
        "set lock_timeout = 5000; insert into p2 (id, part, body) values (51, 2, 'a')",
    );
    let mut other = db.connect();
    run(&mut other, "set lock_timeout = 5000; insert into p values (52, 1, 'a')");
    db.run("commit");
    run(&mut writer, "insert into p values (53, 1, 'a'); commit");
    run(&mut other, "insert into p values (54, 1, 'a')");
}

#[test]
fn without_the_extension_writers_go_on() {
    let mut db = ten_rows("extension");
    let mut writer = db.connect();
    run(&mut writer, "insert into d values (11, 'a')");
    db.run("drop extension coco cascade");
    run(&mut writer, "insert into d values (12, 'a'); truncate d; insert into d values (1, 'a')");
    db.run("create extension coco; drop table t;
            select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger')");
    run(&mut writer, "insert into d values (2, 'a')");
    assert_eq!(looked_at(&mut db, "f"), [2, 2, 2, 0]);
    run(&mut writer, "insert into d values (3, 'a')");
    assert_eq!(looked_at(&mut db, "f"), [1, 1, 1, 0]);
}

#[test]
fn a_second_key_on_a_partitioned_table_is_added_while_a_partition_is_written() {
    let mut db = partitioned("second_key");
    db.run("update p set body = id::text; alter table p alter body set not null");
    looked_at(&mut db, "f");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = ["p1", "p2", "p"]
        .into_iter()
        .enumerate()
        .map(|(n, table)| {
            let (mut client, stop) = (db.connect(), stop.clone());
            std::thread::spawn(move || {
                let part = n % 2 + 1;
                let mut written = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let id = 1000 * (n + 1) + written % 500;
                    run(
                        &mut client,
                        &format!(
                            "begin; delete from {table} where id = {id};
                        insert into {table} (id, part, body) values ({id}, {part}, 'w'); commit"
                        ),
                    );
                    written += 1;
                }
            })
        })
        .collect();
    for n in 0..5 {
        db.run(&format!("select coco.create_flow('g{n}', 'p', 'select body, count(*) as n from p group by body', 'u{n}', '{{body}}', source_key => '{{body}}', capture => 'trigger')"));
        db.update(&format!("g{n}"), "normal");
        db.update("f", "normal");
        db.run(&format!("select coco.drop_flow('g{n}')"));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for w in writers {
        w.join().expect("no writer fails");
    }
    comes_right(&mut db, "f");
    assert_eq!(looked_at(&mut db, "f"), [0, 0, 0, 0]);
}
