//! Splits a text by the structure of its language, into chunks that know their lines and the
//! headings or symbols that they belong to.

use coco_core::text::Language;
use coco_core::text::marks::{Marks, headings};
use coco_core::text::split::Splitter;
use serde::{Deserialize, Serialize};

use crate::language::TextLanguage;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Offsets in bytes.
    pub start: usize,
    pub end: usize,
    /// Numbers of the first and the last line, from 1.
    pub first_line: usize,
    pub last_line: usize,
    /// The headings or symbols around the chunk, the outermost first.
    pub path: Vec<String>,
}

/// A named part of source code, such as a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub start: usize,
    pub end: usize,
    pub name: String,
}

/// The structure of a text.
pub(crate) struct Structure {
    pub marks: Marks,
    pub symbols: Vec<Symbol>,
}

/// Reports whether this build can split texts of a language by their structure.
pub fn is_built(language: TextLanguage) -> bool {
    cfg!(feature = "code") || is_plain_or_markdown(language)
}

/// Reports whether splitting a text of a language needs no parser of source code.
pub fn is_plain_or_markdown(language: TextLanguage) -> bool {
    matches!(language, TextLanguage::Plain | TextLanguage::Markdown)
}

/// Splits a text into chunks of at most `size` characters. Each chunk repeats at most `overlap`
/// characters of the previous one. Calls `check` repeatedly; `check` may panic to interrupt. A
/// language that is not built is split as plain text.
pub fn split_by_structure(
    text: &str,
    size: usize,
    overlap: usize,
    language: TextLanguage,
    mut check: impl FnMut(),
) -> Vec<Chunk> {
    let (kind, structure) = match language {
        TextLanguage::Plain => {
            let marks = Marks::new(text, Language::Plain);
            (Language::Plain, Structure { marks, symbols: Vec::new() })
        }
        TextLanguage::Markdown => {
            let marks = Marks::new(text, Language::Markdown);
            (Language::Markdown, Structure { marks, symbols: sections(text) })
        }
        code => (Language::Code, structure_of_code(text, code)),
    };
    let mut splitter = Splitter::with_marks(size, overlap, kind, structure.marks);
    let mut chunks = Vec::new();
    let mut paths = Paths::new(structure.symbols);
    let mut lines = Lines { text, at: 0, line: 1 };
    while let Some(place) = splitter.next(text, &mut check) {
        let first_line = lines.number_at(place.start);
        let piece = &text[place.clone()];
        let begins = place.start + piece.len() - piece.trim_start().len();
        // A chunk of Markdown belongs to the heading at its start, whatever comes after.
        let ends = if kind == Language::Markdown { begins + 1 } else { place.end };
        chunks.push(Chunk {
            start: place.start,
            end: place.end,
            first_line,
            last_line: first_line + piece.matches('\n').count(),
            path: paths.around(begins, ends),
        });
    }
    chunks
}

#[cfg(feature = "code")]
fn structure_of_code(text: &str, language: TextLanguage) -> Structure {
    crate::code::structure(text, language)
}

#[cfg(not(feature = "code"))]
fn structure_of_code(text: &str, _: TextLanguage) -> Structure {
    Structure { marks: Marks::new(text, Language::Plain), symbols: Vec::new() }
}

/// Returns the sections of a Markdown text: each reaches to the next heading of its level or above.
fn sections(text: &str) -> Vec<Symbol> {
    let headings = headings(text);
    let mut found: Vec<Symbol> = Vec::with_capacity(headings.len());
    // Sections that are open, with their levels.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for heading in headings {
        while let Some((at, _)) = open.pop_if(|(_, level)| *level >= heading.level) {
            found[at].end = heading.start;
        }
        open.push((found.len(), heading.level));
        let name = heading.title.trim().to_owned();
        found.push(Symbol { start: heading.start, end: text.len(), name });
    }
    found
}

/// Finds the symbols around chunks whose starts increase.
struct Paths {
    /// In the order of their starts, outer ones first.
    symbols: Vec<Symbol>,
    /// The number of symbols that begin at or before the last chunk's start.
    begun: usize,
    /// Those of them that may contain the next chunk.
    open: Vec<usize>,
}

