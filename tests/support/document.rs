//! The examples in the project's documents, and running them as their readers do.
#![allow(dead_code)] // each file of tests uses a part

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The fenced blocks of a document of the project: language and text.
pub fn blocks(path: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let document =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|l| *l != "```").collect();
            blocks.push((language.to_owned(), text.join("\n")));
        }
    }
    blocks
}

/// Has psql run this, each statement in a transaction of its own; returns what it prints, without
/// row counts.
pub fn psql(url: &str, sql: &str) -> String {
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
    let mut psql = Command::new(format!("{bin}/psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-d", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql starts");
    // Dropped at the end of the statement: that is the end of the input.
    psql.stdin.take().expect("a pipe").write_all(sql.as_bytes()).expect("psql reads");
    let out = psql.wait_with_output().expect("psql ends");
    assert!(out.status.success(), "{sql}\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}
