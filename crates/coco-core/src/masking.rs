//! Removes secrets from texts that a server sends, and bounds their length.
//!
//! A server may repeat what it received, including a password, and may send texts of any length.
//! Every text of a server passes a [`Masker`] before it reaches a message, a log line or a table.
//! `targets::guard` applies a masker to all connectors, `providers::job_runner` to all providers.

use std::cmp::Reverse;
use std::fmt::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::change::{DeliveryError, RejectedChange};
use super::options::{Access, OptionSpec};
use super::provider::RejectedInput;

/// Maximum bytes of a message, a detail or a hint.
const LONGEST_TEXT: usize = 2000;
/// Maximum bytes of a server's text that are searched for secrets.
const LONGEST_LOOK: usize = 16 * 1024;
/// A shorter secret is masked only as a separate word: masking every `a` of a message would reveal
/// the secret.
const SHORTEST_SECRET: usize = 4;
/// A shorter part of a base64 text could belong to any other text.
const SHORTEST_BASE64: usize = 6;
/// A shorter line of a PEM key is padding.
const SHORTEST_LINE: usize = 16;
/// coco does not wait longer, whatever a server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
const MASK: &str = "***";

/// Masks secrets in texts, and bounds their length.
#[derive(Clone, Default)]
pub struct Masker {
    /// The forms of the secrets in lower case, longest first, so that a form comes before those
    /// that it contains.
    forms: Vec<Form>,
}

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Form {
    text: String,
    is_word: bool,
}

/// Whether a text may have several lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    One,
    Many,
}

impl Masker {
    /// Creates a masker for these secrets, and for their forms in JSON, URLs, HTML, SQL, base64 and
    /// hexadecimal digits.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Masker {
        let mut forms: Vec<Form> = secrets.into_iter().flat_map(forms).collect();
        forms.sort_by(|a, b| {
            (Reverse(a.text.len()), &a.text).cmp(&(Reverse(b.text.len()), &b.text))
        });
        forms.dedup_by(|a, b| a.text == b.text);
        Masker { forms }
    }

    /// Creates a masker for the secret options of a user mapping.
    pub fn for_access(access: &Access, specs: &[OptionSpec]) -> Masker {
        let secret = specs.iter().filter(|spec| spec.secret);
        Masker::new(secret.filter_map(|spec| access.user.get(spec.name)))
    }

    /// Returns the text without secrets, in at most 2,000 bytes. Of the control characters, only
    /// line ends and tabs remain.
    pub fn mask_text(&self, text: &str) -> String {
        self.cut(text, LONGEST_TEXT, Lines::Many)
    }

    /// Returns the text without secrets, as one line of at most `longest` bytes.
    pub fn mask_line(&self, text: &str, longest: usize) -> String {
        self.cut(text.trim(), longest, Lines::One)
    }

    /// Returns the error with all its texts masked and its wait bounded.
    pub fn mask_error(&self, error: DeliveryError) -> DeliveryError {
        DeliveryError {
            scope: error.scope,
            sqlstate: sqlstate(error.sqlstate),
            message: self.mask_text(&error.message),
            detail: error.detail.map(|text| self.mask_text(&text)),
            hint: error.hint.map(|text| self.mask_text(&text)),
            retry_after: error.retry_after.map(|wait| wait.min(LONGEST_WAIT)),
        }
    }

    /// Returns the rejected change with its message masked.
    pub fn mask_rejected_change(&self, rejected: RejectedChange) -> RejectedChange {
        RejectedChange {
            change: rejected.change,
            sqlstate: sqlstate(rejected.sqlstate),
            message: self.mask_text(&rejected.message),
        }
    }

    /// Returns the rejected input with its message masked.
    pub fn mask_rejected_input(&self, rejected: RejectedInput) -> RejectedInput {
        RejectedInput {
            sqlstate: sqlstate(rejected.sqlstate),
            message: self.mask_text(&rejected.message),
        }
    }

    fn cut(&self, text: &str, longest: usize, lines: Lines) -> String {
        let margin = self.forms.first().map_or(0, |form| form.text.len());
        let looked_at = at_most(text, LONGEST_LOOK + margin);
        // A secret that begins in the margin may end beyond it.
        let shown_to = match looked_at.len() < text.len() {
            true => at_most(looked_at, LONGEST_LOOK).len(),
            false => text.len(),
        };
        let mut shown = String::new();
        let mut at = 0;
        for (start, end) in self.secret_ranges(looked_at) {
            if start >= shown_to {
                break;
            }
            shown.push_str(&looked_at[at..start]);
            shown.push_str(MASK);
            at = end;
        }
        shown.push_str(&looked_at[at.min(shown_to)..shown_to]);
        let control =
            |c: char| c.is_control() && (lines == Lines::One || !matches!(c, '\n' | '\t'));
        let mut shown: String = shown.chars().map(|c| if control(c) { ' ' } else { c }).collect();
        let end = at_most(&shown, longest).len();
        if end < shown.len() || shown_to < text.len() {
            shown.truncate(end);
            shown.push('…');
        }
        shown
    }

    /// Returns the ranges of a text that contain secrets, in order and without overlaps.
    fn secret_ranges(&self, text: &str) -> Vec<(usize, usize)> {
        let lower = text.to_ascii_lowercase();
        let mut ranges = Vec::new();
        for form in &self.forms {
            let mut from = 0;
            while let Some(at) = lower.get(from..).and_then(|rest| rest.find(&form.text)) {
                let (start, end) = (from + at, from + at + form.text.len());
                if !form.is_word || is_word(&lower, start, end) {
                    ranges.push((start, end));
                }
                // The next occurrence may begin within this one.
                from = start + lower[start..].chars().next().map_or(1, char::len_utf8);
            }
        }
        ranges.sort_unstable();
        let mut apart: Vec<(usize, usize)> = Vec::new();
        for (start, end) in ranges {
            match apart.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => apart.push((start, end)),
            }
        }
        apart
    }
}

