//! The files of the server as rows: `coco.list_files` returns their names, `coco.read_file` the
//! content of one file.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::pg::acting_role;
use crate::pg::error::{Error, Result};
use crate::pg::local_files::{self, FileError, Listed, Pattern};
use crate::sql_api::arguments::required_argument;

/// Largest size of a bytea in bytes: MaxAllocSize minus the header (utils/memutils.h).
pub const MAX_CONTENT: u64 = 0x3fff_ffff - 4;

// File names are passed as bytes, because they may be in any encoding that the database uses.

#[pg_extern(sql = false)]
fn list_files(
    directory: Option<&[u8]>,
    glob: Option<&[u8]>,
) -> std::result::Result<
    TableIterator<'static, (name!(path, Vec<u8>), name!(modified, i64), name!(size, i64))>,
    ErrorReport,
> {
    may_read_files("coco.list_files")?;
    let directory = directory_given(directory)?;
    let pattern = pattern_given(glob)?;
    let rows = Listing {
        files: Box::new(local_files::list(&directory, pattern)),
        left_out: 0,
        example: String::new(),
    };
    Ok(TableIterator::new(rows.map(|f| (f.path, timestamptz(f.modified), f.size as i64))))
}

#[pg_extern(sql = false)]
fn read_file(
    directory: Option<&[u8]>,
    path: Option<&[u8]>,
) -> std::result::Result<Option<Vec<u8>>, ErrorReport> {
    may_read_files("coco.read_file")?;
    let directory = directory_given(directory)?;
    let Some(path) = path else { return Ok(None) };
    let path = directory.join(OsStr::from_bytes(path));
    match local_files::read(&path, MAX_CONTENT).map_err(unreadable_file)? {
        None => Ok(None),
        Some(Ok(content)) => Ok(Some(content)),
        Some(Err(size)) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("file \"{}\" is too large", path.display()),
        )
        .detail(format!("The file has {size} bytes, and a bytea can have at most {MAX_CONTENT}."))
        .hint("Exclude the file: WHERE size < 1000000000.")
        .into()),
    }
}

/// Checks the same right as Postgres' own functions that read files (genericfile.c), but for the
/// role that acts when the function runs. In a flow, that role is the flow's owner.
fn may_read_files(function: &str) -> Result<()> {
    if acting_role::has_rights_of(pg_sys::Oid::from(pg_sys::ROLE_PG_READ_SERVER_FILES)) {
        return Ok(());
    }
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied for function {function}"),
    )
    .detail("Only superusers and roles with privileges of the \"pg_read_server_files\" role may read files of the server.")
    .hint("Run GRANT pg_read_server_files TO the role. A flow reads files as its owner."))
}

fn directory_given(directory: Option<&[u8]>) -> Result<PathBuf> {
    // Returning no rows would tell the flow that every file was deleted.
    let directory = required_argument(directory, "directory")?;
    let directory = Path::new(OsStr::from_bytes(directory));
    if directory.is_absolute() {
        return Ok(directory.to_owned());
    }
    Err(Error::invalid(format!(
        "argument \"directory\": \"{}\" is not an absolute path",
        directory.display()
    ))
    .hint("Specify the path from the root of the server's file system, for example /srv/docs."))
}

fn pattern_given(glob: Option<&[u8]>) -> Result<Pattern> {
    let glob = required_argument(glob, "glob")?;
    let shown = String::from_utf8_lossy(glob);
    let wrong = |why: String| {
        Error::invalid(format!("argument \"glob\": \"{shown}\" is not a glob"))
            .detail(why)
            .hint("Use, for example, **/*.md, docs/*.{txt,html}, or [0-9]?.csv.")
    };
    let text = std::str::from_utf8(glob).map_err(|e| wrong(e.to_string()))?;
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(wrong(
            "The pattern is matched against paths below the directory, which contain no empty part, \".\" or \"..\"."
                .to_owned(),
        ));
    }
    Pattern::new(text).map_err(wrong)
}

