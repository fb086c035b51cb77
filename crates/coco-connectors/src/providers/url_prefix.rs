//! Finds the server URL that is a prefix of another URL.

use reqwest::Url;

use crate::net::{endpoint, path};

/// Returns the index of the longest of these URLs that is a prefix of `url`. The error continues
/// "the URL", and does not repeat the URL.
pub fn longest_matching_prefix<'a>(
    bases: impl Iterator<Item = &'a str>,
    url: &str,
) -> Result<Option<usize>, String> {
    path::check_path(url)?;
    let url = endpoint::url(url)?;
    let matching = bases.enumerate().filter_map(|(place, base)| {
        let base = endpoint::url(base).ok()?;
        is_prefix(&base, &url).then(|| (base.path().len(), place))
    });
    // Of equally long URLs, the first one counts.
    Ok(matching.max_by_key(|(length, place)| (*length, std::cmp::Reverse(*place))).map(|(_, p)| p))
}

/// Reports whether `base` is a prefix of `url`. The parser has normalized both: they contain no
/// `..`, and have the default port of their scheme.
fn is_prefix(base: &Url, url: &Url) -> bool {
    let path = base.path().strip_suffix('/').unwrap_or(base.path());
    let rest = url.path().strip_prefix(path);
    base.origin() == url.origin()
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && (base.query().is_none() || base.query() == url.query())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(base: &str, url: &str) -> bool {
        longest_matching_prefix([base].into_iter(), url).expect("a URL").is_some()
    }

    #[test]
    fn paths_are_compared_by_their_parts() {
        for (base, url) in [
            ("http://h/v1", "http://h/v1"),
            ("http://h/v1", "http://h/v1/a?b=c"),
            ("http://h/v1/", "http://h/v1/a"),
            ("http://h", "http://h/a"),
            ("http://h:80/v1", "HTTP://H/v1/x/y"),
            ("http://h/v1?k=1", "http://h/v1/a?k=1"),
        ] {
            assert!(matching(base, url), "{base} {url}");
        }
        for (base, url) in [
            ("http://h/v1", "http://h/v1x"),
            ("http://h/v1", "http://h/V1/a"),
            ("http://h/v1", "https://h/v1"),
            ("http://h/v1", "http://h:8080/v1"),
            ("http://h/v1", "http://h.evil/v1"),
            ("http://h/v1?k=1", "http://h/v1/a"),
        ] {
            assert!(!matching(base, url), "{base} {url}");
        }
    }

    #[test]
    fn the_longest_counts() {
        let bases = ["http://h/", "http://h/a/b", "http://h/a", "nonsense", "http://h/a/b/"];
        let place = |url| longest_matching_prefix(bases.into_iter(), url).expect("a URL");
        assert_eq!(place("http://h/a/b/c"), Some(4));
        assert_eq!(place("http://h/a/c"), Some(2));
        assert_eq!(place("http://h/c"), Some(0));
        assert_eq!(place("http://g/c"), None);
    }

    #[test]
    fn what_could_lead_out_is_refused() {
        for url in [
            "http://h/v1/../a",
            "http://h/v1/%2e%2e/a",
            "http://h/v1\\..\\a",
            "http://h/v1/..;/a",
            "http://h/v1/%252e%252e/a",
            "http://h/v1/..%2fadmin",
            "http://h/a%5C..",
            "http://u:p@h/",
            "ftp://h/",
            "x",
        ] {
            let error = longest_matching_prefix(["http://h"].into_iter(), url).expect_err(url);
            assert!(!error.contains(url), "{error}");
        }
    }
}
