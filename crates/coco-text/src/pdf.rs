//! The text of PDF files, page by page.

use pdf_extract::{Document, MediaBox, OutputDev, OutputError, Transform};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::MAX_TEXT;
use crate::error::ExtractError;
use crate::media::Format;

/// Returns the texts of the pages. A page without text, such as a scanned one, is empty.
pub fn pages(content: &[u8]) -> Result<Vec<String>, ExtractError> {
    let damaged = |why: String| ExtractError::damaged(Format::Pdf, why);
    let mut document = match Document::load_mem(content) {
        Ok(document) => document,
        Err(e) if is_about_password(&e.to_string()) => {
            return Err(ExtractError::encrypted(Format::Pdf));
        }
        Err(e) => return Err(damaged(sentence(&e.to_string()))),
    };
    // Many files are encrypted with an empty password, so that programs restrict their use.
    if document.is_encrypted() && document.decrypt("").is_err() {
        return Err(ExtractError::encrypted(Format::Pdf));
    }
    if document.get_pages().is_empty() {
        return Err(damaged("The file has no pages.".to_owned()));
    }
    remove_images(&mut document);
    let page = Cell::new(0);
    let mut written = Pages { page: &page, pages: Vec::new(), total: 0, place: None };
    let read = catch_unwind(AssertUnwindSafe(|| pdf_extract::output_doc(&document, &mut written)));
    match read {
        Ok(Ok(())) => Ok(written.pages),
        Ok(Err(_)) if written.total > MAX_TEXT => Err(ExtractError::too_large(Format::Pdf)),
        Ok(Err(e)) => Err(damaged(format!("Page {}: {e}", page.get()))),
        // The library panics at fonts and streams that it does not expect.
        Err(_) => Err(damaged(format!("Page {} has content that cannot be read.", page.get()))),
    }
}

/// Removes the content of images, which the library would read as text.
fn remove_images(document: &mut Document) {
    for object in document.objects.values_mut() {
        let Ok(stream) = object.as_stream_mut() else { continue };
        let subtype = stream.dict.get(b"Subtype").and_then(|name| name.as_name());
        if subtype.is_ok_and(|name| name == b"Image") {
            stream.dict.remove(b"Filter");
            stream.set_content(Vec::new());
        }
    }
}

fn is_about_password(error: &str) -> bool {
    let error = error.to_lowercase();
    error.contains("password") || error.contains("decrypt") || error.contains("encrypt")
}

fn sentence(error: &str) -> String {
    let mut text: String = error.chars().take(1).flat_map(char::to_uppercase).collect();
    text.extend(error.chars().skip(1));
    text.push('.');
    text
}

/// The place of a character on its page.
#[derive(Clone, Copy)]
struct Place {
    end: f64,
    y: f64,
}

/// Collects the characters of pages. It adds the spaces and line breaks that the distances of the
/// characters show.
struct Pages<'a> {
    page: &'a Cell<u32>,
    pages: Vec<String>,
    total: usize,
    place: Option<Place>,
}

impl OutputDev for Pages<'_> {
    fn begin_page(
        &mut self,
        number: u32,
        _: &MediaBox,
        _: Option<(f64, f64, f64, f64)>,
    ) -> Result<(), OutputError> {
        self.page.set(number);
        self.pages.push(String::new());
        self.place = None;
        Ok(())
    }

    fn end_page(&mut self) -> Result<(), OutputError> {
        if let Some(page) = self.pages.last_mut() {
            let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
            let text = lines.join("\n").trim().to_owned();
            *page = text;
        }
        Ok(())
    }

    fn output_character(
        &mut self,
        at: &Transform,
        width: f64,
        _: f64,
        font_size: f64,
        text: &str,
    ) -> Result<(), OutputError> {
        self.total += text.len() + 1;
        if self.total > MAX_TEXT {
            return Err(OutputError::FormatError(std::fmt::Error));
        }
        let Some(page) = self.pages.last_mut() else { return Ok(()) };
        // The side of a square of the same area as the font's, on the page.
        let (across, along) = (font_size * (at.m11 + at.m21), font_size * (at.m12 + at.m22));
        let size = (across * along).abs().sqrt();
        let (x, y) = (at.m31, at.m32);
        if let Some(last) = self.place {
            let down = (y - last.y).abs();
            if down > size * 1.5 {
                page.push_str(if page.ends_with('\n') { "\n" } else { "\n\n" });
            } else if down > size * 0.5 && x < last.end {
                page.push('\n');
            } else if x > last.end + size * 0.15 && !page.ends_with(char::is_whitespace) {
                page.push(' ');
            }
        }
        if !(text.trim().is_empty() && page.ends_with(char::is_whitespace)) {
            page.push_str(text);
        }
        self.place = Some(Place { end: x + width * size, y });
        Ok(())
    }

    fn begin_word(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn end_word(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}
