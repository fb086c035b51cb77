//! The text of PPTX files, slide by slide.

use super::archive::Archive;
use super::relationships::relationships;
use super::xml::{Xml, read_xml};
use crate::error::ExtractError;
use crate::markdown::Markdown;
use crate::media::Format;

const PRESENTATION: &str = "ppt/presentation.xml";

/// Returns the texts of the slides, in their order. The notes of a slide follow its text.
pub fn slides(content: &[u8]) -> Result<Vec<String>, ExtractError> {
    let mut archive = Archive::new(content, Format::Pptx)?;
    let presentation = archive.require(PRESENTATION)?;
    let parts = relationships(&mut archive, PRESENTATION, Format::Pptx)?;
    let mut ids = Vec::new();
    read_xml(&presentation, Format::Pptx, |xml| {
        if let Xml::Open("sldId", attributes) = xml {
            ids.extend(attributes.get_with_prefix("id"));
        }
    })?;
    let mut slides = Vec::new();
    for id in ids {
        let Some(slide) = parts.get(&id) else { continue };
        let mut out = Markdown::new();
        write(&archive.require(&slide.target)?, &mut out)?;
        let related = relationships(&mut archive, &slide.target, Format::Pptx)?;
        if let Some(notes) = related.values().find(|r| r.kind == "notesSlide")
            && let Some(content) = archive.find(&notes.target)?
        {
            out.end_paragraph();
            write(&content, &mut out)?;
        }
        slides.push(out.finish("", Format::Pptx)?);
    }
    Ok(slides)
}

fn write(content: &[u8], out: &mut Markdown) -> Result<(), ExtractError> {
    let (mut in_text, mut is_title, mut is_left_out, mut in_row) = (false, false, false, false);
    read_xml(content, Format::Pptx, |xml| match xml {
        Xml::Open("sp", _) => (is_title, is_left_out) = (false, false),
        Xml::Open("ph", attributes) => {
            let kind = attributes.get("type").unwrap_or_default();
            is_title = matches!(kind.as_str(), "title" | "ctrTitle");
            is_left_out = matches!(kind.as_str(), "sldNum" | "dt" | "ftr" | "hdr");
        }
        Xml::Close("sp") => {
            (is_title, is_left_out) = (false, false);
            out.end_paragraph();
        }
        Xml::Open("p", _) if is_title => out.begin_heading(1),
        Xml::Close("p") if is_title => {
            out.end_marked();
            out.end_paragraph();
        }
        Xml::Close("p") => out.end_line(),
        Xml::Open("br", _) => out.text(" "),
        Xml::Open("t", _) => in_text = true,
        Xml::Close("t") => in_text = false,
        Xml::Text(text) if in_text && !is_left_out => out.text(text),
        Xml::Open("tr", _) => {
            in_row = true;
            out.begin_row();
        }
        Xml::Close("tr") => {
            in_row = false;
            out.end_line();
        }
        Xml::Open("tc", _) if in_row => out.begin_cell(),
        Xml::Close("tc") if in_row => out.end_cell(),
        Xml::Close("tbl") => out.end_paragraph(),
        _ => {}
    })
}
