//! Splits text into chunks, and normalizes it.

use std::ops::Range;

pub mod marks;
pub mod split;

/// The format of a text. It determines where the text is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Plain,
    Markdown,
    /// Source code. Its structure is given as marks.
    Code,
}

/// Returns a part of a text without the surrounding whitespace. If the part is Markdown or source code
/// of several lines, the first line keeps its indentation.
fn trim(text: &str, part: Range<usize>, language: Language) -> Range<usize> {
    const BREAKS: [char; 2] = ['\n', '\r'];
    let piece = &text[part.clone()];
    let plain = piece.trim();
    let rest = match language != Language::Plain && plain.contains(BREAKS) {
        true => piece.trim_start_matches(BREAKS),
        false => piece.trim_start(),
    };
    let start = part.end - rest.len();
    start..start + rest.trim_end().len()
}

/// Removes differences that do not change the content. Line endings become `\n`, and runs of blanks
/// become one space. Blanks at the ends of lines and blank lines at the end are removed.
pub fn normalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = false;
    let mut newlines = 0usize;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' | '\n' => {
                if c == '\r' && chars.peek() == Some(&'\n') {
                    chars.next();
                }
                newlines += 1;
                blank = false;
            }
            ' ' | '\t' | '\u{a0}' => blank = true,
            c => {
                out.extend(std::iter::repeat_n('\n', newlines));
                if blank {
                    out.push(' ');
                }
                newlines = 0;
                blank = false;
                out.push(c);
            }
        }
    }
    out
}

/// Returns the text in lines of at most `width` characters, broken at spaces. A longer word gets
/// its own line.
pub fn wrap_lines(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut length = 0;
    for (n, word) in text.split(' ').enumerate() {
        let size = word.chars().count();
        if n > 0 {
            let fits = length + 1 + size <= width;
            out.push(if fits { ' ' } else { '\n' });
            length = if fits { length + 1 } else { 0 };
        }
        out.push_str(word);
        length += size;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_blanks_line_endings_and_repeated_spaces_are_no_change() {
        let plain = "One two.\n\nThree.";
        for same in
            ["One  two. \r\n\r\nThree.\r\n", "One\ttwo.\n\t\nThree.  ", "One two.\r\rThree.\n\n\n"]
        {
            assert_eq!(normalize(same), plain, "{same:?}");
        }
        assert_ne!(normalize("One two.\nThree."), plain);
        assert_ne!(normalize("Onetwo.\n\nThree."), plain);
        assert_eq!(normalize("  \n "), "");
    }

    #[test]
    fn lines_are_broken_at_spaces() {
        assert_eq!(wrap_lines("one two three", 7), "one two\nthree");
        assert_eq!(wrap_lines("one  two", 20), "one  two");
        assert_eq!(wrap_lines("größer-als-alles und", 4), "größer-als-alles\nund");
        assert_eq!(wrap_lines("", 4), "");
    }
}
