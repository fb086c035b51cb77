//! Sessions that write at random, at every isolation level, and one that changes tables under them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::flows::DATABASE;
use crate::support;
use crate::support::server::{Server, Session};

/// Rows that writers choose from.
const KEYS: std::ops::RangeInclusive<i32> = 1..=300;

/// What writers and those who end them share.
#[derive(Default)]
pub struct Shared {
    pub ending: AtomicBool,
    pub committed: AtomicUsize,
}

/// Runs random transactions until the end. What fails is begun again in another session.
pub fn write(server: &Server, mut rng: Rng, shared: &Shared) {
    each_session(server, shared, |session| {
        let (sql, prepared) = transaction(&mut rng);
        if runs(session, &sql)? {
            shared.committed.fetch_add(1, Ordering::Relaxed);
            if let Some(name) = prepared {
                let end = if rng.bool() { "commit" } else { "rollback" };
                runs(session, &format!("{end} prepared '{name}'"))?;
            }
        }
        Ok(())
    });
}

/// Changes tables, sources and targets alike, until the end.
pub fn alter(server: &Server, mut rng: Rng, shared: &Shared) {
    each_session(server, shared, |session| {
        // A migration waits for locks as long as writers can bear it.
        runs(session, "set lock_timeout = '1s'")?;
        let table = ["docs", "authors", "parts", "plain_t", "pieces_t", "cards_t", "holders"]
            [rng.usize(0..7)];
        runs(session, &alteration(&mut rng, table))?;
        std::thread::sleep(Duration::from_millis(rng.u64(10..150)));
        Ok(())
    });
}

/// The session was lost.
struct Lost;

fn each_session(
    server: &Server,
    shared: &Shared,
    mut step: impl FnMut(&mut Session) -> Result<(), Lost>,
) {
    while !shared.ending.load(Ordering::Relaxed) {
        let Ok(session) = server.try_connect(DATABASE) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let mut session = Session(session);
        while !shared.ending.load(Ordering::Relaxed) {
            if step(&mut session).is_err() {
                break;
            }
        }
    }
}

/// Whether statements went well; if not, it was another session's doing.
fn runs(session: &mut Session, sql: &str) -> Result<bool, Lost> {
    let Err(e) = session.0.batch_execute(sql) else { return Ok(true) };
    let state = e.code().map(|c| c.code().to_owned());
    let Some(state) = state.filter(|_| !session.0.is_closed()) else { return Err(Lost) };
    // Two writers were in each other's way; a lock was waited for in vain; a session is ended; a prepared transaction
    // was ended by the next one of this name.
    let expected = matches!(
        state.as_str(),
        "40P01" | "40001" | "23505" | "55P03" | "57014" | "42710" | "42704" | "55000"
    );
    assert!(expected || state.starts_with("57P"), "{sql}: {}", support::explain(&e));
    match session.0.batch_execute("rollback") {
        Ok(()) => Ok(false),
        Err(_) => Err(Lost),
    }
}

/// A transaction, and the name that it is prepared under.
fn transaction(rng: &mut Rng) -> (String, Option<String>) {
    let levels = ["read committed", "repeatable read", "serializable"];
    let mut sql = format!(
        "begin isolation level {}; set local lock_timeout = '2s';",
        levels[rng.usize(0..3)]
    );
    for _ in 0..rng.usize(1..=4) {
        sql.push_str(&statement(rng));
    }
    if rng.usize(0..3) == 0 {
        sql.push_str("savepoint s;");
        sql.push_str(&statement(rng));
        sql.push_str(["rollback to s;", "release s;"][rng.usize(0..2)]);
        sql.push_str(&statement(rng));
    }
    if rng.usize(0..40) == 0 {
        let name = format!("p{}", rng.u32(..));
        sql.push_str(&format!("prepare transaction '{name}'"));
        return (sql, Some(name));
    }
    sql.push_str(if rng.usize(0..6) == 0 { "rollback" } else { "commit" });
    (sql, None)
}

fn statement(rng: &mut Rng) -> String {
    let (a, b) = (rng.i32(KEYS), rng.i32(KEYS));
    let (author, x) = (rng.i32(1..=25), rng.i32(0..1000));
    let (s, t) = (rng.i32(1..=40), rng.i32(1..=40));
    match rng.usize(0..230) {
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
        145..170 => format!(
            "insert into parts (doc, amount) select {a} % 40, {x} from generate_series(1, 5) i;"
        ),
        170..185 => {
            format!("update parts set doc = {b} % 40 where doc = {a} % 40 and amount % 3 = 0;")
        }
        185..200 => format!("delete from parts where doc = {a} % 40;"),
        // Two holders swap their slots.
        200..218 => format!(
            "update holders set slot = case slot when {s} then {t} else {s} end where slot in ({s}, {t});"
        ),
        218..223 => "update holders set slot = slot % 40 + 1;".to_owned(),
        _ => format!("update holders set note = 'h{x}' where slot between {s} and {s} + 12;"),
    }
}

fn alteration(rng: &mut Rng, table: &str) -> String {
    let x = rng.u32(0..1000);
    match rng.usize(0..9) {
        // The first two write the table anew.
        0 => format!(
            "begin; alter table {table} add column made_{x} uuid default gen_random_uuid(); alter table {table} drop column made_{x}; commit"
        ),
        1 => format!("vacuum full {table}"),
        2 => format!(
            "alter table docs alter column spare type {} using spare::text::int",
            ["bigint", "int"][rng.usize(0..2)]
        ),
        3 => format!(
            "begin; alter table {table} rename to renamed; alter table renamed rename to {table}; commit"
        ),
        4 => format!("begin; create index made_{x} on {table} ((1)); drop index made_{x}; commit"),
        5 => format!("reindex table {table}"),
        6 => format!(
            "begin; lock table {table} in access exclusive mode; select pg_sleep(0.4); commit"
        ),
        7 => format!("vacuum analyze {table}"),
        _ => format!("alter table {table} set (fillfactor = {})", 50 + x % 50),
    }
}
