//! Whatever dies, and whenever: live flows end up right.
//!
//! Writers run random transactions, while workers and the whole server are killed under them. In the
//! end each target equals its query over everything. `COCO_TEST_SEED` repeats what the writers do,
//! `COCO_TEST_KILLS` says how often something is killed.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fastrand::Rng;
use support::server::{Server, Session, kill, until};

const WRITERS: usize = 8;
const KILLS: usize = 4;

/// Rows that writers choose from.
const KEYS: std::ops::RangeInclusive<i32> = 1..=300;

const SETUP: &str = "
create table docs (id int primary key, author int, body text not null, n int not null default 0);
create table authors (id int primary key, name text not null);
create table parts (doc int not null, no int not null, amount int not null);
insert into authors select i, 'a' || i from generate_series(1, 20) i;
insert into docs select i, i % 25, 'b' || i from generate_series(1, 200) i;
insert into parts select i % 40, i, i from generate_series(1, 400) i;
select coco.create_flow('plain', 'docs', 'select id, upper(body) as body, n from docs', 'plain_t', '{id}');
select coco.create_flow('pieces', 'docs',
  'select id, no, md5(body || no) as piece from docs, generate_series(1, n % 4) as no', 'pieces_t', '{id,no}');
select coco.create_flow('grouped', 'parts',
  'select doc, count(*) as parts, sum(amount) as amount from parts group by doc', 'grouped_t', '{doc}', source_key => '{doc}');
select coco.create_flow('named', 'docs',
  'select d.id, a.name, d.n from docs d left join authors a on a.id = d.author', 'named_t', '{id}');
select coco.add_lookup('named', 'authors', affects => 'select d.id from docs d join authors a on a.id = d.author');
";

const FLOWS: [&str; 4] = ["plain", "pieces", "grouped", "named"];

#[test]
fn live_flows_end_up_right_whatever_is_killed() {
    let seed = match std::env::var("COCO_TEST_SEED") {
        Ok(seed) => seed.parse().expect("COCO_TEST_SEED is a number"),
        Err(_) => fastrand::u64(1..1_000_000),
    };
    let kills = std::env::var("COCO_TEST_KILLS").ok().and_then(|k| k.parse().ok());
    println!("COCO_TEST_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    // Full page writes are on by default; small segments, so that logs are rotated.
    let server = Arc::new(Server::preloaded(&[
        // A worker for each flow, and some that help.
        "coco.max_workers = 8",
        "max_worker_processes = 16",
        "coco.log_segment_size = '64kB'",
        "coco.batch_size = 50",
        "restart_after_crash = on",
    ]));
    let mut db = server.database("chaos");
    db.run(SETUP);
    for flow in FLOWS {
        db.run(&format!("select coco.start('{flow}')"));
    }
    drop(db);

    let ending = Arc::new(AtomicBool::new(false));
    let committed = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let (server, ending, committed) = (server.clone(), ending.clone(), committed.clone());
            let rng = Rng::with_seed(seed.wrapping_add(1 + n as u64));
            std::thread::spawn(move || write(&server, rng, &ending, &committed))
        })
        .collect();
    for n in 0..kills.unwrap_or(KILLS) {
        // Something is to be under way.
        let before = committed.load(Ordering::Relaxed);
        let some = rng.usize(20..200);
        until("writers commit", || committed.load(Ordering::Relaxed) >= before + some);
        // The whole server in the normal suite, too.
        match if n < 2 { n } else { rng.usize(0..4) } {
            1 => {
                server.kill();
                server.start_again();
            }
            2 => server.restart(support::server::Stop::Immediate),
            _ => kill_worker(&server, &mut rng),
        }
    }
    let before = committed.load(Ordering::Relaxed);
    until("writers commit", || committed.load(Ordering::Relaxed) >= before + 50);
    ending.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().expect("a writer ends well");
    }
    let mut db = server.connect("chaos");
    println!("{} transactions", committed.load(Ordering::Relaxed));
    for flow in FLOWS {
        db.caught_up(flow);
    }
    for flow in FLOWS {
        db.verify(flow);
    }
    let failures = db.rows("select e::text from coco.errors e");
    assert!(failures.is_empty(), "no item can fail: {failures:?}");
    assert!(
        db.number("select count(*) from coco.status where state = 'live'") == 4,
        "{}",
        db.state()
    );
    // What the postmaster says of a process that was killed names what it was doing, and so does the next worker. A lock
    // of a writer's is not waited for: the flow is tried again soon.
    let expected = [
        "Failed process was running",
        "a process died while it worked on the flow",
        "could not obtain lock on relation",
        "canceling statement due to lock timeout",
    ];
    let trouble = |l: &&str| l.contains("coco: ") && !expected.iter().any(|e| l.contains(e));
    let failed: Vec<String> = server.log().lines().filter(trouble).map(str::to_owned).collect();
    assert!(failed.is_empty(), "no flow fails as a whole:\n{}", failed.join("\n"));
}

