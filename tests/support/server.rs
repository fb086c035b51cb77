//! A server of a test's own, for what must not happen to the one that tests share: it is started with
//! settings, stopped, killed and started again. Gone at the end.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use postgres::{Client, Config, Error, NoTls};

use super::explain;

/// What is waited for comes within this time, on a busy machine too.
pub const BOUND: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(comes(BOUND, holds), "waited in vain until {what}");
}

/// Whether something becomes so within a time.
pub fn comes(bound: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > bound {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// A directory of the server's user; gone when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("coco-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        // Short: it holds a unix socket.
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if is_root() {
            done(Command::new("chown").arg("postgres").arg(&path));
        }
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// An empty data directory, which each server begins with a copy of. Made once for all tests that run
/// at a time.
fn template() -> Arc<Directory> {
    static MADE: Mutex<Weak<Directory>> = Mutex::new(Weak::new());
    let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(there) = made.upgrade() {
        return there;
    }
    let directory = Arc::new(Directory::new());
    let data = directory.0.join("data");
    done(server_command("initdb").arg("-D").arg(&data).args([
        "-U",
        "postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]));
    *made = Arc::downgrade(&directory);
    directory
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout == b"0\n"
}

/// A program of the server's, as the user that the server runs as.
fn server_command(program: &str) -> Command {
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
    let program = format!("{bin}/{program}");
    let mut command = match is_root() {
        true => {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", &program]);
            command
        }
        false => Command::new(program),
    };
    // The current directory may be closed to that user.
    command.current_dir("/");
    command
}

fn done(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub fn kill(signal: &str, pid: i32) {
    // It may be gone by itself already.
    Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(pid.to_string())
        .output()
        .expect("kill runs");
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    Fast,
    Immediate,
}

pub struct Server {
    directory: Directory,
    _template: Option<Arc<Directory>>,
    has_template_database: bool,
    /// Variables of its environment beside those of the tests.
    environment: Vec<(String, String)>,
}

impl Server {
    /// A running server with these settings beside those of all.
    pub fn start(settings: &[&str]) -> Server {
        Server::in_environment(settings, &[])
    }

    /// A running server with these settings, and these variables in its environment.
    pub fn in_environment(settings: &[&str], environment: &[(&str, &str)]) -> Server {
        let template = template();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let server = Server {
            directory: Directory::new(),
            _template: Some(template.clone()),
            has_template_database: false,
            environment: environment.iter().map(owned).collect(),
        };
        let mut copy = match is_root() {
            true => {
                let mut copy = Command::new("runuser");
                copy.args(["-u", "postgres", "--", "cp"]);
                copy
            }
            false => Command::new("cp"),
        };
        done(copy.current_dir("/").arg("-R").arg(template.0.join("data")).arg(server.data()));
        server.configure(&[
            "listen_addresses = ''",
            "port = 5432",
            // No kill of a process loses what it has written: the system still has it.
            "fsync = off",
            "max_worker_processes = 32",
            "max_connections = 60",
            "shared_buffers = 32MB",
            "log_line_prefix = '%b '",
        ]);
        let socket = format!("unix_socket_directories = '{}'", server.directory.0.display());
        server.configure(&[&socket]);
        server.configure(settings);
        server.start_again();
        server
    }

    /// A running server with coco preloaded.
    pub fn preloaded(settings: &[&str]) -> Server {
        let mut all = vec!["shared_preload_libraries = 'coco'"];
        all.extend(settings);
        Server::start(&all)
    }

    /// A streaming standby of this server.
    pub fn standby(&self) -> Server {
        let standby = Server {
            directory: Directory::new(),
            _template: None,
            has_template_database: false,
            environment: Vec::new(),
        };
        done(
            server_command("pg_basebackup")
                .args([
                    "-R",
                    "-X",
                    "stream",
                    "-c",
                    "fast",
                    "--no-sync",
                    "-d",
                    &self.url("postgres"),
                ])
                .arg("-D")
                .arg(standby.data()),
        );
        let socket = format!("unix_socket_directories = '{}'", standby.directory.0.display());
        standby.configure(&[&socket]);
        standby.start_again();
        standby
    }

    /// Appends to the settings; the last of a name counts.
    pub fn configure(&self, settings: &[&str]) {
        let path = self.data().join("postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(&path).expect("the settings open");
        for setting in settings {
            writeln!(file, "{setting}").expect("a setting is written");
        }
    }

    /// Settings, taken by the running server.
    pub fn reload(&self, settings: &[&str]) {
        self.configure(settings);
        self.control(&["reload"]);
    }

    fn data(&self) -> PathBuf {
        self.directory.0.join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.data().join("server.log")
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn control(&self, arguments: &[&str]) {
        self.try_control(arguments).unwrap_or_else(|e| panic!("{e}\n{}", self.log()));
    }

    fn try_control(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = server_command("pg_ctl");
        command.arg("-D").arg(self.data()).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Nothing to hear from: the server inherits what it is given, and would keep it open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().map_err(|e| e.to_string())?;
        status.success().then_some(()).ok_or(format!("pg_ctl {arguments:?}: {status}"))
    }

    /// Starts it, also after it was killed: what is left of it may take a moment to end.
    pub fn start_again(&self) {
        let log = self.log_file().display().to_string();
        until("the server starts", || {
            self.try_control(&["start", "-w", "-t", "60", "-l", &log]).is_ok()
        });
    }

    pub fn stop(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        self.control(&["stop", "-w", "-t", "60", "-m", mode]);
    }

    pub fn restart(&self, how: Stop) {
        self.stop(how);
        self.start_again();
    }

    /// Takes over the databases of another server with pg_upgrade. Stops both, and starts this one again.
    pub fn upgrade_from(&self, old: &Server) {
        self.stop(Stop::Fast);
        old.stop(Stop::Fast);
        let bin = std::env::var("COCO_TEST_PG_BIN")
            .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
        let mut command = server_command("pg_upgrade");
        // It writes a script into the current directory, and its servers have their socket there.
        command.current_dir(&self.directory.0).arg("-s").arg(&self.directory.0);
        command.args(["-b", &bin, "-B", &bin]);
        done(command.arg("-d").arg(old.data()).arg("-D").arg(self.data()));
        self.start_again();
    }

    pub fn promote(&self) {
        self.control(&["promote", "-w", "-t", "60"]);
    }

    /// The postmaster's process, if it runs.
    pub fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// Ends the postmaster with no chance to do anything; the others follow as they notice.
    pub fn kill(&self) {
        if let Some(pid) = self.postmaster() {
            kill("KILL", pid);
        }
    }

    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.directory.0).port(5432).user("postgres").dbname(database);
        config
    }

    pub fn url(&self, database: &str) -> String {
        format!("host={} port=5432 user=postgres dbname={database}", self.directory.0.display())
    }

    pub fn try_connect(&self, database: &str) -> Result<Client, Error> {
        self.config(database).connect(NoTls)
    }

    pub fn connect(&self, database: &str) -> Session {
        Session::new(self.try_connect(database))
    }

    pub fn connect_as(&self, database: &str, role: &str) -> Session {
        Session::new(self.config(database).user(role).connect(NoTls))
    }

    /// A database with the extension, and a session in it.
    pub fn database(&self, name: &str) -> Session {
        let mut server = self.connect("postgres");
        if self.has_template_database {
            server.run(&format!("create database {name} template {TEMPLATE_DATABASE}"));
            return self.connect(name);
        }
        server.run(&format!("create database {name} template template0"));
        let mut session = self.connect(name);
        session.run("create extension coco");
        session
    }

    /// Makes the database that later ones are copies of: a copy is there sooner than the extension is created.
    fn make_template_database(&mut self) {
        drop(self.database(TEMPLATE_DATABASE));
        // Nobody who is connected to it may be in the way of a copy, nor a worker.
        let close = format!("alter database {TEMPLATE_DATABASE} allow_connections false");
        self.connect("postgres").run(&close);
        self.has_template_database = true;
    }

    pub fn directory(&self) -> &Path {
        &self.directory.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the server's log:");
            eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        if self.postmaster().is_some() {
            self.try_control(&["stop", "-w", "-t", "60", "-m", "immediate"]).ok();
        }
    }
}

/// A database with the extension and nothing else, to which nobody can connect.
const TEMPLATE_DATABASE: &str = "coco_template";

/// A server with coco preloaded that the tests of a suite share, each with a database of its own. It runs for as long as
/// one of them has it.
pub struct SharedServer(Mutex<Weak<Server>>);

impl SharedServer {
    pub const fn new() -> SharedServer {
        SharedServer(Mutex::new(Weak::new()))
    }

    pub fn get(&self) -> Arc<Server> {
        let mut shared = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(there) = shared.upgrade() {
            return there;
        }
        let mut server = Server::preloaded(&[]);
        server.make_template_database();
        let server = Arc::new(server);
        *shared = Arc::downgrade(&server);
        server
    }
}

/// A session, whose statements must succeed.
pub struct Session(pub Client);

impl Session {
    fn new(client: Result<Client, Error>) -> Session {
        Session(client.unwrap_or_else(|e| panic!("no connection: {}", explain(&e))))
    }

    pub fn run(&mut self, sql: &str) {
        self.0.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    }

    /// The SQLSTATE and message of a statement that fails.
    pub fn fails(&mut self, sql: &str) -> String {
        let e = self.0.batch_execute(sql).expect_err(sql);
        match e.as_db_error() {
            Some(e) => format!("{} {}", e.code().code(), e.message()),
            None => e.to_string(),
        }
    }

    /// The first column of all rows, as text.
    pub fn rows(&mut self, sql: &str) -> Vec<String> {
        let sql = format!("select q::text from ({sql}) as q(q)");
        let rows = self.0.query(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
        rows.iter().map(|r| r.get::<_, Option<String>>(0).unwrap_or("NULL".to_owned())).collect()
    }

    /// The value that a query returns, as text.
    pub fn text(&mut self, sql: &str) -> String {
        self.rows(sql).pop().unwrap_or_else(|| panic!("{sql}: no row"))
    }

    pub fn number(&mut self, sql: &str) -> i64 {
        let text = self.text(sql);
        text.parse().unwrap_or_else(|_| panic!("{sql}: {text} is no number"))
    }

    pub fn holds(&mut self, sql: &str) -> bool {
        self.text(sql) == "true"
    }

    /// Waits until a query returns true.
    pub fn until(&mut self, sql: &str) {
        if !comes(BOUND, || self.holds(sql)) {
            let state = self.state();
            panic!("waited in vain until {sql}\n{state}");
        }
    }

    /// What flows and workers say of themselves, for the reader of a failure.
    pub fn state(&mut self) -> String {
        let status = "select row(flow, state, pending, failed_items, next_retry, last_error, hint)::text from coco.status";
        let mut all = self.rows(status);
        all.extend(self.rows("select w::text from coco.workers w"));
        all.join("\n")
    }

    /// Waits until a flow has followed all there is, and looks whether it is right.
    pub fn settle(&mut self, flow: &str) {
        self.caught_up(flow);
        self.verify(flow);
    }

    /// Waits until a flow has followed all there is.
    pub fn caught_up(&mut self, flow: &str) {
        if !self.holds(&format!("select coco.wait('{flow}', '60 s')")) {
            let state = self.state();
            panic!("flow {flow} does not catch up\n{state}");
        }
    }

    pub fn verify(&mut self, flow: &str) {
        let found = super::verify(&mut self.0, flow, false)
            .unwrap_or_else(|e| panic!("verify: {}", explain(&e)));
        assert!(found.is_empty(), "coco.verify of {flow} finds:\n{}", found.join("\n"));
    }
}
