//! Classifies errors: of a row, of the server, or of the collection.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};

use coco_core::change::{DeliveryError, RejectedChange};

/// A header that marks a [`Code::ResourceExhausted`] as a full disk, not a rate limit.
const DISK_FULL: &str = "qdrant-insufficient-storage";
const RETRY_AFTER: &str = "retry-after";

/// The reason why a row cannot become a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    pub sqlstate: &'static str,
    pub message: String,
}

impl RowError {
    /// Creates an error with an SQLSTATE of PostgreSQL.
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> RowError {
        RowError { sqlstate, message: message.into() }
    }

    /// Prepends the name of the column to the message.
    pub fn in_column(mut self, column: &str) -> RowError {
        self.message = format!("column \"{column}\": {}", self.message);
        self
    }

    /// Converts the error into a rejected change with this index.
    pub fn into_rejected(self, change: usize) -> RejectedChange {
        RejectedChange { change, sqlstate: self.sqlstate.to_owned(), message: self.message }
    }
}

/// Reports whether the server rejects the content of a request. Some rows alone may cause that,
/// also by exceeding a limit of the collection in number or size.
pub fn is_row_error(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::OutOfRange)
}

/// Returns the error of the only row of a request.
pub fn row_error(status: &Status) -> RowError {
    RowError::new("22023", format!("Qdrant rejected the point: {}", status.message()))
}

/// Returns the error of a failed request. It contains the server's text as received;
/// `targets::guard` removes the key.
pub fn of_status(status: &Status) -> DeliveryError {
    let said = status.message();
    let delivery_error = match status.code() {
        // An error with a source comes from the connection, not from the server. Its code and text
        // depend on how far the connection got.
        code if status.source().is_some() => {
            let (sqlstate, what) = match code {
                Code::Unavailable => ("08001", "could not connect to Qdrant"),
                _ => ("08006", "lost connection to Qdrant"),
            };
            DeliveryError::server(sqlstate, format!("{what}: {said}")).hint(
                "Set the server's option url to Qdrant's gRPC port, by default 6334. The url must \
                 start with https:// if Qdrant uses TLS.",
            )
        }
        Code::Unauthenticated | Code::PermissionDenied => {
            DeliveryError::server("28000", format!("Qdrant rejected the login: {said}")).hint(
                "Set an API key with write access: ALTER USER MAPPING … OPTIONS (SET api_key \
                 '…').",
            )
        }
        Code::Unavailable => {
            DeliveryError::server("57P03", format!("Qdrant is not available: {said}"))
        }
        Code::DeadlineExceeded | Code::Cancelled => {
            DeliveryError::server("57014", format!("Qdrant did not answer in time: {said}")).hint(
                "Raise the server's option request_timeout (seconds) if Qdrant needs more time.",
            )
        }
        Code::ResourceExhausted if status.metadata().contains_key(DISK_FULL) => {
            DeliveryError::server("53100", format!("Qdrant has no disk space left: {said}"))
        }
        Code::ResourceExhausted => {
            DeliveryError::server("53400", format!("Qdrant has reached a limit: {said}"))
        }
        Code::FailedPrecondition => {
            DeliveryError::server("55000", format!("Qdrant is not in the required state: {said}"))
        }
        Code::NotFound => {
            DeliveryError::target("HV00R", format!("Qdrant did not find the collection: {said}"))
        }
        Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists => {
            DeliveryError::target("22023", format!("Qdrant rejected the request: {said}"))
        }
        _ => DeliveryError::server("HV000", format!("error of Qdrant: {said}")).hint(
            "Check Qdrant's log. If the log does not contain the request, set the server's option \
             url to Qdrant's gRPC port, by default 6334, not 6333.",
        ),
    };
    let delivery_error = match innermost(status) {
        Some(cause) if cause != said => delivery_error.detail(cause),
        _ => delivery_error,
    };
    match retry_after(status) {
        Some(after) => delivery_error.retry_after(after),
        None => delivery_error,
    }
}

/// Returns the innermost cause of a connection error, such as "Connection refused".
fn innermost(status: &Status) -> Option<String> {
    let mut inner: Option<&(dyn Error + 'static)> = status.source();
    while let Some(deeper) = inner.and_then(Error::source) {
        inner = Some(deeper);
    }
    inner.map(ToString::to_string)
}

fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.metadata().get(RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;
    use coco_core::change::ErrorScope;

    #[test]
    fn each_code_is_somebodys() {
        use ErrorScope::{Server, Target};
        for (code, scope, sqlstate) in [
            (Code::Unauthenticated, Server, "28000"),
            (Code::PermissionDenied, Server, "28000"),
            (Code::Unavailable, Server, "57P03"),
            (Code::DeadlineExceeded, Server, "57014"),
            (Code::Cancelled, Server, "57014"),
            (Code::ResourceExhausted, Server, "53400"),
            (Code::FailedPrecondition, Server, "55000"),
            (Code::Internal, Server, "HV000"),
            (Code::Unimplemented, Server, "HV000"),
            (Code::NotFound, Target, "HV00R"),
            (Code::InvalidArgument, Target, "22023"),
        ] {
            let delivery_error = of_status(&Status::new(code, "because"));
            assert_eq!(
                (delivery_error.scope, delivery_error.sqlstate.as_str()),
                (scope, sqlstate),
                "{code:?}"
            );
            assert!(delivery_error.message.contains("because"));
        }
    }

    #[test]
    fn a_limit_says_when_to_come_again_and_a_full_disk_is_none() {
        let with = |name: &'static str, value: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(name, value.parse().expect("a value"));
            of_status(&Status::with_metadata(Code::ResourceExhausted, "no", metadata))
        };
        assert_eq!(with(RETRY_AFTER, "7").retry_after, Some(Duration::from_secs(7)));
        assert_eq!(with(RETRY_AFTER, "soon").retry_after, None);
        assert_eq!(with(DISK_FULL, "1").sqlstate, "53100");
    }
}
