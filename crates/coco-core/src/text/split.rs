//! Splits a text into chunks, one at a time.
//!
//! A chunk consists of whole pieces. A piece is of the largest kind of which the next one fits:
//! characters, grapheme clusters, words, sentences, and above these the marks that
//! [`marks`](super::marks) finds.
//!
//! Anyone who can write a row controls the text. The time and memory per chunk must therefore
//! depend on the chunk's size, not on the text. The splitter looks at no more text than a chunk can
//! have, plus a small margin.

use std::cmp::Ordering;
use std::ops::Range;

use icu_segmenter::options::{SentenceBreakInvariantOptions, WordBreakInvariantOptions};
use icu_segmenter::{
    GraphemeClusterSegmenter, SentenceSegmenter, SentenceSegmenterBorrowed, WordSegmenter,
    WordSegmenterBorrowed,
};

use super::marks::{Mark, Marks};
use super::{Language, trim};

/// Maximum number of characters after a chunk that the splitter looks at: the end of a word or a
/// sentence can depend on the following text.
const BEYOND: usize = 64;

/// Small chunks end within words, so a smaller margin is enough.
const BEYOND_SMALL: usize = 8;

thread_local! {
    static WORDS: WordSegmenterBorrowed<'static> =
        WordSegmenter::new_dictionary(WordBreakInvariantOptions::default());
    static SENTENCES: SentenceSegmenterBorrowed<'static> =
        SentenceSegmenter::new(SentenceBreakInvariantOptions::default());
}

/// Kinds of pieces smaller than a line, the smallest first.
const SMALL: [Small; 4] = [Small::Character, Small::Cluster, Small::Word, Small::Sentence];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Small {
    Character,
    /// A grapheme cluster (UAX 29).
    Cluster,
    Word,
    Sentence,
}

impl Small {
    /// Calls `found` with the end of each piece of a text, until it returns `false`.
    fn ends(self, text: &str, mut found: impl FnMut(usize) -> bool) {
        let mut all = |ends: &mut dyn Iterator<Item = usize>| {
            ends.filter(|end| *end > 0).all(&mut found);
        };
        match self {
            Small::Character => all(&mut text.char_indices().map(|(at, c)| at + c.len_utf8())),
            Small::Cluster => all(&mut GraphemeClusterSegmenter::new().segment_str(text)),
            Small::Word => WORDS.with(|s| all(&mut s.segment_str(text))),
            Small::Sentence => SENTENCES.with(|s| all(&mut s.segment_str(text))),
        }
    }

    fn first_end(self, text: &str) -> usize {
        let mut first = 0;
        self.ends(text, |end| {
            first = end;
            false
        });
        first
    }
}

/// An iterator over the chunks of one text. The caller keeps the text.
#[derive(Debug)]
pub struct Splitter {
    language: Language,
    size: usize,
    overlap: usize,
    marks: Marks,
    /// Start of the next chunk.
    cursor: usize,
    /// Start of the last chunk.
    began: usize,
    /// End of the last chunk.
    ended: usize,
    /// Number of bytes looked at.
    #[cfg(test)]
    looked_at: usize,
}

impl Splitter {
    /// Creates a splitter for chunks of at most `size` characters. Each chunk repeats at most
    /// `overlap` characters of the previous one.
    pub fn new(text: &str, size: usize, overlap: usize, language: Language) -> Splitter {
        Splitter::with_marks(size, overlap, language, Marks::new(text, language))
    }

    /// Creates a splitter for a text whose marks are known.
    pub fn with_marks(size: usize, overlap: usize, language: Language, marks: Marks) -> Splitter {
        let size = size.max(1);
        let overlap = overlap.min(size - 1);
        Splitter {
            language,
            size,
            overlap,
            marks,
            cursor: 0,
            began: 0,
            ended: 0,
            #[cfg(test)]
            looked_at: 0,
        }
    }

