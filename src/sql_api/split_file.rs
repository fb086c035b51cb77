//! `coco.split_file`: chunks of source code, Markdown and plain text, with their lines and the
//! headings or symbols around them.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::pg::child_process;
use crate::pg::error::{Error, Result};
use crate::sql_api::extract::unfinished;
use crate::sql_api::text::check_sizes;
use coco_text::chunks::{self, Chunk};
use coco_text::language::{TextLanguage, language_names};

#[pg_extern(sql = false)]
fn split_file(
    text: Option<&str>,
    size: Option<i32>,
    overlap: Option<i32>,
    language: Option<&str>,
    file_name: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(n, i32),
            name!(chunk, String),
            name!(byte_start, i32),
            name!(byte_end, i32),
            name!(line_start, i32),
            name!(line_end, i32),
            name!(path, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    let (Some(text), Some(size), Some(overlap)) = (text, size, overlap) else {
        return Ok(TableIterator::new(Vec::new()));
    };
    check_sizes(size, overlap)?;
    let language = match (language, file_name) {
        (Some(name), _) => language_named(name)?,
        (None, Some(file)) => TextLanguage::from_file_name(file),
        (None, None) => TextLanguage::Plain,
    };
    let chunks = chunks_of(text, size as usize, overlap as usize, language)?;
    let text = text.to_owned();
    let rows = (1..).zip(chunks).map(move |(n, chunk)| {
        (
            n,
            text.get(chunk.start..chunk.end).unwrap_or_default().to_owned(),
            chunk.start as i32,
            chunk.end as i32,
            chunk.first_line as i32,
            chunk.last_line as i32,
            chunk.path,
        )
    });
    Ok(TableIterator::new(rows))
}

/// Returns the language that the argument `language` names.
pub fn language_named(name: &str) -> Result<TextLanguage> {
    TextLanguage::from_name(name).ok_or_else(|| {
        Error::invalid(format!("unrecognized value for argument \"language\": \"{name}\""))
            .hint(format!("Valid values are {}.", language_names().join(", ")))
    })
}

/// Splits a text. A parser of source code runs in a process of its own.
fn chunks_of(
    text: &str,
    size: usize,
    overlap: usize,
    language: TextLanguage,
) -> Result<Vec<Chunk>> {
    if chunks::is_plain_or_markdown(language) {
        let check = || {
            pgrx::check_for_interrupts!();
        };
        return Ok(chunks::split_by_structure(text, size, overlap, language, check));
    }
    if !chunks::is_built(language) {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("this build of coco cannot split language \"{}\"", language.name()),
        )
        .hint("Build coco with the feature \"code\", or split the text as plain."));
    }
    let result = child_process::run_in_child(|| {
        let chunks = chunks::split_by_structure(text, size, overlap, language, || {});
        serde_json::to_vec(&chunks).unwrap_or_default()
    })?;
    let bytes = result.map_err(unfinished)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::internal(format!("could not read the result of a process: {e}")))
}
