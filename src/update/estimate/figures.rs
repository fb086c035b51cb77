//! The figures of an update: what it would evaluate, write, request and spend, with bounds.

use std::collections::BTreeMap;

use crate::catalog::model::{Flow, Target};
use crate::catalog::run_history;
use crate::memo::session::{CountedMisses, MemoSession};
use crate::pg::acting_role::RoleGuard;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};
use crate::update::estimate::population::PlannedUpdate;
use crate::update::estimate::provider_cost::{self, MissCost};
use crate::update::estimate::sample::{GroupFigures, SourceSample};
use coco_core::memo_batch::FunctionId;
use coco_core::sampling::{Bounds, SampleGroup, share, total};

/// One figure of an update.
pub struct Figure {
    pub measure: &'static str,
    pub value: Bounds,
    pub unit: &'static str,
    /// What the figure was computed from.
    pub basis: String,
}

/// All figures of an update.
pub struct Figures {
    pub rows: Vec<Figure>,
    pub upserted: Bounds,
    pub deleted: Bounds,
    /// In the unit of the servers' prices.
    pub cost: Bounds,
}

/// The bytes of WAL of a change of a row, and of an index entry, in addition to the values.
const RECORD: f64 = 60.0;
const ENTRY: f64 = 90.0;
/// The bytes of WAL of a tracking row.
const TRACKING: f64 = 160.0;
/// The time of writing a row, and of a transaction, in seconds.
const WRITE: f64 = 20e-6;
const TRANSACTION: f64 = 0.005;
/// A time computed from a sample is right up to this factor.
const TIME_FACTOR: f64 = 2.0;

/// Computes the figures from samples of the sources.
pub fn compute_figures(
    planned: &PlannedUpdate,
    recalling: Option<&MemoSession>,
    samples: &[SourceSample],
    missed: &CountedMisses,
) -> Result<Figures> {
    let flow = planned.flow;
    let sum = |of: &dyn Fn(&GroupFigures) -> u64| {
        let mut all = Bounds::default();
        for sample in samples {
            let group = |g: &GroupFigures| SampleGroup { items: g.items, sum: of(g) as f64 };
            let groups: Vec<SampleGroup> = sample.groups.iter().map(group).collect();
            all += total(sample.population, &groups);
        }
        counted(all)
    };
    let mut evaluated = Bounds::default();
    for sample in samples {
        let of = |of: fn(&GroupFigures) -> u64| sample.groups.iter().map(of).sum::<u64>();
        evaluated += share(sample.population, of(|g| g.items), of(|g| g.evaluated));
    }
    let evaluated = counted(evaluated);
    let (rows, upserted, deleted) = (sum(&|g| g.rows), sum(&|g| g.upserted), sum(&|g| g.deleted));
    let (failed, hits) = (sum(&|g| g.failed), sum(&|g| g.hits));
    let row_bytes = ratio(samples, |g| g.bytes, |g| g.rows);

    let basis = described(samples);
    let figure = |measure, value, unit, basis: &str| Figure {
        measure,
        value,
        unit,
        basis: basis.to_owned(),
    };
    let mut all = vec![
        figure("evaluated", evaluated, "items", &basis),
        figure("rows", rows, "rows", &basis),
        figure("upserted", upserted, "rows", &basis),
        figure("deleted", deleted, "rows", &basis),
        figure("failed", failed, "items", &basis),
    ];
    let mut misses = MissCost::default();
    if let Some(recalling) = recalling {
        let functions: Vec<FunctionId> =
            recalling.functions.values().filter_map(|known| known.id).collect();
        let calls: BTreeMap<FunctionId, Bounds> = functions
            .into_iter()
            .map(|id| (id, sum(&|g| g.misses.get(&id).copied().unwrap_or(0))))
            .collect();
        misses = provider_cost::miss_cost(flow, recalling, &calls, missed)?;
        let stored = format!("{basis}; stored results");
        let requested = match misses.servers.is_empty() {
            true => stored.clone(),
            false => format!("{basis}; options of {}", misses.servers.join(", ")),
        };
        let tokens = match misses.lacks_history {
            true => format!("{requested}; a token for 4 bytes"),
            false => format!("{requested}; tokens of earlier results"),
        };
        all.extend([
            figure("memo_hits", hits, "calls", &stored),
            figure("memo_misses", counted(misses.misses), "results", &stored),
            figure("requests", counted(misses.requests), "requests", &requested),
            figure("tokens_in", counted(misses.tokens_in), "tokens", &tokens),
            figure("tokens_out", counted(misses.tokens_out), "tokens", &tokens),
            figure("cost", misses.cost, "price", &tokens),
        ]);
    }
    let (wal, wal_basis) = wal_bytes(flow, evaluated, upserted, deleted, row_bytes)?;
    all.push(figure("wal_bytes", wal, "bytes", &wal_basis));
    let (seconds, basis) = seconds(planned, samples, evaluated, upserted, deleted, &misses)?;
    all.push(figure("seconds", seconds, "seconds", &basis));
    Ok(Figures { rows: all, upserted, deleted, cost: misses.cost })
}

/// Returns the bounds of a number of things.
fn counted(value: Bounds) -> Bounds {
    Bounds { estimate: value.estimate.round(), low: value.low.floor(), high: value.high.ceil() }
}