    /// Returns the range of the next chunk. Calls `check` repeatedly; `check` may panic to
    /// interrupt.
    pub fn next(&mut self, text: &str, mut check: impl FnMut()) -> Option<Range<usize>> {
        loop {
            check();
            self.skip_blanks(text);
            if self.cursor >= text.len() {
                return None;
            }
            let window = &text[..self.window_end(text)];
            #[cfg(test)]
            {
                self.looked_at += window.len() - self.cursor;
            }
            let ends = self.pieces(window);
            let fits = |end: &usize| !self.is_larger(&text[self.cursor..*end], self.size);
            let last = ends.partition_point(fits).max(1) - 1;
            let end = ends.get(last).copied()?;
            let chunk = trim(text, self.cursor..end, self.language);
            self.cursor = self.after(text, &ends[..=last]);
            // Otherwise the previous chunk already contains it.
            if !chunk.is_empty() && chunk.end > self.ended {
                // With its indentation, a chunk could begin before the previous one, which had lost
                // its own.
                self.began = chunk.start.max(self.began);
                self.ended = chunk.end;
                return Some(self.began..self.ended);
            }
        }
    }

    /// Skips whitespace that is longer than a chunk.
    fn skip_blanks(&mut self, text: &str) {
        let rest = &text[self.cursor..];
        let blanks = &rest[..rest.len() - rest.trim_start().len()];
        if blanks.len() <= self.size {
            return;
        }
        // The indentation of a Markdown line belongs to the line.
        let indented = match self.language {
            Language::Plain => blanks.len(),
            Language::Markdown | Language::Code => {
                blanks.rfind(['\n', '\r']).map_or(0, |at| at + 1)
            }
        };
        let too_far = blanks.len() - indented > self.size;
        self.cursor += if too_far { blanks.len() } else { indented };
    }

    /// Returns the end of the text that is looked at for the next chunk.
    fn window_end(&self, text: &str) -> usize {
        let rest = &text[self.cursor..];
        let begin = text.len() - rest.trim_start().len();
        let beyond = BEYOND.min(self.size.saturating_mul(4).saturating_add(BEYOND_SMALL));
        let mut characters = text[begin..].char_indices();
        characters.nth(self.size.saturating_add(beyond)).map_or(text.len(), |(at, _)| begin + at)
    }

    /// Returns the ends of the pieces for the next chunk.
    fn pieces(&mut self, window: &str) -> Vec<usize> {
        let text = &window[self.cursor..];
        let marks = self.marks.within(window, self.cursor);
        let mut levels: Vec<u32> = marks.iter().map(|mark| mark.level).collect();
        levels.sort_unstable();
        levels.dedup();
        let first = |level: &u32| {
            let mut first = None;
            self.sections(text, &marks, *level, |end| {
                first = Some(end);
                false
            });
            Some((*level, first?))
        };
        let (level, mut limit) = self.largest(text, levels.iter().filter_map(first));
        let mut ends = Vec::new();
        if let Some(level) = level {
            self.sections(text, &marks, level, |end| within(end, limit, &mut ends));
        } else {
            let first = SMALL.into_iter().map(|small| (small, small.first_end(text)));
            let (small, limit_of_small) = self.largest(text, first);
            limit = limit.min(limit_of_small);
            let small = small.unwrap_or(Small::Character);
            small.ends(text, |end| within(end, limit, &mut ends));
        }
        ends.iter_mut().for_each(|end| *end += self.cursor);
        ends
    }

    /// Returns the largest kind whose first piece fits, and the end of the first piece that does
    /// not fit. `kinds` yields each kind with the end of its first piece.
    fn largest<K: Copy>(
        &self,
        text: &str,
        kinds: impl Iterator<Item = (K, usize)>,
    ) -> (Option<K>, usize) {
        let mut candidates: Vec<(K, usize)> = Vec::new();
        for (kind, end) in kinds {
            // A smaller kind is of no use if its piece is not smaller.
            candidates.pop_if(|(_, smaller)| *smaller >= end);
            candidates.push((kind, end));
        }
        let mut largest = None;
        for (kind, end) in candidates {
            if self.is_larger(&text[..end], self.size) {
                return (largest, end);
            }
            largest = Some(kind);
        }
        (largest, usize::MAX)
    }

    /// Calls `found` with the end of each part between marks of this level and above, until it
    /// returns `false`. Mark positions are relative to the text.
    fn sections(
        &self,
        text: &str,
        marks: &[Mark],
        level: u32,
        mut found: impl FnMut(usize) -> bool,
    ) {
        // Otherwise a larger mark around the first mark of this level would hide it.
        let first = first_of(marks, level);
        let around = |mark: &Mark| {
            (mark.level > level && mark.start <= first.start && first.start < mark.end)
                || (mark.level == level && mark.start == first.start && mark.end > first.end)
        };
        let mut at = 0;
        for mark in marks.iter().filter(|m| m.level >= level).skip_while(|m| around(m)) {
            if mark.start < at {
                continue;
            }
            let blank = || text[at..mark.start].trim_start().is_empty();
            let alone = !(self.marks.takes_blanks_before(mark.level) && blank());
            if alone && mark.start > at && !found(mark.start) {
                return;
            }
            if alone {
                at = mark.start;
            }
            if !self.marks.belongs_to_next(mark.level) && mark.end > at {
                at = mark.end;
                if !found(at) {
                    return;
                }
            }
        }
        if at < text.len() {
            found(text.len());
        }
    }

