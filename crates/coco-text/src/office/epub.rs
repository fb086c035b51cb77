//! The text of EPUB files, chapter by chapter.

use std::collections::HashMap;

use super::archive::Archive;
use super::relationships::resolve;
use super::xml::{Xml, read_xml};
use crate::encoding::decode_html;
use crate::error::ExtractError;
use crate::html;
use crate::media::Format;

/// Returns the texts of the documents of a book, in the order of reading. Documents without text,
/// such as a cover, are empty.
pub fn chapters(content: &[u8]) -> Result<Vec<String>, ExtractError> {
    let mut archive = Archive::new(content, Format::Epub)?;
    if archive.find("META-INF/encryption.xml")?.is_some_and(|c| encrypts_text(&c)) {
        return Err(ExtractError::encrypted(Format::Epub));
    }
    let mut package = None;
    read_xml(&archive.require("META-INF/container.xml")?, Format::Epub, |xml| {
        if let Xml::Open("rootfile", attributes) = xml
            && package.is_none()
        {
            package = attributes.get("full-path");
        }
    })?;
    let package = package.ok_or_else(|| {
        ExtractError::damaged(Format::Epub, "The container names no package.".to_owned())
    })?;
    let mut files = HashMap::new();
    let mut order = Vec::new();
    read_xml(&archive.require(&package)?, Format::Epub, |xml| match xml {
        Xml::Open("item", attributes) => {
            if let (Some(id), Some(file)) = (attributes.get("id"), attributes.get("href")) {
                files.insert(id, file);
            }
        }
        Xml::Open("itemref", attributes) => order.extend(attributes.get("idref")),
        _ => {}
    })?;
    let folder = package.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut chapters = Vec::new();
    for id in order {
        let Some(file) = files.get(&id) else { continue };
        let file = file.split('#').next().unwrap_or_default();
        let chapter = archive.require(&resolve(folder, &without_escapes(file)))?;
        chapters.push(html::text(&decode_html(&chapter, None), html::Part::Body)?);
    }
    Ok(chapters)
}

/// Reports whether more than fonts is encrypted.
fn encrypts_text(encryption: &[u8]) -> bool {
    let text = String::from_utf8_lossy(encryption).to_lowercase();
    text.contains(".xhtml\"") || text.contains(".html\"") || text.contains(".htm\"")
}

/// Decodes `%20` and the like.
fn without_escapes(address: &str) -> String {
    let bytes = address.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|d| std::str::from_utf8(d).ok());
        match digits.filter(|_| bytes[at] == b'%').and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
