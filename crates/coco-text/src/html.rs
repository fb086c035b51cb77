//! The text of HTML documents: the title, and the main content as Markdown.

use crate::dom::{Dom, Edge, Element, NodeId, NodeKind};
use crate::error::ExtractError;
use crate::markdown::Markdown;
use crate::media::Format;

/// The part of a document that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The main content, without navigation and the like.
    Main,
    /// The whole body, as in a chapter of a book.
    Body,
}

/// Elements that have no text for a reader.
const HIDDEN: [&str; 17] = [
    "script",
    "style",
    "noscript",
    "template",
    "svg",
    "math-script",
    "iframe",
    "object",
    "embed",
    "canvas",
    "select",
    "button",
    "textarea",
    "datalist",
    "audio",
    "video",
    "head",
];

/// Elements around the main content.
const AROUND: [&str; 3] = ["nav", "aside", "footer"];

/// Elements that begin and end a paragraph.
const BLOCKS: [&str; 26] = [
    "p",
    "div",
    "section",
    "article",
    "main",
    "header",
    "footer",
    "aside",
    "nav",
    "blockquote",
    "figure",
    "figcaption",
    "table",
    "ul",
    "ol",
    "dl",
    "form",
    "fieldset",
    "address",
    "hr",
    "pre",
    "details",
    "body",
    "h1",
    "h2",
    "caption",
];

/// Elements that begin and end a line.
const LINES: [&str; 6] = ["dt", "dd", "summary", "option", "legend", "thead"];

/// Returns the text of a document.
pub fn text(document: &str, part: Part) -> Result<String, ExtractError> {
    let dom = Dom::parse(document);
    let body = first(&dom, "body").unwrap_or(dom.root());
    let mut written = Markdown::new();
    if part == Part::Main
        && let Some(main) = main_element(&dom)
    {
        write(&dom, main, false, &mut written);
    }
    if written.is_empty() {
        write(&dom, body, part == Part::Main, &mut written);
    }
    let title = match part {
        Part::Main => title(&dom),
        Part::Body => String::new(),
    };
    written.finish(&title, Format::Html)
}

fn first(dom: &Dom, name: &str) -> Option<NodeId> {
    dom.elements(|element| element.name() == name).next()
}

fn title(dom: &Dom) -> String {
    let Some(title) = first(dom, "title") else { return String::new() };
    let texts = dom.walk(title).filter_map(|edge| match edge {
        Edge::Open(id) => match dom.kind(id) {
            NodeKind::Text(text) => Some(text.as_str()),
            _ => None,
        },
        Edge::Close(_) => None,
    });
    texts.collect()
}

/// Returns the element that the document marks as its main content.
fn main_element(dom: &Dom) -> Option<NodeId> {
    let is_main = |e: &Element| e.name() == "main" || e.attribute("role") == Some("main");
    if let Some(main) = dom.elements(is_main).next() {
        return Some(main);
    }
    // Several articles are a list of them.
    let mut articles = dom.elements(|element| element.name() == "article");
    let only = articles.next();
    if articles.next().is_some() { None } else { only }
}

/// Writes an element's content. Walks the tree without recursion, because documents may be nested
/// deeply.
fn write(dom: &Dom, root: NodeId, without_surroundings: bool, out: &mut Markdown) {
    let mut lists: Vec<Option<usize>> = Vec::new();
    let mut preformatted = 0usize;
    let mut articles = 0usize;
    // The number of open elements within one that is left out, itself included.
    let mut hidden = 0usize;
    for edge in dom.walk(root) {
        match edge {
            Edge::Open(id) => match dom.kind(id) {
                NodeKind::Text(text) if hidden == 0 => match preformatted {
                    0 => out.text(text),
                    _ => out.verbatim(text),
                },
                NodeKind::Element(element) => {
                    let name = element.name();
                    let around = AROUND.contains(&name) || (name == "header" && articles == 0);
                    if hidden > 0
                        || HIDDEN.contains(&name)
                        || (without_surroundings && around)
                        || element.attribute("hidden").is_some()
                        || element.attribute("aria-hidden") == Some("true")
                    {
                        hidden += 1;
                        continue;
                    }
                    articles += usize::from(matches!(name, "article" | "main"));
                    open(name, element, &mut lists, &mut preformatted, out);
                }
                _ => {}
            },
            Edge::Close(id) => {
                let Some(element) = dom.element(id) else { continue };
                if hidden > 0 {
                    hidden -= 1;
                    continue;
                }
                let name = element.name();
                articles -= usize::from(matches!(name, "article" | "main")).min(articles);
                close(name, element, &mut lists, &mut preformatted, out);
            }
        }
    }
}

fn heading_level(name: &str) -> Option<usize> {
    let digit = name.strip_prefix('h')?.parse().ok()?;
    (1..=6).contains(&digit).then_some(digit)
}

/// Returns the address of a link that leads out of the document.
fn address<'a>(name: &str, element: &'a Element) -> Option<&'a str> {
    let address = element.attribute("href").filter(|_| name == "a")?.trim();
    let script = address.get(..11).is_some_and(|a| a.eq_ignore_ascii_case("javascript:"));
    (!address.is_empty() && !address.starts_with('#') && !script).then_some(address)
}

fn open(
    name: &str,
    element: &Element,
    lists: &mut Vec<Option<usize>>,
    preformatted: &mut usize,
    out: &mut Markdown,
) {
    if let Some(level) = heading_level(name) {
        return out.begin_heading(level);
    }
    match name {
        "br" => out.end_line(),
        "ul" | "menu" | "ol" => {
            if lists.is_empty() {
                out.end_paragraph();
            }
            lists.push((name == "ol").then_some(0));
        }
        "li" => {
            let depth = lists.len().max(1);
            let number = lists.last_mut().and_then(|n| n.as_mut()).map(|n| {
                *n += 1;
                *n
            });
            out.begin_item(depth, number);
        }
        "tr" => out.begin_row(),
        "td" | "th" => out.begin_cell(),
        "pre" => {
            out.end_paragraph();
            out.verbatim("```\n");
            *preformatted += 1;
        }
        "img" => {
            if let Some(alt) = element.attribute("alt") {
                out.text(alt);
            }
        }
        "a" if address(name, element).is_some() => out.begin_link(),
        // A paragraph directly in an item continues the item's line.
        "p" | "div" if !lists.is_empty() => out.end_line(),
        _ if BLOCKS.contains(&name) => out.end_paragraph(),
        _ if LINES.contains(&name) => out.end_line(),
        _ => {}
    }
}

fn close(
    name: &str,
    element: &Element,
    lists: &mut Vec<Option<usize>>,
    preformatted: &mut usize,
    out: &mut Markdown,
) {
    if heading_level(name).is_some() {
        out.end_marked();
        return out.end_paragraph();
    }
    match name {
        "ul" | "menu" | "ol" => {
            lists.pop();
            if lists.is_empty() {
                out.end_paragraph();
            }
        }
        "li" => out.end_marked(),
        "tr" => out.end_line(),
        "td" | "th" => out.end_cell(),
        "pre" => {
            *preformatted -= 1.min(*preformatted);
            out.end_line();
            out.verbatim("```");
            out.end_paragraph();
        }
        "a" => {
            if let Some(address) = address(name, element) {
                out.end_link(address);
            }
        }
        "p" | "div" if !lists.is_empty() => out.end_line(),
        _ if BLOCKS.contains(&name) => out.end_paragraph(),
        _ if LINES.contains(&name) => out.end_line(),
        _ => {}
    }
}
