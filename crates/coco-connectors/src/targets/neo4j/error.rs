//! Classifies errors by Neo4j's codes: of a row, transient, of the target, or of the server.

use std::time::Duration;

use super::bolt::BoltError;
use coco_core::change::DeliveryError;

/// The classified error of a transaction.
#[derive(Debug, PartialEq)]
pub enum Failure {
    /// One of the rows causes the error.
    Row {
        sqlstate: &'static str,
        message: String,
    },
    /// A retry may succeed. The error to report if it never does.
    Transient(DeliveryError),
    Fatal(DeliveryError),
}

/// Time for which Neo4j locks a user out after too many failed logins.
const LOCKED_OUT: Duration = Duration::from_secs(5);

/// Returns the error for a timeout, with the option that sets it.
pub fn no_answer(what: &str, after: Duration, option: &str) -> DeliveryError {
    let sqlstate = if option == "connect_timeout" { "08001" } else { "08006" };
    DeliveryError::server(sqlstate, format!("{what} within {} s", after.as_secs()))
        .hint(format!("Raise the server's option \"{option}\" if the server is slow."))
}

/// Classifies an error of the connection.
pub fn classify(fault: BoltError) -> Failure {
    match fault {
        BoltError::Failure { code, message } => classify_code(&code, &message),
        BoltError::Lost(error) => Failure::Fatal(connection(&error)),
        BoltError::Version(version) => Failure::Fatal(
            DeliveryError::server(
                "08P01",
                format!("the server supports no known version of Bolt: {version:?}"),
            )
            .hint("Set the server's option url to the Bolt port (7687) of Neo4j 4.4 or newer."),
        ),
        BoltError::Protocol(what) => {
            Failure::Fatal(DeliveryError::server("08P01", format!("the server {what}")))
        }
    }
}

fn classify_code(code: &str, message: &str) -> Failure {
    let server = |sqlstate: &str| DeliveryError::server(sqlstate, message).detail(code);
    let target = |sqlstate: &str| DeliveryError::target(sqlstate, message).detail(code);
    let row =
        |sqlstate: &'static str| Failure::Row { sqlstate, message: format!("{message} ({code})") };
    let Some(rest) = code.strip_prefix("Neo.") else {
        return Failure::Fatal(server("08P01"));
    };
    // Neo4j 4 reports a transaction that was terminated on request as transient.
    let rest = match rest {
        "TransientError.Transaction.Terminated" => "ClientError.Transaction.Terminated",
        "TransientError.Transaction.LockClientStopped" => {
            "ClientError.Transaction.LockClientStopped"
        }
        rest => rest,
    };
    Failure::Fatal(match rest {
        "ClientError.Schema.ConstraintValidationFailed" => return row("23505"),
        "ClientError.Statement.TypeError"
        | "ClientError.Statement.ArgumentError"
        | "ClientError.Statement.SemanticError"
        | "ClientError.Statement.ArithmeticError" => return row("22000"),
        // The code only says that the database failed; the message says why.
        "DatabaseError.Statement.ExecutionFailed" if message.contains("too large to index") => {
            return row("54000");
        }
        "ClientError.Security.AuthenticationRateLimit" => locked_out(message).detail(code),
        "ClientError.Security.CredentialsExpired" => login(message).detail(code).hint(
            "Set a new password for the Neo4j user, and the same password in the user mapping.",
        ),
        "ClientError.Security.Unauthorized" => login(message).detail(code),
        "ClientError.Security.Forbidden" | "ClientError.Statement.AccessMode" => target("42501")
            .hint(
                "Grant the Neo4j user the privileges to match, to write and to create \
                 constraints.",
            ),
        rest if rest.starts_with("ClientError.Security.") => server("28000"),
        "ClientError.Database.DatabaseNotFound" => {
            target("3D000").hint("Set the server's option \"database\" to an existing database.")
        }
        "ClientError.Schema.ConstraintAlreadyExists" => target("42710"),
        "ClientError.Schema.IndexAlreadyExists" => target("42P07")
            .hint("Drop that index: the target needs a constraint, which creates its own index."),
        "DatabaseError.Schema.ConstraintCreationFailed" => target("23505").hint(
            "Remove the duplicate nodes, or use another target name: the target's key must be \
             unique.",
        ),
        "ClientError.Statement.SyntaxError" => target("0A000")
            .hint("Use Neo4j 4.4 or newer for nodes, and 5.7 or newer for relationships."),
        "ClientError.Cluster.NotALeader" | "ClientError.General.ForbiddenOnReadOnlyDatabase" => {
            server("25006").hint("Set the server's option url to the server that accepts writes.")
        }
        // Ended on the server, by an administrator or because of its duration.
        rest if rest.starts_with("ClientError.Transaction.") => server("57014"),
        "TransientError.Transaction.DeadlockDetected" => {
            return Failure::Transient(server("40P01"));
        }
        "TransientError.General.OutOfMemoryError"
        | "TransientError.General.MemoryPoolOutOfMemoryError"
        | "TransientError.General.TransactionOutOfMemoryError" => {
            return Failure::Transient(server("53200"));
        }
        rest if rest.starts_with("TransientError.") => return Failure::Transient(server("57P03")),
        _ => server("XX000"),
    })
}

