//! Files of the server: finds those that match a glob below a directory, and reads their content.
//! Uses no PostgreSQL.

use globset::{GlobBuilder, GlobMatcher};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use walkdir::{DirEntry, WalkDir};

/// A file in a listing.
pub struct Listed {
    /// The path relative to the listed directory, without a leading slash.
    pub path: Vec<u8>,
    pub modified: SystemTime,
    pub size: u64,
}

/// The action that failed, and its file or directory.
#[derive(Debug)]
pub struct FileError {
    /// The failed action, for "could not …".
    pub action: &'static str,
    pub path: PathBuf,
    pub error: io::Error,
}

/// A parsed glob: its matcher, and limits that avoid reading directories without matches.
pub struct Pattern {
    matcher: GlobMatcher,
    /// The leading directories of the glob, as far as they are plain names.
    within: Vec<String>,
    /// The greatest depth at which the glob can match.
    depth: usize,
}

impl Pattern {
    /// Parses a glob. `Err` describes the syntax error.
    pub fn new(glob: &str) -> Result<Pattern, String> {
        let matcher = GlobBuilder::new(glob)
            .literal_separator(true)
            .empty_alternates(true)
            .build()
            .map_err(|e| e.kind().to_string())?
            .compile_matcher();
        let parts: Vec<&str> = glob.split('/').collect();
        let plain = |part: &&str| !part.contains(['*', '?', '[', ']', '{', '}', '\\']);
        let directories = &parts[..parts.len() - 1];
        let within = match glob.contains('{') {
            // A brace may contain slashes.
            true => vec![],
            false => directories.iter().copied().take_while(plain).map(str::to_owned).collect(),
        };
        let depth = match glob.contains("**") || glob.contains('{') {
            true => usize::MAX,
            false => parts.len(),
        };
        Ok(Pattern { matcher, within, depth })
    }

    /// Reports whether the glob can match at or below this entry.
    fn reaches(&self, entry: &DirEntry) -> bool {
        let at = entry.depth().checked_sub(1).and_then(|n| self.within.get(n));
        at.is_none_or(|name| entry.file_name().as_bytes() == name.as_bytes())
    }
}

/// Returns the files below `directory` that a pattern matches, in no order.
///
/// A symbolic link to a file counts as the file. A link to a directory is not followed, so that no
/// file is listed twice and a loop does no harm. Skips files that vanish meanwhile and links
/// without a target. Any other unreadable file or directory is an error: skipping it would look as
/// if its files had been deleted.
pub fn list(
    directory: &Path,
    pattern: Pattern,
) -> impl Iterator<Item = Result<Listed, FileError>> + use<> {
    let root = directory.to_owned();
    let Pattern { matcher, within, depth } = pattern;
    let (matches, reaches) = (matcher.clone(), Pattern { matcher, within, depth });
    WalkDir::new(&root)
        .max_depth(depth)
        .into_iter()
        .filter_entry(move |entry| reaches.reaches(entry))
        .filter_map(move |entry| listed(&root, &matches, entry).transpose())
}

fn listed(
    root: &Path,
    matches: &GlobMatcher,
    entry: walkdir::Result<DirEntry>,
) -> Result<Option<Listed>, FileError> {
    let entry = match entry {
        Ok(entry) => entry,
        Err(e) => {
            let (depth, path) = (e.depth(), e.path().unwrap_or(root).to_owned());
            let error = e.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into());
            if depth > 0 && vanished(&error) {
                return Ok(None);
            }
            return Err(FileError { action: "open directory", path, error });
        }
    };
    let kind = entry.file_type();
    if entry.depth() == 0 {
        // Walking a file returns the file itself; the walk continues into a directory.
        let is_directory = fs::metadata(root).is_ok_and(|m| m.is_dir());
        return match is_directory {
            true => Ok(None),
            false => Err(FileError {
                action: "open directory",
                path: root.to_owned(),
                error: io::ErrorKind::NotADirectory.into(),
            }),
        };
    }
    if !(kind.is_file() || kind.is_symlink()) {
        return Ok(None);
    }
    let Ok(path) = entry.path().strip_prefix(root) else { return Ok(None) };
    if !matches.is_match(path) {
        return Ok(None);
    }
    let failed = |error| FileError { action: "stat file", path: entry.path().to_owned(), error };
    let metadata = match fs::metadata(entry.path()) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(None),
        Err(e) if vanished(&e) || kind.is_symlink() && !denied(&e) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    Ok(Some(Listed {
        path: path.as_os_str().as_bytes().to_vec(),
        modified: metadata.modified().map_err(failed)?,
        size: metadata.len(),
    }))
}

