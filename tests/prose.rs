//! Holds the rules of docs/internals/style-guide.md that a test can check: the length of sentences in the README, the
//! quick start and COMMENTs, COMMENTs on columns that stand alone, and the form of messages and hints. Reads files only.

use std::fs;
use std::path::{Path, PathBuf};

const WORDS_OF_A_SENTENCE: usize = 40;
const WORDS_OF_THE_README: usize = 1200;

/// Beginnings of a COMMENT on a column that refer to another one, or to the column's name.
const DEPENDENT: [&str; 13] = [
    "Of ", "Its ", "And ", "As ", "The same", "When ", "What ", "Where ", "With ", "Which ",
    "Under ", "To ", "It ",
];

#[test]
fn the_readme_is_short() {
    let words = read("README.md").split_whitespace().count();
    assert!(words <= WORDS_OF_THE_README, "README.md has {words} words");
}

#[test]
fn sentences_of_the_readme_and_the_quick_start_are_short() {
    let mut long = Vec::new();
    for document in ["README.md", "docs/quick-start.md"] {
        let found = long_sentences(&prose_of_markdown(&read(document)));
        long.extend(found.into_iter().map(|sentence| format!("{document}: {sentence}")));
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn sentences_of_comments_are_short() {
    let mut long = Vec::new();
    let comments = comments();
    assert!(comments.len() > 200, "{} comments", comments.len());
    for comment in &comments {
        let found = long_sentences(&prose_of_comment(&comment.text));
        long.extend(found.into_iter().map(|sentence| format!("{}: {sentence}", comment.object)));
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn comments_on_columns_stand_alone() {
    let dependent = |text: &str| DEPENDENT.iter().any(|beginning| text.starts_with(beginning));
    let wrong: Vec<String> = comments()
        .into_iter()
        .filter(|comment| comment.object.starts_with("column ") && dependent(&comment.text))
        .map(|comment| format!("{}: {}", comment.object, comment.text))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// "could not connect to server", and neither "Could not …" nor "… server.".
#[test]
fn messages_start_in_lower_case_and_have_no_full_stop() {
    let starts = ["Error::new(", "Error::invalid(", "Error::internal("];
    let messages = texts_in_sources(&starts);
    assert!(messages.len() > 150, "{} messages", messages.len());
    let wrong: Vec<String> =
        messages.into_iter().filter(|text| is_sentence_case(text) || text.ends_with('.')).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A statement to run needs no full stop.
#[test]
fn details_and_hints_are_sentences() {
    let texts = texts_in_sources(&[".hint(", ".detail("]);
    assert!(texts.len() > 150, "{} details and hints", texts.len());
    let wrong: Vec<String> = texts.into_iter().filter(|text| !is_sentence(text)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_wrong_is_found() {
    let long = "word ".repeat(41);
    assert_eq!(long_sentences(std::slice::from_ref(&long)).len(), 1);
    assert!(long_sentences(&[format!("Short. {}", &long[..150])]).is_empty());
    assert!(long_sentences(&[format!("{}. And {}.", &long[..150], &long[..150])]).is_empty());
    let parts =
        prose_of_markdown("# Head\n\nOne\ntwo.\n\n- three\n\n```sql\nselect 1\n```\n\n| a | b |\n");
    assert_eq!(parts, ["One two.", "three", "a", "b"]);
    let parts = prose_of_comment(
        "Does it.\n\na: one\n  two\nb: three.\n\n    select 1\n\nErrors: 1 x; 2 y.",
    );
    assert_eq!(parts, ["Does it.", "a: one two", "b: three.", "Errors: 1 x", "2 y."]);
    assert!(is_sentence_case("Could not"));
    assert!(
        !is_sentence_case("could not") && !is_sentence_case("JSON is") && !is_sentence_case("… is")
    );
    assert!(is_sentence("Try again.") && is_sentence("ALTER TABLE … ADD PRIMARY KEY (…);"));
    assert!(!is_sentence("try again.") && !is_sentence("Try again"));
    let source = r#"Error::invalid(format!("key \"{key}\" is \
                    missing")).hint("Add it.")"#;
    assert_eq!(texts_of(source, "Error::invalid("), ["key \"…\" is missing"]);
    assert_eq!(texts_of(source, ".hint("), ["Add it."]);
}

fn path_of(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path_of(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// All files with this extension below a folder.
fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// The paragraphs, list items and cells of a document, without headings and blocks of code.
fn prose_of_markdown(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut in_block = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            in_block = !in_block;
            parts.push(String::new());
            continue;
        }
        if in_block || line.starts_with('#') || line.starts_with("<!--") || line.is_empty() {
            parts.push(String::new());
            continue;
        }
        if line.starts_with('|') {
            parts.extend(line.split('|').map(|cell| cell.trim().to_owned()));
            parts.push(String::new());
            continue;
        }
        let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let item = line.strip_prefix("- ").or(number.strip_prefix(". ").filter(|_| number != line));
        if let Some(item) = item {
            parts.push(item.to_owned());
        } else if let Some(part) = parts.last_mut() {
            append(part, line);
        }
    }
    without_empty(parts)
}

/// The paragraphs and entries of a COMMENT, without examples. A list of errors is split at its semicolons.
fn prose_of_comment(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.starts_with("    ")) {
        let mut lines: Vec<String> = Vec::new();
        for line in paragraph.lines() {
            let begins_entry = line.split_once(": ").is_some_and(|(name, _)| {
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !line.starts_with(' ')
            });
            match lines.last_mut() {
                Some(last) if !begins_entry => append(last, line.trim()),
                _ => lines.push(line.trim().to_owned()),
            }
        }
        for line in lines {
            match line.starts_with("Errors: ") {
                true => parts.extend(line.split("; ").map(str::to_owned)),
                false => parts.push(line),
            }
        }
    }
    without_empty(parts)
}

fn append(part: &mut String, line: &str) {
    if !part.is_empty() {
        part.push(' ');
    }
    part.push_str(line);
}

fn without_empty(parts: Vec<String>) -> Vec<String> {
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

/// The sentences that are too long. A sentence ends with a full stop, a question mark or a colon before a blank.
fn long_sentences(parts: &[String]) -> Vec<String> {
    let mut long = Vec::new();
    for part in parts {
        let mut words: Vec<&str> = Vec::new();
        for word in part.split_whitespace() {
            if word.chars().any(char::is_alphanumeric) {
                words.push(word);
            }
            let bare = word.trim_end_matches(['*', ')', '"', '`']);
            if bare.ends_with(['.', '?', ':']) {
                long.extend((words.len() > WORDS_OF_A_SENTENCE).then(|| words.join(" ")));
                words.clear();
            }
        }
        long.extend((words.len() > WORDS_OF_A_SENTENCE).then(|| words.join(" ")));
    }
    long
}

struct Comment {
    /// "column coco.status.flow", for example.
    object: String,
    text: String,
}

/// The COMMENTs in the SQL files: `comment on … is '…';` or `… is $doc$…$doc$;`.
fn comments() -> Vec<Comment> {
    let mut files = Vec::new();
    files_below(&path_of("sql"), "sql", &mut files);
    // Generated from the others.
    files.retain(|file| !file.starts_with(path_of("sql/install")));
    let mut found = Vec::new();
    for file in files {
        let sql = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let sql = format!("\n{sql}");
        for statement in sql.split("\ncomment on ").skip(1) {
            let Some((object, rest)) = statement.split_once(" is") else { continue };
            let rest = rest.trim_start();
            let text = match rest.strip_prefix("$doc$") {
                Some(text) => text.split("$doc$").next().unwrap_or_default().to_owned(),
                None => {
                    let quoted = rest.strip_prefix('\'').and_then(|text| text.split_once("';"));
                    let Some((text, _)) = quoted else {
                        panic!("{}: COMMENT on {object} cannot be read", file.display())
                    };
                    text.replace("''", "'")
                }
            };
            found.push(Comment { object: object.to_owned(), text });
        }
    }
    found
}

/// The texts that calls in the sources begin with: literals, with `…` for inserted values.
fn texts_in_sources(calls: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    for folder in ["src", "crates"] {
        if path_of(folder).is_dir() {
            files_below(&path_of(folder), "rs", &mut files);
        }
    }
    let mut texts = Vec::new();
    for file in files {
        let source =
            fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        for call in calls {
            texts.extend(texts_of(source, call));
        }
    }
    texts
}

fn texts_of(source: &str, call: &str) -> Vec<String> {
    source.split(call).skip(1).filter_map(literal).collect()
}

/// The literal that arguments begin with, after an error code; none where it is a variable.
fn literal(arguments: &str) -> Option<String> {
    let (before, rest) = arguments.split_once('"')?;
    let before: String = before.split_whitespace().collect();
    let code = before.trim_end_matches("format!(").trim_end_matches(',');
    if !code.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')) {
        return None;
    }
    let (mut text, mut in_value, mut rest) = (String::new(), false, rest.chars());
    loop {
        match rest.next()? {
            '"' if !in_value => return Some(text),
            '{' => {
                in_value = true;
                text.push('…');
            }
            '}' => in_value = false,
            '\\' if !in_value => match rest.next()? {
                // The literal continues in the next line.
                '\n' => rest = rest.as_str().trim_start().chars(),
                c => text.push(c),
            },
            c if !in_value => text.push(c),
            _ => {}
        }
    }
}

/// Whether a text begins as a sentence does: with a capital letter and a small one.
fn is_sentence_case(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(char::is_uppercase) && letters.next().is_some_and(char::is_lowercase)
}

fn is_sentence(text: &str) -> bool {
    let begins = !text.starts_with(|c: char| c.is_ascii_lowercase()) || text.starts_with("coco");
    let words: Vec<&str> = text.split_whitespace().collect();
    let has_statement =
        words.iter().any(|word| ["ALTER", "CREATE", "GRANT", "SELECT"].contains(word));
    let ends = text.ends_with(['.', '?', '…']) || text.contains("example: ") || has_statement;
    begins && ends
}