    /// Returns the start of the next chunk: the start of the pieces at the end of this chunk that
    /// may be repeated.
    fn after(&self, text: &str, ends: &[usize]) -> usize {
        let Some((&end, before)) = ends.split_last() else { return text.len() };
        if self.overlap == 0 {
            return end;
        }
        let start_of = |n: usize| if n == 0 { self.cursor } else { before[n - 1] };
        let (mut next, mut low, mut high) = (end, 0, before.len());
        while low <= high {
            let middle = low + (high - low) / 2;
            let start = start_of(middle);
            let fits = self.count(&text[start..end]).cmp(&self.overlap);
            if fits.is_le() && start < next && start > self.cursor {
                next = start;
            }
            if fits == Ordering::Less && middle > 0 {
                high = middle - 1;
            } else {
                low = middle + 1;
            }
        }
        next
    }

    /// Returns the number of characters that a piece has as a chunk.
    fn count(&self, piece: &str) -> usize {
        piece[trim(piece, 0..piece.len(), self.language)].chars().count()
    }

    fn is_larger(&self, piece: &str, size: usize) -> bool {
        piece.len() > size
            && piece[trim(piece, 0..piece.len(), self.language)].chars().nth(size).is_some()
    }
}

/// Adds an end. Returns whether the next end is needed.
fn within(end: usize, limit: usize, ends: &mut Vec<usize>) -> bool {
    if ends.last().is_some_and(|start| *start > limit) {
        return false;
    }
    ends.push(end);
    true
}

