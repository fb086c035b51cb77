//! Dump and restore: flows just go on, and what did not change is not evaluated.

mod support;

use std::process::{Command, Stdio};

use support::TestDb;

#[test]
fn a_restored_flow_goes_on_and_evaluates_nothing_that_did_not_change() {
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
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
    for flow in ["covered", "listed", "fails"] {
        db.update(flow, "normal");
    }
    let mut other = TestDb::new("restored");
    other.run("drop extension coco");
    let mut dump = Command::new(format!("{bin}/pg_dump"))
        .args(["-d", &db.url()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_dump starts");
    let restore = Command::new(format!("{bin}/psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &other.url()])
        .stdin(dump.stdout.take().expect("a pipe"))
        .stdout(Stdio::null())
        .status()
        .expect("psql starts");
    assert!(dump.wait().expect("pg_dump ends").success(), "pg_dump writes it all");
    assert!(restore.success(), "the dump restores without an error");
    for flow in ["covered", "listed"] {
        let c = &other.update(flow, "normal")[0];
        assert_eq!((c.seen, c.unchanged, c.evaluated), (50, 50, 0), "{flow}: {c:?}");
    }
    assert_eq!(other.update("fails", "normal")[0].failed, 1);
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
