//! Counts, in shared memory, the commits that changed what live flows follow. A worker need not run
//! a transaction for a flow if nothing that the flow follows has been counted since its last one.
//!
//! A writer counts each change log that its transaction has written to, after other sessions see
//! the commit. A worker reads the counts before it takes the snapshot of a flow's transaction. If
//! the counts are the same afterwards, that snapshot has seen all changes.
//!
//! The counts have fixed places, chosen by a hash: logs that share a place cause transactions that
//! find nothing. Prepared transactions are not counted when they commit, because another process
//! commits them: see [`is_prepared_recently`].

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::pg::clock;
use crate::workers::shared_memory;

/// Number of counts of the server.
const PLACES: usize = 4096;

/// For this long after a transaction was prepared, workers look for changes without counts. Within
/// this time they also notice that it is still prepared.
const PREPARED: Duration = Duration::from_secs(3);

struct ChangeCounts {
    counts: [AtomicU64; PLACES],
    /// When a transaction with changes was last prepared: microseconds since 2000-01-01.
    prepared_at: AtomicI64,
}

impl Default for ChangeCounts {
    fn default() -> ChangeCounts {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        ChangeCounts { counts, prepared_at: AtomicI64::new(0) }
    }
}

// SAFETY: atomic numbers.
unsafe impl PGRXSharedMemory for ChangeCounts {}

// SAFETY: the name is coco's.
static COUNTS: PgLwLock<ChangeCounts> = unsafe { PgLwLock::new(c"coco_change_counts") };

/// Reserves the memory. Called only in the postmaster.
pub fn define() {
    // The macro tests for features of older servers.
    #[allow(unexpected_cfgs)]
    {
        pg_shmem_init!(COUNTS);
    }
}

/// Returns the place of a change log's count; capture 0 stands for all flows of the database.
fn place(database: u32, capture: i32) -> usize {
    let key = (u64::from(database) << 32) | u64::from(capture as u32);
    // Fibonacci hashing: the upper bits depend on all bits of the key.
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 52) as usize % PLACES
}

/// Counts a commit that wrote to the change logs of these captures. The caller has committed.
pub fn count(database: pg_sys::Oid, captures: &[i32]) {
    let shared = COUNTS.share();
    for capture in captures {
        shared.counts[place(database.to_u32(), *capture)].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts a commit that may concern any flow of a database.
pub fn count_for_all(database: pg_sys::Oid) {
    count(database, &[0]);
}

/// Returns the sum of the counts for these captures. It changes with each counted commit.
pub fn sum(database: pg_sys::Oid, captures: &[i32]) -> u64 {
    let shared = COUNTS.share();
    captures
        .iter()
        .chain([&0])
        .map(|capture| shared.counts[place(database.to_u32(), *capture)].load(Ordering::Relaxed))
        .fold(0, u64::wrapping_add)
}

/// Records that a transaction with changes was prepared.
pub fn note_prepared() {
    COUNTS.share().prepared_at.store(clock::timestamp_micros(), Ordering::Relaxed);
}

/// Reports whether a transaction with changes was prepared a moment ago. It may have committed since
/// without being counted.
pub fn is_prepared_recently() -> bool {
    if !shared_memory::available() {
        return false;
    }
    let since = clock::timestamp_micros() - COUNTS.share().prepared_at.load(Ordering::Relaxed);
    since < PREPARED.as_micros() as i64
}
