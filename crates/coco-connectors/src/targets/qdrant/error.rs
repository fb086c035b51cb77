//! Whose fault an error is: a row's, the server's, or the collection's.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};

use coco_core::delivery::{Refused, Trouble};

/// Marks a [`Code::ResourceExhausted`] that is about the disk, not the rate of requests.
const DISK_FULL: &str = "qdrant-insufficient-storage";
const RETRY_AFTER: &str = "retry-after";

/// Why a row cannot be a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    pub sqlstate: &'static str,
    pub message: String,
}

impl RowError {
    /// An error with a code of Postgres' table.
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> RowError {
        RowError { sqlstate, message: message.into() }
    }

    /// The same, with the column said before.
    pub fn in_column(mut self, column: &str) -> RowError {
        self.message = format!("column \"{column}\": {}", self.message);
        self
    }

    /// The same, of the change at a place in what was to be applied.
    pub fn refuses(self, change: usize) -> Refused {
        Refused { change, sqlstate: self.sqlstate.to_owned(), message: self.message }
    }
}

/// Whether the server refuses what is in a request, which some of its rows alone may be to blame
/// for: also that they are too many for a limit of the collection's, or too large together.
pub fn is_of_rows(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::OutOfRange)
}

/// What the server has against the one row of a request.
pub fn row(status: &Status) -> RowError {
    RowError::new("22023", format!("Qdrant refuses the point: {}", status.message()))
}

/// What keeps a request from being carried out. The message is the server's, as it was sent:
/// `targets::guard` takes the key out of it.
pub fn trouble(status: &Status) -> Trouble {
    let said = status.message();
    let trouble = match status.code() {
        // What comes from something else, the server has not said: it is of the connection. Code
        // and words depend on how far it got.
        code if status.source().is_some() => {
            let (sqlstate, what) = match code {
                Code::Unavailable => ("08001", "Qdrant cannot be reached"),
                _ => ("08006", "the connection to Qdrant is broken"),
            };
            Trouble::server(sqlstate, format!("{what}: {said}")).hint(
                "The server's url must be where Qdrant listens for gRPC, by default port 6334, and \
                 start with https:// if it has TLS.",
            )
        }
        Code::Unauthenticated | Code::PermissionDenied => {
            Trouble::server("28000", format!("Qdrant does not let us in: {said}")).hint(
                "The user mapping's api_key must be one that may write. ALTER USER MAPPING … \
                 OPTIONS (SET api_key '…')",
            )
        }
        Code::Unavailable => Trouble::server("57P03", format!("Qdrant is not available: {said}")),
        Code::DeadlineExceeded | Code::Cancelled => {
            Trouble::server("57014", format!("Qdrant did not answer in time: {said}"))
                .hint("Where it needs longer, raise the server's request_timeout (seconds).")
        }
        Code::ResourceExhausted if status.metadata().contains_key(DISK_FULL) => {
            Trouble::server("53100", format!("Qdrant has no room left: {said}"))
        }
        Code::ResourceExhausted => {
            Trouble::server("53400", format!("Qdrant is at a limit: {said}"))
        }
        Code::FailedPrecondition => {
            Trouble::server("55000", format!("Qdrant is not in a state to do it: {said}"))
        }
        Code::NotFound => {
            Trouble::target("HV00R", format!("Qdrant does not find the collection: {said}"))
        }
        Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists => {
            Trouble::target("22023", format!("Qdrant refuses the request: {said}"))
        }
        _ => Trouble::server("HV000", format!("error of Qdrant: {said}")).hint(
            "Qdrant's log may say more. If it has no such request: the server's url must be where \
             Qdrant listens for gRPC, by default port 6334, not 6333.",
        ),
    };
    let trouble = match innermost(status) {
        Some(cause) if cause != said => trouble.detail(cause),
        _ => trouble,
    };
    match retry_after(status) {
        Some(after) => trouble.retry_after(after),
        None => trouble,
    }
}

/// What an error of the connection comes from, such as "Connection refused".
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
    use coco_core::delivery::Whose;

    #[test]
    fn each_code_is_somebodys() {
        use Whose::{Server, Target};
        for (code, whose, sqlstate) in [
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
            let trouble = trouble(&Status::new(code, "because"));
            assert_eq!((trouble.whose, trouble.sqlstate.as_str()), (whose, sqlstate), "{code:?}");
            assert!(trouble.message.contains("because"));
        }
    }

    #[test]
    fn a_limit_says_when_to_come_again_and_a_full_disk_is_none() {
        let with = |name: &'static str, value: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(name, value.parse().expect("a value"));
            trouble(&Status::with_metadata(Code::ResourceExhausted, "no", metadata))
        };
        assert_eq!(with(RETRY_AFTER, "7").retry_after, Some(Duration::from_secs(7)));
        assert_eq!(with(RETRY_AFTER, "soon").retry_after, None);
        assert_eq!(with(DISK_FULL, "1").sqlstate, "53100");
    }
}
