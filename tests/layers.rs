//! Holds the layers: imports go down only, and SQL stays in the catalog.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with what it must not mention. A layer that does not exist yet is kept all the same.
const LAYERS: [(&str, &[&str]); 8] = [
    (
        "files",
        &["api", "worker", "catalog", "targets", "providers", "net", "engine", "pgrx", "tokio"],
    ),
    (
        "engine",
        &["api", "worker", "catalog", "targets", "providers", "net", "files", "pgrx", "tokio"],
    ),
    ("net", &["api", "worker", "catalog", "targets", "providers", "files", "pgrx"]),
    ("targets", &["api", "worker", "catalog", "providers", "pgrx"]),
    ("providers", &["api", "worker", "catalog", "targets", "pgrx"]),
    ("catalog", &["api", "worker", "targets", "providers", "net"]),
    ("worker", &["api"]),
    ("api", &[]),
];

const OURS: [&str; 8] =
    ["api", "worker", "catalog", "targets", "providers", "net", "engine", "files"];

const SQL: [&str; 9] = [
    "select ",
    "insert into ",
    "update ",
    "delete from ",
    "with ",
    "create ",
    "alter ",
    "drop ",
    "truncate ",
];

#[test]
fn no_layer_imports_upwards() {
    let mut wrong = Vec::new();
    for (layer, forbidden) in LAYERS {
        for file in files_of(layer) {
            let code = code_of(&file);
            let found = forbidden.iter().filter(|f| mentions(&code, f));
            wrong.extend(found.map(|f| format!("{} mentions {f}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// But for what a connector says to another server.
#[test]
fn sql_is_written_in_the_catalog_alone() {
    let mut wrong = Vec::new();
    for (layer, _) in LAYERS.iter().filter(|(layer, _)| !matches!(*layer, "catalog" | "targets")) {
        for file in files_of(layer) {
            let found = sql_in(&code_of(&file));
            wrong.extend(found.iter().map(|sql| format!("{}: {sql}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_forbidden_is_found() {
    for code in [
        "use crate::api::run;",
        "use crate::{engine::decide, api};",
        "super::super::api::run::update()",
    ] {
        assert!(mentions(code, "api"), "{code}");
    }
    assert!(mentions("    pgrx::check_for_interrupts!();", "pgrx"));
    assert!(mentions("use tokio::sync;", "tokio"));
    for code in ["use crate::apiary;", "use super::api;", "let api = 1;", "my_pgrx::x()"] {
        assert!(!mentions(code, "api") && !mentions(code, "pgrx"), "{code}");
    }
    for code in ["q(\"select 1\")", "q(\"\n  INSERT INTO x\")", "Spi::connect(|c| c)", "r#\"with x"]
    {
        assert!(!sql_in(code).is_empty(), "{code}");
    }
    assert!(sql_in("hint(\"a query to select from\"); fn update (x: &str)").is_empty());
}

/// A layer's files. There are some for those that every version has had.
fn files_of(layer: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&src.join(layer), &mut files);
    let alone = src.join(format!("{layer}.rs"));
    if alone.exists() {
        files.push(alone);
    }
    assert!(
        !files.is_empty() || ["worker", "targets", "providers", "net"].contains(&layer),
        "no layer {layer}"
    );
    files
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// A file without its lines of comment, which may speak of anything.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let code: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
    code.join("\n")
}

/// Whether code names a layer of ours by its path, or another crate at all.
fn mentions(code: &str, name: &str) -> bool {
    if !OURS.contains(&name) {
        return words(code, name).next().is_some();
    }
    // `crate::name`, `super::super::name`, and `crate::{…, name, …};`
    words(code, name).any(|at| {
        let before = &code[..at];
        let statement = before.rfind(';').map_or(before, |end| &before[end..]);
        before.ends_with("crate::")
            || before.ends_with("super::super::")
            || (statement.contains("crate::{") && before.ends_with(['{', ' ', '\n']))
    })
}

/// Where a word stands in code.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !code[..*at].ends_with(part) && !code[at + word.len()..].starts_with(part)
    })
}

/// String literals that begin as a statement does, and SPI.
fn sql_in(code: &str) -> Vec<String> {
    let mut found: Vec<String> =
        code.lines().filter(|l| l.contains("Spi::")).map(str::to_owned).collect();
    for (at, _) in code.match_indices('"') {
        let text = code[at + 1..].trim_start().to_lowercase();
        if SQL.iter().any(|verb| text.starts_with(verb)) {
            found.extend(text.lines().next().map(str::to_owned));
        }
    }
    found
}
