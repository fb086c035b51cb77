//! The errors that coco raises: SQLSTATE, message, detail and hint.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::{PgLogLevel, PgSqlErrorCode};
use pgrx::spi::SpiError;

pub type Result<T> = std::result::Result<T, Error>;

/// An error with the four parts that PostgreSQL shows. Errors that PostgreSQL raises within a
/// statement of coco's are not converted: they pass through with all their fields.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: PgSqlErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Error {
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), detail: None, hint: None }
    }

    /// Returns an error for an argument that cannot be accepted (22023).
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
    }

    /// Returns an error for a broken assumption of coco's own (XX000): a bug, or a catalog that was
    /// edited by hand.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Error {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Raises the error in a function that PostgreSQL calls and that cannot return it.
    pub fn raise(self) -> ! {
        ErrorReport::from(self).report(PgLogLevel::ERROR);
        unreachable!("an error was reported and did not end its statement")
    }
}

impl From<SpiError> for Error {
    fn from(e: SpiError) -> Error {
        Error::internal(format!("statement on coco's catalog failed: {e}"))
    }
}

impl From<Error> for ErrorReport {
    fn from(e: Error) -> ErrorReport {
        let mut report = ErrorReport::new(e.code, e.message, "coco");
        if let Some(detail) = e.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = e.hint {
            report = report.set_hint(hint);
        }
        report
    }
}
