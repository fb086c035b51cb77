//! Many writers at once, and updates among them: whatever order they come in, nothing is lost, and
//! no writer fails for a reason of the flows'.
//!
//! `COCO_TEST_SEED` repeats what the writers do, if not when; `COCO_TEST_ROUNDS` makes it longer.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use postgres::Client;
use support::{TestDb, explain};

const WRITERS: u64 = 8;

/// Transactions of a writer, a round.
const TRANSACTIONS: usize = 60;

const FLOWS: [&str; 5] = ["rows", "groups", "parts", "listed", "of a partition"];

const SETUP: &str = "
    create table d (id int primary key, grp int not null, body text);
    create table p (id int, part int, body text, primary key (id, part)) partition by list (part);
    create table p0 partition of p for values in (0);
    create table p1 partition of p for values in (1);
    create table p2 partition of p default;
    insert into d select i, i % 20, 'first' from generate_series(1, 1500) i;
    insert into p select i, i % 3, 'first' from generate_series(1, 500) i;
    select coco.create_flow('rows', 'd', 'select id, grp, body from d', 'rows', '{id}', capture => 'trigger');
    select coco.create_flow('groups', 'd', 'select grp, count(*) as n, string_agg(body, '','' order by id) as bodies from d group by grp',
      'groups', '{grp}', source_key => '{grp}', capture => 'trigger');
    select coco.create_flow('listed', 'd', 'select grp || '' '' || id as name, body from d', 'listed', '{name}', capture => 'trigger');
    select coco.create_flow('parts', 'p', 'select id, part, body from p', 'parts', '{id,part}', capture => 'trigger');
    select coco.create_flow('of a partition', 'p1', 'select id, body from p1', 'of_p1', '{id}', source_key => '{id,part}', capture => 'trigger')";

/// Of writers among themselves: serialization, deadlock, unique.
fn is_theirs(error: &postgres::Error) -> bool {
    error.code().is_some_and(|c| ["40001", "40P01", "23505"].contains(&c.code()))
}

fn statement(rng: &mut Rng) -> String {
    let salt = rng.u32(..);
    let at = rng.usize(1..2000);
    let to = at + rng.usize(0..30);
    match rng.usize(0..100) {
        0..20 => format!(
            "insert into d select i, i % 20, '{salt}' from generate_series({at}, {to}) i
             on conflict (id) do update set body = excluded.body"
        ),
        20..35 => format!("update d set body = '{salt}' where id between {at} and {to}"),
        35..45 => format!("update d set grp = {} where id between {at} and {to}", salt % 25),
        45..52 => format!("update d set id = id + {} where id between {at} and {to}", salt % 2000),
        52..60 => format!("delete from d where id between {at} and {to}"),
        60..66 => format!("update d set body = '{salt}' where id % 2 = {}", salt % 2),
        66..67 => "truncate d".to_owned(),
        67..75 => format!(
            "insert into p select i, i % 3, '{salt}' from generate_series({at}, {to}) i
             on conflict (id, part) do update set body = excluded.body"
        ),
        75..80 => format!("update p set part = {} where id between {at} and {to}", salt % 4),
        80..85 => format!("update p1 set body = '{salt}' where id between {at} and {to}"),
        85..90 => format!("delete from p where id between {at} and {to}"),
        90..92 => format!("update p set body = '{salt}'"),
        92..93 => "truncate p2".to_owned(),
        93..94 => "truncate p".to_owned(),
        _ => format!("insert into p0 values ({}, 0, '{salt}') on conflict do nothing", at + 5000),
    }
}

fn transaction(client: &mut Client, rng: &mut Rng, name: &str) -> Result<(), postgres::Error> {
    let level = ["read committed", "read committed", "repeatable read", "serializable"];
    client.batch_execute(&format!("begin isolation level {}", level[rng.usize(0..level.len())]))?;
    for _ in 0..rng.usize(1..5) {
        match rng.usize(0..5) {
            0 => {
                client.batch_execute("savepoint s")?;
                client.batch_execute(&statement(rng))?;
                let end = ["rollback to s", "release s", "rollback to s; release s"];
                client.batch_execute(end[rng.usize(0..end.len())])?;
            }
            _ => client.batch_execute(&statement(rng))?,
        }
    }
    match rng.usize(0..12) {
        0 | 1 => client.batch_execute("rollback"),
        2 => {
            client.batch_execute(&format!("prepare transaction '{name}'"))?;
            let end = ["commit prepared", "rollback prepared"][rng.usize(0..2)];
            client.batch_execute(&format!("{end} '{name}'"))
        }
        _ => client.batch_execute("commit"),
    }
}

