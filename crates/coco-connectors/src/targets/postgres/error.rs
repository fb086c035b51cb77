//! Errors told apart: a row's, the server's, the target's.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

use super::wire::Excess;
use coco_core::delivery::{Refused, Trouble};

/// What keeps a statement from being carried out.
pub enum Fault {
    Row(RowFault),
    /// Other transactions at the same time: it may well go through next time.
    Again(Trouble),
    Trouble(Trouble),
}

/// An error of some row among those that a statement writes.
pub struct RowFault {
    sqlstate: String,
    message: String,
}

impl RowFault {
    /// As the error of a change, by its place among those that were to be applied.
    pub fn of(self, change: usize) -> Refused {
        Refused { change, sqlstate: self.sqlstate, message: self.message }
    }
}

impl Fault {
    /// As an error of a statement that has no rows.
    pub fn trouble(self) -> Trouble {
        match self {
            Fault::Row(row) => Trouble::target(&row.sqlstate, row.message),
            Fault::Again(trouble) | Fault::Trouble(trouble) => trouble,
        }
    }

    pub fn is(&self, code: &str) -> bool {
        match self {
            Fault::Row(row) => row.sqlstate == code,
            Fault::Again(trouble) | Fault::Trouble(trouble) => trouble.sqlstate == code,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match error.as_db_error() {
            Some(error) => of_server(error),
            None if is_lost(&error) => Fault::Trouble(
                Trouble::server("08006", format!("lost the connection: {}", chain(&error))).hint(
                    "Whether the last transaction was committed is not known; it is written again.",
                ),
            ),
            None => Fault::Trouble(Trouble::server("08P01", chain(&error))),
        }
    }
}

fn is_lost(error: &Error) -> bool {
    error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>())
}

/// Whom an SQLSTATE blames.
enum Blame {
    Row,
    Again,
    Server,
    Target,
}

fn blame(sqlstate: &str) -> Blame {
    match sqlstate {
        // Cancelled, by statement_timeout most often: a lock on this table is the usual reason, and
        // others need not wait for it.
        "57014" => Blame::Target,
        // Read-only: a standby, or a server that is being moved.
        "25006" => Blame::Server,
        // What reads a type's binary form says this of bytes that are none, as it says 22P03.
        "08P01" => Blame::Row,
        // RAISE EXCEPTION and its kin, in a trigger there.
        code if code.starts_with("P0") => Blame::Row,
        code => match code.get(..2) {
            // A value, a constraint, a view's check option; and a key too long for its index.
            Some("22" | "23" | "44" | "54") => Blame::Row,
            Some("40") => Blame::Again,
            Some("08" | "28" | "3D" | "53" | "57" | "58") => Blame::Server,
            _ => Blame::Target,
        },
    }
}

fn of_server(error: &DbError) -> Fault {
    let sqlstate = error.code().code();
    let message = error.message();
    match blame(sqlstate) {
        Blame::Row => {
            let message = match error.detail() {
                Some(detail) => format!("{message} ({detail})"),
                None => message.to_owned(),
            };
            Fault::Row(RowFault { sqlstate: sqlstate.to_owned(), message })
        }
        Blame::Again => Fault::Again(described(Trouble::target(sqlstate, message), error)),
        Blame::Server => Fault::Trouble(described(Trouble::server(sqlstate, message), error)),
        Blame::Target => Fault::Trouble(described(Trouble::target(sqlstate, message), error)),
    }
}

fn described(mut trouble: Trouble, error: &DbError) -> Trouble {
    trouble.detail = error.detail().map(str::to_owned);
    trouble.hint = error.hint().or_else(|| hint(&trouble.sqlstate)).map(str::to_owned);
    trouble
}

fn hint(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "28P01" | "28000" => {
            "Check user and password of the user mapping, and pg_hba.conf of that server."
        }
        "3D000" => "Check the server's option dbname.",
        "3F000" => "Create the schema there, or name another in the target.",
        "25006" => "Name the primary as the server's host: a standby takes no writes.",
        "42501" => "GRANT what is missing to the role that the user mapping names.",
        "42P10" => "The target needs a unique index on exactly its key columns.",
        "53300" => "Raise max_connections there, or have fewer flows write to it.",
        "57014" | "55P03" => {
            "See pg_locks there for who holds a lock on the table, or raise the server's option statement_timeout."
        }
        "57P03" => "That server is starting or stopping.",
        _ => return None,
    })
}

/// An error of connecting: whatever it is, it keeps all targets of the server from getting rows.
pub fn connecting(error: &Error) -> Trouble {
    match error.as_db_error() {
        Some(said) => described(Trouble::server(said.code().code(), said.message()), said),
        None => Trouble::server("08001", format!("could not connect: {}", chain(error))).hint(
            "Check the server's options host, port and sslmode, and whether that server runs.",
        ),
    }
}

/// The server could not be connected to.
pub fn unreachable(error: &io::Error) -> Trouble {
    Trouble::server("08001", format!("could not connect: {error}"))
        .hint("Check the server's options host and port, and whether that server runs.")
}

/// The server sends more than is taken from it.
pub fn excess(excess: Excess) -> Trouble {
    Trouble::server("08P01", excess.to_string()).hint(
        "Check the server's options host and port: what answers there is not as PostgreSQL is.",
    )
}

/// An error with its causes. None of them shows what was sent.
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
        let kind = |sqlstate: &str| match blame(sqlstate) {
            Blame::Row => "row",
            Blame::Again => "again",
            Blame::Server => "server",
            Blame::Target => "target",
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
