//! Dump and restore: flows just go on, and what did not change is not evaluated.

#[cfg(feature = "http")]
use crate::http;
use crate::support;

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use support::TestDb;

fn program(name: &str, url: &str) -> Command {
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
    let mut program = Command::new(format!("{bin}/{name}"));
    program.args(["-d", url]);
    program
}

/// The text of a dump; pg_dump has nothing to say of it.
fn dump(db: &TestDb, args: &[&str]) -> String {
    let dump = program("pg_dump", &db.url()).args(args).output().expect("pg_dump runs");
    assert!(dump.status.success(), "{dump:?}");
    assert_eq!(String::from_utf8_lossy(&dump.stderr), "");
    String::from_utf8(dump.stdout).expect("UTF-8")
}

fn empty(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run("drop extension coco");
    db
}

/// psql, at work on the restore of a dump.
struct Restore(Child);

impl Restore {
    fn begin(db: &TestDb) -> Restore {
        let psql = program("psql", &db.url())
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Restore(psql.expect("psql starts"))
    }

    fn send(&mut self, script: &str) {
        let input = self.0.stdin.as_mut().expect("a pipe");
        input.write_all(script.as_bytes()).expect("psql reads");
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("psql ends").success(), "the dump restores without an error");
    }
}

fn restore(db: &TestDb, script: &str) {
    let mut restore = Restore::begin(db);
    restore.send(script);
    restore.end();
}

/// A live flow and flows that are not, one of them with a lookup.
fn various(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        "create table d (id int primary key, a int, body text);
         insert into d select i, i % 5, 'b' || i from generate_series(1, 50) i;
         create table l (id int primary key, name text);
         insert into l select i, 'a' || i from generate_series(0, 4) i;
         select coco.create_flow('f' || i, 'd', 'select id, body from d', 't' || i, '{id}') from generate_series(1, 5) i;
         select coco.create_flow('looks'); select coco.add_source('looks', 'd');
         select coco.add_lookup('looks', 'l', affects => 'select d.id from d join l on l.id = d.a');
         select coco.add_target('looks', 'u', 'select d.id, l.name from d join l on l.id = d.a', '{id}');
         select coco.update(flow) from coco.flows; select coco.start('f1')",
    );
    db
}

fn text(db: &mut TestDb, query: &str) -> String {
    db.client.query_one(query, &[]).expect(query).get(0)
}

#[test]
fn tables_of_a_dump_are_restored_in_any_order() {
    let db = various("dumped_parallel");
    let directory = std::env::temp_dir().join(format!("coco-dump-{}", std::process::id()));
    std::fs::remove_dir_all(&directory).ok();
    let path = directory.to_str().expect("a path");
    dump(&db, &["-Fd", "-j2", "-f", path]);
    for n in 1..=3 {
        let mut other = empty(&format!("restored_parallel_{n}"));
        let restore = program("pg_restore", &other.url())
            .args(["-j4", "--exit-on-error", path])
            .output()
            .expect("pg_restore runs");
        assert!(restore.status.success(), "{restore:?}");
        let c = &other.update("looks", "normal")[0];
        assert_eq!((c.seen, c.unchanged, c.evaluated), (50, 50, 0), "{c:?}");
        other.run("select coco.start('f1')");
        assert_eq!(text(&mut other, "select coco.wait('f1', '60 s')::text"), "true");
    }
    std::fs::remove_dir_all(&directory).ok();
}

#[test]
fn a_table_that_coco_made_is_known_after_a_restore() {
    let mut db = TestDb::new("dumped_made");
    let declare = |target: &str| {
        format!(
            "select coco.create_flow('{target}', 'd', 'select id from d', '{target}', '{{id}}')"
        )
    };
    db.run("create table d (id int primary key)");
    for target in ["kept", "gone"] {
        db.run(&declare(target));
        db.run(&format!("select coco.drop_flow('{target}')"));
    }
    db.run("drop table gone");
    let mut other = empty("restored_made");
    restore(&other, &dump(&db, &[]));
    assert_eq!(text(&mut other, "select count(*)::text from coco_internal.made_target"), "1");
    other.run(&declare("kept"));
    assert_eq!(text(&mut other, "select managed::text from coco.targets"), "true");
}