/// Returns the longest prefix of a text that has at most this many bytes.
fn at_most(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn is_word(text: &str, start: usize, end: usize) -> bool {
    let before = text[..start].chars().next_back();
    let after = text[end..].chars().next();
    !before.into_iter().chain(after).any(char::is_alphanumeric)
}

/// Returns the SQLSTATE if it is a valid error code, or else fdw_error.
fn sqlstate(code: String) -> String {
    let is_code =
        code.len() == 5 && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    // The classes of success, warnings and no data.
    let has_failed = !["00", "01", "02"].iter().any(|class| code.starts_with(class));
    if is_code && has_failed { code } else { "HV000".to_owned() }
}

/// Returns the forms in which a secret may be written.
fn forms(secret: &str) -> Vec<Form> {
    let secret = secret.trim();
    if secret.len() < SHORTEST_SECRET {
        let text = secret.to_ascii_lowercase();
        return if text.is_empty() { vec![] } else { vec![Form { text, is_word: true }] };
    }
    let mut texts = vec![
        secret.to_owned(),
        secret.escape_debug().to_string(),
        secret.escape_default().to_string(),
        secret.replace('\'', "''"),
        secret.replace('\\', "\\\\").replace('\'', "\\'"),
        secret.bytes().fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    ];
    texts.extend(json(secret));
    texts.extend(percent(secret));
    texts.extend(html(secret));
    texts.extend(base64(secret));
    // A server may repeat a single line of a PEM key.
    if secret.contains("-----BEGIN") {
        let lines = secret.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
        texts.extend(lines.filter(|line| line.len() >= SHORTEST_LINE).map(str::to_owned));
    }
    let lower = texts.into_iter().map(|text| text.to_ascii_lowercase());
    lower.map(|text| Form { text, is_word: false }).collect()
}

/// Returns the JSON forms of a secret: with `/`, non-ASCII characters and characters special in
/// HTML each plain or escaped.
fn json(secret: &str) -> Vec<String> {
    let Ok(quoted) = serde_json::to_string(secret) else { return vec![] };
    // The text between the quotation marks.
    let inner = quoted.get(1..quoted.len() - 1).unwrap_or(&quoted);
    let escape = |escaped: fn(char) -> bool| {
        inner.chars().fold(String::new(), |mut text, c| {
            match escaped(c) {
                true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                    let _ = write!(text, "\\u{unit:04x}");
                }),
                false => text.push(c),
            }
            text
        })
    };
    let texts = [
        inner.to_owned(),
        escape(|c| !c.is_ascii()),
        escape(|c| matches!(c, '<' | '>' | '&' | '\'')),
        escape(|c| !c.is_ascii() || matches!(c, '<' | '>' | '&' | '\'')),
    ];
    texts.into_iter().flat_map(|text| [text.replace('/', "\\/"), text]).collect()
}

/// Returns the percent-encoded forms of a secret: the strictest form, that of JavaScript, and that
/// of HTML forms.
fn percent(secret: &str) -> Vec<String> {
    let encode = |kept: &str, space: &str| {
        secret.bytes().fold(String::new(), |mut text, byte| {
            match byte {
                b' ' => text.push_str(space),
                _ if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) => {
                    text.push(char::from(byte));
                }
                _ => {
                    let _ = write!(text, "%{byte:02x}");
                }
            }
            text
        })
    };
    vec![
        encode("-_.~", "%20"),
        encode("-_.!~*'()", "%20"),
        encode("-_.*", "+"),
        encode("-_.~!$&'()*+,;=:@/?", "%20"),
    ]
}

fn html(secret: &str) -> Vec<String> {
    let text = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let quoted = text.replace('"', "&quot;");
    let apostrophe = |written: &str| quoted.replace('\'', written);
    vec![apostrophe("&#39;"), apostrophe("&#x27;"), apostrophe("&apos;"), quoted.clone(), text]
}

