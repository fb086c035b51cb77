//! Places at which a worker can be made to die, to see what becomes of what it was doing.
//!
//! `coco.failpoint` names one; superusers alone can set it. The process kills itself there, as if by
//! SIGKILL from outside, and the server recovers. Nothing is done where it is empty.

use pgrx::guc::GucSetting;

/// Where the process is to die: `read` (a batch was read from an outbox), `sending` (it is on its way),
/// `sent` (it has arrived, which nobody knows yet), `settled` (that is noted). Before that `making` (it is noted that a
/// target is made, which it is not yet) and `opened` (it is, and nothing was sent yet); and in an update that sends what
/// it finds `evaluated` (nothing of it is committed) and `held` (it is, and what is to be sent is with this process
/// alone).
pub static CRASH_POINT: GucSetting<Option<std::ffi::CString>> =
    GucSetting::<Option<std::ffi::CString>>::new(None);

/// Dies here, if this is the place.
pub fn point(name: &str) {
    let Some(wanted) = CRASH_POINT.get() else { return };
    if wanted.to_bytes() == name.as_bytes() {
        tracing::info!("coco.failpoint: dying at \"{name}\"");
        // SAFETY: the end.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}