/// Says how many items were evaluated.
fn described(samples: &[SourceSample]) -> String {
    let all: u64 = samples.iter().map(|sample| sample.population).sum();
    let items: u64 = samples.iter().flat_map(|s| &s.groups).map(|group| group.items).sum();
    match items >= all {
        true => format!("all {all} items"),
        false => format!("sample of {items} of {all} items"),
    }
}

/// Returns the quotient of two sums over all groups; 0 if the second one is 0.
fn ratio(
    samples: &[SourceSample],
    of: fn(&GroupFigures) -> u64,
    by: fn(&GroupFigures) -> u64,
) -> f64 {
    let sum = |of: fn(&GroupFigures) -> u64| {
        samples.iter().flat_map(|sample| &sample.groups).map(of).sum::<u64>() as f64
    };
    let by = sum(by);
    if by > 0.0 { sum(of) / by } else { 0.0 }
}

/// Estimates the WAL from the sizes of the rows, and from the indexes of the targets. The upper bound
/// includes an image of each page that the update may touch first after a checkpoint.
fn wal_bytes(
    flow: &Flow,
    evaluated: Bounds,
    upserted: Bounds,
    deleted: Bounds,
    row_bytes: f64,
) -> Result<(Bounds, String)> {
    let (mut indexes, mut pages) = (0.0, 0.0);
    for target in &flow.targets {
        let size = table_size(target)?;
        indexes += size.indexes as f64;
        pages += size.pages as f64;
    }
    let each = indexes / flow.targets.len().max(1) as f64;
    let queued = if flow.is_external() { 2.0 } else { 1.0 };
    let of = |evaluated: f64, upserted: f64, deleted: f64| {
        evaluated * TRACKING
            + upserted * queued * (row_bytes + RECORD + each * ENTRY)
            + deleted * queued * RECORD
    };
    let changed = upserted.high + deleted.high;
    let images = pages.min(changed * (1.0 + each)) * f64::from(pgrx::pg_sys::BLCKSZ);
    let value = Bounds {
        estimate: of(evaluated.estimate, upserted.estimate, deleted.estimate),
        low: of(evaluated.low, upserted.low, deleted.low) / 2.0,
        high: of(evaluated.high, upserted.high, deleted.high) * 2.0 + images,
    };
    Ok((counted(value), format!("rows of {row_bytes:.0} bytes, {each:.0} indexes")))
}

/// The size of a target's table.
struct TableSize {
    indexes: i64,
    /// The pages of the table and its indexes, as of the last VACUUM or ANALYZE.
    pages: i64,
}

fn table_size(target: &Target) -> Result<TableSize> {
    let Some(relation) = target.relation else { return Ok(TableSize { indexes: 1, pages: 0 }) };
    let _names = RoleGuard::qualifying_names()?;
    let found = spi::select(
        "select count(i.indexrelid),
                coalesce(sum(greatest(x.relpages, 0)), 0)::int8
                  + coalesce((select greatest(c.relpages, 0) from pg_class as c where c.oid = $1), 0)
           from pg_index as i join pg_class as x on x.oid = i.indexrelid
          where i.indrelid = $1",
        &[arg(relation)],
        |r| Ok(TableSize { indexes: spi::required(r, 1)?, pages: spi::required(r, 2)? }),
    )?;
    Ok(found.into_iter().next().unwrap_or(TableSize { indexes: 1, pages: 0 }))
}

/// Estimates the time: from earlier runs of the same query if there are any of a similar size, and no
/// result of a memoized function is missing; otherwise from the sample.
fn seconds(
    planned: &PlannedUpdate,
    samples: &[SourceSample],
    evaluated: Bounds,
    upserted: Bounds,
    deleted: Bounds,
    misses: &MissCost,
) -> Result<(Bounds, String)> {
    let same_work = planned.changed.is_none() && misses.misses.estimate == 0.0;
    if same_work
        && evaluated.estimate > 0.0
        && let Some(speed) = run_history::run_speed(planned.flow.id)?
        && speed.largest * 100.0 >= evaluated.estimate
    {
        let value = Bounds {
            estimate: evaluated.estimate * speed.average,
            low: evaluated.low * speed.fastest,
            high: evaluated.high * speed.slowest,
        };
        return Ok((rounded(value), format!("history: {} runs", speed.runs)));
    }
    // The first statements of the sample take longer, because Postgres plans them.
    let mut each: Vec<f64> = samples
        .iter()
        .flat_map(|sample| &sample.groups)
        .filter(|group| group.evaluated > 0)
        .map(|group| group.seconds / group.evaluated as f64)
        .collect();
    each.sort_by(f64::total_cmp);
    let median = each.get(each.len() / 2).copied().unwrap_or(0.0);
    let written = upserted.estimate + deleted.estimate + evaluated.estimate;
    let estimate = TRANSACTION + evaluated.estimate * median + written * WRITE + misses.seconds;
    let value = Bounds { estimate, low: estimate / TIME_FACTOR, high: estimate * TIME_FACTOR };
    let mut basis = "time of the sample".to_owned();
    if misses.seconds > 0.0 {
        basis.push_str(", and of earlier results");
    }
    if misses.lacks_history {
        basis.push_str(", without the providers");
    }
    Ok((rounded(value), basis))
}

/// Returns the bounds of a time in whole milliseconds.
fn rounded(value: Bounds) -> Bounds {
    value.map(|seconds| (seconds * 1000.0).ceil() / 1000.0)
}