#[test]
fn renamed_and_altered_flows_are_dumped_as_they_are() {
    let mut db = various("dumped_renamed");
    db.run(
        "select coco.rename_flow('looks', 'renamed'); select coco.rename_flow('f2', 'looks');
         alter table t3 rename to was_t3; alter table d rename body to words; select coco.update('f3');
         select coco.alter_flow('f4', ordinal => 'a', fingerprint => 'words', settings => '{\"TimeZone\": \"UTC\"}');
         select coco.update('f4'); select coco.alter_flow('f4', fingerprint => ''); select coco.update('f4');
         select coco.alter_flow('f5', capture => 'scan', search_path => 'public'); select coco.update('f5')",
    );
    let mut other = empty("restored_renamed");
    restore(&other, &dump(&db, &[]));
    for flow in ["renamed", "looks", "f3", "f4", "f5"] {
        let c = &other.update(flow, "normal")[0];
        assert_eq!((c.seen, c.evaluated, c.failed), (50, 0, 0), "{flow}: {c:?}");
        other.verify_clean(flow);
    }
    let targets = "select string_agg(flow || ' ' || target, ', ' order by flow) from coco.targets where flow in ('f3', 'looks', 'renamed')";
    assert_eq!(text(&mut other, targets), "f3 public.was_t3, looks public.t2, renamed public.u");
    other.run("select coco.rename_flow('renamed', 'again'); drop table was_t3");
    assert_eq!(other.update("again", "normal")[0].evaluated, 0);
    assert_eq!(other.update("f3", "normal")[0].upserted, 50);
    assert_eq!(text(&mut other, "select to_regclass('was_t3')::text"), "was_t3");
}

