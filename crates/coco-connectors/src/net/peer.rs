//! The server, as messages may describe it.

use std::fmt;

use reqwest::Url;

use coco_core::masking::Masker;

/// Maximum bytes of a quoted text of the server.
const LONGEST_QUOTE: usize = 500;

/// The server, displayed as scheme, host and port. The path is omitted: it is a secret of many
/// webhooks.
pub struct Peer {
    origin: String,
    masker: Masker,
}

impl Peer {
    pub fn new(url: &Url, secrets: &[String]) -> Peer {
        let masker = Masker::new(secrets.iter().map(String::as_str));
        Peer { origin: url.origin().ascii_serialization(), masker }
    }

    /// Returns a text of the server for a message: on one short line, and without our secrets,
    /// which the server may repeat.
    pub fn quote(&self, text: &str) -> String {
        self.masker.mask_line(text, LONGEST_QUOTE)
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
        Peer::new(&url, &secrets.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_quote_has_no_secrets_and_is_one_short_line() {
        let peer = peer(&["abc", "xabcx", ""]);
        assert_eq!(peer.quote("no xabcx,\n no abc "), "no ***,  no ***");
        assert_eq!(peer.quote("\0"), " ");
        assert_eq!(peer.quote(&"é".repeat(250)), "é".repeat(250));
        assert_eq!(peer.quote(&"é".repeat(251)), format!("{}…", "é".repeat(250)));
    }

    #[test]
    fn the_path_is_not_shown() {
        assert_eq!(peer(&[]).to_string(), "https://hooks.example");
    }
}