/// Kills a worker, and with it every session: the server starts again by itself.
fn kill_worker(server: &Server, rng: &mut Rng) {
    let mut pids = vec![];
    until("a worker is seen", || {
        let sql =
            "select pid from pg_stat_activity where backend_type in ('coco worker', 'coco helper')";
        let rows = server.try_connect("postgres").and_then(|mut c| c.query(sql, &[]));
        pids = rows.map(|r| r.iter().map(|r| r.get::<_, i32>(0)).collect()).unwrap_or_default();
        !pids.is_empty()
    });
    kill("KILL", pids[rng.usize(0..pids.len())]);
}

/// Random transactions, until the end. What fails is begun again in another session.
fn write(server: &Server, mut rng: Rng, ending: &AtomicBool, committed: &AtomicUsize) {
    while !ending.load(Ordering::Relaxed) {
        let Ok(session) = server.try_connect("chaos") else {
            std::thread::sleep(std::time::Duration::from_millis(20));
            continue;
        };
        let mut session = Session(session);
        while !ending.load(Ordering::Relaxed) {
            let sql = transaction(&mut rng);
            match session.0.batch_execute(&sql) {
                Ok(()) => {
                    committed.fetch_add(1, Ordering::Relaxed);
                }
                Err(e) => {
                    let state = e.code().map(|c| c.code().to_owned());
                    let expected = match state.as_deref() {
                        // Two writers were in each other's way.
                        Some("40P01" | "23505") => session.0.batch_execute("rollback").is_ok(),
                        Some(code) => code.starts_with("57P"),
                        None => true,
                    };
                    let lost = state.is_none() || session.0.is_closed();
                    assert!(expected || lost, "{sql}: {}", support::explain(&e));
                    if session.0.is_closed() || state.is_none() {
                        break;
                    }
                }
            }
        }
    }
}

fn transaction(rng: &mut Rng) -> String {
    let mut sql = "begin;".to_owned();
    for _ in 0..rng.usize(1..=4) {
        sql.push_str(&statement(rng));
    }
    if rng.usize(0..3) == 0 {
        sql.push_str("savepoint s;");
        sql.push_str(&statement(rng));
        sql.push_str(["rollback to s;", "release s;"][rng.usize(0..2)]);
        sql.push_str(&statement(rng));
    }
    sql.push_str(if rng.usize(0..6) == 0 { "rollback" } else { "commit" });
    sql
}

fn statement(rng: &mut Rng) -> String {
    let (a, b) = (rng.i32(KEYS), rng.i32(KEYS));
    let (author, x) = (rng.i32(1..=25), rng.i32(0..1000));
    match rng.usize(0..200) {
        0 => "truncate docs;".to_owned(),
        1 => "truncate parts;".to_owned(),
        2..30 => format!(
            "insert into docs values ({a}, {author}, 'x{x}', {x}) on conflict (id) do update set body = excluded.body, n = excluded.n;"
        ),
        30..50 => format!(
            "insert into docs select i, {author}, 'y{x}', i from generate_series({a}, {a} + 8) i on conflict do nothing;"
        ),
        50..80 => {
            format!("update docs set body = 'z{x}', n = n + 1 where id between {a} and {a} + 5;")
        }
        // A row takes another key, if that is free.
        80..100 => format!(
            "update docs set id = {b} where id = {a} and not exists (select from docs where id = {b});"
        ),
        100..115 => format!("delete from docs where id = {a};"),
        115..125 => format!("update docs set author = {author} where id between {a} and {a} + 3;"),
        125..140 => format!(
            "insert into authors values ({author}, 'n{x}') on conflict (id) do update set name = excluded.name;"
        ),
        140..145 => format!("delete from authors where id = {author};"),
        145..170 => {
            format!("insert into parts select {a} % 40, i, {x} from generate_series(1, 5) i;")
        }
        170..185 => {
            format!("update parts set doc = {b} % 40 where doc = {a} % 40 and amount % 3 = 0;")
        }
        _ => format!("delete from parts where doc = {a} % 40;"),
    }
}
