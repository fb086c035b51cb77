//! Reads how long a server asks to wait.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// coco does not wait longer, whatever a server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// A header that some servers send in addition to Retry-After, or instead of it.
const MILLISECONDS_HEADER: &str = "retry-after-ms";

/// Returns the wait that a response asks for.
pub fn requested_wait(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    // In a redirect, Retry-After concerns the redirect.
    if status.is_redirection() {
        return None;
    }
    let text = |name: &str| headers.get(name)?.to_str().ok();
    text(MILLISECONDS_HEADER)
        .and_then(parse_milliseconds)
        .or_else(|| parse_wait(text(RETRY_AFTER.as_str())?, SystemTime::now()))
}

fn parse_milliseconds(text: &str) -> Option<Duration> {
    let wait = text.trim().parse::<f64>().ok().filter(|ms| *ms > 0.0)?;
    Some(Duration::try_from_secs_f64(wait / 1000.0).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT))
}

/// Parses a number of seconds, or a date.
fn parse_wait(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = if text.starts_with(|c: char| c.is_ascii_digit()) {
        // A number with more digits than a u64 is a long wait, too.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))?
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?
    };
    Some(wait.min(LONGEST_WAIT)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_when_within_bounds() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |text: &str| parse_wait(text, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("7"), Some(7));
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        for long in ["3601", "18446744073709551616", "Sat, 06 Nov 2094 08:49:37 GMT"] {
            assert_eq!(seconds(long), Some(3600), "{long}");
        }
        for none in ["0", "", "soon", "-5", "5s", "1.5", "Sun, 06 Nov 1994 08:49:27 GMT"] {
            assert_eq!(seconds(none), None, "{none}");
        }
    }

    #[test]
    fn milliseconds_are_finer_and_come_first() {
        let requested_wait = |pairs: &[(&'static str, &'static str)], status: u16| {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.insert(*name, value.parse().expect("a value"));
            }
            requested_wait(StatusCode::from_u16(status).expect("a status"), &map)
        };
        let both = [("retry-after", "2"), ("retry-after-ms", "1500")];
        assert_eq!(requested_wait(&both, 429), Some(Duration::from_millis(1500)));
        assert_eq!(
            requested_wait(&[("retry-after-ms", "soon"), ("retry-after", "2")], 429)
                .map(|w| w.as_secs()),
            Some(2)
        );
        assert_eq!(requested_wait(&[("retry-after-ms", "1e300")], 503), Some(LONGEST_WAIT));
        for none in ["0", "-1", "NaN", ""] {
            assert_eq!(requested_wait(&[("retry-after-ms", none)], 429), None, "{none}");
        }
        assert_eq!(requested_wait(&both, 302), None);
    }
}