/// Returns the content of a file of at most `limit` bytes. `Err` inside `Ok` is the size of a
/// larger file. `None` if the file does not exist, or is not a regular file.
pub fn read(path: &Path, limit: u64) -> Result<Option<Result<Vec<u8>, u64>>, FileError> {
    let failed = |action| move |error| FileError { action, path: path.to_owned(), error };
    // Check before opening: opening a pipe would wait for a writer.
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(None),
        Err(e) if vanished(&e) => return Ok(None),
        Err(e) => return Err(failed("stat file")(e)),
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if vanished(&e) => return Ok(None),
        Err(e) => return Err(failed("open file")(e)),
    };
    if metadata.len() > limit {
        return Ok(Some(Err(metadata.len())));
    }
    let mut content = Vec::new();
    // If memory is not available, return an error instead of ending the process.
    content
        .try_reserve_exact(metadata.len() as usize)
        .map_err(|_| failed("read file")(io::ErrorKind::OutOfMemory.into()))?;
    // The file may have grown since the check.
    file.take(limit + 1).read_to_end(&mut content).map_err(failed("read file"))?;
    match content.len() as u64 > limit {
        true => Ok(Some(Err(content.len() as u64))),
        false => Ok(Some(Ok(content))),
    }
}

/// Reports whether a file does not exist, or no longer exists.
fn vanished(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, path: &str) -> bool {
        Pattern::new(glob).is_ok_and(|p| p.matcher.is_match(path))
    }

    #[test]
    fn globs_match_as_documented() {
        for (glob, path) in [
            ("**/*", "a"),
            ("**/*", "a/b/c"),
            ("**/*", ".hidden/.x"),
            ("**", "a/b"),
            ("**/*.md", "x.md"),
            ("a/**/*.md", "a/x.md"),
            ("a/**/*.md", "a/b/c/x.md"),
            ("?.md", "x.md"),
            ("*.{md,txt}", "x.txt"),
            ("{a,b/c}/*", "b/c/x"),
            ("[a-c].md", "b.md"),
            ("[!a-c].md", "d.md"),
            ("\\*.md", "*.md"),
            ("*.md", "two\nlines.md"),
            ("*.md", "é.md"),
        ] {
            assert!(matches(glob, path), "{glob} {path}");
        }
        for (glob, path) in
            [("*", "a/b"), ("?", "/"), ("*.md", "x.MD"), ("*.md", "d/x.md"), ("a/*", "a/b/c")]
        {
            assert!(!matches(glob, path), "{glob} {path}");
        }
        assert!(Pattern::new("[a").is_err() && Pattern::new("{a").is_err());
    }

    #[test]
    fn what_cannot_match_is_not_looked_at() {
        let within = |glob| Pattern::new(glob).map(|p| (p.within, p.depth)).unwrap_or_default();
        let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(within("a/b/*.md"), (names(&["a", "b"]), 3));
        assert_eq!(within("a/**/b/*.md"), (names(&["a"]), usize::MAX));
        assert_eq!(within("x.md"), (names(&[]), 1));
        assert_eq!(within("{a,b/c}/*"), (names(&[]), usize::MAX));
        assert_eq!(within("a*/b/*"), (names(&[]), 3));
    }
}
