//! Files of the server as rows, and views as sources whose ordinal says what is new.

mod flows;
mod listed;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use postgres::Client;

use crate::support::{TestDb, explain};

/// A directory that the server's user can read; removed at the end.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Files {
        let path = std::env::temp_dir().join(format!("coco_{name}_{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let files = Files(path);
        files.directory("");
        files
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        mode(&path, 0o755);
        path
    }

    /// Writes a file that was last changed `age` seconds before now.
    fn write(&self, name: impl AsRef<Path>, content: &[u8], age: u64) {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        mode(&path, 0o644);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }

    /// Writes a file anew, and leaves the time of its last change as it was.
    fn write_unnoticed(&self, name: &str, content: &[u8]) {
        let path = self.0.join(name);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, content).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.join(name)).unwrap();
    }

    fn sql(&self) -> String {
        format!("'{}'", self.0.display())
    }

    /// The paths that a glob gives, in order.
    fn list(&self, db: &mut TestDb, glob: &str) -> String {
        let sql = format!(
            "select coalesce(string_agg(path, ' ' order by path collate \"C\"), '') from coco.local_files({}, $1)",
            self.sql()
        );
        let row = db.client.query_one(&sql, &[&glob]);
        row.unwrap_or_else(|e| panic!("{glob}: {}", explain(&e))).get(0)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

fn fails(client: &mut Client, sql: &str, sqlstate: &str, says: &[&str]) {
    let e = client.batch_execute(sql).expect_err(sql);
    let said = explain(&e);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {said}");
    for part in says {
        assert!(said.contains(part), "{sql}: {said} lacks {part}");
    }
}
