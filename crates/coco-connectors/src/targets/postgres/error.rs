//! Classifies errors: of a row, of the server, or of the target.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

use super::wire::Excess;
use coco_core::change::{DeliveryError, RejectedChange};

/// The error of a statement.
pub enum StatementError {
    Row(RowError),
    /// Concurrent transactions caused the error. A retry may succeed.
    Retry(DeliveryError),
    Fatal(DeliveryError),
}

/// An error of one of the rows that a statement writes.
pub struct RowError {
    sqlstate: String,
    message: String,
}

impl RowError {
    /// Converts the error into a rejected change with this index.
    pub fn of(self, change: usize) -> RejectedChange {
        RejectedChange { change, sqlstate: self.sqlstate, message: self.message }
    }
}

impl StatementError {
    /// Converts the error of a statement that writes no rows.
    pub fn into_delivery_error(self) -> DeliveryError {
        match self {
            StatementError::Row(row) => DeliveryError::target(&row.sqlstate, row.message),
            StatementError::Retry(delivery_error) | StatementError::Fatal(delivery_error) => {
                delivery_error
            }
        }
    }

    pub fn is(&self, code: &str) -> bool {
        match self {
            StatementError::Row(row) => row.sqlstate == code,
            StatementError::Retry(delivery_error) | StatementError::Fatal(delivery_error) => {
                delivery_error.sqlstate == code
            }
        }
    }
}

impl From<Error> for StatementError {
    fn from(error: Error) -> StatementError {
        match error.as_db_error() {
            Some(error) => of_server(error),
            None if is_lost(&error) => StatementError::Fatal(
                DeliveryError::server("08006", format!("lost connection to server: {}", chain(&error))).detail(
                    "It is unknown whether the last transaction was committed. coco applies its changes again.",
                ),
            ),
            None => StatementError::Fatal(DeliveryError::server("08P01", chain(&error))),
        }
    }
}

fn is_lost(error: &Error) -> bool {
    error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>())
}

/// The object that an SQLSTATE concerns.
enum ErrorClass {
    Row,
    Retry,
    Server,
    Target,
}

fn classify(sqlstate: &str) -> ErrorClass {
    match sqlstate {
        // Canceled, usually by statement_timeout. The usual reason is a lock on this table, so
        // other targets need not wait.
        "57014" => ErrorClass::Target,
        // Read-only: a standby, or a server during a switchover.
        "25006" => ErrorClass::Server,
        // The receive function of a type raises this code or 22P03 for invalid bytes.
        "08P01" => ErrorClass::Row,
        // RAISE EXCEPTION and similar statements, in a trigger on the server.
        code if code.starts_with("P0") => ErrorClass::Row,
        code => match code.get(..2) {
            // A value, a constraint, a view's check option, or a key that is too long for its
            // index.
            Some("22" | "23" | "44" | "54") => ErrorClass::Row,
            Some("40") => ErrorClass::Retry,
            Some("08" | "28" | "3D" | "53" | "57" | "58") => ErrorClass::Server,
            _ => ErrorClass::Target,
        },
    }
}

fn of_server(error: &DbError) -> StatementError {
    let sqlstate = error.code().code();
    let message = error.message();
    match classify(sqlstate) {
        ErrorClass::Row => {
            let message = match error.detail() {
                Some(detail) => format!("{message} ({detail})"),
                None => message.to_owned(),
            };
            StatementError::Row(RowError { sqlstate: sqlstate.to_owned(), message })
        }
        ErrorClass::Retry => {
            StatementError::Retry(described(DeliveryError::target(sqlstate, message), error))
        }
        ErrorClass::Server => {
            StatementError::Fatal(described(DeliveryError::server(sqlstate, message), error))
        }
        ErrorClass::Target => {
            StatementError::Fatal(described(DeliveryError::target(sqlstate, message), error))
        }
    }
}

fn described(mut delivery_error: DeliveryError, error: &DbError) -> DeliveryError {
    delivery_error.detail = error.detail().map(str::to_owned);
    delivery_error.hint =
        error.hint().or_else(|| hint(&delivery_error.sqlstate)).map(str::to_owned);
    delivery_error
}

fn hint(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "28P01" | "28000" => {
            "Check user and password of the user mapping, and pg_hba.conf on the server."
        }
        "3D000" => "Check the server's option dbname.",
        "3F000" => "Create the schema on the server, or name another one in the target.",
        "25006" => "Set the server's option host to the primary: a standby accepts no writes.",
        "42501" => "GRANT the missing privileges to the role in the user mapping.",
        "42P10" => "Create a unique index on exactly the target's key columns.",
        "53300" => "Raise max_connections on the server, or let fewer flows write to it.",
        "57014" | "55P03" => {
            "Check pg_locks on the server for a lock on the table, or raise the server's option \
             statement_timeout."
        }
        "57P03" => "Wait until the server has started.",
        _ => return None,
    })
}

/// Returns the error of a failed connection attempt. It concerns all targets of the server.
pub fn connect_error(error: &Error) -> DeliveryError {
    match error.as_db_error() {
        Some(said) => described(DeliveryError::server(said.code().code(), said.message()), said),
        None => {
            DeliveryError::server("08001", format!("could not connect to server: {}", chain(error)))
                .hint(
                    "Check the server's options host, port and sslmode, and that the server is \
                     running.",
                )
        }
    }
}

/// Returns the error of an unreachable server.
pub fn unreachable(error: &io::Error) -> DeliveryError {
    DeliveryError::server("08001", format!("could not connect to server: {error}"))
        .hint("Check the server's options host and port, and that the server is running.")
}

/// Returns the error of a server that sends more than the limits allow.
pub fn excess(excess: Excess) -> DeliveryError {
    DeliveryError::server("08P01", excess.to_string()).hint(
        "Check the server's options host and port: the server at this address does not follow \
         PostgreSQL's protocol.",
    )
}

/// Returns an error with its causes. None of them contains data that was sent.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_are_told_apart() {
        let kind = |sqlstate: &str| match classify(sqlstate) {
            ErrorClass::Row => "row",
            ErrorClass::Retry => "again",
            ErrorClass::Server => "server",
            ErrorClass::Target => "target",
        };
        for (expected, states) in [
            ("row", &["08P01", "22001", "22P02", "23505", "23514", "44000", "54000", "P0001"][..]),
            ("again", &["40001", "40P01"]),
            ("server", &["08006", "25006", "28P01", "3D000", "53100", "57P01", "58030"]),
            ("target", &["21000", "42P01", "42501", "57014", "55P03", "XX000", "0A000", ""]),
        ] {
            for state in states {
                assert_eq!(kind(state), expected, "{state}");
            }
        }
    }
}
