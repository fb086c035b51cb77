//! The relationships of a part of an Office file: to other parts, and to addresses.

use std::collections::HashMap;

use super::archive::Archive;
use super::xml::{Xml, read_xml};
use crate::error::ExtractError;
use crate::media::Format;

/// A relationship of a part.
#[derive(Clone, Debug)]
pub struct Relationship {
    /// The last component of the type, such as `slide`.
    pub kind: String,
    /// The name of a file of the archive, or an address outside.
    pub target: String,
}

/// Returns the relationships of a part by their ids. `part` is the name of its file.
pub fn relationships(
    archive: &mut Archive<'_>,
    part: &str,
    format: Format,
) -> Result<HashMap<String, Relationship>, ExtractError> {
    let (folder, name) = part.rsplit_once('/').unwrap_or(("", part));
    let mut found = HashMap::new();
    let Some(content) = archive.find(&format!("{folder}/_rels/{name}.rels"))? else {
        return Ok(found);
    };
    read_xml(&content, format, |xml| {
        let Xml::Open("Relationship", attributes) = xml else { return };
        let (Some(id), Some(target)) = (attributes.get("Id"), attributes.get("Target")) else {
            return;
        };
        let kind = attributes.get("Type").unwrap_or_default();
        let kind = kind.rsplit('/').next().unwrap_or_default().to_owned();
        let is_outside = attributes.get("TargetMode").as_deref() == Some("External");
        let target = if is_outside { target } else { resolve(folder, &target) };
        found.insert(id, Relationship { kind, target });
    })?;
    Ok(found)
}

/// Returns the name of a file, given relative to a folder.
pub fn resolve(folder: &str, target: &str) -> String {
    let absolute = target.starts_with('/');
    let mut parts: Vec<&str> = if absolute { vec![] } else { folder.split('/').collect() };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join("/")
}
