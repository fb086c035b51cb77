//! README says what happens: its SQL is run in order, and what it shows is compared.

mod support;

use support::TestDb;
use support::document::{blocks, psql};

fn trimmed(text: &str) -> String {
    text.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_readmes_example_gives_what_it_shows() {
    let mut db = TestDb::new("readme");
    db.run("drop extension coco");
    let url = db.url();
    let blocks = blocks("README.md");
    let mut compared = 0;
    for (n, (language, text)) in blocks.iter().enumerate() {
        if language != "sql" {
            continue;
        }
        let said = trimmed(&psql(&url, text));
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
