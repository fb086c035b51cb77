//! Formats of files: by their media type, and by their content.

use crate::encoding::guess_utf16;
use crate::error::ExtractError;

/// A format from which text can be extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Plain,
    Pdf,
    Html,
    Docx,
    Pptx,
    /// XLSX, and the older and other formats that the same library reads.
    Spreadsheet,
    Epub,
    Mail,
    Rtf,
}

impl Format {
    /// Returns the name that messages use.
    pub fn title(self) -> &'static str {
        match self {
            Format::Plain => "text file",
            Format::Pdf => "PDF file",
            Format::Html => "HTML document",
            Format::Docx => "DOCX file",
            Format::Pptx => "PPTX file",
            Format::Spreadsheet => "spreadsheet",
            Format::Epub => "EPUB file",
            Format::Mail => "e-mail message",
            Format::Rtf => "RTF file",
        }
    }
}

/// A media type as users pass it. Without a format, the content determines it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaType {
    pub format: Option<Format>,
    pub charset: Option<String>,
}

impl MediaType {
    /// Reads a media type such as `text/html; charset=utf-8`.
    pub fn from_name(name: &str) -> Result<MediaType, ExtractError> {
        let mut parts = name.split(';');
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let charset = parts.find_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            let is_charset = key.trim().eq_ignore_ascii_case("charset");
            is_charset.then(|| value.trim().trim_matches('"').to_owned())
        });
        const OOXML: &str = "application/vnd.openxmlformats-officedocument.";
        let format = match essence.as_str() {
            // What servers send if they do not know the type.
            "application/octet-stream" | "binary/octet-stream" | "application/zip" => None,
            "application/pdf" | "application/x-pdf" => Some(Format::Pdf),
            "text/html" | "application/xhtml+xml" => Some(Format::Html),
            "application/vnd.ms-word.document.macroenabled.12" => Some(Format::Docx),
            "application/vnd.ms-powerpoint.presentation.macroenabled.12" => Some(Format::Pptx),
            "application/vnd.ms-excel"
            | "application/vnd.ms-excel.sheet.macroenabled.12"
            | "application/vnd.ms-excel.sheet.binary.macroenabled.12"
            | "application/vnd.oasis.opendocument.spreadsheet" => Some(Format::Spreadsheet),
            "application/epub+zip" => Some(Format::Epub),
            "message/rfc822" => Some(Format::Mail),
            "application/rtf" | "text/rtf" | "application/x-rtf" => Some(Format::Rtf),
            "application/json"
            | "application/xml"
            | "application/yaml"
            | "application/sql"
            | "application/javascript"
            | "application/x-sh"
            | "application/toml"
            | "application/x-ndjson" => Some(Format::Plain),
            other => match other.strip_prefix(OOXML) {
                Some("wordprocessingml.document" | "wordprocessingml.template") => {
                    Some(Format::Docx)
                }
                Some("presentationml.presentation" | "presentationml.slideshow") => {
                    Some(Format::Pptx)
                }
                Some("spreadsheetml.sheet" | "spreadsheetml.template") => Some(Format::Spreadsheet),
                _ if other.starts_with("text/") && other.len() > 5 => Some(Format::Plain),
                _ if other.ends_with("+json") || other.ends_with("+xml") => Some(Format::Plain),
                _ => return Err(ExtractError::unknown_media_type(name)),
            },
        };
        Ok(MediaType { format, charset })
    }
}

/// Beginnings of files that have no text.
const WITHOUT_TEXT: [(&[u8], &str); 16] = [
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"RIFF", "an audio, video or image file (RIFF)"),
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"BZh", "compressed (bzip2)"),
    (b"\xfd7zXZ", "compressed (xz)"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)"),
    (b"7z\xbc\xaf", "an archive (7z)"),
    (b"Rar!", "an archive (RAR)"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ\x90", "a program (PE)"),
    (b"SQLite format 3", "an SQLite database"),
    (b"OggS", "an audio or video file (Ogg)"),
];

/// Determines the format of a file from its content.
pub fn detect_format(content: &[u8]) -> Result<Format, ExtractError> {
    let start = &content[..content.len().min(1024)];
    if contains(start, b"%PDF-") {
        return Ok(Format::Pdf);
    }
    if start.starts_with(b"{\\rtf") {
        return Ok(Format::Rtf);
    }
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        return zip_format(content);
    }
    if start.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
        return compound_format(content);
    }
    if let Some((_, what)) = WITHOUT_TEXT.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(ExtractError::unsupported_content(&format!("The content is {what}.")));
    }
    let wide = start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff");
    if !wide && guess_utf16(content).is_none() {
        // Bytes that no text has, except for those of ISO 2022 (0x1b) and form feeds.
        let odd = |b: &&u8| matches!(b, 0..=8 | 14..=26 | 28..=31);
        let zero = content.contains(&0);
        if zero || start.iter().filter(odd).count() > start.len() / 50 {
            return Err(ExtractError::unsupported_content("The content is binary data."));
        }
    }
    let text = String::from_utf8_lossy(start).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if is_html(text) {
        return Ok(Format::Html);
    }
    Ok(if is_mail(content) { Format::Mail } else { Format::Plain })
}

