//! The counts of a worker's update as JSON, in which form they pass from the worker to the session.

use serde_json::{Value, json};
use std::time::Duration;

use crate::update::run::SourceCounts;
use coco_core::counts::Counts;

/// Returns the counts of all sources as a JSON array.
pub fn to_json(sources: &[SourceCounts]) -> Value {
    sources.iter().map(one_to_json).collect()
}

fn one_to_json(source: &SourceCounts) -> Value {
    let c = source.counts;
    json!({
        "source": source.source, "seen": c.seen, "skipped": c.skipped, "unchanged": c.unchanged,
        "evaluated": c.evaluated, "upserted": c.upserted, "deleted": c.deleted, "failed": c.failed,
        "elapsed": source.elapsed.as_micros() as i64, "memo": source.memo,
    })
}

/// Returns the counts that [`to_json`] wrote. What is missing counts as 0.
pub fn from_json(all: &Value) -> Vec<SourceCounts> {
    let one = |v: &Value| {
        let n = |name: &str| v[name].as_i64().unwrap_or(0);
        SourceCounts {
            source: v["source"].as_str().unwrap_or_default().to_owned(),
            counts: Counts {
                seen: n("seen"),
                skipped: n("skipped"),
                unchanged: n("unchanged"),
                evaluated: n("evaluated"),
                upserted: n("upserted"),
                deleted: n("deleted"),
                failed: n("failed"),
            },
            elapsed: Duration::from_micros(n("elapsed").max(0) as u64),
            memo: serde_json::from_value(v["memo"].clone()).unwrap_or_default(),
        }
    };
    all.as_array().into_iter().flatten().map(one).collect()
}
