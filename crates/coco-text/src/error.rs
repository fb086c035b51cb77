//! Why a file has no text: what failed, the facts, and what the user can do.

use serde::{Deserialize, Serialize};

use crate::media::Format;

/// The kind of an extraction's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExtractErrorKind {
    /// The format is not known, or not one of those that are read.
    Unsupported,
    /// The content is not what its format requires.
    Damaged,
    /// A password is needed.
    Encrypted,
    /// The content exceeds a limit.
    TooLarge,
    /// This build lacks the code that reads the format.
    NotBuilt,
}

/// The failure of an extraction, in the parts of a message of Postgres.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractError {
    pub kind: ExtractErrorKind,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// Longest detail, in bytes: a library may quote the content.
const DETAIL: usize = 300;

impl ExtractError {
    fn new(kind: ExtractErrorKind, message: String, hint: &str) -> ExtractError {
        ExtractError { kind, message, detail: None, hint: Some(hint.to_owned()) }
    }

    fn detail(mut self, detail: &str) -> ExtractError {
        // The content may be quoted: show its characters, and never its control characters.
        let shown = |c: char| if c.is_control() { '?' } else { c };
        let mut text: String = detail.chars().map(shown).collect();
        if text.len() > DETAIL {
            let end = (0..=DETAIL).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        self.detail = Some(text);
        self
    }

    pub(crate) fn unknown_media_type(name: &str) -> ExtractError {
        let shown: String = name.chars().take(100).collect();
        ExtractError::new(
            ExtractErrorKind::Unsupported,
            format!("media type \"{shown}\" is not supported"),
            "Pass a media type such as application/pdf or text/html, or NULL to determine it from the content.",
        )
    }

    pub(crate) fn unsupported_content(what: &str) -> ExtractError {
        ExtractError::new(
            ExtractErrorKind::Unsupported,
            "content has no format from which text can be extracted".to_owned(),
            "Exclude the file, or convert it first. Supported are PDF, HTML, DOCX, XLSX, PPTX, EPUB, e-mail, RTF and plain text.",
        )
        .detail(what)
    }

    pub(crate) fn damaged(format: Format, why: String) -> ExtractError {
        ExtractError::new(
            ExtractErrorKind::Damaged,
            format!("content is not a valid {}", format.title()),
            "Check whether the file is complete and opens in another program.",
        )
        .detail(&why)
    }

    pub(crate) fn encrypted(format: Format) -> ExtractError {
        ExtractError::new(
            ExtractErrorKind::Encrypted,
            format!("content is an encrypted {}", format.title()),
            "Store the file without a password.",
        )
    }

    /// Names a format that cannot be told from others, because it is encrypted.
    pub(crate) fn office(mut self) -> ExtractError {
        self.message = "content is an encrypted file of Microsoft Office".to_owned();
        self
    }

    pub(crate) fn too_large(format: Format) -> ExtractError {
        ExtractError::new(
            ExtractErrorKind::TooLarge,
            format!("content of the {} is too large", format.title()),
            "Split the file, or exclude it.",
        )
        .detail("The extracted text, or a decompressed part of the file, can have at most 256 MB.")
    }

    pub(crate) fn too_deep(format: Format) -> ExtractError {
        ExtractError::new(
            ExtractErrorKind::TooLarge,
            format!("content of the {} is nested too deeply", format.title()),
            "Exclude the file.",
        )
    }

    #[cfg(not(all(feature = "pdf", feature = "html", feature = "mail", feature = "office")))]
    pub(crate) fn not_built(format: Format) -> ExtractError {
        ExtractError::new(
            ExtractErrorKind::NotBuilt,
            format!("this build of coco cannot read a {}", format.title()),
            "Build coco with the feature \"documents\".",
        )
    }
}