impl Paths {
    fn new(mut symbols: Vec<Symbol>) -> Paths {
        symbols.sort_by(|a, b| a.start.cmp(&b.start).then(b.end.cmp(&a.end)));
        Paths { symbols, begun: 0, open: Vec::new() }
    }

    fn around(&mut self, start: usize, end: usize) -> Vec<String> {
        while self.begun < self.symbols.len() && self.symbols[self.begun].start <= start {
            let next = self.symbols[self.begun].start;
            // Symbols are nested, so those that have ended are the last ones.
            while self.open.pop_if(|at| self.symbols[*at].end <= next).is_some() {}
            self.open.push(self.begun);
            self.begun += 1;
        }
        while self.open.pop_if(|at| self.symbols[*at].end <= start).is_some() {}
        let around = self.open.iter().map(|at| &self.symbols[*at]);
        around.filter(|symbol| symbol.end >= end).map(|symbol| symbol.name.clone()).collect()
    }
}

/// Counts the lines before offsets, which may go back by the overlap of chunks.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn number_at(&mut self, at: usize) -> usize {
        let count = |from: usize, to: usize| {
            self.text.as_bytes()[from..to].iter().filter(|b| **b == b'\n').count()
        };
        if at >= self.at {
            self.line += count(self.at, at);
        } else {
            self.line -= count(at, self.at);
        }
        self.at = at;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str, size: usize, language: TextLanguage) -> Vec<(String, String, usize)> {
        split_by_structure(text, size, 0, language, || {})
            .into_iter()
            .map(|c| (text[c.start..c.end].to_owned(), c.path.join(" > "), c.first_line))
            .collect()
    }

    fn row(chunk: &str, path: &str, line: usize) -> (String, String, usize) {
        (chunk.to_owned(), path.to_owned(), line)
    }

    #[test]
    fn chunks_of_markdown_have_headings() {
        let text = "Intro.\n\n# A\n\none\n\n## B `x`\n\ntwo\n\n# C\n\nthree\n";
        assert_eq!(
            paths(text, 12, TextLanguage::Markdown),
            [
                row("Intro.", "", 1),
                row("# A\n\none", "A", 3),
                row("## B `x`", "A > B x", 7),
                row("two", "A > B x", 9),
                row("# C\n\nthree", "C", 11),
            ]
        );
    }

    /// The examples of docs/recipes.md and of the COMMENT on coco.split_file.
    #[test]
    #[cfg(feature = "code")]
    fn the_recipe_is_right() {
        let sea = "class Sea:\n    def pull(self):\n        return 1\n\n    def follow(self):\n        return 2\n";
        let rows: Vec<(usize, usize, String)> =
            split_by_structure(sea, 50, 0, TextLanguage::Python, || {})
                .into_iter()
                .map(|c| (c.first_line, c.last_line, c.path.join(" > ")))
                .collect();
        let row = |first, last, path: &str| (first, last, path.to_owned());
        assert_eq!(rows, [row(1, 1, "Sea"), row(2, 3, "Sea > pull"), row(5, 6, "Sea > follow")]);
        let notes = "# Tides\n\nThe moon pulls.\n\n## Stones\n\nStones do not follow.\n";
        let rows: Vec<(usize, usize, String)> =
            split_by_structure(notes, 50, 0, TextLanguage::Markdown, || {})
                .into_iter()
                .map(|c| (c.first_line, c.last_line, c.path.join(" > ")))
                .collect();
        assert_eq!(rows, [row(1, 3, "Tides"), row(5, 7, "Tides > Stones")]);
    }

    #[test]
    fn plain_texts_have_lines_and_no_path() {
        assert_eq!(
            paths("one\ntwo\n\nthree\n", 8, TextLanguage::Plain),
            [row("one\ntwo", "", 1), row("three", "", 4)]
        );
        assert_eq!(paths("", 8, TextLanguage::Plain), []);
    }
}
