//! What readers in other sessions see and wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{fails, text, with_flow};
use crate::support::explain;

#[test]
fn a_reader_sees_one_version_or_the_other_and_never_a_part() {
    let mut db = with_flow("reader");
    db.run(
        "insert into d select i, i from generate_series(11, 2000) i; select coco.update('f');
         create view seen as select id, v from t",
    );
    // The state of each read: how many rows, and what they say of the version.
    let count = 2000;
    let sums: Vec<String> =
        (1..=4).map(|n| format!("{count} {}", n * count * (count + 1) / 2)).collect();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = ["t", "seen"]
        .into_iter()
        .map(|table| {
            let (mut client, done, sums) = (db.connect(), done.clone(), sums.clone());
            std::thread::spawn(move || {
                let (mut reads, mut versions) = (0, vec![]);
                while !done.load(Ordering::Relaxed) {
                    let sql = format!("select concat_ws(' ', count(*), sum(v)) from {table}");
                    let row =
                        client.query_one(&sql, &[]).unwrap_or_else(|e| panic!("{}", explain(&e)));
                    let found: String = row.get(0);
                    assert!(sums.contains(&found), "a reader of {table} saw {found}");
                    if versions.last() != Some(&found) {
                        versions.push(found);
                    }
                    reads += 1;
                }
                (reads, versions)
            })
        })
        .collect();
    for n in [2, 3, 4] {
        db.run(&format!(
            "select coco.set_query('f', null, 'select id, v * {n} as v from d', gapless => true, keep_old => '1 h')"
        ));
        db.update("f", "normal");
        assert_eq!(
            text(&mut db.client, "select concat_ws(' ', count(*), sum(v)) from t"),
            sums[n - 1]
        );
    }
    db.run("select coco.rollback('f')");
    assert_eq!(text(&mut db.client, "select concat_ws(' ', count(*), sum(v)) from t"), sums[2]);
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        let (reads, versions) = reader.join().expect("a reader saw what it should");
        assert!(reads > 0 && !versions.is_empty(), "{reads} {versions:?}");
    }
}

#[test]
fn a_transaction_that_has_read_the_target_keeps_it() {
    let mut db = with_flow("open");
    db.run(
        "create view seen as select id, v from t;
         select coco.set_query('f', null, 'select id, v + 1 as v from d', gapless => true)",
    );
    let mut reader = db.connect();
    reader.batch_execute("begin; select * from seen").expect("a reader");
    // The update itself succeeds, and the version waits.
    db.update("f", "normal");
    let found = text(&mut db.client, "select waits_for from coco.versions");
    assert_eq!(found, "could not obtain lock on relation public.t");
    assert_eq!(text(&mut db.client, "select v from t where id = 1"), "1");
    // Others are not held up by the attempt.
    let mut other = db.connect();
    assert_eq!(text(&mut other, "select v from t where id = 1"), "1");
    reader.batch_execute("commit").expect("a reader");
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, "select v from seen where id = 1"), "2");
}

#[test]
fn a_swap_that_is_rolled_back_leaves_all_as_it_was() {
    let mut db = with_flow("rolled_back");
    db.run(
        "create view seen as select id, v from t; grant select on t to public;
         select coco.set_query('f', null, 'select id, v + 1 as v from d', gapless => true, swap => 'manual');
         select coco.update('f')",
    );
    db.run("begin; select coco.swap('f')");
    assert_eq!(text(&mut db.client, "select v from seen where id = 1"), "2");
    db.run("rollback");
    assert_eq!(text(&mut db.client, "select v from seen where id = 1"), "1");
    assert_eq!(text(&mut db.client, super::FLOWS), "f public.t, f@new public.\"t@new\"");
    db.verify_clean("f");
    db.run("select coco.swap('f')");
    assert_eq!(text(&mut db.client, "select v from seen where id = 1"), "2");
    // Declared, filled and swapped in one transaction, too.
    db.run(
        "begin; select coco.set_query('f', null, 'select id, v + 2 as v from d', gapless => true);
         select coco.update('f'); commit",
    );
    assert_eq!(text(&mut db.client, "select v from seen where id = 1"), "3");
    fails(&mut db.client, "select * from \"t@old\"", "42P01");
    db.verify_clean("f");
}