/// The files of a directory, listed while the caller reads them. Omits names that are not valid in
/// the database's encoding, and raises one WARNING about them at the end.
struct Listing {
    files: Box<dyn Iterator<Item = std::result::Result<Listed, FileError>>>,
    left_out: u64,
    example: String,
}

impl Iterator for Listing {
    type Item = Listed;

    fn next(&mut self) -> Option<Listed> {
        loop {
            pgrx::check_for_interrupts!();
            match self.files.next() {
                Some(Ok(file)) if is_text(&file.path) => return Some(file),
                Some(Ok(file)) => {
                    self.left_out += 1;
                    self.example = String::from_utf8_lossy(&file.path).into_owned();
                }
                Some(Err(failed)) => {
                    ErrorReport::from(unreadable_directory(failed)).report(PgLogLevel::ERROR);
                }
                None => {
                    self.warn();
                    return None;
                }
            }
        }
    }
}

impl Listing {
    fn warn(&mut self) {
        let files = match std::mem::take(&mut self.left_out) {
            0 => return,
            1 => "1 file whose name is".to_owned(),
            n => format!("{n} files whose names are"),
        };
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
            format!("skipped {files} not valid in the database's encoding"),
            format!("For example \"{}\".", self.example)
        );
    }
}

fn is_text(name: &[u8]) -> bool {
    // SAFETY: the function reads `name.len()` bytes; with noError it raises no error.
    unsafe {
        pg_sys::pg_verify_mbstr(
            pg_sys::GetDatabaseEncoding(),
            name.as_ptr().cast(),
            name.len() as i32,
            true,
        )
    }
}

/// Converts a time to a timestamptz: microseconds since 2000 (datatype/timestamp.h), or infinity
/// for a time outside its range.
fn timestamptz(at: SystemTime) -> i64 {
    const FROM_1970_TO_2000: i128 = 946_684_800_000_000;
    const FIRST: i128 = -211_813_488_000_000_000;
    const END: i128 = 9_223_371_331_200_000_000;
    let nanos = match at.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    };
    match nanos.div_euclid(1000) - FROM_1970_TO_2000 {
        micros if micros < FIRST => i64::MIN,
        micros if micros >= END => i64::MAX,
        micros => micros as i64,
    }
}

/// Uses the SQLSTATEs of errcode_for_file_access (elog.c).
fn unreadable_directory(failed: FileError) -> Error {
    let (code, hint) = match failed.error.kind() {
        std::io::ErrorKind::NotFound => (
            PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
            "Specify a directory of the server's machine that the server's operating system user can see.",
        ),
        std::io::ErrorKind::NotADirectory => (
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            "Specify the directory of the file, and the file in \"glob\".",
        ),
        std::io::ErrorKind::PermissionDenied => (
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "Allow the server's operating system user to read the directory (chmod, setfacl), or limit \"directory\" or the beginning of \"glob\" to directories that it can read.",
        ),
        _ => (PgSqlErrorCode::ERRCODE_IO_ERROR, ""),
    };
    could_not(failed, code, hint)
}

/// Reports a file that the server may not read as 38000, not 42501: 42501 would end the whole
/// update, but only this item is affected.
fn unreadable_file(failed: FileError) -> Error {
    match failed.error.kind() {
        std::io::ErrorKind::PermissionDenied => could_not(
            failed,
            PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
            "Allow the server's operating system user to read the file (chmod, setfacl).",
        ),
        std::io::ErrorKind::OutOfMemory => {
            could_not(failed, PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "")
        }
        _ => could_not(failed, PgSqlErrorCode::ERRCODE_IO_ERROR, ""),
    }
}

fn could_not(failed: FileError, code: PgSqlErrorCode, hint: &str) -> Error {
    let FileError { action, path, error } = failed;
    let said = error.to_string();
    // Postgres' messages omit the error number.
    let why = said.split(" (os error").next().unwrap_or(&said);
    let error = Error::new(code, format!("could not {action} \"{}\": {why}", path.display()));
    if hint.is_empty() { error } else { error.hint(hint) }
}
