//! Holds the layers: imports go down only, and SQL stays in the catalog.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer of the extension with what it must not mention. That crates/ know nothing of it, and no Postgres, is held
/// by what their manifests name.
const LAYERS: [(&str, &[&str]); 4] = [
    (
        "src/pg/local_files.rs",
        &[
            "api",
            "worker",
            "catalog",
            "targets",
            "providers",
            "engine",
            "coco_core",
            "coco_connectors",
            "coco_report",
            "pgrx",
            "tokio",
        ],
    ),
    ("src/catalog", &["api", "worker", "targets", "providers", "coco_connectors"]),
    ("src/worker", &["api"]),
    ("src/api", &[]),
];

/// Where no SQL is written. A connector has something to say to another server.
const WITHOUT_SQL: [&str; 7] = [
    "src/pg/local_files.rs",
    "src/worker",
    "src/api",
    "crates/coco-connectors/src/net",
    "crates/coco-connectors/src/providers",
    "crates/coco-core/src",
    "crates/coco-report/src",
];

const OURS: [&str; 7] = ["api", "worker", "catalog", "targets", "providers", "engine", "files"];

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

#[test]
fn sql_is_written_in_the_catalog_alone() {
    let mut wrong = Vec::new();
    for place in WITHOUT_SQL {
        for file in files_of(place) {
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

/// The sources that a path of the project names, by itself or by its folder. There are some.
fn files_of(place: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
    let mut files = Vec::new();
    match path.is_dir() {
        true => walk(&path, &mut files),
        false => files.extend(path.is_file().then_some(path)),
    }
    assert!(!files.is_empty(), "no sources: {place}");
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
