//! The headers of a request: those from the server's options, and the credentials.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use coco_core::options::Options;

const API_KEY_HEADER: &str = "x-api-key";

/// Header names that HTTP or coco sets, or that contain secrets. All names that begin with
/// `content-` are reserved, too.
const RESERVED: [&str; 14] = [
    "connection",
    "cookie",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-coco-signature",
];

/// Parses the option `headers`: a JSON object of names and values.
pub fn parse(text: &str) -> Result<HeaderMap, String> {
    let parsed: BTreeMap<String, String> = serde_json::from_str(text)
        .map_err(|_| "must be a JSON object of texts, such as {\"X-Env\": \"test\"}".to_owned())?;
    let mut map = HeaderMap::new();
    for (name, value) in parsed {
        let header = parse_name(&name)?;
        if header == AUTHORIZATION {
            return Err(
                "must not have Authorization: secrets belong in the user mapping".to_owned()
            );
        }
        let value = HeaderValue::from_str(&value).ok().filter(|_| is_printable(&value));
        let value =
            value.ok_or_else(|| format!("has a value of {name} that is not printable ASCII"))?;
        if map.insert(header, value).is_some() {
            return Err(format!("has {name} twice"));
        }
    }
    Ok(map)
}

/// Parses the option `api_key_header`. It is an option of the server, which its owner sets. A user
/// who could choose header names could redirect the request, as `X-Original-URL` does on some
/// servers.
pub fn parse_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("names an invalid header \"{}\"", text.escape_debug()))?;
    if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("content-") {
        return Err(format!("must not name the header {name}"));
    }
    Ok(name)
}

/// Checks a secret that is sent unchanged.
pub fn check_secret(text: &str) -> Result<(), String> {
    check_not_empty(text)?;
    if !is_printable(text) || text.trim() != text {
        return Err("must be printable ASCII, without spaces around it".to_owned());
    }
    Ok(())
}

/// Checks a user name. A colon ends the name in the header.
pub fn check_user(text: &str) -> Result<(), String> {
    check_not_empty(text)?;
    if text.contains(|c: char| c == ':' || c.is_control()) {
        return Err("must have no colon and no control character".to_owned());
    }
    Ok(())
}

/// Reports whether a text is printable ASCII. HTTP does not define the meaning of other bytes in a
/// header.
fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

pub fn check_not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }
}

/// Adds the credentials to the headers. Returns the secrets as they are sent. The error continues
/// "the options of the user mapping".
pub fn add_credentials(
    headers: &mut HeaderMap,
    server: &Options,
    user: &Options,
) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    if let Some(token) = user.get("bearer_token") {
        found.push((AUTHORIZATION, "Bearer ", token.to_owned()));
    }
    match (user.get("user"), user.get("password").unwrap_or_default()) {
        (Some(name), password) => {
            let pair = STANDARD.encode(format!("{name}:{password}"));
            found.push((AUTHORIZATION, "Basic ", pair));
        }
        (None, "") => {}
        (None, _) => return Err("have a password, but no user".to_owned()),
    }
    if let Some(key) = user.get("api_key") {
        let header = parse_name(server.get("api_key_header").unwrap_or(API_KEY_HEADER))?;
        found.push((header, "", key.to_owned()));
    }
    let mut secrets = Vec::new();
    for (name, scheme, secret) in found {
        let mut value = HeaderValue::from_str(&format!("{scheme}{secret}"))
            .map_err(|_| format!("have an invalid value for the header {name}"))?;
        // Hides the value in debug output.
        value.set_sensitive(true);
        if headers.insert(&name, value).is_some() {
            return Err(format!("set the header {name}, which is already set"));
        }
        // The part after the name of a scheme is a secret by itself.
        secrets.extend(secret.rsplit_once(' ').map(|(_, last)| last.to_owned()));
        secrets.push(secret);
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        Options(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn headers_that_are_not_the_users_to_set_are_refused() {
        let map = parse(r#"{"X-Env": "test", "X-Two": "a b"}"#).expect("fine");
        assert_eq!(map.len(), 2);
        for (text, why) in [
            ("[]", "JSON object of texts"),
            (r#"{"X-A": 1}"#, "JSON object of texts"),
            (r#"{"Authorization": "x"}"#, "user mapping"),
            (r#"{"HOST": "x"}"#, "must not name the header host"),
            (r#"{"Content-Length": "1"}"#, "must not name"),
            (r#"{"X-Coco-Signature": "1"}"#, "must not name"),
            (r#"{"a b": "x"}"#, "invalid header"),
            (r#"{"X-A": "a\r\nX-B: b"}"#, "not printable"),
            (r#"{"X-A": "é"}"#, "not printable"),
            (r#"{"X-A": "a", "x-a": "b"}"#, "twice"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn credentials_become_headers_once() {
        let mut headers = HeaderMap::new();
        let server = options(&[("api_key_header", "X-Token")]);
        let user =
            options(&[("user", "Aladdin"), ("password", "open sesame"), ("api_key", "Key k")]);
        let secrets = add_credentials(&mut headers, &server, &user).expect("fine");
        // The example of RFC 7617.
        assert_eq!(headers["authorization"], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(headers["x-token"], "Key k");
        assert_eq!(secrets, ["QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "k", "Key k"]);
        assert!(!format!("{headers:?}").contains("QWx"), "{headers:?}");

        let error = |server: &[(&str, &str)], user: &[(&str, &str)]| {
            add_credentials(&mut HeaderMap::new(), &options(server), &options(user))
                .expect_err("two at once")
        };
        assert!(error(&[], &[("user", "u"), ("bearer_token", "t")]).contains("already"));
        assert!(error(&[], &[("password", "p")]).contains("no user"));
        let authorization = [("api_key_header", "Authorization")];
        assert!(error(&authorization, &[("api_key", "k"), ("user", "u")]).contains("already"));
    }

    #[test]
    fn secrets_are_what_a_header_can_have() {
        assert_eq!((check_secret("tok-en_1."), check_user("me@x")), (Ok(()), Ok(())));
        for text in ["", "a\nb", " a", "é"] {
            assert!(check_secret(text).is_err(), "{text:?}");
        }
        for text in ["", "a:b", "a\u{7}"] {
            assert!(check_user(text).is_err(), "{text:?}");
        }
    }
}