/// Returns the first mark of a level. If several marks begin the text at the same position, returns
/// the smallest.
fn first_of(marks: &[Mark], level: u32) -> Mark {
    let Some(at) = marks.iter().position(|mark| mark.level == level) else {
        return Mark { level, start: usize::MAX, end: usize::MAX };
    };
    let first = marks[at];
    let same = |mark: &&Mark| at == 0 && mark.level == level && mark.start == first.start;
    marks[at..].iter().take_while(same).last().copied().unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use text_splitter::{ChunkConfig, MarkdownSplitter, TextSplitter};

    use super::*;

    const LANGUAGES: [Language; 2] = [Language::Plain, Language::Markdown];

    fn places(text: &str, size: usize, overlap: usize, language: Language) -> Vec<Range<usize>> {
        let mut splitter = Splitter::new(text, size, overlap, language);
        std::iter::from_fn(|| splitter.next(text, || {})).collect()
    }

    /// Returns the chunks of the text-splitter crate, which define the expected result. They may
    /// take any time.
    fn expected(text: &str, size: usize, overlap: usize, language: Language) -> Vec<Range<usize>> {
        let config = ChunkConfig::new(size).with_overlap(overlap).expect("sizes fit");
        let place = |(start, chunk): (usize, &str)| start..start + chunk.len();
        match language {
            Language::Plain | Language::Code => {
                TextSplitter::new(config).chunk_indices(text).map(place).collect()
            }
            Language::Markdown => {
                MarkdownSplitter::new(config).chunk_indices(text).map(place).collect()
            }
        }
    }

    #[test]
    fn ordinary_texts_are_cut_as_ever() {
        const WORDS: [&str; 22] = [
            "Hello",
            "world",
            "größe",
            "don't",
            "a",
            "I",
            "e.g.",
            "3.14",
            "1,000",
            "U.S.",
            "Straße",
            "🙂",
            "naïve",
            "中文",
            "これは",
            "ภาษาไทย",
            "end.",
            "What?",
            "No!",
            "\"quoted\"",
            "(in)",
            "👩‍👩‍👧",
        ];
        const MARKS: [&str; 26] = [
            "# ",
            "## ",
            "- ",
            "* ",
            "1. ",
            "> ",
            "**b**",
            "*i*",
            "`code`",
            "```\n",
            "[l](u)",
            "---\n",
            "| a | b |\n|---|---|\n| c | d |\n",
            "    indented",
            "\\",
            "<b>",
            "<div>\n",
            "![i](u)",
            "[^1]",
            "[^1]: x",
            "- [ ] t",
            "~~s~~",
            "$m$",
            "$$\nm\n$$\n",
            "\tt",
            ": def\n",
        ];
        const BETWEEN: [&str; 16] = [
            " ", " ", " ", " ", ", ", ". ", "\n", "\n\n", "\n\n\n", "  ", "\t", "\r\n", "\r\n\r\n",
            " \n", "! ", "—",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let language = LANGUAGES[random.usize(..2)];
            let mut text = String::new();
            for _ in 0..random.usize(..60) {
                let marked = language == Language::Markdown && random.u8(..4) == 0;
                let words: &[&str] = if marked { &MARKS } else { &WORDS };
                text.push_str(words[random.usize(..words.len())]);
                text.push_str(BETWEEN[random.usize(..BETWEEN.len())]);
            }
            let size = random.usize(1..80);
            let overlap = if random.bool() { 0 } else { random.usize(..size) };
            let (ours, theirs) =
                (places(&text, size, overlap, language), expected(&text, size, overlap, language));
            assert_eq!(ours, theirs, "{language:?} {size} {overlap} {text:?}");
        }
    }

    #[test]
    fn no_chunk_begins_before_the_one_before() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..3000 {
            let pieces = ["\u{202e}", "\t", "\n\n", "\t\t", "a", "\n"];
            let text: String =
                (0..random.usize(..80)).map(|_| pieces[random.usize(..pieces.len())]).collect();
            let size = random.usize(2..12);
            let overlap = random.usize(1..size);
            for language in LANGUAGES {
                let all = places(&text, size, overlap, language);
                let ascending = all.windows(2).all(|two| two[0].start <= two[1].start);
                assert!(ascending, "{language:?} {size} {overlap} {text:?}: {all:?}");
            }
        }
    }

    /// Also for texts that an attacker makes.
    #[test]
    fn a_chunk_never_takes_longer_the_longer_the_text_is() {
        let mut random = fastrand::Rng::with_seed(7);
        let any: String = (0..1_000).map(|_| random.char('\0'..)).collect();
        let runs: String = (1..100).map(|n| format!("a{}", "\n".repeat(n))).collect();
        let units = [
            "a",
            "a b ",
            " ",
            "\t",
            "\n",
            "\r\n",
            "a\n",
            " \n",
            "\u{1}",
            "\u{301}",
            "\u{200d}",
            "👩‍👩‍👧‍👦",
            "🇩🇪",
            ".",
            "a.",
            "1,",
            "ก",
            "中文字",
            "> ",
            "- ",
            "*a ",
            "a**b",
            "[",
            "![[]()",
            "`",
            "<a ",
            "<!--",
            "|a|\n|-|\n",
            "[^a]: ",
            "$${",
            "<x",
            "\\",
            "---\n",
            "# a\n",
            &any,
            &runs,
        ];
        for unit in units {
            let long = unit.repeat(6_000 / unit.len() + 1);
            let between = format!("x{long}y");
            for text in [&long, &between] {
                for language in LANGUAGES {
                    for (size, overlap) in [(1, 0), (24, 0), (24, 12), (2000, 100)] {
                        let mut splitter = Splitter::new(text, size, overlap, language);
                        let (mut rounds, mut begin, mut end) = (0, 0, 0);
                        while let Some(place) = splitter.next(text, || rounds += 1) {
                            assert!(text[place.clone()].chars().count() <= size);
                            assert!(place.end > end && !text[place.clone()].is_empty());
                            assert!(place.start >= begin, "{unit:?} {size} {overlap}");
                            (begin, end) = (place.start, place.end);
                        }
                        assert_eq!(end, text.trim_end().len(), "all of {unit:?} is in chunks");
                        let most = 4 * (2 * size + BEYOND) + size;
                        assert!(splitter.looked_at <= rounds * most, "{unit:?} {size} {overlap}");
                        let advance = size - overlap;
                        let chunks = 40 * text.len() / advance + 2;
                        assert!(rounds <= chunks, "{unit:?} {size} {overlap}: {rounds} rounds");
                    }
                }
            }
        }
    }
}
