//! Splitting text into chunks, and normalising it.

use text_splitter::{ChunkConfig, MarkdownSplitter, TextSplitter};

/// What a text is, which decides where it is best cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Plain,
    Markdown,
}

/// A piece of a text and the bytes it stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    pub text: &'a str,
    pub start: usize,
    pub end: usize,
}

/// Cuts a text into chunks of at most `size` characters, at the largest boundary that fits
/// (paragraphs, sentences, words), each repeating at most `overlap` characters of the one before.
pub fn split(
    text: &str,
    size: usize,
    overlap: usize,
    language: Language,
) -> Result<Vec<Chunk<'_>>, String> {
    let config = ChunkConfig::new(size).with_overlap(overlap).map_err(|e| e.to_string())?;
    let chunk = |(start, text): (usize, &'_ str)| (start, start + text.len());
    let places: Vec<(usize, usize)> = match language {
        Language::Plain => TextSplitter::new(config).chunk_indices(text).map(chunk).collect(),
        Language::Markdown => {
            MarkdownSplitter::new(config).chunk_indices(text).map(chunk).collect()
        }
    };
    Ok(places
        .into_iter()
        .map(|(start, end)| Chunk { text: &text[start..end], start, end })
        .collect())
}

/// Takes away what is no change of content: line endings become `\n`, runs of blanks one space,
/// blanks at line ends and blank lines at the end go.
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

/// A text in lines of at most `width` characters, broken at spaces; a longer word has a line of its own.
pub fn wrapped(text: &str, width: usize) -> String {
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
        assert_eq!(wrapped("one two three", 7), "one two\nthree");
        assert_eq!(wrapped("one  two", 20), "one  two");
        assert_eq!(wrapped("größer-als-alles und", 4), "größer-als-alles\nund");
        assert_eq!(wrapped("", 4), "");
    }

    #[test]
    fn chunks_are_at_the_bytes_they_say_and_no_longer_than_asked() {
        let text = "Größe zählt. Ein zweiter Satz, etwas länger.\n\nEin Absatz.";
        for language in [Language::Plain, Language::Markdown] {
            let chunks = split(text, 20, 5, language).expect("sizes fit");
            assert!(chunks.len() > 2);
            for c in chunks {
                assert_eq!(&text[c.start..c.end], c.text);
                assert!(c.text.chars().count() <= 20);
            }
        }
    }
}
