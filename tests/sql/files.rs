//! Files of the server as rows, and views as sources whose ordinal says what is new.

use crate::support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use postgres::Client;
use support::{Counts, TestDb, explain};

/// A directory that the server's user can read; removed at the end.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Files {
        let path = std::env::temp_dir().join(format!("coco_{name}_{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let files = Files(path);
        files.directory("");
        files
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        mode(&path, 0o755);
        path
    }

    /// Writes a file that was last changed `age` seconds before now.
    fn write(&self, name: impl AsRef<Path>, content: &[u8], age: u64) {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        mode(&path, 0o644);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }

    /// Writes a file anew, and leaves the time of its last change as it was.
    fn write_unnoticed(&self, name: &str, content: &[u8]) {
        let path = self.0.join(name);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, content).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.join(name)).unwrap();
    }

    fn sql(&self) -> String {
        format!("'{}'", self.0.display())
    }

    /// The paths that a glob gives, in order.
    fn list(&self, db: &mut TestDb, glob: &str) -> String {
        let sql = format!(
            "select coalesce(string_agg(path, ' ' order by path collate \"C\"), '') from coco.local_files({}, $1)",
            self.sql()
        );
        let row = db.client.query_one(&sql, &[&glob]);
        row.unwrap_or_else(|e| panic!("{glob}: {}", explain(&e))).get(0)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

fn fails(client: &mut Client, sql: &str, sqlstate: &str, says: &[&str]) {
    let e = client.batch_execute(sql).expect_err(sql);
    let said = explain(&e);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {said}");
    for part in says {
        assert!(said.contains(part), "{sql}: {said} lacks {part}");
    }
}

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
fn a_listing_never_reads_a_file() {
    let mut db = TestDb::new("files_plan");
    let files = Files::new("plan");
    db.run(&format!("create view files as select * from coco.local_files({})", files.sql()));
    let mut plan = |sql: &str| {
        let rows = db.client.query(&format!("explain (verbose, costs off) {sql}"), &[]).unwrap();
        rows.iter().map(|r| r.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
    };
    for sql in [
        "select path, modified from files",
        "select count(*) from files where size > 10",
        "select f.path from files f left join files g using (path) where g.path is null",
    ] {
        let plan = plan(sql);
        assert!(plan.contains("coco.list_files") && !plan.contains("read_file"), "{sql}:\n{plan}");
        assert!(!plan.contains("local_files"), "inlined: {plan}");
    }
    assert!(plan("select content from files").contains("coco.read_file"));
}

#[test]
fn a_glob_names_files() {
    let mut db = TestDb::new("files_glob");
    let files = Files::new("glob");
    files.directory("a/b");
    files.directory("c");
    for name in ["x.md", "y.txt", ".hidden.md", "a/x.md", "a/b/x.md", "a/b/z.html", "c/x.MD"] {
        files.write(name, b"", 0);
    }
    let all = ".hidden.md a/b/x.md a/b/z.html a/x.md c/x.MD x.md y.txt";
    for (glob, expected) in [
        ("**/*", all),
        ("**", all),
        ("*", ".hidden.md x.md y.txt"),
        ("*.md", ".hidden.md x.md"),
        ("**/*.md", ".hidden.md a/b/x.md a/x.md x.md"),
        ("a/*.md", "a/x.md"),
        ("a/**/*.md", "a/b/x.md a/x.md"),
        ("a/**", "a/b/x.md a/b/z.html a/x.md"),
        ("*/*.{md,MD}", "a/x.md c/x.MD"),
        ("{a/b,c}/*", "a/b/x.md a/b/z.html c/x.MD"),
        ("?.md", "x.md"),
        ("[x-z].*", "x.md y.txt"),
        ("[!x].*", "y.txt"),
        ("a/x.md", "a/x.md"),
        ("nosuch/*", ""),
        ("y.txt/*", ""),
    ] {
        assert_eq!(files.list(&mut db, glob), expected, "{glob}");
    }
    // A directory may end with a slash.
    let sql = format!("select path from coco.local_files('{}/a/', '*')", files.0.display());
    assert_eq!(text(&mut db.client, &sql), "x.md");
    for glob in ["/x.md", "./*", "../*", "a//b", "", "[a", "{a", "a}", "x\\"] {
        let sql = format!("select * from coco.local_files({}, '{glob}')", files.sql());
        fails(
            &mut db.client,
            &sql,
            "22023",
            &["argument \"glob\"", "is not a glob", "for example"],
        );
    }
}

#[test]
fn odd_names_links_and_times() {
    let mut db = TestDb::new("files_odd");
    let files = Files::new("odd");
    let sub = files.directory("sub");
    for name in ["two\nlines", "it's \"quoted\" \\ %", "ünïcödé ☃", " "] {
        files.write(name, name.as_bytes(), 0);
        let sql = format!(
            "select convert_from(content, 'UTF8') from coco.local_files({}) where path = $1",
            files.sql()
        );
        let content: String = db.client.query_one(&sql, &[&name]).unwrap().get(0);
        assert_eq!(content, name);
        files.remove(name);
    }
    // A loop, a directory elsewhere, a link that leads nowhere, one to itself, and one to a file.
    symlink("..", sub.join("loop")).unwrap();
    symlink("/", files.0.join("root")).unwrap();
    symlink("nosuch", files.0.join("broken")).unwrap();
    symlink("self", files.0.join("self")).unwrap();
    files.write("sub/file", b"linked", 0);
    symlink("sub/file", files.0.join("link")).unwrap();
    assert_eq!(files.list(&mut db, "**/*"), "link sub/file");
    let sql = format!(
        "select convert_from(content, 'UTF8') from coco.local_files({}, 'link')",
        files.sql()
    );
    assert_eq!(text(&mut db.client, &sql), "linked");
    // The directory itself may be a link.
    let sql = format!(
        "select string_agg(path, ' ') from coco.local_files('{}/sub/loop/sub', '*')",
        files.0.display()
    );
    assert_eq!(text(&mut db.client, &sql), "file");
    // A pipe is no file, and is not waited for.
    let pipe = files.0.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(files.list(&mut db, "pipe"), "");
    for none in ["nosuch", "pipe", "sub", "link/below", ""] {
        let sql = format!("select coco.read_file({}, '{none}')::text", files.sql());
        assert_eq!(text(&mut db.client, &sql), "", "{none}");
    }
    // Microseconds, also before 1970.
    for (nanos, expected) in [
        (1_700_000_000_123_456_789_i64, "2023-11-14 22:13:20.123456+00"),
        (-1_500, "1969-12-31 23:59:59.999998+00"),
    ] {
        let at = SystemTime::UNIX_EPOCH;
        let by = Duration::from_nanos(nanos.unsigned_abs());
        let at = if nanos < 0 { at - by } else { at + by };
        fs::File::options().write(true).open(sub.join("file")).unwrap().set_modified(at).unwrap();
        let sql = format!(
            "set timezone = 'UTC'; select modified::text from coco.local_files({}, 'sub/file')",
            files.sql()
        );
        let rows = db.client.simple_query(&sql).unwrap();
        let said = rows.iter().find_map(|m| match m {
            postgres::SimpleQueryMessage::Row(r) => r.get(0).map(str::to_owned),
            _ => None,
        });
        assert_eq!(said.as_deref(), Some(expected));
    }
    // Names that are no text are left out, with a warning.
    files.write(std::ffi::OsStr::from_bytes(b"bad\xff"), b"", 0);
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = said.clone();
    let mut client = db.connect_hearing(move |notice| heard.lock().unwrap().push(notice));
    let sql = format!(
        "select string_agg(path, ' ' order by path) from coco.local_files({})",
        files.sql()
    );
    assert_eq!(text(&mut client, &sql), "link sub/file");
    assert_eq!(
        *said.lock().unwrap(),
        ["skipped 1 file whose name is not valid in the database's encoding"]
    );
}

#[test]
fn what_cannot_be_listed_is_an_error() {
    let mut db = TestDb::new("files_errors");
    let files = Files::new("errors");
    files.write("a.md", b"One.", 0);
    let below =
        |rest: &str| format!("select * from coco.local_files('{}{rest}')", files.0.display());
    fails(
        &mut db.client,
        &below("/nosuch"),
        "58P01",
        &["nosuch\": No such file or directory (58P01)", "hint: Specify a directory"],
    );
    fails(
        &mut db.client,
        &below("/a.md"),
        "42809",
        &["a.md\": not a directory", "hint: Specify the directory"],
    );
    fails(
        &mut db.client,
        "select * from coco.local_files('docs')",
        "22023",
        &["\"docs\" is not an absolute path", "hint: Specify the path from the root"],
    );
    fails(
        &mut db.client,
        "select * from coco.local_files('')",
        "22023",
        &["is not an absolute path"],
    );
    fails(
        &mut db.client,
        "select * from coco.local_files(null)",
        "22004",
        &["argument \"directory\" must not be NULL"],
    );
    fails(
        &mut db.client,
        "select * from coco.local_files('/', null)",
        "22004",
        &["argument \"glob\" must not be NULL"],
    );
    // To leave out what cannot be read would delete its rows from the target.
    let closed = files.directory("closed");
    mode(&closed, 0o000);
    fails(
        &mut db.client,
        &below(""),
        "42501",
        &["closed\": Permission denied", "hint: Allow the server's operating system user"],
    );
    assert_eq!(files.list(&mut db, "*"), "a.md", "what cannot match is not looked at");
    mode(&closed, 0o755);
    assert_eq!(files.list(&mut db, "**/*"), "a.md");
    // Listed, not read: more than a bytea holds.
    let large = fs::File::create(files.0.join("large")).unwrap();
    large.set_len(0x3fff_ffff).unwrap();
    mode(&files.0.join("large"), 0o644);
    let sql = format!("select size::text from coco.local_files({}, 'large')", files.sql());
    assert_eq!(text(&mut db.client, &sql), "1073741823");
    let sql = format!("select content from coco.local_files({}, 'large')", files.sql());
    fails(
        &mut db.client,
        &sql,
        "54000",
        &["large\" is too large", "has 1073741823 bytes", "at most 1073741819", "WHERE size <"],
    );
    // In the end, the same backend goes on.
    assert_eq!(files.list(&mut db, "*"), "a.md large");
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
fn only_who_may_read_the_servers_files_reads_them() {
    let mut db = TestDb::new("files_rights");
    let files = Files::new("rights");
    files.write("a", b"a", 0);
    for role in ["coco_reader", "coco_stranger"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$;
             create schema {role} authorization {role}; grant usage on schema coco to {role}"
        ));
    }
    db.run(
        "grant pg_read_server_files to coco_reader; revoke pg_read_server_files from coco_stranger",
    );
    let flow = |role: &str| {
        format!(
            "set search_path = {role};
             create view files as select * from coco.local_files({});
             select coco.create_flow('{role}', 'files', 'select path, content from files', 't', '{{path}}', source_key => '{{path}}', ordinal => 'modified');
             select * from coco.update('{role}')",
            files.sql()
        )
    };
    let mut reader = db.connect_as("coco_reader");
    reader.batch_execute(&flow("coco_reader")).unwrap_or_else(|e| panic!("{}", explain(&e)));
    assert_eq!(text(&mut reader, "select convert_from(content, 'UTF8') from t"), "a");
    let mut stranger = db.connect_as("coco_stranger");
    fails(&mut stranger, &flow("coco_stranger"), "42501", &["permission denied for function"]);
    // A grant of the function does not make up for the role.
    db.run("grant execute on function coco.local_files, coco.list_files, coco.read_file to coco_stranger");
    for sql in [
        "select * from coco.local_files('/')",
        "select * from coco.list_files('/')",
        "select coco.read_file('/', 'etc/hostname')",
    ] {
        fails(
            &mut stranger,
            sql,
            "42501",
            &["permission denied for function coco.", "pg_read_server_files"],
        );
    }
    // Whoever calls, it is the owner's right that counts.
    assert_eq!(db.update("coco_reader", "normal")[0].seen, 1);
    db.run("revoke pg_read_server_files from coco_reader");
    fails(
        &mut db.client,
        "select * from coco.update('coco_reader')",
        "42501",
        &["permission denied for function"],
    );
    assert_eq!(text(&mut db.client, "select count(*)::text from coco_reader.t"), "1");
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
