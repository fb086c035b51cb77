//! Each test that docs/security.md names for a line of the model exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn the_tests_that_the_document_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/security.md")).expect("the document");
    let mut named = 0;
    let mut missing = BTreeSet::new();
    for span in document.split('`').skip(1).step_by(2) {
        let Some((file, test)) = span.split_once("::") else { continue };
        named += 1;
        let suite = root.join(file);
        let folder = suite.with_extension("");
        let parts = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let is_there = std::iter::once(suite).chain(parts).any(|path| {
            let code = fs::read_to_string(path).unwrap_or_default();
            code.contains(&format!("#[test]\nfn {test}()"))
        });
        if !is_there {
            missing.insert(span);
        }
    }
    assert!(named > 20, "the document names {named} tests");
    assert!(missing.is_empty(), "docs/security.md names tests that do not exist: {missing:?}");
}

/// A line of the model has a test.
#[test]
fn each_line_of_the_model_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/security.md")).expect("the document");
    let mut within = false;
    for line in document.lines() {
        within = line.starts_with('|') && (within || line == "| line | held by |");
        if within && line != "| line | held by |" && line != "|---|---|" {
            assert!(line.contains("::"), "no test holds: {line}");
        }
    }
}
