//! Messages to the session at the levels NOTICE and WARNING.

use pgrx::prelude::*;

pub fn warning(message: String, detail: &str) {
    ereport!(PgLogLevel::WARNING, PgSqlErrorCode::ERRCODE_WARNING, message, detail.to_owned());
}

pub fn notice(message: String) {
    ereport!(PgLogLevel::NOTICE, PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message);
}

pub fn notice_with_detail(message: String, detail: String) {
    ereport!(PgLogLevel::NOTICE, PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message, detail);
}
