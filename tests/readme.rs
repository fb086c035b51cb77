//! README says what happens: its SQL is run in order, and what it shows is compared.

mod support;

use std::process::Command;

use support::TestDb;

/// The fenced blocks of a document: language and text.
fn blocks(document: &str) -> Vec<(String, String)> {
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

/// What psql prints of the last result, without row counts and blanks at line ends.
fn psql(bin: &str, url: &str, sql: &str) -> String {
    let out = Command::new(format!("{bin}/psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-d", url, "-c", sql])
        .output()
        .expect("psql starts");
    assert!(out.status.success(), "{sql}\n{}", String::from_utf8_lossy(&out.stderr));
    trimmed(&String::from_utf8_lossy(&out.stdout))
}

fn trimmed(text: &str) -> String {
    text.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_readmes_example_gives_what_it_shows() {
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
    let mut db = TestDb::new("readme");
    db.run("drop extension coco");
    let url = db.url();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"))
        .expect("README.md");
    let blocks = blocks(&readme);
    let mut compared = 0;
    for (n, (language, text)) in blocks.iter().enumerate() {
        if language != "sql" {
            continue;
        }
        // Several statements in one -c are one transaction, and psql prints each result.
        let said = psql(&bin, &url, text);
        if let Some((_, shown)) = blocks.get(n + 1).filter(|(l, _)| l.is_empty()) {
            assert!(
                said.ends_with(&trimmed(shown)),
                "{text}\nREADME shows:\n{shown}\nit is:\n{said}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 4, "each example with its output");
}
