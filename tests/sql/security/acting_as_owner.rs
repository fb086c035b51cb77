//! Every place that acts as the extension's owner, held against a list with a reason each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const LIST: &str = "tests/sql/security/acting_as_owner.txt";

/// The calls of `RoleGuard::extension_owner` and `RoleGuard::writing_log` in a file, by the function that has them.
fn places(code: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut function = String::from("-");
    for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
        if let Some(name) = function_of(line) {
            function = name;
        }
        for guard in ["extension_owner(", "writing_log("] {
            let calls = line.matches(guard).count();
            let defines = usize::from(line.contains(&format!("fn {guard}")));
            if calls > defines {
                *found.entry(function.clone()).or_default() += calls - defines;
            }
        }
    }
    found
}

/// The name of the function that a line begins.
fn function_of(line: &str) -> Option<String> {
    let at = line.find("fn ")?;
    let before = line[..at].trim();
    let words = [
        "",
        "pub",
        "pub(crate)",
        "pub(super)",
        "unsafe",
        "const",
        "extern",
        "\"C-unwind\"",
        "async",
    ];
    if !before.split(' ').all(|w| words.contains(&w) || w.starts_with("pub(")) {
        return None;
    }
    let name: String =
        line[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        match path.is_dir() {
            true => walk(&path, files),
            false => files.extend(path.extension().is_some_and(|e| e == "rs").then_some(path)),
        }
    }
}

/// A new place must be argued: it is one more statement whose rights are a superuser's.
#[test]
fn each_place_that_acts_as_the_extensions_owner_is_listed_with_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    walk(&root.join("src"), &mut files);
    let mut there = BTreeMap::new();
    for file in files {
        let code = fs::read_to_string(&file).expect("a readable file");
        let name = file.strip_prefix(root).expect("a file of ours").display().to_string();
        for (function, count) in places(&code) {
            there.insert(format!("{name} {function}"), count);
        }
    }
    let mut listed = BTreeMap::new();
    let mut wrong = Vec::new();
    let list = fs::read_to_string(root.join(LIST)).expect("the list");
    for line in list.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (places, reason) = line.split_once(" = ").unwrap_or((line, ""));
        if reason.split(' ').count() < 3 {
            wrong.push(format!("{LIST}: no reason for {places}"));
        }
        let (file, functions) = places.split_once(": ").unwrap_or((places, ""));
        for function in functions.split(' ') {
            *listed.entry(format!("{file} {function}")).or_insert(0usize) += 1;
        }
    }
    for (place, count) in &there {
        match listed.get(place) {
            None => wrong.push(format!(
                "{place} acts as the extension's owner, and {LIST} does not say why"
            )),
            Some(lines) if lines < count => wrong
                .push(format!("{place} does so {count} times, and {LIST} names it {lines} times")),
            Some(_) => {}
        }
    }
    for (place, lines) in &listed {
        let count = there.get(place).copied().unwrap_or(0);
        if *lines > count {
            wrong.push(format!(
                "{LIST} names {place} {lines} times, and the source does {count} times"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_place_is_found() {
    let code = "impl X {\n    pub fn one(&self) {\n        let a = RoleGuard::extension_owner()?;\n    }\n}\n// RoleGuard::extension_owner()\n\
                pub(super) unsafe fn two() { RoleGuard::extension_owner()? }\npub fn extension_owner() -> RoleGuard {}";
    let found: Vec<(String, usize)> = places(code).into_iter().collect();
    assert_eq!(found, [("one".to_owned(), 1), ("two".to_owned(), 1)]);
}