#[test]
fn no_worker_begins_before_a_dump_is_restored_to_its_end() {
    let db = various("dumped_late");
    let script = dump(&db, &[]);
    let (first, last) =
        script.split_at(script.rfind("REFRESH MATERIALIZED VIEW").expect("the view"));
    assert!(!last.contains("CREATE"), "something comes later: {last}");
    // All but the data of two tables, which is not there for a while.
    let at = first.find("COPY public.d ").expect("the source's rows");
    let mut other = empty("restored_late");
    let mut restore = Restore::begin(&other);
    restore.send(&first[..at]);
    let there = "select (to_regclass('coco_internal.restored') is not null and to_regclass('coco_internal.flow') is not null)::text";
    while text(&mut other, there) != "true"
        || text(&mut other, "select count(*)::text from coco_internal.flow") != "6"
    {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // Workers are called, and find nothing to do.
    other.run("select coco.alter_flow('f1', paused => true)");
    other.run("select coco.alter_flow('f1', paused => false)");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let state = "select concat_ws(': ', state, hint) from coco.status where flow = 'f1'";
    assert!(text(&mut other, state).starts_with("restoring: Wait until"), "f1 is followed");
    restore.send(&first[at..]);
    restore.send(last);
    restore.end();
    other.run("update d set body = 'new' where id = 3");
    other.run("select coco.alter_flow('f1', paused => true)");
    other.run("select coco.alter_flow('f1', paused => false)");
    assert_eq!(text(&mut other, "select coco.wait('f1', '60 s')::text"), "true");
    assert_eq!(text(&mut other, "select state from coco.status where flow = 'f1'"), "live");
    other.verify_clean("f1");
}

#[test]
fn flows_wait_for_the_data_of_a_schema_that_was_restored_before() {
    let db = various("dumped_halves");
    let mut other = empty("restored_halves");
    let path = std::env::temp_dir().join(format!("coco-halves-{}", std::process::id()));
    let path = path.to_str().expect("a path");
    dump(&db, &["-Fc", "-f", path]);
    for half in ["--schema-only", "--data-only"] {
        let restore = program("pg_restore", &other.url())
            .args([half, "--disable-triggers", "--exit-on-error", path])
            .output()
            .expect("pg_restore runs");
        assert!(restore.status.success(), "{restore:?}");
    }
    std::fs::remove_file(path).ok();
    let state = "select state from coco.status where flow = 'f1'";
    assert_eq!(text(&mut other, state), "restoring");
    other.run("select coco.start('f1')");
    assert_eq!(text(&mut other, "select coco.wait('f1', '60 s')::text"), "true");
    other.verify_clean("f1");
}

#[test]
fn flows_can_be_declared_where_a_schema_alone_was_restored() {
    let db = various("dumped_schema");
    let mut other = empty("restored_schema");
    restore(&other, &dump(&db, &["--schema-only"]));
    other.run(
        "insert into d select i, i % 5, 'b' || i from generate_series(1, 50) i;
         select coco.create_flow('f1', 'd', 'select id, body from d', 't1', '{id}')",
    );
    assert_eq!(other.update("f1", "normal")[0].upserted, 50);
    other.run("select coco.start('f1')");
    assert_eq!(text(&mut other, "select coco.wait('f1', '60 s')::text"), "true");
    other.verify_clean("f1");
    other.run("select coco.drop_flow('f1')");
}

#[test]
fn a_dropped_flow_leaves_no_row_whatever_the_session_replicates() {
    let mut db = various("dropped_rows");
    db.run(
        "select coco.stop('f1'); set session_replication_role = replica;
         select coco.drop_flow(flow) from coco.flows; reset session_replication_role",
    );
    let left = "select coalesce(string_agg(c.relname, ', '), 'none')
                  from pg_class c, query_to_xml(format('select from %s', c.oid::regclass), false, false, '') as x
                 where c.relnamespace = 'coco'::regnamespace and c.relkind = 'r' and c.relname <> all ('{capture,kept_memo,kept_memo_function,made_target}')
                   and x::text like '%<row%'";
    assert_eq!(text(&mut db, left), "none");
    db.run("drop extension coco");
}

#[test]
fn a_session_that_reads_the_mark_of_a_restore_does_not_hold_up_the_last_drop() {
    let mut db = captured("drop_beside_reader");
    let mut reader = db.connect();
    reader.batch_execute("begin; select from coco_internal.restored").expect("reads");
    db.run("set lock_timeout = '10 s'; select coco.drop_flow(flow) from coco.flows");
    reader.batch_execute("commit").expect("commits");
    let left =
        "select count(*)::text from pg_class where oid = to_regclass('coco_internal.restored')";
    assert_eq!(text(&mut db, left), "1");
    // The view that was left is dumped and restored, and a flow can be declared beside it.
    let mut other = restored(&db, "restored_beside_reader");
    for db in [&mut db, &mut other] {
        db.run(
            "select coco.create_flow('h', 'd', 'select id, body from d', 'v', '{id}');
             select coco.drop_flow('h')",
        );
        assert_eq!(text(db, left), "0");
        db.run("drop extension coco");
    }
}

#[test]
fn a_search_is_restored_with_its_function_and_policy() {
    let mut db = TestDb::new("dumped_search");
    db.run(
        "create table notes (id int primary key, body text);
         insert into notes select i, 'note number' || i from generate_series(1, 20) i;
         select coco.create_search('found', 'notes', 'body');
         select coco.update('found')",
    );
    let mut other = restored(&db, "restored_search");
    assert_eq!(text(&mut other, "select id::text from found('number7')"), "7");
    assert_eq!(
        text(&mut other, "select count(*)::text from pg_policies where tablename = 'found'"),
        "1"
    );
    let c = &other.update("found", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (20, 0), "{c:?}");
    other.run("update notes set body = 'changed' where id = 7");
    other.update("found", "normal");
    assert_eq!(text(&mut other, "select id::text from found('changed')"), "7");
    other.run("select coco.drop_flow('found')");
    assert_eq!(text(&mut other, "select count(*)::text from pg_proc where proname = 'found'"), "0");
}

#[test]
fn the_extension_outlives_the_schema_public_and_is_dumped_without_it() {
    let mut db = TestDb::new("dumped_without_public");
    db.run(
        "create schema app; set search_path = app;
         create table d (id int primary key, body text);
         insert into d select i, 'b' || i from generate_series(1, 50) i;
         select coco.create_flow('f', 'd', 'select id, upper(body) as body from d', 't', '{id}');
         select coco.update('f')",
    );
    db.run("drop schema public cascade");
    assert_eq!(
        text(
            &mut db,
            "select extnamespace::regnamespace::text from pg_extension where extname = 'coco'"
        ),
        "pg_catalog"
    );
    let elsewhere = "select coalesce(string_agg(pg_describe_object(o.classid, o.objid, o.objsubid), ', '), 'none')
           from pg_depend o
           left join pg_class c on o.classid = 'pg_class'::regclass and c.oid = o.objid
           left join pg_proc p on o.classid = 'pg_proc'::regclass and p.oid = o.objid
           left join pg_type t on o.classid = 'pg_type'::regclass and t.oid = o.objid
          where o.refclassid = 'pg_extension'::regclass and o.deptype = 'e'
            and o.refobjid = (select oid from pg_extension where extname = 'coco')
            and coalesce(c.relnamespace, p.pronamespace, t.typnamespace)
                not in ('coco'::regnamespace, 'coco_internal'::regnamespace)";
    assert_eq!(text(&mut db, elsewhere), "none");
    db.run("update app.d set body = 'new' where id = 3");
    assert_eq!(db.update("f", "normal")[0].evaluated, 1);
    db.verify_clean("f");
    let mut other = empty("restored_without_public");
    restore(&other, &dump(&db, &[]));
    other.run("update app.d set body = 'newer' where id = 3; drop schema public cascade");
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (50, 1), "{c:?}");
    other.verify_clean("f");
}

