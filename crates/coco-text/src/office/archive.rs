//! The files of a ZIP archive, with bounds on their sizes.

use std::io::{Cursor, Read};
use zip::ZipArchive;
use zip::result::ZipError;

use crate::MAX_TEXT;
use crate::error::ExtractError;
use crate::media::Format;

/// An archive whose files are read by name.
pub struct Archive<'a> {
    format: Format,
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// How many bytes may still be decompressed.
    left: u64,
}

impl<'a> Archive<'a> {
    pub fn new(content: &'a [u8], format: Format) -> Result<Archive<'a>, ExtractError> {
        let zip = ZipArchive::new(Cursor::new(content))
            .map_err(|e| ExtractError::damaged(format, format!("ZIP archive: {e}.")))?;
        Ok(Archive { format, zip, left: 2 * MAX_TEXT as u64 })
    }

    /// Returns the content of a file, or `None` if the archive does not contain it.
    pub fn find(&mut self, name: &str) -> Result<Option<Vec<u8>>, ExtractError> {
        let format = self.format;
        let file = match self.zip.by_name(name.trim_start_matches('/')) {
            Ok(file) => file,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(ZipError::UnsupportedArchive(why)) if why.to_lowercase().contains("password") => {
                return Err(ExtractError::encrypted(format));
            }
            Err(e) => return Err(ExtractError::damaged(format, format!("ZIP archive: {e}."))),
        };
        // The size in the archive's directory may be wrong.
        let bound = self.left.min(MAX_TEXT as u64);
        let mut content = Vec::new();
        file.take(bound + 1).read_to_end(&mut content).map_err(|e| {
            ExtractError::damaged(format, format!("File {name} of the ZIP archive: {e}."))
        })?;
        if content.len() as u64 > bound {
            return Err(ExtractError::too_large(format));
        }
        self.left -= content.len() as u64;
        Ok(Some(content))
    }

    /// Returns the content of a file that the format requires.
    pub fn require(&mut self, name: &str) -> Result<Vec<u8>, ExtractError> {
        let format = self.format;
        self.find(name)?.ok_or_else(|| {
            ExtractError::damaged(format, format!("The ZIP archive contains no file {name}."))
        })
    }
}
