//! The text of DOCX files: paragraphs, headings, lists, tables and links as Markdown.

use std::collections::HashMap;

use super::archive::Archive;
use super::relationships::{Relationship, relationships};
use super::xml::{Attributes, Xml, read_xml};
use crate::error::ExtractError;
use crate::markdown::Markdown;
use crate::media::Format;

const DOCUMENT: &str = "word/document.xml";

/// Returns the text of a document, with its footnotes and endnotes at the end.
pub fn text(content: &[u8]) -> Result<String, ExtractError> {
    let mut archive = Archive::new(content, Format::Docx)?;
    let styles = heading_styles(&mut archive)?;
    let mut out = Markdown::new();
    let document = archive.require(DOCUMENT)?;
    let links = relationships(&mut archive, DOCUMENT, Format::Docx)?;
    write(&document, &styles, &links, &mut out)?;
    for notes in ["footnotes", "endnotes"] {
        let part = format!("word/{notes}.xml");
        if let Some(content) = archive.find(&part)? {
            let links = relationships(&mut archive, &part, Format::Docx)?;
            out.end_paragraph();
            write(&content, &styles, &links, &mut out)?;
        }
    }
    out.finish("", Format::Docx)
}

/// Returns the levels of the styles that are headings, by the ids of the styles. A style's id
/// depends on the language of the program, and its name does not.
fn heading_styles(archive: &mut Archive<'_>) -> Result<HashMap<String, usize>, ExtractError> {
    let mut levels = HashMap::from([("Title".to_owned(), 1)]);
    levels.extend((1..=9).map(|level| (format!("Heading{level}"), level)));
    let Some(content) = archive.find("word/styles.xml")? else { return Ok(levels) };
    let mut style = String::new();
    read_xml(&content, Format::Docx, |xml| match xml {
        Xml::Open("style", attributes) => style = attributes.get("styleId").unwrap_or_default(),
        Xml::Open("name", attributes) => {
            let name = attributes.get("val").unwrap_or_default().to_ascii_lowercase();
            let level = name.strip_prefix("heading ").and_then(|n| n.parse::<usize>().ok());
            let level = level.or((name == "title").then_some(1));
            if let Some(level) = level.filter(|_| !style.is_empty()) {
                levels.insert(style.clone(), level);
            }
        }
        _ => {}
    })?;
    Ok(levels)
}

/// What is known of the paragraph that is being read.
#[derive(Default)]
struct Paragraph {
    heading: Option<usize>,
    item: Option<usize>,
    has_begun: bool,
}

impl Paragraph {
    fn begin(&mut self, out: &mut Markdown) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        match (self.heading, self.item) {
            (Some(level), _) => out.begin_heading(level),
            (None, Some(depth)) => out.begin_item(depth, None),
            (None, None) => out.end_paragraph(),
        }
    }

    fn end(&mut self, out: &mut Markdown) {
        if self.item.is_some() && self.heading.is_none() {
            out.end_marked();
        } else {
            out.end_marked();
            out.end_paragraph();
        }
    }
}

fn write(
    content: &[u8],
    styles: &HashMap<String, usize>,
    links: &HashMap<String, Relationship>,
    out: &mut Markdown,
) -> Result<(), ExtractError> {
    let mut paragraph = Paragraph::default();
    let mut open_links: Vec<Option<String>> = Vec::new();
    let (mut in_text, mut tables, mut fallbacks) = (false, 0usize, 0usize);
    let style = |attributes: &Attributes<'_>| styles.get(&attributes.get("val")?).copied();
    read_xml(content, Format::Docx, |xml| {
        match &xml {
            // The same content again, for older programs.
            Xml::Open("Fallback", _) => fallbacks += 1,
            Xml::Close("Fallback") => fallbacks = fallbacks.saturating_sub(1),
            _ => {}
        }
        if fallbacks > 0 {
            return;
        }
        match xml {
            Xml::Open("p", _) => paragraph = Paragraph::default(),
            Xml::Open("pStyle", attributes) => paragraph.heading = style(&attributes),
            Xml::Open("numPr", _) => paragraph.item = paragraph.item.or(Some(1)),
            Xml::Open("ilvl", attributes) => {
                let level = attributes.get("val").and_then(|v| v.parse::<usize>().ok());
                paragraph.item = Some(level.unwrap_or(0).min(20) + 1);
            }
            Xml::Open("t", _) => in_text = true,
            Xml::Close("t") => in_text = false,
            Xml::Text(text) if in_text => {
                paragraph.begin(out);
                out.text(text);
            }
            Xml::Open("tab", _) if paragraph.has_begun => out.text(" "),
            Xml::Open("br" | "cr", _) => out.end_line(),
            Xml::Open("hyperlink", attributes) => {
                let id = attributes.get_with_prefix("id");
                let target = id.and_then(|id| links.get(&id)).map(|link| link.target.clone());
                if target.is_some() {
                    paragraph.begin(out);
                    out.begin_link();
                }
                open_links.push(target);
            }
            Xml::Close("hyperlink") => {
                if let Some(Some(target)) = open_links.pop() {
                    out.end_link(&target);
                }
            }
            Xml::Close("p") => paragraph.end(out),
            Xml::Open("tbl", _) => {
                tables += 1;
                if tables == 1 {
                    out.end_paragraph();
                }
            }
            Xml::Close("tbl") => {
                tables = tables.saturating_sub(1);
                if tables == 0 {
                    out.end_paragraph();
                }
            }
            // A table within a cell is text of the cell.
            Xml::Open("tr", _) if tables == 1 => out.begin_row(),
            Xml::Close("tr") if tables == 1 => out.end_line(),
            Xml::Open("tc", _) if tables == 1 => out.begin_cell(),
            Xml::Close("tc") if tables == 1 => out.end_cell(),
            _ => {}
        }
    })
}
