//! Flows over files and over views with an ordinal.

use super::{Files, fails, mode, text};
use crate::support::{Counts, TestDb};

/// seen, skipped, unchanged, evaluated, upserted, deleted, failed
fn numbers(c: &Counts) -> [i64; 7] {
    [c.seen, c.skipped, c.unchanged, c.evaluated, c.upserted, c.deleted, c.failed]
}

/// A view over a directory's files that counts how often a content is read.
fn counted(db: &mut TestDb, files: &Files) {
    db.run(&format!(
        "create sequence reads;
         create function counted(path text) returns bytea language plpgsql stable as
           $$ begin perform nextval('reads'); return coco.read_file({dir}, path); end $$;
         create view files as
           select path, modified, size, counted(path) as content from coco.list_files({dir})",
        dir = files.sql()
    ));
}

/// How many contents the work read.
fn reads<T>(db: &mut TestDb, work: impl FnOnce(&mut TestDb) -> T) -> (i64, T) {
    db.run("select setval('reads', 1000)");
    let result = work(db);
    let read: i64 = db.client.query_one("select last_value - 1000 from reads", &[]).unwrap().get(0);
    (read, result)
}

#[test]
fn a_file_index_in_three_lines() {
    let mut db = TestDb::new("file_index");
    let files = Files::new("index");
    files.directory("sub");
    files.write("a.md", b"One.", 100);
    files.write("sub/b.md", b"Two. Four.", 100);
    files.write("d.txt", b"no", 100);
    db.run(&format!(
        "create view files as select * from coco.local_files({}, '**/*.md');
         select coco.create_flow('index', 'files', source_key => '{{path}}', ordinal => 'modified',
           query => $$ select path, n, chunk from files, coco.split_text(convert_from(content, 'UTF8'), 5) $$,
           target => 'chunks', key => '{{path,n}}')",
        files.sql()
    ));
    let chunks =
        "select string_agg(concat_ws(' ', path, n, chunk), ', ' order by path, n) from chunks";
    assert_eq!(numbers(&db.update("index", "normal")[0]), [2, 0, 0, 2, 3, 0, 0]);
    assert_eq!(text(&mut db.client, chunks), "a.md 1 One., sub/b.md 1 Two., sub/b.md 2 Four.");
    assert_eq!(numbers(&db.update("index", "normal")[0]), [2, 2, 0, 0, 0, 0, 0]);
    // One changed, one deleted, one added.
    files.write("a.md", b"Uno.", 50);
    files.remove("sub/b.md");
    files.write("sub/c.md", b"Six.", 200);
    assert_eq!(numbers(&db.update("index", "normal")[0]), [2, 0, 0, 2, 2, 2, 0]);
    assert_eq!(text(&mut db.client, chunks), "a.md 1 Uno., sub/c.md 1 Six.");
    db.verify_clean("index");
    // What leaves the time as it was is not seen until everything is evaluated.
    files.write_unnoticed("a.md", b"Due.");
    assert_eq!(numbers(&db.update("index", "normal")[0]), [2, 2, 0, 0, 0, 0, 0]);
    assert_eq!(numbers(&db.update("index", "full_reprocess")[0]), [2, 0, 0, 2, 1, 0, 0]);
    assert_eq!(text(&mut db.client, chunks), "a.md 1 Due., sub/c.md 1 Six.");
}

