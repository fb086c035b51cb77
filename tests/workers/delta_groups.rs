//! Live flows whose groups coco keeps by deltas.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::server::{Server, SharedServer};

fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

const QUERY: &str = "select region, count(*) as n, sum(amount) as total, max(amount) as most from sales group by region";

const DECLARE: &str = "
    create table sales (id int primary key, region text not null, amount int not null);
    insert into sales select i, 'r' || i % 20, i from generate_series(1, 20000) i;
    select coco.create_flow('totals', 'sales',
      'select region, count(*) as n, sum(amount) as total, max(amount) as most from sales group by region',
      'totals', '{region}', source_key => '{region}', aggregate => 'delta');
    select coco.start('totals')";

#[test]
fn a_live_flow_follows_each_commit() {
    let server = shared();
    let mut db = server.database("delta_live");
    db.run(DECLARE);
    db.caught_up("totals");
    let differ = format!(
        "select count(*) from ((table totals except all ({QUERY})) union all (({QUERY}) except all table totals)) d"
    );
    assert_eq!(db.number(&differ), 0);
    for change in [
        "update sales set amount = amount + 1 where id = 1",
        "update sales set region = 'r1' where id % 500 = 0",
        "insert into sales values (30000, 'new', 1)",
        "delete from sales where region = 'r2'",
        "truncate sales",
        "insert into sales select i, 'r' || i % 3, i from generate_series(1, 5000) i",
    ] {
        db.run(change);
        db.caught_up("totals");
        assert_eq!(db.number(&differ), 0, "{change}");
    }
    db.verify("totals");
}

#[test]
fn writers_and_workers_lose_and_count_nothing_twice() {
    let server = shared();
    let mut db = server.database("delta_writers");
    db.run(DECLARE);
    db.caught_up("totals");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = |number: usize| {
        let (mut session, stop) = (server.connect("delta_writers"), stop.clone());
        std::thread::spawn(move || {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let id = (n * 7919 + number * 13) % 20000 + 1;
                // Both rows change in one transaction, and their sum stays the same. Each writer locks the row with the
                // smaller number first.
                session.run(&format!(
                    "begin; update sales set amount = amount + 1 where id = {};
                     update sales set amount = amount - 1 where id = {}; commit",
                    id.min(20001 - id),
                    id.max(20001 - id)
                ));
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    };
    let writers: Vec<_> = (0..3).map(writer).collect();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        // Each transaction is followed as a whole.
        assert_eq!(db.number("select sum(total)::int8 from totals"), 200_010_000);
        assert_eq!(db.number("select sum(n)::int8 from totals"), 20_000);
    }
    stop.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().expect("a writer goes on"));
    db.caught_up("totals");
    db.verify("totals");
}