/// Returns the base64 characters that are certain to appear in the encoding of any text that
/// contains the secret, such as `user:password`. They depend on the secret's offset in a group of
/// three bytes.
fn base64(secret: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for before in 0..3 {
        let bytes = [&vec![0; before], secret.as_bytes()].concat();
        let encoded = STANDARD.encode(&bytes);
        let certain = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        if let Some(text) = encoded.get(certain).filter(|text| text.len() >= SHORTEST_BASE64) {
            texts.extend([text.to_owned(), text.replace('+', "-").replace('/', "_")]);
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ErrorScope;

    const SECRET: &str = "s3cr?t/\"wörd'&\\1";

    #[test]
    fn a_secret_is_masked_however_it_is_written() {
        let masker = Masker::new([SECRET]);
        for written in [
            SECRET.to_owned(),
            SECRET.to_uppercase().replace('Ö', "ö"),
            serde_json::to_string(SECRET).expect("JSON"),
            r#"s3cr?t\/\"w\u00f6rd'&\\1"#.to_owned(),
            r#"s3cr?t/\"w\u00F6rd\u0027\u0026\\1"#.to_owned(),
            "s3cr%3Ft%2F%22w%C3%B6rd%27%26%5C1".to_owned(),
            "s3cr%3ft%2f%22w%c3%b6rd'%26%5c1".to_owned(),
            "s3cr?t/&quot;wörd&#39;&amp;\\1".to_owned(),
            "s3cr?t/\"wörd''&\\1".to_owned(),
            format!("{SECRET:?}"),
            STANDARD.encode(SECRET),
            STANDARD.encode(format!("ada:{SECRET}")),
            STANDARD.encode(format!("adam:{SECRET}!")),
            STANDARD.encode(format!("coco:{SECRET}")),
        ] {
            let shown = masker.mask_text(&format!("before {written} after"));
            assert!(shown.contains(MASK), "{written}: {shown}");
            // The rest of a base64 text depends only partly on the secret, or not at all.
            let left = shown.replace(MASK, "").replace("before", "").replace("after", "");
            assert!(left.trim().len() <= 12, "{written}: {shown}");
        }
    }

    #[test]
    fn secrets_may_overlap_and_contain_each_other() {
        let masker = Masker::new(["abcdef", "defghi", "abcd", ""]);
        assert_eq!(masker.mask_text("xabcdefghix abcd"), "x***x ***");
        assert_eq!(Masker::new(["aaaa"]).mask_text("aaaaaaab"), "***b");
    }

    #[test]
    fn a_short_secret_is_masked_as_a_word() {
        let masker = Masker::new(["abc", "x"]);
        assert_eq!(masker.mask_text("abc, xabcx; (ABC) x"), "***, xabcx; (***) ***");
    }

    #[test]
    fn the_lines_of_a_key_are_secrets() {
        let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC";
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{line}\nshort=\n-----END PRIVATE KEY-----\n");
        let masker = Masker::new([pem.as_str()]);
        assert_eq!(masker.mask_text(&format!("got {line}!")), "got ***!");
        assert_eq!(masker.mask_text(pem.trim()), MASK);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let none = Masker::default();
        assert_eq!(none.mask_text(&"é".repeat(1000)), "é".repeat(1000));
        assert_eq!(none.mask_text(&"é".repeat(1001)), format!("{}…", "é".repeat(1000)));
        assert_eq!(
            none.mask_text(&format!("x{}", "é".repeat(1000))),
            format!("x{}…", "é".repeat(999))
        );
        assert_eq!(none.mask_line(" a\nb\0 ", 10), "a b ");
        assert_eq!(none.mask_text("a\nb\0\u{1b}[31m"), "a\nb  [31m");
        assert_eq!(none.mask_text(&"x".repeat(50 << 20)).len(), LONGEST_TEXT + "…".len());
    }

    /// Masks shorten a text, so text beyond the limit could become visible.
    #[test]
    fn no_part_of_a_secret_is_left_by_the_cut() {
        let secret = "0123456789".repeat(50);
        let masker = Masker::new([secret.as_str()]);
        for shift in 0..secret.len() {
            let text = format!("{}{}", "x".repeat(shift), secret.repeat(100));
            let shown = masker.mask_text(&text);
            assert!(!shown.contains("01234"), "{shift}: {shown}");
        }
    }

    #[test]
    fn what_is_no_sqlstate_becomes_one() {
        for code in ["23505", "HV00R", "XX000", "P0001"] {
            assert_eq!(sqlstate(code.to_owned()), code);
        }
        for code in ["", "2350", "235055", "23 05", "abcde", "00000", "01000", "02000", "ÄÄ1"] {
            assert_eq!(sqlstate(code.to_owned()), "HV000", "{code}");
        }
    }

    #[test]
    fn an_error_is_masked_in_all_its_parts() {
        let error = DeliveryError::server("no code", "m s3cret")
            .detail("d s3cret")
            .hint("h s3cret")
            .retry_after(Duration::from_secs(u64::MAX));
        let shown = Masker::new(["s3cret"]).mask_error(error);
        let expected = DeliveryError {
            scope: ErrorScope::Server,
            sqlstate: "HV000".to_owned(),
            message: "m ***".to_owned(),
            detail: Some("d ***".to_owned()),
            hint: Some("h ***".to_owned()),
            retry_after: Some(LONGEST_WAIT),
        };
        assert_eq!(shown, expected);
    }
}
