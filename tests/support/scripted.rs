//! Servers of other kinds, which the scripts in scripts/servers/ start and stop.
#![allow(dead_code)] // each file of tests uses a part

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A script, and a directory for the server; that is stopped and the directory gone when it is dropped.
pub struct Scripted {
    name: &'static str,
    pub dir: PathBuf,
}

impl Scripted {
    /// Nothing is started, and the directory is not there yet.
    pub fn new(name: &'static str) -> Scripted {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = format!("coco-{name}.{}.{n}", std::process::id());
        Scripted { name, dir: std::env::temp_dir().join(dir) }
    }

    /// What the script prints.
    pub fn run(&self, command: &str, options: &[&str]) -> String {
        let output = self.output(command, options).expect("the script runs");
        assert!(output.status.success(), "{}.sh {command}: {}", self.name, output.status);
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    fn output(&self, command: &str, options: &[&str]) -> std::io::Result<Output> {
        let script = format!("scripts/servers/{}.sh", self.name);
        let mut roots = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let script = roots.find_map(|root| root.join(&script).canonicalize().ok());
        let mut call = Command::new(script.expect("the script, which the project has"));
        call.arg(command).arg(&self.dir).args(options).stderr(Stdio::inherit()).output()
    }

    /// Stops it, and removes all there is of it.
    pub fn end(&self) {
        // A test that has failed has said why; a second panic would hide it.
        self.output("stop", &[]).ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.end();
    }
}

/// The value of `name=value`, among others that a script has printed.
pub fn said_of(said: &str, name: &str) -> String {
    let mut words = said.split_whitespace();
    let value = words.find_map(|w| w.strip_prefix(name).and_then(|w| w.strip_prefix('=')));
    value.unwrap_or_else(|| panic!("no {name} in {said}")).to_owned()
}