/// Reports whether the database does not exist.
pub fn is_no_database(error: &DeliveryError) -> bool {
    error.sqlstate == "3D000"
}

/// Reports whether a constraint on the key already exists.
pub fn is_constrained(error: &DeliveryError) -> bool {
    error.sqlstate == "42710"
}

fn login(message: &str) -> DeliveryError {
    DeliveryError::server("28P01", message)
        .hint("Check \"user\" and \"password\" of the user mapping.")
}

fn locked_out(message: &str) -> DeliveryError {
    DeliveryError::server("28000", message)
        .hint(
            "Check \"user\" and \"password\" of the user mapping. Neo4j blocks logins for a while \
             after failed ones.",
        )
        .retry_after(LOCKED_OUT)
}

fn connection(error: &std::io::Error) -> DeliveryError {
    let delivery_error = DeliveryError::server("08006", format!("the connection failed: {error}"));
    match error.kind() {
        // The error of a failed TLS handshake.
        std::io::ErrorKind::InvalidData => delivery_error.hint(
            "Set \"sslrootcert\" if the server's certificate is not signed by an authority that \
             this system trusts.",
        ),
        _ => delivery_error
            .hint("Check that the server is running, and that the url contains its Bolt port."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coco_core::change::ErrorScope;

    #[test]
    fn a_login_that_fails_is_the_servers() {
        let failed = |code: &str| {
            let code = format!("Neo.ClientError.Security.{code}");
            classify(BoltError::Failure { code, message: "why".to_owned() })
        };
        let Failure::Fatal(t) = failed("Unauthorized") else { panic!("no error") };
        assert_eq!(
            (t.scope, t.sqlstate.as_str(), t.retry_after),
            (ErrorScope::Server, "28P01", None)
        );
        let Failure::Fatal(t) = failed("AuthenticationRateLimit") else { panic!("no error") };
        assert_eq!((t.sqlstate.as_str(), t.retry_after), ("28000", Some(LOCKED_OUT)));
    }

    #[test]
    fn codes_say_whose_an_error_is() {
        for (code, sqlstate) in [
            ("Neo.ClientError.Schema.ConstraintValidationFailed", "23505"),
            ("Neo.ClientError.Statement.TypeError", "22000"),
            ("Neo.ClientError.Statement.ArgumentError", "22000"),
        ] {
            let Failure::Row { sqlstate: s, message } = classify_code(code, "why") else {
                panic!("{code} is a row's")
            };
            assert_eq!(s, sqlstate);
            assert!(message.contains("why") && message.contains(code));
        }
        for (code, sqlstate) in [
            ("Neo.TransientError.Transaction.DeadlockDetected", "40P01"),
            ("Neo.TransientError.General.MemoryPoolOutOfMemoryError", "53200"),
            ("Neo.TransientError.General.DatabaseUnavailable", "57P03"),
        ] {
            let Failure::Transient(t) = classify_code(code, "why") else { panic!("{code} passes") };
            assert_eq!((t.scope, t.sqlstate.as_str()), (ErrorScope::Server, sqlstate));
        }
        for (code, scope, sqlstate) in [
            ("Neo.ClientError.Security.Unauthorized", ErrorScope::Server, "28P01"),
            ("Neo.ClientError.Security.TokenExpired", ErrorScope::Server, "28000"),
            ("Neo.ClientError.Security.Forbidden", ErrorScope::Target, "42501"),
            ("Neo.ClientError.Database.DatabaseNotFound", ErrorScope::Target, "3D000"),
            ("Neo.ClientError.Schema.ConstraintAlreadyExists", ErrorScope::Target, "42710"),
            ("Neo.ClientError.Cluster.NotALeader", ErrorScope::Server, "25006"),
            ("Neo.ClientError.Transaction.TransactionTimedOut", ErrorScope::Server, "57014"),
            ("Neo.DatabaseError.Statement.ExecutionFailed", ErrorScope::Server, "XX000"),
            ("Neo.ClientError.Statement.SyntaxError", ErrorScope::Target, "0A000"),
            ("", ErrorScope::Server, "08P01"),
        ] {
            let Failure::Fatal(t) = classify_code(code, "why") else {
                panic!("{code} is no row's")
            };
            assert_eq!(
                (t.scope, t.sqlstate.as_str(), t.message.as_str()),
                (scope, sqlstate, "why")
            );
        }
    }

    #[test]
    fn a_connection_that_ends_is_the_servers() {
        let gone = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let Failure::Fatal(t) = classify(BoltError::Lost(gone)) else { panic!("no error") };
        assert_eq!((t.scope, t.sqlstate.as_str()), (ErrorScope::Server, "08006"));
    }
}
