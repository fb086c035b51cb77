//! Classifies error responses: as errors of the inputs, the model or the server.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::net::peer::Peer;
use crate::net::retry_after;
use coco_core::change::DeliveryError;
use coco_core::provider::{RejectedInput, Task};

/// The reason why a request has no result.
#[derive(Debug, PartialEq)]
pub enum Failure {
    /// One or several of the inputs cause the error.
    Inputs(RejectedInput),
    /// A retry may succeed.
    Retry(DeliveryError),
    /// A retry may succeed, and the server asks for fewer requests.
    SlowDown(DeliveryError),
    /// Neither this request nor others will succeed.
    Fatal(DeliveryError),
}

/// Classifies a response with an error status.
pub fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    task: &Task,
    server: &str,
    peer: &Peer,
) -> Failure {
    let said = ErrorBody::read(body);
    let message = format!("{peer} answered {status}");
    let detail = |error: DeliveryError| match &said.message {
        Some(text) => error.detail(format!("The server says: {}", peer.quote(text))),
        None => error,
    };
    let wait = |error: DeliveryError| match retry_after::requested_wait(status, headers) {
        Some(after) => error.retry_after(after),
        None => error,
    };
    let at_once = |error: DeliveryError| Failure::Fatal(detail(error));
    let of_a_service = matches!(task, Task::Post { .. });
    match status.as_u16() {
        // The request itself is invalid, whatever its inputs are.
        400 | 422 if !of_a_service && said.concerns_all_inputs() => at_once(
            DeliveryError::target("22023", message)
                .hint("Check the dimensions, the schema and the parameters of the request."),
        ),
        400 | 409 | 413 | 422 => {
            let sqlstate = match status {
                StatusCode::CONFLICT => "23000",
                StatusCode::PAYLOAD_TOO_LARGE => "54000",
                _ => "22000",
            };
            let message = match &said.message {
                Some(text) => format!("{message}: {}", peer.quote(text)),
                None => message,
            };
            Failure::Inputs(RejectedInput { sqlstate: sqlstate.to_owned(), message })
        }
        401 => at_once(DeliveryError::server("28P01", message).hint(credentials(task, server))),
        403 => at_once(DeliveryError::server("42501", message).hint(credentials(task, server))),
        404 | 410 => at_once(not_found(task, message)),
        408 | 425 => Failure::Retry(wait(detail(DeliveryError::server("08006", message)))),
        // A retry does not help.
        429 if said.code.as_deref() == Some("insufficient_quota") => at_once(
            DeliveryError::server("53400", message)
                .hint("Add credit to the account at the provider."),
        ),
        429 => {
            let error = DeliveryError::server("53400", message)
                .hint("Lower the server's options concurrency and requests_per_minute.");
            Failure::SlowDown(wait(detail(error)))
        }
        502..=504 | 529 => Failure::Retry(wait(detail(DeliveryError::server("57P03", message)))),
        500..=599 => Failure::Retry(wait(detail(DeliveryError::server("HV000", message)))),
        300..=399 => {
            at_once(DeliveryError::server("08P01", message).hint(
                "Set the server's option url to the final address. Redirects are not followed.",
            ))
        }
        _ => {
            at_once(DeliveryError::server("08P01", message).hint("Check the server's option url."))
        }
    }
}

fn credentials(task: &Task, server: &str) -> String {
    let name = server.replace('"', "\"\"");
    match task {
        Task::Post { .. } => {
            "Check the credentials in the user mapping, and the clocks if signatures are checked."
                .to_owned()
        }
        _ => format!(
            "Check the API key. Set it with CREATE USER MAPPING FOR … SERVER \"{name}\" OPTIONS \
             (api_key '…'), or change it with ALTER USER MAPPING … OPTIONS (SET api_key '…')."
        ),
    }
}

fn not_found(task: &Task, message: String) -> DeliveryError {
    match task {
        Task::Embed { model, .. } | Task::Generate { model, .. } => {
            let message = format!("{message} to a request for the model \"{model}\"");
            DeliveryError::target("HV00R", message).hint(
                "Check the name of the model, and the server's option url: it usually ends with \
                 /v1.",
            )
        }
        Task::Post { .. } => {
            DeliveryError::target("HV00R", message).hint("Check the path of the URL.")
        }
    }
}

