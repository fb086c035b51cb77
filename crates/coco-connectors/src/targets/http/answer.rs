//! Classifies responses: as an error of some rows, of the target, or of the server.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::net::peer::Peer;
use crate::net::retry_after;
use coco_core::change::{DeliveryError, RejectedChange};

const DATA_EXCEPTION: &str = "22000";

/// A response that reports no error of the server or the target.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The webhook accepted all rows except these: their indexes in the request, and why.
    Delivered(BTreeMap<usize, Rejection>),
    /// The webhook accepted no row, because of one or several of them.
    Rejected(Rejection),
}

/// The reason why the webhook rejected a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub sqlstate: &'static str,
    pub message: String,
}

impl Rejection {
    /// Converts the rejection into a rejected change with this index.
    pub fn of(self, change: usize) -> RejectedChange {
        RejectedChange { change, sqlstate: self.sqlstate.to_owned(), message: self.message }
    }
}

/// Classifies the response to a request of this many changes.
pub fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    changes: usize,
    peer: &Peer,
) -> Result<Answer, DeliveryError> {
    // A body in another form contains no information.
    let body = serde_json::from_slice(body).unwrap_or(Value::Null);
    let said = ["message", "error", "detail"].iter().find_map(|name| body.get(name)?.as_str());
    let said = said.map(|text| peer.quote(text));
    match status.as_u16() {
        200..=299 => Ok(Answer::Delivered(rejected_rows(&body, changes, peer))),
        // These statuses concern the form of requests, whatever they contain.
        405 | 406 | 411 | 414 | 415 | 417 | 421 | 426 | 431 => {
            Err(status_error(status, said, peer))
        }
        401 | 403 | 404 | 407 | 408 | 410 | 425 | 429 => {
            Err(with_retry_after(status_error(status, said, peer), status, headers))
        }
        400..=499 => {
            let message = match said {
                Some(said) => format!("{peer} answered {status}: {said}"),
                None => format!("{peer} answered {status}"),
            };
            let sqlstate = match status {
                StatusCode::CONFLICT => "23000",
                StatusCode::PAYLOAD_TOO_LARGE => "54000",
                _ => DATA_EXCEPTION,
            };
            Ok(Answer::Rejected(Rejection { sqlstate, message }))
        }
        _ => Err(with_retry_after(status_error(status, said, peer), status, headers)),
    }
}

/// Returns the rows that a 2xx response rejects: `{"refused": [{"change": 3, "message": "…"}]}`.
fn rejected_rows(body: &Value, changes: usize, peer: &Peer) -> BTreeMap<usize, Rejection> {
    let entries = body.get("refused").and_then(Value::as_array).into_iter().flatten();
    let places = entries.filter_map(|entry| {
        let place = usize::try_from(entry.get("change")?.as_u64()?).ok()?;
        let said = entry.get("message").and_then(Value::as_str).map(|text| peer.quote(text));
        let message = said.unwrap_or_else(|| format!("{peer} rejects it without a reason"));
        (place < changes).then_some((place, Rejection { sqlstate: DATA_EXCEPTION, message }))
    });
    places.collect()
}

/// Returns the error for a status that concerns all rows, with a hint.
fn status_error(status: StatusCode, said: Option<String>, peer: &Peer) -> DeliveryError {
    let message = format!("{peer} answered {status}");
    let error = match status.as_u16() {
        300..=399 => DeliveryError::server("08P01", message)
            .hint("Set the server's option url to the final address. Redirects are not followed."),
        401 => DeliveryError::server("28P01", message)
            .hint("Check the credentials in the user mapping of the flow's owner."),
        407 => DeliveryError::server("28000", message)
            .hint("Set the server's option url to the webhook itself. Proxies are not supported."),
        403 => DeliveryError::target("42501", message).hint(
            "Allow the user of these credentials to post. If signatures are checked, check \
             hmac_secret and the clocks.",
        ),
        404 | 410 => DeliveryError::target("HV00R", message).hint(
            "Check the path in the server's option url, and that the webhook knows this flow and \
             target.",
        ),
        408 => DeliveryError::server("08006", message)
            .hint("Lower batch_size: the webhook receives requests too slowly."),
        429 => DeliveryError::server("53400", message)
            .hint("Wait: the webhook limits the rate of requests."),
        425 | 502..=504 => DeliveryError::server("57P03", message),
        507 => DeliveryError::server("53100", message),
        500..=599 => DeliveryError::server("HV000", message).hint(
            "Check the log of the webhook. It should answer 422 for a row that it rejects, so that \
             other rows are delivered.",
        ),
        _ => DeliveryError::server("08P01", message).hint(
            "Check the server's options url and headers. The webhook must accept a POST of \
             application/json.",
        ),
    };
    match said {
        Some(said) => error.detail(format!("The server says: {said}")),
        None => error,
    }
}

