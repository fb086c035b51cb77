//! Live flows: workers on real servers, through all that happens to servers.

mod databases;
mod declared_again;
mod failing;
mod following;
mod idle;
mod processes;
mod quiet;
mod roles;
mod versions;
mod waiting;

use std::sync::Arc;

use crate::support::server::{Server, Session, SharedServer};

/// A server with coco preloaded, for tests that need nothing of their own but a database.
fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

/// A flow `f` from table `f_s` (id, v) to table `f_t` (id, twice v).
fn declare(db: &mut Session, f: &str) {
    db.run(&format!(
        "create table {f}_s (id int primary key, v int not null);
         insert into {f}_s select i, i from generate_series(1, 100) i;
         select coco.create_flow('{f}', '{f}_s', 'select id, v * 2 as v from {f}_s', '{f}_t', '{{id}}')"
    ));
}

fn started(db: &mut Session, f: &str) {
    declare(db, f);
    db.run(&format!("select coco.start('{f}')"));
    db.settle(f);
}

fn state(db: &mut Session, f: &str) -> String {
    db.text(&format!("select state from coco.status where flow = '{f}'"))
}

/// The processes of workers in this database.
const WORKERS: &str = "select pid from pg_stat_activity
  where backend_type = 'coco worker' and datname = current_database()";

fn worker(db: &mut Session) -> i32 {
    db.until(
        "select count(*) > 0 from pg_stat_activity
               where backend_type = 'coco worker' and datname = current_database()",
    );
    db.number(WORKERS) as i32
}

/// Items evaluated by the workers of this database, when they have done what they are doing.
fn evaluated(db: &mut Session) -> i64 {
    db.until("select bool_and(state = 'waiting') from coco.workers");
    db.number("select sum(evaluated) from coco.workers")
}

fn is_quiet(line: &str) -> bool {
    let words = ["ERROR", "FATAL", "PANIC", "WARNING", "coco"];
    // The rest of a message of several lines begins with a tab.
    let rest = line.starts_with('\t') || line.contains("listening on");
    // Autovacuum, too, finds now and then that a database has just been dropped.
    let vacuum = line.contains("autovacuum worker") && line.contains("does not exist");
    // What CREATE EXTENSION says on an older minor release, and the lines after it.
    let release = ["coco needs PostgreSQL", "check_server_version", "minor release"];
    let old = release.iter().any(|words| line.contains(words));
    rest || vacuum || old || !words.iter().any(|word| line.contains(word))
}

/// Lines of a server's log that somebody would look into.
fn noise(server: &Server) -> Vec<String> {
    server.log().lines().filter(|l| !is_quiet(l)).map(str::to_owned).collect()
}

/// Noise, but for what a restart makes.
fn noise_of_restarts(server: &Server) -> Vec<String> {
    let ends = ["terminating ", "database system", "exited with exit code 1", "CONTEXT"];
    noise(server).into_iter().filter(|l| !ends.iter().any(|e| l.contains(e))).collect()
}
