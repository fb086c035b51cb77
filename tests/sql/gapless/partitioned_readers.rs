//! What readers in other sessions see of a partitioned target.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::text;
use crate::support::{TestDb, explain};

#[test]
fn readers_see_all_partitions_of_one_version() {
    let mut db = TestDb::new("gapless_part_readers");
    db.run(
        "create table d (id int primary key, v int not null); insert into d select i, i from generate_series(1, 1000) i;
         create table t (id int primary key, v int not null) partition by range (id);
         create table low partition of t for values from (0) to (501);
         create table high partition of t for values from (501) to (2000);
         select coco.create_flow('f', 'd', 'select id, v from d', 't', '{id}'); select coco.update('f')",
    );
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [("t", 1000, 500_500), ("low", 500, 125_250)]
        .into_iter()
        .map(|(table, count, sum)| {
            let (mut client, done) = (db.connect(), done.clone());
            let states: Vec<String> = (1..=3).map(|n| format!("{count} {}", n * sum)).collect();
            std::thread::spawn(move || {
                let mut reads = 0;
                while !done.load(Ordering::Relaxed) {
                    let sql = format!("select concat_ws(' ', count(*), sum(v)) from {table}");
                    let row =
                        client.query_one(&sql, &[]).unwrap_or_else(|e| panic!("{}", explain(&e)));
                    let found: String = row.get(0);
                    assert!(states.contains(&found), "a reader of {table} saw {found}");
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for n in [2, 3] {
        db.run(&format!(
            "select coco.set_query('f', null, 'select id, v * {n} as v from d', gapless => true)"
        ));
        // Readers may keep the update from swapping; a call by hand waits longer.
        db.update("f", "normal");
        if text(&mut db.client, "select count(*) from coco.versions where role = 'new'") != "0" {
            db.run("select coco.swap('f')");
        }
        assert_eq!(text(&mut db.client, "select sum(v) from t"), (n * 500_500).to_string());
        db.run("drop table \"t@old\"");
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().expect("a reader saw what it should") > 0);
    }
}