fn write(client: &mut Client, mut rng: Rng, transactions: usize, name: &str) {
    let mut done = 0;
    for _ in 0..transactions {
        match transaction(client, &mut rng, name) {
            Ok(()) => done += 1,
            Err(e) if is_theirs(&e) => {
                client.batch_execute("rollback").unwrap_or_else(|e| panic!("{}", explain(&e)));
            }
            Err(e) => panic!("a writer fails: {}", explain(&e)),
        }
    }
    assert!(done > 0, "{name} never came through");
}

/// Updates flows, in an order of its own, now and then several in a transaction that is rolled back
/// or writes on.
fn follow(client: &mut Client, mut rng: Rng, stop: &AtomicBool) {
    let mut updates = 0;
    client.batch_execute("set coco.log_segment_size = '64kB'").expect("a setting");
    while !stop.load(Ordering::Relaxed) || updates == 0 {
        let flow = FLOWS[rng.usize(0..FLOWS.len())];
        let sql = match rng.usize(0..10) {
            0 => format!("begin; select coco.update('{flow}'); rollback"),
            1 => format!(
                "begin; update d set body = 'own' where id = {}; select coco.update('{flow}');
                 savepoint s; delete from d where id = {}; select coco.update('{flow}');
                 rollback to s; insert into p values ({}, 1, 'own') on conflict do nothing; commit",
                rng.usize(1..2000),
                rng.usize(1..2000),
                rng.usize(1..2000),
            ),
            2 => format!(
                "begin isolation level repeatable read; select coco.update('{flow}'); commit"
            ),
            _ => format!("select coco.update('{flow}')"),
        };
        match client.batch_execute(&sql) {
            Ok(()) => updates += 1,
            Err(e) if e.code().is_some_and(|c| ["40001", "40P01"].contains(&c.code())) => {
                client.batch_execute("rollback").unwrap_or_else(|e| panic!("{}", explain(&e)));
            }
            Err(e) => panic!("{sql}: {}", explain(&e)),
        }
    }
}

#[test]
fn no_change_of_many_writers_is_lost() {
    let number = |name| std::env::var(name).ok().and_then(|r| r.parse::<u64>().ok());
    let seed = number("COCO_TEST_SEED").unwrap_or_else(|| fastrand::u64(1..1_000_000));
    println!("COCO_TEST_SEED={seed}");
    let mut db = TestDb::new("concurrent");
    db.run(SETUP);
    let mut rotations = std::collections::BTreeSet::new();
    // ROUNDS is that of the property tests, of which a few hundred are many.
    for round in 0..number("COCO_TEST_ROUNDS").map_or(1, |r| r.div_ceil(100).max(1)) {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let mut client = db.connect();
                let rng = Rng::with_seed(seed + round * 100 + w);
                std::thread::spawn(move || {
                    write(&mut client, rng, TRANSACTIONS, &format!("coco_concurrent_{w}"))
                })
            })
            .collect();
        let followers: Vec<_> = (0..2)
            .map(|f| {
                let (mut client, stop) = (db.connect(), stop.clone());
                let rng = Rng::with_seed(seed + round * 100 + 50 + f);
                std::thread::spawn(move || follow(&mut client, rng, &stop))
            })
            .collect();
        let failed = writers.into_iter().map(|w| w.join()).filter(Result::is_err).count();
        stop.store(true, Ordering::Relaxed);
        let failed =
            failed + followers.into_iter().map(|f| f.join()).filter(Result::is_err).count();
        assert_eq!(failed, 0, "sessions failed: COCO_TEST_SEED={seed}");
        for flow in FLOWS {
            let c = db.update(flow, "normal").remove(0);
            assert_eq!(c.failed, 0, "{flow}: {c:?}");
            db.verify_clean(flow);
            let again = db.update(flow, "normal").remove(0);
            assert_eq!(again.seen, 0, "{flow}, round {round}: {again:?} COCO_TEST_SEED={seed}");
        }
        let sql = "select segment from coco_internal.capture order by id limit 1";
        rotations.insert(db.client.query_one(sql, &[]).expect("a segment").get::<_, i32>(0));
    }
    println!("the log of d was in segments {rotations:?} at the ends of rounds");
}
