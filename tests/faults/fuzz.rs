//! Random declarations by an ordinary role, rows that a superuser forged in coco's own tables, and random texts: no
//! process ends by a signal, nothing panics, a target that was updated or repaired equals its query, and chunks stand
//! where they say. `make fuzz` runs it.
//!
//! `COCO_FUZZ_SECONDS` says how long, and `COCO_TEST_SEED` repeats a run.

#[cfg(all(feature = "documents", feature = "code"))]
#[path = "fuzz/extract.rs"]
mod extract;
#[path = "fuzz/forged.rs"]
mod forged;
#[path = "fuzz/grammar.rs"]
mod grammar;
#[path = "fuzz/texts.rs"]
mod texts;

use crate::{ground, support};

use std::time::{Duration, Instant};

use fastrand::Rng;
use grammar::Grammar;
use ground::{DATABASE, Ground};
use support::server::Session;

/// A run's random numbers, and when it ends.
pub struct Run {
    pub rng: Rng,
    seed: u64,
    ends: Instant,
}

impl Run {
    fn new() -> Run {
        let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
        let seed = number("COCO_TEST_SEED").unwrap_or_else(|| fastrand::u64(1..1_000_000));
        println!("COCO_TEST_SEED={seed}");
        let seconds = number("COCO_FUZZ_SECONDS").unwrap_or(30);
        Run { rng: Rng::with_seed(seed), seed, ends: Instant::now() + Duration::from_secs(seconds) }
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.ends
    }
}

/// Runs a statement that may fail; the server must answer, and say more than that it failed inside.
pub fn tries(session: &mut Session, sql: &str, seed: u64, log: &[String]) -> bool {
    let Err(e) = session.0.batch_execute(sql) else { return true };
    let said = support::explain(&e);
    let code = e.code().map(|c| c.code().to_owned()).unwrap_or_default();
    // XX: internal errors and panics; an unnamed one: the connection is gone.
    if code.is_empty() || said.contains("panicked") || code == "XX000" && said.contains("unwrap") {
        panic!("COCO_TEST_SEED={seed}\n{}\n{sql}\n  {said}", log.join("\n"));
    }
    false
}

/// Tables of mallory's whose rows change at random.
const TABLES: &str = r#"create table a (id int primary key, t text, n numeric, b boolean);
  create table "B ""x""" ("Id" bigint primary key, "select" text not null default 'x', grp int not null default 1);
  create table parts (id int, k text, v int, primary key (id, k)) partition by list (k);
  create table parts_x partition of parts for values in ('x'); create table parts_rest partition of parts default;
  create view seen as select id, t, n from a;
  create type mood as enum ('sad', 'ok'); create domain small as int check (value < 1000000);
  create table typed (id small primary key, m mood, r int4range, j jsonb, ts timestamptz, arr text[], d small);
  create function twice(int) returns int language sql immutable as 'select $1 * 2';
  create function words(text) returns setof text language sql stable as $q$ select w from unnest(string_to_array($1, ' ')) w $q$;
  create function row_text(a) returns text language sql stable as 'select $1.t';
  select coco.memoize('mal.twice(int)');"#;

#[test]
#[ignore = "runs for as long as make fuzz says"]
fn declarations_at_random() {
    let mut run = Run::new();
    let mut ground = Ground::new();
    let mut mallory = ground.role("mallory");
    mallory.run(TABLES);
    mallory.run("set statement_timeout = '10s'");
    let (mut declared, mut tried) = (0, 0);
    while run.goes_on() {
        tried += 1;
        let mut log = Vec::new();
        let mut grammar = Grammar::new(&mut run.rng);
        let declaration = grammar.declaration(tried);
        log.push(declaration.sql.clone());
        if tries(&mut mallory, &declaration.sql, run.seed, &log) {
            declared += 1;
            for _ in 0..4 {
                let step = Grammar::new(&mut run.rng).step(&declaration);
                log.push(step.clone());
                tries(&mut mallory, &step, run.seed, &log);
            }
            equal(&mut mallory, &declaration, run.seed, &log);
            tries(
                &mut mallory,
                &format!("select coco.drop_flow({}, false)", declaration.flow),
                run.seed,
                &log,
            );
        }
        if tried % 50 == 0 {
            ground.alive();
        }
    }
    println!("{tried} declarations, {declared} accepted");
    assert!(declared > 0, "nothing was accepted of {tried}");
    drop(mallory);
    ground.unharmed();
}

/// Where every item is evaluated by itself alone and none fails, the target is the query's rows.
fn equal(session: &mut Session, d: &grammar::Declaration, seed: u64, log: &[String]) {
    let (Some(query), true) = (&d.plain, d.in_database) else { return };
    let update = format!("select coalesce(sum(failed), 0)::text from coco.update({})", d.flow);
    let Ok(rows) = session.0.query(&update, &[]) else { return };
    if rows.first().is_none_or(|r| r.get::<_, String>(0) != "0") {
        return;
    }
    let sql = format!(
        "select count(*)::text from ((select (q.*)::text from ({query}) q except all select (t.*)::text from {target} t)
         union all (select (t.*)::text from {target} t except all select (q.*)::text from ({query}) q)) d",
        target = d.target
    );
    // A query that fails over everything is no measure.
    if let Ok(rows) = session.0.query(&sql, &[]) {
        let wrong: String = rows[0].get(0);
        assert_eq!(wrong, "0", "COCO_TEST_SEED={seed}\n{}\n{sql}", log.join("\n"));
    }
}

#[test]
#[ignore = "runs for as long as make fuzz says"]
fn rows_forged_at_random() {
    let mut run = Run::new();
    let mut ground = Ground::new();
    forged::declare(&mut ground);
    let mut rounds = 0;
    while run.goes_on() {
        rounds += 1;
        forged::round(&mut ground, &mut run, rounds);
    }
    println!("{rounds} rounds");
    assert!(ground.server.try_connect(DATABASE).is_ok());
    ground.unharmed();
}

#[test]
#[ignore = "runs for as long as make fuzz says"]
fn texts_at_random() {
    let mut run = Run::new();
    let mut ground = Ground::new();
    let mut mallory = ground.role("mallory");
    let mut rounds = 0;
    while run.goes_on() {
        texts::round(&mut mallory, &mut run.rng, run.seed, rounds);
        if rounds % 100 == 0 {
            texts::deep(&mut mallory, &mut run.rng, run.seed);
        }
        if rounds % 1000 == 0 {
            texts::cancel(&mut ground, &mut run.rng, run.seed);
            ground.alive();
        }
        rounds += 1;
    }
    println!("{rounds} texts");
    drop(mallory);
    ground.unharmed();
}

#[test]
#[ignore = "runs for as long as make fuzz says"]
#[cfg(all(feature = "documents", feature = "code"))]
fn files_at_random() {
    let mut run = Run::new();
    let mut ground = Ground::new();
    let mut mallory = ground.role("mallory");
    let mut rounds = 0;
    while run.goes_on() {
        extract::round(&mut mallory, &mut run.rng, run.seed);
        rounds += 1;
        if rounds % 1000 == 0 {
            ground.alive();
        }
    }
    println!("{rounds} files");
    drop(mallory);
    ground.unharmed();
}
