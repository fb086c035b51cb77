//! Text of files, and chunks of source code and Markdown. Pure Rust, without Postgres and without
//! I/O.
//!
//! The functions bound the size of what they return. They do not bound time, memory and stack: the
//! libraries that read the formats do not do so either. The caller runs them in a process that it
//! can end.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod chunks;
#[cfg(feature = "code")]
mod code;
#[cfg(feature = "html")]
mod dom;
pub mod encoding;
mod error;
#[cfg(feature = "html")]
mod html;
pub mod language;
#[cfg(feature = "mail")]
mod mail;
#[cfg(feature = "html")]
mod markdown;
pub mod media;
#[cfg(feature = "office")]
mod office;
#[cfg(feature = "pdf")]
mod pdf;
mod rtf;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use error::{ExtractError, ExtractErrorKind};
use media::{Format, MediaType};

/// Largest text that a file may have, in bytes. A text of Postgres can have a gigabyte.
pub const MAX_TEXT: usize = 256 << 20;

/// Returns the texts of a file's pages. A page is a page of a PDF file, a slide, a sheet, or a
/// chapter; any other file is one page.
pub fn extract_pages(
    content: &[u8],
    media_type: Option<&str>,
) -> Result<Vec<String>, ExtractError> {
    let (format, charset) = format_of(content, media_type)?;
    let charset = charset.as_deref();
    // The crates that read these formats may panic on content that they do not expect.
    let read = catch_unwind(AssertUnwindSafe(|| read_pages(content, format, charset)));
    let mut pages = read.unwrap_or_else(|_| {
        Err(ExtractError::damaged(format, "The library that reads the format failed.".to_owned()))
    })?;
    if pages.iter().map(String::len).sum::<usize>() > MAX_TEXT {
        return Err(ExtractError::too_large(format));
    }
    // A text of Postgres cannot contain this character.
    for page in &mut pages {
        if page.contains('\0') {
            page.retain(|c| c != '\0');
        }
    }
    Ok(pages)
}

/// Returns the text of a file: the texts of its pages, with a blank line between two pages.
pub fn extract_text(content: &[u8], media_type: Option<&str>) -> Result<String, ExtractError> {
    Ok(join_pages(extract_pages(content, media_type)?))
}

/// Returns the text of a file whose pages are given.
pub fn join_pages(mut pages: Vec<String>) -> String {
    if pages.len() == 1 {
        return pages.remove(0);
    }
    pages.retain(|page| !page.is_empty());
    pages.join("\n\n")
}

/// Reports whether this crate reads a format by itself, in a time proportional to the content.
pub fn is_simple(content: &[u8], media_type: Option<&str>) -> Result<bool, ExtractError> {
    let (format, _) = format_of(content, media_type)?;
    Ok(matches!(format, Format::Plain | Format::Rtf))
}

fn format_of(
    content: &[u8],
    media_type: Option<&str>,
) -> Result<(Format, Option<String>), ExtractError> {
    let given = match media_type {
        Some(name) => MediaType::from_name(name)?,
        None => MediaType::default(),
    };
    let format = match given.format {
        Some(format) => format,
        None => media::detect_format(content)?,
    };
    Ok((format, given.charset))
}

fn read_pages(
    content: &[u8],
    format: Format,
    charset: Option<&str>,
) -> Result<Vec<String>, ExtractError> {
    let one = |text: String| Ok(vec![text]);
    match format {
        Format::Plain => one(encoding::decode(content, charset)),
        Format::Rtf => one(rtf::text(content)?),
        #[cfg(feature = "pdf")]
        Format::Pdf => pdf::pages(content),
        #[cfg(feature = "html")]
        Format::Html => {
            one(html::text(&encoding::decode_html(content, charset), html::Part::Main)?)
        }
        #[cfg(feature = "mail")]
        Format::Mail => one(mail::text(content)?),
        #[cfg(feature = "office")]
        Format::Docx => one(office::docx::text(content)?),
        #[cfg(feature = "office")]
        Format::Pptx => office::pptx::slides(content),
        #[cfg(feature = "office")]
        Format::Spreadsheet => office::spreadsheet::sheets(content),
        #[cfg(feature = "office")]
        Format::Epub => office::epub::chapters(content),
        #[cfg(not(all(feature = "pdf", feature = "html", feature = "mail", feature = "office")))]
        _ => Err(ExtractError::not_built(format)),
    }
}