/// Adds the wait that the server asks for, if any.
fn with_retry_after(
    error: DeliveryError,
    status: StatusCode,
    headers: &HeaderMap,
) -> DeliveryError {
    match retry_after::requested_wait(status, headers) {
        Some(after) => error.retry_after(after),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use coco_core::change::ErrorScope;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Answer, DeliveryError> {
        let url = reqwest::Url::parse("http://hook:81/path").expect("a URL");
        let peer = Peer::new(&url, &["s3cret".to_owned()]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: reqwest::header::HeaderName = name.parse().expect("a name");
            map.insert(name, value.parse().expect("a value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        read(status, &map, body.as_bytes(), 3, &peer)
    }

    fn rejected(body: &str) -> Vec<(usize, String)> {
        match answer(200, &[], body) {
            Ok(Answer::Delivered(rejected)) => {
                rejected.into_iter().map(|(place, why)| (place, why.message)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_2xx_can_refuse_rows() {
        let body = r#"{"refused":[{"change":2,"message":"no s3cret"},{"change":0}]}"#;
        let expected = [
            (0, "http://hook:81 rejects it without a reason".to_owned()),
            (2, "no ***".to_owned()),
        ];
        assert_eq!(rejected(body), expected);
    }

    #[test]
    fn what_a_2xx_says_otherwise_is_ignored() {
        for body in [
            "",
            "ok",
            "[1]",
            "{\"refused\": 1}",
            "{\"refused\": [1, null, {}]}",
            "{\"refused\": [{\"change\": 3}, {\"change\": -1}, {\"change\": 1.5}, {\"change\": \"1\"}]}",
            "{\"refused\": [{\"change\": 1}",
        ] {
            assert_eq!(rejected(body), [], "{body}");
        }
    }

    #[test]
    fn some_statuses_are_the_rows() {
        for (status, sqlstate) in
            [(400, "22000"), (409, "23000"), (413, "54000"), (418, "22000"), (422, "22000")]
        {
            match answer(status, &[], r#"{"error":"not s3cret"}"#) {
                Ok(Answer::Rejected(why)) => {
                    assert_eq!(why.sqlstate, sqlstate);
                    assert!(why.message.contains(&status.to_string()), "{}", why.message);
                    assert!(why.message.ends_with(": not ***"), "{}", why.message);
                }
                other => panic!("{status}: {other:?}"),
            }
        }
    }

    #[test]
    fn others_are_the_servers_or_the_targets() {
        for (status, scope, sqlstate) in [
            (100, ErrorScope::Server, "08P01"),
            (302, ErrorScope::Server, "08P01"),
            (401, ErrorScope::Server, "28P01"),
            (403, ErrorScope::Target, "42501"),
            (404, ErrorScope::Target, "HV00R"),
            (405, ErrorScope::Server, "08P01"),
            (407, ErrorScope::Server, "28000"),
            (408, ErrorScope::Server, "08006"),
            (410, ErrorScope::Target, "HV00R"),
            (415, ErrorScope::Server, "08P01"),
            (425, ErrorScope::Server, "57P03"),
            (429, ErrorScope::Server, "53400"),
            (500, ErrorScope::Server, "HV000"),
            (503, ErrorScope::Server, "57P03"),
            (507, ErrorScope::Server, "53100"),
            (600, ErrorScope::Server, "08P01"),
        ] {
            let error = answer(status, &[], r#"{"detail":"x"}"#).expect_err("an error");
            assert_eq!((error.scope, error.sqlstate.as_str()), (scope, sqlstate), "{status}");
            assert!(error.message.contains(&status.to_string()), "{}", error.message);
            assert!(!error.message.contains("path"), "{}", error.message);
            assert_eq!(error.detail.as_deref(), Some("The server says: x"));
        }
    }

    #[test]
    fn a_redirect_does_not_say_where_to() {
        let location = [("location", "http://elsewhere/?token=1"), ("retry-after", "5")];
        let error = answer(307, &location, "").expect_err("an error");
        assert!(!format!("{error:?}").contains("elsewhere"), "{error:?}");
        assert_eq!(error.retry_after, None);
    }

    #[test]
    fn the_server_says_when() {
        let error = answer(429, &[("retry-after", "9")], "").expect_err("an error");
        assert_eq!(error.retry_after, Some(Duration::from_secs(9)));
    }
}
