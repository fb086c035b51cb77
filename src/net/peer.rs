//! The other side, as far as messages may speak of it.

use std::cmp::Reverse;
use std::fmt;

use reqwest::Url;

/// Shown as scheme, host and port. The path is left out: of many a webhook it is a secret.
pub struct Peer {
    origin: String,
    /// Those that contain others come first.
    secrets: Vec<String>,
}

impl Peer {
    pub fn new(url: &Url, mut secrets: Vec<String>) -> Peer {
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by_key(|secret| Reverse(secret.len()));
        Peer { origin: url.origin().ascii_serialization(), secrets }
    }

    /// A text of the other side's, fit to be shown: without our secrets (it may repeat what it was
    /// sent), on one line, and not long.
    pub fn quote(&self, text: &str) -> String {
        const LONGEST: usize = 500;
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret, "***");
        }
        let mut chars = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
        let mut short: String = chars.by_ref().take(LONGEST).collect();
        if chars.next().is_some() {
            short.push('…');
        }
        short
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(secrets: &[&str]) -> Peer {
        let url = Url::parse("https://hooks.example/T0/secret-path?token=1").expect("a URL");
        Peer::new(&url, secrets.iter().map(|s| (*s).to_owned()).collect())
    }

    #[test]
    fn a_quote_has_no_secrets_and_is_one_short_line() {
        let peer = peer(&["abc", "xabcx", ""]);
        assert_eq!(peer.quote("no xabcx,\n no abc "), "no ***,  no ***");
        assert_eq!(peer.quote("\0"), " ");
        assert_eq!(peer.quote(&"é".repeat(500)), "é".repeat(500));
        assert_eq!(peer.quote(&"é".repeat(501)), format!("{}…", "é".repeat(500)));
    }

    #[test]
    fn the_path_is_not_shown() {
        assert_eq!(peer(&[]).to_string(), "https://hooks.example");
    }
}
