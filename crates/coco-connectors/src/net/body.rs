//! The body of a response, with limits per response and for all responses of the process.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Response;

/// Maximum bytes that the responses of this process hold together. A server's option `concurrency`
/// does not bound memory.
const MAX_TOTAL_BYTES: usize = 256 * 1024 * 1024;
/// Maximum depth of nested objects and arrays in a response, as in `serde_json` itself.
const MAX_JSON_DEPTH: usize = 128;

static TOTAL_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The bytes of a response. They count against the limit of the process until the body is dropped.
#[derive(Default)]
pub struct Body(Vec<u8>);

/// The limit that stopped reading. The text continues "its answer".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    TooLong(usize),
    TotalTooLong,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitError::TooLong(bytes) => write!(f, "is longer than {bytes} bytes"),
            LimitError::TotalTooLong => write!(
                f,
                "was not read completely: the answers of this process together exceed \
                 {MAX_TOTAL_BYTES} bytes"
            ),
        }
    }
}

impl Body {
    fn add(&mut self, chunk: &[u8], max_bytes: usize) -> Result<(), LimitError> {
        if chunk.len() > max_bytes.saturating_sub(self.0.len()) {
            return Err(LimitError::TooLong(max_bytes));
        }
        let total = TOTAL_BYTES.fetch_add(chunk.len(), Ordering::Relaxed);
        // The bytes count with this body, even if the limit is exceeded.
        self.0.extend_from_slice(chunk);
        if total + chunk.len() > MAX_TOTAL_BYTES { Err(LimitError::TotalTooLong) } else { Ok(()) }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        TOTAL_BYTES.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads the body of a response in chunks, and stops when it exceeds the limit.
pub async fn read(
    response: &mut Response,
    max_bytes: usize,
) -> Result<Result<Body, LimitError>, reqwest::Error> {
    let mut body = Body::default();
    while let Some(chunk) = response.chunk().await? {
        if let Err(error) = body.add(&chunk, max_bytes) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(body))
}

/// Checks that a JSON text is not nested too deeply. The error continues "its answer".
pub fn check_depth(json: &str) -> Result<(), String> {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_JSON_DEPTH {
            return Err(format!("is JSON with more than {MAX_JSON_DEPTH} levels of nesting"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_up_to_its_limit() {
        let mut body = Body::default();
        assert_eq!(body.add(b"abc", 5), Ok(()));
        assert_eq!(body.add(b"de", 5), Ok(()));
        assert_eq!(body.add(b"f", 5), Err(LimitError::TooLong(5)));
        assert_eq!(&*body, b"abcde");
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check_depth(&nested(MAX_JSON_DEPTH)), Ok(()));
        assert!(check_depth(&nested(MAX_JSON_DEPTH + 1)).is_err());
        assert!(check_depth(&"{\"a\":".repeat(1_000_000)).is_err());
        let string = format!("[\"{}\\\"{}\"]", "[".repeat(500), "{".repeat(500));
        assert_eq!(check_depth(&string), Ok(()));
        assert_eq!(check_depth(&format!("[{}]", ["[]"; 500].join(","))), Ok(()));
    }
}
