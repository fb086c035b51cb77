//! Settings (GUCs) under the prefix `coco`.

use pgrx::guc::{GucContext, GucFlags, GucRegistry};

use crate::catalog::run_history::{LOG_MIN_DURATION, SIZE as HISTORY_SIZE};
use crate::update::limits::{BATCH_SIZE, LARGEST_BATCH, SEGMENT_SIZE};
use crate::workers::crash_point::CRASH_POINT;
use crate::workers::process::MAX_SEATS;
use crate::workers::stand_in::MAX_WORKERS;
use crate::workers::turn_limit::TURN_TIMEOUT;

/// Defines the settings. Called once, when the library is loaded.
pub fn define() {
    GucRegistry::define_int_guc(
        c"coco.batch_size",
        c"Number of source items evaluated and written as one batch.",
        c"A batch is held in work_mem and spills to disk beyond it. One that fails is halved until the failing items are found.",
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
        c"Time that a worker spends on a turn of one flow, at most; 0 sets no limit.",
        c"A turn that takes longer is canceled, and the flow is tried again later. A turn that looks at all rows of a source is one statement.",
        &TURN_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"coco.log_segment_size",
        c"Size at which a change log goes on in its next segment.",
        c"A segment is emptied when every flow on the table has followed it to its end.",
        &SEGMENT_SIZE,
        64,
        1024 * 1024,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"coco.history_limit",
        c"Number of runs that coco.history keeps of each flow; 0 notes none.",
        c"The oldest ones go as new ones are noted.",
        &HISTORY_SIZE,
        0,
        100_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"coco.log_min_duration",
        c"Time from which on a run of a flow is logged; 0 logs each, -1 none.",
        c"Of a live flow a run is what its worker did in up to a minute.",
        &LOG_MIN_DURATION,
        -1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_string_guc(
        c"coco.failpoint",
        c"Where a worker kills itself, for tests of what happens then.",
        c"making, opened, evaluated, held, read, sending, sent or settled: steps of updates that send to targets outside this database. The server recovers as from any crash. Empty: nowhere.",
        &CRASH_POINT,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL,
    );
}
