//! One Kafka for all tests of a process: made by the first that asks, gone with the process.

use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{env, fs, net, process};

pub struct Kafka {
    directory: PathBuf,
    pub plaintext: String,
    pub sasl_plaintext: String,
    pub sasl_ssl: String,
    /// PEM.
    pub certificate: String,
    /// Its stdin ends with this process, in whatever way that ends; then it removes the server.
    _keeper: Child,
}

static KAFKA: RwLock<Option<Kafka>> = RwLock::new(None);

/// The server, for as long as nothing happens to it.
pub struct Shared(RwLockReadGuard<'static, Option<Kafka>>);

/// The server, for a test that does something to it. It is up and running again afterwards.
pub struct Exclusive(RwLockWriteGuard<'static, Option<Kafka>>);

pub fn kafka() -> Shared {
    loop {
        let shared = KAFKA.read().unwrap_or_else(PoisonError::into_inner);
        if shared.is_some() {
            return Shared(shared);
        }
        drop(shared);
        drop(exclusively());
    }
}

pub fn exclusively() -> Exclusive {
    let mut kafka = KAFKA.write().unwrap_or_else(PoisonError::into_inner);
    if kafka.is_none() {
        *kafka = Some(Kafka::new());
    }
    Exclusive(kafka)
}

impl Deref for Shared {
    type Target = Kafka;

    fn deref(&self) -> &Kafka {
        self.0.as_ref().expect("a server")
    }
}

impl Deref for Exclusive {
    type Target = Kafka;

    fn deref(&self) -> &Kafka {
        self.0.as_ref().expect("a server")
    }
}

/// A test that has failed leaves it as others need it.
impl Drop for Exclusive {
    fn drop(&mut self) {
        if !self.directory.join("pid").exists() {
            self.start();
        }
        self.thaw();
    }
}

impl Kafka {
    fn new() -> Kafka {
        let directory = env::temp_dir().join(format!("coco-kafka-{}", process::id()));
        let mut keeper = script(&["run", path(&directory)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/servers/kafka.sh");
        let lines = BufReader::new(keeper.stdout.take().expect("its stdout")).lines();
        let said: Vec<String> = lines.map_while(Result::ok).collect();
        let of = |name: &str| {
            let line = said.iter().find_map(|line| line.strip_prefix(&format!("{name}=")));
            line.unwrap_or_else(|| panic!("no {name}: {said:?}")).to_owned()
        };
        Kafka {
            directory,
            plaintext: of("plaintext"),
            sasl_plaintext: of("sasl_plaintext"),
            sasl_ssl: of("sasl_ssl"),
            certificate: fs::read_to_string(of("certificate")).expect("its certificate"),
            _keeper: keeper,
        }
    }

    pub fn stop(&self) {
        done(&mut script(&["stop", path(&self.directory)]));
    }

    pub fn start(&self) {
        done(script(&["start", path(&self.directory)]).stdout(Stdio::null()));
    }

    /// As if the machine had failed.
    pub fn kill(&self) {
        self.signal("-KILL");
        self.stop();
    }

    /// It takes nothing up, and answers nothing; its connections stay.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = fs::read_to_string(self.directory.join("pid")).expect("its process");
        done(Command::new("kill").args([signal, pid.trim()]));
    }
}

fn script(arguments: &[&str]) -> Command {
    let mut roots = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let script = roots.find_map(|root| root.join("scripts/servers/kafka.sh").canonicalize().ok());
    let mut command = Command::new(script.expect("the script, which the project has"));
    command.args(arguments);
    command
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn done(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// Where nobody listens.
pub fn free_address() -> String {
    let free = net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("its address").to_string()
}

/// The threads of this process whose names begin so, and the signals that are blocked in them: bit
/// 0 for signal 1.
pub fn blocked_signals(name: &str) -> Vec<(String, u64)> {
    let mut threads = Vec::new();
    for thread in fs::read_dir("/proc/self/task").expect("threads").flatten() {
        // A thread can end meanwhile.
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
        let of = |field: &str| {
            status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default().trim()
        };
        if of("Name:").starts_with(name) {
            let mask = u64::from_str_radix(of("SigBlk:"), 16).expect("a mask");
            threads.push((of("Name:").to_owned(), mask));
        }
    }
    threads
}
