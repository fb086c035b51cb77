//! What CREATE EXTENSION says of the server.

use std::sync::{Arc, Mutex};

use crate::support::TestDb;

#[test]
fn a_server_older_than_its_least_release_is_warned_about() {
    let mut db = TestDb::new("server_version");
    let row = db.client.query_one("select current_setting('server_version_num')::int", &[]);
    let server: i32 = row.expect("a version").get(0);
    let least = match server / 10_000 {
        15 => 150_020,
        16 => 160_016,
        17 => 170_012,
        18 => 180_007,
        _ => 0,
    };
    let heard = Arc::new(Mutex::new(Vec::<String>::new()));
    let hears = heard.clone();
    let mut client = db.connect_hearing(move |notice| hears.lock().unwrap().push(notice));
    for statement in [
        "select coco_internal.check_server_version()",
        "drop extension coco",
        "create extension coco",
    ] {
        client.batch_execute(statement).expect(statement);
        let said = std::mem::take(&mut *heard.lock().unwrap()).join("\n");
        let warns = said.contains("coco needs PostgreSQL");
        assert_eq!(warns, server < least && !statement.starts_with("drop"), "{statement}: {said}");
    }
}
