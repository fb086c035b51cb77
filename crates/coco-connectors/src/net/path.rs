//! Checks that the path of a URL in a row cannot leave its apparent folder.
//!
//! Servers and proxies interpret paths differently: some decode a path twice, some drop the text
//! after a `;`, some treat a backslash as a slash. A path is rejected if any of these
//! interpretations contains a segment of dots, or a separator that another interpretation does not
//! contain.

/// Maximum number of times a path is decoded. Servers behind proxies decode a path up to three
/// times.
const MAX_DECODINGS: usize = 5;

/// Checks a URL as it is written, before a parser removes its dots. The error continues "the URL",
/// and does not repeat the URL.
pub fn check_path(url: &str) -> Result<(), String> {
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("must have no spaces and no control characters".to_owned());
    }
    let rest = url.split_once("://").map(|(_, rest)| rest);
    let rest = rest.ok_or("must start with http:// or https://")?;
    let written = rest.split(['?', '#']).next().unwrap_or_default();
    if written.contains('\\') {
        return Err("must have no backslash in its path".to_owned());
    }
    let Some((_, path)) = written.split_once('/') else { return Ok(()) };
    let separators = path.matches('/').count();
    let mut path = path.to_owned();
    for _ in 0..MAX_DECODINGS {
        check_segments(&path)?;
        let decoded = decode(&path)?;
        if decoded.chars().any(char::is_control) {
            return Err("must have no control characters in its path".to_owned());
        }
        let read: String = decoded.chars().map(replace_look_alike).collect();
        if read.contains('\\') || read.matches('/').count() != separators {
            return Err("must have no %2F and no %5C in its path".to_owned());
        }
        check_segments(&read)?;
        if decoded == path {
            return Ok(());
        }
        path = decoded;
    }
    Err("must not have its path encoded several times".to_owned())
}

fn check_segments(path: &str) -> Result<(), String> {
    let is_dots = |segment: &str| {
        // Some servers treat the text after a semicolon as a parameter, and drop it.
        let name = segment.split(';').next().unwrap_or_default();
        name.contains('.') && name.chars().all(|c| c == '.' || c.is_whitespace())
    };
    match path.split('/').any(is_dots) {
        true => Err("must have no . and no .. in its path, however they are written".to_owned()),
        false => Ok(()),
    }
}

/// Decodes `%xx` once. Other text stays unchanged.
fn decode(path: &str) -> Result<String, String> {
    let bytes = path.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        if *byte == b'%' && matches!(bytes.get(at + 1), Some(b'u' | b'U')) {
            return Err("must have no %u… in its path".to_owned());
        }
        decoded.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    // Some decoders accept two bytes that are not valid UTF-8 as a dot.
    String::from_utf8(decoded).map_err(|_| "must be UTF-8 where its path is encoded".to_owned())
}

/// Returns the ASCII character that some servers treat a similar character as.
fn replace_look_alike(c: char) -> char {
    match c {
        '\u{ff0e}' | '\u{2024}' | '\u{fe52}' | '\u{2025}' | '\u{2026}' => '.',
        '\u{ff0f}' | '\u{2215}' | '\u{2044}' => '/',
        '\u{ff3c}' | '\u{2216}' | '\u{fe68}' => '\\',
        '\u{ff1b}' => ';',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_lead_out_are_refused() {
        let dots = [
            "..",
            ".",
            "...",
            "..;",
            "..;x=1",
            ".;",
            "%2e%2e",
            "%2E.",
            ".%2e",
            "%252e%252e",
            "%25252e.",
            "%%32e%%32e",
            "..%3b",
            "..%3B/x",
            "..%253b",
            "%2e%2e;",
            ".%00.",
            "..%00",
            "%c0%ae%c0%ae",
            "%e0%80%ae.",
            "%uff0e%uff0e",
            "%u002e.",
            "\u{ff0e}\u{ff0e}",
            "%ef%bc%8e%ef%bc%8e",
            "..%20",
            "%20..",
            "%e2%80%a4.",
            "\u{2025}",
        ];
        for form in dots {
            for url in [
                format!("http://h/v1/{form}/admin"),
                format!("http://h/v1/{form}"),
                format!("http://h/{form}/v1?a=b"),
            ] {
                let error = check_path(&url).expect_err(&url);
                assert!(!error.contains(&url), "{error}");
            }
        }
        for url in [
            "http://h/v1/a%2fb",
            "http://h/v1/..%2fadmin",
            "http://h/v1/..%252fadmin",
            "http://h/v1/a%255cb",
            "http://h/v1/..%5c..",
            "http://h/v1\\..\\a",
            "http:\\\\h/v1",
            "http://h\\v1",
            "http://h/v1/%c0%af",
            "http://h/v1/\u{2215}..",
            "http://h/%ef%bc%8fa",
            "http://h/v1/.\t./a",
            "http://h/v1/.\n./a",
            " http://h/v1",
            "http://h/v1/%0d%0aX",
            "http://h/v1/%00",
            "http://h/v1/a b",
            "http:/h/..",
            "http:h/..",
            "http://h/%2525252525252e",
            "http://h/v1/%ff",
        ] {
            check_path(url).expect_err(url);
        }
    }

    #[test]
    fn other_paths_are_not() {
        for url in [
            "http://h",
            "http://h/",
            "https://h:8080/v1",
            "http://h/v1/a.b/..c/d../.well-known",
            "http://h/v1//a/",
            "http://h/a;b=c/d",
            "http://h/a%20b/c%25d/%C3%A9/100%",
            "http://h/v1?path=../../x%2f%5c",
            "http://[::1]/v1/~x,y:z@w",
            "http://h/a%3Fb%23c",
            "HTTP://H/v1",
        ] {
            assert_eq!(check_path(url), Ok(()), "{url}");
        }
    }
}
