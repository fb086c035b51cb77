//! A database that is dumped and restored into another one.

use std::process::Command;

use crate::support::TestDb;

fn run(program: &str, args: &[&str]) {
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
    let ended = Command::new(format!("{bin}/{program}")).args(args).output().expect(program);
    assert!(ended.status.success(), "{ended:?}");
}

/// Returns a new database with everything of another one.
pub fn restored(from: &TestDb, name: &str) -> TestDb {
    let path = std::env::temp_dir().join(format!("coco-{name}-{}", std::process::id()));
    let file = path.to_str().expect("a path");
    run("pg_dump", &["-Fc", "-f", file, "-d", &from.url()]);
    let mut to = TestDb::new(name);
    to.run("drop extension coco");
    run("pg_restore", &["--exit-on-error", "-d", &to.url(), file]);
    std::fs::remove_file(&path).ok();
    to
}
