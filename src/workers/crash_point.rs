//! Points at which a worker can be made to crash, to test recovery.
//!
//! `coco.failpoint` names a point; only superusers can set it. At that point the process sends
//! itself SIGKILL, and the server recovers. If the setting is empty, nothing happens.

use pgrx::guc::GucSetting;

/// The crash point. A delivery passes through these points, in this order:
///
/// - `making`: the catalog records that coco creates a target, which does not exist yet.
/// - `opened`: the target exists, and coco has sent nothing to it.
/// - `read`: the process has read a batch from the outbox.
/// - `sending`: the batch is in flight.
/// - `sent`: the batch has arrived, but nothing records it yet.
/// - `settled`: the delivery is recorded.
///
/// An update that sends its rows from memory also passes through these points:
///
/// - `evaluated`: nothing is committed.
/// - `held`: the update is committed, and only this process has the rows to send.
pub static CRASH_POINT: GucSetting<Option<std::ffi::CString>> =
    GucSetting::<Option<std::ffi::CString>>::new(None);

/// Kills the process if `name` is the configured crash point.
pub fn point(name: &str) {
    let Some(wanted) = CRASH_POINT.get() else { return };
    if wanted.to_bytes() == name.as_bytes() {
        tracing::info!("coco.failpoint: killing the process at \"{name}\"");
        // SAFETY: a system call on the own process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}
