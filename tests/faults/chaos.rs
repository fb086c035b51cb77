//! Whatever dies, and whenever: live flows end up right.
//!
//! Writers run random transactions, and tables are altered and written anew, while workers, the launcher, sessions and
//! the whole server are ended. After each round each target equals its query over everything, and nothing is left to be
//! tried again. `COCO_CHAOS_ROUNDS` says how many rounds (`make chaos` runs 100), and `COCO_TEST_SEED` repeats what the
//! writers do.
#![cfg(all(feature = "http", feature = "postgres"))]

#[path = "chaos/flows.rs"]
mod flows;
#[path = "chaos/writers.rs"]
mod writers;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastrand::Rng;
use flows::DATABASE;

use crate::http::Receiver;
use crate::support::server::{Server, Stop, kill, until};
use writers::Shared;

const WRITERS: usize = 8;
/// What is ended in one round.
const BLOWS: usize = 3;

/// Something that a round does to the server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    KillWorker,
    EndWorker,
    CancelWorker,
    KillLauncher,
    EndLauncher,
    EndSession,
    KillPostmaster,
    StopAtOnce,
    Restart,
}

const ALL: [Blow; 9] = [
    Blow::KillWorker,
    Blow::KillPostmaster,
    Blow::EndWorker,
    Blow::StopAtOnce,
    Blow::EndLauncher,
    Blow::EndSession,
    Blow::CancelWorker,
    Blow::KillLauncher,
    Blow::Restart,
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

#[test]
fn live_flows_end_up_right_whatever_is_killed() {
    let seed = number("COCO_TEST_SEED").unwrap_or_else(|| fastrand::u64(1..1_000_000));
    let rounds = number("COCO_CHAOS_ROUNDS").unwrap_or(3) as usize;
    println!("COCO_TEST_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    // Full page writes are on by default; small segments, so that logs are rotated.
    let server = Arc::new(Server::preloaded(&[
        "coco.max_workers = 6",
        "max_worker_processes = 20",
        "max_prepared_transactions = 20",
        "coco.log_segment_size = '64kB'",
        "restart_after_crash = on",
    ]));
    let receiver = Receiver::start();
    flows::declare(&server, &receiver);
    let mut blows = (0..).map(|n: usize| match n < ALL.len() {
        // Each of them, also in a few rounds.
        true => ALL[n],
        false => ALL[rng.usize(0..ALL.len())],
    });
    for round in 1..=rounds {
        let shared = Arc::new(Shared::default());
        let writers: Vec<_> = (0..=WRITERS)
            .map(|n| {
                let (server, shared) = (server.clone(), shared.clone());
                let rng = Rng::with_seed(seed.wrapping_add((round * 100 + n) as u64));
                std::thread::spawn(move || match n {
                    0 => writers::alter(&server, rng, &shared),
                    _ => writers::write(&server, rng, &shared),
                })
            })
            .collect();
        let mut struck = vec![];
        for n in 0..=BLOWS {
            // Something is to be under way.
            let before = shared.committed.load(Ordering::Relaxed);
            let some = 20 + fastrand::usize(0..100);
            until("writers commit", || shared.committed.load(Ordering::Relaxed) >= before + some);
            if n < BLOWS {
                struck.extend(blows.next());
                strike(&server, struck[n]);
            }
        }
        shared.ending.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("a writer ends well");
        }
        settle_prepared(&server);
        println!(
            "round {round}: {} transactions, {struck:?}",
            shared.committed.load(Ordering::Relaxed)
        );
        flows::compare(&server, &receiver);
        receiver.forget_requests();
        complain(&server);
    }
}

/// Fails where a flow failed as a whole for something else than what a round does.
fn complain(server: &Server) {
    // What the postmaster says of a process that was killed names what it was doing, and so does the next worker. A lock
    // of a writer's is not waited for: the flow is tried again soon.
    let expected = [
        "Failed process was running",
        "a process was terminated by a signal while it worked on the flow",
        "could not obtain lock on relation",
        "canceling statement due to lock timeout",
        // A worker whose statement is canceled by hand.
        "canceling statement due to user request",
        // The other database goes with the server.
        "cannot be sent to",
        "could not deliver to target",
    ];
    let trouble = |l: &str| l.contains("coco: ") && !expected.iter().any(|e| l.contains(e));
    let log = server.log();
    let lines: Vec<&str> = log.lines().collect();
    // With what surrounds each: of a deadlock, the server says which processes were part of it.
    let failed: Vec<String> = (0..lines.len())
        .filter(|n| trouble(lines[*n]))
        .map(|n| lines[n.saturating_sub(15)..(n + 15).min(lines.len())].join("\n"))
        .collect();
    assert!(failed.is_empty(), "no flow fails as a whole:\n{}", failed.join("\n\n"));
}

fn strike(server: &Server, blow: Blow) {
    match blow {
        // With the process every session ends: the server starts again by itself.
        Blow::KillWorker => kill("KILL", one(server, WORKERS)),
        Blow::EndWorker => kill("TERM", one(server, WORKERS)),
        Blow::CancelWorker => kill("INT", one(server, WORKERS)),
        Blow::KillLauncher => kill("KILL", one(server, "backend_type = 'coco launcher'")),
        Blow::EndLauncher => kill("TERM", one(server, "backend_type = 'coco launcher'")),
        Blow::EndSession => kill("TERM", one(server, SESSIONS)),
        Blow::KillPostmaster => {
            server.kill();
            server.start_again();
        }
        Blow::StopAtOnce => server.restart(Stop::Immediate),
        Blow::Restart => server.restart(Stop::Fast),
    }
}

const WORKERS: &str = "backend_type in ('coco worker', 'coco helper')";
const SESSIONS: &str = "backend_type = 'client backend' and pid <> pg_backend_pid()";

/// A process of the server, of those that a condition names.
fn one(server: &Server, condition: &str) -> i32 {
    let sql = format!("select pid from pg_stat_activity where {condition}");
    let mut pids: Vec<i32> = vec![];
    until("such a process is seen", || {
        let rows = server.try_connect("postgres").and_then(|mut c| c.query(&sql, &[]));
        pids = rows.map(|r| r.iter().map(|r| r.get(0)).collect()).unwrap_or_default();
        !pids.is_empty()
    });
    pids[fastrand::usize(0..pids.len())]
}

/// Ends transactions that were prepared, and whose session was lost.
fn settle_prepared(server: &Server) {
    until("sessions of the round are gone", || {
        let gone =
            format!("select from pg_stat_activity where datname = '{DATABASE}' and {SESSIONS}");
        server
            .try_connect("postgres")
            .and_then(|mut c| c.query(&gone, &[]))
            .is_ok_and(|r| r.is_empty())
    });
    let mut db = server.connect(DATABASE);
    for name in db.rows("select gid from pg_prepared_xacts") {
        let end = if fastrand::bool() { "commit" } else { "rollback" };
        db.run(&format!("{end} prepared '{name}'"));
    }
}
