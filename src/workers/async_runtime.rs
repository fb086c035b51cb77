//! The threads on which connectors run, beside the one thread of the process that is Postgres'.
//!
//! Nothing of Postgres is called there. They take no signals: those are the process's. What is done
//! there is told through a pair of sockets, which the process waits for together with its latch.

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

/// How long the end of the process waits for what is being sent.
const END: Duration = Duration::from_secs(2);

thread_local! {
    static THREADS: RefCell<Option<Threads>> = const { RefCell::new(None) };
}

struct Threads {
    runtime: Runtime,
    /// Told here that something is done.
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

/// Signals are the business of the process's first thread: threads inherit that they are blocked.
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

/// A piece of work that is done elsewhere.
pub struct Task<T>(Receiver<T>);

/// Where a result goes. Dropped with the work, also where that panics: first it is there, or never
/// will be, and then that is told.
struct Done<T> {
    result: SyncSender<T>,
    _told: WakeHandle,
}

struct WakeHandle(Arc<UnixStream>);

impl Drop for WakeHandle {
    fn drop(&mut self) {
        // Where the socket is full it was told already.
        (&*self.0).write_all(&[1]).ok();
    }
}

/// Begins a piece of work.
pub fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> std::io::Result<Task<T>> {
    THREADS.with(|threads| {
        let mut threads = threads.borrow_mut();
        if threads.is_none() {
            *threads = Some(Threads::begin()?);
            // SAFETY: a plain function. Threads must not run while the process is taken apart.
            unsafe { pg_sys::before_shmem_exit(Some(end), pg_sys::Datum::from(0usize)) };
        }
        let Some(threads) = threads.as_ref() else {
            return Err(std::io::Error::other("there are no threads"));
        };
        let (result, receiver) = sync_channel(1);
        let done = Done { result, _told: WakeHandle(threads.tell.clone()) };
        // Threads that are begun later take no signals either.
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

/// What became of a piece of work.
pub enum TaskState<T> {
    Running,
    Done(T),
    /// It has panicked.
    Lost,
}

impl<T> Task<T> {
    pub fn state(&self) -> TaskState<T> {
        match self.0.try_recv() {
            Ok(result) => TaskState::Done(result),
            Err(TryRecvError::Empty) => TaskState::Running,
            Err(TryRecvError::Disconnected) => TaskState::Lost,
        }
    }
}

/// Drops what belongs on the other threads.
pub fn discard<T: Send + 'static>(value: T) {
    THREADS.with(|threads| {
        if let Ok(threads) = threads.try_borrow()
            && let Some(threads) = threads.as_ref()
        {
            threads.runtime.spawn(async move { drop(value) });
        }
    });
}

/// What to wait for besides the latch: a socket that can be read when a task is done.
pub fn socket() -> Option<i32> {
    THREADS.with(|threads| threads.borrow().as_ref().map(|t| t.told.as_raw_fd()))
}

/// Takes note of what was told.
pub fn listen() {
    THREADS.with(|threads| {
        if let Some(threads) = threads.borrow().as_ref() {
            let mut bytes = [0; 64];
            while matches!((&threads.told).read(&mut bytes), Ok(n) if n == bytes.len()) {}
        }
    });
}

/// What is being sent ends with the process: it is sent again.
#[pg_guard]
unsafe extern "C-unwind" fn end(_code: i32, _argument: pg_sys::Datum) {
    let threads = THREADS.with(|threads| threads.try_borrow_mut().ok().and_then(|mut t| t.take()));
    if let Some(threads) = threads {
        threads.runtime.shutdown_timeout(END);
    }
}
