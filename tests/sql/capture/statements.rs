//! What statements change, in every way in which they can.

use super::{comes_right, looked_at, ten_rows, text};
use crate::support::TestDb;

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
    assert_eq!(text(&mut db.client, "select count(*)::text from coco_internal.capture"), "1");
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
