//! Settings (GUCs) under the prefix `coco`.

use pgrx::guc::{GucContext, GucFlags, GucRegistry};

use crate::catalog::run_history::{LOG_MIN_DURATION, SIZE as HISTORY_SIZE};
use crate::catalog::run_label::LABEL;
use crate::memo::kept::RETENTION as MEMO_RETENTION;
use crate::update::limits::{BATCH_SIZE, LARGEST_BATCH, SEGMENT_SIZE};
use crate::workers::crash_point::CRASH_POINT;
use crate::workers::process::MAX_SEATS;
use crate::workers::stand_in::MAX_WORKERS;
use crate::workers::turn_limit::TURN_TIMEOUT;

/// Defines the settings. Called once, when the library is loaded.
pub fn define() {
    GucRegistry::define_int_guc(
        c"coco.batch_size",
        c"Number of source items that coco evaluates and writes as one batch.",
        c"coco keeps a batch in work_mem, and spills larger batches to disk. If a batch fails, coco halves it until it finds the failing items.",
        &BATCH_SIZE,
        1,
        LARGEST_BATCH,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"coco.max_workers",
        c"Number of processes that keep the live flows of one database up to date, at most.",
        c"A worker works on one flow at a time; where there are fewer flows, others help it with many changes. A flow that waits (for a provider, a lock) has another worker stand in for the others meanwhile, beyond this limit. All are taken from max_worker_processes.",
        &MAX_WORKERS,
        1,
        i32::from(MAX_SEATS),
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"coco.turn_timeout",
        c"Maximum time that a worker spends on one transaction of a flow; 0 disables the limit.",
        c"If a transaction takes longer, coco cancels it and tries the flow again later. A scan of a whole source is a single statement, so the limit must allow for it.",
        &TURN_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"coco.log_segment_size",
        c"Size at which a change log continues in its next segment.",
        c"coco empties a segment when every flow on the table has followed it to its end.",
        &SEGMENT_SIZE,
        64,
        1024 * 1024,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"coco.history_limit",
        c"Number of runs that coco.history keeps for each flow; 0 disables the history.",
        c"When coco records a new run, it removes the oldest ones above this number.",
        &HISTORY_SIZE,
        0,
        100_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"coco.log_min_duration",
        c"Minimum duration of a flow's run above which coco logs the run; 0 logs all runs, -1 none.",
        c"For a live flow, a run is the work of its worker in up to a minute.",
        &LOG_MIN_DURATION,
        -1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"coco.memo_retention",
        c"Time for which coco keeps the results of memoized functions of a dropped flow; 0 drops them with the flow.",
        c"Other flows of the same owner reuse these results, in particular a flow that is declared again.",
        &MEMO_RETENTION,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MIN,
    );
    GucRegistry::define_string_guc(
        c"coco.label",
        c"Version, commit or other name of the code that this session declares or updates flows with; empty for none.",
        c"coco records the label with the logic of a flow, and with each run. It uses at most 60 bytes. Workers that follow live flows ignore the setting.",
        &LABEL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"coco.failpoint",
        c"Point at which a worker kills itself, to test crash recovery.",
        c"One of making, opened, evaluated, held, read, sending, sent and settled, which are steps of updates that deliver to external targets. The server then recovers as from any crash. Empty: none.",
        &CRASH_POINT,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL,
    );
}