/// The body of an error response: `{"error": {"message": …, "param": …, "code": …}}`, or a variant
/// of it.
struct ErrorBody {
    message: Option<String>,
    param: Option<String>,
    code: Option<String>,
}

impl ErrorBody {
    fn read(body: &[u8]) -> ErrorBody {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let error = body.get("error").filter(|error| error.is_object()).unwrap_or(&body);
        let text = |names: &[&str]| {
            names.iter().find_map(|name| error.get(*name)?.as_str()).map(str::to_owned)
        };
        ErrorBody {
            message: text(&["message", "error", "detail"]),
            param: text(&["param"]),
            code: text(&["code"]).or_else(|| text(&["type"])),
        }
    }

    /// Reports whether the error concerns a parameter that all requests of a job share.
    fn concerns_all_inputs(&self) -> bool {
        const COMMON: [&str; 6] =
            ["model", "dimensions", "encoding_format", "response_format", "temperature", "max_"];
        self.code.as_deref() == Some("model_not_found")
            || self.param.as_ref().is_some_and(|p| COMMON.iter().any(|name| p.starts_with(name)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use coco_core::change::ErrorScope;

    fn failure(status: u16, headers: &[(&'static str, &str)], body: &str) -> Failure {
        let url = reqwest::Url::parse("http://model:81/v1/path").expect("a URL");
        let peer = Peer::new(&url, &["s3cret".to_owned()]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a value"));
        }
        let task = Task::Embed { model: "m".to_owned(), dimensions: None };
        let status = StatusCode::from_u16(status).expect("a status");
        read(status, &map, body.as_bytes(), &task, "my server", &peer)
    }

    #[test]
    fn some_statuses_are_the_inputs() {
        for (status, sqlstate) in [(400, "22000"), (413, "54000"), (422, "22000"), (409, "23000")] {
            match failure(status, &[], r#"{"error":{"message":"not s3cret","param":"input"}}"#) {
                Failure::Inputs(rejection) => {
                    assert_eq!(rejection.sqlstate, sqlstate);
                    assert!(rejection.message.ends_with(": not ***"), "{}", rejection.message);
                }
                other => panic!("{status}: {other:?}"),
            }
        }
    }

    #[test]
    fn others_are_the_requests_the_models_or_the_servers() {
        for (status, body, scope, sqlstate) in [
            (400, r#"{"error":{"message":"x","param":"dimensions"}}"#, ErrorScope::Target, "22023"),
            (
                400,
                r#"{"error":{"message":"x","code":"model_not_found"}}"#,
                ErrorScope::Target,
                "22023",
            ),
            (401, r#"{"error":"x"}"#, ErrorScope::Server, "28P01"),
            (403, r#"{"message":"x"}"#, ErrorScope::Server, "42501"),
            (404, r#"{"error":{"message":"x"}}"#, ErrorScope::Target, "HV00R"),
            (
                429,
                r#"{"error":{"message":"x","code":"insufficient_quota"}}"#,
                ErrorScope::Server,
                "53400",
            ),
            (301, r#"{"detail":"x"}"#, ErrorScope::Server, "08P01"),
            (418, r#"{"detail":"x"}"#, ErrorScope::Server, "08P01"),
        ] {
            let Failure::Fatal(error) = failure(status, &[], body) else {
                panic!("{status}");
            };
            assert_eq!((error.scope, error.sqlstate.as_str()), (scope, sqlstate), "{status}");
            assert_eq!(error.detail.as_deref(), Some("The server says: x"), "{status}");
            assert!(error.hint.is_some() && !error.message.contains("path"), "{status}");
        }
    }

    #[test]
    fn some_are_asked_again() {
        for (status, sqlstate) in [(408, "08006"), (500, "HV000"), (503, "57P03"), (529, "57P03")] {
            match failure(status, &[("retry-after", "7")], "") {
                Failure::Retry(error) => {
                    assert_eq!(error.sqlstate, sqlstate);
                    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
                }
                other => panic!("{status}: {other:?}"),
            }
        }
        match failure(429, &[("retry-after-ms", "250")], "") {
            Failure::SlowDown(error) => {
                assert_eq!(error.retry_after, Some(Duration::from_millis(250)));
            }
            other => panic!("{other:?}"),
        }
    }
}
