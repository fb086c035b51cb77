//! docs/troubleshooting.md knows each error that coco raises itself.

use crate::support;

use std::path::Path;

use support::document::path_of;

#[test]
fn each_error_has_its_line() {
    let document = std::fs::read_to_string(path_of("docs/troubleshooting.md")).expect("a document");
    let mut found = Vec::new();
    messages_in(&path_of("src"), &mut found);
    // What is found at all: this would be less if errors were written in another way.
    assert!(found.len() > 100, "{} messages", found.len());
    found.retain(|message| !document.contains(&format!("`{message}`")));
    assert!(found.is_empty(), "not in docs/troubleshooting.md:\n{}", found.join("\n"));
}

/// The messages of errors in the sources below a folder, `…` standing for what is put in.
fn messages_in(folder: &Path, all: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            messages_in(&path, all);
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("a source");
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        for start in ["Error::new(", "Error::invalid("] {
            all.extend(source.split(start).skip(1).filter_map(message));
        }
    }
}

/// The text that the arguments of a call begin with, after a code; none where it is a variable's.
fn message(arguments: &str) -> Option<String> {
    let (before, rest) = arguments.split_once('"')?;
    let before: String = before.split_whitespace().collect();
    let code = before.trim_end_matches("format!(").trim_end_matches(',');
    if !code.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')) {
        return None;
    }
    let (mut text, mut within, mut rest) = (String::new(), false, rest.chars());
    loop {
        match rest.next()? {
            '"' if !within => return Some(text),
            '{' => {
                within = true;
                text.push('…');
            }
            '}' => within = false,
            '\\' if !within => match rest.next()? {
                // Goes on in the next line.
                '\n' => rest = rest.as_str().trim_start().chars(),
                c => text.push(c),
            },
            c if !within => text.push(c),
            _ => {}
        }
    }
}
