//! Reads XML as a series of elements and texts. Entities of a document type are never expanded.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::encoding::decode;
use crate::error::ExtractError;
use crate::media::Format;

/// Most elements that may be open at once.
const DEPTH: usize = 2_000;

/// What an XML document consists of. Names have no prefix.
#[derive(Debug)]
pub enum Xml<'a> {
    Open(&'a str, Attributes<'a>),
    Close(&'a str),
    Text(&'a str),
}

/// The attributes of an element.
#[derive(Debug)]
pub struct Attributes<'a>(&'a BytesStart<'a>);

impl Attributes<'_> {
    /// Returns an attribute by its name without the prefix.
    pub fn get(&self, name: &str) -> Option<String> {
        self.find(|key| key.rsplit(':').next() == Some(name))
    }

    /// Returns an attribute by its name with a prefix, such as `r:id`, which differs from `id`.
    pub fn get_with_prefix(&self, name: &str) -> Option<String> {
        self.find(|key| key.split_once(':').is_some_and(|(_, local)| local == name))
    }

    fn find(&self, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut attributes = self.0.attributes();
        let mut wanted = attributes.with_checks(false).flatten();
        let attribute = wanted.find(|attribute| is_wanted(attribute.key.as_ref()))?;
        let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0);
        value.ok().map(|value| value.into_owned())
    }
}

/// Calls `found` with each part of a document.
pub fn read_xml(
    content: &[u8],
    format: Format,
    mut found: impl FnMut(Xml<'_>),
) -> Result<(), ExtractError> {
    let text = decode(content, None);
    let mut reader = Reader::from_str(&text);
    reader.config_mut().check_end_names = true;
    let mut depth = 0usize;
    loop {
        let event = reader.read_event().map_err(|e| {
            ExtractError::damaged(format, format!("XML at byte {}: {e}.", reader.error_position()))
        })?;
        match event {
            Event::Start(element) => {
                depth += 1;
                if depth > DEPTH {
                    return Err(ExtractError::too_deep(format));
                }
                found(Xml::Open(element.local_name().as_ref(), Attributes(&element)));
            }
            Event::Empty(element) => {
                let name = element.local_name();
                found(Xml::Open(name.as_ref(), Attributes(&element)));
                found(Xml::Close(name.as_ref()));
            }
            Event::End(element) => {
                depth = depth.saturating_sub(1);
                found(Xml::Close(element.local_name().as_ref()));
            }
            Event::Text(text) => found(Xml::Text(&text.xml10_content())),
            Event::CData(text) => found(Xml::Text(&text.xml10_content())),
            Event::GeneralRef(entity) => {
                let name = entity.xml10_content();
                if let Ok(Some(c)) = entity.resolve_char_ref() {
                    found(Xml::Text(c.encode_utf8(&mut [0; 4])));
                } else if let Some(text) = quick_xml::escape::resolve_predefined_entity(&name) {
                    found(Xml::Text(text));
                }
            }
            Event::Eof if depth > 0 => {
                let why = "The XML ends within an open element.".to_owned();
                return Err(ExtractError::damaged(format, why));
            }
            Event::Eof => return Ok(()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}
