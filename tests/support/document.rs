//! The examples in the project's documents, running them as their readers do, and comparing what
//! comes out with what is shown.
#![allow(dead_code)] // each file of tests uses a part

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A fenced block of a document.
pub struct Block {
    pub line: usize,
    pub language: String,
    pub text: String,
    /// The block without a language that comes next to it: what it prints.
    pub shown: Option<String>,
    /// The reason of a comment `<!-- not run: … -->` before it.
    pub not_run: Option<String>,
}

const NOT_RUN: &str = "<!-- not run:";

pub fn path_of(document: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(document)
}

/// The blocks of a document of the project that have a language.
pub fn parse(document: &str) -> Vec<Block> {
    let path = path_of(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut blocks: Vec<Block> = Vec::new();
    let (mut not_run, mut adjacent) = (None, false);
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let fence = line.trim_start();
        let indent = line.len() - fence.len();
        if let Some(language) = fence.strip_prefix("```") {
            let text: Vec<&str> = lines
                .by_ref()
                .map(|(_, l)| l.get(indent..).unwrap_or_default())
                .take_while(|l| *l != "```")
                .collect();
            let (language, text) = (language.to_owned(), text.join("\n"));
            match blocks.last_mut() {
                Some(last) if language.is_empty() && adjacent => last.shown = Some(text),
                _ => blocks.push(Block {
                    line: number + 1,
                    language,
                    text,
                    shown: None,
                    not_run: not_run.take(),
                }),
            }
            adjacent = true;
        } else if let Some(reason) = fence.strip_prefix(NOT_RUN) {
            let reason = reason.trim_end_matches("-->").trim();
            assert!(!reason.is_empty(), "{document}:{}: why is it not run?", number + 1);
            not_run = Some(reason.to_owned());
        } else {
            adjacent &= fence.is_empty();
        }
    }
    assert!(not_run.is_none(), "{document}: a mark without a block");
    blocks
}

/// The fenced blocks of a document of the project: language and text.
pub fn blocks(path: &str) -> Vec<(String, String)> {
    parse(path).into_iter().map(|block| (block.language, block.text)).collect()
}

/// Has psql run this, each statement in a transaction of its own; returns what it prints, without
/// row counts.
pub fn psql(url: &str, sql: &str) -> String {
    let (fine, said) = psql_in(Path::new("/"), url, sql, false);
    assert!(fine, "{sql}\n{said}");
    said
}

/// The same in a directory; whether all went well, and what psql prints. What the server says
/// besides (errors, warnings, notices) is in between, if it is asked for; else only if it fails.
pub fn psql_in(directory: &Path, url: &str, sql: &str, hear: bool) -> (bool, String) {
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
    let mut psql = Command::new(format!("{bin}/psql"));
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-d", url]);
    run(psql.current_dir(directory), sql, hear)
}

/// A program with something on its input: whether it ended well, and what it prints.
pub fn run(program: &mut Command, input: &str, hear: bool) -> (bool, String) {
    let (mut said, to) = std::io::pipe().expect("a pipe");
    let errors = match hear {
        true => Stdio::from(to.try_clone().expect("a pipe")),
        false => Stdio::piped(),
    };
    program.stdin(Stdio::piped()).stdout(to).stderr(errors);
    let mut child = program.spawn().unwrap_or_else(|e| panic!("{program:?}: {e}"));
    // It holds the pipe's other end, which would never come to its end.
    program.stdout(Stdio::null()).stderr(Stdio::null());
    // Dropped at the end of the statement: that is the end of the input.
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let mut all = String::new();
    said.read_to_string(&mut all).expect("UTF-8");
    let ended = child.wait_with_output().expect("it ends");
    if !ended.status.success() {
        all.push_str(&String::from_utf8_lossy(&ended.stderr));
    }
    (ended.status.success(), all)
}

/// Whether the end of what was said is what is shown. Results of functions that return nothing count as
/// not said. `…` stands for anything within a line, and
/// as a line for any number of lines; where it occurs, blanks and rulers are of any length.
pub fn is_as_shown(said: &str, shown: &str) -> bool {
    let trimmed = |text: &str| -> Vec<String> {
        text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
    };
    let (said, shown) = (without_voids(trimmed(said)), trimmed(shown));
    if !shown.iter().any(|line| line.contains('…')) {
        return said.ends_with(&shown);
    }
    let loose =
        |lines: Vec<String>| -> Vec<String> { lines.iter().map(|l| collapsed(l)).collect() };
    let (said, shown) = (loose(said), loose(shown));
    (0..=said.len()).any(|from| lines_fit(&said[from..], &shown))
}

/// Lines of psql without those of `SELECT coco.start(…)` and the like: a name, a ruler and nothing.
fn without_voids(lines: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    let mut rest = lines.as_slice();
    while let Some((line, after)) = rest.split_first() {
        let name = line.strip_prefix(' ').is_some_and(|l| !l.is_empty() && !l.contains(['|', ' ']));
        let void = name
            && after.first().is_some_and(|ruler| ruler.chars().all(|c| c == '-'))
            && after.get(1).is_none_or(String::is_empty)
            && after.get(2).is_none_or(String::is_empty);
        match void {
            true => rest = after.get(3..).unwrap_or_default(),
            false => {
                kept.push(line.clone());
                rest = after;
            }
        }
    }
    kept.truncate(kept.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1));
    kept
}

/// A line with one blank for several, and one dash.
fn collapsed(line: &str) -> String {
    let mut short = String::new();
    for c in line.trim().chars() {
        if !(matches!(c, ' ' | '-') && short.ends_with(c)) {
            short.push(c);
        }
    }
    short
}

fn lines_fit(said: &[String], shown: &[String]) -> bool {
    match shown.split_first() {
        None => said.is_empty(),
        Some((line, rest)) if line == "…" => {
            (0..=said.len()).any(|skipped| lines_fit(&said[skipped..], rest))
        }
        Some((line, rest)) => match said.split_first() {
            None => false,
            Some((first, others)) => fits(first, line) && lines_fit(others, rest),
        },
    }
}

/// Whether a line is as shown, `…` being anything.
fn fits(said: &str, shown: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else { return said == shown };
    // A blank beside it may be part of what it stands for.
    let (start, rest) = (start.trim_end(), rest.trim_start());
    said.strip_prefix(start).is_some_and(|left| {
        let ends = left.char_indices().map(|(at, _)| at).chain([left.len()]);
        ends.into_iter().any(|at| fits(left[at..].trim_start(), rest))
    })
}
