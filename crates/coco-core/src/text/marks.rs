//! The structure of a text above its sentences: line breaks, or the elements of Markdown. The
//! splitter splits at marks of a higher level first.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::Language;

/// A line break or an element, with its level and its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub level: u32,
    pub start: usize,
    pub end: usize,
}

/// Levels of Markdown elements.
const SOFT_BREAK: u32 = 1;
const INLINE: u32 = 2;
const BLOCK: u32 = 3;
const RULE: u32 = 4;
/// Headings have this level and above, according to their own level.
const HEADING: u32 = 5;

/// The marks of a text.
#[derive(Debug)]
pub enum Marks {
    /// Plain text: line breaks are searched for when they are needed.
    LineBreaks,
    /// Markdown: the elements in the order of their starts, larger ones first, and the number of
    /// elements already passed.
    Elements(Vec<Mark>, usize),
    /// Source code: nodes of its syntax tree and line breaks, as in `Elements`.
    Nodes(Vec<Mark>, usize),
}

impl Marks {
    pub fn new(text: &str, language: Language) -> Marks {
        match language {
            Language::Plain | Language::Code => Marks::LineBreaks,
            Language::Markdown => Marks::Elements(elements(text), 0),
        }
    }

    /// Returns the marks of source code, from its nodes and line breaks in any order.
    pub fn from_nodes(mut nodes: Vec<Mark>) -> Marks {
        nodes.sort_by(|a, b| a.start.cmp(&b.start).then(b.end.cmp(&a.end)));
        Marks::Nodes(nodes, 0)
    }

    /// Returns the marks that begin between `from` and the end of `text`. `from` must never
    /// decrease between calls. Positions are relative to `from`, and ranges end where the text
    /// ends.
    pub fn within(&mut self, text: &str, from: usize) -> Vec<Mark> {
        match self {
            Marks::LineBreaks => line_breaks(text, from),
            Marks::Elements(all, passed) | Marks::Nodes(all, passed) => {
                *passed += all[*passed..].iter().take_while(|mark| mark.start < from).count();
                let near = all[*passed..].iter().take_while(|mark| mark.start < text.len());
                near.map(|mark| Mark {
                    level: mark.level,
                    start: mark.start - from,
                    end: mark.end.min(text.len()) - from,
                })
                .collect()
            }
        }
    }

    /// Reports whether an element of this level begins the part after it.
    pub fn belongs_to_next(&self, level: u32) -> bool {
        matches!(self, Marks::Elements(..)) && level >= HEADING
    }

    /// Reports whether whitespace before a mark of this level belongs to the mark.
    pub fn takes_blanks_before(&self, level: u32) -> bool {
        matches!(self, Marks::Elements(..)) && level == BLOCK
    }
}

/// Returns the runs of line breaks, with their number as level. `\r\n` counts as one.
fn line_breaks(text: &str, from: usize) -> Vec<Mark> {
    let bytes = text.as_bytes();
    let is_break = |at: usize| matches!(bytes[at], b'\n' | b'\r');
    let mut found = Vec::new();
    let mut at = from;
    // A run that began before `from` has no mark.
    while from > 0 && at < bytes.len() && is_break(from - 1) && is_break(at) {
        at += 1;
    }
    while at < bytes.len() {
        if !is_break(at) {
            at += 1;
            continue;
        }
        let (start, mut level) = (at, 0);
        while at < bytes.len() && is_break(at) {
            let pair = bytes[at..].starts_with(b"\r\n");
            at += if pair { 2 } else { 1 };
            level += 1;
        }
        found.push(Mark { level, start: start - from, end: at - from });
    }
    found
}

fn elements(text: &str) -> Vec<Mark> {
    let mut found: Vec<Mark> = Parser::new_ext(text, Options::all())
        .into_offset_iter()
        .filter_map(|(event, range)| {
            let level = level_of(&event)?;
            Some(Mark { level, start: range.start, end: range.end })
        })
        .collect();
    found.sort_by(|a, b| a.start.cmp(&b.start).then(b.end.cmp(&a.end)));
    found
}

/// A heading of a Markdown text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// 1 to 6; 1 is the highest.
    pub level: usize,
    pub start: usize,
    pub title: String,
}

/// Returns the headings of a Markdown text, in their order.
pub fn headings(text: &str) -> Vec<Heading> {
    let mut found: Vec<Heading> = Vec::new();
    let mut open = false;
    for (event, range) in Parser::new_ext(text, Options::all()).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                let heading =
                    Heading { level: level as usize, start: range.start, title: String::new() };
                found.push(heading);
                open = true;
            }
            Event::End(TagEnd::Heading(_)) => open = false,
            Event::Text(part) | Event::Code(part) | Event::InlineMath(part) if open => {
                if let Some(heading) = found.last_mut() {
                    heading.title.push_str(&part);
                }
            }
            Event::SoftBreak | Event::HardBreak if open => {
                if let Some(heading) = found.last_mut() {
                    heading.title.push(' ');
                }
            }
            _ => {}
        }
    }
    found
}

fn level_of(event: &Event<'_>) -> Option<u32> {
    let level = match event {
        Event::SoftBreak => SOFT_BREAK,
        Event::Text(_)
        | Event::HardBreak
        | Event::Code(_)
        | Event::InlineHtml(_)
        | Event::InlineMath(_)
        | Event::FootnoteReference(_)
        | Event::TaskListMarker(_) => INLINE,
        Event::Html(_) | Event::DisplayMath(_) => BLOCK,
        Event::Rule => RULE,
        Event::Start(Tag::Heading { level, .. }) => {
            HEADING
                + match level {
                    HeadingLevel::H6 => 0,
                    HeadingLevel::H5 => 1,
                    HeadingLevel::H4 => 2,
                    HeadingLevel::H3 => 3,
                    HeadingLevel::H2 => 4,
                    HeadingLevel::H1 => 5,
                }
        }
        Event::Start(tag) => match tag {
            Tag::Emphasis
            | Tag::Strong
            | Tag::Strikethrough
            | Tag::Link { .. }
            | Tag::Image { .. }
            | Tag::Subscript
            | Tag::Superscript
            | Tag::TableCell => INLINE,
            _ => BLOCK,
        },
        Event::End(_) => return None,
    };
    Some(level)
}
