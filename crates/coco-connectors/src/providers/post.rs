//! A custom service: coco posts a JSON text, and the service answers with another.

use super::response::ParsedResponse;
use crate::net::body::check_depth;
use coco_core::fingerprint::Hasher;
use coco_core::provider::Answer;

/// Returns a key that is equal for equal requests, so that a service can recognize a repeated
/// request.
pub fn idempotency_key(url: &str, body: &str) -> String {
    let mut hasher = Hasher::new();
    hasher.part(url.as_bytes()).part(body.as_bytes());
    hasher.finish().0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses a response. The error continues "its answer".
pub fn read(answer: &[u8]) -> Result<ParsedResponse, String> {
    let text = str::from_utf8(answer).map_err(|_| "is not JSON: it is not UTF-8")?;
    // The text stays unchanged: parsing and rewriting a number could lose digits.
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|e| format!("is not JSON: {e}"))?;
    check_depth(text)?;
    let answers = vec![Ok(Answer::Text(text.to_owned()))];
    Ok(ParsedResponse { answers, tokens_in: Some(0), tokens_out: Some(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stays_the_text_that_it_is() {
        let text = r#"{"n": 0.10000000000000000000000001}"#;
        let reading = read(text.as_bytes()).expect("JSON");
        assert_eq!(reading.answers, [Ok(Answer::Text(text.to_owned()))]);
        for wrong in ["", "ok", "{", "1 2", "\u{0}"] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(deep.as_bytes()).is_err());
        assert!(read(b"\"\xff\"").is_err());
    }

    #[test]
    fn requests_have_keys_of_their_own() {
        assert_eq!(idempotency_key("http://h/a", "1"), idempotency_key("http://h/a", "1"));
        assert_ne!(idempotency_key("http://h/a", "1"), idempotency_key("http://h/", "a1"));
    }
}
