//! The threads on which connectors and providers run, in addition to the thread on which Postgres
//! runs.
//!
//! These threads must not call Postgres. They block all signals, which the main thread handles.
//! They report results through a pair of sockets; the process waits for the socket together with
//! its latch.

use pgrx::prelude::*;
use std::cell::RefCell;
use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long an ending process waits for deliveries in flight.
const END: Duration = Duration::from_secs(2);

thread_local! {
    static THREADS: RefCell<Option<Threads>> = const { RefCell::new(None) };
}

struct Threads {
    runtime: Runtime,
    /// Readable when a task is done.
    told: UnixStream,
    tell: Arc<UnixStream>,
}

impl Threads {
    fn begin() -> std::io::Result<Threads> {
        let (told, tell) = UnixStream::pair()?;
        told.set_nonblocking(true)?;
        tell.set_nonblocking(true)?;
        let before = block_signals();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("coco sender")
            .enable_all()
            .build();
        restore_signals(&before);
        Ok(Threads { runtime: runtime?, told, tell: Arc::new(tell) })
    }
}

/// Blocks all signals on this thread, so that threads started meanwhile inherit the mask. Signals
/// belong to the process's main thread. Returns the previous mask.
fn block_signals() -> libc::sigset_t {
    // SAFETY: plain system calls on this thread's own mask.
    unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        before
    }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

/// A task that runs on the other threads.
pub struct Task<T>(Receiver<T>);

/// Sends a result, and then wakes the process. It is dropped with the task, even if the task
/// panics: either the result is available or it never will be, and then the process is woken.
struct Done<T> {
    result: SyncSender<T>,
    _told: WakeHandle,
}

struct WakeHandle(Arc<UnixStream>);

impl Drop for WakeHandle {
    fn drop(&mut self) {
        // If the socket is full, the process has already been woken.
        (&*self.0).write_all(&[1]).ok();
    }
}

/// Starts a task.
pub fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> std::io::Result<Task<T>> {
    THREADS.with(|threads| {
        let mut threads = threads.borrow_mut();
        if threads.is_none() {
            *threads = Some(Threads::begin()?);
            // SAFETY: a plain function. Threads must not run while the process shuts down.
            unsafe { pg_sys::before_shmem_exit(Some(end), pg_sys::Datum::from(0usize)) };
        }
        let Some(threads) = threads.as_ref() else {
            return Err(std::io::Error::other("the threads were not started"));
        };
        let (result, receiver) = sync_channel(1);
        let done = Done { result, _told: WakeHandle(threads.tell.clone()) };
        // The runtime may start more threads here; they must block signals, too.
        let before = block_signals();
        threads.runtime.spawn(async move {
            let result = work.await;
            done.result.try_send(result).ok();
            drop(done);
        });
        restore_signals(&before);
        Ok(Task(receiver))
    })
}

/// The state of a task.
pub enum TaskState<T> {
    Running,
    Done(T),
    /// The task panicked.
    Lost,
}

impl<T> Task<T> {
    /// Returns the state of the task, with its result if it is done.
    pub fn state(&self) -> TaskState<T> {
        match self.0.try_recv() {
            Ok(result) => TaskState::Done(result),
            Err(TryRecvError::Empty) => TaskState::Running,
            Err(TryRecvError::Disconnected) => TaskState::Lost,
        }
    }
}

/// Drops a value on the other threads, to which it belongs.
pub fn discard<T: Send + 'static>(value: T) {
    THREADS.with(|threads| {
        if let Ok(threads) = threads.try_borrow()
            && let Some(threads) = threads.as_ref()
        {
            threads.runtime.spawn(async move { drop(value) });
        }
    });
}

/// Returns the socket to wait for in addition to the latch; it is readable when a task is done.
pub fn socket() -> Option<i32> {
    THREADS.with(|threads| threads.borrow().as_ref().map(|t| t.told.as_raw_fd()))
}

/// Empties the socket.
pub fn listen() {
    THREADS.with(|threads| {
        if let Some(threads) = threads.borrow().as_ref() {
            let mut bytes = [0; 64];
            while matches!((&threads.told).read(&mut bytes), Ok(n) if n == bytes.len()) {}
        }
    });
}

/// Ends deliveries in flight with the process; coco sends their rows again.
#[pg_guard]
unsafe extern "C-unwind" fn end(_code: i32, _argument: pg_sys::Datum) {
    let threads = THREADS.with(|threads| threads.try_borrow_mut().ok().and_then(|mut t| t.take()));
    if let Some(threads) = threads {
        threads.runtime.shutdown_timeout(END);
    }
}
