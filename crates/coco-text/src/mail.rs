//! The text of e-mail messages: the usual headers, and the body.

use mail_parser::{Address, Message, MessageParser, MimeHeaders, PartType};

use crate::MAX_TEXT;
use crate::error::ExtractError;
use crate::html;
use crate::media::Format;

/// How deep attached messages are read.
const DEPTH: usize = 5;

/// Returns the text of a message. Of attachments it has the names, and the text of attached
/// messages.
pub fn text(content: &[u8]) -> Result<String, ExtractError> {
    // What mail programs put before the messages of a mailbox.
    let content = match content.strip_prefix(b"From ") {
        Some(rest) => {
            rest.iter().position(|b| *b == b'\n').map_or(&rest[..0], |at| &rest[at + 1..])
        }
        None => content,
    };
    let message = MessageParser::default().parse(content).ok_or_else(|| {
        ExtractError::damaged(Format::Mail, "The content has no header of a message.".to_owned())
    })?;
    let mut out = String::new();
    write(&message, DEPTH, &mut out)?;
    Ok(out.trim_end().to_owned())
}

fn write(message: &Message<'_>, depth: usize, out: &mut String) -> Result<(), ExtractError> {
    let mut header = |name: &str, value: Option<String>| {
        let value = value.map(|v| v.split_whitespace().collect::<Vec<_>>().join(" "));
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            out.push_str(&format!("{name}: {value}\n"));
        }
    };
    header("Subject", message.subject().map(str::to_owned));
    header("From", message.from().map(addresses));
    header("To", message.to().map(addresses));
    header("Cc", message.cc().map(addresses));
    header("Date", message.date().map(|date| date.to_rfc3339()));
    for part in message.text_bodies() {
        let text = match &part.body {
            PartType::Text(text) => text.trim().replace("\r\n", "\n"),
            PartType::Html(document) => html::text(document, html::Part::Body)?,
            _ => continue,
        };
        if !text.is_empty() {
            out.push_str(&format!("\n{text}\n"));
        }
        if out.len() > MAX_TEXT {
            return Err(ExtractError::too_large(Format::Mail));
        }
    }
    for attachment in message.attachments() {
        match &attachment.body {
            PartType::Message(attached) if depth > 0 => {
                out.push_str("\nAttached message:\n\n");
                write(attached, depth - 1, out)?;
            }
            _ => {
                if let Some(name) = attachment.attachment_name() {
                    let name: String = name.chars().filter(|c| !c.is_control()).collect();
                    out.push_str(&format!("\nAttachment: {name}\n"));
                }
            }
        }
    }
    Ok(())
}

fn addresses(all: &Address<'_>) -> String {
    let one = |a: &mail_parser::Addr<'_>| match (a.name(), a.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (name, address) => name.or(address).unwrap_or_default().to_owned(),
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}