#[test]
fn content_is_read_of_what_changed_alone() {
    let mut db = TestDb::new("files_unread");
    let files = Files::new("unread");
    counted(&mut db, &files);
    for i in 0..600 {
        files.write(format!("{i}.txt"), format!("text {i}").as_bytes(), 1000);
    }
    db.run(
        "select coco.create_flow('f', 'files', source_key => '{path}', ordinal => 'modified',
           query => $$ select path, n, chunk, md5(content) as md5
                         from files, coco.split_text(convert_from(content, 'UTF8'), 100) $$,
           target => 't', key => '{path,n}');
         set coco.batch_size = 250",
    );
    let update = |db: &mut TestDb| numbers(&db.update("f", "normal")[0]);
    // Each is read for its fingerprint, and when it is evaluated: once, though the query names it twice.
    assert_eq!(reads(&mut db, update), (1200, [600, 0, 0, 600, 600, 0, 0]));
    assert_eq!(reads(&mut db, update), (0, [600, 600, 0, 0, 0, 0, 0]));
    files.write("7.txt", b"another", 500);
    assert_eq!(reads(&mut db, update), (2, [600, 599, 0, 1, 1, 0, 0]));
    // Its time alone: read once, not evaluated.
    files.write("7.txt", b"another", 400);
    assert_eq!(reads(&mut db, update), (1, [600, 599, 1, 0, 0, 0, 0]));
    files.remove("7.txt");
    assert_eq!(reads(&mut db, update), (0, [599, 599, 0, 0, 0, 1, 0]));
    // Many of many in one batch.
    db.run("reset coco.batch_size");
    for i in 100..500 {
        files.write(format!("{i}.txt"), format!("other {i}").as_bytes(), 300);
    }
    assert_eq!(reads(&mut db, update), (800, [599, 199, 0, 400, 400, 0, 0]));
    let preview =
        |db: &mut TestDb| text(&mut db.client, "select count(*)::text from coco.preview('f')");
    assert_eq!(reads(&mut db, preview), (0, "0".to_owned()));
    db.verify_clean("f");
    // An item that fails and waits is compared with what it was; the others are not.
    db.run("alter table t add constraint short check (length(chunk) < 20)");
    files.write("1.txt", b"too long by far for this", 200);
    assert_eq!(reads(&mut db, update).1, [599, 598, 0, 1, 0, 0, 1]);
    let (read, n) = reads(&mut db, update);
    assert!((1..=2).contains(&read) && n[1] == 598 && n[6] == 1, "{read} {n:?}");
}

#[test]
fn a_tables_rows_are_fingerprinted_where_their_ordinal_is_new_alone() {
    let mut db = TestDb::new("ordinal_unread");
    db.run(
        "create sequence reads;
         create function counted(t text) returns text language plpgsql stable as
           $$ begin perform nextval('reads'); return t; end $$;
         create table d (id int primary key, body text, version int not null);
         insert into d select i, 'text ' || i, 1 from generate_series(1, 1000) i;
         select coco.create_flow('f', 'd', 'select id, body from d', 't', '{id}', capture => 'scan', ordinal => 'version', fingerprint => 'counted(body)')",
    );
    let update = |db: &mut TestDb| numbers(&db.update("f", "normal")[0]);
    assert_eq!(reads(&mut db, update), (1000, [1000, 0, 0, 1000, 1000, 0, 0]));
    assert_eq!(reads(&mut db, update), (0, [1000, 1000, 0, 0, 0, 0, 0]));
    db.run("update d set version = 2, body = 'new' where id <= 3; update d set version = 2 where id = 4; delete from d where id = 5");
    assert_eq!(reads(&mut db, update), (4, [999, 995, 1, 3, 3, 1, 0]));
    db.verify_clean("f");
}

#[test]
fn a_file_that_cannot_be_used_fails_alone() {
    let mut db = TestDb::new("files_failing");
    let files = Files::new("failing");
    for name in ["a", "b", "c", "d"] {
        files.write(name, name.as_bytes(), 100);
    }
    // In the view: also the fingerprint of such an item cannot be computed.
    db.run(&format!(
        "create view files as select path, modified, convert_from(content, 'UTF8') as body from coco.local_files({});
         select coco.create_flow('f', 'files', 'select path, body from files', 't', '{{path}}', source_key => '{{path}}', ordinal => 'modified')",
        files.sql()
    ));
    files.write("b", b"\xff", 50);
    mode(&files.0.join("c"), 0o000);
    let update = |db: &mut TestDb, mode: &str| numbers(&db.update("f", mode)[0]);
    assert_eq!(update(&mut db, "normal"), [4, 0, 0, 4, 2, 0, 2]);
    let errors = "select string_agg(concat_ws(' ', source_key->>'path', sqlstate, left(message, 19)), ', ' order by source_key->>'path') from coco.errors";
    assert_eq!(
        text(&mut db.client, errors),
        "b 22021 invalid byte sequen, c 38000 could not open file"
    );
    db.verify_clean("f");
    // They wait; others are not held up.
    files.write("a", b"aa", 50);
    let n = update(&mut db, "normal");
    assert_eq!((n[0], n[1], n[4], n[6]), (4, 1, 1, 2), "{n:?}");
    mode(&files.0.join("c"), 0o644);
    files.write("b", b"b", 20);
    assert_eq!(update(&mut db, "retry"), [4, 2, 0, 2, 2, 0, 0]);
    assert_eq!(
        text(&mut db.client, "select string_agg(body, ' ' order by path) from t"),
        "aa b c d"
    );
    assert_eq!(update(&mut db, "normal"), [4, 4, 0, 0, 0, 0, 0]);
}

