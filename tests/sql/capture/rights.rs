//! What writers and owners of flows need, and what they do not get.

use std::sync::{Arc, Mutex};

use super::{looked_at, refused, run, ten_rows, text};
use crate::support::TestDb;

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
