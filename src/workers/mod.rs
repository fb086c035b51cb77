//! Background processes: the workers that keep live flows up to date, their launcher and helpers,
//! updates on behalf of sessions, and delivery.
//!
//! With the library in shared_preload_libraries, a launcher serves all databases: it starts a
//! worker in each database with live flows, and writers wake the worker when they commit. Without
//! it, `coco.start` starts a worker for its database, which polls for changes.

pub mod async_runtime;
pub mod chain_turn;
pub mod change_counts;
pub mod commit_wakeup;
pub mod crash_notes;
pub mod crash_point;
pub mod databases;
pub mod delivery;
pub mod dropped_database;
pub mod extra_rows;
pub mod followed_flow;
pub mod idle_flow;
pub mod launcher;
pub mod live_worker;
pub mod ordered_update;
pub mod parallel_helper;
pub mod process;
pub mod progress;
pub mod provider_calls;
pub mod round;
pub mod server_log;
pub mod session_errors;
pub mod shared_memory;
pub mod stand_in;
pub mod timer;
pub mod transaction;
pub mod turn_limit;
pub mod update_client;
pub mod update_result;
pub mod update_worker;
pub mod upkeep;
pub mod verification_starter;
pub mod verify_due;
pub mod verify_worker;
pub mod version_swap;
pub mod wait_event;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::pg_sys;

use crate::memo::provider_resolve::{self, ProviderRequest};
use crate::workers::process::RESTART;

/// Called when the library is loaded. Installs the log and the client of providers. While the
/// server starts, also reserves shared memory and registers the launcher.
pub fn define() {
    server_log::define();
    provider_resolve::register_provider_client(ProviderRequest {
        reach: provider_calls::reach,
        terms: provider_calls::terms,
        ask: provider_calls::ask,
    });
    // SAFETY: reads the postmaster's state.
    if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    shared_memory::define();
    session_errors::define();
    change_counts::define();
    BackgroundWorkerBuilder::new("coco launcher")
        .set_type("coco launcher")
        .set_library("coco")
        .set_function("coco_launcher_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(RESTART))
        .load();
}