fn is_html(start: &str) -> bool {
    let after_comment = match start.strip_prefix("<!--") {
        Some(rest) => rest.split_once("-->").map_or("", |(_, after)| after.trim_start()),
        None => start,
    };
    let begins = |text: &str| {
        ["<!doctype html", "<html", "<head", "<body", "<title"].iter().any(|t| text.starts_with(t))
    };
    begins(after_comment)
        || (start.starts_with("<?xml")
            && (start.contains("<html") || start.contains("<!doctype html")))
}

/// Reports whether a text begins with at least two of the usual headers of an e-mail message.
fn is_mail(content: &[u8]) -> bool {
    const USUAL: [&str; 12] = [
        "from",
        "to",
        "cc",
        "subject",
        "date",
        "message-id",
        "received",
        "mime-version",
        "return-path",
        "delivered-to",
        "reply-to",
        "dkim-signature",
    ];
    let text = String::from_utf8_lossy(&content[..content.len().min(16_384)]);
    let mut seen: Vec<String> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if line.is_empty() {
            break;
        }
        if line.starts_with([' ', '\t']) || (n == 0 && line.starts_with("From ")) {
            continue;
        }
        let Some((name, _)) = line.split_once(':') else { return false };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return false;
        }
        let name = name.to_ascii_lowercase();
        if USUAL.contains(&name.as_str()) && !seen.contains(&name) {
            seen.push(name);
        }
    }
    // A note can begin with "Subject:", but rarely has two of the others, too.
    seen.len() >= 3
        || (seen.len() == 2
            && seen.iter().any(|n| ["from", "message-id", "received"].contains(&n.as_str())))
}

/// Determines what a ZIP archive contains from the names of its entries.
fn zip_format(content: &[u8]) -> Result<Format, ExtractError> {
    // The names stand in the local headers and in the directory at the end, never compressed.
    let has = |name: &[u8]| contains(content, name);
    if has(b"mimetypeapplication/epub+zip") || has(b"META-INF/container.xml") {
        return Ok(Format::Epub);
    }
    for (name, format) in [
        (&b"word/document.xml"[..], Format::Docx),
        (b"word/document2.xml", Format::Docx),
        (b"ppt/presentation.xml", Format::Pptx),
        (b"xl/workbook.", Format::Spreadsheet),
        (b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet", Format::Spreadsheet),
    ] {
        if has(name) {
            return Ok(format);
        }
    }
    Err(ExtractError::unsupported_content("The content is a ZIP archive."))
}

/// Determines what a compound file of older Microsoft software contains from the names of its
/// streams.
fn compound_format(content: &[u8]) -> Result<Format, ExtractError> {
    let has = |name: &str| {
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        contains(content, &wide)
    };
    if has("EncryptedPackage") {
        return Err(ExtractError::encrypted(Format::Docx).office());
    }
    if has("Workbook") || has("Book") {
        return Ok(Format::Spreadsheet);
    }
    Err(ExtractError::unsupported_content(
        "The content is a file of an older Microsoft program (DOC, PPT or MSG).",
    ))
}

pub(crate) fn contains(content: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else { return true };
    let mut rest = content;
    while let Some(at) = rest.iter().position(|b| b == first) {
        rest = &rest[at..];
        if rest.starts_with(part) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_content() {
        let of = |content: &[u8]| detect_format(content).map_err(|e| e.detail.unwrap_or_default());
        assert_eq!(of(b"%PDF-1.4\n"), Ok(Format::Pdf));
        assert_eq!(of(b"{\\rtf1 a}"), Ok(Format::Rtf));
        assert_eq!(of(b"  <!DOCTYPE html><p>a"), Ok(Format::Html));
        assert_eq!(of(b"<?xml version=\"1.0\"?><html>"), Ok(Format::Html));
        assert_eq!(of(b"<?xml version=\"1.0\"?><a>"), Ok(Format::Plain));
        assert_eq!(of(b"From: a@b\r\nSubject: x\r\n\r\nHi"), Ok(Format::Mail));
        assert_eq!(of(b"Subject: x\n\nHi"), Ok(Format::Plain));
        assert_eq!(of(b"Name: x\nTo: y\n\nHi"), Ok(Format::Plain));
        assert_eq!(of(b""), Ok(Format::Plain));
        assert_eq!(of("Größe".as_bytes()), Ok(Format::Plain));
        assert_eq!(of(b"\x89PNG\r\n\x1a\n"), Err("The content is a PNG image.".to_owned()));
        assert_eq!(of(b"ab\0\x01cd\0\0"), Err("The content is binary data.".to_owned()));
        assert_eq!(of(b"PK\x03\x04xx"), Err("The content is a ZIP archive.".to_owned()));
    }

    #[test]
    fn media_types_have_parameters_and_are_checked() {
        let html = MediaType::from_name("Text/HTML; Charset=\"utf-8\"").unwrap();
        assert_eq!((html.format, html.charset.as_deref()), (Some(Format::Html), Some("utf-8")));
        assert_eq!(MediaType::from_name("application/octet-stream").unwrap().format, None);
        assert_eq!(MediaType::from_name("text/x-rust").unwrap().format, Some(Format::Plain));
        let wrong = MediaType::from_name("image/png").unwrap_err();
        assert_eq!(wrong.message, "media type \"image/png\" is not supported");
    }
}