#[test]
fn an_ordinal_makes_the_rows_of_a_view_items() {
    let mut db = TestDb::new("view_ordinal");
    db.run(
        "create table d (id int, body text, version int);
         insert into d values (1, 'a', 1), (2, 'b', 1);
         create view v as select * from d;
         create materialized view m as select * from d;
         create extension file_fdw; create server files foreign data wrapper file_fdw;
         create foreign table f (id int, body text, version int) server files options (program 'printf \"1,a,1\\n2,b,1\\n\"', format 'csv')",
    );
    for source in ["v", "m", "f"] {
        db.run(&format!(
            "select coco.create_flow('{source}', '{source}', 'select id, body from {source}', 't_{source}', '{{id}}', source_key => '{{id}}', ordinal => 'version')"
        ));
        assert_eq!(numbers(&db.update(source, "normal")[0]), [2, 0, 0, 2, 2, 0, 0], "{source}");
        assert_eq!(numbers(&db.update(source, "normal")[0]), [2, 2, 0, 0, 0, 0, 0], "{source}");
        db.verify_clean(source);
    }
    assert_eq!(
        text(&mut db.client, "select string_agg(distinct item, ',') from coco.sources"),
        "row"
    );
    db.run("update d set version = 2, body = 'c' where id = 1; delete from d where id = 2; refresh materialized view m");
    for source in ["v", "m"] {
        assert_eq!(numbers(&db.update(source, "normal")[0]), [1, 0, 0, 1, 1, 1, 0], "{source}");
        db.verify_clean(source);
    }
    // A second row with a key, whatever its version, and also for a key that is new.
    for (id, version) in [(1, 1), (1, 2), (1, 3), (1, 9), (7, 1)] {
        let both = if id == 7 { "insert into d values (7, 'x', 1);" } else { "" };
        db.run(&format!("{both} insert into d values ({id}, 'z', {version})"));
        for sql in [
            "select * from coco.update('v')",
            "select * from coco.update('v', 'full_reprocess')",
            "select * from coco.preview('v')",
        ] {
            let key = format!("Key [\"{id}\"]");
            fails(
                &mut db.client,
                sql,
                "21000",
                &[
                    "source \"v\" has several rows with one key",
                    &key,
                    "hint: Leave the other rows out",
                ],
            );
        }
        assert_eq!(text(&mut db.client, "select string_agg(body, ',') from t_v"), "c");
        db.run("delete from d where body in ('z', 'x')");
    }
    db.run("insert into d values (null, 'z', 1), (null, 'z', 1)");
    // Rows without a key fail together, and no other does.
    assert_eq!(db.update("v", "normal")[0].failed, 1);
    assert_eq!(text(&mut db.client, "select sqlstate from coco.errors where flow = 'v'"), "22004");
    db.run("delete from d where id is null");
    assert_eq!(numbers(&db.update("v", "normal")[0]), [1, 1, 0, 0, 0, 0, 0]);
    // A NULL ordinal skips nothing.
    db.run("update d set version = null");
    assert_eq!(numbers(&db.update("v", "normal")[0]), [1, 0, 1, 0, 0, 0, 0]);
    assert_eq!(numbers(&db.update("v", "normal")[0]), [1, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn candidates_that_spill_to_disk_are_kept() {
    let mut db = TestDb::new("ordinal_spills");
    db.run(
        "create table d (id int primary key, body text, version int not null);
         insert into d select i, i::text, 1 from generate_series(1, 30000) i;
         select coco.create_flow('f', 'd', 'select id, body::int as n from d', 't', '{id}', capture => 'scan', ordinal => 'version', fingerprint => 'body::int');
         set work_mem = '64kB'",
    );
    let update = |db: &mut TestDb| numbers(&db.update("f", "normal")[0]);
    assert_eq!(update(&mut db), [30000, 0, 0, 30000, 30000, 0, 0]);
    // One cannot be read: it is evaluated unread, and fails. The others are read.
    db.run("update d set version = 2, body = case when id = 29999 then 'x' else body end where id > 10000");
    assert_eq!(update(&mut db), [30000, 10000, 19999, 1, 0, 0, 1]);
    db.run("update d set version = 3, body = id where id = 29999");
    assert_eq!(update(&mut db), [30000, 29999, 0, 1, 0, 0, 0]);
    db.verify_clean("f");
}
