//! Diagrams of flows, and the page of `coco.report()`. Pure Rust: no Postgres, and no I/O.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod graph;
mod layout;
pub mod mermaid;
pub mod page;
mod picture;
mod timeline;

use graph::{Graph, Health};

/// The content of a report. Times are formatted texts.
#[derive(Default)]
pub struct Report {
    pub database: String,
    pub made: String,
    /// Versions of coco and of the server.
    pub versions: String,
    /// Seconds since 1970.
    pub now: f64,
    pub graph: Graph,
    pub flows: Vec<Flow>,
    pub targets: Vec<Target>,
    /// The newest errors.
    pub errors: Vec<FailedRow>,
    pub runs: Vec<Run>,
    pub workers: Vec<Worker>,
    pub functions: Vec<Function>,
}

pub struct Flow {
    pub name: String,
    pub owner: String,
    pub state: String,
    pub live: bool,
    pub pending: Option<i64>,
    /// Seconds.
    pub lag: Option<f64>,
    pub followed: Option<String>,
    pub items: Option<i64>,
    /// `None` if coco could not read the failures.
    pub failed_items: Option<i64>,
    pub next_retry: Option<String>,
    pub error: Option<String>,
    pub hint: Option<String>,
}

impl Flow {
    pub fn health(&self) -> Health {
        Health::of_state(&self.state)
    }
}

pub struct Target {
    pub flow: String,
    pub name: String,
    /// The target's query, as declared.
    pub query: String,
    pub server: Option<String>,
    pub key: String,
    /// Queued changes of an external target.
    pub queued: Option<i64>,
    pub rejected: Option<i64>,
    pub sent: Option<String>,
    pub next_retry: Option<String>,
    pub error: Option<String>,
    pub hint: Option<String>,
}

/// A failed item, or a row that a target rejected.
pub struct FailedRow {
    pub flow: String,
    /// Name of the source or the target.
    pub object: String,
    pub key: String,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub attempts: i32,
    pub next_retry: Option<String>,
}

pub struct Run {
    pub flow: String,
    pub run: i64,
    pub started: String,
    /// Seconds since 1970.
    pub at: f64,
    /// Seconds.
    pub elapsed: f64,
    pub reason: String,
    pub initiator: String,
    pub seen: i64,
    pub unchanged: i64,
    pub evaluated: i64,
    pub upserted: i64,
    pub deleted: i64,
    pub failed: i64,
    pub error: Option<String>,
    pub label: Option<String>,
}

impl Run {
    /// Returns the CSS class of the run.
    pub fn outcome(&self) -> &'static str {
        match () {
            () if self.error.is_some() => "broken",
            () if self.failed > 0 => "failing",
            () if self.evaluated + self.upserted + self.deleted > 0 => "worked",
            () => "idle",
        }
    }
}

pub struct Worker {
    pub worker_no: i32,
    pub pid: i32,
    pub state: String,
    pub flow: Option<String>,
    pub since: String,
    pub transactions: i64,
    pub evaluated: i64,
    pub upserted: i64,
    pub deleted: i64,
    pub failed: i64,
}

#[derive(Default)]
pub struct Function {
    pub flow: String,
    pub name: String,
    pub calls: f64,
    pub misses: f64,
    pub errors: f64,
    pub requests: f64,
    pub tokens: f64,
    pub cost: f64,
    pub seconds: f64,
}

/// Returns a count with separated thousands.
pub fn format_count(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if n < 0 { format!("-{out}") } else { out }
}

/// Returns a rounded duration.
fn format_duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let two = |big: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{big} {unit}"),
        _ => format!("{big} {unit} {small} {part}"),
    };
    match whole {
        0 if seconds < 0.0005 => "0 s".to_owned(),
        0 => format!("{} ms", (seconds * 1000.0).round().max(1.0)),
        1..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..7200 => two(whole / 60, "min", whole % 60, "s"),
        7200..172_800 => two(whole / 3600, "h", whole % 3600 / 60, "min"),
        _ => two(whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_spans_read_well() {
        let counts = [0, 12, 123, 1234, 123_456, 1_234_567, -1234].map(format_count);
        assert_eq!(counts, ["0", "12", "123", "1,234", "123,456", "1,234,567", "-1,234"]);
        let spans =
            [0.0, 0.0123, 1.25, 61.0, 125.0, 3600.0, 7260.0, 200_000.0].map(format_duration);
        assert_eq!(
            spans,
            ["0 s", "12 ms", "1.2 s", "61 s", "2 min 5 s", "60 min", "2 h 1 min", "2 d 7 h"]
        );
    }
}
