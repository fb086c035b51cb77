//! The SQL reference says what the installed extension says of itself.
#![cfg(feature = "connectors")]

use crate::support;

use std::path::Path;
use std::process::Command;

use support::TestDb;
use support::document::{path_of, run};

#[test]
fn the_reference_is_made_of_the_comments() {
    let db = TestDb::new("reference");
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
    let mut psql = Command::new(Path::new(&bin).join("psql"));
    psql.args(["-XqAt", "-d", &db.url(), "-f"]).arg(path_of("scripts/reference.sql"));
    let (fine, made) = run(&mut psql, "", false);
    assert!(fine, "{made}");
    let there = std::fs::read_to_string(path_of("docs/sql-reference.md")).expect("it is there");
    let differs = made.lines().zip(there.lines()).find(|(made, there)| made != there);
    assert_eq!(differs.map(|(made, _)| made), None, "`make reference` writes it anew");
    assert_eq!(made.len(), there.len(), "`make reference` writes it anew");
}