/// Dumps a database and restores it in another.
fn restored(db: &TestDb, name: &str) -> TestDb {
    let other = empty(name);
    restore(&other, &dump(db, &[]));
    other
}

fn captured(name: &str) -> TestDb {
    let mut db = TestDb::new(name);
    db.run(
        "create table d (id int primary key, body text);
         insert into d select i, 'b' || i from generate_series(1, 50) i;
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'trigger');
         select coco.create_flow('g', 'd', 'select id, upper(body) as body from d', 'u', '{id}', capture => 'trigger')",
    );
    for flow in ["f", "g"] {
        db.update(flow, "normal");
    }
    db
}

#[test]
fn a_restored_capture_scans_until_its_log_is_made_again() {
    let mut db = captured("dumped_capture");
    db.run("update d set body = 'changed' where id = 1");
    let mut other = restored(&db, "restored_capture");
    // Writers find triggers without a log.
    other.run("update d set body = 'changed' where id = 2");
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (50, 2), "{c:?}");
    other.verify_clean("f");
    other.run("update d set body = 'changed' where id = 3");
    // Other databases of the server may hold it up.
    let mut scans = 0;
    while other.update("f", "normal")[0].seen > 0 {
        scans += 1;
        assert!(scans < 1000, "f is scanned for ever");
    }
    assert!(scans > 0, "the first update makes the log, and knows nothing yet");
    other.run("update d set body = 'again' where id = 3; insert into d values (51, 'new')");
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (2, 2), "{c:?}");
    other.verify_clean("f");
    other.update("g", "normal");
    other.verify_clean("g");
    assert_eq!(other.update("g", "normal")[0].seen, 0);
}

#[test]
fn a_writer_that_found_no_log_yet_is_found_after_a_restore() {
    let db = captured("dumped_writer");
    let mut other = restored(&db, "restored_writer");
    let (mut first, mut writer) = (other.connect(), other.connect());
    first.batch_execute("begin; select coco.update('f')").expect("an update");
    // While the log is made: its transaction is later than that one's.
    writer.batch_execute("begin; update d set body = 'unnoted' where id = 1").expect("a writer");
    first.batch_execute("commit").expect("committed");
    for _ in 0..3 {
        assert_eq!(other.update("f", "normal")[0].evaluated, 0);
        other.update("g", "normal");
    }
    writer.batch_execute("commit").expect("committed");
    for flow in ["f", "g"] {
        assert_eq!(other.update(flow, "normal")[0].evaluated, 1, "{flow}");
        other.verify_clean(flow);
    }
}

