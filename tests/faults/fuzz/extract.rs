//! Random files for `coco.extract_text` and `coco.split_file`: files of each format, of which bytes are changed, removed
//! or repeated. Each gives a text, or an error that an item can have.

use fastrand::Rng;

use crate::documents::{docx, epub, pdf, pptx, xlsx};
use crate::support::explain;
use crate::support::server::Session;

/// SQLSTATEs of files that have no text, and of limits.
const ALLOWED: [&str; 4] = ["22023", "22P03", "54000", "57014"];

/// Media types with which a file is read as what it is not.
const MEDIA_TYPES: [&str; 9] = [
    "application/pdf",
    "text/html",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/epub+zip",
    "message/rfc822",
    "application/rtf",
    "text/plain",
];

const LANGUAGES: [&str; 19] = [
    "bash",
    "c",
    "cpp",
    "csharp",
    "css",
    "go",
    "html",
    "java",
    "javascript",
    "json",
    "kotlin",
    "php",
    "python",
    "ruby",
    "rust",
    "sql",
    "swift",
    "typescript",
    "yaml",
];

const CODE: &str = "class A:\n  def f(self): return {\"a\": [1, (2)]}\n/* x */ fn g<'a>(x: &'a str) -> T { `$x`; }\n\
    <a href='b'>c</a>\nkey: - |\n  text\nSELECT $$ x $$ FROM t; <?php function h() { echo <<<E\nx\nE; }\n";

fn whole(rng: &mut Rng) -> Vec<u8> {
    match rng.usize(0..8) {
        0 => pdf(&["The moon pulls.", "The sea follows."]),
        1 => docx("<w:p><w:r><w:t>One &amp; two</w:t></w:r></w:p><w:tbl><w:tr><w:tc/></w:tr></w:tbl>"),
        2 => pptx(&["<p:sp><a:p><a:t>One</a:t></a:p></p:sp>"]),
        3 => xlsx(&[("S", r#"<row r="1"><c r="A1"><v>1</v></c></row>"#)]),
        4 => epub(&["<p>One</p>", "<p>Two</p>"]),
        5 => b"From: a@b\r\nSubject: =?utf-8?b?eA==?=\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nHi\r\n--x\r\nContent-Type: text/html\r\n\r\n<p>Hi\r\n--x--".to_vec(),
        6 => br"{\rtf1\ansi{\fonttbl{\f0\fcharset204 A;}}\f0 a\'e4\u8364?{\b c}\par\bin3 xyz}".to_vec(),
        _ => b"<!DOCTYPE html><title>T</title><main><h1>A</h1><ul><li><a href=x>y</a></ul><table><tr><td>1".to_vec(),
    }
}

/// Changes a file in a few places.
fn changed(rng: &mut Rng, mut file: Vec<u8>) -> Vec<u8> {
    for _ in 0..rng.usize(0..6) {
        if file.is_empty() {
            break;
        }
        let at = rng.usize(0..file.len());
        let end = (at + rng.usize(1..60)).min(file.len());
        match rng.usize(0..5) {
            0 => file[at] = rng.u8(..),
            1 => drop(file.drain(at..end)),
            2 => {
                let part = file[at..end].to_vec();
                let times = rng.usize(1..50);
                let repeated = std::iter::repeat_n(part, times).flatten();
                drop(file.splice(at..at, repeated));
            }
            3 => file.truncate(at),
            // Digits are counts, places and sizes.
            _ => {
                if let Some(digit) = file[at..].iter_mut().find(|b| b.is_ascii_digit()) {
                    *digit = b'0' + rng.u8(0..10);
                }
            }
        }
    }
    file
}

fn check(
    seed: u64,
    what: &str,
    content: &[u8],
    found: Result<Vec<postgres::Row>, postgres::Error>,
) {
    let Err(error) = found else { return };
    let code = error.code().map(|c| c.code().to_owned()).unwrap_or_default();
    assert!(
        ALLOWED.contains(&code.as_str()),
        "COCO_TEST_SEED={seed}: {what} of {:?}\n{}",
        String::from_utf8_lossy(content),
        explain(&error)
    );
}

/// A file, read as what it seems to be, and sometimes as another format.
pub fn round(session: &mut Session, rng: &mut Rng, seed: u64) {
    let file = whole(rng);
    let file = changed(rng, file);
    let kind = (rng.u8(0..4) == 0).then(|| MEDIA_TYPES[rng.usize(0..MEDIA_TYPES.len())]);
    let found =
        session.0.query("select page, text from coco.extract_pages($1, $2)", &[&file, &kind]);
    check(seed, "the text", &file, found);
    let code = changed(rng, CODE.as_bytes().to_vec());
    let code = String::from_utf8_lossy(&code).replace('\0', "");
    let (size, language) = (rng.i32(1..200), LANGUAGES[rng.usize(0..LANGUAGES.len())]);
    let sql = "select chunk from coco.split_file($1, $2, 0, $3)";
    let found = session.0.query(sql, &[&code, &size, &language]);
    check(seed, language, code.as_bytes(), found);
}
