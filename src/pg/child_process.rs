//! Runs code of libraries on content that a user controls in a process of its own: a child of this
//! process, whose time, memory and stack are limited.
//!
//! A library may loop, exhaust the memory or overflow the stack. The child then ends, and this
//! process continues. The child begins as a copy of this process, so it needs no copy of the
//! input. It writes its result to a pipe, and never calls Postgres.

use pgrx::{PgSqlErrorCode, pg_sys};
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::pg::error::{Error, Result};

/// How long a child may run, in seconds.
pub const SECONDS: u64 = 60;
/// How much memory a child may allocate, in bytes.
pub const MEMORY: u64 = 1 << 30;
/// Largest result in bytes.
const RESULT: usize = 1 << 30;

/// The exit status of a child whose work panicked.
const PANICKED: i32 = 101;

/// How the work of a child ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEnd {
    TimeLimit,
    MemoryLimit,
    ResultLimit,
    /// The stack was exhausted, or the process failed otherwise.
    Crashed,
    Panicked,
}

/// A child process. Dropping it ends the process.
struct Child(libc::pid_t);

impl Child {
    /// Waits for the end of the process, and returns its status.
    fn status(self) -> i32 {
        let status = wait_for(self.0);
        std::mem::forget(self);
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a plain system call. The process has not been waited for, so its number is its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        wait_for(self.0);
    }
}

fn wait_for(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: a plain system call with a pointer to a local variable.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0
        && std::io::Error::last_os_error().kind() == ErrorKind::Interrupted
    {}
    status
}

/// Runs `work` in a child process, and returns its result. Canceling the statement ends the child.
/// `work` must not call Postgres.
pub fn run_in_child(
    work: impl FnOnce() -> Vec<u8>,
) -> Result<std::result::Result<Vec<u8>, ChildEnd>> {
    let failed = |e: std::io::Error| {
        Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            format!("could not start a process: {e}"),
        )
        .hint("Check the limits of processes and memory of the server's operating system user.")
    };
    let (mut reader, mut writer) = std::io::pipe().map_err(failed)?;
    // SAFETY: plain system calls on the pipe's own descriptor.
    let set = unsafe {
        let flags = libc::fcntl(reader.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    if set < 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    let parent = std::process::id();
    let addresses = address_space();
    let before = block_signals();
    // SAFETY: the child runs only the code below, which neither returns nor calls Postgres. Of the
    // locks that other threads of this process may hold, it uses only those of malloc, which fork
    // leaves free.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        limit_child(parent, addresses, &before);
        let end = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => i32::from(writer.write_all(&result).is_err()),
            Err(_) => PANICKED,
        };
        // SAFETY: ends the child at once, without what the parent registered for its own end.
        unsafe { libc::_exit(end) };
    }
    restore_signals(&before);
    drop(writer);
    if pid < 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    read_result(Child(pid), &mut reader)
}

fn read_result(
    child: Child,
    reader: &mut PipeReader,
) -> Result<std::result::Result<Vec<u8>, ChildEnd>> {
    let deadline = Instant::now() + Duration::from_secs(SECONDS);
    let mut result = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        match reader.read(&mut part) {
            Ok(0) => break,
            Ok(length) => {
                result.extend_from_slice(&part[..length]);
                if result.len() > RESULT {
                    return Ok(Err(ChildEnd::ResultLimit));
                }
                pgrx::check_for_interrupts!();
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Err(ChildEnd::TimeLimit));
                }
                wait_for_socket(reader.as_raw_fd(), left);
            }
            Err(e) => return Err(Error::internal(format!("could not read from a process: {e}"))),
        }
    }
    let status = child.status();
    Ok(match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(result),
        (true, _) => Err(ChildEnd::Panicked),
        (false, _) => Err(match libc::WTERMSIG(status) {
            libc::SIGXCPU => ChildEnd::TimeLimit,
            // Rust aborts a process that cannot allocate memory.
            libc::SIGABRT => ChildEnd::MemoryLimit,
            _ => ChildEnd::Crashed,
        }),
    })
}

/// Waits until the pipe is readable, for an interrupt, or until the time has passed.
fn wait_for_socket(pipe: i32, time: Duration) {
    let events = pg_sys::WL_LATCH_SET
        | pg_sys::WL_TIMEOUT
        | pg_sys::WL_EXIT_ON_PM_DEATH
        | pg_sys::WL_SOCKET_READABLE;
    // SAFETY: the latch and the pipe belong to this process.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            pipe,
            time.as_millis().clamp(1, 1000) as std::ffi::c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// Returns the size of this process's address space in bytes; shared memory is a part of it.
fn address_space() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').next()?.parse().ok()?;
    // SAFETY: a plain function.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.checked_mul(u64::try_from(page).ok()?)
}

/// Prepares the child: it ends with its parent, handles no signal as the parent does, and has
/// limited resources.
fn limit_child(parent: u32, addresses: Option<u64>, signals: &libc::sigset_t) {
    // SAFETY: plain system calls, which concern the child alone.
    unsafe {
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        // The parent may have ended before.
        if libc::getppid() as u32 != parent {
            libc::_exit(PANICKED);
        }
        let limit = |resource, most: u64| {
            let most = libc::rlimit { rlim_cur: most, rlim_max: most };
            libc::setrlimit(resource, &raw const most);
        };
        limit(libc::RLIMIT_CORE, 0);
        limit(libc::RLIMIT_FSIZE, 0);
        limit(libc::RLIMIT_CPU, SECONDS);
        // It opens no file.
        limit(libc::RLIMIT_NOFILE, 0);
        if let Some(addresses) = addresses {
            limit(libc::RLIMIT_AS, addresses.saturating_add(MEMORY));
        }
        // What libraries print must not reach the server's log.
        libc::close(libc::STDERR_FILENO);
        libc::close(libc::STDOUT_FILENO);
        libc::pthread_sigmask(libc::SIG_SETMASK, signals, std::ptr::null_mut());
    }
    std::panic::set_hook(Box::new(|_| {}));
}

/// Blocks all signals, so that no handler of the parent runs in the child. Returns the previous
/// mask.
fn block_signals() -> libc::sigset_t {
    // SAFETY: plain system calls on this thread's own mask.
    unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}