#[test]
fn a_restored_flow_goes_on_and_evaluates_nothing_that_did_not_change() {
    let mut db = TestDb::new("dumped");
    db.run(
        "create type mood as enum ('sad', 'ok');
         create function f(t text) returns text language sql immutable as $$ select upper(t) $$;
         create table d (id int primary key, body text, m mood default 'ok');
         insert into d select i, 'b' || i from generate_series(1, 50) i;
         select coco.create_flow('covered', 'd', 'select id, f(body) as body, m from d', 'c', '{id}');
         select coco.create_flow('listed', 'd', 'select md5(body) as h, id from d', 'l', '{h}');
         select coco.create_flow('fails', 'd', 'select id, 1 / (id - 7) as q from d', 'q', '{id}')",
    );
    db.run("select coco.alter_flow('covered', label => 'v7', batch_size => 5)");
    for flow in ["covered", "listed", "fails"] {
        db.update(flow, "normal");
    }
    db.run("select coco.alter_flow('fails', paused => true)");
    let mut other = restored(&db, "restored");
    for flow in ["covered", "listed"] {
        let c = &other.update(flow, "normal")[0];
        assert_eq!((c.seen, c.unchanged, c.evaluated), (50, 50, 0), "{flow}: {c:?}");
    }
    let flows = "select string_agg(concat_ws(' ', flow, label, batch_size, paused), ', ' order by flow) from coco.flows";
    let flows: String = other.client.query_one(flows, &[]).expect("flows").get(0);
    assert_eq!(flows, "covered v7 5 f, fails t, listed f");
    other.run("select coco.alter_flow('fails', paused => false)");
    assert_eq!(other.update("fails", "normal")[0].failed, 1);
    let runs = "select string_agg(concat_ws(' ', reason, label), ', ' order by run_id) from coco.history('covered')";
    let runs: String = other.client.query_one(runs, &[]).expect("runs").get(0);
    assert_eq!(runs, "initial v7, data_change v7");
    other.run("update d set body = 'new' where id = 3; delete from d where id = 4");
    for flow in ["covered", "listed"] {
        let c = &other.update(flow, "normal")[0];
        assert_eq!((c.evaluated, c.failed), (1, 0), "{flow}: {c:?}");
        other.verify_clean(flow);
    }
    // New flows get ids that the restored ones do not have.
    other.run("select coco.create_flow('new', 'd', 'select id from d', 'n', '{id}')");
    assert_eq!(other.update("new", "normal")[0].upserted, 49);
}

#[cfg(feature = "http")]
#[test]
fn a_restored_flow_sends_what_was_not_sent_and_nothing_else() {
    let mut receiver = http::Receiver::start();
    let mut db = TestDb::new("dumped_external");
    db.run(&format!(
        "create server hook foreign data wrapper coco_http options (url '{}');
         create user mapping for postgres server hook;
         create table d (id int primary key, body text);
         insert into d select i, 'b' || i from generate_series(1, 50) i;
         select coco.create_flow('f', 'd', 'select id, body from d', 'out', '{{id}}', server => 'hook')",
        receiver.url()
    ));
    db.update("f", "normal");
    receiver.stop();
    db.run("update d set body = 'new' where id = 1; delete from d where id = 2");
    support::update(&mut db.client, "f", "normal").expect_err("nobody is there");
    let mut other = restored(&db, "restored_external");
    receiver.start_again();
    receiver.forget_requests();
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated, c.upserted, c.deleted), (49, 0, 0, 0), "{c:?}");
    let sent: Vec<_> = receiver.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].contains("\"new\"") && sent[0].contains("delete"), "{sent:?}");
    let rows = receiver.rows("f", "out");
    assert_eq!(rows.len(), 49);
    other.run("update d set body = 'newer' where id = 3");
    other.update("f", "normal");
    assert!(receiver.rows("f", "out").values().any(|row| row.contains("newer")));
    other.verify_clean("f");
}
