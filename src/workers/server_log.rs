//! Writes coco's `tracing` events to the server's log.
//!
//! The process's main thread reports an event at once. Other threads must not call Postgres, so
//! their events wait in a queue until the main thread next looks at the results of these threads.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::PgLogLevel;
use std::fmt::Write as _;
use std::sync::{Mutex, OnceLock};
use std::thread::{self, ThreadId};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::pg::subtransaction;

/// Number of events from other threads that can wait; further ones are only counted.
const WAITING: usize = 100;

/// The thread on which Postgres runs.
static OWN: OnceLock<ThreadId> = OnceLock::new();

static QUEUE: Mutex<Queue> = Mutex::new(Queue { lines: vec![], lost: 0 });

struct Queue {
    lines: Vec<Line>,
    lost: usize,
}

/// Installs the log. Called on Postgres' own thread when the library is loaded.
pub fn define() {
    OWN.get_or_init(|| thread::current().id());
    // Fails if the library was loaded before, and the log is already installed.
    tracing::subscriber::set_global_default(ServerLog).ok();
}

/// Reports the queued events of other threads.
pub fn report_waiting() {
    let (lines, lost) = {
        let Ok(mut queue) = QUEUE.try_lock() else { return };
        (std::mem::take(&mut queue.lines), std::mem::take(&mut queue.lost))
    };
    lines.into_iter().for_each(Line::report);
    if lost > 0 {
        tracing::warn!(lost, "log messages of other threads were dropped");
    }
}

/// Reports whether an event comes from the extension, or from a crate of its workspace. A target
/// begins with the crate's name.
pub fn is_ours(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or_default();
    name == env!("CARGO_PKG_NAME") || name.starts_with(concat!(env!("CARGO_PKG_NAME"), "_"))
}

struct ServerLog;

impl Subscriber for ServerLog {
    /// Events of other libraries do not belong in the log.
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.is_event() && is_ours(metadata.target()) && *metadata.level() <= Level::DEBUG
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.enabled(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event) {
        let mut line = Line::new(*event.metadata().level());
        event.record(&mut line);
        if OWN.get() == Some(&thread::current().id()) {
            return line.report();
        }
        let mut queue = QUEUE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match queue.lines.len() < WAITING {
            true => queue.lines.push(line),
            false => queue.lost += 1,
        }
    }

    // coco uses no spans.
    fn new_span(&self, _: &Attributes) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event in the form in which the server reports it.
struct Line {
    level: Level,
    message: String,
    fields: String,
    sqlstate: Option<String>,
    detail: Option<String>,
    hint: Option<String>,
}

impl Line {
    fn new(level: Level) -> Line {
        let (message, fields) = (String::new(), String::new());
        Line { level, message, fields, sqlstate: None, detail: None, hint: None }
    }

    fn report(self) {
        let level = match self.level {
            Level::ERROR | Level::WARN => PgLogLevel::WARNING,
            // For the server's administrator, not for a session's client.
            Level::INFO => PgLogLevel::LOG_SERVER_ONLY,
            Level::DEBUG => PgLogLevel::DEBUG1,
            Level::TRACE => PgLogLevel::DEBUG2,
        };
        let code = match &self.sqlstate {
            Some(sqlstate) => subtransaction::sqlstate_code(sqlstate),
            None if level == PgLogLevel::WARNING => PgSqlErrorCode::ERRCODE_WARNING,
            None => PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        };
        let message = format!("coco: {}{}", self.message, self.fields);
        let mut report = ErrorReport::new(code, message, "coco");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        report.report(level);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            "sqlstate" => self.sqlstate = Some(value.to_owned()),
            "detail" => self.detail = Some(value.to_owned()),
            "hint" => self.hint = Some(value.to_owned()),
            name => write!(self.fields, " {name}=\"{value}\"").unwrap_or_default(),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => write!(self.message, "{value:?}").unwrap_or_default(),
            name => write!(self.fields, " {name}={value:?}").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::workers::server_log::is_ours;

    #[test]
    fn events_of_all_our_crates_are_reported_and_of_no_other() {
        for target in ["coco", "coco::worker::sender", "coco_connectors::targets::kafka::client"] {
            assert!(is_ours(target), "{target}");
        }
        for target in ["cocoa", "cocoa::coco", "tokio_postgres::coco", "rdkafka::client", ""] {
            assert!(!is_ours(target), "{target}");
        }
    }
}
