//! Writes text with headings, lists, links and tables as Markdown.

use crate::MAX_TEXT;
use crate::error::ExtractError;
use crate::media::Format;

/// What separates the next text from the text before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Space,
    Line,
    Paragraph,
}

/// A Markdown text that grows at its end.
#[derive(Debug)]
pub struct Markdown {
    out: String,
    gap: Gap,
    /// What the next text begins with: the mark of a heading or a list item, or a bracket.
    prefix: String,
    /// Places at which links begin that are still open.
    links: Vec<usize>,
    /// In a cell of a table, which is one line.
    is_in_cell: bool,
    cells: usize,
}

impl Markdown {
    pub fn new() -> Markdown {
        Markdown {
            out: String::new(),
            gap: Gap::None,
            prefix: String::new(),
            links: Vec::new(),
            is_in_cell: false,
            cells: 0,
        }
    }

    /// Appends a text, with each run of whitespace as one space.
    pub fn text(&mut self, text: &str) {
        if text.starts_with(char::is_whitespace) {
            self.separate(Gap::Space);
        }
        for (n, word) in text.split_whitespace().enumerate() {
            if n > 0 {
                self.separate(Gap::Space);
            }
            self.word(word);
        }
        if text.ends_with(char::is_whitespace) {
            self.separate(Gap::Space);
        }
    }

    /// Appends a text as it is.
    pub fn verbatim(&mut self, text: &str) {
        if self.is_in_cell {
            return self.text(text);
        }
        if !text.is_empty() {
            self.word(text);
        }
    }

    fn word(&mut self, word: &str) {
        if self.out.len() > MAX_TEXT {
            return;
        }
        if !self.out.is_empty() {
            self.out.push_str(match self.gap {
                Gap::None => "",
                Gap::Space => " ",
                Gap::Line => "\n",
                Gap::Paragraph => "\n\n",
            });
        }
        self.gap = Gap::None;
        self.out.push_str(&self.prefix);
        self.prefix.clear();
        self.out.push_str(word);
    }

    fn separate(&mut self, gap: Gap) {
        let gap = if self.is_in_cell { gap.min(Gap::Space) } else { gap };
        self.gap = self.gap.max(gap);
    }

    pub fn end_line(&mut self) {
        self.separate(Gap::Line);
    }

    pub fn end_paragraph(&mut self) {
        self.separate(Gap::Paragraph);
    }

    /// Begins a heading of level 1 to 6.
    pub fn begin_heading(&mut self, level: usize) {
        self.end_paragraph();
        if !self.is_in_cell {
            self.prefix = format!("{} ", "#".repeat(level.clamp(1, 6)));
        }
    }

    /// Begins an item of a list: `depth` is 1 for an outer list.
    pub fn begin_item(&mut self, depth: usize, number: Option<usize>) {
        self.end_line();
        if !self.is_in_cell {
            let indent = "  ".repeat(depth.clamp(1, 20) - 1);
            self.prefix = match number {
                Some(number) => format!("{indent}{number}. "),
                None => format!("{indent}- "),
            };
        }
    }

    /// Ends a heading or an item. It has no mark if it has no text.
    pub fn end_marked(&mut self) {
        self.prefix.clear();
        self.end_line();
    }

    pub fn begin_link(&mut self) {
        self.links.push(self.out.len());
        self.prefix.push('[');
    }

    /// Ends a link. A link without a text is left out.
    pub fn end_link(&mut self, address: &str) {
        let Some(start) = self.links.pop() else { return };
        if self.out.len() > start && !self.prefix.ends_with('[') {
            let gap = std::mem::replace(&mut self.gap, Gap::None);
            let address: String = address.split_whitespace().collect();
            self.word(&format!("]({address})"));
            self.gap = gap;
        } else if self.prefix.ends_with('[') {
            self.prefix.pop();
        }
    }

    pub fn begin_row(&mut self) {
        self.end_line();
        self.cells = 0;
    }

    pub fn begin_cell(&mut self) {
        if self.cells > 0 {
            self.gap = Gap::None;
            self.word(" |");
            self.gap = Gap::Space;
        }
        self.cells += 1;
        self.is_in_cell = true;
    }

    pub fn end_cell(&mut self) {
        self.is_in_cell = false;
        self.prefix.clear();
        self.gap = Gap::None;
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Returns the text. A title becomes the first heading, if the text does not begin with it.
    pub fn finish(self, title: &str, format: Format) -> Result<String, ExtractError> {
        if self.out.len() > MAX_TEXT {
            return Err(ExtractError::too_large(format));
        }
        let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = self.out.trim_end();
        let first = text.lines().next().unwrap_or_default();
        if title.is_empty() || first.trim_start_matches('#').trim() == title {
            return Ok(text.to_owned());
        }
        let gap = if text.is_empty() { "" } else { "\n\n" };
        Ok(format!("# {title}{gap}{text}"))
    }
}
