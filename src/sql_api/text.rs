//! Functions for use in queries: splitting and normalizing text, fingerprints, stable UUIDs.

use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::prelude::*;

use crate::pg::datum_bytes;
use crate::pg::error::Error;
use coco_core::text;
use coco_core::text::Language;
use coco_core::text::split::Splitter;

#[pg_extern(sql = false)]
fn split_text(
    text: Option<&str>,
    size: Option<i32>,
    overlap: Option<i32>,
    language: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (name!(n, i32), name!(chunk, String), name!(byte_start, i32), name!(byte_end, i32)),
    >,
    ErrorReport,
> {
    let (Some(text), Some(size), Some(overlap)) = (text, size, overlap) else {
        return Ok(TableIterator::new(Vec::new()));
    };
    check_sizes(size, overlap)?;
    let language = match language {
        None | Some("plain") => Language::Plain,
        Some("markdown") => Language::Markdown,
        Some(other) => {
            return Err(Error::invalid(format!(
                "unrecognized value for argument \"language\": \"{other}\""
            ))
            .hint("Valid values are plain (the default) and markdown.")
            .into());
        }
    };
    let text = text.to_owned();
    let mut splitter = Splitter::new(&text, size as usize, overlap as usize, language);
    // Chunks are produced one at a time: with a large overlap, together they can be much larger
    // than the text.
    let next = move || {
        let place = splitter.next(&text, || {
            pgrx::check_for_interrupts!();
        })?;
        Some((text[place.clone()].to_owned(), place.start as i32, place.end as i32))
    };
    let rows = std::iter::from_fn(next).zip(1..);
    Ok(TableIterator::new(rows.map(|((chunk, start, end), n)| (n, chunk, start, end))))
}

/// Checks the sizes of chunks and of what they repeat.
pub fn check_sizes(size: i32, overlap: i32) -> Result<(), Error> {
    if size < 1 || overlap < 0 || overlap >= size {
        return Err(Error::invalid(format!(
            "invalid values for arguments \"size\" ({size}) and \"overlap\" ({overlap})"
        ))
        .hint("Specify both in characters: \"size\" at least 1, and \"overlap\" at least 0 and less than \"size\"."));
    }
    Ok(())
}

#[pg_extern(sql = false)]
fn normalize_text(text: &str) -> String {
    text::normalize(text)
}

/// Implements `coco.fingerprint(VARIADIC "any")`, whose arguments may have any type.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_fingerprint(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the function manager calls this function with a valid call in progress.
    unsafe { uuid(datum_bytes::fingerprint(fcinfo)) }
}

/// Implements `coco.stable_uuid(VARIADIC "any")`, whose arguments may have any type.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn coco_stable_uuid(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: as above.
    unsafe { uuid(datum_bytes::stable_uuid(fcinfo)) }
}

/// Returns a uuid, which is its 16 bytes (utils/uuid.h).
fn uuid(hashed: Result<[u8; 16], Error>) -> pg_sys::Datum {
    let bytes = hashed.map_err(ErrorReport::from).unwrap_or_report();
    // SAFETY: palloc allocates the requested size, or raises an error.
    unsafe {
        let uuid = pg_sys::palloc(bytes.len()).cast::<[u8; 16]>();
        *uuid = bytes;
        pg_sys::Datum::from(uuid)
    }
}

const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };

#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_coco_fingerprint() -> &'static pg_sys::Pg_finfo_record {
    &V1
}

#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_coco_stable_uuid() -> &'static pg_sys::Pg_finfo_record {
    &V1
}
