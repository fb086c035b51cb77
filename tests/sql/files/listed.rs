//! `coco.list_files`: names, globs, links, times and errors.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::{Files, fails, mode, text};
use crate::support::{TestDb, explain};

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
