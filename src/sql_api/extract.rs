//! The text of files: `coco.extract_text` and `coco.extract_pages`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::pg::child_process::{self, ChildEnd};
use crate::pg::error::{Error, Result};
use crate::pg::server_text::to_server_encoding;
use coco_text::{ExtractError, ExtractErrorKind};

// Texts are passed as bytes, in the database's encoding.

#[pg_extern(sql = false)]
fn extract_text(
    content: Option<&[u8]>,
    media_type: Option<&str>,
) -> std::result::Result<Option<Vec<u8>>, ErrorReport> {
    let Some(content) = content else { return Ok(None) };
    let text = coco_text::join_pages(pages_of(content, media_type)?);
    Ok(Some(to_server_encoding(text)))
}

#[pg_extern(sql = false)]
fn extract_pages(
    content: Option<&[u8]>,
    media_type: Option<&str>,
) -> std::result::Result<
    TableIterator<'static, (name!(page, i32), name!(text, Vec<u8>))>,
    ErrorReport,
> {
    let Some(content) = content else { return Ok(TableIterator::new(Vec::new())) };
    let pages = pages_of(content, media_type)?.into_iter();
    Ok(TableIterator::new((1..).zip(pages.map(to_server_encoding))))
}

/// Reads a file. Libraries do so in a process of its own.
fn pages_of(content: &[u8], media_type: Option<&str>) -> Result<Vec<String>> {
    let read = || coco_text::extract_pages(content, media_type);
    if coco_text::is_simple(content, media_type).map_err(error_of)? {
        return read().map_err(error_of);
    }
    let result = child_process::run_in_child(|| serde_json::to_vec(&read()).unwrap_or_default())?;
    let pages = match result {
        Ok(bytes) => {
            serde_json::from_slice::<std::result::Result<Vec<String>, ExtractError>>(&bytes)
                .map_err(|e| {
                    Error::internal(format!("could not read the result of a process: {e}"))
                })?
        }
        Err(end) => return Err(unfinished(end)),
    };
    pages.map_err(error_of)
}

fn error_of(failed: ExtractError) -> Error {
    let code = match failed.kind {
        ExtractErrorKind::Unsupported => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        ExtractErrorKind::Damaged | ExtractErrorKind::Encrypted => {
            PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION
        }
        ExtractErrorKind::TooLarge => PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        ExtractErrorKind::NotBuilt => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
    };
    let mut error = Error::new(code, failed.message);
    (error.detail, error.hint) = (failed.detail, failed.hint);
    error
}

/// Returns the error for a file that could not be read within the limits of a process.
pub fn unfinished(end: ChildEnd) -> Error {
    let error = Error::new(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        "could not read the content within the limits",
    );
    let error = match end {
        ChildEnd::TimeLimit => error
            .detail(format!("Reading it takes longer than {} seconds.", child_process::SECONDS)),
        ChildEnd::MemoryLimit => error.detail(format!(
            "Reading it takes more than {} MB of memory.",
            child_process::MEMORY >> 20
        )),
        ChildEnd::ResultLimit => error.detail("The result is larger than 1 GB."),
        ChildEnd::Crashed => error.detail("It is nested too deeply, or damaged."),
        ChildEnd::Panicked => error.detail("The library that reads it failed."),
    };
    error.hint("Check whether the content is intact, and exclude it otherwise.")
}
